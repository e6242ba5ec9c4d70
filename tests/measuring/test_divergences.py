"""Ways to distil: each drafter learns in the way that its row names, and the zoo has the best of them."""

import json
from dataclasses import replace
from itertools import product
from typing import get_args

import pytest
import torch

from accelgen.measuring import divergences
from accelgen.measuring.rows import DistilledRow, rows_of
from accelgen.project.places import RESULTS
from accelgen.site.results import Results
from accelgen.site.views import VIEWS, distilled
from accelgen.taxonomy.loading import load_taxonomy
from accelgen.training.corpora import Corpus
from accelgen.training.recipes.distillspec import LIMIT, RECIPE, acceptance, written
from accelgen.training.shelf import Shelf
from reference_impls.core.distillation import Divergence
from reference_impls.core.sampling import Sampler
from reference_impls.zoo.storage import facts

STORED = json.loads((RESULTS / "divergences.json").read_text(encoding="utf-8"))
ROWS = rows_of(DistilledRow, STORED)
WAYS = [
    (divergences.BEFORE, 0.0),
    (divergences.TEXT, 0.0),
    *((kind, share) for kind in get_args(Divergence) for share in (0.0, 0.5)),
]


def small_shelf() -> Shelf:
    """The zoo's models, on a text that needs no reading."""
    return Shelf(read=lambda _: Corpus(["x = [1, 2, 3]\n" * 200], [], {}, {}))


def test_every_drafter_learns_in_its_own_way_from_the_same_beginning():
    shelf = small_shelf()
    found = list(divergences.drafters(shelf, replace(RECIPE.settings, steps=1, batch=2, length=8)))
    assert [(way, share) for way, share, _ in found] == WAYS
    weights = [torch.cat([p.detach().flatten() for p in drafter.parameters()]) for *_, drafter in found]
    before = torch.cat([p.flatten() for p in shelf.load("drafter").parameters()])
    assert torch.equal(weights[0], before)
    assert all(not torch.equal(own, before) for own in weights[1:])


def test_gains_are_over_the_first_drafter_on_the_same_texts(monkeypatch):
    kept = {"a": [0.5, 0.7], "b": [0.6, 0.9]}
    plain, other = (small_shelf().load("drafter") for _ in range(2))
    monkeypatch.setattr(divergences, "acceptance", lambda _, drafter, *__: kept["a" if drafter is plain else "b"])
    monkeypatch.setattr(divergences, "written", lambda *_: [])
    monkeypatch.setattr(divergences, "drafters", lambda *_: iter([("a", 0.0, plain), ("b", 0.5, other)]))
    rows = list(divergences.measure(small_shelf()))
    assert [(row.way, row.on_policy, row.side, row.temperature) for row in rows] == [
        (way, share, side, t)
        for way, share in (("a", 0.0), ("b", 0.5)) for side in ("development", "test") for t in (0.0, 0.8, 1.0)
    ]  # fmt: skip
    assert {(row.acceptance, row.gain, row.margin) for row in rows[:6]} == {(0.6, 0.0, 0.0)}
    (found,) = {(round(row.acceptance, 9), round(row.gain, 9), round(row.margin, 9)) for row in rows[6:]}
    assert found == (0.75, 0.15, round(1.96 * 0.05, 9))  # gains of .1 and .2: deviation .1 / sqrt(2), of a mean of two


def test_acceptance_is_the_overlap_of_the_laws_on_the_target_s_own_text(monkeypatch):
    monkeypatch.setattr("accelgen.training.recipes.distillspec.PROMPTS", 1)
    shelf = small_shelf()
    target, drafter = shelf.load("target"), shelf.load("drafter")
    for temperature in (0.0, 0.8):
        sampler, ((prompt, text),) = Sampler(temperature), written(shelf, "test", temperature)
        assert len(text) == LIMIT
        p, q = (sampler.probs(model([*prompt, *text]))[len(prompt) - 1 : -1] for model in (target, drafter))
        overlap = float(torch.minimum(p, q).sum(-1).mean())
        assert acceptance(shelf, drafter, [(prompt, text)], temperature) == [pytest.approx(overlap, abs=1e-5)]
        assert acceptance(shelf, target, [(prompt, text)], temperature) == [pytest.approx(1.0, abs=1e-5)]


def test_the_stored_figures_are_of_every_way_on_both_sides():
    assert [(row.way, row.on_policy) for row in ROWS[::6]] == WAYS
    assert {(row.side, row.temperature) for row in ROWS} == set(product(("development", "test"), (0.0, 0.8, 1.0)))
    assert len(ROWS) == 6 * len(WAYS)
    assert {name: STORED[name] for name in ("steps", "batch", "length")} == {
        name: getattr(RECIPE.settings, name) for name in ("steps", "batch", "length")
    }


def test_the_zoo_has_the_drafter_that_was_best_on_development_prompts():
    best = distilled.chosen(ROWS)
    made = facts("drafter-distilled")["recipe"]
    assert (best.way, best.on_policy) == (made["kind"], made["on_policy"])
    assert (best.way, best.on_policy) == (RECIPE.settings.kind, RECIPE.settings.on_policy)


def test_the_page_shows_every_row_and_says_what_is_missing():
    taxonomy = load_taxonomy()
    text = VIEWS["distilling"][1](taxonomy, Results(divergences=STORED))
    assert text.count("| development |") == text.count("| test |") == 3 * len(WAYS)
    assert f"is that of {distilled.chosen(ROWS).learned_from};" in text
    assert "Not measured yet" in VIEWS["distilling"][1](taxonomy, Results())


def test_the_best_way_is_chosen_on_development_prompts_by_the_mean():
    def row(way, side, temperature, acceptance):
        own = {"way": way, "side": side, "temperature": temperature, "acceptance": acceptance}
        return DistilledRow(**own, on_policy=0.0, gain=0.0, margin=0.0)

    rows = [
        row("a", "development", 0.0, 0.9), row("a", "development", 1.0, 0.1), row("a", "test", 0.0, 1.0),
        row("b", "development", 0.0, 0.6), row("b", "development", 1.0, 0.5), row("b", "test", 0.0, 0.0),
    ]  # fmt: skip
    assert distilled.chosen(rows).way == "b"
