"""Reading a model out before its last layer: how sure it is there, and what it loses there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import wide


def top_two_gap(logits: Tensor) -> Tensor:
    """The gap [...] between the two largest probabilities of logits [..., vocab]; NaN where they are not finite."""
    p = logits.softmax(-1, wide(logits))
    best, second = p.topk(2).values.unbind(-1)
    return best - second


def layer_states(model: LanguageModel, tokens: Tensor) -> Iterator[Tensor]:
    """The hidden states [..., tokens, dim] after layer 1, 2, … of tokens [..., tokens]: one pass, layer by layer."""
    x = model.embed(tokens)
    for layer in range(model.shape.layers):
        x = model.run(x, layers=range(layer, layer + 1))
        yield x


def layerwise_cross_entropy(
    model: LanguageModel, states: Iterable[Tensor], wanted: Tensor, weights: Mapping[int, float]
) -> Tensor:
    """The weighted mean of the cross-entropies, in nats a token, of `wanted` [batch, tokens] after some layers.

    `states` are the hidden states [batch, tokens, dim] after layer 1, 2, …; each is read out by the model's own norm
    and head where `weights` has the number of its layer. The weights are divided by their sum.
    """
    total = torch.zeros((), device=wanted.device)
    for depth, x in enumerate(states, start=1):
        if depth in weights:
            total = total + weights[depth] * F.cross_entropy(model.logits(x).float().flatten(0, 1), wanted.flatten())
    return total / sum(weights.values())
