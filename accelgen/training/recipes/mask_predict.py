"""Mask-Predict's conditional masked language model, taught by the autoregressive translator."""

from __future__ import annotations

from typing import Any

import torch

from accelgen.training.recipe import Part, Recipe
from accelgen.training.sentence_pairs import Pairs, corpus, examples, judged, learn, lessons, shape_for
from accelgen.training.shelf import Shelf
from reference_impls.non_autoregressive import mask_predict as method
from reference_impls.zoo.tasks import MASK, PAD, Example, task

READINGS: dict[str, dict[str, Any]] = {
    "iterations 1": {"iterations": 1, "candidates": 1},
    "iterations 4": {"iterations": 4, "candidates": 1},
    "iterations 10": {"iterations": 10, "candidates": 1},
    "iterations 10, 3 lengths": {"iterations": 10, "candidates": 3},
    "iterations 10, 3 lengths, length_weight 1": {"iterations": 10, "candidates": 3, "length_weight": 1.0},
}


def train(shelf: Shelf, settings: Pairs) -> Part:
    """A model that fills in masked words, all at once."""
    own = task(settings.task)
    part = Part.of(
        method.ConditionalMaskedModel, shape=shape_for(own), longest=own.longest, pad=PAD, mask_id=MASK
    )  # fmt: skip
    generator = torch.Generator().manual_seed(settings.seed)
    learn(
        settings, part.module, lessons(shelf, settings),
        lambda source, target: method.loss(part.module, source, target, generator=generator),
    )  # fmt: skip
    return part


def measure(_shelf: Shelf, settings: Pairs, model: method.ConditionalMaskedModel) -> dict[str, Any]:
    """Shares of held-out sentences that are right, after some iterations and for some lengths."""
    own = task(settings.task)

    def write(reading: str, example: Example) -> list[int]:
        return method.generate(model, own.encode(example.source), **READINGS[reading]).tokens

    return judged(own, examples(own), READINGS, write)


RECIPE = Recipe(
    name="translation-masked",
    needs=("translation-ar",),
    settings=Pairs(steps=3_000, pairs=24_000, batch=64, teacher="translation-ar"),
    train=train,
    measure=measure,
    corpus=corpus,
)
