"""What is peculiar to SARATHI: chunks that equal the whole, budgets that are kept, and texts that never stall."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import pytest
import torch
from defaults import defaults_of

from reference_impls.baselines.autoregressive import generate as plain
from reference_impls.core.batch import Batch
from reference_impls.core.generation import Generation
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding import sarathi
from reference_impls.speculative_decoding.sarathi import fill, generate, largest_batch
from reference_impls.testing.tiny import varied_model

MUTANTS = [
    ("prompts-before-texts-being-written", "counts = [int(n == 1) for n in unread]",
     "counts = [0 for n in unread]\n    unread = [n if n > 1 else 2 - n for n in unread]"),
    ("chunk-of-the-whole-budget", "min(n, budget - sum(counts))", "min(n, budget)"),
    ("newest-prompt-first", "in enumerate(unread):", "in reversed([*enumerate(unread)]):"),
    ("one-prompt-a-pass", "counts[i] = min(n, budget - sum(counts))",
     "counts[i] = min(n, budget - sum(counts))\n            break"),
    ("chunk-begins-again", "row.text[held : held + count]", "row.text[:count]"),
    ("token-drawn-after-every-chunk", "if batch.lengths[row.place] == len(row.text)]", "if batch.lengths[row.place]]"),
    ("place-not-emptied", "0 if place in gone else held", "held"),
    ("others-emptied-too", "0 if place in gone else held", "0"),
    ("ended-texts-stay", "if row not in ended]", "if True]"),
    ("waiting-passes-counted", "row.passes += count > 0", "row.passes += 1"),
    ("passes-never-counted-anew", "passes=self.passes), 0", "passes=self.passes), self.passes"),
    ("budget-below-its-rows", "if budget < rows:", "if budget < 1:"),
    ("weights-take-no-room", "(memory - weights) //", "memory //"),
]  # fmt: skip

PROMPTS = [[5, 3, 8, 1], [2], [7, 7, 0, 4, 9, 6, 2], [1, 0, 1, 0, 5, 5, 5, 9, 3, 8, 8, 2, 6]]


def run(limits: list[int], prompts: list[list[int]] = PROMPTS, **given: Any) -> list[Generation]:
    return generate(varied_model(), prompts[: len(limits)], limits, sampler=Sampler(0), **given)


def passes_of(monkeypatch: pytest.MonkeyPatch, limits: list[int], **given: Any) -> list[list[int]]:
    """How many tokens each text that runs feeds to each pass, oldest first."""
    found: list[list[int]] = []

    def noted(budget: int, unread: list[int]) -> list[int]:
        found.append(fill(budget, unread))
        return found[-1]

    monkeypatch.setattr(sarathi, "fill", noted)
    run(limits, **given)
    return found


# ---- the schedule -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [3, 4, 7, 50])
def test_a_pass_is_filled_decodes_first_then_prompts_in_order(budget: int) -> None:
    for unread in itertools.product([1, 2, 6], repeat=3):
        counts = fill(budget, unread)
        assert sum(counts) <= budget
        assert all(0 <= count <= n for count, n in zip(counts, unread, strict=True))
        assert all(count == 1 for count, n in zip(counts, unread, strict=True) if n == 1)
        if sum(counts) < budget:  # nothing is left over that could have been read
            assert counts == list(unread)
        prompts = [(count, n) for count, n in zip(counts, unread, strict=True) if n > 1]
        cut = [count < n for count, n in prompts]
        assert cut == sorted(cut)
        assert all(count == 0 for count, _ in prompts[(*cut, True).index(True) + 1 :])


def test_the_passes_of_a_small_queue_worked_out_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts of 4, 1, 7 and 13 tokens, two places, five tokens a pass; the third comes when the second has ended."""
    assert passes_of(monkeypatch, [4, 2, 3, 1], budget=5, rows=2) == [
        [4, 1],  # both prompts whole: each draws its first token
        [1, 1],  # the second text is complete
        [1, 4],  # the third prompt begins
        [1, 3],  # and ends; the first text is complete
        [1, 4],  # the fourth prompt begins
        [1, 4],  # the third text is complete
        [5],
    ]


def test_passes_are_counted_from_the_first_chunk_and_a_row_that_waits_has_none() -> None:
    rows = run([4, 2, 3, 1], budget=5, rows=2)
    assert [[step.passes for step in row.steps] for row in rows] == [[1, 1, 1, 1], [1, 1], [2, 1, 1], [3]]
    late = run([1, 1], [[5, 3, 8, 1], [7, 7]], budget=2, rows=2)  # the second has a place, and no room in two passes
    assert [[step.passes for step in row.steps] for row in late] == [[2], [1]]


@pytest.mark.parametrize(("budget", "places"), [(4, 4), (5, 2), (9, 3), (64, 4)])
def test_no_pass_goes_over_the_budget_and_no_text_that_is_being_written_waits(budget: int, places: int) -> None:
    target, read = varied_model(), list[int]()
    embed = target.embed

    def noted(tokens: Any) -> Any:
        read.append(len(tokens))
        return embed(tokens)

    target.embed = noted  # type: ignore[method-assign]
    rows = generate(target, PROMPTS, [9, 7, 5, 3], sampler=Sampler(0), budget=budget, rows=places)
    del target.embed
    assert max(read) <= budget
    assert sum(read) == sum(map(len, PROMPTS)) + sum(len(row.tokens) - 1 for row in rows)  # nothing is read twice
    assert all(step.passes == 1 for row in rows for step in row.steps[1:])


def test_tokens_of_chunks_and_riders_go_through_the_layers_together(monkeypatch: pytest.MonkeyPatch) -> None:
    target, seen = varied_model(), []
    feed = target.blocks[1].feed
    monkeypatch.setattr(target.blocks[1], "feed", lambda x: seen.append(tuple(x.shape)) or feed(x))
    generate(target, PROMPTS[:3], [3, 3, 1], sampler=Sampler(0), budget=6, rows=3)
    assert seen == [(6, 8), (6, 8), (4, 8)]  # 4 + 1 + 1; 1 + 1 + 4; 1 + 1 + 2


# ---- chunks equal the whole ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1, 2, 3, 5, 12, 13, 99])
def test_keys_values_and_logits_of_a_chunked_prompt_are_those_of_the_whole(
    budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, batches, read = varied_model(), list[Batch](), list[torch.Tensor]()

    class Kept(Batch):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            batches.append(self)

    class Seen(Sampler):
        def probs(self, logits: torch.Tensor) -> torch.Tensor:
            read.append(logits)
            return super().probs(logits)

    monkeypatch.setattr(sarathi, "Batch", Kept)
    generate(target, PROMPTS[3:], [1], sampler=Seen(0), budget=budget, rows=1)
    cache = target.new_cache()
    with torch.no_grad():
        logits = target(PROMPTS[3], cache, last=1)
    torch.testing.assert_close(read[0], logits, rtol=1e-10, atol=1e-10)
    for layer in range(target.shape.layers):
        for held, wanted in zip(
            batches[0]._store[layer, :, 0, :, : len(PROMPTS[3])], cache.entries(layer), strict=True
        ):
            torch.testing.assert_close(held, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("budget", [4, 6, 30])
@pytest.mark.parametrize("places", [1, 2, 4])
def test_texts_are_what_they_are_alone_whichever_places_they_come_to(budget: int, places: int) -> None:
    """Eight texts, so that every place is used again."""
    prompts, limits = PROMPTS + PROMPTS[::-1], [5, 1, 9, 3, 2, 8, 4, 6]
    rows = run(limits, prompts, budget=budget, rows=places)
    for prompt, limit, row in zip(prompts, limits, rows, strict=True):
        assert row.tokens == plain(varied_model(), prompt, limit, sampler=Sampler(0)).tokens


def test_a_batch_is_no_larger_than_there_are_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(sarathi, "Batch", lambda target, rows: made.append(rows) or Batch(target, rows))
    run([2, 0, 2], budget=64, rows=16)
    assert made == [2]


# ---- the rest -----------------------------------------------------------------------------------------------------


def test_memory_says_how_many_texts_run() -> None:
    assert largest_batch(memory=100, weights=40, longest=5, token=3) == 4
    assert largest_batch(memory=100, weights=41, longest=5, token=3) == 3
    assert largest_batch(memory=54, weights=40, longest=5, token=3) == 0
    assert largest_batch(memory=30, weights=40, longest=5, token=3) == 0  # the weights alone are too large


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"budget": 3, "rows": 4}, "the budget of 3 tokens a pass is below 4 rows"),
        ({"budget": 0, "rows": 0}, "rows is 0; at least 1 text"),
    ],
)
def test_a_budget_in_which_a_text_would_have_to_wait_is_refused(given: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        run([2, 2], **given)


def test_defaults_are_the_documented_ones() -> None:
    found = defaults_of(importlib.import_module("reference_impls.speculative_decoding.sarathi"))
    assert found == {"generate.budget": 256, "generate.rows": 16, "Row.place": -1, "Row.passes": 0}
