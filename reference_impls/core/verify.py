"""Acceptance rules: pure functions of the target law p and the draft law q that keep the target's law exactly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from reference_impls.core.drafting import one_hot
from reference_impls.core.sampling import Sampler
from reference_impls.core.tree import Tree


def residual(p: Tensor, q: Tensor) -> Tensor:
    """The law norm(max(0, p - q)) [..., vocab] of a token after a draft from q was rejected.

    Leviathan et al. (2023), section 2.3; Chen et al. (2023), theorem 1. Where p equals q nothing can be rejected, and
    rounding alone can ask for this law: then p itself is returned.
    """
    rest = (p - q).clamp(min=0)
    mass = rest.sum(-1, keepdim=True)
    return torch.where(mass > 0, rest / mass, p)


def verify_chain(
    sampler: Sampler, draft: Sequence[int], q: Iterable[Tensor], p: Tensor, lenience: float = 1.0
) -> tuple[int, int]:
    """How many of the drafted tokens are kept, and the extra token that follows them.

    Guess i of `draft` was drawn from row i of q, [vocab]; p [gamma + 1, vocab] are the target's laws at the same places
    and one further. Token i is kept with probability min(1, p_i / q_i); after the first rejection the extra token comes
    from the residual, after none from the last row of p. The result costs one copy from the device.

    `lenience` below 1 keeps tokens with min(1, p_i / (lenience * q_i)): faster, and no longer the target's law.
    """
    laws = drafted_laws(q, p)
    kept = accepted(sampler, draft, lenience * laws[:-1], p[:-1])
    extra = sampler.draw(residual(p, laws)[kept])
    count, token = torch.stack((kept, extra)).tolist()
    return count, token


def accepted(sampler: Sampler, draft: Sequence[int], q: Tensor, p: Tensor) -> Tensor:
    """How many of the drafted tokens are kept, a number on the device: the rule of `verify_chain` alone.

    For where the law behind the draft is asked for only if all are kept. Both laws are [gamma, vocab].
    """
    drawn = torch.tensor(draft, device=p.device, dtype=torch.long).unsqueeze(-1)
    ratio = p.gather(-1, drawn) / q.gather(-1, drawn)  # [gamma, 1]
    return sampler.accept(ratio.squeeze(-1)).cumprod(0).sum()


def drafted_laws(q: Iterable[Tensor], p: Tensor) -> Tensor:
    """The laws [gamma + 1, vocab] of a draft: the rows of q and, as nothing was drafted after them, a row of zeros.

    So the residual behind a draft that was kept whole is p itself.
    """
    return torch.stack([*q, torch.zeros_like(p[0])])


def verify_tree(sampler: Sampler, tree: Tree, p: Tensor, q: Tensor | None = None) -> tuple[list[int], int]:
    """The nodes of the accepted path, and the extra token that follows them (multi-step speculative sampling).

    p [nodes + 1, vocab] are the target's laws after the root and after each node; row i of q [nodes, vocab] is the law
    that node i was drawn from, given its elder siblings. Without `q` the nodes were chosen without chance, which is a
    draw from a one-hot law. The children of a node are tried in order: a child x is kept with probability
    min(1, p(x) / q(x)); after a rejection, the residual takes the place of p for the next child, and for the extra
    token after the last. Miao et al. (2024), algorithm 2.

    The result costs two copies from the device.
    """
    rest, chance = p.clone(), p.new_zeros(len(tree))  # what is left of p after the rejections so far
    rank: dict[int, int] = {}
    by_rank: dict[int, list[int]] = {}  # how many elder siblings a node has -> such nodes
    for node, parent in enumerate(tree.parents):
        rank[parent] = rank.get(parent, -1) + 1
        by_rank.setdefault(rank[parent], []).append(node)
    drafted = torch.tensor(tree.tokens, device=p.device, dtype=torch.long)
    for nodes in by_rank.values():
        now = torch.tensor(nodes, device=p.device)
        rows = torch.tensor([tree.parents[node] + 1 for node in nodes], device=p.device)
        x, law = drafted[now, None], rest[rows]  # [now, 1], [now, vocab]
        guess = q[now].to(p.dtype) if q is not None else one_hot(x.squeeze(-1), law.shape[-1], p.dtype)
        chance[now] = (law.gather(-1, x) / guess.gather(-1, x)).squeeze(-1)
        rest[rows] = residual(law, guess)
    likely = chance.cpu()
    path, node = list[int](), -1
    while True:
        kept = next((child for child in tree.children(node) if sampler.accept(likely[child])), None)
        if kept is None:
            break
        path.append(node := kept)
    return path, int(sampler.draw(rest[node + 1]))
