"""What is peculiar to self-speculative decoding: sublayers left out, drafts that end early, and the search."""

from __future__ import annotations

import importlib
import random
import shutil
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from defaults import defaults_of
from layer_tokens import layer_tokens

from accelgen.measuring.counterexamples import P, Q, pairs
from accelgen.measuring.published_rules import drafted_pair
from accelgen.training import storing
from accelgen.training.corpora import Corpus
from accelgen.training.recipe import Part
from accelgen.training.recipes import self_speculative_decoding as recipe
from accelgen.training.shelf import Shelf
from reference_impls.baselines.autoregressive import generate as autoregressive
from reference_impls.core.generation import Generation
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding import self_speculative_decoding as method
from reference_impls.speculative_decoding.self_speculative_decoding import (
    adapted,
    drawn_with_confidence,
    generate,
    halves,
    search,
    sketch,
)
from reference_impls.testing.early_exits import watched
from reference_impls.testing.laws import autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import flat_model, language_model, varied_model
from reference_impls.zoo import storage

MUTANTS = [
    (
        "draft-keys-and-values-kept",
        "    cache.crop(max(0, len(tokens) - 1))\n    return draft, q",
        "    return draft, q",
    ),
    ("draft-rejected-but-not-forgotten", "        cache.crop(len(tokens) - 1)\n        work", "        work"),
    (
        "feed-forward-skipped-with-attention",
        "if layer not in skip_feed:",
        "if layer not in skip_feed and layer not in skip_attention:",
    ),
    (
        "draft-at-the-position-of-the-shortest-layer",
        "target.angles(cache.length(layer), 1)",
        "target.angles(len(cache), 1)",
    ),
    ("argmax-draft-judged-as-sampled", "drawn = sampler.draw(q)", "drawn = q.argmax(-1)"),
    (
        "unsure-token-dropped",
        "    return draft, q\n",
        "    return (draft[:-1], q[:-1]) if confidence < threshold else (draft, q)\n",
    ),
    ("draft-never-ends-early", "(not draft or confidence >= threshold)", "True"),
    ("confidence-of-the-tempered-law", "logits.double().softmax(-1)[drawn]", "q.double()[drawn]"),
    ("threshold-never-moves", "threshold, rate = adapted(", "_, rate = adapted("),
    ("threshold-moves-the-wrong-way", "if rate < goal", "if rate >= goal"),
    ("draft-past-the-last-position", "room(len(tokens), gamma, target)", "gamma"),
    ("longest-draft-makes-it-bolder", "else threshold if longest else", "else"),
    ("acceptance-of-one-step-alone", "betas[0] * rate + (1 - betas[0]) * accepted", "accepted"),
    ("work-as-if-nothing-were-skipped", "len(draft) * thin", "len(draft) * depth"),
    ("work-without-the-extra-token", "(len(draft) + 1) * depth", "len(draft) * depth"),
    ("acceptance-begins-at-1", "target.new_cache(), 0.0", "target.new_cache(), 1.0"),
    ("search-forgets-the-best", "best = max(trial, best, key=score)", "best = trial"),
    ("search-from-the-worst-start", "best = max((", "best = min(("),
]

PROMPT, LIMIT = [5, 3, 8, 1], 24
NOTHING: dict[str, Any] = {"skip_attention": (), "skip_feed": ()}


def some_skips(layers: int, seed: int) -> dict[str, Any]:
    """A random set of halves to leave out."""
    chance = random.Random(seed)
    attention, feed = (tuple(n for n in range(layers) if chance.random() < 0.5) for _ in range(2))
    return {"skip_attention": attention, "skip_feed": feed}


def test_a_skipped_half_adds_nothing_and_stores_nothing() -> None:
    target, cache = varied_model(3), varied_model(3).new_cache()
    with torch.inference_mode():
        target(PROMPT, cache)
        before = cache._store[:, :, :, :4].clone()
        found = torch.stack([sketch(target, token, cache, ((1,), (0, 2))) for token in (7, 9)])
        for layer, half in ((1, "attention.out"), (0, "down"), (2, "down")):
            target.blocks[layer].get_parameter(half).zero_()  # a half that writes zeros is a half left out
        silent = target.new_cache()
        silent._store = before.clone()  # the drafting network reads the whole target's past, not its own
        silent._lengths = [4] * 3
        wanted = target([7, 9], silent)
    assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-12)
    assert [cache.length(layer) for layer in range(3)] == [6, 4, 6]
    assert torch.equal(cache._store[:, :, :, :4], before)


def test_with_nothing_skipped_every_guess_is_kept_and_the_limit_is_met_in_the_fewest_passes() -> None:
    for temperature in (0.0, 1.0):
        sampler = Sampler(temperature)
        run = generate(varied_model(), PROMPT, 21, sampler=sampler, gamma=4, threshold=0.0, epsilon=0.0, **NOTHING)
        assert [step.kept for step in run.steps] == [0, 4, 4, 4, 4]


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_skipped_the_greedy_text_and_the_cache_are_the_targets(seed: int) -> None:
    target = varied_model(5)
    wanted = autoregressive(target, PROMPT, 16, sampler=Sampler(0)).tokens
    with watched(target) as (caches, _):
        run = generate(target, PROMPT, 16, sampler=Sampler(0), threshold=0.2, gamma=4, **some_skips(5, seed))
    assert run.tokens == wanted
    cache = target.new_cache()
    with torch.inference_mode():
        target([*PROMPT, *run.tokens][: len(caches[0])], cache)
    held = len(cache)
    assert held >= len(PROMPT) + len(run.tokens) - 1
    assert torch.allclose(caches[0]._store[:, :, :, :held], cache._store[:, :, :, :held], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_the_work_is_what_ran_at_the_model_half_by_half(seed: int) -> None:
    """Also in vain; a half that is named twice is skipped once."""
    target, skips = varied_model(5), some_skips(5, seed)
    skips["skip_feed"] *= 2
    for limit in (1, 16):
        with layer_tokens(target) as ran:
            run = generate(target, PROMPT, limit, sampler=Sampler(0), threshold=0.2, gamma=4, **skips)
        assert sum(step.work for step in run.steps) == sum(ran) - 5 * (len(PROMPT) - 1)
        assert run.mean_work is not None
    assert run.draft_passes > 0


@pytest.mark.parametrize(
    ("vocab", "limit", "threshold", "epsilon", "lengths"),
    [(3, 3, 0.35, 0.0, {0, 1, 2}), (2, 4, 0.0, 0.0, {0, 2}), (2, 4, 0.55, 0.5, {0, 1, 2})],
    ids=["sometimes", "never", "adaptive"],
)
def test_the_law_is_the_targets_however_drafts_end(
    vocab: int, limit: int, threshold: float, epsilon: float, lengths: set[int]
) -> None:
    target, seen = flat_model(vocab), set[int]()
    options: dict[str, Any] = {"gamma": 2, "threshold": threshold, "epsilon": epsilon, "goal": 0.6}

    def run(sampler: Sampler) -> Generation:
        result = generate(target, [0, 1], limit, sampler=sampler, skip_attention=(1,), skip_feed=(0,), **options)
        seen.update(len(step.drafted) for step in result.steps)
        return result

    assert total_variation(exact_law(run), autoregressive_law(target, [0, 1], limit)) < 1e-6
    assert seen == lengths


def test_a_draft_ends_with_the_first_token_that_is_unsure() -> None:
    target, ended = varied_model(5), 0
    skips: dict[str, Any] = {"skip_attention": (2, 3), "skip_feed": (4,)}
    run = generate(target, PROMPT, 24, sampler=Sampler(0), gamma=5, threshold=0.2, epsilon=0.0, **skips)
    tokens = list(PROMPT)
    for step in run.steps:
        with torch.inference_mode():
            cache = target.new_cache()
            target(tokens[:-1], cache)
            sure = []
            for token, following in pairwise([tokens[-1], *step.drafted]):
                logits = sketch(target, token, cache, tuple(skips.values()))
                assert int(logits.argmax()) == following
                sure.append(float(logits.softmax(-1).max()))
        assert all(each >= 0.2 for each in sure[:-1])
        if step.drafted:
            assert len(sure) == 5 or sure[-1] < 0.2
            ended += len(sure) < 5
        tokens += step.emitted
    assert 0 < ended < len(run.steps) - 1


def test_confidence_is_that_of_the_drawn_token_before_temperature() -> None:
    logits = torch.tensor([0.2, 1.0, -0.5, 0.1])
    seen = set()
    for seed in range(8):
        sampler = Sampler(2.0, top_k=3, seed=seed)
        token, confidence = drawn_with_confidence(sampler, sampler.probs(logits), logits)
        assert confidence == pytest.approx(float(logits.softmax(-1)[token]))
        seen.add(token)
    assert len(seen) > 1


def test_the_threshold_follows_the_acceptance_rate() -> None:
    assert adapted(0.6, 0.0, 1.0, longest=False) == pytest.approx((0.601, 0.5))  # still below the goal: be stricter
    assert adapted(0.6, 1.0, 1.0, longest=True) == pytest.approx((0.6, 1.0))  # bold enough: drafts cannot get longer
    assert adapted(0.6, 1.0, 0.9, longest=False) == pytest.approx((0.599, 0.95))
    assert adapted(0.6, 0.9, 0.0, longest=True) == pytest.approx((0.601, 0.45))
    threshold, rate = 0.2, 0.0
    for _ in range(400):  # a drafter that is right as often as it is sure, and never drafts as much as it may
        threshold, rate = adapted(threshold, rate, min(1.0, threshold + 0.3), longest=False)
    assert rate == pytest.approx(0.9, abs=0.01)


def test_the_acceptance_rate_begins_at_0_and_is_handed_from_step_to_step(monkeypatch: pytest.MonkeyPatch) -> None:
    given, found = [(0.6, 0.0)], list[tuple[float, float]]()

    def noted(threshold: float, rate: float, *step: Any, **settings: Any) -> tuple[float, float]:
        found.append((threshold, rate))
        given.append(adapted(threshold, rate, *step, **settings))
        return given[-1]

    monkeypatch.setattr(method, "adapted", noted)
    generate(varied_model(5), PROMPT, LIMIT, sampler=Sampler(0), **some_skips(5, 0))
    assert len(found) > 2
    assert found == given[:-1]


def test_the_threshold_moves_in_a_run() -> None:
    lengths = []
    for epsilon in (0.0, 0.4):
        run = generate(
            varied_model(5), PROMPT, 30, sampler=Sampler(0), gamma=5, threshold=0.0, epsilon=epsilon,
            skip_attention=(2, 3), skip_feed=(4,),
        )  # fmt: skip
        lengths.append([len(step.drafted) for step in run.steps[1:]])
    assert set(lengths[0]) == {5}
    assert lengths[1][0] == 5
    assert min(lengths[1]) == 1


def test_search_finds_the_best_set_of_a_known_objective_and_asks_once() -> None:
    wanted, asked = ((1, 3), (0, 2, 3)), []

    def objective(skips: tuple[tuple[int, ...], tuple[int, ...]]) -> float:
        asked.append(skips)
        return -float(sum(len(set(a) ^ set(b)) for a, b in zip(skips, wanted, strict=True)))

    found = search(objective, 4, starts=[((), ()), ((1,), (1, 2))], rounds=150, seed=1)
    assert found == (wanted, 0)
    assert asked[:2] == [((), ()), ((1,), (1, 2))]
    assert len(set(asked)) == len(asked)
    assert search(objective, 4, starts=[((), ()), ((1,), (1, 2))], rounds=0) == (((1,), (1, 2)), -4)


def test_attention_halves_are_numbered_first() -> None:
    assert halves({7, 0, 2, 4}, 4) == ((0, 2), (0, 3))


@pytest.mark.parametrize("name", ["skip_attention", "skip_feed"])
@pytest.mark.parametrize("layer", [-1, 2])
def test_a_layer_that_is_not_there_is_one_sentence(name: str, layer: int) -> None:
    with pytest.raises(ValueError, match=f"{name} names layer {layer}; the model has layers 0 to 1"):
        generate(language_model(), [0], 3, sampler=Sampler(0), **{**NOTHING, name: (0, layer)})


def test_published_defaults_change_the_law_and_shared_random_numbers_do_not() -> None:
    wanted = pairs(P)
    for greedy_draft, shared, bias in ((False, False, 0.0), (False, True, 0.0), (True, False, 0.64)):
        law = exact_law(partial(drafted_pair, target=P, drafter=Q, greedy_draft=greedy_draft, shared=shared))
        assert total_variation(law, wanted) == pytest.approx(bias, abs=0.005 if bias else 1e-12)


def test_the_zoos_recipe_searches_on_training_text_and_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = language_model(2048, layers=3).float()
    monkeypatch.setattr(recipe, "PROMPTS", 2)
    storing.save("target", Part(target, {"shape": target.shape}), folder=tmp_path)
    shutil.copy(storage.WEIGHTS / "tokenizer.json", tmp_path)
    shelf = Shelf(tmp_path, lambda _: Corpus(["import os\n" * 40, "def double(value):\n" * 40]))
    settings = recipe.Search(rounds=2, texts=2)
    found = recipe.train(shelf, settings).module
    quality = recipe.measure(shelf, settings, found)
    assert quality["sets"]["found"]["speed"] > 0
    assert quality["sets"]["nothing skipped"]["acceptance"] > quality["sets"]["found"]["acceptance"]
    assert [len(found.attention), len(found.feed)] == [quality["skipped"][half] for half in ("attention", "feed")]


def test_speed_counts_what_is_run() -> None:
    """Costs that are powers of ten, so that the score can be taken apart."""
    target = varied_model(5)
    costs = {"attention": 1.0, "feed": 10.0, "read_out": 100.0, "pass_1": 1e6, "pass_4": 1e4}
    run = generate(target, PROMPT, LIMIT, sampler=Sampler(0), skip_attention=(1, 2, 4), skip_feed=(0,))
    spent = run.passes * 1e4 + run.draft_passes * (100 + 4 * 10 + 2 * 1)
    assert recipe.speed(target, [PROMPT], ((1, 2, 4), (0,)), costs) == pytest.approx({
        "speed": LIMIT * 1e6 / spent,
        "tokens_per_pass": run.tokens_per_pass,
        "acceptance": run.acceptance,
        "draft_length": run.draft_passes / sum(bool(step.drafted) for step in run.steps),
    })  # fmt: skip


def test_an_empty_prompt_is_one_sentence():
    with pytest.raises(ValueError, match="the prompt or source is empty"):
        generate(language_model(), [], 3, sampler=Sampler(0), **NOTHING)


def test_defaults_are_the_documented_ones() -> None:
    assert defaults_of(importlib.import_module("reference_impls.speculative_decoding.self_speculative_decoding")) == {
        "generate.gamma": 8,
        "generate.threshold": 0.6,
        "generate.goal": 0.9,
        "generate.epsilon": 0.01,
        "adapted.goal": 0.9,
        "adapted.epsilon": 0.01,
        "adapted.betas": (0.5, 0.9),
        "search.seed": 0,
    }
