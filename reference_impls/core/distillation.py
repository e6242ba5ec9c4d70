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
def divergence(taught: Tensor, learnt: Tensor, kind: Divergence, beta: float = 0.5) -> Tensor:
    """The divergence [...] of the laws p and q of logits `taught` and `learnt` [..., vocab].

    beta is the weight of p in Jensen-Shannon's mixture. A token that p and q both hold for impossible adds nothing.
    Raises ValueError for a kind that is none of these, a beta outside (0, 1), and logits of different shapes.
    """
    if taught.shape != learnt.shape or not taught.numel():
        shapes = f"{[*taught.shape]} and {[*learnt.shape]}"
        raise ValueError(f"taught and learnt have the shapes {shapes}; give both logits of the same places")
    if not 0 < beta < 1:
        raise ValueError(f"beta is {beta}; it is the weight of the target's law in the mixture, so between 0 and 1")
    log_p, log_q = (logits.log_softmax(-1, wide(logits)) for logits in (taught, learnt))
    match kind:
        case "forward-kl":
            return kl(log_p, log_q)
        case "reverse-kl":
            return kl(log_q, log_p)
        case "jensen-shannon":
            least = torch.finfo(log_p.dtype).min  # of minus infinity twice, logaddexp has no gradient
            weighed = (log_p + math.log(beta)).clamp(min=least), (log_q + math.log(1 - beta)).clamp(min=least)
            log_m = torch.logaddexp(*weighed)
            return beta * kl(log_p, log_m) + (1 - beta) * kl(log_q, log_m)
        case "total-variation":
            return (log_p.exp() - log_q.exp()).abs().sum(-1) / 2
    raise ValueError(f"kind is {kind!r}; choose forward-kl, reverse-kl, jensen-shannon or total-variation")


def kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    """KL(a || b) in nats [...] of two laws, given their logarithms [..., vocab]."""
    return (log_a.exp() * (log_a - log_b).where(log_a > -math.inf, 0)).sum(-1)  # what never comes costs nothing
