"""Keys and values of one sequence: preallocated, rolled back by a number, repaired after a tree by a path."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Protocol

import torch
from torch import Tensor


class KeysAndValues(Protocol):
    """What attention asks of whatever keeps its keys and values: to take the new ones and give all that it may see."""

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values of new tokens; return those of the layer's whole text."""


class Past(KeysAndValues, Protocol):
    """What a model's layers ask of a cache beyond that: how much of the text each of them has there."""

    def length(self, layer: int) -> int:
        """How many tokens `layer` holds."""


class Cache:
    """Keys and values [layers, 2, kv_heads, capacity, head_dim], with a length for every layer.

    Layers may lag behind each other (early exit, layer skipping). `len(cache)` is the length that all layers share.
    """

    def __init__(self, layers: int, kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device) -> None:
        self._hold(torch.empty(layers, 2, kv_heads, 64, head_dim, dtype=dtype, device=device))
        self._lengths = [0] * layers

    def _hold(self, store: Tensor) -> None:
        self._store = store
        self._layers = [(store[layer, 0], store[layer, 1]) for layer in range(len(store))]  # views, made once

    def __len__(self) -> int:
        return min(self._lengths)

    def length(self, layer: int) -> int:
        """How many tokens `layer` holds."""
        return self._lengths[layer]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values [kv_heads, new, head_dim]; return the layer's [kv_heads, length, head_dim]."""
        past, end = self._lengths[layer], self._lengths[layer] + k.shape[-2]
        if end > self._store.shape[3]:
            self._grow(end)
        keys, values = self._layers[layer]
        keys.narrow(1, past, end - past).copy_(k)
        values.narrow(1, past, end - past).copy_(v)
        self._lengths[layer] = end
        return self.entries(layer)

    def entries(self, layer: int) -> tuple[Tensor, Tensor]:
        """The keys and values [kv_heads, length, head_dim] that `layer` holds; writing to them changes the cache."""
        keys, values = self._layers[layer]
        return keys.narrow(1, 0, self._lengths[layer]), values.narrow(1, 0, self._lengths[layer])

    def _grow(self, end: int) -> None:
        old = self._store
        shape = list(old.shape)
        shape[3] = max(end, 2 * shape[3])
        new = old.new_empty(shape)
        new[:, :, :, : old.shape[3]] = old
        self._hold(new)

    def crop(self, length: int) -> None:
        """Forget every token from `length` on, in all layers. Nothing is copied."""
        if not isinstance(length, Integral) or length < 0:
            raise ValueError(f"cannot crop a cache to a length of {length!r}")
        self._lengths = [min(n, length) for n in self._lengths]

    def keep(self, length: int, path: Sequence[int]) -> None:
        """Keep the first `length` tokens and, of what stands behind them, the slots `path` in this order.

        They are a tree's path, or what a window holds.

        Raises ValueError for slots that hold nothing.
        """
        if not 0 <= length <= len(self) or any(not 0 <= slot < len(self) - length for slot in path):
            raise ValueError(f"cannot keep slots {[*path]} from {length} on: the cache holds {len(self)} tokens")
        rows = torch.tensor(path, device=self._store.device, dtype=torch.long) + length
        end = length + len(path)
        if rows.numel():
            self._store[:, :, :, length:end] = self._store.index_select(3, rows)
        self._lengths = [end] * len(self._lengths)
