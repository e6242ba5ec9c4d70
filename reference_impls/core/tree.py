"""A tree of drafted tokens, made ready for one pass of the target."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Integral

import torch
import torch.nn.functional as F
from torch import Tensor

from reference_impls.core.drafting import check_guesses


@dataclass
class Tree:
    """Drafted tokens and their parents; nodes are numbered in the order in which they were added, parents first.

    The root is not a node: it is the last committed token, and its number is -1.
    """

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, token: int, parent: int = -1) -> int:
        """Append a node below `parent` and return its number. Raises ValueError for what is no node or no token."""
        if not isinstance(parent, Integral) or not -1 <= parent < len(self.tokens):
            raise ValueError(f"parent {parent!r} is not in the tree of {len(self.tokens)} nodes")
        if not isinstance(token, Integral):
            raise TypeError(f"token is {token!r}; it must be a whole number")
        check_guesses([token])
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

    def layout(self, roots: int = 1) -> tuple[Tensor, Tensor | None]:
        """Depths [roots + nodes] and the ancestor mask `visible` [roots + nodes, roots + nodes] of one pass.

        For a pass over `[*unseen, *tree.tokens]` at positions `len(cache) + depths`, where `unseen` are the `roots`
        committed tokens that the cache does not hold yet; the last of them is the root. They form a chain; a node sees
        all of them, its ancestors and itself. A tree without nodes is only the chain, which needs no mask: None. So a
        prompt is read without one.
        """
        depths = list(range(roots))
        if not self.tokens:
            return torch.tensor(depths), None
        visible = torch.ones(roots + len(self), roots + len(self), dtype=torch.bool).tril()
        visible[roots:, roots:] = torch.eye(len(self), dtype=torch.bool)
        for i, parent in enumerate(self.parents, start=roots):
            depths.append(depths[parent + roots] + 1)
            if parent >= 0:
                visible[i] |= visible[parent + roots]
        return torch.tensor(depths), visible


def attach(depths: Tensor, visible: Tensor | None, places: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The layout of a pass with a chain of `size` more tokens behind each of `places` [chains], one after another.

    For tokens that look ahead, such as masks. `depths` [n] and `visible` [n, n] are as `Tree.layout` gives them. A
    chain continues the depths of its place, sees what its place sees and itself in a row; no other token sees it.
    """
    n = len(depths)
    visible = torch.ones(n, n, dtype=torch.bool).tril() if visible is None else visible
    ahead = (depths[places, None] + torch.arange(1, size + 1)).flatten()  # [chains * size]
    own = torch.kron(torch.eye(len(places)), torch.ones(size, size).tril()).bool()
    chains = torch.cat((visible[places].repeat_interleave(size, 0), own), 1)
    return torch.cat((depths, ahead)), torch.cat((F.pad(visible, (0, len(ahead))), chains))
