"""Weights on disk: half precision, safetensors, and a manifest that says of each part what it is and how it hashes.

An entry is all that `load` asks: its `class`, an nn.Module of reference_impls written as `package.module:Class`, and
the `arguments` of that class. An argument is plain data; `shape` is a `core.layers.Shape`, and `{"stored": key}` stands
for a stored tensor.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from reference_impls.core.arguments import checked
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel
from reference_impls.zoo.errors import ZooError

WEIGHTS = Path(__file__).parent / "weights"
CLASS = re.compile(r"(reference_impls(?:\.\w+)+):(\w+)")


def manifest(folder: Path = WEIGHTS) -> dict[str, Any]:
    """What is shipped: for each part its class, hash, size, recipe, corpus with licences, and quality."""
    try:
        return dict(json.loads((folder / "manifest.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except json.JSONDecodeError as error:
        raise ZooError(
            f"{folder / 'manifest.json'} is not valid JSON (line {error.lineno}): restore the file"
        ) from None


def facts(name: str, *, folder: Path = WEIGHTS) -> dict[str, Any]:
    """The manifest entry of a part. Raises ZooError if there is none."""
    known = manifest(folder)
    if name not in known:
        raise ZooError(f"the zoo has no model {name!r}; it has {', '.join(sorted(known)) or 'none yet'}")
    return dict(known[name])


@checked
def load(name: str, *, dtype: torch.dtype = torch.float32, folder: Path = WEIGHTS) -> Any:
    """The trained part `name`, frozen, its hash checked. Raises ZooError if it is unknown, missing or damaged."""
    entry, state = facts(name, folder=folder), load_state(name, folder=folder, dtype=dtype)
    kind, arguments = class_of(name, entry), {}
    try:
        for key, value in entry.get("arguments", {}).items():
            stored = isinstance(value, dict) and value.get("stored")
            arguments[key] = state[stored] if stored else Shape(**value) if key == "shape" else value
        with torch.device("meta"):
            model = kind(**arguments)
        model.load_state_dict(state, strict=True, assign=True)
    except (KeyError, RuntimeError, TypeError, ValueError):
        raise ZooError(f"the weights of {name!r} are not those of the class and arguments that the manifest gives: "
                       "restore both") from None  # fmt: skip
    if isinstance(model, LanguageModel):
        model.forget_angles()  # they are not stored, and must lie where the weights do
    return model.eval().requires_grad_(requires_grad=False)


def class_of(name: str, entry: Mapping[str, Any]) -> type[nn.Module]:
    """The class that a manifest entry names. Raises ZooError for anything but a module of reference_impls."""
    spelt = str(entry.get("class"))
    if found := CLASS.fullmatch(spelt):
        try:
            kind = getattr(importlib.import_module(found[1]), found[2], None)
        except ImportError:
            kind = None
        if isinstance(kind, type) and issubclass(kind, nn.Module) and kind.__module__ == found[1]:
            return kind
    raise ZooError(
        f"the manifest gives {name!r} the class {spelt!r}; it has to be an nn.Module that stands in reference_impls, "
        "written as reference_impls.package.module:Class"
    )


def load_state(name: str, *, folder: Path = WEIGHTS, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The weights of a part in `dtype`. Raises ZooError if they are unknown, missing or damaged."""
    wanted = facts(name, folder=folder)["sha256"]
    path = folder / f"{name}.safetensors"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ZooError(f"{path} is missing: restore it, or train it with `accelgen zoo train {name}`") from None
    if hashlib.sha256(content).hexdigest() != wanted:
        raise ZooError(f"{path} does not match its hash in the manifest: the file is damaged, restore it")
    try:
        return {key: to(value, dtype) for key, value in load_tensors(content).items()}
    except SafetensorError as error:
        raise ZooError(f"{path} is not a safetensors file ({error}): restore it") from None


def to(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights in another precision; whole numbers, such as tokens, stay what they are."""
    return value.to(dtype) if value.is_floating_point() else value
