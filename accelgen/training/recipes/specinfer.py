"""SpecInfer's second drafter: tuned on the places where the first one misses what the target says."""

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
from reference_impls.speculative_decoding import specinfer as method

LENGTH = 256  # of the windows that it is measured on


@dataclass(frozen=True)
class Boosting(Windows):
    """A place that the first drafter gets right weighs `rest` beside one that it misses."""

    rest: float = 0.1


def train(shelf: Shelf, settings: Boosting) -> Part:
    """A copy of the first drafter, tuned."""
    target, first, boosted = shelf.load("target"), shelf.load("drafter"), thawed(shelf.load("drafter"))
    boosted.embedding.is_table = True  # type: ignore[attr-defined]
    learn(shelf, settings, boosted, lambda x, _: method.loss(target, [first], boosted, x, rest=settings.rest))
    return Part(boosted, {"shape": boosted.shape})


@torch.inference_mode()
def measure(shelf: Shelf, _settings: Boosting, boosted: LanguageModel) -> dict[str, Any]:
    """Shares of places where the target's best token is guessed, by each drafter and by one of the two."""
    target, first, data = shelf.load("target"), shelf.load("drafter"), shelf.held_out()
    rows = data[: len(data) // LENGTH * LENGTH].view(-1, LENGTH)
    hits: dict[str, list[Tensor]] = {}
    for x in rows.split(16):
        best = target(x).argmax(-1, keepdim=True)
        one, two = (model(x).topk(2).indices for model in (first, boosted))
        found = {
            "drafter": one[..., :1] == best,
            "drafter-boosted": two[..., :1] == best,
            "one of the two": (one[..., :1] == best) | (two[..., :1] == best),
            "drafter, top 2": one == best,
        }
        for key, hit in found.items():
            hits.setdefault(key, []).append(hit.any(-1).float().flatten())
    return {"held_out_coverage": {key: round(float(torch.cat(each).mean()), 4) for key, each in hits.items()}}


RECIPE = Recipe(
    name="drafter-boosted",
    needs=("drafter", "target"),
    settings=Boosting(steps=300, batch=4, rates=(3e-3, 3e-3), decay=1.0),
    train=train,
    measure=measure,
)
