"""The skip set: which halves of the target self-speculative decoding leaves out when it drafts.

It is searched, not trained: the whole method runs on text that the target has learnt from, what is run is counted, and
multiplied with the time that a half, a read-out and a pass take on this machine. The score is the number of tokens in
the time of one pass of the target over one token, so 1 is plain decoding.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from rich.progress import Progress

from accelgen.training.recipe import Part, Recipe, Settings
from accelgen.training.shelf import Shelf
from reference_impls.core.generation import Generation
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding import self_speculative_decoding as method
from reference_impls.speculative_decoding.self_speculative_decoding import Skips
from reference_impls.zoo.skip_set import SkipSet

LENGTH = 48  # tokens of each beginning that is searched on
PROMPTS = 24  # that the figures are taken on


@dataclass(frozen=True)
class Search(Settings):
    """How many sets are tried after the first ones, on how many beginnings of training texts, `limit` tokens each."""

    rounds: int = 120
    texts: int = 8
    limit: int = 24  # 32 in the paper
    starts: tuple[int, ...] = (1, 2, 4, 8)  # the search begins at the best draft by so many lowest layers alone

    def shortened(self, steps: int) -> Self:
        """The same search with so many rounds."""
        return replace(self, rounds=steps)


def train(shelf: Shelf, settings: Search) -> Part:
    """Search the set that scores best on beginnings of training texts."""
    target = shelf.load("target")
    costs, layers = measured_costs(target), target.shape.layers
    texts = [
        list(shelf.tokenizer.encode(text[: 8 * LENGTH]).ids)[:LENGTH] for text in shelf.read(2).train[: settings.texts]
    ]
    with Progress() as bar:
        task = bar.add_task("search", total=settings.rounds)

        def objective(skips: Skips) -> float:
            score = speed(target, texts, skips, costs, limit=settings.limit)["speed"]
            bar.update(task, advance=1)
            return score

        starts = [(tuple(range(n, layers)),) * 2 for n in settings.starts if n < layers] or [((), ())]
        found, _ = method.search(objective, layers, starts=starts, rounds=settings.rounds, seed=settings.seed)
    part = Part.of(SkipSet, shape=target.shape)
    part.module.choose(*found)
    return part


def measure(shelf: Shelf, _settings: Search, skips: SkipSet) -> dict[str, Any]:
    """What the set found is worth, beside as many halves taken at random, and none, on prompts not searched on."""
    target = shelf.load("target")
    costs = measured_costs(target)
    found = (skips.attention, skips.feed)
    return {"milliseconds": costs} | figures(target, shelf.prompts(count=PROMPTS), found, costs)


def measured_costs(target: LanguageModel, runs: int = 60, prefix: int = 64) -> dict[str, float]:
    """Milliseconds of a half of each kind, of a read-out with its draw, and of a pass over one and over four tokens.

    Halves are timed layer after layer, so that their weights come from memory as they do in a pass.
    """
    cache, sampler, layers = target.new_cache(), Sampler(0), target.shape.layers
    with torch.inference_mode():
        target([1] * prefix, cache)
        x, angles = target.embed([1]), target.angles(prefix, 1)

        def read_out() -> None:
            logits = target.logits(x[0])
            method.drawn_with_confidence(sampler, sampler.probs(logits), logits)

        kinds: dict[str, Callable[[], Any]] = {
            "attention": lambda: [b.attend(x, angles, None, cache, layer) for layer, b in enumerate(target.blocks)],
            "feed": lambda: [b.feed(x) for b in target.blocks],
            "read_out": read_out,
            "pass_1": lambda: target([1], cache, last=1),
            "pass_4": lambda: target([1] * 4, cache, last=4),
        }
        each = {kind: layers if kind in ("attention", "feed") else 1 for kind in kinds}
        return {kind: round(_milliseconds(run, cache, prefix, runs) / each[kind], 4) for kind, run in kinds.items()}


def _milliseconds(run: Callable[[], Any], cache: Any, prefix: int, runs: int) -> float:
    """The fastest of several runs, in the processor's time: what else the machine does only ever adds."""
    best = float("inf")
    for _ in range(runs):
        start = time.thread_time()
        run()
        best = min(best, time.thread_time() - start)
        cache.crop(prefix)
    return 1000 * best


def speed(
    target: LanguageModel, texts: Sequence[Sequence[int]], skips: Skips, costs: dict[str, float], *, limit: int = 24
) -> dict[str, float]:
    """Greedy text with this set: tokens in the time of a target pass, tokens a pass, acceptance, length of a draft."""
    attention, feed = skips
    runs = [
        method.generate(target, text, limit, sampler=Sampler(0), skip_attention=attention, skip_feed=feed)
        for text in texts
    ]
    both = Generation([t for run in runs for t in run.tokens], [s for run in runs for s in run.steps])
    halves = {"attention": attention, "feed": feed}
    sketch = costs["read_out"] + sum(costs[kind] * (target.shape.layers - len(out)) for kind, out in halves.items())
    spent = both.passes * costs["pass_4"] + both.draft_passes * sketch
    drafts = sum(1 for step in both.steps if step.drafted)
    return {
        "speed": len(both.tokens) * costs["pass_1"] / spent,
        "tokens_per_pass": both.tokens_per_pass,
        "acceptance": both.acceptance or 0.0,
        "draft_length": both.draft_passes / max(1, drafts),
    }


def figures(
    target: LanguageModel, texts: Sequence[Sequence[int]], found: Skips, costs: dict[str, float]
) -> dict[str, Any]:
    """On prompts that were not searched on: the set found, as many halves taken at random, and none."""
    layers, chance = target.shape.layers, random.Random(0)
    other = tuple(tuple(sorted(chance.sample(range(layers), len(chosen)))) for chosen in found)
    sets: dict[str, Any] = {"found": found, "at random": other, "nothing skipped": ((), ())}
    rows = {name: speed(target, texts, skips, costs) for name, skips in sets.items()}
    return {
        "skipped": {"attention": len(found[0]), "feed": len(found[1]), "of": layers},
        "sets": {name: {key: round(value, 3) for key, value in row.items()} for name, row in rows.items()},
    }


RECIPE = Recipe("skip-set", Search(), train, measure, needs=("target",))
