"""A tree of drafted tokens, made ready for one pass of the target."""

from __future__ import annotations

import torch
from torch import Tensor


class Tree:
    """Drafted tokens and their parents; nodes are numbered in the order in which they were added, parents first.

    The root is not a node: it is the last committed token, and its number is -1.
    """

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.parents: list[int] = []

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, token: int, parent: int = -1) -> int:
        """Append a node below `parent` and return its number."""
        if not -1 <= parent < len(self.tokens):
            raise ValueError(f"node {parent} is not in the tree of {len(self.tokens)} nodes")
        self.tokens.append(token)
        self.parents.append(parent)
        return len(self.tokens) - 1

    def children(self, node: int = -1) -> list[int]:
        """The nodes right below `node`, in the order in which they were added."""
        return [i for i, parent in enumerate(self.parents) if parent == node]

    def path(self, node: int) -> list[int]:
        """The nodes from below the root down to `node`."""
        found = []
        while node >= 0:
            found.append(node)
            node = self.parents[node]
        return found[::-1]

    def layout(self) -> tuple[Tensor, Tensor]:
        """Depths [nodes + 1] and the ancestor mask `visible` [nodes + 1, nodes + 1]; row 0 is the root token.

        For a pass over `[root, *tree.tokens]` at positions `len(cache) + depths`: a node sees the root, its ancestors
        and itself.
        """
        size = len(self.tokens) + 1
        depths = [0] * size
        visible = torch.eye(size, dtype=torch.bool)
        for i, parent in enumerate(self.parents, start=1):
            visible[i] |= visible[parent + 1]
            depths[i] = depths[parent + 1] + 1
        return torch.tensor(depths), visible
