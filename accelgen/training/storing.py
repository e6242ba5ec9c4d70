"""Trained parts on disk, as `zoo.load` reads them: the weights in half precision, and all facts in the manifest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors

from accelgen.project.files import write_whole
from accelgen.training.recipe import Part
from reference_impls.core.layers import Shape
from reference_impls.zoo.storage import WEIGHTS, manifest, to


def save(name: str, part: Part, *, folder: Path = WEIGHTS, **facts: Any) -> dict[str, Any]:
    """Write a part's weights as `name`.safetensors, and its facts (recipe, quality, corpus, …) into the manifest.

    Returns the manifest entry.
    """
    state = {key: to(value.detach(), torch.half).contiguous() for key, value in part.module.state_dict().items()}
    content = save_tensors(state)
    kind = type(part.module)
    entry: dict[str, Any] = {
        "class": f"{kind.__module__}:{kind.__name__}",
        "arguments": {key: plain(value) for key, value in part.arguments.items()},
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "parameters": sum(value.numel() for value in state.values()),
        **facts,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / f"{name}.safetensors", content)
    update(name, entry, folder=folder)
    return dict(manifest(folder)[name])


def plain(value: Any) -> Any:
    """An argument as plain data; of a shape, what is not the default."""
    if isinstance(value, Shape):
        return {f.name: own for f in dataclasses.fields(value) if (own := getattr(value, f.name)) != f.default}
    return value


def update(name: str, entry: Mapping[str, Any], *, folder: Path = WEIGHTS) -> None:
    """Replace one entry of the manifest, in its place, and keep the rest; pages show them in this order."""
    known = manifest(folder) | {name: dict(entry)}
    text = json.dumps(known, indent=2, ensure_ascii=False) + "\n"
    write_whole(folder / "manifest.json", text)
