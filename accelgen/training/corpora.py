"""The text the small language models learn from: Python source that every machine with this project has.

Each file lies on one of three sides: models learn from `train`, what is chosen by trial is chosen on `development`, and
figures are from `test`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import random
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from tokenizers import Tokenizer
from torch import Tensor

from reference_impls.zoo.errors import ZooError

# Generated tables and encodings, not code that anyone reads.
NOT_PROSE = {"idlelib", "turtledemo", "lib2to3", "encodings", "pydoc_data", "ensurepip", "site-packages", "__pycache__"}
# Pinned packages under permissive licences; their licences go into the manifest of each trained model.
PACKAGES = (
    "click", "huggingface_hub", "jinja2", "mkdocs", "mypy", "networkx", "numpy", "packaging", "pydantic", "pymdownx",
    "rich", "setuptools", "torch", "transformers", "typer",
)  # fmt: skip
TOO_MUCH_OF_A_KIND = {"models", "tests", "test", "typeshed", "_vendor", "integrations", "testing", "_inductor"}
LARGEST_FILE = 150_000  # bytes; longer files are mostly tables
RUN = 5  # lines; shorter runs are often the same by chance
NEAR_COPY = 1 / 4  # a file with a larger share of its runs in the training files is no evidence of anything

Side = Literal["train", "development", "test"]
Splits = Mapping[str, list[str]]  # texts by kind: `library`, `library_tests` and `packages`


@dataclass(frozen=True)
class Corpus:
    """Texts by side; the held-out ones by kind as well. `library` are those of `train` that a datastore is made of."""

    train: list[str]
    library: list[str] = field(default_factory=list)
    development: Splits = field(default_factory=dict)
    test: Splits = field(default_factory=dict)

    def held_out(self, side: Side) -> Splits:
        """The texts of a side that nothing is trained on. Raises ValueError for `train`."""
        sides = {"development": self.development, "test": self.test}
        if side not in sides:
            raise ValueError(f"{side!r} is no held-out side of the corpus: measure on 'development' or on 'test'")
        return sides[side]


def side_of(path: str) -> Side:
    """The side of the file of this name, by its hash: one file in sixteen is held out, a third of these for choices."""
    place = int(hashlib.sha256(path.encode()).hexdigest(), 16)
    if place % 16:
        return "train"
    return "test" if place // 16 % 3 else "development"


def library_files() -> Iterator[tuple[str, Path]]:
    """(name, path) of every source file of the standard library, its tests included."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if not NOT_PROSE.intersection(name.parts) and not name.name.startswith("_sysconfigdata"):
            yield name.as_posix(), path


def package_files() -> Iterator[tuple[str, Path]]:
    """(name, path) of every chosen source file of the pinned packages; a missing package is an error."""
    root = Path(sysconfig.get_path("purelib"))
    for package in PACKAGES:
        if not (root / package).is_dir():
            raise ZooError(
                f"the corpus needs the package {package}, which is not installed in {root}: run make install"
            )
        for path in sorted((root / package).rglob("*.py")):
            name = path.relative_to(root)
            if not TOO_MUCH_OF_A_KIND.intersection(name.parts[1:]) and path.stat().st_size <= LARGEST_FILE:
                yield name.as_posix(), path


def read_corpus(library: int = 2) -> Corpus:
    """All texts. In `train` the standard library without its tests stands `library` times: it is the cleanest code.

    A file's side depends on its name alone, so it is the same everywhere. Held-out files that are near copies of
    training files, such as a module that a package brings along, are on no side.
    """
    train: list[tuple[str, str]] = []
    held_out: dict[Side, dict[str, list[str]]] = {"development": {}, "test": {}}
    for files, kind in ((library_files(), "library"), (package_files(), "packages")):
        for name, path in files:
            text = path.read_text(encoding="utf-8", errors="ignore")
            own, side = "library_tests" if name.startswith("test/") else kind, side_of(name)
            if text.strip() and side == "train":
                train.append((text, own))
            elif text.strip():
                held_out[side].setdefault(own, []).append(text)
    seen = {run for text, _ in train for run in runs(text)}
    for splits in held_out.values():
        for kind, texts in splits.items():
            splits[kind] = [text for text in texts if copied(text, seen) <= NEAR_COPY]
    repeated = [text for text, own in train for _ in range(library if own == "library" else 1)]
    random.Random(0).shuffle(repeated)
    plain = [text for text, own in train if own == "library"]
    return Corpus(repeated, plain, held_out["development"], held_out["test"])


def runs(text: str) -> set[int]:
    """Hashes of all runs of RUN successive lines, without indents and empty lines."""
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    return {hash(tuple(lines[i : i + RUN])) for i in range(len(lines) - RUN + 1)}


def copied(text: str, seen: set[int]) -> float:
    """The share of a text's runs of lines that were seen; 0 for a text that is too short to have any."""
    own = runs(text)
    return len(own & seen) / max(1, len(own))


def licences() -> dict[str, str]:
    """Licence of every package in the corpus, as its metadata states it."""
    found = {"Python standard library": "PSF-2.0"}
    for package in PACKAGES:
        meta = importlib.metadata.metadata(package.replace("pymdownx", "pymdown-extensions"))
        classifiers = [c.split(" :: ")[-1] for c in meta.get_all("Classifier") or [] if c.startswith("License")]
        named = [meta[key] for key in ("License-Expression", "License") if key in meta]
        stated = [*named[:1], *classifiers, "not stated"][0]
        found[f"{package} {meta['Version']}"] = stated.splitlines()[0]
    return found


def encode(texts: Iterable[str], tokenizer: Tokenizer) -> Tensor:
    """All texts as one row of token ids [tokens], each text led by the end-of-text token."""
    texts, rows = list(texts), list[Tensor]()
    for start in range(0, len(texts), 64):
        found = tokenizer.encode_batch(texts[start : start + 64])
        rows += [torch.tensor([0, *each.ids], dtype=torch.int32) for each in found]
    return torch.cat(rows)


def windows(data: Tensor, count: int, length: int, generator: torch.Generator) -> Tensor:
    """`count` random windows of `length` + 1 tokens [count, length + 1]."""
    starts = torch.randint(len(data) - length - 1, (count, 1), generator=generator)
    return data[starts + torch.arange(length + 1)].long()
