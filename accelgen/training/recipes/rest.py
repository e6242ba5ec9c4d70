"""REST's datastore: text of the standard library, as tokens, that the language models learnt from."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from accelgen.training.corpora import encode
from accelgen.training.recipe import Part, Recipe, Settings
from accelgen.training.shelf import Shelf
from reference_impls.speculative_decoding.rest import Datastore


@dataclass(frozen=True)
class Storing(Settings):
    """How many tokens are stored, at most."""

    tokens: int = 400_000


def train(shelf: Shelf, settings: Storing) -> Part:
    """Store the beginning of a shuffled standard library."""
    texts = list(shelf.read(1).library)
    random.Random(settings.seed).shuffle(texts)
    store = Datastore(encode(texts, shelf.tokenizer)[: settings.tokens].short())
    return Part(store, {"tokens": {"stored": "tokens"}})


def corpus(_settings: Settings) -> dict[str, Any]:
    """What the manifest says of the text that is stored."""
    return {
        "what": "Files of the standard library without its tests, none of them held out, each led by token 0",
        "licences": {"Python standard library": "PSF-2.0, in zoo/LICENSE-PSF-2.0.txt"},
    }


def measure(shelf: Shelf, _settings: Storing, store: Datastore) -> dict[str, Any]:
    """What retrieval does for a target that would write the held-out text."""
    text = shelf.held_out(30_000).tolist()
    return {"held_out": {f"nodes_{nodes}": retrieval(store, text, nodes=nodes) for nodes in (16, 64)}}


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


RECIPE = Recipe("rest-datastore", Storing(), train, measure, needs=("drafter",), corpus=corpus)
