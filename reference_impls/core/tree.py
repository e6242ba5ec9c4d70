"""A tree of drafted tokens: how a drafter grows it, and how it is made ready for one pass of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from reference_impls.core.cache import Cache
from reference_impls.core.drafting import check_guesses, siblings
from reference_impls.core.sampling import Sampler


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

    def follow(self, tokens: Sequence[int]) -> list[int]:
        """The nodes from below the root down that carry these tokens, as far as the tree has them."""
        found = list[int]()
        for token in tokens:
            below = [node for node in self.children(found[-1] if found else -1) if self.tokens[node] == token]
            if not below:
                break
            found.append(below[0])
        return found

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


def draft_tree(
    sampler: Sampler,
    drafter: Any,
    tokens: Sequence[int],
    cache: Cache,
    widths: Sequence[int],
    *,
    replacement: bool = False,
) -> tuple[Tree, list[Tensor]]:
    """A drafter's tree after `tokens`, and for the children of each node the laws [children, vocab] of their draws.

    A node at depth i has `widths[i]` children, drawn by `siblings`; every depth takes one pass. Each pass reads the
    last of the tokens and all nodes so far; the first one also what is new of the tokens. So the last level is only
    drawn, never read, and the cache then holds the tokens and all other nodes. Without replacement a node gets fewer
    children than wanted where its law has fewer tokens.
    """
    tree, laws, leaves = Tree(), list[Tensor](), [-1]
    for width in widths:
        cache.crop(len(tokens) - 1)
        unseen = tokens[len(cache) :]
        depths, visible = tree.layout(len(unseen))
        inputs, positions = [*unseen, *tree.tokens], len(cache) + depths
        logits = drafter(inputs, cache, last=len(tree) + 1, positions=positions, visible=visible)
        guesses, q = siblings(sampler, logits[[leaf + 1 for leaf in leaves]], width, replacement=replacement)
        parents, leaves = leaves, []  # row 0 was the root
        for parent, drawn, drawn_from in zip(parents, guesses.tolist(), q, strict=True):
            children = drawn if replacement else [*dict.fromkeys(drawn)]
            leaves += [tree.add(token, parent) for token in children]
            laws.append(drawn_from[: len(children)])
    return tree, laws


def check_widths(widths: Sequence[int], vocab: int) -> None:
    """Raise ValueError where nothing is drafted, or where a node gets more children than there are tokens."""
    if not widths or not all(1 <= width <= vocab for width in widths):
        raise ValueError(f"widths are {tuple(widths)}; give for each depth a number from 1 to the {vocab} tokens")
