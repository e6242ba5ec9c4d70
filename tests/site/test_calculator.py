"""The calculator's page without its script: numbers are the formulas', fields are described, our example adds up."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from accelgen.project.files import read_json
from accelgen.project.places import RESULTS, ROOT
from accelgen.site.results import Results
from accelgen.site.views import VIEWS, calculator
from accelgen.taxonomy.loading import load_taxonomy
from reference_impls.speculative_decoding import speculative_decoding_leviathan as method

TAXONOMY = load_taxonomy()
ACCEPTANCE: dict[str, Any] = read_json(RESULTS / "acceptance.json") or {}
ROW = {
    "id": calculator.DRAFTER,
    "setting": f"temperature {ACCEPTANCE['temperature']:g}, gamma {ACCEPTANCE['gamma']}",
    "tokens_per_pass": 2.0,
}
MEASURED = ROW | {"speedup": 1.6, "speedup_q1": 1.5, "speedup_q3": 1.7, "pairs": 30}
BENCH = {
    "settings": {"prompts": 30},
    "rows": [MEASURED | {"setting": "greedy, gamma 4", "speedup": 9.0}, MEASURED],
}
COSTS = {"rows": [ROW | {"target": 1.3, "draft": 0.4, "rest": 0.2, "predicted": 1.0, "runs": 30}]}
PAGE = calculator.page(TAXONOMY, Results(acceptance=ACCEPTANCE, bench=BENCH, costs=COSTS))


def rows(heading: str, number: int = 0) -> list[list[str]]:
    """The cells below the head of a section's table."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    table = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)[number]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


class Tags(HTMLParser):
    """The elements of the form, with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))


def test_it_stands_in_the_navigation_and_its_script_is_loaded():
    names = list(VIEWS)
    assert names.index("calculator") == names.index("replay") + 1
    assert "assets/calculator.js" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


def test_the_first_result_is_that_of_the_method_s_own_formulas():
    alpha, gamma, c = 0.8, 4, 0.1
    shown = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", PAGE))
    best = method.best_gamma(alpha, c)
    assert shown == {
        "Tokens a pass, n": f"{method.expected_tokens(alpha, gamma):.2f}",
        "Check, r": "1.00",
        "Draft and check, γc + r": "1.40",
        "Speedup, S": f"{method.speedup(alpha, gamma, c):.2f}",
        "Best draft length": f"{best} ({method.speedup(alpha, best, c):.2f})",
        "Target's arithmetic a token": f"× {5 / method.expected_tokens(alpha, gamma):.2f}",
    }
    assert "<p>With α = 0.8, γ = 4, c = 0.1, b = 1, ρ = 295:</p>" in PAGE


def test_every_field_has_a_label_a_hint_and_a_place_for_what_is_wrong():
    tags = Tags()
    tags.feed(PAGE)
    labels = {attributes["for"] for tag, attributes in tags.found if tag == "label"}
    ids = [attributes["id"] for _, attributes in tags.found if "id" in attributes]
    alerts = {attributes.get("id") for _, attributes in tags.found if attributes.get("role") == "alert"}
    inputs = [attributes for tag, attributes in tags.found if tag == "input"]
    assert len(ids) == len(set(ids))
    assert [attributes["name"] for attributes in inputs] == [field.name for field in calculator.FIELDS]
    for attributes in inputs:
        described = (attributes["aria-describedby"] or "").split()
        assert attributes["id"] in labels
        assert set(described) <= set(ids)
        assert alerts & set(described)
    forms = [attributes for tag, attributes in tags.found if tag == "form"]
    assert ["hidden" in attributes for attributes in forms] == [True]  # it does nothing without the script


@pytest.mark.parametrize("alpha", calculator.ALPHAS)
def test_the_table_by_cost_is_the_method_s_formulas(alpha):
    shown = next(row for row in rows("At a glance") if row[0] == f"α = {alpha}")
    for c, cell in zip(calculator.COSTS, shown[1:], strict=True):
        best = method.best_gamma(alpha, c)
        assert cell == (f"{method.speedup(alpha, best, c):.2f} (γ {best})" if best else "none gains")


def test_the_table_by_batch_divides_seconds_by_seconds():
    """A pass reads for 1 s, or computes for tokens / ridge seconds, whichever takes longer; so does the drafter's."""
    ridge, alpha, c = 989 / 3.35, 0.8, 0.1
    for cells in rows("At a glance", 1):
        batch = int(cells[0])
        plain = max(1, batch / round(ridge))
        for gamma, cell in zip(calculator.GAMMAS, cells[1:-1], strict=True):
            seconds = gamma * c * plain + max(1, batch * (gamma + 1) / round(ridge))
            assert cell == f"{method.expected_tokens(alpha, gamma) * plain / seconds:.2f}"
    assert rows("At a glance", 1)[-1][-1] == "none gains"


def test_machines_are_shown_with_what_was_read_and_its_source():
    for machine in calculator.MACHINES:
        assert machine.ridge == round(machine.operations / machine.bandwidth)  # 2 bytes a weight, 2 operations
        assert f'data-ridge="{machine.ridge}"' in PAGE
        assert machine.source in PAGE
        assert f"{machine.operations / 1e12:g} · 10" in PAGE
        assert f"{machine.bandwidth / 1e12:g} · 10" in PAGE


def test_our_own_chances_stand_beside_one_for_all_and_their_lengths_are_right():
    one, by_place, errors, measured = rows("Where the formula fails")
    gamma, alpha = ACCEPTANCE["gamma"], ACCEPTANCE["expected_overlap"]
    assert one[1:] == [f"{alpha:.3f}"] * gamma + [f"{method.expected_tokens(alpha, gamma):.3f}"]
    assert by_place[1:-1] == [f"{chance:.3f}" for chance in ACCEPTANCE["conditional"]]
    assert by_place[-1] == measured[-1] == f"{ACCEPTANCE['tokens_per_pass']:.3f}"
    reached = ACCEPTANCE["rounds"]
    for chance, error in zip(ACCEPTANCE["conditional"], errors[1:-1], strict=True):
        assert error == f"± {math.sqrt(chance * (1 - chance) / reached):.3f}"
        reached *= chance  # of the drafts that got to this place, as many get past it
    link = re.search(r'href="\?acceptance=([\d.,]+)&amp;gamma=(\d+)#calculator"', PAGE)
    assert link
    assert [float(part) for part in link[1].split(",")] == pytest.approx(ACCEPTANCE["conditional"], abs=5e-5)
    assert int(link[2]) == gamma


def test_the_benchmark_s_row_is_that_of_the_same_settings_and_errors_are_relative_to_it():
    one, by_place = rows("Where the formula fails", 1)
    promised = ACCEPTANCE["promised_tokens_per_pass"], ACCEPTANCE["tokens_per_pass"]
    for cells, tokens in zip((one, by_place), promised, strict=True):
        assert cells[1:] == [f"{tokens:.3f}", f"{tokens / 2.0 - 1:+.1%}".replace("-", "−")]


def test_with_the_costs_of_calls_it_predicts_the_speedup_too():
    gamma, promised = ACCEPTANCE["gamma"], ACCEPTANCE["promised_tokens_per_pass"]
    wanted = [
        ("1.40", promised / 1.4),  # a free check: 4 guesses of 0.1, and a pass
        ("1.90", promised / 1.9),  # with the costs of the target's pass and of the rest
        ("1.90", ACCEPTANCE["tokens_per_pass"] / 1.9),
    ]
    *rows_, measured = rows("Where the formula fails", 2)
    for cells, (total, speed) in zip(rows_, wanted, strict=True):
        assert cells[1:] == [total, f"{speed:.2f}", f"{speed / 1.6 - 1:+.1%}".replace("-", "−")]
    assert measured == ["measured", "–", "1.60", "–"]
    assert f"{gamma} guesses $\\gamma c$ = 0.40 passes over one token, the target's pass 1.30" in PAGE


def test_without_results_the_calculator_still_stands():
    bare = calculator.page(TAXONOMY, Results())
    assert bare.startswith(PAGE.split("## Where the formula fails")[0])
    assert "not computed yet" in bare
    assert "timed" not in calculator.page(TAXONOMY, Results(acceptance=ACCEPTANCE, bench=BENCH))
    assert "benchmark" not in calculator.page(TAXONOMY, Results(acceptance=ACCEPTANCE, bench={"rows": []}))


def test_the_concept_pages_lead_here():
    for name in ("when-speculation-loses", "acceptance-and-residual"):
        text = (ROOT / "docs" / "concepts" / f"{name}.md").read_text(encoding="utf-8")
        assert "(../explore/calculator.md)" in text
