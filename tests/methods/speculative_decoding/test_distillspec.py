"""What is peculiar to DistillSpec: texts of three sources, and a loss that only the drafter feels."""

from __future__ import annotations

import copy
import importlib
import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from defaults import defaults_of

from reference_impls.core.distillation import Divergence, divergence
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding.distillspec import continuations, generate, loss, speedup
from reference_impls.testing.laws import autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import flat_model, language_model, table_model

MUTANTS = [
    ("target-cache-keeps-a-rejected-token", "target_cache.crop(len(tokens) - 1)", "target_cache.crop(len(tokens))"),
    ("draft-cache-keeps-a-rejected-token", "draft_cache.crop(len(tokens) - 1)", "draft_cache.crop(len(tokens))"),
    ("prompt-learnt-too", "taught = target(read)[..., prompt - 1 :, :]", "taught = target(read)[..., prompt - 2 :, :]"),
    ("laws-one-place-late", "drafter(read)[..., prompt - 1 :, :]", "drafter(tokens)[..., prompt:, :]"),
    ("temperature-of-the-drafter-alone", "divergence(taught / temperature,", "divergence(taught,"),
    ("first-token-fed-again", "new = sampler.draw(p)[:, None].tolist()", "new = [[text[-1]] for text in texts]"),
    ("speedup-without-the-drafters-cost", "tau / (c * gamma + 1)", "tau / (c + 1)"),
]  # fmt: skip

KINDS: tuple[Divergence, ...] = get_args(Divergence)
P, Q = [0.5, 0.3, 0.2], [0.2, 0.5, 0.3]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompt", [1, 3])
def test_the_loss_is_the_mean_over_the_tokens_after_the_prompt(kind: Divergence, prompt: int) -> None:
    target, drafter = flat_model(), language_model(seed=170, layers=1)
    tokens = torch.tensor([[0, 1, 2, 0, 1], [2, 2, 1, 0, 0]])
    terms = []
    for text in tokens.tolist():
        for place in range(prompt, len(text)):
            p, q = (model(text[:place])[-1] / 0.8 for model in (target, drafter))
            terms.append(float(divergence(p, q, kind, 0.3).detach()))
    found = loss(target, drafter, tokens, prompt=prompt, kind=kind, beta=0.3, temperature=0.8)
    assert float(found.detach()) == pytest.approx(sum(terms) / len(terms), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_one_step_moves_the_drafter_alone_and_the_right_way(kind: Divergence) -> None:
    target, drafter = flat_model(), language_model(seed=170, layers=1)
    before = copy.deepcopy(target.state_dict())
    tokens = torch.tensor([[0, 1, 2, 0, 1], [2, 2, 1, 0, 0]])
    first = loss(target, drafter, tokens, kind=kind)
    first.backward()
    assert all(weight.grad is None for weight in target.parameters())
    with torch.no_grad():
        for weight in drafter.parameters():
            weight.sub_(1e-3 * weight.grad)
    assert float(loss(target, drafter, tokens, kind=kind).detach()) < float(first.detach())
    assert all(torch.equal(before[key], value) for key, value in target.state_dict().items())


def test_continuations_have_the_law_of_their_writer() -> None:
    """What a table model writes is counted; each text goes on from its own prompt, and from its own last token."""
    model = table_model((P, Q, [0.1, 0.1, 0.8]))
    prompts = torch.tensor([[0, 1], [1, 2]]).repeat(3000, 1)
    texts = continuations(model, prompts, 2, Sampler(seed=1))
    assert texts.shape == (6000, 4)
    assert torch.equal(texts[:, :2], prompts)
    rows = torch.tensor([P, Q, [0.1, 0.1, 0.8]])
    for before, after in ((1, 2), (2, 3)):
        for token in {int(text[before]) for text in texts}:
            chosen = texts[texts[:, before] == token, after]
            share = torch.bincount(chosen, minlength=3) / len(chosen)
            assert torch.allclose(share, rows[token], atol=0.05)


def test_continuations_are_what_the_model_says_with_all_that_stands_before() -> None:
    model = language_model(11, seed=1001)
    prompts = torch.tensor([[5, 3, 8], [1, 1, 4]])
    texts = continuations(model, prompts, 6, Sampler(0)).tolist()
    for text in texts:
        assert [int(model(text[:place])[-1].argmax()) for place in range(3, 9)] == text[3:]


def test_texts_can_be_learnt_from_at_once() -> None:
    target, drafter = flat_model(), language_model(seed=170, layers=1)
    texts = continuations(drafter, torch.tensor([[0, 1]]), 3, Sampler())
    loss(target, drafter, texts, prompt=2).backward()
    assert drafter.embedding.grad is not None


def test_distillation_raises_acceptance_and_leaves_the_law_alone() -> None:
    target, drafter = flat_model(), language_model(seed=170, layers=1)
    optimiser = torch.optim.Adam(drafter.parameters(), lr=0.03)
    wanted, kept = autoregressive_law(target, [0, 1], 2), []
    for steps in (0, 60):
        for step in range(steps):
            texts = continuations(drafter, torch.tensor([[0, 1]] * 8), 3, Sampler(seed=step))
            optimiser.zero_grad()
            loss(target, drafter, texts, prompt=2, kind="total-variation").backward()
            optimiser.step()
        law = exact_law(lambda sampler: generate(target, [0, 1], 2, drafter=drafter, sampler=sampler, gamma=2))
        assert total_variation(law, wanted) < 1e-12
        runs = [generate(target, [0, 1], 6, drafter=drafter, sampler=Sampler(seed=seed)) for seed in range(60)]
        kept.append(sum(run.acceptance or 0 for run in runs) / len(runs))
    assert kept[1] > kept[0] + 0.1


def test_the_speedup_counts_the_drafters_passes() -> None:
    assert speedup(5.0, 4, 0.0) == 5
    assert speedup(3.0, 4, 0.125) == 2
    assert speedup(1.0, 1, 1.0) == 0.5


@pytest.mark.parametrize(
    ("tau", "gamma", "c"), [(0.9, 4, 0.1), (5.1, 4, 0.1), (2, 4, -0.1), (2, 4, math.inf), (1, 0, 0)]
)
def test_a_speedup_that_cannot_be_is_one_sentence(tau: float, gamma: int, c: float) -> None:
    with pytest.raises(ValueError, match="tau lies from 1"):
        speedup(tau, gamma, c)


def test_options_out_of_range_are_one_sentence() -> None:
    model, tokens = flat_model(), torch.tensor([[0, 1, 2]])
    for prompt in (0, 3):
        with pytest.raises(ValueError, match=f"prompt is {prompt}; of 3 tokens"):
            loss(model, model, tokens, prompt=prompt)
        with pytest.raises(ValueError, match="give token ids"):
            loss(model, model, tokens[0], prompt=prompt)
    with pytest.raises(ValueError, match="vocabularies of 3 and 11 tokens"):
        generate(model, [0], 3, drafter=language_model(11), sampler=Sampler())
    for temperature in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match="a law to learn needs one above 0"):
            loss(model, model, tokens, temperature=temperature)
    with pytest.raises(ValueError, match="length is 0"):
        continuations(model, tokens, 0, Sampler())


@pytest.mark.parametrize(("target_ends", "drafter_ends"), [(10, None), (None, 10), (10, 9), (9, 10)])
def test_a_draft_ends_where_the_positions_of_either_model_end(
    target_ends: int | None, drafter_ends: int | None
) -> None:
    target, drafter = (
        LanguageModel(replace(language_model().shape, positions=ends)) for ends in (target_ends, drafter_ends)
    )
    limit = min(ends for ends in (target_ends, drafter_ends) if ends) - 3
    run = generate(target, [1, 2, 1, 0], limit, drafter=drafter, sampler=Sampler(seed=2), gamma=4)
    length = 4
    for step in run.steps:
        assert length + len(step.drafted) <= (target_ends or 99)  # the target reads every guess
        assert length + len(step.drafted) - 1 <= (drafter_ends or 99)
        length += len(step.emitted)
    assert len(run.tokens) == limit


def test_defaults_are_the_documented_ones() -> None:
    assert defaults_of(importlib.import_module("reference_impls.speculative_decoding.distillspec")) == {
        "generate.gamma": 4,
        "loss.prompt": 1,
        "loss.kind": "forward-kl",
        "loss.beta": 0.5,
        "loss.temperature": 1.0,
    }
