"""What is peculiar to Leviathan et al.: the cost model, lenience, and drafters that are no neural networks."""

from __future__ import annotations

import importlib
from itertools import product

import pytest
import torch
from defaults import defaults_of

from reference_impls.baselines.autoregressive import generate as decode
from reference_impls.core.sampling import Sampler
from reference_impls.core.verify import verify_chain
from reference_impls.speculative_decoding.speculative_decoding_leviathan import (
    Bigram,
    best_gamma,
    expected_tokens,
    generate,
    speedup,
)
from reference_impls.testing.laws import Exhaustive, autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import language_model

MUTANTS = [
    ("lenient-by-default", "lenience: float = 1.0", "lenience: float = 0.5"),
    ("target-cache-keeps-a-rejected-token", "target_cache.crop(len(tokens) - 1)", "target_cache.crop(len(tokens))"),
    ("draft-cache-keeps-a-rejected-token", "draft_cache.crop(len(tokens) - 1)", "draft_cache.crop(len(tokens))"),
    ("kept-count-off-by-one", "Step(emitted, draft, kept=kept,", "Step(emitted, draft, kept=kept + 1,"),
    ("draft-passes-not-counted", "draft_passes=len(draft)", "draft_passes=1"),
    ("accepted-tokens-drawn-again", "[*draft[:kept], extra]", "[*draft[:kept][:1], extra]"),
]

P = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
Q = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)


def tokens_a_step(gamma: int, lenience: float = 1.0) -> tuple[float, dict[int, float]]:
    """Mean tokens a step for laws that no context changes, and the law of the step's first token."""
    mean, first = 0.0, dict.fromkeys(range(len(P)), 0.0)
    for draft in product(range(len(P)), repeat=gamma):
        scripts: list[list[int]] = [[]]
        chance = float(torch.stack([Q[t] for t in draft]).prod())
        while scripts:
            sampler = Exhaustive(scripts.pop())
            kept, extra = verify_chain(sampler, draft, Q.expand(gamma, -1), P.expand(gamma + 1, -1), lenience)
            mean += chance * sampler.weight * (kept + 1)
            first[draft[0] if kept else extra] += chance * sampler.weight
            scripts += sampler.open
    return mean, first


@pytest.mark.parametrize("gamma", [1, 2, 3])
def test_expected_tokens_is_exact_where_acceptance_is_independent(gamma: int) -> None:
    alpha = float(torch.minimum(P, Q).sum())
    assert tokens_a_step(gamma)[0] == pytest.approx(expected_tokens(alpha, gamma), abs=1e-12)


def test_expected_tokens_at_its_ends() -> None:
    assert expected_tokens(0.0, 5) == 1
    assert expected_tokens(1.0, 5) == 6
    assert speedup(0.7, 0, c=0.1) == 1


def test_best_gamma_beats_its_neighbours() -> None:
    for alpha, c in product((0.3, 0.6, 0.9), (0.01, 0.1, 0.5)):
        gamma = best_gamma(alpha, c)
        assert all(speedup(alpha, gamma, c) >= speedup(alpha, max(0, gamma + step), c) for step in (-1, 1))
        if alpha > c:  # corollary 3.9
            assert speedup(alpha, gamma, c) >= (1 + alpha) / (1 + c) - 1e-12


@pytest.mark.parametrize("lenience", [0.9, 0.5, 0.1])
def test_lenience_keeps_more_and_bounds_every_token(lenience: float) -> None:
    strict, lenient = tokens_a_step(1), tokens_a_step(1, lenience)
    assert lenient[0] > strict[0]
    assert all(lenient[1][token] <= float(P[token]) / lenience + 1e-12 for token in range(len(P)))
    assert total_variation(lenient[1], dict(enumerate(P.tolist()))) > 0.01  # it is lossy, and says so


def test_without_lenience_the_first_token_has_the_targets_law() -> None:
    assert tokens_a_step(2)[1] == pytest.approx(dict(enumerate(P.tolist())), abs=1e-12)


def test_a_bigram_drafts_exactly() -> None:
    target = language_model()
    drafter = Bigram.count([0, 1, 1, 2, 0, 2, 1], 3).double()
    law = exact_law(lambda sampler: generate(target, [0, 1], 3, drafter=drafter, sampler=sampler, gamma=2))
    assert total_variation(law, autoregressive_law(target, [0, 1], 3)) < 1e-6


def test_a_bigram_knows_what_it_has_counted() -> None:
    drafter = Bigram.count([0, 1, 0, 1, 0, 2], 3)
    cache = drafter.new_cache()
    p = drafter([0], cache, last=1).softmax(-1)[0]
    assert p.tolist() == pytest.approx([1 / 6, 3 / 6, 2 / 6])
    assert len(cache) == 1
    target = language_model()
    greedy = decode(target, [0, 1], 12, sampler=Sampler(0)).tokens
    drafted = generate(target, [0, 1], 12, drafter=drafter.double(), sampler=Sampler(0))
    assert drafted.tokens == greedy


@pytest.mark.parametrize("lenience", [0.0, -1.0, 1.5])
def test_a_lenience_out_of_range_is_one_sentence(lenience: float) -> None:
    target = language_model()
    with pytest.raises(ValueError, match="it must lie in"):
        generate(target, [0], 3, drafter=target, sampler=Sampler(0), lenience=lenience)


def test_defaults_are_the_documented_ones() -> None:
    assert defaults_of(
        importlib.import_module("reference_impls.speculative_decoding.speculative_decoding_leviathan")
    ) == {"generate.gamma": 4, "generate.lenience": 1.0, "best_gamma.largest": 64}
