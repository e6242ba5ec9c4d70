"""Time between tokens: which text had which part of which pass, and what the stored figures say of it."""

from __future__ import annotations

import json

import pytest

from accelgen.measuring import chunks
from accelgen.measuring.rows import Chunks, Share, read
from accelgen.project.places import RESULTS
from reference_impls.speculative_decoding import sarathi


def stored() -> Chunks:
    return read(Chunks, json.loads((RESULTS / "chunks.json").read_text(encoding="utf-8")))


def test_shares_and_gaps_of_a_small_queue_worked_out_by_hand() -> None:
    """Prompts of 2, 5 and 1 tokens that go on by 2, 1 and 1, in one place, with three tokens a pass."""
    feeds = [[2], [1], [3], [2], [1]]
    found = chunks.shares(feeds, lengths=[2, 5, 1], limits=[2, 1, 1])
    assert [(share.turn, share.text, share.tokens, share.writes) for share in found] == [
        (0, 0, 2, True),
        (1, 0, 1, True),
        (2, 1, 3, False),
        (3, 1, 2, True),
        (4, 2, 1, True),
    ]
    assert chunks.gaps(found, [0.0, 10.0, 14.0, 20.0, 30.0, 31.0]) == [4.0]


def test_gaps_are_those_of_each_text() -> None:
    found = [Share(turn=turn, text=text, tokens=1, writes=True) for turn in (0, 2, 3) for text in (0, 1)]
    assert chunks.gaps(found, [0.0, 1.0, 3.0, 7.0, 15.0]) == [6.0, 8.0, 6.0, 8.0]


def test_the_method_is_as_before_afterwards() -> None:
    before = sarathi.fill
    with pytest.raises(TypeError):
        chunks.serve(None, 99)
    assert sarathi.fill is before


def test_the_queue_has_prompts_of_its_lengths() -> None:
    assert tuple(map(len, chunks.prompts())) == chunks.QUEUE


def test_the_stored_figures_belong_together() -> None:
    found = stored()
    prompts, limits = found.settings["prompts"], found.settings["limits"]
    assert [row.budget or chunks.WHOLE for row in found.rows] == [*chunks.BUDGETS]
    for row in found.rows:
        read_by, wrote = [0] * len(prompts), [0] * len(prompts)
        passes = [0] * row.passes
        for share in row.shares:
            read_by[share.text] += share.tokens
            wrote[share.text] += share.writes
            passes[share.turn] += share.tokens
        assert wrote == limits
        assert read_by == [prompt + limit - 1 for prompt, limit in zip(prompts, limits, strict=True)]
        assert max(passes) <= (row.budget or chunks.WHOLE)
        assert len(row.times) == row.passes + 1
        assert row.times == sorted(row.times)
    assert stored().rows[0].speedup == 1


def test_what_is_stored_is_the_schedule_of_today() -> None:
    """Of the tightest budget, whose passes are most; the times are those of its own machine."""
    row = stored().rows[-1]
    feeds, times = chunks.serve(chunks.method.example()["target"], row.budget or 0)
    assert chunks.shares(feeds, chunks.QUEUE, chunks.LIMITS) == row.shares
    assert len(times) == len(row.times)
