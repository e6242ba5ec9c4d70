"""Suite `early-exit`: what a method that skips layers must keep, however lossy it is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from reference_impls.core.cache import Cache
from reference_impls.core.generation import Generation
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.testing.checks import Check, Generate, Suite, later, require
from reference_impls.testing.exactness import PROMPTS, TOLERANCE, greedy
from reference_impls.testing.laws import autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import Scene, language_model, options, variants, varied_model

LIMIT = 10
CLOSE = 1e-9


@contextmanager
def watched(target: LanguageModel) -> Iterator[tuple[list[Cache], list[int]]]:
    """The caches that a target hands out while inside, and the number of layers of each of its `run`s."""
    caches: list[Cache] = []
    layers: list[int] = []
    new_cache, run = target.new_cache, target.run

    def hand_out() -> Cache:
        caches.append(new_cache())
        return caches[-1]

    def count(x: torch.Tensor, cache: Cache | None = None, **more: Any) -> torch.Tensor:
        chosen = more.get("layers")
        layers.append(target.shape.layers if chosen is None else len(chosen))
        return run(x, cache, **more)

    target.new_cache, target.run = hand_out, count  # type: ignore[method-assign]
    try:
        yield caches, layers
    finally:
        del target.new_cache, target.run


def _runs(
    generate: Generate, chosen: dict[str, Any]
) -> Iterator[tuple[LanguageModel, list[int], Generation, list[Cache], list[int]]]:
    """Greedy runs at thresholds from always leaving to never leaving, each with what was watched."""
    target = varied_model(5)
    for prompt in PROMPTS:
        for threshold in (-math.inf, 0.05, 0.2, 0.5, 0.95, math.inf):
            own = options(generate, Scene(target, prompt), threshold=threshold, **chosen)
            with watched(target) as (caches, layers):
                result = generate(target, list(prompt), LIMIT, sampler=Sampler(0), **own)
            yield target, prompt, result, caches, layers


@torch.inference_mode()
def replay(
    target: LanguageModel, prompt: Sequence[int], tokens: Sequence[int], depths: Sequence[int]
) -> tuple[Cache, list[int]]:
    """The cache and the greedy tokens if `tokens` are read with these depths: slow, and written without `fill`.

    The prompt and the first token come from all layers. A token that left after layer i gives every later layer the
    keys and values that this layer projects from its hidden state.
    """
    cache, said = target.new_cache(), list[int]()
    fed = [list(prompt), *([token] for token in tokens[:-1])]
    for group, depth in zip(fed, depths, strict=True):
        past = len(cache)
        x = target.run(target.embed(group), cache, layers=range(depth))
        turn = target.turn(past, len(group))
        for layer in range(depth, target.shape.layers):
            attention, norm = target.blocks[layer].attention, target.blocks[layer].attention_norm
            _, k, v = attention.project(norm(x), turn)
            cache.append(layer, k, v)
        said.append(int(target.logits(x[-1]).argmax()))
    return cache, said


def _full_model(generate: Generate, chosen: dict[str, Any]) -> None:
    target, limit = language_model(3, layers=3), 2
    own = options(generate, Scene(target, [0, 1]), threshold=math.inf, **chosen)
    law = exact_law(lambda sampler: generate(target, [0, 1], limit, sampler=sampler, **own))
    distance = total_variation(law, autoregressive_law(target, [0, 1], limit))
    require(distance < TOLERANCE, f"with a threshold that no token reaches the law is off by {distance:.2g}")
    target = varied_model(5)
    for prompt in PROMPTS:
        own = options(generate, Scene(target, prompt), threshold=math.inf, **chosen)
        result = generate(target, list(prompt), LIMIT, sampler=Sampler(0), **own)
        wanted = greedy(target, prompt, LIMIT)
        require(result.tokens == wanted, f"{result.tokens} is not the full model's greedy text {wanted}")
        require(result.mean_layers == target.shape.layers, f"{result.mean_layers} layers were used, not all")


def _layers(generate: Generate, chosen: dict[str, Any]) -> None:
    for target, _, result, _, ran in _runs(generate, chosen):
        depth = target.shape.layers
        used = [n for step in result.steps for n in step.layers]
        require(len(used) == len(result.tokens), f"{len(used)} depths are given for {len(result.tokens)} tokens")
        require(all(1 <= n <= depth for n in used), f"the layers used, {used}, are not between 1 and {depth}")
        require(sum(ran) == sum(used), f"{sum(ran)} layers were run, the trace says {sum(used)}")


def _early(generate: Generate, chosen: dict[str, Any]) -> None:
    target, used = varied_model(5), []
    for threshold in (-math.inf, math.inf):
        own = options(generate, Scene(target, PROMPTS[0]), threshold=threshold, **chosen)
        result = generate(target, list(PROMPTS[0]), LIMIT, sampler=Sampler(0), **own)
        used.append(result.mean_layers or 0.0)
    require(used[0] < used[1], f"the lowest threshold uses {used[0]} layers a token, the highest {used[1]}")


def _complete(generate: Generate, chosen: dict[str, Any]) -> None:
    for target, prompt, result, caches, _ in _runs(generate, chosen):
        held = {caches[0].length(layer) for layer in range(target.shape.layers)}
        wanted = len(prompt) + len(result.tokens) - 1
        require(held == {wanted}, f"the layers hold {sorted(held)} tokens, and each should hold {wanted}")


def _propagated(generate: Generate, chosen: dict[str, Any]) -> None:
    depths = set()
    for target, prompt, result, caches, _ in _runs(generate, chosen):
        used = [n for step in result.steps for n in step.layers]
        cache, said = replay(target, prompt, result.tokens, used)
        require(said == result.tokens, f"the exits of {used} layers say {said}, the text is {result.tokens}")
        held = len(cache)
        same = torch.allclose(caches[0]._store[:, :, :, :held], cache._store[:, :, :, :held], rtol=CLOSE, atol=CLOSE)  # noqa: SLF001
        require(same, "a skipped layer holds other keys or values than those of the exit's hidden state")
        depths |= set(used)
    require(len(depths) > 1, "all tokens used the same depth, so the check has seen nothing")


def early_exit_checks(generate: Generate) -> Iterator[Check]:
    """Every check for every confidence measure that the method offers."""
    tests = {
        "full-model": ("A threshold that no token reaches gives the full model's text and law exactly.", _full_model),
        "layers": ("The trace names the layers of every token, never above the depth, and these were run.", _layers),
        "leaves-early": ("A lower threshold uses fewer layers.", _early),
        "cache-complete": ("At the end every layer holds keys and values of every token read.", _complete),
        "propagation": ("Skipped layers hold the keys and values that the exit's state projects to.", _propagated),
    }
    for chosen in variants(generate):
        kind = "".join(f"[{value}]" for value in chosen.values())
        for name, (sentence, test) in tests.items():
            yield Check(name + kind, sentence, later(test, generate, chosen))


EARLY_EXIT = Suite("early-exit", early_exit_checks)
