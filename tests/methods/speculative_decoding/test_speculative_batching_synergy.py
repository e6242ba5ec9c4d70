"""What is peculiar to adaptive speculation length: rows that grow apart, the table, and the profile it is made from."""

from __future__ import annotations

import importlib
import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from defaults import defaults_of

from reference_impls import zoo
from reference_impls.baselines.autoregressive import generate as plain
from reference_impls.core.batch import Batch
from reference_impls.core.drafting import draft_chain
from reference_impls.core.generation import Generation
from reference_impls.core.sampling import Sampler
from reference_impls.core.verify import verify_chain
from reference_impls.speculative_decoding.speculative_batching_synergy import (
    best_lengths,
    draft_length,
    draft_rows,
    example,
    generate,
    mean_kept,
    staying,
    verify_rows,
)
from reference_impls.testing.checks import counted
from reference_impls.testing.laws import autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import flat_model, language_model, table_model, varied_model

MUTANTS = [
    ("length-of-the-first-batch", "draft_length(table, len(running)), [row", "draft_length(table, len(every)), [row"),
    ("guesses-that-cannot-be-emitted", "row.left - 1) for row", "row.left) for row"),
    ("drafter-never-rolled-back", "for each in (batch, draft_batch):", "for each in (batch,):"),
    ("ended-rows-stay", "each.keep(stay)", "pass"),
    ("rows-in-the-places-of-others", "running = [running[place] for place in stay]",
     "running = [row for row, on in zip(running, goes_on, strict=True) if on]"),
    ("rows-cut-to-the-shortest", ".cumprod(1).sum(1)", ".cumprod(1).sum(1).amin().expand(len(p))"),
    ("guesses-kept-after-a-rejection", ".cumprod(1).sum(1)", ".sum(1)"),
    ("padding-kept", "/ q_drawn, 0.0)", "/ q_drawn, 1.0)"),
    ("extra-token-of-the-target-itself", "residual(p, F.pad(q, (0, 0, 0, 1)))", "p"),
    ("laws-of-other-rows", "scatter_(active[:, None]", "scatter_(active.sort(descending=True).values[:, None]"),
    ("drafter-forgets-its-guesses", "[[*text, *draft][held:] if on", "[[*text, *draft][-1:] if on"),
    ("everything-read-again", "each.crop([len(row.text) - 1 for", "each.crop([0 for"),
    ("cheapest-pass-wins", " / (kept[s] + 1)", ""),
    ("draft-for-free", "s * drafter[b]", "drafter[b]"),
    ("pass-without-the-last-token", "target[b, s + 1] + s", "target[b, max(1, s)] + s"),
    ("line-between-sizes-rounded-up", "* (rows - size) // (larger - size)", "* (rows - size) / (larger - size)"),
]  # fmt: skip

PROMPTS = [[5, 3, 8, 1], [2], [7, 7, 0, 4, 9, 6, 2]]


def run(target: Any, limits: list[int], table: Any, temperature: float = 0.0, **more: Any) -> list[Generation]:
    given = {"drafter": language_model(target.shape.vocab, seed=1001, layers=1)} | more
    return generate(target, PROMPTS[: len(limits)], limits, sampler=Sampler(temperature), table=table, **given)


# ---- rows that grow apart -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 3, 6])
def test_a_drafter_that_is_always_right_needs_no_more_passes_than_the_length_allows(length: int) -> None:
    """In every row, whatever the others do; a stale place of either model would cost guesses."""
    target, limits = varied_model(), [12, 5, 9]
    with counted(target=target.blocks[0]) as calls:
        rows = run(target, limits, [[1, length]], drafter=target)
    wanted = [-(-limit // (length + 1)) for limit in limits]
    assert [row.passes for row in rows] == wanted
    assert all(row.acceptance in (1.0, None) for row in rows)
    assert [row.draft_passes for row in rows] == [n - p for n, p in zip(limits, wanted, strict=True)]
    if length == 0:
        assert calls["target"] == max(limits)  # plain decoding of a batch: the drafter is never called


def test_a_drafter_that_slept_reads_all_that_it_missed() -> None:
    """Two rows draft nothing; the one that stays drafts, and every guess of a perfect drafter is kept."""
    rows = run(varied_model(), [4, 13], [[1, 2], [2, 0]], drafter=varied_model())
    assert [step.kept for step in rows[0].steps] == [0] * 4
    assert [step.kept for step in rows[1].steps] == [0] * 4 + [2] * 3


def test_the_length_is_looked_up_for_the_rows_that_still_run() -> None:
    """A turn is the same step of all rows that run, and no row drafts more than it may still emit."""
    table, limits = [[1, 5], [2, 3], [3, 1]], [3, 9, 20]
    rows = run(varied_model(), limits, table)
    for turn in range(max(len(row.steps) for row in rows)):
        running = [(row, n) for row, n in zip(rows, limits, strict=True) if len(row.steps) > turn]
        for row, limit in running:
            done = sum(len(step.emitted) for step in row.steps[:turn])
            assert len(row.steps[turn].drafted) == min(dict(table)[len(running)], limit - done - 1)
    assert {len(row.steps) for row in rows} != {len(rows[0].steps)}


def test_rows_keep_different_numbers_of_guesses_in_one_pass() -> None:
    rows = run(varied_model(), [30, 30, 30], [[1, 3]], drafter=varied_model(5))
    turns = list(zip(*([step.kept for step in row.steps] for row in rows), strict=False))
    assert any(len(set(kept)) > 1 for kept in turns)
    for prompt, row in zip(PROMPTS, rows, strict=True):
        assert row.tokens == plain(varied_model(), prompt, 30, sampler=Sampler(0)).tokens


def test_a_pass_reads_what_is_new_of_each_row_and_its_guesses_alone() -> None:
    target, read = varied_model(), []
    embed = target.embed

    def noted(tokens: Any) -> Any:
        read.append(len(tokens))
        return embed(tokens)

    target.embed = noted  # type: ignore[method-assign]
    rows = run(target, [1, 4, 4], [[1, 2]])
    del target.embed
    first = sum(map(len, PROMPTS)) + 0 + 2 + 2
    assert read[0] == first
    for turn in range(1, len(read)):
        assert read[turn] == sum(1 + len(row.steps[turn].drafted) for row in rows if len(row.steps) > turn)


def test_drafts_end_where_positions_do() -> None:
    """The target reads every guess, and the last token asked for is never read."""
    target = varied_model()
    target.shape = replace(target.shape, positions=10)
    rows = run(target, [7, 10, 4], [[1, 6]], drafter=target)
    assert [len(row.tokens) for row in rows] == [7, 10, 4]
    drafter = varied_model()
    drafter.shape = replace(drafter.shape, positions=8)
    rows = run(varied_model(), [9, 9, 9], [[1, 6]], drafter=drafter)
    assert [len(row.steps[0].drafted) for row in rows] == [5, 6, 2]
    for prompt, row in zip(PROMPTS, rows, strict=True):
        length = len(prompt)
        for step in row.steps:
            assert len(step.drafted) <= max(0, 8 + 1 - length)
            length += len(step.emitted)


def test_a_prompt_that_no_position_is_left_for_is_refused_before_anything_runs() -> None:
    target = varied_model()
    target.shape = replace(target.shape, positions=9)
    with counted(target=target.blocks[0]) as calls, pytest.raises(ValueError, match="9 positions, and 7 tokens"):
        run(target, [2, 2, 4], [[1, 2]])
    assert not calls["target"]


def test_other_vocabularies_are_refused() -> None:
    with pytest.raises(ValueError, match="vocabularies of 11 and 10 tokens"):
        run(varied_model(), [2], [[1, 2]], drafter=language_model(10))


def test_a_drafter_without_finite_logits_is_named() -> None:
    drafter = varied_model()
    with torch.no_grad():
        drafter.norm.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="the drafter's logits are not finite"):
        run(varied_model(), [4, 4], [[1, 2]], drafter=drafter)


# ---- drafting and verifying many rows at once -------------------------------------------------------------------


@pytest.mark.parametrize("counts", [*itertools.product([0, 1, 3], repeat=3)])
@torch.no_grad()
def test_each_row_drafts_what_it_would_draft_alone(counts: tuple[int, ...]) -> None:
    model = varied_model()
    batch, sampler = Batch(model, 3), Sampler(0)
    with counted(drafter=model.blocks[0]) as calls:
        drafts, q = draft_rows(sampler, batch, PROMPTS, counts)
    assert calls["drafter"] == max(counts)
    assert q.shape == (3, max(counts), 11)
    for prompt, count, draft, laws in zip(PROMPTS, counts, drafts, q, strict=True):
        alone, own = draft_chain(sampler, model, prompt, model.new_cache(), count)
        assert draft == alone
        assert not laws[count:].any()
        for one, other in zip(laws, own, strict=False):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("lengths", [(2, 2), (2, 0), (1, 2), (0, 1)])
def test_each_row_is_judged_as_it_would_be_alone(lengths: tuple[int, int]) -> None:
    """The joint law of the verdicts is the product of those of `verify_chain`."""
    generator = torch.Generator().manual_seed(sum(lengths))
    gamma = max(lengths)
    p = torch.rand(2, gamma + 1, 3, generator=generator, dtype=torch.float64).softmax(-1)
    q = (3 * torch.rand(2, gamma, 3, generator=generator, dtype=torch.float64)).softmax(-1)
    drafts = [torch.randint(3, (n,), generator=generator).tolist() for n in lengths]
    for row, n in enumerate(lengths):
        q[row, n:] = 0

    def together(sampler: Sampler) -> Generation:
        return Generation([number for verdict in verify_rows(sampler, drafts, q, p) for number in verdict])

    def alone(sampler: Sampler) -> Generation:
        both = [verify_chain(sampler, d, q[row, : len(d)], p[row, : len(d) + 1]) for row, d in enumerate(drafts)]
        return Generation([number for verdict in both for number in verdict])

    assert total_variation(exact_law(together), exact_law(alone)) < 1e-12


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.5, "top_k": 2}], ids=str)
def test_the_law_of_rows_with_two_guesses_each(settings: dict[str, Any]) -> None:
    """With rows that leave, lengths that change, and laws of the target and the drafter that are far apart."""
    target, drafter = flat_model(2), table_model([[0.9, 0.1], [0.2, 0.8]])
    prompts, limits = [[0, 1], [1]], [1, 4]

    def joint(sampler: Sampler) -> Generation:
        rows = generate(target, prompts, limits, drafter=drafter, sampler=sampler, table=[[1, 2], [2, 3]])
        return Generation([token for row in rows for token in row.tokens])

    alone = [autoregressive_law(target, p, n, **settings) for p, n in zip(prompts, limits, strict=True)]
    wanted = {(*a, *b): pa * pb for a, pa in alone[0].items() for b, pb in alone[1].items()}
    assert total_variation(exact_law(joint, **settings), wanted) < 1e-12


def test_the_last_rows_take_the_places_of_those_that_have_ended() -> None:
    for goes_on in itertools.product([True, False], repeat=5):
        stay = staying(goes_on)
        assert sorted(stay) == [row for row, on in enumerate(goes_on) if on]
        moved = [row for place, row in enumerate(stay) if place != row]
        assert len(moved) == sum(not on for on in goes_on[: len(stay)])


# ---- table and profile --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "length"), [(1, 6), (2, 5), (3, 4), (4, 4), (5, 3), (8, 2), (9, 1), (15, 1), (16, 1), (17, 0), (99, 0)]
)
def test_between_two_sizes_of_the_table_stands_the_line_rounded_down(rows: int, length: int) -> None:
    assert draft_length([(1, 6), (4, 4), (8, 2), (16, 1), (17, 0)], rows) == length


def test_below_the_first_size_stands_its_own_length() -> None:
    assert [draft_length([(4, 3), (8, 1)], rows) for rows in (1, 3, 4, 6)] == [3, 3, 3, 2]


def test_the_best_length_is_the_one_of_least_time_for_a_token() -> None:
    kept = [0.0, 0.6, 0.96, 1.176]
    target = {(b, s): 4 + 0.25 * b * s for b in (1, 4, 16) for s in range(1, 5)}
    drafter = {1: 0.4, 4: 0.5, 16: 0.9}
    found = best_lengths(target, drafter, kept)
    for b, best in found:
        times = [(target[b, s + 1] + s * drafter[b]) / (1 + kept[s]) for s in range(4)]
        assert times[best] == min(times)
    assert found == [(1, 2), (4, 1), (16, 0)]


def test_of_equal_lengths_the_shortest_is_taken_and_untimed_ones_are_not_asked_about() -> None:
    assert best_lengths({(2, 1): 1.0, (2, 2): 2.0}, {2: 0.0}, [0.0, 1.0, 99.0]) == [(2, 0)]


def test_the_first_guesses_of_a_draft_are_a_shorter_draft() -> None:
    """With the same drafter, a run with drafts of 3 tells how many of 0, 1 and 2 guesses would be kept."""
    assert mean_kept([3, 0, 1, 2], 3) == [0.0, 0.75, 1.25, 1.5]
    chance = 0.7
    kept, weights = zip(*[(n, chance**n * (1 - chance if n < 3 else 1)) for n in range(4)], strict=True)
    many = [n for n, weight in zip(kept, weights, strict=True) for _ in range(round(1000 * weight))]
    for s, found in enumerate(mean_kept(many, 3)):
        assert found == pytest.approx(sum(chance**i for i in range(1, s + 1)))


def test_the_table_of_the_example_is_kept_by_its_run() -> None:
    prompts = [zoo.encode(text) for text in zoo.prompts("development")[:2]]
    rows = generate(prompts=prompts, limits=[12, 12], sampler=Sampler(0), **example())
    assert len(rows[0].steps[0].drafted) == draft_length(example()["table"], 2)


def test_defaults_are_the_documented_ones() -> None:
    module = importlib.import_module("reference_impls.speculative_decoding.speculative_batching_synergy")
    assert defaults_of(module) == {}
