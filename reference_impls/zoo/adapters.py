"""Low-rank adapters of the target (LoRA; Hu et al., 2022): a small change of all its matrices, merged into a copy.

They let a method that trains the target ship what it has learnt in a tenth of the target's size.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel

RANK = 8
MATRICES = ("attention.qkv", "attention.out", "gate_up", "down")


class Adapters(nn.Module):
    """A product of two thin matrices, left [layers, in, rank] and right [layers, rank, out], for each of MATRICES."""

    def __init__(self, shape: Shape, rank: int = RANK) -> None:
        super().__init__()
        attended = shape.heads * shape.head_dim
        wide = attended + 2 * shape.kv_heads * shape.head_dim
        sizes = ((shape.dim, wide), (attended, shape.dim), (shape.dim, 2 * shape.hidden), (shape.hidden, shape.dim))
        self.left = nn.ParameterList(torch.randn(shape.layers, n, rank) * n**-0.5 for n, _ in sizes)
        self.right = nn.ParameterList(torch.zeros(shape.layers, rank, m) for _, m in sizes)

    def adapt(self, target: LanguageModel) -> dict[str, Tensor]:
        """The adapted matrices of `target`, by name."""
        own, changes = dict(target.named_parameters()), zip(MATRICES, self.left, self.right, strict=True)
        found = {}
        for name, left, right in changes:
            for layer, change in enumerate(left @ right):
                key = f"blocks.{layer}.{name}"
                found[key] = own[key] + change
        return found


def merged(target: LanguageModel, adapters: Adapters) -> LanguageModel:
    """A copy of the target with the adapters merged into its matrices."""
    model = copy.deepcopy(target)
    with torch.no_grad():
        model.load_state_dict(model.state_dict() | adapters.adapt(target))
    return model
