"""The text the small language models learn from: Python source that every machine with this project has."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path

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


def is_held_out(path: str) -> bool:
    """Whether the file of this name is kept for measuring: one in sixteen, chosen by the hash of its name."""
    return int(hashlib.sha256(path.encode()).hexdigest(), 16) % 16 == 0


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


def read_corpus(library: int = 2) -> dict[str, list[str]]:
    """Texts by split: `train`, and three held-out ones, `library`, `library_tests` and `packages`.

    A file is held out when the hash of its name says so, so that the split is the same everywhere. In `train` the
    standard library without its tests stands `library` times: it is the cleanest code.
    """
    splits: dict[str, list[str]] = {"train": [], "library": [], "library_tests": [], "packages": []}
    for files, kind in ((library_files(), "library"), (package_files(), "packages")):
        for name, path in files:
            text = path.read_text(encoding="utf-8", errors="ignore")
            split = "library_tests" if name.startswith("test/") else kind
            if not text.strip():
                continue
            if is_held_out(name):
                if not name.startswith("distutils/"):  # setuptools, which is trained on, has a copy of it
                    splits[split].append(text)
            else:
                splits["train"] += [text] * (library if split == "library" else 1)
    random.Random(0).shuffle(splits["train"])
    return splits


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


def prompts() -> list[str]:
    """Beginnings of Python code, written for this project; nobody else's text, so that all may use them."""
    return list(json.loads(Path(__file__).with_name("prompts.json").read_text(encoding="utf-8")))


def encode(texts: list[str], tokenizer: Tokenizer) -> Tensor:
    """All texts as one row of token ids [tokens], each text led by the end-of-text token."""
    rows: list[Tensor] = []
    for start in range(0, len(texts), 64):
        found = tokenizer.encode_batch(texts[start : start + 64])
        rows += [torch.tensor([0, *each.ids], dtype=torch.int32) for each in found]
    return torch.cat(rows)
