"""How the zoo's texts become tokens, and tokens become texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from reference_impls.core.generation import Ends

Tokens = Sequence[int]


class Vocabulary(Protocol):
    """How text becomes tokens, tokens become text, and a text ends."""

    @property
    def eos(self) -> Ends | None:
        """The token after which a text ends, or several."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""

    def pieces(self, prompt: Tokens, tokens: Tokens) -> list[str]:
        """The text of each token after those of the prompt; joined they are the text."""


class ZooVocabulary:
    """The tokens of the zoo's language models."""

    eos = 0  # the token that stands between the texts of the zoo's corpus
    separator = ""  # between the texts of two tokens

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        from reference_impls import zoo

        return zoo.encode(text)

    def pieces(self, prompt: Tokens, tokens: Tokens) -> list[str]:  # noqa: ARG002 - each token has its own text
        """The text of each token; bytes that only together are a character stand with the last of them."""
        from reference_impls import zoo

        return zoo.pieces(tokens)

    def alone(self, token: int) -> str:
        """The text of a token that stands by itself."""
        from reference_impls import zoo

        return zoo.decode([token])


class WordVocabulary:
    """The words of the zoo's translation task."""

    separator = " "

    def __init__(self) -> None:
        from reference_impls.zoo.tasks import END, task

        self.eos, self._task = END, task("lite")
        self.longest = self._task.longest  # tokens of a sentence

    def encode(self, text: str) -> list[int]:
        """Token ids of a sentence. Raises ValueError for a word that the task does not have."""
        return self._task.encode(text)

    def pieces(self, prompt: Tokens, tokens: Tokens) -> list[str]:  # noqa: ARG002 - each token has its own text
        """The words, with the space before each but the first."""
        first, *others = self._task.pieces(tokens) or [""]
        return [first, *(f" {piece}" for piece in others)]

    def alone(self, token: int) -> str:
        """The word of a token."""
        return self._task.pieces([token])[0]
