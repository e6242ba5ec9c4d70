"""Models that learn from pairs of sentences: batches, distillation, the loop, and the judgement of what they write."""

from __future__ import annotations

import importlib.metadata
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from accelgen.training.fit import fit
from accelgen.training.recipe import Settings
from accelgen.training.shelf import Shelf
from reference_impls.core.cache import Cache
from reference_impls.core.layers import Shape
from reference_impls.core.seq2seq import EncoderDecoder
from reference_impls.zoo.tasks import END, HELD_OUT, PAD, Example, Frh, Side, Task, clean, task

Row = tuple[list[int], ...]  # a source, its target, and what else is learnt from
TABLES = {"embedding", "positions", "lengths.table", "transitions.before", "transitions.after"}
COUNT = 1000  # sentences that a model is measured on
TRIALS = 200  # sentences of the development side that ways to decode are compared on
FRESH = 2  # the seed of these sentences; those of seed 1 were looked at while methods were tried


@dataclass(frozen=True)
class Pairs(Settings):
    """The task, how many of its pairs are learnt from, whose translations they hold, and for how long."""

    task: str = "lite"
    steps: int = 2_000
    pairs: int = 60_000
    batch: int = 32
    teacher: str | None = None
    matrix_rate: float = 6e-3
    other_rate: float = 1e-2


def shape_for(own: Task) -> Shape:
    """The shape of all these models."""
    return Shape(vocab=len(own.vocabulary), dim=128, layers=2, heads=4, kv_heads=4, head_dim=32, hidden=352)


def corpus(settings: Pairs) -> dict[str, Any]:
    """What the manifest says of the pairs."""
    return {
        "task": settings.task,
        "split": f"the SHA-256 of a source decides: one in {HELD_OUT} is held out, a half of these for choices",
        "number words": f"num2words {importlib.metadata.version('num2words')} (LGPL, a dependency, not included)",
    }


def padded(rows: list[list[int]]) -> Tensor:
    """Rows of token ids as one tensor [batch, longest of them]."""
    width = max(map(len, rows))
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])


def batches(rows: Sequence[tuple[list[int], ...]], size: int, seed: int = 0) -> Iterator[tuple[Tensor, ...]]:
    """Random batches of sources, targets and what else a row holds; rows of about the same length come together."""
    chance = random.Random(seed)
    while True:
        rows = chance.sample(rows, len(rows))
        for start in range(0, len(rows), 50 * size):
            near = sorted(rows[start : start + 50 * size], key=lambda row: (len(row[1]), len(row[0])))
            groups = [near[i : i + size] for i in range(0, len(near), size)]
            for group in chance.sample(groups, len(groups)):
                yield tuple(padded(list(column)) for column in zip(*group, strict=True))


def autoregressive_loss(model: EncoderDecoder, source: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy in nats of each target token and the end, given the ones before it."""
    shifted = F.pad(target, (1, 0), value=END)  # the decoder starts from END
    wanted = F.pad(target, (0, 1), value=PAD)
    wanted[torch.arange(len(target)), (target != PAD).sum(-1)] = END
    logits = model.logits(model.decode(shifted, model.encode(source, source != PAD)))
    return F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=PAD)


class BatchCache(Cache):
    """A cache for many canvases of equal length: the batch hides among the heads."""

    def __init__(self, model: EncoderDecoder, batch: int) -> None:
        shape = model.shape
        super().__init__(shape.layers, batch * shape.kv_heads, shape.head_dim, model.embedding.dtype, model.device)
        self.batch = batch

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values [batch, kv_heads, new, head_dim]; return all of the layer's."""
        k, v = super().append(layer, k.flatten(0, 1), v.flatten(0, 1))
        return k.unflatten(0, (self.batch, -1)), v.unflatten(0, (self.batch, -1))


@torch.inference_mode()
def translate_all(model: EncoderDecoder, sources: list[list[int]], limit: int, batch: int = 256) -> list[list[int]]:
    """Greedy autoregressive translations of many sources; those of about the same length go together."""
    found: dict[int, list[int]] = {}
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        source = padded([sources[i] for i in rows])
        memory, cache = model.encode(source, source != PAD), BatchCache(model, len(rows))
        token = torch.full((len(rows), 1), END)
        tokens = token[:, :0]
        while tokens.shape[1] < limit and not (tokens == END).any(1).all():
            token = model.logits(model.decode(token, memory, cache)).argmax(-1)
            tokens = torch.cat((tokens, token), 1)
        found.update(zip(rows, map(clean, tokens.tolist()), strict=True))
    return [found[i] for i in range(len(sources))]


def lessons(shelf: Shelf, settings: Pairs) -> list[tuple[list[int], list[int]]]:
    """Training pairs: with a teacher its greedy translations (Kim and Rush, 2016), else any of the legal forms."""
    own = task(settings.task)
    pairs = own.pairs(settings.pairs, "train", seed=settings.seed)
    if settings.teacher is None:
        return pairs
    sources = [source for source, _ in pairs]
    return list(zip(sources, translate_all(shelf.load(settings.teacher), sources, own.longest), strict=True))


def learn(settings: Pairs, model: EncoderDecoder, rows: Sequence[Row], loss: Callable[..., Tensor]) -> None:
    """Train a model in place. `loss` is called with the columns of a batch of rows, each padded [batch, tokens]."""
    for key, parameter in model.named_parameters():
        parameter.is_table = key in TABLES  # type: ignore[attr-defined]
    data = batches(rows, settings.batch, settings.seed)
    fit(
        model.parameters(), lambda _: loss(*next(data)), settings.steps, title=type(model).__name__,
        matrix_rate=settings.matrix_rate, other_rate=settings.other_rate,
    )  # fmt: skip


def examples(own: Task, side: Side = "test", count: int | None = None) -> list[Example]:
    """The sentences of a side that nothing is trained on and models are measured on; COUNT of them by default."""
    if side == "train":
        raise ValueError("no figure comes from sentences that were trained on: measure on 'development' or on 'test'")
    return list(islice(own.examples(side, seed=FRESH), COUNT if count is None else count))


def judged(
    own: Task, found: Sequence[Example], readings: Iterable[str], write: Callable[[str, Example], Sequence[int]]
) -> dict[str, Any]:
    """The verdict on every reading of a model; `write` gives its tokens for an example."""
    return {
        "n": len(found),
        **{reading: verdict(own, found, [write(reading, each) for each in found]) for reading in readings},
    }


def compared(
    own: Task, readings: Iterable[str], tried: Iterable[str], write: Callable[[str, Example], Sequence[int]]
) -> dict[str, Any]:
    """The verdicts on `readings` from the test side, and those on what was `tried` from the development side."""
    development = judged(own, examples(own, "development", TRIALS), tried, write)
    return judged(own, examples(own), readings, write) | {"development": development}


def verdict(own: Task, examples: Sequence[Example], outputs: Sequence[Sequence[int]]) -> dict[str, float]:
    """Shares of outputs that match a reference, that have a reference's length, and (frh) that mix two spellings."""
    both = list(zip(outputs, examples, strict=True))
    counts = {
        "exact_match": sum(own.is_correct(output, example) for output, example in both),
        "right_length": sum(len(clean(output)) == len(own.encode(example.references[0])) for output, example in both),
    }
    if isinstance(own, Frh):
        counts["mixed"] = sum(own.is_mixed(output, example) for output, example in both)
    return {key: count / len(both) for key, count in counts.items()}
