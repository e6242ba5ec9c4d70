"""The names of the zoo: which module builds, trains and measures each of them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from reference_impls.core.model import LanguageModel
from reference_impls.zoo.errors import ZooError
from reference_impls.zoo.storage import WEIGHTS

# name -> module with `blank(name)` and `train(name, folder)`; in the order in which they are trained
MODULES: Mapping[str, str] = {
    "drafter": "language",
    "target": "language",
    "block-heads": "parts",
    "exit-classifier": "parts",
    "free-adapters": "parts",
    "skip-set": "skipping",
    "medusa-heads": "parts",
    "eagle-drafter": "parts",
    "drafter-boosted": "boosted",
    "max-gram": "max_gram",
    "rest-datastore": "datastore",
    "translation-ar": "translation",
    "translation-masked": "translation",
    "translation-fertility": "translation",
    "translation-crf": "translation",
    "spelling-ar": "translation",
    "spelling-masked": "translation",
}


def _module(name: str) -> Any:
    if name not in MODULES:
        raise ZooError(f"the zoo has no model {name!r}; it has {', '.join(MODULES)}")
    return importlib.import_module(f"accelgen.training.{MODULES[name]}")


def blank(name: str) -> nn.Module:
    """An untrained model of the right shape."""
    module: nn.Module = _module(name).blank(name)
    return module


def settle(model: nn.Module) -> None:
    """After loading: make anew what is not stored with the weights."""
    if isinstance(model, LanguageModel):
        model.forget_angles()


def train(name: str, *, folder: Path = WEIGHTS, steps: int | None = None, seed: int = 0) -> dict[str, Any]:
    """Train a model, store it with its facts in `folder`, and return the manifest entry.

    `steps` shortens or lengthens the recipe. Raises ZooError for an unknown name or a missing ingredient.
    """
    found: dict[str, Any] = _module(name).train(name, folder=folder, steps=steps, seed=seed)
    return found
