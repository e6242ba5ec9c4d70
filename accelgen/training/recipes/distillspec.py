"""DistillSpec's drafter: a copy of the plain one that learns the target's laws, half of the time on its own texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from accelgen.training.language import thawed
from accelgen.training.parts import Windows, learn
from accelgen.training.recipe import Part, Recipe
from accelgen.training.shelf import Shelf
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding import distillspec as method

LIMIT, PROMPTS = 64, 24  # of the texts that acceptance is counted in


@dataclass(frozen=True)
class Distilling(Windows):
    """The divergence, and in what share of the steps the second half of the texts is the drafter's own."""

    kind: method.Divergence = "total-variation"
    on_policy: float = 0.5


def train(shelf: Shelf, settings: Distilling) -> Part:
    """A copy of the plain drafter, distilled."""
    target, drafter = shelf.load("target"), learner(shelf)
    sampler, coin = Sampler(seed=settings.seed), torch.Generator().manual_seed(settings.seed)

    def loss(x: Tensor, _step: int) -> Tensor:
        if float(torch.rand((), generator=coin)) >= settings.on_policy:
            return method.loss(target, drafter, x, kind=settings.kind)
        prompt = x.shape[-1] // 2
        with torch.autocast("cpu", enabled=False):  # keys and values are kept in the drafter's own type
            texts = method.continuations(drafter, x[:, :prompt], x.shape[-1] - prompt, sampler)
        return method.loss(target, drafter, texts, prompt=prompt, kind=settings.kind)

    learn(shelf, settings, drafter, loss)
    return Part(drafter, {"shape": drafter.shape})


def learner(shelf: Shelf) -> LanguageModel:
    """A copy of the plain drafter that learns on."""
    drafter = thawed(shelf.load("drafter"))
    drafter.embedding.is_table = True  # type: ignore[attr-defined]
    return drafter


def measure(shelf: Shelf, _settings: Distilling, distilled: LanguageModel) -> dict[str, Any]:
    """Acceptance and tokens a pass before and after, with the same prompts, temperatures and draws."""
    return {"before": acceptance(shelf, shelf.load("drafter")), "after": acceptance(shelf, distilled)}


def acceptance(shelf: Shelf, drafter: LanguageModel, side: str = "test") -> dict[str, Any]:
    """The share of guesses that are kept, and tokens a pass, by temperature."""
    target, found = shelf.load("target"), dict[str, Any]()
    for temperature in (0.0, 0.8, 1.0):
        sampler = Sampler(temperature)
        runs = [
            method.generate(target, prompt, LIMIT, drafter=drafter, sampler=sampler)
            for prompt in shelf.prompts(side, PROMPTS)
        ]
        steps = [step for run in runs for step in run.steps]
        kept, drafted = sum(step.kept for step in steps), sum(len(step.drafted) for step in steps)
        found[f"temperature_{temperature:g}"] = {
            "acceptance": round(kept / drafted, 4),
            "tokens_per_pass": round(sum(len(run.tokens) for run in runs) / len(steps), 3),
        }
    return found


RECIPE = Recipe(
    name="drafter-distilled",
    needs=("drafter", "target"),
    settings=Distilling(steps=150, batch=6, length=160, rates=(2e-3, 2e-3), decay=1.0),
    train=train,
    measure=measure,
)
