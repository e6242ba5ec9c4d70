"""The autoregressive translator: the translation family's baseline, and the teacher of those that learn from it."""

from __future__ import annotations

from functools import partial
from typing import Any

from accelgen.training.recipe import Part, Recipe
from accelgen.training.sentence_pairs import (
    Pairs,
    autoregressive_loss,
    corpus,
    examples,
    learn,
    lessons,
    shape_for,
    translate_all,
    verdict,
)  # fmt: skip
from accelgen.training.shelf import Shelf
from reference_impls.core.seq2seq import EncoderDecoder
from reference_impls.zoo.tasks import task


def train(shelf: Shelf, settings: Pairs) -> Part:
    """A model that writes one word after another."""
    own = task(settings.task)
    part = Part.of(EncoderDecoder, shape=shape_for(own), longest=own.longest)
    learn(settings, part.module, lessons(shelf, settings), partial(autoregressive_loss, part.module))
    return part


def measure(_shelf: Shelf, settings: Pairs, model: EncoderDecoder) -> dict[str, Any]:
    """Shares of held-out sentences that are translated right."""
    own = task(settings.task)
    found = examples(own)
    written = translate_all(model, [own.encode(each.source) for each in found], own.longest)
    return {"n": len(found), "greedy": verdict(own, found, written)}


RECIPE = Recipe("translation-ar", Pairs(steps=1_500), train, measure, corpus=corpus)
