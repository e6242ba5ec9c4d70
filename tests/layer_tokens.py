"""Counting at the model what early exits say they computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from reference_impls.core.model import LanguageModel


@contextmanager
def layer_tokens(target: LanguageModel) -> Iterator[list[int]]:
    """Layers times tokens of each `run` of the target while inside; `fill`, which runs no layer, is not counted."""
    found: list[int] = []
    run = target.run

    def count(x: torch.Tensor, cache: Any = None, **more: Any) -> torch.Tensor:
        layers = more.get("layers")
        found.append(len(x) * (target.shape.layers if layers is None else len(layers)))
        return run(x, cache, **more)

    target.run = count  # type: ignore[method-assign]
    try:
        yield found
    finally:
        del target.run
