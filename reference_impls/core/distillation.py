"""How far a drafter's law is from the target's: what a drafter learns to make small."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from reference_impls.core.arguments import checked
from reference_impls.core.sampling import wide

Divergence = Literal["forward-kl", "reverse-kl", "jensen-shannon", "total-variation"]


@checked
def divergence(p: Tensor, q: Tensor, kind: Divergence, beta: float = 0.5) -> Tensor:
    """The divergence [...] of the laws of logits p and q [..., vocab]; beta is the weight of p in Jensen-Shannon's.

    Raises ValueError for a kind that is none of these, a beta outside (0, 1), and logits of different shapes.
    """
    if p.shape != q.shape or not p.numel():
        raise ValueError(f"p and q have the shapes {[*p.shape]} and {[*q.shape]}; give both the same laws")
    if not 0 < beta < 1:
        raise ValueError(f"beta is {beta}; it is the weight of the target's law in the mixture, so between 0 and 1")
    log_p, log_q = (logits.log_softmax(-1, wide(logits)) for logits in (p, q))
    match kind:
        case "forward-kl":
            return kl(log_p, log_q)
        case "reverse-kl":
            return kl(log_q, log_p)
        case "jensen-shannon":
            log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log(1 - beta))
            return beta * kl(log_p, log_m) + (1 - beta) * kl(log_q, log_m)
        case "total-variation":
            return (log_p.exp() - log_q.exp()).abs().sum(-1) / 2
    raise ValueError(f"kind is {kind!r}; choose forward-kl, reverse-kl, jensen-shannon or total-variation")


def kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    """KL(a || b) in nats [...] of two laws, given their logarithms [..., vocab]."""
    return (log_a.exp() * (log_a - log_b).where(log_a > -math.inf, 0)).sum(-1)  # what never comes costs nothing
