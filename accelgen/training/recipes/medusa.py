"""Medusa's heads, which begin with the target's own and learn its laws."""

from __future__ import annotations

from typing import Any

import torch

from accelgen.training.corpora import Side
from accelgen.training.parts import Windows, learn
from accelgen.training.recipe import Part, Recipe
from accelgen.training.shelf import Shelf
from reference_impls.speculative_decoding import medusa as method

REACH = 5  # tokens that a step can yield: four heads
LENGTH = 256  # of the windows that the heads are measured on


def train(shelf: Shelf, settings: Windows) -> Part:
    """Four heads on the frozen target."""
    target = shelf.load("target")
    part = Part.of(method.MedusaHeads, shape=target.shape, k=REACH)
    part.module.start_from(target)
    learn(shelf, settings, part.module, lambda x, _: method.loss(target, part.module, x, distil=True))
    return part


def measure(shelf: Shelf, _settings: Windows, heads: method.MedusaHeads) -> dict[str, Any]:
    """How often the first and the first five guesses are the text's; and each rank the target's, which plans trees."""
    target = shelf.load("target")

    def ranks(side: Side, *, own: bool) -> torch.Tensor:
        data = shelf.held_out(side=side)
        rows = data[: len(data) // LENGTH * LENGTH].view(-1, LENGTH).split(16)
        found = [
            method.rank_accuracy(target, heads, x)
            if own
            else method.rank_accuracy(target, heads, x[:, :-1], wanted=x[:, 1:])
            for x in rows
        ]
        return torch.stack(found).mean(0)

    text = ranks("test", own=False)
    found: dict[str, Any] = {
        f"held_out_top_{n}": {f"{i} ahead": round(float(row[:n].sum()), 4) for i, row in enumerate(text, start=2)}
        for n in (1, 5)
    }
    planning = ranks("development", own=True).tolist()
    return found | {"accuracy_by_rank": [[round(a, 4) for a in row] for row in planning]}


RECIPE = Recipe("medusa-heads", Windows(steps=2_000, rates=(4e-3, 2e-3)), train, measure, needs=("target",))
