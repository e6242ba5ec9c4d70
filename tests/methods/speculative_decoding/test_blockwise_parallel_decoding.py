"""What is peculiar to blockwise parallel decoding: its heads, their loss, and the approximate acceptance rules."""

from __future__ import annotations

import importlib
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from defaults import defaults_of

from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding.blockwise_parallel_decoding import BlockHeads, count_kept, generate, loss
from reference_impls.testing.laws import autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import language_model, randomised

MUTANTS = [
    ("heads-read-at-a-stale-place", "heads(features[kept])", "heads(features[-1])"),
    (
        "heads-learn-on-another-place",
        "ahead[:, : tokens.shape[1] - i - 2]",
        "ahead[:, : tokens.shape[1] - i - 2].flip(1)",
    ),
    ("own-token-from-the-wrong-place", "drawn[kept][None]", "drawn[-1][None]"),
    ("guesses-compared-one-place-late", "guess == drawn[:-1]", "guess == drawn[1:]"),
    ("block-with-a-hole", "passes.cumprod(0).sum()", "passes.sum()"),
    ("block-cache-one-short", "cache.crop(len(tokens) - 1)", "cache.crop(len(tokens))"),
    ("guesses-past-the-last-position", "guesses[: room(len(tokens), len(guesses), target)]", "guesses"),
    ("guess-less-than-fits", "room(len(tokens), len", "room(len(tokens) + 1, len"),
    ("top-2-by-default", "top: int = 1", "top: int = 2"),
    ("minimum-2-by-default", "minimum: int = 1", "minimum: int = 2"),
    ("heads-trained-one-token-early", "tokens[:, i + 2 :]", "tokens[:, i + 1 : -1]"),
]


def test_sampling_keeps_the_targets_law() -> None:
    target = language_model()
    heads = randomised(BlockHeads, target.shape, k=3)
    law = exact_law(lambda sampler: generate(target, [0, 1], 3, heads=heads, sampler=sampler))
    assert total_variation(law, autoregressive_law(target, [0, 1], 3)) < 1e-6


def test_the_first_pass_proposes_and_every_later_pass_checks_k_minus_1_guesses() -> None:
    target = language_model(5)
    run = generate(target, [0, 1], 20, heads=randomised(BlockHeads, target.shape, k=4), sampler=Sampler(0))
    assert [len(step.drafted) for step in run.steps] == [0] + [3] * (len(run.steps) - 1)
    assert all(1 <= len(step.emitted) <= 4 for step in run.steps)


@pytest.mark.parametrize("minimum", [1, 3])
def test_a_block_ends_where_the_positions_of_the_target_end(minimum: int) -> None:
    target = language_model(5)
    heads = randomised(BlockHeads, target.shape, k=4)
    free = generate(target, [0, 1], 20, heads=heads, sampler=Sampler(0), minimum=minimum)
    target.shape = replace(target.shape, positions=21)  # the last of the 22 tokens is never read
    run, length, fits = generate(target, [0, 1], 20, heads=heads, sampler=Sampler(0), minimum=minimum), 2, set()
    for step, following in pairwise(run.steps):
        length += len(step.emitted)
        fits.add(min(3, 21 - length))
        assert len(following.drafted) == min(fits)
    assert run.tokens == free.tokens
    assert len(fits) > 1


def test_acceptance_rules_on_a_known_example() -> None:
    p = torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3]])
    drawn = torch.tensor([0, 2, 1])
    assert int(count_kept([0, 1], drawn, p, top=1, minimum=1)) == 1
    assert int(count_kept([0, 1], drawn, p, top=2, minimum=1)) == 2
    assert int(count_kept([2, 2], drawn, p, top=2, minimum=1)) == 0
    assert int(count_kept([2, 2], drawn, p, top=1, minimum=2)) == 2  # the first unseen, the second because it is right
    assert int(count_kept([], drawn[:1], p[:1], top=3, minimum=1)) == 0


def test_minimum_emits_at_least_that_many_tokens_a_step() -> None:
    target = language_model(5)
    heads = randomised(BlockHeads, target.shape, k=4)
    run = generate(target, [0, 1], 24, heads=heads, sampler=Sampler(0), minimum=3)
    assert min(len(step.emitted) for step in run.steps[1:-1]) >= 3


def test_relaxed_rules_keep_at_least_as_much() -> None:
    p = torch.rand(64, 4, 5, generator=torch.Generator().manual_seed(0))
    for rows in p:
        proposal, drawn = [1, 2, 3], rows.argmax(-1)
        exact = int(count_kept(proposal, drawn, rows, top=1, minimum=1))
        assert exact <= int(count_kept(proposal, drawn, rows, top=3, minimum=1))
        assert exact <= int(count_kept(proposal, drawn, rows, top=1, minimum=3))


def test_the_loss_looks_i_plus_2_tokens_ahead() -> None:
    target = language_model(5)
    heads = randomised(BlockHeads, target.shape, k=3)
    tokens = torch.tensor([[0, 1, 2, 3, 4, 0, 2]])
    for i in range(2):
        expected = 0.0
        for place in range(tokens.shape[1] - i - 2):
            features = target.norm(target.run(target.embed(tokens[0, : place + 1]))[-1])
            logits = target.project(heads(features)[i])
            expected += F.cross_entropy(logits, tokens[0, place + i + 2]).item()
        assert loss(target, heads, tokens, i).item() == pytest.approx(expected / (tokens.shape[1] - i - 2), rel=1e-5)


def test_only_the_heads_learn() -> None:
    target = language_model(5).requires_grad_(requires_grad=False)
    heads = randomised(BlockHeads, target.shape, k=3)
    loss(target, heads, torch.tensor([[0, 1, 2, 3, 4]]), 0).backward()
    assert heads.up.grad is not None
    first, second = heads.up.grad.chunk(2, dim=1)
    assert float(first.abs().sum()) > 0
    assert float(second.abs().sum()) == 0  # the head whose turn it is not


@pytest.mark.parametrize(("top", "minimum"), [(0, 1), (1, 0), (1, 4)])
def test_options_out_of_range_are_one_sentence(top: int, minimum: int) -> None:
    target = language_model()
    heads = randomised(BlockHeads, target.shape, k=3)
    with pytest.raises(ValueError, match=f"top is {top} and minimum is {minimum}"):
        generate(target, [0], 3, heads=heads, sampler=Sampler(0), top=top, minimum=minimum)


def test_heads_of_another_type_than_the_target_are_one_sentence() -> None:
    target = language_model()
    with pytest.raises(ValueError, match=r"the heads are torch.float32 on cpu, and the target is torch.float64 on cpu"):
        generate(target, [0], 3, heads=randomised(BlockHeads, target.shape, k=3).float(), sampler=Sampler(0))


def test_broken_heads_are_named_when_they_guess() -> None:
    target = language_model()
    heads = randomised(BlockHeads, target.shape, k=3)
    torch.nn.init.constant_(heads.down, math.nan)
    with pytest.raises(ValueError, match="the heads' logits are not finite"):
        generate(target, [0], 3, heads=heads, sampler=Sampler(0))


def test_a_block_of_one_is_no_block() -> None:
    with pytest.raises(ValueError, match="k >= 2"):
        BlockHeads(language_model().shape, k=1)


def test_heads_begin_as_the_decoder_itself_with_rows_that_keep_the_length_of_a_feature() -> None:
    torch.manual_seed(0)
    heads = BlockHeads(replace(language_model(5).shape, dim=256), k=3, hidden=512)
    assert heads.up.std().item() == pytest.approx(256**-0.5, rel=0.02)
    features = torch.randn(4, 256)
    assert torch.equal(heads(features), features.expand(2, -1, -1))


def test_defaults_are_the_documented_ones() -> None:
    assert defaults_of(importlib.import_module("reference_impls.speculative_decoding.blockwise_parallel_decoding")) == {
        "generate.top": 1,
        "generate.minimum": 1,
        "BlockHeads.k": 4,
    }
