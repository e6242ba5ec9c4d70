"""The translator with a chain over its words, taught by the autoregressive one."""

from __future__ import annotations

from functools import partial
from typing import Any

from accelgen.training.recipe import Part, Recipe
from accelgen.training.sentence_pairs import Pairs, compared, corpus, learn, lessons, shape_for
from accelgen.training.shelf import Shelf
from reference_impls.non_autoregressive import nart_crf as method
from reference_impls.zoo.tasks import END, PAD, Example, task

BEAM = 16  # candidates for each place
READINGS: dict[str, dict[str, Any]] = {  # without `bias` the length is told
    "logits alone, length known": {"beam": 1},
    "chain, length known": {"beam": BEAM},
    "logits alone, 5 lengths": {"beam": 1, "bias": -1, "candidates": 5},
    "chain, 5 lengths": {"beam": BEAM, "bias": -1, "candidates": 5},
    "chain, 1 length": {"beam": BEAM, "bias": -1},
}
TRIED: dict[str, dict[str, Any]] = {
    f"bias {bias}, {lengths} lengths": {"beam": BEAM, "bias": bias, "candidates": lengths}
    for lengths in (1, 3, 5, 7) for bias in (-2, -1, 0)
}  # fmt: skip


def train(shelf: Shelf, settings: Pairs) -> Part:
    """A model that learns words and transitions together."""
    own = task(settings.task)
    part = Part.of(method.StructuredModel, shape=shape_for(own), longest=own.longest, pad=PAD, end=END)
    learn(settings, part.module, lessons(shelf, settings), partial(method.loss, part.module, beam=BEAM))
    return part


def measure(shelf: Shelf, settings: Pairs, model: method.StructuredModel) -> dict[str, Any]:
    """Shares of held-out sentences that are right, with and without the chain; the teacher chooses among lengths."""
    own, teacher = task(settings.task), shelf.load("translation-ar")
    readings = READINGS | TRIED

    def write(reading: str, example: Example) -> list[int]:
        source, reference = own.encode(example.source), own.encode(example.references[0])
        options = {"bias": len(reference) - len(source), "candidates": 1} | readings[reading]
        judge = teacher if options["candidates"] > 1 else None
        return method.generate(model, source, teacher=judge, **options).tokens

    return compared(own, READINGS, TRIED, write)


RECIPE = Recipe(
    name="translation-crf",
    needs=("translation-ar",),
    settings=Pairs(pairs=24_000, batch=64, teacher="translation-ar"),
    train=train,
    measure=measure,
    corpus=corpus,
)
