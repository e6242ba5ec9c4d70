"""Several sequences of different lengths in one pass: another way to call a `LanguageModel`, not another model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from reference_impls.core.arguments import checked
from reference_impls.core.layers import as_tensor, attention_mask
from reference_impls.core.model import LanguageModel

T = TypeVar("T")


@dataclass(frozen=True)
class Pass:
    """One pass over a batch as its layers see it: where they write keys and values, and how far they read."""

    store: Tensor  # [layers, 2, rows, kv_heads, capacity, head_dim]
    slots: Tensor  # [rows, new], which are positions too
    end: int

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values [rows, kv_heads, new, head_dim] of a layer; return all [rows, kv_heads, end, …]."""
        slots = self.slots[:, None, :, None].expand_as(k)
        keys, values = (held.scatter_(-2, slots, new) for held, new in zip(self.store[layer], (k, v), strict=True))
        return keys[:, :, : self.end], values[:, :, : self.end]


class Batch:
    """Sequences that read the weights together, each with rows of keys and values of its own.

    A pass feeds every sequence as many tokens as it likes, also none, and gives the logits that it would get alone. The
    rows are filled from the left. Nothing right of a sequence's length is seen before it is written again: to take
    tokens back is to lower a number, and a sequence that feeds fewer tokens than another is padded in there.
    `lengths` says how many tokens of each sequence are held, so `text[lengths[row]:]` is what it has not seen yet.
    """

    @checked
    def __init__(self, model: LanguageModel, rows: int) -> None:
        if rows < 1:
            raise ValueError(f"rows is {rows}; a batch has at least 1 sequence")
        shape = model.shape
        self.model, self.lengths = model, [0] * rows
        # Zeros: what is masked still enters the sums with weight 0, and what lies in fresh memory may be no number.
        self._store = model.embedding.new_zeros(shape.layers, 2, rows, shape.kv_heads, 64, shape.head_dim)

    def __len__(self) -> int:
        return len(self.lengths)

    def __call__(self, tokens: Sequence[Sequence[int]], *, last: int | None = None) -> list[Tensor]:
        """For each sequence the next-token logits [new, vocab] of its new tokens, or of its `last` ones alone.

        Raises ValueError where the rows are not those of the batch, where all are empty, and for an unknown token.
        """
        counts, model = list(map(len, self._for_each(tokens))), self.model
        flat = as_tensor([token for row in tokens for token in row], model.shape.vocab, model.device)
        place = torch.arange(max(counts))
        fed = place < torch.tensor(counts)[:, None]  # [rows, new]: False where a row is padded
        slots = torch.tensor(self.lengths)[:, None] + place  # [rows, new]
        this = Pass(self._with_room(int(slots.max()) + 1), slots.to(model.device), int(slots.max()) + 1)
        x = model.embed(torch.zeros_like(this.slots).masked_scatter(fed.to(model.device), flat))  # [rows, new, dim]
        turn, mask = model.turn(0, len(place), slots[:, None]), self._mask(this, x)  # one angle for all heads
        for layer, block in enumerate(model.blocks):
            x = block(x, turn, mask, this, layer)
        self.lengths = [length + count for length, count in zip(self.lengths, counts, strict=True)]
        read = [count if last is None else min(count, last) for count in counts]
        x = torch.cat([states[count - n : count] for states, count, n in zip(x, counts, read, strict=True)])
        return list(model.logits(x).split(read))

    def crop(self, lengths: Sequence[int]) -> None:
        """Forget every token of each sequence from its length on. Nothing is copied."""
        if min(self._for_each(lengths)) < 0:
            raise ValueError(f"cannot crop sequences to {[*lengths]} tokens")
        self.lengths = list(map(min, self.lengths, lengths))

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these sequences alone, in this order: the others have ended. Their keys and values are copied."""
        if not rows or not all(0 <= row < len(self) for row in rows):
            raise ValueError(f"cannot keep the sequences {[*rows]} of a batch of {len(self)}")
        self.lengths = [self.lengths[row] for row in rows]
        self._store = self._store[:, :, list(rows)]

    def _mask(self, this: Pass, x: Tensor) -> Tensor | None:
        """Who sees whom: its own sequence up to itself. None where all begin, and the triangle is the kernel's own."""
        if not any(self.lengths):
            return None
        visible = torch.arange(this.end, device=x.device) <= this.slots[..., None]  # [rows, new, end]
        return attention_mask(visible, 0, x.shape[-2], x)

    def _with_room(self, end: int) -> Tensor:
        capacity = self._store.shape[-2]
        if end > capacity:
            self._store = F.pad(self._store, (0, 0, 0, max(end, 2 * capacity) - capacity))
        return self._store

    def _for_each(self, given: Sequence[T]) -> Sequence[T]:
        if len(given) != len(self):
            raise ValueError(f"{len(given)} are given for a batch of {len(self)} sequences")
        return given
