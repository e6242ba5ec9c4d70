"""What is peculiar to TriForce: chunks chosen by mean keys, caches that drop text, and exact laws on three levels."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from defaults import defaults_of
from torch import Tensor

from accelgen.measuring.counterexamples import two_levels
from accelgen.measuring.published_rules import refill_from_target
from reference_impls.baselines.autoregressive import generate as decode
from reference_impls.core.cache import Cache
from reference_impls.core.generation import Generation, Step
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding import triforce
from reference_impls.speculative_decoding.triforce import (
    ShortCache,
    append_newest,
    choose,
    generate,
    refill,
    retrieve,
    run_with_queries,
    slide,
)
from reference_impls.testing.laws import autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import Erring, flat_model, language_model, seeded, varied_model

MUTANTS = [
    (
        "middle-level-redraws-from-its-whole-law",
        "        draft += [*guesses[:kept], extra]",
        "        extra = int(sampler.draw(p_hat[kept]))\n        draft += [*guesses[:kept], extra]",
    ),
    ("top-level-judges-by-the-drafters-law", "laws += p_hat[: kept + 1]", "laws += [*q[:kept], p_hat[kept]]"),
    ("partial-cache-keeps-rejected-tokens", "for level in (middle, window):", "for level in (window,):"),
    ("window-keeps-rejected-tokens", "    window.crop(length)\n", ""),
    ("full-cache-keeps-rejected-tokens", "full.crop(len(tokens) - 1)", "full.crop(len(tokens))"),
    ("sinks-stay-behind", "k[:, :sinks] = rotate(", "rotate("),
    ("sinks-scaled-at-every-slide", " / window.model.shape.rope_scale", ""),
    (
        "window-drops-the-newest",
        "*range(sinks + surplus, len(window.cache))",
        "*range(sinks, len(window.cache) - surplus)",
    ),
    ("places-counted-in-the-cache", "positions=len(self) + ", "positions=len(self.cache) + "),
    ("first-chunk-may-go", "score[..., :1] = torch.inf", "pass"),
    ("worst-chunks-retrieved", "score.argsort(descending=True)", "score.argsort()"),
    ("one-query-for-its-group", "(keys.shape[1], -1)).sum(2)", "(keys.shape[1], -1))[:, :, 0]"),
    ("query-of-a-rejected-token", "queries[:, :, kept]", "queries[:, :, -1]"),
    (
        "new-tokens-not-in-the-partial-cache",
        "newest = torch.arange(scored, len(full)",
        "newest = torch.arange(len(full), len(full)",
    ),
    ("budget-overrun", "min(scored, budget - len(newest))", "scored"),
    ("retrieved-once-and-for-all", "if len(full) - scored >= stride or rate < threshold:", "if scored < 0:"),
    ("drafting-passes-of-one-level", "passes += fitting + 1", "passes += fitting"),
    ("acceptance-of-the-last-step-alone", "(rate + kept / len(draft)) / 2 if", "kept / len(draft) if"),
    ("acceptance-never-begins-anew", "budget, chunk), 1.0", "budget, chunk), rate"),
]

PROMPT = [5, 3, 8, 1, 0, 2, 7, 7, 9, 4, 6, 10, 1, 3]
SMALL = {"budget": 6, "chunk": 2, "sinks": 1, "recent": 5, "stride": 5}


def grouped_model(layers: int = 3) -> LanguageModel:
    """Four query heads on two heads of keys, so that a mix-up of heads shows."""
    with seeded(3):
        shape = Shape(11, dim=16, layers=layers, heads=4, kv_heads=2, head_dim=4, hidden=12, tied=False)
        return LanguageModel(shape).double().eval()


def read(model: LanguageModel, tokens: list[int]) -> tuple[Cache, Tensor]:
    """The full cache of `tokens`, and the queries [layers, heads, head_dim] of the last one."""
    cache = model.new_cache()
    return cache, run_with_queries(model, tokens, cache, 1)[1][:, :, -1]


def partial(model: LanguageModel, tokens: list[int], budget: int, chunk: int) -> ShortCache:
    """The middle level's cache right after a retrieval."""
    cache, queries = read(model, tokens)
    middle = ShortCache(model)
    append_newest(middle, cache, retrieve(middle, cache, queries, budget, chunk), budget)
    return middle


# Laws


@pytest.mark.parametrize("tokens", [2, 3])
def test_sampling_keeps_the_law_where_the_partial_cache_misses_most_of_the_text(tokens: int) -> None:
    """With rounds that are repeated, guesses that the top level rejects, retrievals and replacements in between."""
    target, drafter = flat_model(2), language_model(2, seed=281, layers=1)
    prompt = [0, 1, 1, 0, 1]
    own: dict[str, Any] = {"drafter": drafter, "budget": 2, "chunk": 1, "sinks": 1, "recent": 2, "stride": 2}
    for gammas in [(1, 2), (2, 1)] if tokens == 2 else [(1, 1)]:
        steps = list[Any]()

        def run(sampler: Sampler, gammas: tuple[int, int] = gammas, steps: list[Any] = steps) -> Generation:
            found = generate(target, prompt, tokens, sampler=sampler, gamma=gammas[0], gamma_2=gammas[1], **own)
            steps.extend(found.steps)
            return found

        law = exact_law(run)
        assert total_variation(law, autoregressive_law(target, prompt, tokens)) < 1e-12
        assert any(step.drafted and step.kept < min(len(step.emitted), len(step.drafted)) for step in steps)


@torch.inference_mode()
def test_the_middle_level_says_its_true_law() -> None:
    """The law of its first two tokens is the product of the laws that it hands on, for a cache that misses much."""
    target, drafter, prompt = flat_model(), language_model(seed=170, layers=1), [0, 2, 1, 1, 0]
    said: dict[tuple[int, ...], Tensor] = {}

    def run(sampler: Sampler) -> Generation:
        middle, window = partial(target, prompt[:-1], 2, 1), ShortCache(drafter)
        draft, laws, passes = triforce.speculate(sampler, prompt, middle, window, gamma=1, gamma_2=2)
        assert len(laws) == len(draft) >= 2
        assert passes in (2, 4)  # one pass of each level a round
        for i in range(2):
            known = said.setdefault(tuple(draft[:i]), laws[i])
            assert torch.allclose(known, laws[i], atol=1e-12)
        return Generation(draft[:2])

    law = exact_law(run)
    wanted = {(a, b): float(said[()][a] * said[a,][b]) for a in range(3) for b in range(3)}
    assert total_variation(law, wanted) < 1e-12
    assert total_variation(law, autoregressive_law(target, prompt, 2)) > 0.01  # it is not yet the target's law


def test_the_published_middle_level_is_biased_by_as_much_as_the_page_says() -> None:
    q, p = (torch.tensor(law, dtype=torch.float64) for law in ([0.7, 0.2, 0.1], [0.2, 0.5, 0.3]))
    law = two_levels(q, p, p, refill_from_target)
    alpha = torch.minimum(p, q).sum()
    said = torch.minimum(p, q) + (1 - alpha) * p
    assert [law[token,] for token in range(3)] == pytest.approx(said.tolist(), abs=1e-12)
    assert total_variation(law, {(token,): float(p[token]) for token in range(3)}) == pytest.approx(0.1)


# Caches


@pytest.mark.parametrize("budget", [16, 64])
@torch.inference_mode()
def test_a_budget_that_covers_the_text_makes_the_middle_level_the_target(budget: int) -> None:
    for model in (varied_model(), grouped_model()):
        middle = partial(model, PROMPT, budget, 3)
        assert len(middle) == len(PROMPT)
        assert middle.dropped == 0
        assert torch.allclose(middle([4, 9], last=2), model([*PROMPT, 4, 9])[-2:], atol=1e-12)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_then_the_top_level_keeps_everything(temperature: float) -> None:
    drafter = language_model(11, layers=1, seed=1001)
    for model in (drafter, Erring.of(varied_model())):
        run = generate(varied_model(), PROMPT, 40, drafter=model, sampler=Sampler(temperature))
        assert [step.kept for step in run.steps[:-1]] == [len(step.drafted) for step in run.steps[:-1]]
        assert all(6 <= len(step.drafted) <= 8 for step in run.steps[1:])  # gamma_2 up to gamma_2 - 1 + gamma + 1


@torch.inference_mode()
def test_chunks_are_those_of_a_scan_for_each_layer_and_head() -> None:
    model, chunk = grouped_model(), 2
    cache, queries = read(model, PROMPT)
    found = choose(cache, queries, len(PROMPT), chunk)
    assert found.shape == (3, 2, len(PROMPT))
    orders = set()
    for layer in range(3):
        k, _ = cache.entries(layer)
        for head in range(2):
            score: dict[int, float] = {0: float("inf")}
            for i in range(1, len(PROMPT) // chunk):
                mean = torch.stack([k[head, i * chunk + j] for j in range(chunk)]).sum(0) / chunk
                score[i] = sum(float(mean @ queries[layer, 2 * head + group]) for group in range(2))
            best = sorted(score, key=lambda i: -score[i])
            assert found[layer, head].tolist() == [i * chunk + j for i in best for j in range(chunk)]
            orders.add(tuple(best))
    assert len(orders) > 1  # layers and heads choose for themselves


@torch.inference_mode()
def test_retrieved_keys_keep_their_places_and_a_token_sees_nothing_else() -> None:
    """In a model of one layer and one head of keys the new token may as well see the chosen tokens alone."""
    model = language_model(11, layers=1, seed=1)
    middle = partial(model, PROMPT, 6, 2)
    cache, queries = read(model, PROMPT)
    places = sorted(choose(cache, queries, 14, 2)[0, 0, :6].tolist())
    assert places != list(range(6))
    assert places != list(range(8, 14))
    alone = model([PROMPT[i] for i in places] + [4], positions=torch.tensor([*places, len(PROMPT)]))
    assert torch.allclose(middle([4]), alone[-1:], atol=1e-12)


@torch.inference_mode()
def test_new_tokens_replace_the_least_important() -> None:
    model, text = grouped_model(), [*PROMPT, 4, 9, 2]
    cache, queries = read(model, PROMPT)
    order = choose(cache, queries, 14, 2)
    middle = partial(model, PROMPT, 6, 2)
    model([4, 9, 2], cache)
    middle([4])  # a guess that is forgotten again
    refill(middle, cache, 6 - 3, torch.arange(14, 17).expand(3, 1, -1))
    assert len(middle) == len(text)
    for layer in range(3):
        whole, part = cache.entries(layer), middle.cache.entries(layer)
        for head in range(2):
            wanted = [*order[layer, head, :3].tolist(), 14, 15, 16]
            for full, found in zip(whole, part, strict=True):
                assert torch.equal(found[head], full[head, wanted])


@pytest.mark.parametrize(("step", "rope_scale"), [(1, 1.0), (3, 1.0), (1, 1.2)])
@torch.inference_mode()
def test_the_window_is_that_of_streaming_llm(step: int, rope_scale: float) -> None:
    """Keys of a first layer depend on no context, so the window must equal a text of its tokens alone."""
    model, sinks, recent = language_model(11, layers=1), 2, 4
    model.shape = replace(model.shape, rope_scale=rope_scale)  # as YaRN has it
    window, text = ShortCache(model), [*PROMPT, *PROMPT]
    for start in range(0, len(text) - step, step):
        window(text[start : start + step])
        slide(window, start + step, sinks, recent)
        seen = start + step
        assert len(window) == seen
        kept = text[:seen] if seen <= sinks + recent else [*text[:sinks], *text[seen - recent : seen]]
        assert len(window.cache) == len(kept)
        assert torch.allclose(window([4]), model([*kept, 4])[-1:], atol=1e-5)  # angles are single
        window.crop(seen)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_after_every_step_all_caches_hold_what_they_should(temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The full cache equals one made from nothing; the smaller ones follow it, and hold no more than they may."""
    target, drafter = varied_model(), language_model(11, layers=1, seed=1001)
    caches: list[Cache] = []
    retrievals: list[int] = []
    asked: list[Tensor] = []
    filled: list[bool] = []  # whether the newest entry stands last in the partial cache
    honest_refill, honest_slide, honest_choose = triforce.refill, triforce.slide, triforce.choose

    def spy_slide(window: ShortCache, length: int, *sizes: int) -> None:
        honest_slide(window, length, *sizes)
        assert length - 2 <= len(window) <= length  # it never reads the end of a draft that is kept whole
        assert len(window.cache) <= SMALL["sinks"] + SMALL["recent"]

    def spy_choose(full: Cache, queries: Tensor, *given: Any) -> Tensor:
        retrievals.append(len(full))
        asked.append(queries.clone())
        return honest_choose(full, queries, *given)

    def spy_refill(middle: ShortCache, full: Cache, *given: Any) -> None:
        honest_refill(middle, full, *given)
        caches.append(full)
        assert len(middle.cache) <= SMALL["budget"]
        filled.append(torch.equal(middle.cache.entries(0)[0][:, -1], full.entries(0)[0][:, -1]))

    for name, spy in {"slide": spy_slide, "choose": spy_choose, "refill": spy_refill}.items():
        monkeypatch.setattr(triforce, name, spy)
    run = generate(target, PROMPT, 24, drafter=drafter, sampler=Sampler(temperature), threshold=0.0, **SMALL)
    text = [*PROMPT, *run.tokens]
    full, fresh = caches[-1], target.new_cache()
    length = min(len(full), len(text) - 1)
    with torch.inference_mode():
        target(text[:length], fresh)
        for layer in range(3):
            for found, wanted in zip(full.entries(layer), fresh.entries(layer), strict=True):
                assert torch.allclose(found[:, :length], wanted, atol=1e-12)
        for seen, queries in zip(retrievals, asked, strict=True):
            assert torch.allclose(queries, read(target, text[:seen])[1], atol=1e-12)
    assert sum(filled) >= len(run.steps) - len(retrievals)
    assert retrievals[0] == len(PROMPT)
    gaps = [b - a // 2 * 2 for a, b in pairwise(retrievals)]
    assert gaps
    assert min(gaps) >= SMALL["stride"]


@pytest.mark.parametrize("threshold", [0.0, 1.1])
def test_poor_acceptance_calls_for_a_retrieval(threshold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    honest = triforce.choose

    def spy(full: Cache, *given: Any) -> Tensor:
        calls.append(len(full))
        return honest(full, *given)

    monkeypatch.setattr(triforce, "choose", spy)
    drafter = language_model(11, layers=1, seed=1001)
    own = {**SMALL, "budget": 64, "stride": 60}
    run = generate(varied_model(), PROMPT, 24, drafter=drafter, sampler=Sampler(0), threshold=threshold, **own)
    assert len(calls) == (len(run.steps) if threshold else 1)


def due(steps: Sequence[Step], start: int, stride: int, threshold: float, share: float = 0.5) -> list[int]:
    """The lengths of the full cache at which a retrieval is due; `share` is what the last step counts for."""
    found, built, rate, length = list[int](), -stride, 1.0, start - 1
    for step in steps:
        length += len(step.emitted)
        rate = (1 - share) * rate + share * step.kept / len(step.drafted) if step.drafted else rate
        if length - built >= stride or rate < threshold:
            found.append(length)
            built, rate = length // SMALL["chunk"] * SMALL["chunk"], 1.0  # whole chunks are scored
    return found


@pytest.mark.parametrize("threshold", [0.3, 0.6])
def test_acceptance_rolls_and_begins_anew_with_each_retrieval(
    threshold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []

    def noted(middle: ShortCache, full: Cache, *given: Any) -> int:
        found.append(len(full))
        return retrieve(middle, full, *given)

    monkeypatch.setattr(triforce, "retrieve", noted)
    drafter, prompt = language_model(11, layers=1, seed=1001), PROMPT * 6
    own = {**SMALL, "budget": 42, "stride": 40, "threshold": threshold}
    run = generate(varied_model(), prompt, 60, drafter=drafter, sampler=Sampler(1.0), **own)
    whole = run.steps[:-1]  # the last one may be cut
    wanted = due(whole, len(prompt), 40, threshold)
    assert found[: len(wanted)] == wanted
    assert len(found) <= len(wanted) + 1
    assert wanted != due(whole, len(prompt), 40, threshold, share=1.0), "the last step alone would say the same"


@pytest.mark.parametrize("prompt", [PROMPT, [2], PROMPT * 4])
def test_the_text_is_greedy_whatever_the_small_caches_miss(prompt: list[int]) -> None:
    for drafter in (language_model(11, layers=1, seed=1001), Erring.of(varied_model()), varied_model()):
        run = generate(varied_model(), prompt, 25, drafter=drafter, sampler=Sampler(0), **SMALL)
        assert run.tokens == decode(varied_model(), prompt, 25, sampler=Sampler(0)).tokens


def test_of_an_empty_prompt_nothing_is_generated_for_a_limit_of_0_and_else_it_is_one_sentence() -> None:
    target = varied_model()
    assert generate(target, [], 0, drafter=target, sampler=Sampler(0)).steps == []
    with pytest.raises(ValueError, match="the prompt or source is empty"):
        generate(target, [], 1, drafter=target, sampler=Sampler(0))


ZERO = [{name: 0} for name in ("gamma_2", "chunk", "sinks", "recent", "stride")]


@pytest.mark.parametrize("sizes", [*ZERO, {"budget": 5}, {"budget": 5, "chunk": 3, "stride": 1}])
def test_sizes_that_cannot_work_are_one_sentence(sizes: dict[str, int]) -> None:
    target = varied_model()
    sentence = r"budget is 5; it must be at least 6: the first chunk" if "budget" in sizes else r"at least 1$"
    with pytest.raises(ValueError, match=sentence):
        generate(target, [5, 3], 3, drafter=target, sampler=Sampler(0), **{**SMALL, **sizes})


@pytest.mark.parametrize(("chunk", "stride"), [(1, 2), (2, 5), (3, 9), (3, 1)])
def test_the_first_chunk_stays_in_the_smallest_budget(chunk: int, stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also right before a retrieval, when the newest tokens take most of the room."""
    honest, newest = triforce.append_newest, list[int]()

    def spy(middle: ShortCache, full: Cache, scored: int, budget: int) -> None:
        honest(middle, full, scored, budget)
        newest.append(len(full) - scored)
        assert len(middle.cache) <= budget
        for found, wanted in zip(middle.cache.entries(0), full.entries(0), strict=True):
            assert torch.equal(found[:, :chunk], wanted[:, :chunk])

    monkeypatch.setattr(triforce, "append_newest", spy)
    target = varied_model()
    sizes = {"chunk": chunk, "stride": stride, "budget": chunk + max(chunk, stride - 1), "sinks": 1, "recent": 5}
    for temperature in (0.0, 1.0):
        sampler = Sampler(temperature, seed=1)
        generate(
            target, PROMPT, 60, drafter=Erring.of(target), sampler=sampler, gamma=1, gamma_2=1, threshold=0, **sizes
        )
    assert max(newest) == max(stride, chunk) - 1


def test_a_middle_level_that_is_not_finite_is_the_targets() -> None:
    class Broken(LanguageModel):
        """Its passes with the full cache, which take the blocks one by one, are right; all others are not."""

        def forward(self, *given: Any, **more: Any) -> Tensor:
            return super().forward(*given, **more) * torch.nan

    whole = language_model(11)
    with pytest.raises(ValueError, match="the target's logits are not finite"):
        generate(Broken(whole.shape).double(), PROMPT, 5, drafter=whole, sampler=Sampler(0), **SMALL)


def test_defaults_are_the_documented_ones() -> None:
    assert defaults_of(importlib.import_module("reference_impls.speculative_decoding.triforce")) == {
        "generate.gamma": 2,
        "generate.gamma_2": 6,
        "generate.budget": 4096,
        "generate.chunk": 8,
        "generate.sinks": 16,
        "generate.recent": 496,
        "generate.stride": 128,
        "generate.threshold": 0.5,
        "ShortCache.dropped": 0,
    }
