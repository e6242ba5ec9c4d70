"""The look-ahead tokens of PaSS: a few embeddings that learn on the frozen target."""

from __future__ import annotations

from typing import Any

import torch

from accelgen.training.parts import Windows, learn
from accelgen.training.recipe import Part, Recipe
from accelgen.training.shelf import Shelf
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding import parallel_speculative_sampling as method

LENGTH = 6  # look-ahead tokens
GROUPS = 24  # of them behind each text of a batch
LIMIT, PROMPTS = 32, 12  # of the texts that tokens a pass are counted in


def train(shelf: Shelf, settings: Windows) -> Part:
    """Six rows; every weight of the target stays as it is."""
    target = shelf.load("target")
    part = Part.of(method.LookAhead, shape=target.shape, length=LENGTH)
    part.module.start_from(target)
    part.module.rows.is_table = True  # embeddings
    generator = torch.Generator().manual_seed(settings.seed)

    def loss(x: torch.Tensor, _: int) -> torch.Tensor:
        return method.loss(target, part.module, x, groups=GROUPS, generator=generator)

    learn(shelf, settings, part.module, loss)
    return part


def measure(shelf: Shelf, _settings: Windows, look_ahead: method.LookAhead) -> dict[str, Any]:
    """How often each look-ahead token's best guess is the text's.

    And tokens a pass with more and more of them on the development side, where the example's number was chosen.
    """
    target = shelf.load("target")
    return {
        "held_out_top_1": accuracy(target, look_ahead, shelf.held_out()),
        "development_tokens_per_pass": {
            f"{gamma} look-ahead": {
                name: tokens_per_pass(shelf, target, look_ahead, gamma, temperature)
                for name, temperature in (("greedy", 0.0), ("temperature_0.8", 0.8))
            }
            for gamma in range(1, LENGTH + 1)
        },
    }


@torch.inference_mode()
def accuracy(
    target: Any, look_ahead: method.LookAhead, data: torch.Tensor, length: int = 128, rows: int = 128
) -> dict[str, float]:
    """How often the best guess of each look-ahead token, behind every fourth place of a text, is the text's token."""
    text = data[: min(rows, len(data) // length) * length].view(-1, length)
    ahead = len(look_ahead.rows)
    places = torch.arange(0, length - ahead - 1, 4)
    wanted = text[:, places[:, None] + torch.arange(2, ahead + 2)]
    guesses = [method.read_ahead(target, look_ahead, x[:, : -ahead - 1], places).argmax(-1) for x in text.split(16)]
    shares = (torch.cat(guesses) == wanted).double().mean((0, 1)).tolist()
    return {f"{i} ahead": round(share, 4) for i, share in enumerate(shares, start=2)}


def tokens_per_pass(shelf: Shelf, target: Any, look_ahead: method.LookAhead, gamma: int, temperature: float) -> float:
    """Tokens a pass of the texts that the target writes after the first prompts of the development side."""
    runs = [
        method.generate(target, prompt, LIMIT, look_ahead=look_ahead, sampler=Sampler(temperature), gamma=gamma)
        for prompt in shelf.prompts("development", PROMPTS)
    ]
    return round(sum(len(run.tokens) for run in runs) / sum(run.passes for run in runs), 3)


RECIPE = Recipe(
    "look-ahead",
    Windows(steps=900, batch=4, length=128, rates=(0.0, 5e-2)),
    train,
    measure,
    needs=("target",),
)
