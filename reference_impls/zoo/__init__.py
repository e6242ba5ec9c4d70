"""Small models that are really trained, so that every example shows real acceptance and real speed on a laptop.

>>> from reference_impls import zoo
>>> tokens = zoo.encode("import os")
>>> zoo.decode(tokens)
'import os'
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer

from accelgen.training import recipes
from reference_impls.zoo.corpus import prompts
from reference_impls.zoo.errors import ZooError
from reference_impls.zoo.storage import WEIGHTS, load_state, manifest

__all__ = ["ZooError", "decode", "encode", "load", "manifest", "pieces", "prompts", "tokenizer"]


def load(name: str, *, dtype: torch.dtype = torch.float32) -> Any:
    """The trained model `name`, frozen, its hash checked. Raises ZooError if it is unknown, missing or damaged."""
    state = load_state(name, dtype=dtype)
    with torch.device("meta"):
        model = recipes.blank(name)
    model.load_state_dict(state, strict=True, assign=True)
    recipes.settle(model)
    return model.eval().requires_grad_(False)


@functools.cache
def tokenizer() -> Tokenizer:
    """The byte-level tokenizer of the language models; token 0 ends a text."""
    path = WEIGHTS / "tokenizer.json"
    if not path.is_file():
        raise ZooError(f"{path} is missing: restore it; training the drafter makes it anew")
    return Tokenizer.from_file(str(path))


def encode(text: str) -> list[int]:
    """Token ids of a text. Raises ValueError for an empty one."""
    if not text:
        raise ValueError("the prompt is empty; give at least one character")
    return list(tokenizer().encode(text).ids)


def decode(tokens: Sequence[int]) -> str:
    """The text of token ids; bytes that form no character become U+FFFD."""
    return str(tokenizer().decode(list(tokens), skip_special_tokens=False))


def pieces(tokens: Sequence[int], decode: Callable[[Sequence[int]], str] = decode) -> list[str]:
    """The text of each token; a character that is spread over several tokens stands at the last of them.

    `decode` gives the text of tokens of another vocabulary than the zoo's.
    """
    found, done = [], ""
    for end in range(1, len(tokens) + 1):
        text = decode(tokens[:end]).rstrip("\ufffd")
        found.append(text[len(done) :])
        done = max(done, text, key=len)
    return found
