"""DistillSpec's drafter: a copy of the plain one that learns the target's laws, half of the time on its own texts."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from accelgen.training.language import thawed
from accelgen.training.parts import Windows, learn
from accelgen.training.recipe import Part, Recipe
from accelgen.training.shelf import Shelf
from reference_impls.baselines.autoregressive import generate as autoregressive
from reference_impls.core.distillation import Divergence
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding import distillspec as method

LIMIT, PROMPTS = 64, 24  # of the texts on which acceptance is measured
TEMPERATURES = (0.0, 0.8, 1.0)
Texts = list[tuple[list[int], list[int]]]  # prompts, and how the target goes on


@dataclass(frozen=True)
class Distilling(Windows):
    """The divergence, and in what share of the steps the second half of the texts is the drafter's own."""

    kind: Divergence = "forward-kl"
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
    """Acceptance before and after, on the same texts."""
    found: dict[str, Any] = {"before": {}, "after": {}}
    for t in TEMPERATURES:
        texts = written(shelf, "test", t)
        for name, drafter in {"before": shelf.load("drafter"), "after": distilled}.items():
            found[name][f"temperature_{t:g}"] = round(fmean(acceptance(shelf, drafter, texts, t)), 4)
    return found


def written(shelf: Shelf, side: str, temperature: float) -> Texts:
    """The prompts of a side, and how the target goes on after each."""
    target, sampler = shelf.load("target"), Sampler(temperature)
    prompts = shelf.prompts(side, PROMPTS)
    return [(prompt, autoregressive(target, prompt, LIMIT, sampler=sampler).tokens) for prompt in prompts]


@torch.inference_mode()
def acceptance(shelf: Shelf, drafter: LanguageModel, texts: Texts, temperature: float) -> list[float]:
    """For each text the chance that a guess is kept, the mean over its places of sum_x min(p(x), q(x)).

    So nothing is drawn but the texts, which are the same for all drafters.
    """
    target, sampler, found = shelf.load("target"), Sampler(temperature), list[float]()
    for prompt, text in texts:
        p, q = (sampler.probs(model([*prompt, *text[:-1]], last=len(text))) for model in (target, drafter))
        found.append(float(p.minimum(q).sum(-1).mean()))
    return found


RECIPE = Recipe(
    name="drafter-distilled",
    needs=("drafter", "target"),
    settings=Distilling(steps=150, batch=6, length=160, rates=(2e-3, 2e-3), decay=1.0),  # see measuring/divergences.py
    train=train,
    measure=measure,
)
