"""Counting at the model what methods say they computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from reference_impls.core.model import LanguageModel


@contextmanager
def layer_tokens(target: LanguageModel) -> Iterator[list[float]]:
    """Layers times tokens that run while inside, half by half; `fill`, which runs no layer, is not counted."""
    found: list[float] = []

    def counting(half: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def run(x: torch.Tensor, *more: Any) -> torch.Tensor:
            found.append(len(x) / 2)
            return half(x, *more)

        return run

    for block in target.blocks:
        block.attend, block.feed = counting(block.attend), counting(block.feed)  # type: ignore[method-assign]
    try:
        yield found
    finally:
        for block in target.blocks:
            del block.attend, block.feed
