"""Exact laws: the enumeration itself on worked examples, the models it is used on, and every exact method."""

from itertools import combinations, product

import pytest
import torch

from reference_impls.baselines.autoregressive import generate as autoregressive
from reference_impls.core.generation import Generation
from reference_impls.speculative_decoding import blockwise_parallel_decoding
from reference_impls.speculative_decoding import speculative_decoding_leviathan as leviathan
from reference_impls.testing import (
    SUITES,
    Scene,
    autoregressive_law,
    exact_law,
    flat_model,
    options,
    total_variation,
)
from reference_impls.testing.checks import Subject
from reference_impls.testing.exactness import law_of

COIN = torch.tensor([0.25, 0.75], dtype=torch.float64)


@pytest.mark.suite("exact-law")
def test_exact_law(check):
    check.run()


@pytest.mark.parametrize(
    "check", list(SUITES["exact-law"].checks(blockwise_parallel_decoding.generate)), ids=lambda c: c.name
)
def test_blockwise_parallel_decoding_keeps_the_law_when_it_samples(check):
    """Its taxonomy entry promises the greedy text; its page promises this as well."""
    check.run()


def test_the_enumeration_follows_every_outcome_of_every_element():
    def run(sampler):
        first = sampler.draw(COIN)
        both = sampler.draw(COIN.expand(2, 2))
        yes = sampler.accept(torch.tensor([0.5, 1.5, 0.0]))
        return Generation([int(first), *both.tolist(), *yes.int().tolist()])

    law = exact_law(run)
    assert len(law) == 16  # three coins, one open question, and two whose answers are certain
    assert sum(law.values()) == pytest.approx(1)
    assert law[1, 0, 1, 1, 1, 0] == pytest.approx(0.75 * 0.25 * 0.75 * 0.5)


def test_the_enumeration_finds_the_law_of_the_textbook_loop():
    target = flat_model()
    for settings in ({}, {"temperature": 0.5}, {"top_k": 2}, {"top_p": 0.6}, {"temperature": 0.0}):
        law = exact_law(lambda sampler: autoregressive(target, [0, 1], 3, sampler=sampler, eos=2), **settings)
        assert total_variation(law, autoregressive_law(target, [0, 1], 3, eos=2, **settings)) < 1e-12


def test_total_variation():
    assert total_variation({1: 0.5, 2: 0.5}, {1: 0.5, 2: 0.5}) == 0
    assert total_variation({1: 1.0}, {2: 1.0}) == 1
    assert total_variation({1: 0.5, 2: 0.5}, {1: 0.25, 2: 0.25, 3: 0.5}) == 0.5


@pytest.mark.parametrize("vocab", [2, 3])
def test_the_laws_of_the_tiny_models_are_flat_and_clearly_different(vocab):
    """Otherwise a wrong method could pass: its mistake would hide in what is certain, or in what is the same."""
    scene = Scene(flat_model(vocab), [0, 1])
    drafter = options(leviathan.generate, scene)["drafter"]
    texts = [[0, 1, *text] for n in range(3) for text in product(range(vocab), repeat=n)]
    p, q = (torch.stack([model(text)[-1].softmax(-1) for text in texts]) for model in (scene.target, drafter))
    distances = (p - q).abs().sum(-1) / 2
    assert distances.mean() > 0.3
    assert distances.min() > 0.1
    assert min(p.min(), q.min()) > 0.04
    for law in (p, q):  # the context matters, and not only its last token
        same_end = [row for row, text in zip(law, texts, strict=True) if text[-1] == 1]
        assert all((one - other).abs().sum() / 2 > 0.05 for one, other in combinations(same_end, 2))
        assert (law.max(0).values - law.min(0).values).max() > 0.2


def test_lenience_is_lossy_and_never_more_than_it_says():
    scene, lenience = Scene(flat_model(), [0, 1], guesses=1), 0.5
    own = options(leviathan.generate, scene, lenience=lenience)
    law = exact_law(lambda sampler: leviathan.generate(scene.target, [0, 1], 1, sampler=sampler, **own))
    wanted = autoregressive_law(scene.target, [0, 1], 1)
    assert total_variation(law, wanted) > 0.01
    assert all(law[text] <= wanted[text] / lenience + 1e-12 for text in law)
    assert total_variation(law_of(Subject(leviathan.generate), scene, 1), wanted) < 1e-12  # its default is exact
