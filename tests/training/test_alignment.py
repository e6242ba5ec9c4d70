"""The zoo's word aligner against sums over all alignments, and on a text whose alignment is known."""

import itertools
import math
import random
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from accelgen.training import alignment
from accelgen.training.alignment import TENSION, fertilities, fit_translations

MUTANTS = [
    ("alignments-of-padding-counted", ".where((target != PAD)[:, :, None], 0)", ""),
    ("aligned-to-padding", ".masked_fill(~source_real[:, None, :], -torch.inf)", ""),
    (
        "target-words-bring-forth-source-words",
        "source[:, None, :] * vocab + target[:, :, None]",
        "target[:, :, None] * vocab + source[:, None, :]",
    ),
    ("diagonal-shunned", "-TENSION * distance", "TENSION * distance"),
]

PAIRS = [([3, 4], [5, 6, 5]), ([4], [6]), ([4, 3, 7], [8, 6]), ([7, 7], [8, 5])]
VOCAB = 9


def nearness(i: int, t: int, source: list[int], target: list[int]) -> float:
    """The prior delta of source word i for target word t, both counted from 1."""
    weights = [math.exp(-TENSION * abs(t / len(target) - other / len(source))) for other in range(1, len(source) + 1)]
    return weights[i - 1] / sum(weights)


def by_all_alignments(theta: Tensor) -> tuple[Tensor, float]:
    """One round of expectation maximisation, every alignment of a whole sentence weighed, and the log-likelihood."""
    counts, likelihood = torch.zeros(VOCAB, VOCAB, dtype=torch.float64), 0.0
    for source, target in PAIRS:
        weighed = {}
        for origins in itertools.product(range(len(source)), repeat=len(target)):
            links = [(source[i], word) for i, word in zip(origins, target, strict=True)]
            near = math.prod(nearness(i + 1, t + 1, source, target) for t, i in enumerate(origins))
            weighed[tuple(links), origins] = near * math.prod(float(theta[link]) for link in links)
        total = sum(weighed.values())
        likelihood += math.log(total)
        for (links, _), weight in weighed.items():
            for link in links:
                counts[link] += weight / total
    return counts / counts.sum(-1, keepdim=True).clamp(min=1e-300), likelihood


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_a_round_is_the_expectation_over_all_alignments(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "CHUNK", chunk)
    theta = torch.full((VOCAB, VOCAB), 1 / VOCAB, dtype=torch.float64)
    for rounds in range(1, 5):
        theta, likelihood = by_all_alignments(theta)
        found, course = fit_translations(PAIRS, VOCAB, rounds)
        assert torch.allclose(found, theta)
        assert course[-1] == pytest.approx(likelihood)


def test_no_round_lowers_the_likelihood() -> None:
    _, course = fit_translations(PAIRS, VOCAB, 30)
    assert all(later >= earlier - 1e-9 for earlier, later in pairwise(course))
    assert course[-1] > course[0] + 1


def test_known_fertilities_are_found_although_words_move() -> None:
    """Source word w has 1 + w % 3 translations, and they may stand anywhere in the target."""
    chance, pairs, wanted = random.Random(0), [], []
    for _ in range(300):
        source = chance.sample(range(1, 21), 5)
        parts = [[30 + 4 * word + part for part in range(1 + word % 3)] for word in source]
        target = [token for part in chance.sample(parts, len(parts)) for token in part]
        if target:
            pairs.append((source, target))
            wanted.append([1 + word % 3 for word in source])
    found = fertilities(pairs, 120)
    assert all(sum(plan) == len(target) for plan, (_, target) in zip(found, pairs, strict=True))
    right = sum(plan == known for plan, known in zip(found, wanted, strict=True))
    assert right >= 0.97 * len(pairs)
