"""LayerSkip: the two halves share one cache, and the training recipe skips and weighs layers as it should."""

import importlib
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from defaults import defaults_of
from layer_tokens import layer_tokens

from reference_impls.core.sampling import Sampler
from reference_impls.early_exiting.layerskip import dropout_rates, generate, loss, trained_exits
from reference_impls.testing.early_exits import watched
from reference_impls.testing.tiny import language_model, settled, varied_model

MUTANTS = [
    ("upper-layers-start-from-the-newest-state", "torch.cat(states)", "states[-1]"),
    (
        "lower-layers-run-again",
        "target.run(torch.cat(states), cache, layers=upper)",
        "target.run(target.embed(draft), layers=lower)",
    ),
    ("lower-layers-keep-a-rejected-token", "cache.crop(len(tokens) - 1)", "cache._lengths[-1] = len(tokens) - 1"),
    (
        "guess-read-from-the-wrong-layer",
        "laws.append(sampler.probs(target.logits(states[-1][-1])))",
        "laws.append(sampler.probs(target.logits(states[0][-1])))",
    ),
    ("guesses-past-the-last-position", "room(len(tokens), gamma, target)", "gamma"),
    ("dropout-of-whole-batches", "torch.rand(len(x), generator", "torch.rand(1, generator"),
    ("first-layer-dropped", "math.log(2) / max(1, layers - 1)) - 1)", "math.log(2) / max(1, layers - 1)))"),
    ("exits-never-rotate", "step % every}", "0}"),
]

PROMPT = [5, 3, 8, 1]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_where_the_upper_layers_add_nothing_every_guess_is_accepted(temperature):
    target = settled(varied_model(5), 2)
    result = generate(target, PROMPT, 15, sampler=Sampler(temperature), exit_layer=2, gamma=4)
    assert [step.kept for step in result.steps] == [4, 4, 4]
    assert result.tokens_per_pass == 5


def test_guesses_end_where_the_positions_of_the_target_end():
    """Where the upper layers add nothing every guess is kept, so it is known where each draft begins."""
    target = settled(varied_model(5), 2)
    target.shape = replace(target.shape, positions=len(PROMPT) + 12)
    result = generate(target, PROMPT, 13, sampler=Sampler(0), exit_layer=2, gamma=4)
    assert [step.kept for step in result.steps] == [4, 4, 2]
    assert [step.draft_passes for step in result.steps] == [4, 4, 2]
    assert [step.work for step in result.steps] == [25, 25, 15]


@pytest.mark.parametrize("exit_layer", [1, 3])
def test_no_layer_sees_a_token_twice(exit_layer):
    """Only what was rejected is computed in vain: layers run = tokens that entered each half."""
    target, gamma = varied_model(5), 3
    entered = []
    run = target.run

    def count(x, cache=None, **more):
        entered.append((len(x), more["layers"]))
        return run(x, cache, **more)

    target.run = count
    result = generate(target, PROMPT, 12, sampler=Sampler(1.0), exit_layer=exit_layer, gamma=gamma)
    del target.run
    steps = len(result.steps)
    first = len(PROMPT) + gamma + (gamma + 1) * (steps - 1)
    for layers in (range(exit_layer), range(exit_layer, 5)):
        assert sum(n for n, ran in entered if ran == layers) == first
    assert sum(ran.start > 0 for _, ran in entered) == steps


@pytest.mark.parametrize("limit", [1, 12])
def test_the_work_is_what_ran_at_the_model_also_in_vain(limit):
    target = varied_model(5)
    with layer_tokens(target) as ran:
        result = generate(target, PROMPT, limit, sampler=Sampler(1.0), exit_layer=2, gamma=3)
    assert [step.work for step in result.steps] == [4 * 5] * len(result.steps)
    assert sum(ran) == 4 * 5 * len(result.steps) + 5 * (len(PROMPT) - 1)
    assert result.mean_work == 20 * len(result.steps) / limit


def test_after_each_step_all_layers_hold_all_tokens_but_the_newest():
    target = varied_model(5)
    with watched(target) as (caches, _):
        result = generate(target, PROMPT, 12, sampler=Sampler(1.0), exit_layer=2, gamma=3)
        cache, text = caches[0], [*PROMPT, *(token for step in result.steps for token in step.emitted)]
        held = {cache.length(layer) for layer in range(5)}
        assert len(held) == 1
        assert held.pop() >= len(text) - 1
        wanted = target.new_cache()
        target(text[:-1], wanted)
        for layer in range(5):
            stored, right = (c._store[layer, :, :, : len(text) - 1] for c in (cache, wanted))
            torch.testing.assert_close(stored, right, rtol=1e-9, atol=1e-9)


def test_dropout_grows_from_none_at_the_first_layer_to_the_highest_at_the_last():
    rates = dropout_rates(24, 0.2)
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(0.2)
    assert rates[12] == pytest.approx(0.2 * (2 ** (12 / 23) - 1))
    assert rates == sorted(rates)
    assert dropout_rates(1, 0.2) == [0]


def test_the_exits_rotate_and_the_last_layer_is_always_trained():
    assert trained_exits(9, 4, step=1) == [1, 5, 9]
    assert trained_exits(9, 4, step=4) == [4, 8, 9]
    seen = {e for step in range(4) for e in trained_exits(9, 4, step)}
    assert seen == set(range(1, 10))


def test_loss_without_dropout_is_the_weighted_mean_of_the_exits_losses():
    target = varied_model(5)
    tokens = torch.tensor([[5, 3, 8, 1, 0], [2, 7, 7, 4, 9]])

    def cross_entropy(depth):
        logits = target.logits(target.run(target.embed(tokens[:, :-1]), layers=range(depth)))
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).item()

    wanted = (cross_entropy(5) + 0.25 * (cross_entropy(1) + cross_entropy(3))) / 1.5
    found = loss(target, tokens, step=1, dropout=0.0, every=2, scale=0.25)
    assert found.item() == pytest.approx(wanted, abs=1e-6)


def test_loss_trains_every_eighth_exit_at_half_weight_unless_told_otherwise():
    target, tokens = language_model(11, layers=10), torch.tensor([[5, 3, 8, 1, 0]])
    found = loss(target, tokens, step=1, dropout=0.0)
    assert found == loss(target, tokens, step=1, dropout=0.0, every=8, scale=0.5)
    assert found != loss(target, tokens, step=1, dropout=0.0, every=7, scale=0.5)


def test_loss_skips_layers_for_each_sample_alone():
    """The last of three layers is skipped always, the middle one in the share of samples that its rate says."""
    target = varied_model(3)
    tokens = torch.tensor([[5, 3, 8, 1, 0]] * 4)

    def without(depth):
        logits = target.logits(target.run(target.embed(tokens[0, :-1]), layers=range(depth)))
        return F.cross_entropy(logits, tokens[0, 1:]).item()

    found = [loss(target, tokens, 0, dropout=1.0, every=9, generator=torch.manual_seed(i)).item() for i in range(60)]
    share = 2 ** (1 / 2) - 1  # of the middle layer; the last is always skipped
    possible = (without(2), without(1))
    assert len({round(value, 5) for value in found}) > 2, "all samples of a batch skipped the same layers"
    spread = abs(possible[0] - possible[1]) / 2 / math.sqrt(240)
    assert sum(found) / 60 == pytest.approx((1 - share) * possible[0] + share * possible[1], abs=4 * spread)


def test_defaults_are_the_documented_ones() -> None:
    assert defaults_of(importlib.import_module("reference_impls.early_exiting.layerskip")) == {
        "generate.gamma": 4,
        "loss.dropout": 0.1,
        "loss.every": 8,
        "loss.scale": 0.5,
    }
