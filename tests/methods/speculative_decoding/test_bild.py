"""What is peculiar to Big Little Decoder: two policies, the ends of their ranges, alignment, and published slips."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from defaults import defaults_of
from torch import Tensor, nn

from accelgen.measuring.counterexamples import bild_law
from reference_impls.baselines.autoregressive import generate as autoregressive
from reference_impls.core.cache import Cache
from reference_impls.core.generation import Generation
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding.bild import count_kept, generate, loss
from reference_impls.testing import SUITES
from reference_impls.testing.case import Scene
from reference_impls.testing.checks import Check
from reference_impls.testing.laws import autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import drafter, flat_model, language_model, varied_model

MUTANTS = [
    (
        "zero-threshold-becomes-the-default",
        "result, tokens = Generation(), list(prompt)",
        "result, tokens, rollback = Generation(), list(prompt), rollback or 5.0",
    ),
    (
        "only-the-first-violation-is-compared",
        "(guess == own[:-1]) | ((distance <= rollback) & (rollback > 0))",
        "(far := distance > rollback) & (far.cumsum(0) == 1) & (guess == own[:-1])\n    stays = stays.any() | ~far",
    ),
    ("rolled-back-although-the-target-agrees", "(guess == own[:-1]) | ", ""),
    ("distance-of-the-next-place", "-logits[:-1].double()", "-logits[1:].double()"),
    ("rollback-to-the-last-violation", "stays.cumprod(0).sum()", "stays.sum()"),
    ("unsure-token-kept", "            if sure:\n", "            if True:\n"),
    ("fallback-the-wrong-way-round", ".max()) < fallback", ".max()) > fallback"),
    ("confidence-of-the-drawn-law", "logits.double().softmax(-1).max()", "sampler.probs(logits).max()"),
    ("window-without-a-cap", "room(len(tokens), gamma, target", "room(len(tokens), 99, target"),
    ("large-model-keeps-what-was-rolled-back", "target_cache.crop(len(tokens) - 1)", "target_cache.crop(len(tokens))"),
    ("small-model-keeps-what-was-rolled-back", "draft_cache.crop(len(tokens) - 1)", "draft_cache.crop(len(tokens))"),
    ("unsure-pass-not-counted", "draft_passes=asked", "draft_passes=len(draft)"),
    ("large-model-does-not-continue", "[*draft[:count], extra]", "draft[:count] or [extra]"),
    ("aligned-on-another-place", "[:, start - 1 :]", "[:, : tokens.shape[1] - start]"),
    ("what-rounds-to-certainty-is-kept", " & (rollback > 0)", ""),
]

LIMIT = 20


def pair(guess: Any = "random") -> tuple[LanguageModel, LanguageModel]:
    """A target and its drafter."""
    target = varied_model()
    return target, drafter(Scene(target, [5, 3, 8, 1], 3, guess))


def run(fallback: float, rollback: float, guess: Any = "random", prompt: Sequence[int] = (5, 3, 8, 1)) -> Generation:
    target, drafter = pair(guess)
    own = {"drafter": drafter, "fallback": fallback, "rollback": rollback, "gamma": 4}
    return generate(target, prompt, LIMIT, sampler=Sampler(0), **own)  # type: ignore[arg-type]


# The ends of the ranges, where the text is known


def strict(
    target: LanguageModel,
    prompt: Sequence[int],
    limit: int,
    *,
    drafter: LanguageModel,
    gamma: int,
    sampler: Sampler,
    eos: int | None = None,
) -> Generation:
    """Everything is rolled back that is not the target's own choice."""
    own = {"drafter": drafter, "gamma": gamma, "fallback": 0.0, "rollback": 0.0}
    return generate(target, prompt, limit, sampler=sampler, eos=eos, **own)  # type: ignore[arg-type]


@pytest.mark.parametrize("check", list(SUITES["greedy-identity"].checks(strict)), ids=lambda check: check.name)
def test_without_tolerance_the_text_is_the_targets_and_no_right_guess_is_lost(check: Check) -> None:
    check.run()


@pytest.mark.parametrize(
    ("vocab", "gamma", "limit", "fallback", "rollback"),
    [(3, 1, 2, 0.0, 0.0), (2, 2, 2, 0.55, 0.0), (2, 1, 3, 0.0, 0.0), (3, 1, 2, 1.01, 5.0), (2, 2, 3, 1.01, 5.0)],
)
def test_at_the_strict_ends_the_law_is_the_targets(
    vocab: int, gamma: int, limit: int, fallback: float, rollback: float
) -> None:
    law = bild_law(vocab, gamma, limit, fallback, rollback)
    assert total_variation(law, autoregressive_law(flat_model(vocab), [0, 1], limit)) < 1e-9


def test_in_between_the_law_is_not_the_targets_and_published_code_cannot_be_strict() -> None:
    """A threshold of 0 becomes the default of 5 there, and with it the law is that of this last row."""
    wanted = autoregressive_law(flat_model(3), [0, 1], 2)
    strict, middle, default = (total_variation(bild_law(3, 1, 2, 0.0, rollback), wanted) for rollback in (0, 1.2, 5))
    assert strict < 1e-9
    assert 0.05 < middle < default
    assert default == pytest.approx(0.51, abs=0.01)


@torch.no_grad()
def test_with_full_trust_the_text_is_the_drafters_but_for_every_last_token_of_a_window() -> None:
    target, drafter = pair()
    text = [5, 3, 8, 1]
    for step in run(0.0, math.inf).steps[:-1]:
        own = autoregressive(drafter, text, 4, sampler=Sampler(0)).tokens
        assert step.emitted == [*own, int(target([*text, *own])[-1].argmax())]
        text += step.emitted


def test_a_fallback_above_1_drafts_nothing() -> None:
    found = run(1.01, 5.0)
    assert found.tokens == autoregressive(pair()[0], [5, 3, 8, 1], LIMIT, sampler=Sampler(0)).tokens
    assert found.passes == found.draft_passes == LIMIT
    assert not any(step.drafted for step in found.steps)


# The two policies


@torch.no_grad()
@pytest.mark.parametrize(("fallback", "rollback"), [(0.2, 2.5), (0.2, 3.0), (0.25, 2.5)])
def test_every_window_ends_and_is_cut_as_the_policies_say(fallback: float, rollback: float) -> None:
    target, drafter = pair()
    text, seen = [5, 3, 8, 1], set[str]()
    for step in run(fallback, rollback).steps[:-1]:
        draft, n = step.drafted, len(step.drafted)
        q = drafter([*text, *draft])[len(text) - 1 :].softmax(-1)  # [n + 1, vocab]
        assert draft == q[:-1].argmax(-1).tolist()
        assert (q[:-1].amax(-1) >= fallback).all()
        assert n == 4 or q[-1].max() < fallback
        assert step.draft_passes == n + (n < 4)
        log_p = target([*text, *draft])[len(text) - 1 :].log_softmax(-1)
        own = log_p.argmax(-1).tolist()
        wrong = [-float(log_p[i, token]) > rollback and token != own[i] for i, token in enumerate(draft)]
        cut = wrong.index(True) if any(wrong) else n
        assert (step.kept, step.emitted) == (cut, [*draft[:cut], own[cut]])
        seen |= {"rolled back" if cut < n else "capped" if n == 4 else "fell back"}
        text += step.emitted
    assert len(seen) > 1


def test_the_first_violation_that_the_target_would_not_write_itself_counts() -> None:
    """Published code looks at the first token above the threshold alone, and here would keep both."""
    p = torch.tensor([[0.4, 0.35, 0.25], [0.9, 0.05, 0.05], [0.2, 0.3, 0.5]]).log()
    own = p.argmax(-1)
    assert own.tolist() == [0, 0, 2]
    assert int(count_kept([0, 1], own, p, rollback=0.5)) == 1  # -log 0.4 = 0.92, but the target's own
    assert int(count_kept([0, 1], own, p, rollback=3.1)) == 2  # -log 0.05 = 3.0
    assert int(count_kept([1, 0], own, p, rollback=0.5)) == 0
    assert int(count_kept([2, 1], own, p, rollback=1.4)) == 1
    assert int(count_kept([], own[:1], p[:1], rollback=0.5)) == 0


def test_thresholds_look_at_untempered_laws() -> None:
    """So the same confidence hands over at every temperature; at temperature 0 the tempered one would always be 1."""
    target, drafter = pair()
    windows = []
    for temperature in (0.0, 1e-3):
        own = {"drafter": drafter, "fallback": 0.2, "rollback": 3.0, "gamma": 4}
        found = generate(target, [5, 3, 8, 1], LIMIT, sampler=Sampler(temperature), **own)  # type: ignore[arg-type]
        windows.append([step.drafted for step in found.steps])
    assert windows[0] == windows[1]
    assert any(len(window) < 4 for window in windows[0])


def test_quality_rises_and_speed_falls_as_the_thresholds_tighten() -> None:
    target = varied_model()

    def figures(fallback: float, rollback: float) -> tuple[float, int]:
        alike, passes = 0.0, 0
        for first in range(6):
            found = run(fallback, rollback, prompt=[first])
            wanted = autoregressive(target, [first], LIMIT, sampler=Sampler(0)).tokens
            alike += sum(a == b for a, b in zip(found.tokens, wanted, strict=True)) / LIMIT / 6
            passes += found.passes
        return alike, passes

    for course in (
        [figures(0.0, rollback) for rollback in (5.0, 2.2, 0.0)],
        [figures(fallback, 5.0) for fallback in (0.0, 0.35, 1.01)],
    ):
        alike, passes = zip(*course, strict=True)
        assert alike[0] < alike[1] < alike[2] == pytest.approx(1)
        assert passes[0] < passes[1]
        assert passes[0] < passes[2]


# Alignment


def test_the_loss_is_on_the_targets_text_alone() -> None:
    drafter, tokens = varied_model(), torch.tensor([[5, 3, 8, 1, 4, 2], [1, 1, 0, 2, 7, 7]])
    with torch.no_grad():
        rows = [F.cross_entropy(drafter(text[:-1])[2:], text[3:]) for text in tokens]
        assert loss(drafter, tokens, start=3).item() == pytest.approx(float(sum(rows)) / 2, rel=1e-6)


def test_an_aligned_drafter_is_rolled_back_less() -> None:
    target, drafter = pair()
    texts = [[first, *autoregressive(target, [first], LIMIT, sampler=Sampler(0)).tokens] for first in range(11)]
    optimiser = torch.optim.Adam(drafter.parameters(), lr=0.02)

    def kept() -> float:
        own = {"drafter": drafter, "fallback": 0.0, "rollback": 1.5}
        runs = [generate(target, [t], LIMIT, sampler=Sampler(0), **own) for t in range(6)]  # type: ignore[arg-type]
        return sum(found.acceptance or 0.0 for found in runs) / 6

    before = kept()
    for _ in range(25):
        optimiser.zero_grad()
        loss(drafter, torch.tensor(texts), start=1).backward()
        optimiser.step()
    assert kept() > before + 0.2


@pytest.mark.parametrize("wrong", [{"fallback": -0.1}, {"rollback": -1.0}, {"rollback": math.nan}])
def test_a_threshold_that_means_nothing_is_one_sentence(wrong: dict[str, Any]) -> None:
    target, drafter = pair()
    with pytest.raises(ValueError, match=r"must be (0 or more|a number)"):
        generate(target, [0], 3, drafter=drafter, sampler=Sampler(0), **wrong)


class Fixed(nn.Module):
    """A model whose next token never depends on the text."""

    def __init__(self, logits: Sequence[float]) -> None:
        super().__init__()
        self.row, self.shape = torch.tensor(logits), language_model(len(logits)).shape
        self.layers = language_model(len(logits))

    def new_cache(self) -> Cache:
        return self.layers.new_cache()

    def forward(self, tokens: Sequence[int], cache: Cache, *, last: int) -> Tensor:
        self.layers(tokens, cache)
        return self.row.repeat(last, 1)


def test_with_rollback_0_the_law_is_the_targets_where_the_untempered_law_rounds_to_certainty() -> None:
    """The drafter is certain of token 0, and softmax(40, 0) is 1 in single precision; at temperature 10 it is .982."""
    target, drafter = Fixed([40.0, 0.0]), Fixed([90.0, 0.0])
    own = {"drafter": drafter, "fallback": 0.0, "rollback": 0.0, "gamma": 1}
    law = exact_law(lambda s: generate(target, [0], 2, sampler=s, **own), temperature=10.0)  # type: ignore[arg-type]
    p = 1 / (1 + math.exp(-4))
    wanted = {(a, b): (p, 1 - p)[a] * (p, 1 - p)[b] for a in range(2) for b in range(2)}
    assert total_variation(law, wanted) < 1e-6


@pytest.mark.parametrize(("rollback", "kept"), [(0.0, 0), (1e9, 0), (math.inf, 1)])
def test_only_an_infinite_rollback_keeps_what_is_impossible_to_the_target(rollback: float, kept: int) -> None:
    logits = torch.tensor([[-math.inf, 0.0], [-math.inf, 0.0]])
    assert int(count_kept([0], torch.tensor([1, 1]), logits, rollback)) == kept


def test_a_broken_drafter_is_named() -> None:
    own = {"drafter": Fixed([math.nan, 0.0]), "gamma": 2}
    with pytest.raises(ValueError, match="the drafter's logits are not finite"):
        generate(Fixed([1.0, 0.0]), [0], 3, sampler=Sampler(), **own)  # type: ignore[arg-type]


def test_defaults_are_the_documented_ones() -> None:
    assert defaults_of(importlib.import_module("reference_impls.speculative_decoding.bild")) == {
        "generate.fallback": 0.6,
        "generate.rollback": 5.0,
        "generate.gamma": 10,
    }
