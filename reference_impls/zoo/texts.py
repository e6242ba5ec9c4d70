"""What the language models read and write: their tokens, and beginnings of Python code to continue."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from reference_impls.core.arguments import checked
from reference_impls.zoo.errors import ZooError
from reference_impls.zoo.storage import WEIGHTS

END_OF_TEXT = "<|endoftext|>"  # token 0: stands before every text, so it begins and ends one
SPREAD = 3  # more tokens that one character can need: its bytes in UTF-8 are at most four


@functools.cache
def tokenizer() -> Tokenizer:
    """The byte-level tokenizer of the language models; token 0 ends a text."""
    path = WEIGHTS / "tokenizer.json"
    if not path.is_file():
        raise ZooError(f"{path} is missing: restore it; training the drafter makes it anew")
    return Tokenizer.from_file(str(path))


@checked
def encode(text: str) -> list[int]:
    """Token ids of a text. Raises ValueError for an empty one and for one that holds bytes which are not UTF-8."""
    if not text:
        raise ValueError("the prompt is empty; give at least one character")
    check_unicode(text)
    return list(tokenizer().encode(text).ids)


def check_unicode(text: str) -> None:
    """Raise ValueError for a text with a character that UTF-8 does not have: what Python makes of other bytes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the prompt is not UTF-8: its character {error.start + 1} is a byte or half of a pair that no text has; "
            "give it in UTF-8"
        ) from None


@checked
def decode(tokens: Sequence[int]) -> str:
    """The text of token ids; bytes that form no character become U+FFFD. Raises ValueError for an unknown id."""
    size = tokenizer().get_vocab_size()
    if any(not 0 <= token < size for token in tokens):
        unknown = next(token for token in tokens if not 0 <= token < size)
        raise ValueError(f"token id {unknown} is outside the zoo's vocabulary of {size}")
    return str(tokenizer().decode(list(tokens), skip_special_tokens=False))


def pieces(tokens: Sequence[int], decode: Callable[[Sequence[int]], str] = decode) -> list[str]:
    """The text of each token; a character that is spread over several tokens stands at the last of them.

    Together they are the text of all tokens. `decode` gives the text of tokens of another vocabulary than the zoo's.
    A token is decoded with a few others around it, so that the time grows with the number of tokens alone.
    """
    found = []
    for place in range(len(tokens)):
        start = max(0, place - SPREAD - 1)  # what is unfinished there is finished before `place`
        ahead = decode(tokens[start : place + 1 + SPREAD])
        before, here = (_settled(decode(tokens[start:end]), ahead) for end in (place, place + 1))
        found.append(here[len(before) :])
    return found


def _settled(text: str, ahead: str) -> str:
    """What of a text stays when more tokens follow: its last bytes may yet become another character."""
    same = [a == b for a, b in zip(text, ahead, strict=False)]
    return text[: (*same, False).index(False)]


@checked
def prompts(side: str = "test") -> list[str]:
    """Beginnings of Python code, written for this project; nobody else's text, so that all may use them.

    Figures are taken on the `test` side. What is chosen by trial, such as a threshold, is chosen on `development`.
    Raises ValueError for any other side.
    """
    sides: dict[str, list[str]] = json.loads(Path(__file__).with_name("prompts.json").read_text(encoding="utf-8"))
    if side not in sides:
        raise ValueError(f"the prompts have no side {side!r}; they have {' and '.join(sides)}")
    return sides[side]


@dataclass(frozen=True)
class Quotation:
    """A question, the texts at hand, and an answer that repeats parts of them."""

    prompt: str
    references: list[str]
    answer: str


def quotations() -> dict[str, list[Quotation]]:
    """Answers that repeat a text at hand, by workload; written for this project, like the prompts.

    The texts at hand are documents that a search found, a stored answer that is to be edited, or the turns before.
    """
    path = Path(__file__).with_name("quotations.json")
    found: dict[str, list[dict[str, Any]]] = json.loads(path.read_text(encoding="utf-8"))
    return {workload: [Quotation(**one) for one in answers] for workload, answers in found.items()}
