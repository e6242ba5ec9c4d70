"""Divergences of laws: each is its sum, and none where the laws agree."""

import math
from typing import get_args

import pytest
import torch

from reference_impls.core.distillation import Divergence, divergence

MUTANTS = [
    ("kl-of-the-other-direction", "return kl(log_p, log_q)", "return kl(log_q, log_p)"),
    ("mixture-weights-swapped", "(log_p + math.log(beta)).clamp(min=least), (log_q + math.log(1 - beta))",
     "(log_p + math.log(1 - beta)).clamp(min=least), (log_q + math.log(beta))"),
    ("total-variation-not-halved", ".abs().sum(-1) / 2", ".abs().sum(-1)"),
    ("laws-in-half-precision", "wide(logits)", "logits.dtype"),
    ("what-never-comes-costs-everything", ".where(log_a > -math.inf, 0)", ""),
    ("one-law-for-many", "taught.shape != learnt.shape or ", ""),
    ("mixture-of-impossible-tokens", "(log_p + math.log(beta)).clamp(min=least)", "(log_p + math.log(beta))"),
    ("mixture-of-one-law-alone", "if not 0 < beta < 1:", "if not 0 <= beta <= 1:"),
]  # fmt: skip

KINDS: tuple[Divergence, ...] = get_args(Divergence)
P, Q = [0.5, 0.3, 0.2], [0.2, 0.5, 0.3]


def by_hand(p, q, kind, beta):
    """The divergence of two laws, term by term."""

    def kl(a, b):
        return sum(x * math.log(x / y) for x, y in zip(a, b, strict=True))

    m = [beta * x + (1 - beta) * y for x, y in zip(p, q, strict=True)]
    return {
        "forward-kl": kl(p, q),
        "reverse-kl": kl(q, p),
        "jensen-shannon": beta * kl(p, m) + (1 - beta) * kl(q, m),
        "total-variation": 1 - sum(map(min, p, q)),
    }[kind]


def logits(law):
    """Logits of a law; a constant is added, which means nothing."""
    return torch.tensor(law, dtype=torch.float64).log() + 0.7


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beta", [0.5, 0.1])
def test_each_divergence_is_its_sum(kind, beta):
    found = divergence(logits(P), logits(Q), kind, beta)
    assert float(found) == pytest.approx(by_hand(P, Q, kind, beta), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_divergences_vanish_where_the_laws_agree_and_nowhere_else(kind):
    assert float(divergence(logits(P), logits(P) + 3, kind)) == pytest.approx(0, abs=1e-12)
    rows = torch.randn(2, 50, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = divergence(rows[0], rows[1], kind)
    assert found.shape == (50,)
    assert (found > 1e-3).all()


def test_jensen_shannon_is_symmetric_and_at_most_log_two():
    both = [divergence(*pair, "jensen-shannon") for pair in ((logits(P), logits(Q)), (logits(Q), logits(P)))]
    assert float(both[0]) == pytest.approx(float(both[1]), abs=1e-12)
    apart = torch.tensor([[60.0, 0, 0], [0, 60.0, 0]], dtype=torch.float64)
    assert float(divergence(apart[0], apart[1], "jensen-shannon")) == pytest.approx(math.log(2), abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_that_both_laws_lack_changes_neither_divergence_nor_gradient(kind):
    found, slopes = [], []
    for lacking in (0, 1):
        p, q = (logits([*law, *[0.0] * lacking]) for law in (P, Q))
        q.requires_grad_()
        found.append(divergence(p, q, kind, 0.3))
        found[-1].backward()
        slopes.append(q.grad)
    assert float(found[1].detach()) == pytest.approx(float(found[0].detach()), abs=1e-12)
    torch.testing.assert_close(slopes[1], torch.cat((slopes[0], torch.zeros(1, dtype=torch.float64))))


@pytest.mark.parametrize("kind", ["forward-kl", "reverse-kl", "jensen-shannon", "total-variation"])
def test_a_token_that_one_law_lacks_costs_what_the_sums_say(kind):
    """Where nothing is shared: log 2 and 1, and infinity for a divergence that divides by what is impossible."""
    wanted = {"jensen-shannon": math.log(2), "total-variation": 1.0}.get(kind, math.inf)
    assert float(divergence(logits([1.0, 0.0]), logits([0.0, 1.0]), kind)) == pytest.approx(wanted, abs=1e-12)


def test_laws_of_half_precision_are_compared_in_float32():
    assert divergence(logits(P).bfloat16(), logits(Q).bfloat16(), "forward-kl").dtype == torch.float32


def test_what_is_no_divergence_is_one_sentence():
    for beta in (0.0, 1.0):
        with pytest.raises(ValueError, match=f"beta is {beta}"):
            divergence(logits(P), logits(Q), "jensen-shannon", beta)
    with pytest.raises(ValueError, match="kind is 'kl'; choose forward-kl"):
        divergence(logits(P), logits(Q), "kl")
    for p, q in ((torch.zeros(3), torch.zeros(2, 3)), (torch.zeros(0), torch.zeros(0))):
        with pytest.raises(ValueError, match="give both logits of the same places"):
            divergence(p, q, "forward-kl")


def test_a_token_that_never_comes_costs_nothing():
    p, q = torch.tensor([0.5, 0.5, 0.0]).log(), torch.tensor([0.25, 0.25, 0.5]).log()
    assert divergence(p, q, "forward-kl").item() == pytest.approx(math.log(2))
    assert divergence(p, q, "jensen-shannon").isfinite()
