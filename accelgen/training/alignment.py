r"""A word aligner, for fertilities: IBM model 2 as in fast_align (Dyer et al., NAACL 2013), fitted by EM.

Every target word comes from one source word: $p(y_t, a_t = i) = \delta(i \mid t, N, M) \, \theta(y_t \mid x_i)$ for N
target and M source words, where $\delta \propto \exp(-\kappa |t / N - i / M|)$ prefers the diagonal. There is no empty
word, so the fertilities of the source words sum up to the number of target words. The tension $\kappa$ is fixed and
small: the parts of a sentence move far here, and a stronger pull (fast_align starts from 4) aligns what is merely near.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from reference_impls.zoo.tasks import PAD

TENSION, ROUNDS, CHUNK = 1.0, 10, 4000
Pairs = Sequence[tuple[Sequence[int], Sequence[int]]]


def prior(source_real: Tensor, target_real: Tensor) -> Tensor:
    """The law delta [pairs, target, source]: where a target word looks for its source word."""
    source, target = (
        torch.arange(1, real.shape[1] + 1, dtype=torch.float64) / real.sum(-1, keepdim=True)
        for real in (source_real, target_real)
    )
    distance = (target[:, :, None] - source[:, None, :]).abs()
    return (-TENSION * distance).masked_fill(~source_real[:, None, :], -torch.inf).softmax(-1)


def origins(theta: Tensor, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The law [pairs, target, source] of each target word's origin, and the probability [pairs, target] of the word."""
    joint = prior(source != PAD, target != PAD) * theta[source[:, None, :], target[:, :, None]]
    p = joint.sum(-1)
    return (joint / p[:, :, None]).where((target != PAD)[:, :, None], 0), p


def fit_translations(pairs: Pairs, vocab: int, rounds: int = ROUNDS) -> tuple[Tensor, list[float]]:
    """The table theta [vocab, vocab], a law over target words for each source word, and each round's log-likelihood."""
    theta, course = torch.full((vocab, vocab), 1 / vocab, dtype=torch.float64), []
    for _ in range(rounds):
        counts, likelihood = torch.zeros(vocab * vocab, dtype=torch.float64), 0.0
        for source, target in chunks(pairs):
            origin, p = origins(theta, source, target)
            likelihood += float(p[target != PAD].log().sum())
            counts.index_add_(0, (source[:, None, :] * vocab + target[:, :, None]).flatten(), origin.flatten())
        theta = counts.view(vocab, vocab)
        theta = theta / theta.sum(-1, keepdim=True).clamp(min=1e-300)  # a word that never occurs has no translation
        course.append(likelihood)
    return theta, course


def fertilities(pairs: Pairs, vocab: int) -> list[list[int]]:
    """For each pair, how many target words come from each source word, if each comes from its likeliest one."""
    theta, _ = fit_translations(pairs, vocab)
    found: list[list[int]] = []
    for source, target in chunks(pairs):
        best = origins(theta, source, target)[0].argmax(-1)
        found += torch.zeros_like(source).scatter_add_(-1, best, (target != PAD).long()).tolist()
    return [fertility[: len(source)] for fertility, (source, _) in zip(found, pairs, strict=True)]


def chunks(pairs: Pairs) -> Iterator[tuple[Tensor, Tensor]]:
    """The pairs as padded tensors, so many at a time that memory does not matter."""
    for start in range(0, len(pairs), CHUNK):
        sources, targets = zip(*pairs[start : start + CHUNK], strict=True)
        source, target = (pad_sequence([torch.tensor(row) for row in rows], True, PAD) for rows in (sources, targets))
        yield source, target
