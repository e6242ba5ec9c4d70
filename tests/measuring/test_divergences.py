"""Ways to distil: each drafter learns in the way that its row names, and the zoo has the best of them."""

import json
from dataclasses import replace
from typing import get_args

import torch

from accelgen.measuring import divergences
from accelgen.measuring.rows import DistilledRow, rows_of
from accelgen.project.places import RESULTS
from accelgen.site.results import Results
from accelgen.site.views import VIEWS, distilled
from accelgen.taxonomy.loading import load_taxonomy
from accelgen.training.corpora import Corpus
from accelgen.training.recipes.distillspec import RECIPE
from accelgen.training.shelf import Shelf
from reference_impls.speculative_decoding.distillspec import Divergence
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


def test_a_row_for_each_side_and_temperature(monkeypatch):
    asked = []

    def counted(_, drafter, side):
        asked.append((drafter, side))
        return {"temperature_0.8": {"acceptance": 0.5, "tokens_per_pass": len(asked)}}

    monkeypatch.setattr(divergences, "acceptance", counted)
    drafters = [("a", 0.0, small_shelf().load("drafter")), ("b", 0.5, small_shelf().load("drafter"))]
    monkeypatch.setattr(divergences, "drafters", lambda *_: iter(drafters))
    rows = list(divergences.measure(small_shelf()))
    assert [(row.way, row.on_policy, row.side, row.tokens_per_pass) for row in rows] == [
        ("a", 0.0, "development", 1), ("a", 0.0, "test", 2), ("b", 0.5, "development", 3), ("b", 0.5, "test", 4),
    ]  # fmt: skip
    assert {row.setting for row in rows} == {"temperature 0.8"}
    assert [drafter for drafter, _ in asked[::2]] == [drafter for *_, drafter in drafters]


def test_the_stored_figures_are_of_every_way_on_both_sides():
    assert [(row.way, row.on_policy) for row in ROWS[::6]] == WAYS
    assert {(row.side, row.setting) for row in ROWS} == {
        (side, f"temperature {t}") for side in ("development", "test") for t in ("0", "0.8", "1")
    }
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
    def row(way, side, setting, acceptance):
        return DistilledRow(
            way=way, on_policy=0.0, side=side, setting=setting, acceptance=acceptance, tokens_per_pass=1
        )

    rows = [
        row("a", "development", "x", 0.9), row("a", "development", "y", 0.1), row("a", "test", "x", 1.0),
        row("b", "development", "x", 0.6), row("b", "development", "y", 0.5), row("b", "test", "x", 0.0),
    ]  # fmt: skip
    assert distilled.chosen(rows).way == "b"
