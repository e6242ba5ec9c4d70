"""Weights on disk: half precision, safetensors, and a manifest whose hashes are checked on every load."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from accelgen.project.files import write_whole
from reference_impls.zoo.errors import ZooError

WEIGHTS = Path(__file__).parent / "weights"


def manifest(folder: Path = WEIGHTS) -> dict[str, Any]:
    """What is shipped: for each model its hash, size, recipe, corpus with licences, and held-out quality."""
    try:
        return dict(json.loads((folder / "manifest.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except json.JSONDecodeError as error:
        raise ZooError(
            f"{folder / 'manifest.json'} is not valid JSON (line {error.lineno}): restore the file"
        ) from None


def save(name: str, module: nn.Module, *, folder: Path = WEIGHTS, **facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write a model's weights as `name`.safetensors, and its facts (recipe, quality, corpus, …) into the manifest.

    Returns the manifest entry.
    """
    state = {key: to(value.detach(), torch.half).contiguous() for key, value in module.state_dict().items()}
    content = save_tensors(state)
    entry: dict[str, Any] = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "parameters": sum(value.numel() for value in state.values()),
        **facts,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / f"{name}.safetensors", content)
    update_manifest(name, entry, folder=folder)
    return entry


def to(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights in another precision; whole numbers, such as tokens, stay what they are."""
    return value.to(dtype) if value.is_floating_point() else value


def update_manifest(name: str, entry: Mapping[str, Any], *, folder: Path = WEIGHTS) -> None:
    """Replace one entry of the manifest, in its place, and keep the rest; pages show them in this order."""
    known = manifest(folder) | {name: dict(entry)}
    text = json.dumps(known, indent=2, ensure_ascii=False) + "\n"
    write_whole(folder / "manifest.json", text)


def load_state(name: str, *, folder: Path = WEIGHTS, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The weights of a model in `dtype`. Raises ZooError if they are unknown, missing or damaged."""
    known = manifest(folder)
    if name not in known:
        raise ZooError(f"the zoo has no model {name!r}; it has {', '.join(sorted(known)) or 'none yet'}")
    path = folder / f"{name}.safetensors"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ZooError(f"{path} is missing: restore it, or train it with `accelgen zoo train {name}`") from None
    if hashlib.sha256(content).hexdigest() != known[name]["sha256"]:
        raise ZooError(f"{path} does not match its hash in the manifest: the file is damaged, restore it")
    try:
        return {key: to(value, dtype) for key, value in load_tensors(content).items()}
    except SafetensorError as error:
        raise ZooError(f"{path} is not a safetensors file ({error}): restore it") from None
