"""Suite `early-exit`: what a method that skips layers must keep, however lossy it is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from reference_impls.core.cache import Cache, Past
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.testing.case import Scene
from reference_impls.testing.checks import Check, Subject, Suite, later, named, require, trace
from reference_impls.testing.exactness import PROMPTS, TOLERANCE, greedy
from reference_impls.testing.from_signature import KitError, variants
from reference_impls.testing.laws import autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import language_model, varied_model

LIMIT = 10
CLOSE = 1e-9
THRESHOLDS = (-math.inf, 0.05, 0.2, 0.5, 0.95, math.inf)  # from always leaving to never leaving

Options = Mapping[str, Any]


def exits_of(subject: Subject) -> Sequence[Options]:
    """The subject's options from the earliest exit to the full model. Raises KitError where nobody knows them."""
    if subject.case.exits:
        return subject.case.exits
    if not subject.takes("threshold"):
        raise KitError(
            "generate has no `threshold`, so the kit cannot tell how early it leaves: say in its case with which "
            "options, from the earliest exit to the full model"
        )
    return [{"threshold": threshold} for threshold in THRESHOLDS]


@contextmanager
def watched(target: LanguageModel) -> Iterator[tuple[list[Cache], list[int]]]:
    """The caches that a target hands out while inside, and the number of layers of each of its `run`s."""
    caches: list[Cache] = []
    layers: list[int] = []
    new_cache, run = target.new_cache, target.run

    def hand_out() -> Cache:
        caches.append(new_cache())
        return caches[-1]

    def count(x: torch.Tensor, cache: Past | None = None, **more: Any) -> torch.Tensor:
        chosen = more.get("layers")
        layers.append(target.shape.layers if chosen is None else len(chosen))
        return run(x, cache, **more)

    target.new_cache, target.run = hand_out, count  # type: ignore[method-assign]
    try:
        yield caches, layers
    finally:
        del target.new_cache, target.run


def _runs(subject: Subject, chosen: Options) -> Iterator[tuple[LanguageModel, list[int], Any, list[Cache], list[int]]]:
    """Greedy runs from the earliest exit to the full model, each with what was watched."""
    target = varied_model(5)
    for prompt in PROMPTS:
        for exit_ in exits_of(subject):
            own = subject.options(Scene(target, prompt), **exit_, **chosen)
            with watched(target) as (caches, layers):
                result = subject.generate(target, list(prompt), LIMIT, sampler=Sampler(0), **own)
            yield target, prompt, result, caches, layers


def _used(result: Any) -> list[int]:
    """The layers of every token, as the trace has them."""
    return [n for step in trace(result, "layers") for n in step.layers]


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
        angles = target.angles(past, len(group))
        for layer in range(depth, target.shape.layers):
            attention, norm = target.blocks[layer].attention, target.blocks[layer].attention_norm
            _, k, v = attention.project(norm(x), angles)
            cache.append(layer, k, v)
        said.append(int(target.logits(x[-1]).argmax()))
    return cache, said


def _full_model(subject: Subject, chosen: Options) -> None:
    last, target, limit = exits_of(subject)[-1], language_model(3, layers=5), 2
    own = subject.options(Scene(target, [0, 1]), **last, **chosen)
    law = exact_law(lambda sampler: subject.generate(target, [0, 1], limit, sampler=sampler, **subject.fresh(own)))
    distance = total_variation(law, autoregressive_law(target, [0, 1], limit))
    require(distance < TOLERANCE, f"where no token leaves early the law is off by {distance:.2g}")
    target = varied_model(5)
    for prompt in PROMPTS:
        own = subject.options(Scene(target, prompt), **last, **chosen)
        result = subject.generate(target, list(prompt), LIMIT, sampler=Sampler(0), **own)
        wanted = greedy(target, prompt, LIMIT)
        require(result.tokens == wanted, f"{result.tokens} is not the full model's greedy text {wanted}")


def _layers(subject: Subject, chosen: Options) -> None:
    for target, _, result, _, ran in _runs(subject, chosen):
        depth, used = target.shape.layers, _used(result)
        require(len(used) == len(result.tokens), f"{len(used)} depths are given for {len(result.tokens)} tokens")
        require(all(1 <= n <= depth for n in used), f"the layers used, {used}, are not between 1 and {depth}")
        require(sum(ran) == sum(used), f"{sum(ran)} layers were run, the trace says {sum(used)}")


def _early(subject: Subject, chosen: Options) -> None:
    target, exits = varied_model(5), exits_of(subject)
    used = []
    for exit_ in (exits[0], exits[-1]):
        own = subject.options(Scene(target, PROMPTS[0]), **exit_, **chosen)
        used.append(_used(subject.generate(target, list(PROMPTS[0]), LIMIT, sampler=Sampler(0), **own)))
    full = [target.shape.layers] * LIMIT
    require(used[1] == full, f"where no token leaves early the layers used are {used[1]}, and not all")
    require(sum(used[0]) < sum(full), f"at the earliest exit the layers used are {used[0]}: none was saved")


def _complete(subject: Subject, chosen: Options) -> None:
    for target, prompt, result, caches, _ in _runs(subject, chosen):
        held = {caches[0].length(layer) for layer in range(target.shape.layers)}
        wanted = len(prompt) + len(result.tokens) - 1
        require(held == {wanted}, f"the layers hold {sorted(held)} tokens, and each should hold {wanted}")


def _propagated(subject: Subject, chosen: Options) -> None:
    depths = set()
    for target, prompt, result, caches, _ in _runs(subject, chosen):
        used = _used(result)
        cache, said = replay(target, prompt, result.tokens, used)
        require(said == result.tokens, f"the exits of {used} layers say {said}, the text is {result.tokens}")
        held = len(cache)
        same = torch.allclose(caches[0]._store[:, :, :, :held], cache._store[:, :, :, :held], rtol=CLOSE, atol=CLOSE)  # noqa: SLF001
        require(same, "a skipped layer holds other keys or values than those of the exit's hidden state")
        depths |= set(used)
    require(len(depths) > 1, "all tokens used the same depth, so the check has seen nothing")


def early_exit_checks(subject: Subject) -> Iterator[Check]:
    """Every check for every confidence measure that the method offers."""
    tests = {
        "full-model": ("Where no token leaves early, text and law are the full model's exactly.", _full_model),
        "layers": ("The trace names the layers of every token, never above the depth, and these were run.", _layers),
        "leaves-early": ("The earliest exit uses fewer layers, the last one all of them.", _early),
        "cache-complete": ("At the end every layer holds keys and values of every token read.", _complete),
        "propagation": ("Skipped layers hold the keys and values that the exit's state projects to.", _propagated),
    }
    for chosen in variants(subject.generate):
        for name, (sentence, test) in tests.items():
            yield Check(name + named(chosen), sentence, later(test, subject, chosen))


EARLY_EXIT = Suite("early-exit", early_exit_checks)
