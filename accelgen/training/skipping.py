"""The zoo's skip set: which halves of the target self-speculative decoding leaves out when it drafts.

It is searched, not trained: `accelgen zoo train skip-set` runs the whole method on text that the target has learnt
from, counts what is run, and multiplies with the time that a half, a read-out and a pass take on this machine. The
score is the number of tokens in the time of one pass of the target over one token, so 1 is plain decoding.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from tokenizers import Tokenizer
from torch import Tensor, nn

from accelgen.training import language
from reference_impls.core.generation import Generation
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding import self_speculative_decoding as method
from reference_impls.speculative_decoding.self_speculative_decoding import Skips
from reference_impls.zoo.corpus import prompts, read_corpus
from reference_impls.zoo.storage import WEIGHTS, load_state, save

ROUNDS = 120
LIMIT = 24  # new tokens after each prompt of the search, 32 in the paper
TEXTS, LENGTH = 8, 48  # how many beginnings of training texts are searched on, and how long they are
STARTS = (1, 2, 4, 8)  # the search begins at the best of the drafts by so many lowest layers alone
HELD_OUT = 24  # prompts that the figures are taken on


class SkipSet(nn.Module):
    """The paper's vector z: 1 in z [2, layers] means that this attention (row 0) or feed-forward half is left out."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.z = nn.Parameter(torch.zeros(2, shape.layers), requires_grad=False)

    @classmethod
    def of(cls, skips: Skips, shape: Shape) -> SkipSet:
        """The set with the given layers' halves left out."""
        made = cls(shape)
        for row, chosen in zip(made.z, skips, strict=True):
            row[list(chosen)] = 1.0
        return made

    @property
    def attention(self) -> tuple[int, ...]:
        """Layers whose attention half is left out."""
        return tuple(self.z[0].nonzero().flatten().tolist())

    @property
    def feed(self) -> tuple[int, ...]:
        """Layers whose feed-forward half is left out."""
        return tuple(self.z[1].nonzero().flatten().tolist())


def blank(_name: str) -> SkipSet:
    """A set that leaves nothing out."""
    return SkipSet(language.TARGET)


def train(
    name: str, *, folder: Path = WEIGHTS, steps: int | None = None, seed: int = 0, data: Tensor | None = None
) -> dict[str, Any]:
    """Search a set for the target in `folder`, store it there with its facts, and return the manifest entry.

    `steps` is the number of sets tried after the first ones. `data` is a row of training tokens [n], each text led by
    token 0; without it the corpus is read.
    """
    target = LanguageModel(language.TARGET)
    target.load_state_dict(load_state("target", folder=folder))
    target.eval().requires_grad_(requires_grad=False)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    costs, layers, rounds = measured_costs(target), target.shape.layers, ROUNDS if steps is None else steps
    texts = _beginnings(data) if data is not None else _read(tokenizer)
    with Progress() as bar:
        task = bar.add_task("search", total=rounds)

        def objective(skips: Skips) -> float:
            score = speed(target, texts, skips, costs)["speed"]
            bar.update(task, advance=1)
            return score

        starts = [(tuple(range(n, layers)),) * 2 for n in STARTS if n < layers] or [((), ())]
        found, score = method.search(objective, layers, starts=starts, rounds=rounds, seed=seed)
    recipe = {
        "on": "target", "objective": "tokens in the time of one target pass", "rounds": rounds, "texts": len(texts),
        "limit": LIMIT, "starts": list(STARTS), "milliseconds": costs, "score": round(score, 3), "seed": seed,
    }  # fmt: skip
    quality = figures(target, [list(tokenizer.encode(text).ids) for text in prompts()[:HELD_OUT]], found, costs)
    return save(name, SkipSet.of(found, target.shape), folder=folder, recipe=recipe, quality=quality)


def _beginnings(data: Tensor) -> list[list[int]]:
    """The beginnings of texts, taken from all over a row of tokens in which token 0 leads each."""
    leads = (data == 0).nonzero().flatten()
    chosen = leads[torch.linspace(0, len(leads) - 1, TEXTS).long()].tolist()
    return [data[start + 1 : start + 1 + LENGTH].tolist() for start in chosen]


def _read(tokenizer: Tokenizer) -> list[list[int]]:
    texts = read_corpus()["train"][:TEXTS]
    return [list(tokenizer.encode(text[: 8 * LENGTH]).ids)[:LENGTH] for text in texts]


def measured_costs(target: LanguageModel, runs: int = 60, prefix: int = 64) -> dict[str, float]:
    """Milliseconds of a half of each kind, of a read-out with its draw, and of a pass over one and over four tokens.

    Halves are timed layer after layer, so that their weights come from memory as they do in a pass.
    """
    cache, sampler, layers = target.new_cache(), Sampler(0), target.shape.layers
    with torch.inference_mode():
        target([1] * prefix, cache)
        x, turn = target.embed([1]), target.turn(prefix, 1)

        def read_out() -> None:
            logits = target.logits(x[0])
            method.drawn_with_confidence(sampler, sampler.probs(logits), logits)

        kinds: dict[str, Callable[[], Any]] = {
            "attention": lambda: [b.attend(x, turn, None, cache, layer) for layer, b in enumerate(target.blocks)],
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
    target: LanguageModel, texts: Sequence[Sequence[int]], skips: Skips, costs: dict[str, float]
) -> dict[str, float]:
    """Greedy text with this set: tokens in the time of a target pass, tokens a pass, acceptance, length of a draft."""
    attention, feed = skips
    runs = [
        method.generate(target, text, LIMIT, sampler=Sampler(0), skip_attention=attention, skip_feed=feed)
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
