"""Formulas in plain text: what a terminal and a README show."""

import re

import pytest

from accelgen.exports.formulas import in_plain_text
from accelgen.taxonomy.loading import load_taxonomy


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (r"up to $\gamma$ tokens", "up to γ tokens"),
        (r"$\gamma + 1$ and $\Gamma$, $\lambda$", "γ + 1 and Γ, λ"),
        (r"at least $1 - \varepsilon$", "at least 1 - ε"),
        (r"mass $\min(p, q)$, then $\max(0, p - q)$", "mass min(p, q), then max(0, p - q)"),
        (r"$-\log p(x)$", "-log p(x)"),
        (r"$\frac{1 - \alpha^{\gamma+1}}{1 - \alpha}$", "(1 - α^(γ+1)) / (1 - α)"),
        (r"$\tfrac{p}{q}$, $1 - \frac12 p$", "p / q, 1 - 1 / 2 p"),
        (r"$x_1, \dots, x_\gamma$", "x_1, …, x_γ"),
        (r"$y_{<i}$, $p_{12}$, $p_{i+1}$", "y_(<i), p_12, p_(i+1)"),
        (r"$\{0, 1\}^{2L}$", "{0, 1}^2L"),
        (r"$\mathrm{norm}(\max(0, p - q))$", "norm(max(0, p - q))"),
        (r"$0.9\,\lambda\!\left(1\right)$", "0.9λ(1)"),
        (r"$q = \prod_k q_k$", "q = ∏_k q_k"),
        (r"$$a \le b$$", "a ≤ b"),
        (r"$p(y \mid x) \neq q$", "p(y | x) ≠ q"),
        ("`$HOME` and `a$b`, 5 $", "`$HOME` and `a$b`, 5 $"),
        ("no formula\n  at all", "no formula\n  at all"),
    ],
)
def test_a_formula_is_read_without_being_set(text, wanted):
    assert in_plain_text(text) == wanted


def test_no_sign_of_tex_is_left_in_what_the_taxonomy_says():
    for method in load_taxonomy().methods:
        said = [method.principle or "", method.guarantee_reason, *method.advantages, *method.limitations]
        text = " ".join(map(in_plain_text, [*said, *method.when_to_use, *method.when_not, *method.notes]))
        plain = re.sub(r"`+[^`]*`+", "", text)
        assert "\\" not in plain, method.id
        assert "$" not in plain, method.id
