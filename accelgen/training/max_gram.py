"""The zoo's drafter without a network: for every token the one that most often followed it in the training text."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from accelgen.training import language
from reference_impls.speculative_decoding.cascade_speculative_drafting import MaxGram
from reference_impls.zoo.corpus import encode, read_corpus
from reference_impls.zoo.storage import WEIGHTS, load_state, save

CHUNK = 1_000_000  # tokens counted at once
LENGTH, WINDOWS = 256, 40  # of the held-out text that it is measured on


def blank(_name: str) -> MaxGram:
    """One that has counted nothing."""
    return MaxGram(language.DRAFTER)


def train(
    name: str,
    *,
    folder: Path = WEIGHTS,
    steps: int | None = None,  # noqa: ARG001 - counting has no steps
    seed: int = 0,  # noqa: ARG001 - and no chance
    data: Tensor | None = None,
) -> dict[str, Any]:
    """Count neighbours, store the table in `folder` with its facts, and return the manifest entry.

    `data` is a row of encoded training tokens [n], where it is at hand; else the corpus is read and encoded.
    """
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = encode(read_corpus(library=6)["train"], tokenizer) if data is None else data
    model, vocab = blank(name), language.DRAFTER.vocab
    counts = torch.zeros(vocab**2, dtype=torch.long)
    for start in range(0, len(rows) - 1, CHUNK):
        part = rows[start : start + CHUNK + 1]
        counts += torch.bincount(part[:-1].long() * vocab + part[1:].long(), minlength=vocab**2)
    model.successor.copy_(counts.view(vocab, vocab).argmax(-1))
    recipe = {"what": "the most frequent successor of every token", "tokens": len(rows)}
    return save(name, model, folder=folder, recipe=recipe, quality=accuracy(model, tokenizer))


def quality(name: str, *, folder: Path = WEIGHTS) -> dict[str, Any]:
    """The held-out figures of the stored table, measured anew."""
    model = blank(name)
    model.load_state_dict(load_state(name, folder=folder))
    return accuracy(model, Tokenizer.from_file(str(folder / "tokenizer.json")))


def accuracy(model: MaxGram, tokenizer: Tokenizer) -> dict[str, Any]:
    """How often the next held-out token is the table's, and how often Max-Gram's, which copies where it can."""
    data = encode(read_corpus()["library"], tokenizer).tolist()
    rows = [data[i * LENGTH : (i + 1) * LENGTH] for i in range(min(WINDOWS, len(data) // LENGTH))]
    pairs = [pair for row in rows for pair in pairwise(row)]
    table = sum(int(model.successor[token]) == following for token, following in pairs)
    copied = sum(model(row[:end], 1)[0] == row[end] for row in rows for end in range(1, LENGTH))
    return {"held_out_top_1": {"bigram": round(table / len(pairs), 4), "max_gram": round(copied / len(pairs), 4)}}
