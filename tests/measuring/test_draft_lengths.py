"""The profile of a batch and what its table gains: no figure of time is judged, only what follows from it."""

from __future__ import annotations

import json

import pytest

from accelgen.measuring import draft_lengths, machine
from accelgen.measuring.rows import DraftLengths, read
from accelgen.project.places import RESULTS
from reference_impls.speculative_decoding.speculative_batching_synergy import best_lengths
from reference_impls.testing.tiny import language_model


def stored() -> DraftLengths:
    return read(DraftLengths, json.loads((RESULTS / "draft-lengths.json").read_text(encoding="utf-8")))


def test_a_pass_is_timed_over_so_many_tokens_of_each_row_behind_the_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock moves by the tokens that a pass reads; prompts and the first round are not counted."""
    model, seconds = language_model(7), [0.0]
    embed = model.embed

    def spending(tokens: list[int]) -> object:
        seconds[0] += len(tokens) / 1000
        return embed(tokens)

    model.embed = spending  # type: ignore[method-assign]
    monkeypatch.setattr(machine, "now", lambda: seconds[0])
    monkeypatch.setattr(draft_lengths, "texts", lambda _, rows: [[3, 1, 4][: 1 + row % 3] for row in range(rows)])
    found = draft_lengths.pass_times(model, [1, 4], range(1, 4), passes=2)
    assert found == pytest.approx({(b, s): float(b * s) for b in (1, 4) for s in (1, 2, 3)})


def test_the_stored_figures_belong_together() -> None:
    found = stored()
    tokens = range(1, len(found.kept) + 1)
    target = {(row.rows, s): row.target[s - 1] for row in found.profile for s in tokens}
    drafter = {row.rows: row.drafter for row in found.profile}
    assert [(row.rows, row.best) for row in found.profile] == best_lengths(target, drafter, found.kept)
    assert found.kept == sorted(found.kept)
    assert found.kept[0] == 0
    assert [row.rows for row in found.profile] == sorted({row.rows for row in found.served}) == [*draft_lengths.SIZES]
    for size in draft_lengths.SIZES:
        own = [row for row in found.served if row.rows == size]
        assert [row.length for row in own] == [*draft_lengths.FIXED, None]
        assert own[0].speedup == 1
        assert {row.pairs for row in own} == {found.settings["rounds"]}


def test_the_example_has_the_table_that_was_measured() -> None:
    assert draft_lengths.method.example()["table"] == tuple((row.rows, row.best) for row in stored().profile)


def test_what_is_kept_is_what_the_models_keep_today() -> None:
    models = {name: model for name, model in draft_lengths.method.example().items() if name != "table"}
    counts = draft_lengths.kept_counts(models, limit=16)
    assert set(counts) <= set(range(draft_lengths.LONGEST + 1))
    mean = sum(counts) / len(counts)
    assert mean == pytest.approx(stored().kept[-1], abs=0.5)  # of the beginnings alone
