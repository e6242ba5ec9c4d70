"""What is peculiar to speculative sampling as Chen et al. describe it: the rate of acceptance, filters, first pass."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from defaults import defaults_of

from reference_impls.core.generation import Generation
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding.speculative_sampling_chen import generate
from reference_impls.testing.laws import autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import flat_model, language_model, varied_model

MUTANTS = [
    ("draft-cache-never-rolled-back", "draft_cache.crop(len(tokens) - 1)", "pass"),
    ("work-for-nothing", "go_on = limit > 0", "go_on = True"),
    ("prompt-overwritten", "Generation(), list(prompt)", "Generation(), prompt"),
    ("draft-judged-by-another-law", "draft, q, p)", "draft, q[::-1], p)"),
    ("kept-guesses-lost", "emitted = [*draft[:kept], extra]", "emitted = [extra]"),
    ("everything-read-again", "target_cache.crop(len(tokens) - 1)", "target_cache.crop(0)"),
]

PROMPT = [0, 1]
FILTERS: list[dict[str, Any]] = [{"top_k": 2}, {"top_p": 0.6}]


def drafter_of() -> Any:
    return language_model(3, seed=170, layers=1)


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.5}, *FILTERS], ids=str)
@torch.no_grad()
def test_a_guess_is_kept_as_often_as_the_two_laws_overlap(settings: dict[str, Any]) -> None:
    """With probability alpha, the sum of min(p, q), both filtered alike."""
    target, drafter = flat_model(), drafter_of()

    def kept(sampler: Sampler) -> Generation:
        result = generate(target, PROMPT, 1, drafter=drafter, sampler=sampler, gamma=1)
        return Generation([result.steps[0].kept])

    p, q = (Sampler(**settings).probs(model(PROMPT)[-1]) for model in (target, drafter))
    assert exact_law(kept, **settings)[1,] == pytest.approx(float(torch.minimum(p, q).sum()))


@pytest.mark.parametrize("settings", FILTERS, ids=str)
def test_no_guess_and_no_token_lies_outside_the_filters(settings: dict[str, Any]) -> None:
    target, drafter = flat_model(), drafter_of()
    possible = set(Sampler(**settings).probs(drafter(PROMPT)[-1]).nonzero().flatten().tolist())

    def run(sampler: Sampler) -> Generation:
        result = generate(target, PROMPT, 2, drafter=drafter, sampler=sampler, gamma=2)
        assert result.steps[0].drafted[0] in possible
        return result

    law, wanted = exact_law(run, **settings), autoregressive_law(target, PROMPT, 2, **settings)
    assert law.keys() == wanted.keys()
    assert total_variation(law, wanted) < 1e-12


def test_every_pass_of_the_target_reads_what_is_new_and_the_draft() -> None:
    """The first one the prompt; all others the token that no draft foretold."""
    target, gamma, read = varied_model(), 3, []
    embed = target.embed

    def noted(tokens: Any) -> Any:
        read.append(len(tokens))
        return embed(tokens)

    target.embed = noted  # type: ignore[method-assign]
    prompt = [5, 3, 8, 1]
    result = generate(target, prompt, 12, drafter=language_model(11, layers=1), sampler=Sampler(1.0), gamma=gamma)
    del target.embed
    assert read == [len(prompt) + gamma] + [1 + gamma] * (len(result.steps) - 1)


def test_defaults_are_the_documented_ones() -> None:
    assert defaults_of(importlib.import_module("reference_impls.speculative_decoding.speculative_sampling_chen")) == {
        "generate.gamma": 4
    }
