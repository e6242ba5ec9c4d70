"""The formulas of the speedup: against every outcome of the coins, the method's own, and the paper's words."""

from __future__ import annotations

import itertools
import math

import pytest

from accelgen.measuring.speedup import (
    LARGEST,
    best_gamma,
    expected_tokens,
    operations,
    pass_cost,
    ridge_point,
    speedup,
    verification,
)
from reference_impls.speculative_decoding import speculative_decoding_leviathan as method

CHANCES = [0.61, 0.9, 0.35, 1.0, 0.72]
GRID = [(alpha, gamma) for alpha in (0.0, 0.1, 0.5, 0.8, 0.95, 1.0) for gamma in range(7)]


def by_enumeration(chances: list[float]) -> float:
    """Mean tokens over all outcomes of one coin a place: the guesses before the first no, and the target's token."""
    total = 0.0
    for coins in itertools.product((True, False), repeat=len(chances)):
        mass = math.prod(a if coin else 1 - a for a, coin in zip(chances, coins, strict=True))
        total += mass * ((*coins, False).index(False) + 1)
    return total


@pytest.mark.parametrize("gamma", range(len(CHANCES) + 1))
def test_tokens_by_place_are_those_of_all_outcomes(gamma):
    assert expected_tokens(CHANCES, gamma) == pytest.approx(by_enumeration(CHANCES[:gamma]), abs=1e-12)


@pytest.mark.parametrize(("alpha", "gamma"), GRID)
def test_tokens_of_one_chance_are_those_of_all_outcomes_and_of_the_method(alpha, gamma):
    assert expected_tokens(alpha, gamma) == pytest.approx(by_enumeration([alpha] * gamma), abs=1e-12)
    assert expected_tokens(alpha, gamma) == pytest.approx(method.expected_tokens(alpha, gamma), rel=1e-12)


@pytest.mark.parametrize(("alpha", "gamma"), GRID)
@pytest.mark.parametrize("c", [0.0, 0.05, 0.3, 1.2])
def test_with_free_checking_it_is_the_theorem(alpha, gamma, c):
    assert speedup(alpha, gamma, c) == pytest.approx(method.speedup(alpha, gamma, c), rel=1e-12)
    if gamma and alpha < 1:
        theorem = (1 - alpha ** (gamma + 1)) / ((1 - alpha) * (gamma * c + 1))
        assert speedup(alpha, gamma, c) == pytest.approx(theorem, rel=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.8, 0.95])
@pytest.mark.parametrize("c", [0.01, 0.1, 0.5, 1.0])
def test_the_best_draft_is_the_method_s_and_pays_where_the_paper_says(alpha, c):
    best = best_gamma(alpha, c)
    assert best == method.best_gamma(alpha, c)
    if alpha > c:  # corollary 3.9
        assert best > 0
        assert speedup(alpha, best, c) >= (1 + alpha) / (1 + c) - 1e-12
    else:
        assert best == 0


def test_no_drafter_is_plain_decoding():
    assert speedup(0.8, 0, 0.1) == expected_tokens([], 0) == operations(0.8, 0) == 1


def test_a_round_is_counted_second_by_second():
    """Three guesses of 0.1 s each, a check of 1.4 s where a single token takes 1 s: what a stopwatch would say."""
    seconds = 3 * 0.1 + 1.4
    assert speedup(CHANCES, 3, 0.1, verify_cost=1.4) == pytest.approx(by_enumeration(CHANCES[:3]) / seconds)


def test_the_best_draft_of_a_list_stays_within_it_and_follows_the_measured_cost():
    assert best_gamma([0.9, 0.9, 0.9], 0.0) == 3
    assert best_gamma([0.9, 0.0, 0.9], 0.0) == 1  # nothing gets past a place where nothing is kept
    assert best_gamma(0.9, 0.0) == LARGEST
    assert best_gamma(0.9, 0.0, largest=5) == 5
    cost = {1: 1.0, 2: 1.1, 3: 1.2, 4: 9.0}
    assert best_gamma([0.9, 0.9, 0.9], 0.0, cost.__getitem__) == 2


@pytest.mark.parametrize(("alpha", "gamma"), GRID)
def test_drafting_never_saves_arithmetic(alpha, gamma):
    assert operations(alpha, gamma) >= 1 - 1e-12
    expected = (gamma * 0.25 + gamma + 1) / by_enumeration([alpha] * gamma)
    assert operations(alpha, gamma, 0.25) == pytest.approx(expected, rel=1e-12)


def test_the_ridge_is_where_both_bills_are_equal():
    flops, bandwidth, size = 989e12, 3.35e12, 2.0
    ridge = ridge_point(flops, bandwidth, size)
    weights = 8e9
    assert 2 * weights * ridge / flops == pytest.approx(weights * size / bandwidth)
    assert round(ridge) == 295


@pytest.mark.parametrize("ridge", [1.0, 8.0, 295.0])
def test_a_pass_takes_the_larger_of_reading_and_computing(ridge):
    read, compute_a_token = 7.0, 7.0 / ridge  # seconds; at the ridge, both take equally long
    for batch, new in itertools.product((1, 3, 64, 512), (1, 2, 5, 17)):
        seconds = max(read, batch * new * compute_a_token)
        alone = max(read, compute_a_token)
        assert pass_cost(new, batch, ridge) == pytest.approx(seconds / alone)
        plain = max(read, batch * compute_a_token)
        assert verification(new, batch, ridge) == pytest.approx(seconds / plain)


def test_without_a_ridge_every_pass_takes_the_same():
    assert pass_cost(1000, 1000) == verification(1000, 1000) == 1


def test_a_full_batch_ends_drafting():
    gammas = [best_gamma(0.8, 0.1, lambda k, b=batch: verification(k, b, 295)) for batch in (1, 32, 64, 128, 256)]
    assert gammas == [6, 6, 3, 1, 0]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: expected_tokens(1.1, 2), "an acceptance is 1.1"),
        (lambda: expected_tokens(math.nan, 2), "an acceptance is nan"),
        (lambda: expected_tokens([0.5, -0.1], 1), "an acceptance is -0.1"),
        (lambda: expected_tokens(0.5, -1), "gamma is -1"),
        (lambda: expected_tokens([0.5], 2), "only 1 places"),
        (lambda: speedup(0.5, 2, -0.1), "the cost ratio is -0.1"),
        (lambda: speedup(0.5, 2, math.nan), "the cost ratio is nan"),
        (lambda: speedup(0.5, 2, 0.1, 0.0), "the cost of the verification is 0.0"),
        (lambda: operations(0.5, 2, -1), "the ratio of operations is -1"),
        (lambda: pass_cost(0), "0 tokens"),
        (lambda: pass_cost(1, 0), "0 sequences"),
        (lambda: pass_cost(1, 1, 0.5), "the ridge point is 0.5"),
        (lambda: ridge_point(0, 1), "must be positive"),
    ],
)
def test_what_cannot_be_gets_one_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()
