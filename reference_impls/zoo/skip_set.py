"""Halves of a model's layers that a draft leaves out, as a part that can be stored."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from reference_impls.core.layers import Shape


class SkipSet(nn.Module):
    """A vector z: 1 in z [2, layers] means that this attention (row 0) or feed-forward half (row 1) is left out."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.z = nn.Parameter(torch.zeros(2, shape.layers), requires_grad=False)

    def choose(self, attention: Sequence[int], feed: Sequence[int]) -> None:
        """Leave out the halves of these layers, and no others."""
        for row, chosen in zip(self.z, (attention, feed), strict=True):
            row.zero_()[list(chosen)] = 1.0

    @property
    def attention(self) -> tuple[int, ...]:
        """Layers whose attention half is left out."""
        return tuple(self.z[0].nonzero().flatten().tolist())

    @property
    def feed(self) -> tuple[int, ...]:
        """Layers whose feed-forward half is left out."""
        return tuple(self.z[1].nonzero().flatten().tolist())
