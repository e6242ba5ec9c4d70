"""The drafter without a network: for every token the one that most often followed it in the training text."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch

from accelgen.training.recipe import Part, Recipe, Settings
from accelgen.training.shelf import Shelf
from reference_impls.speculative_decoding.cascade_speculative_drafting import MaxGram

CHUNK = 1_000_000  # tokens counted at once
LENGTH, WINDOWS = 256, 40  # of the text that it is measured on


def train(shelf: Shelf, _settings: Settings) -> Part:
    """Count which token follows which."""
    shape, rows = shelf.load("drafter").shape, shelf.rows()
    part, vocab = Part.of(MaxGram, shape=shape), shape.vocab
    counts = torch.zeros(vocab**2, dtype=torch.long)
    for start in range(0, len(rows) - 1, CHUNK):
        text = rows[start : start + CHUNK + 1]
        counts += torch.bincount(text[:-1].long() * vocab + text[1:].long(), minlength=vocab**2)
    part.module.successor.copy_(counts.view(vocab, vocab).argmax(-1))
    return part


def measure(shelf: Shelf, _settings: Settings, model: MaxGram) -> dict[str, Any]:
    """How often the next token is the table's, and how often Max-Gram's, which copies where it can."""
    data = shelf.held_out().tolist()
    rows = [data[i * LENGTH : (i + 1) * LENGTH] for i in range(min(WINDOWS, len(data) // LENGTH))]
    pairs = [pair for row in rows for pair in pairwise(row)]
    table = sum(int(model.successor[token]) == following for token, following in pairs)
    copied = sum(model(row[:end], 1)[0] == row[end] for row in rows for end in range(1, LENGTH))
    return {"held_out_top_1": {"bigram": round(table / len(pairs), 4), "max_gram": round(copied / len(pairs), 4)}}


RECIPE = Recipe("max-gram", Settings(), train, measure, needs=("drafter",))
