"""SpecDec's parallel drafter, taught by the autoregressive translator that it drafts for."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor

from accelgen.training.recipe import Part, Recipe
from accelgen.training.sentence_pairs import Pairs, corpus, examples, learn, lessons, shape_for, verdict
from accelgen.training.shelf import Shelf
from reference_impls.speculative_decoding import specdec as method
from reference_impls.zoo.tasks import END, MASK, PAD, task

RULES: dict[str, dict[str, Any]] = {
    "beta 1": {"beta": 1},
    "beta 3, tau 1": {"beta": 3, "tau": 1.0},
    "beta 5, tau 3": {"beta": 5, "tau": 3.0},
}


@dataclass(frozen=True)
class Blocks(Pairs):
    """How shallow the drafter's decoder is, how many places it fills, and how many of its mistakes it is shown."""

    decoder_layers: int = 1
    gamma: int = 25
    shares: tuple[float, float] = (0.5, 0.3)  # of the mistakes, at the beginning and at the end


def train(shelf: Shelf, settings: Blocks) -> Part:
    """A model that fills in blocks; it begins with the translator's encoder."""
    own, (first, last) = task(settings.task), settings.shares
    part = Part.of(
        method.SpecDrafter, shape=shape_for(own), longest=own.longest, pad=PAD, mask_id=MASK,
        decoder_layers=settings.decoder_layers,
    )  # fmt: skip
    if settings.teacher is not None:
        method.initialise(part.module, shelf.load(settings.teacher))
    generator, done = torch.Generator().manual_seed(settings.seed), count()

    def glancing(source: Tensor, target: Tensor) -> Tensor:
        share = first + (last - first) * next(done) / settings.steps
        return method.loss(part.module, source, target, gamma=settings.gamma, share=share, generator=generator)

    learn(settings, part.module, [(source, [*target, END]) for source, target in lessons(shelf, settings)], glancing)
    return part


def measure(shelf: Shelf, settings: Blocks, model: method.SpecDrafter) -> dict[str, Any]:
    """What the translator writes with this drafter by some rules: shares of sentences, and tokens a pass."""
    own, translator = task(settings.task), shelf.load("translation-ar")
    found, figures = examples(own), dict[str, Any]()
    for rule, options in RULES.items():
        rest = {"drafter": model, "eos": END, "gamma": settings.gamma, **options}
        written = [method.generate(translator, own.encode(each.source), own.longest, **rest) for each in found]
        figures[rule] = verdict(own, found, [result.tokens for result in written])
        tokens, passes = sum(len(result.tokens) for result in written), sum(result.passes for result in written)
        figures[rule]["tokens_per_pass"] = round(tokens / passes, 3)
    return {"n": len(found), **figures}


RECIPE = Recipe(
    name="translation-drafter",
    needs=("translation-ar",),
    settings=Blocks(steps=3_000, pairs=24_000, batch=64, teacher="translation-ar"),
    train=train,
    measure=measure,
    corpus=corpus,
)
