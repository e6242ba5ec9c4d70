"""The zoo's datastore for retrieval: text of the standard library, as tokens, that the language models learnt from."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from reference_impls.speculative_decoding.rest import Datastore
from reference_impls.zoo.corpus import encode, is_held_out, library_files, read_corpus
from reference_impls.zoo.storage import WEIGHTS, save

LENGTH = 400_000  # tokens


def blank(_name: str) -> Datastore:
    """A datastore of the right size that holds nothing yet."""
    return Datastore(torch.zeros(LENGTH, dtype=torch.int16))


def train(_name: str, *, folder: Path = WEIGHTS, steps: int | None = None, seed: int = 0) -> dict[str, Any]:  # noqa: ARG001 - the interface of recipes
    """Store the beginning of a shuffled standard library in `folder`, with its facts; there are no steps to take."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = training_texts()
    random.Random(seed).shuffle(texts)
    store = Datastore(encode(texts, tokenizer)[:LENGTH].short())
    held_out = encode(read_corpus()["library"], tokenizer)[:30_000].tolist()
    return save(
        "rest-datastore",
        store,
        folder=folder,
        recipe={"tokens": len(store.tokens), "seed": seed},
        corpus={
            "what": "Files of the standard library without its tests, none of them held out, each led by token 0",
            "licences": {"Python standard library": "PSF-2.0, in zoo/LICENSE-PSF-2.0.txt"},
        },
        quality={"held_out": {f"nodes_{nodes}": retrieval(store, held_out, nodes=nodes) for nodes in (16, 64)}},
    )


def training_texts() -> list[str]:
    """The files of the standard library that are trained on, without its tests."""
    found = (
        path.read_text(encoding="utf-8", errors="ignore")
        for name, path in library_files()
        if not name.startswith("test/") and not is_held_out(name)
    )
    return [text for text in found if text.strip()]


def retrieval(
    store: Datastore, text: list[int], *, longest: int = 16, gamma: int = 10, nodes: int = 64
) -> dict[str, float]:
    """What retrieval does for a target that would write `text`, from its second token on.

    The share of steps that find a match, the mean length of the longest match, and the mean number of guesses kept.
    """
    lengths, kept, place = list[int](), list[int](), 1
    while place < len(text):
        context = text[max(0, place - longest) : place]
        lengths.append(store.match(context, longest)[0])
        tree = store.draft(context, longest=longest, gamma=gamma, nodes=nodes)
        path: list[int] = []
        for token in text[place:]:
            right = [child for child in tree.children(path[-1] if path else -1) if tree.tokens[child] == token]
            if not right:
                break
            path += right
        kept.append(len(path))
        place += len(path) + 1
    steps = len(kept)
    return {
        "matched": round(sum(n > 0 for n in lengths) / steps, 4),
        "mean_match": round(sum(lengths) / steps, 3),
        "kept_per_step": round(sum(kept) / steps, 3),
    }
