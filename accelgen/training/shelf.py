"""What recipes work with: the parts in a folder, their tokenizer, and the corpus in its tokens, each read once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor

from accelgen.project.files import write_whole
from accelgen.training.corpora import Corpus, Side, Splits, encode, read_corpus
from reference_impls.zoo.errors import ZooError
from reference_impls.zoo.storage import WEIGHTS, facts, load
from reference_impls.zoo.texts import prompts


class Shelf:
    """The parts of `folder`, and the texts that `read(library=times)` gives."""

    def __init__(self, folder: Path = WEIGHTS, read: Callable[[int], Corpus] = read_corpus) -> None:
        self.folder, self.read = folder, read
        self._tokenizer: Tokenizer | None = None
        self._rows: dict[int, Tensor] = {}
        self._held_out: dict[tuple[Side, str], Tensor] = {}

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the folder. Raises ZooError if there is none."""
        path = self.folder / "tokenizer.json"
        if self._tokenizer is None and not path.is_file():
            raise ZooError(f"{path} is missing: restore it; training the drafter makes it anew")
        return self._tokenizer or Tokenizer.from_file(str(path))

    def replace_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Use another tokenizer from now on; `store_tokenizer` writes it."""
        self._tokenizer = tokenizer
        self._rows.clear()
        self._held_out.clear()

    def store_tokenizer(self) -> None:
        """Write a tokenizer that is not the folder's yet."""
        if self._tokenizer is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / "tokenizer.json", self._tokenizer.to_str(pretty=True))

    def load(self, name: str) -> Any:
        """The part `name`, frozen. Raises ZooError where the folder has none, or a damaged one."""
        return load(name, folder=self.folder)

    def facts(self, name: str) -> dict[str, Any]:
        """The manifest entry of a part in the folder."""
        return facts(name, folder=self.folder)

    def rows(self, library: int = 6) -> Tensor:
        """All training texts as tokens [n], the standard library so many times; reading them takes a minute."""
        if library not in self._rows:
            self._rows[library] = encode(self.read(library).train, self.tokenizer)
        return self._rows[library]

    def texts(self, side: Side) -> Splits:
        """The texts of a side that nothing is trained on, by kind."""
        return self.read(1).held_out(side)

    def held_out(self, count: int = 60_000, *, side: Side = "test", kind: str = "library") -> Tensor:
        """The first tokens [n <= count] of the texts of one side and kind that nothing is trained on."""
        if (side, kind) not in self._held_out:
            self._held_out[side, kind] = encode(self.texts(side)[kind], self.tokenizer).long()
        return self._held_out[side, kind][:count]

    def prompts(self, side: str = "test", count: int | None = None) -> list[list[int]]:
        """The zoo's prompts of a side in tokens: all, or the first `count`."""
        return [list(self.tokenizer.encode(text).ids) for text in prompts(side)[:count]]
