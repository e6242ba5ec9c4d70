"""The concept pages: their examples run and print what they show, and their figures are those of the stored results."""

from __future__ import annotations

import doctest
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from accelgen.project.places import RESULTS, ROOT
from accelgen.site.pages import CONCEPTS
from reference_impls.zoo.storage import manifest

FOLDER = ROOT / "docs" / "concepts"
BLOCK = re.compile(r"^```pycon\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def failures(page: str, name: str) -> int:
    """Run the examples of a page, all its blocks in one namespace; how many print something else."""
    blocks = BLOCK.findall(page)
    assert blocks, f"{name} has no example"
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, name, name, 0)
    return doctest.DocTestRunner().run(test).failed


@cache
def text(name: str) -> str:
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")


def plain(name: str) -> str:
    return " ".join(text(name).split())


@pytest.mark.parametrize("name", CONCEPTS)
def test_the_examples_of_a_page_print_what_they_show(name: str) -> None:
    assert failures(text(name), name) == 0


def test_an_example_that_prints_something_else_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert failures("```pycon\n>>> 1 + 1\n2\n\n```\n\n```pycon\n>>> 1 + 1\n3\n\n```\n", "made up") == 1
    assert "Expected:\n    3\nGot:\n    2" in capsys.readouterr().out


@pytest.mark.parametrize("name", CONCEPTS)
def test_a_page_has_a_lead_and_a_figure_that_can_be_read_without_seeing_it(name: str) -> None:
    assert text(name).count('<p class="lead">') == 1
    figures = re.findall(r'<figure class="fig.*?</figure>', text(name), re.DOTALL)
    assert len(figures) == 1
    assert figures[0].count("<figcaption>") == 1
    assert figures[0].count("<svg ") == len(
        re.findall(r'<svg viewBox="[\d ]+" role="img" aria-label="[^"]{30,}">', text(name))
    )
    assert max(len(line) for line in text(name).split("```")[0].split("<figure")[0].splitlines()) <= 170


def test_every_page_is_in_the_navigation() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.md")) == sorted(CONCEPTS)


def percent(value: float) -> str:
    return f"{100 * value:.1f} %".replace("100.0", "100")


def test_figures_of_translation_are_those_of_the_zoo() -> None:
    zoo: dict[str, Any] = manifest()
    lite, spelling = zoo["translation-masked"]["quality"], zoo["spelling-masked"]["quality"]
    for passes in (1, 4, 10):
        one, other = lite[f"iterations {passes}"], spelling[f"iterations {passes}"]
        row = [passes, percent(one["exact_match"]), percent(other["exact_match"]), percent(other["mixed"])]
        assert f"| {' | '.join(map(str, row))} |" in text("iterative-refinement")
    assert f"in {percent(1 - spelling['iterations 10']['right_length'])} of the inputs" in plain("iterative-refinement")
    raw = zoo["translation-masked"]["quality_without_distillation"]["iterations 1"]
    plans = zoo["translation-fertility"]["quality_without_distillation"]
    chain = zoo["translation-crf"]["quality"]
    pairs = [
        (spelling["iterations 1"]["mixed"], "mixed", spelling["iterations 10"]["mixed"]),
        (raw["exact_match"], "right", lite["iterations 1"]["exact_match"]),
        (plans["likeliest plan"]["exact_match"], "right", plans["100 plans"]["exact_match"]),
        (chain["logits alone, length known"]["exact_match"], "right", chain["chain, length known"]["exact_match"]),
    ]
    for without, what, with_ in pairs:
        assert f"| {percent(without)} {what} | {percent(with_)} {what} |" in text("multimodality")


def test_figures_of_the_language_models_are_those_of_the_zoo() -> None:
    zoo: dict[str, Any] = manifest()
    found = zoo["exit-classifier"]["quality"]["calibration"]
    layers = found["mean_layers"][str(found["threshold"])]
    assert f"on {found['prompts']} prompts, that is {found['threshold']}" in plain("confidence-and-calibration")
    assert f"a token takes {layers:.1f} of 24 layers" in plain("confidence-and-calibration")
    assert rf"$\delta = {found['delta']}$ and $\varepsilon = {found['epsilon']}$" in plain("confidence-and-calibration")
    probe = zoo["exit-classifier"]["quality"]["held_out_probe_accuracy"].values()
    shares = f"{100 * min(probe):.0f} to {100 * max(probe):.0f} % of held-out places"
    assert shares in plain("confidence-and-calibration")
    hits = zoo["drafter-boosted"]["quality"]["held_out_coverage"]
    assert f"best in {hits['drafter']:.0%}".replace("%", " %") in plain("token-trees")
    assert f"best two in {hits['drafter, top 2']:.0%}".replace("%", " %") in plain("token-trees")


def test_times_of_refinement_are_those_of_the_benchmark() -> None:
    path = RESULTS / "bench.json"
    rows = json.loads(Path(path).read_text(encoding="utf-8"))["rows"]
    one, four, ten = (row["speedup"] for row in rows if row["id"] == "mask-predict")
    assert (int(one), round(four), round(ten)) == (4, 2, 1)
    said = "one pass is more than four times as fast, four are about twice as fast, and ten save next to nothing"
    assert said in plain("iterative-refinement")
