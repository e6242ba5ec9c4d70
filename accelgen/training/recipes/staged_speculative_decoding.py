"""The drafter's drafter: a trigram model with Katz backoff, counted on what the drafter writes itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from accelgen.training.recipe import Part, Recipe, Settings
from accelgen.training.shelf import Shelf
from reference_impls.core.batch import Batch
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding.staged_speculative_decoding import Ngrams, count_ngrams

START = 0  # the token that leads a text
LENGTH, WINDOWS = 256, 40  # of the text that it is measured on


@dataclass(frozen=True)
class Counting(Settings):
    """How much the drafter writes, at which temperature, and how much of it is kept."""

    texts: int = 3072
    length: int = 256
    temperature: float = 1.5  # the paper's
    contexts: int = 60_000
    width: int = 4


@torch.inference_mode()
def written(drafter: LanguageModel, settings: Counting, together: int = 256) -> Tensor:
    """Texts [texts * length] that the drafter writes from nothing, so many together, one after another in one row."""
    sampler, found = Sampler(settings.temperature, seed=settings.seed), list[Tensor]()
    for begun in range(0, settings.texts, together):
        batch = Batch(drafter, min(together, settings.texts - begun))
        rows = [torch.full((len(batch),), START)]
        for _ in range(settings.length):
            logits = torch.cat(batch([[token] for token in rows[-1].tolist()]))  # [rows, vocab]
            rows.append(sampler.draw(sampler.probs(logits)))
        found.append(torch.stack(rows[:-1], 1).flatten())
    return torch.cat(found)


def train(shelf: Shelf, settings: Counting) -> Part:
    """Let the drafter write, and count."""
    drafter = shelf.load("drafter")
    text = written(drafter, settings)
    table = count_ngrams(text, drafter.shape.vocab, contexts=settings.contexts, width=settings.width)
    arguments = {"shape": table.shape, "contexts": len(table.pairs), "width": settings.width}
    return Part(table, arguments)


@torch.inference_mode()
def measure(shelf: Shelf, _settings: Counting, table: Ngrams) -> dict[str, Any]:
    """How often the drafter's own best next token is the table's first guess, and how often one of the first two."""
    drafter, data = shelf.load("drafter"), shelf.held_out()
    rows = data[: len(data) // LENGTH * LENGTH].view(-1, LENGTH)[:WINDOWS]
    best = drafter(rows).argmax(-1).tolist()
    found = {}
    for count in (1, 2):
        hits = [
            own[end - 1] in table(row[max(0, end - 2) : end], count)
            for row, own in zip(rows.tolist(), best, strict=True)
            for end in range(1, LENGTH + 1)
        ]
        found[f"top_{count}"] = round(sum(hits) / len(hits), 4)
    return {"held_out_drafters_best": found}


def corpus(settings: Counting) -> dict[str, Any]:
    """What the manifest says of the text that is counted."""
    return {
        "what": f"Text that the drafter wrote at temperature {settings.temperature}, from the first token of a text"
    }


RECIPE = Recipe("staged-ngrams", Counting(), train, measure, needs=("drafter",), corpus=corpus)
