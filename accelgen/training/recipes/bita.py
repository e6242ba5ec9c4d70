"""BiTA's prompt and masks, learnt on the frozen target from texts of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from accelgen.training.corpora import windows
from accelgen.training.fit import fit
from accelgen.training.parts import Windows
from accelgen.training.recipe import Part, Recipe
from accelgen.training.shelf import Shelf
from reference_impls.core.batch import Batch
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding import bita as method

MASKS, PROMPTS, GROUPS = 3, 16, 24
TRIED = ((1,), (3,), (1, 1), (3, 1), (3, 2, 1))  # widths of trees
LIMIT, COUNT = 48, 12  # of the texts that tokens a pass are counted in


@dataclass(frozen=True)
class OwnTexts(Windows):
    """Texts that the target continues at temperature 0, and how long a part learns from them."""

    texts: int = 512

    @property
    def prompt(self) -> int:
        """Tokens of a training text that the target continues to `length` + 1: a third."""
        return self.length // 3


def train(shelf: Shelf, settings: OwnTexts) -> Part:
    """Keys and values of the prompt, and embeddings of the masks; every weight of the target stays as it is."""
    target = shelf.load("target")
    part = Part.of(method.BidirectionalTuning, shape=target.shape, masks=MASKS, prompts=PROMPTS)
    part.module.start_from(target)
    part.module.masks.is_table = True  # embeddings
    generator = torch.Generator().manual_seed(settings.seed)
    begun = windows(shelf.rows(), settings.texts, settings.prompt - 1, generator)
    texts = greedy_texts(target, begun, settings.length + 1)

    def loss(_: int) -> Tensor:
        x = texts[torch.randint(len(texts), (settings.batch,), generator=generator)]
        with torch.autocast("cpu", torch.bfloat16):
            return method.loss(target, part.module, x, first=settings.prompt - 1, groups=GROUPS, generator=generator)

    matrix_rate, other_rate = settings.rates
    fit(
        part.module.parameters(), loss, settings.steps, title="BidirectionalTuning",
        matrix_rate=matrix_rate, other_rate=other_rate, decay=settings.decay,
    )  # fmt: skip
    return part


@torch.inference_mode()
def greedy_texts(target: LanguageModel, begun: Tensor, length: int, rows: int = 64) -> Tensor:
    """Beginnings [texts, prompt], continued by the target at temperature 0 to [texts, length]."""
    found = []
    for some in begun.split(rows):
        texts, batch = some.tolist(), Batch(target, len(some))
        unseen = texts
        while len(texts[0]) < length:
            best = torch.cat(batch(unseen, last=1)).argmax(-1).tolist()
            unseen = [[token] for token in best]
            texts = [[*text, token] for text, token in zip(texts, best, strict=True)]
        found += texts
    return torch.tensor(found)


def measure(shelf: Shelf, _settings: OwnTexts, tuning: method.BidirectionalTuning) -> dict[str, Any]:
    """How often each mask's best guess is the target's next token but so many, in texts that it continues itself.

    And tokens a pass: of several trees on the development side, and of the largest of them on the test side.
    """
    target = shelf.load("target")

    def tokens_per_pass(side: str, widths: tuple[int, ...], temperature: float = 0.0) -> float:
        runs = [
            method.generate(target, prompt, LIMIT, tuning=tuning, sampler=Sampler(temperature), widths=widths)
            for prompt in shelf.prompts(side, COUNT)
        ]
        return round(sum(len(run.tokens) for run in runs) / sum(run.passes for run in runs), 3)

    development = {widths: tokens_per_pass("development", widths) for widths in TRIED}
    widest = TRIED[-1]
    return {
        "own_texts_top_1": accuracy(target, tuning, shelf.held_out()),
        "development_tokens_per_pass": {str(widths): found for widths, found in development.items()},
        "tokens_per_pass": {
            "greedy": tokens_per_pass("test", widest),
            "temperature_0.8": tokens_per_pass("test", widest, 0.8),
        },
    }


@torch.inference_mode()
def accuracy(
    target: LanguageModel,
    tuning: method.BidirectionalTuning,
    data: Tensor,
    *,
    prompt: int = 32,
    length: int = 96,
    rows: int = 64,
) -> dict[str, float]:
    """How often each mask's best guess is right, behind every fourth place of what the target writes after `data`."""
    begun = data[: min(rows, len(data) // length) * length].view(-1, length)[:, :prompt]
    text, size = greedy_texts(target, begun, length), len(tuning.masks)
    end = length - size - 1
    places = torch.arange(prompt - 1, end, 4)
    wanted = text[:, places[:, None] + torch.arange(2, size + 2)]  # [texts, places, masks]
    hidden = method.look_ahead(target, tuning, text[:, :end], (torch.arange(end), None), places, size=size)
    right = target.logits(hidden[:, end:]).argmax(-1).view(wanted.shape) == wanted
    return {f"{i} ahead": round(share, 4) for i, share in enumerate(right.double().mean((0, 1)).tolist(), start=2)}


RECIPE = Recipe(
    "bita-tuning",
    OwnTexts(steps=450, batch=4, length=96, rates=(0.0, 3e-2)),
    train,
    measure,
    needs=("target",),
)
