"""What is peculiar to speculative contrastive decoding: its law, the mask, and a drafter that is asked once more."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from defaults import defaults_of
from torch import Tensor

from reference_impls.baselines.autoregressive import generate as autoregressive
from reference_impls.core.generation import Generation, Step
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding import speculative_sampling_chen
from reference_impls.speculative_decoding.speculative_contrastive_decoding import contrast, generate
from reference_impls.testing import SUITES
from reference_impls.testing.case import Scene
from reference_impls.testing.checks import Check
from reference_impls.testing.exactness import PAIRS
from reference_impls.testing.laws import Law, autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import drafter, flat_model, language_model, table_model, varied_model

MUTANTS = [
    ("residual-of-the-expert", "residual(c[kept], q[kept])", "residual(sampler.probs(expert[kept]), q[kept])"),
    ("token-drawn-again-from-the-whole-law", "law = residual(c[kept], q[kept])", "law = c[kept]"),
    (
        "judged-by-the-experts-law",
        "accepted(sampler, draft, q, c)",
        "accepted(sampler, draft, q, sampler.probs(expert)[:-1])",
    ),
    ("judged-against-the-untempered-draft", "sampler.probs(amateur)\n", "amateur.softmax(-1)\n"),
    (
        "contrast-of-tempered-laws",
        "contrast(expert[:-1], amateur, alpha",
        "contrast(expert[:-1], sampler.probs(amateur).log(), alpha",
    ),
    (
        "last-place-without-contrast",
        "sampler.probs(contrast(expert[-1], guessed[-1][0], alpha, beta))",
        "sampler.probs(expert[-1])",
    ),
    (
        "last-place-without-mask",
        "contrast(expert[-1], guessed[-1][0], alpha, beta)",
        "contrast(expert[-1], guessed[-1][0], 0.0, beta)",
    ),
    (
        "last-place-with-the-contrast-before",
        "guessed.append(drafter([*tokens, *draft][len(draft_cache) :], draft_cache, last=1))\n            law",
        "law",
    ),
    ("last-pass-always-counted", "draft_passes=len(guessed)", "draft_passes=len(draft) + 1"),
    ("last-pass-not-counted", "draft_passes=len(guessed)", "draft_passes=len(draft)"),
    ("mask-by-the-amateur", "log_p >= log_p.amax(-1", "log_q >= log_q.amax(-1"),
    ("mask-by-a-fixed-probability", "log_p.amax(-1, keepdim=True) + math.log(alpha)", "math.log(alpha)"),
    ("mask-by-the-sum-of-all-places", "log_p.amax(-1, keepdim=True)", "log_p.amax()"),
    ("plausible-tokens-alone-removed", "scores.where(plausible", "scores.where(~plausible"),
    ("contrast-of-raw-logits", "(logits.log_softmax(-1, wide(logits)) for", "(logits.to(wide(logits)) for"),
    ("contrast-of-probabilities", "(logits.log_softmax(-1, wide(logits)) for", "(logits.softmax(-1, wide(logits)) for"),
    ("contrast-in-the-models-type", "log_softmax(-1, wide(logits))", "log_softmax(-1)"),
    ("expert-weakened-too", "(1 + beta) * log_p", "log_p"),
    ("towards-the-amateur", "- beta * log_q", "+ beta * log_q"),
    ("impossible-for-the-amateur-is-infinite", "log_q.clamp(min=least)", "log_q"),
    ("target-keeps-what-was-rejected", "target_cache.crop(len(tokens) - 1)", "target_cache.crop(len(tokens))"),
    ("drafter-keeps-what-was-rejected", "draft_cache.crop(len(tokens) - 1)", "draft_cache.crop(len(tokens))"),
    ("drafter-read-beyond-its-positions", 'check_length(drafter, prompt, limit, whose="drafter")', "pass"),
    ("draft-beyond-the-drafters-positions", "for model in (target, drafter))", "for model in (target, target))"),
]

PROMPT = [5, 3, 8, 1]
STRENGTHS = [
    (0.0, 0.0),
    (0.0, 0.7),
    (0.1, 0.0),
    (0.1, 0.5),
    (0.55, 0.5),
    (0.1, 2.0),
]  # the masks leave one to all tokens


class Contrastive:
    """The plain contrastive model: each call reads the whole text with both, in probabilities and without a cache."""

    def __init__(self, target: LanguageModel, drafter: LanguageModel, alpha: float, beta: float) -> None:
        self.target, self.drafter, self.alpha, self.beta = target, drafter, alpha, beta

    def __call__(self, tokens: Sequence[int]) -> Tensor:
        """The logarithm of the contrastive weights [n, vocab]."""
        rows = []
        p, q = (model(tokens).softmax(-1).tolist() for model in (self.target, self.drafter))
        for expert, amateur in zip(p, q, strict=True):
            weights = [
                x ** (1 + self.beta) / y**self.beta if x >= self.alpha * max(expert) else 0.0
                for x, y in zip(expert, amateur, strict=True)
            ]
            rows.append([w / sum(weights) for w in weights])
        return torch.tensor(rows, dtype=torch.float64).log()


Strength = tuple[float, float]  # alpha and beta


def contrastive_law(target: LanguageModel, drafter: LanguageModel, limit: int, strength: Strength, **more: Any) -> Law:
    """The law of plain contrastive sampling; `more` are the sampler's settings and `eos`."""
    model = cast(LanguageModel, Contrastive(target, drafter, *strength))
    return autoregressive_law(model, [0, 1], limit, **more)


def amateur_for(vocab: int) -> LanguageModel:
    return language_model(vocab, seed=171, layers=1)


def law_of(
    target: LanguageModel, drafter: LanguageModel, sizes: tuple[int, int], strength: Strength, **more: Any
) -> Law:
    """The law of the method with `sizes` gamma and limit, every outcome of every choice followed."""
    (gamma, limit), (alpha, beta) = sizes, strength
    own: dict[str, Any] = {
        "drafter": drafter,
        "gamma": gamma,
        "alpha": alpha,
        "beta": beta,
        "eos": more.pop("eos", None),
    }
    return exact_law(lambda s: generate(target, [0, 1], limit, sampler=s, **own), **more)


# The law


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize(("vocab", "sizes"), [(3, (2, 2)), (3, (1, 3)), (2, (2, 3))])
def test_the_law_of_the_text_is_that_of_plain_contrastive_sampling(
    vocab: int, sizes: tuple[int, int], strength: Strength
) -> None:
    target, drafter = flat_model(vocab), amateur_for(vocab)
    found, (alpha, beta) = law_of(target, drafter, sizes, strength), strength
    assert total_variation(found, contrastive_law(target, drafter, sizes[1], strength)) < 1e-12
    if beta or (alpha and vocab == 3):  # a mask of 0.1 leaves both of two tokens
        assert total_variation(found, autoregressive_law(target, [0, 1], sizes[1])) > 0.02


@pytest.mark.parametrize("more", [{"temperature": 1.3, "top_p": 0.85}, {"temperature": 0.6, "top_k": 2}, {"eos": 2}])
def test_a_temper_a_nucleus_and_an_end_act_on_the_contrastive_law(more: dict[str, Any]) -> None:
    target, drafter = flat_model(3), amateur_for(3)
    wanted = contrastive_law(target, drafter, 2, (0.1, 0.5), **more)
    assert total_variation(law_of(target, drafter, (2, 2), (0.1, 0.5), **more), wanted) < 1e-12
    assert total_variation(wanted, contrastive_law(target, drafter, 2, (0.1, 0.5))) > 0.05


@pytest.mark.parametrize("name", ["nearly-equal", "certain-target"])
def test_the_law_where_the_models_nearly_agree_and_where_the_expert_is_certain(name: str) -> None:
    _, p, q = PAIRS[name]
    target, drafter, strength = table_model(p), table_model(q), (0.1, 0.5)
    found = law_of(target, drafter, (2, 2), strength)
    assert total_variation(found, contrastive_law(target, drafter, 2, strength)) < 1e-9


@pytest.mark.parametrize("beta", [0.0, 0.5, 5.0])
def test_what_the_amateur_holds_for_impossible_is_finite_and_wins(beta: float) -> None:
    expert, amateur = torch.tensor([[0.5, 0.3, 0.2]]).log(), torch.tensor([[1.0, 0.0, 0.0]]).log()
    scores = contrast(expert, amateur, 0.25, beta)
    law = scores.softmax(-1)[0].tolist()
    assert scores[0].isfinite().all()
    wanted = [0.5, 0.3, 0.2] if beta == 0 else [0, 0.3 ** (1 + beta), 0.2 ** (1 + beta)]
    assert law == pytest.approx([w / sum(wanted) for w in wanted], abs=1e-5)


def plain(
    target: LanguageModel,
    prompt: Sequence[int],
    limit: int,
    *,
    drafter: LanguageModel,
    gamma: int,
    sampler: Sampler,
    eos: int | None = None,
) -> Generation:
    """Neither mask nor contrast."""
    return generate(target, prompt, limit, drafter=drafter, gamma=gamma, sampler=sampler, alpha=0.0, beta=0.0, eos=eos)


def suite_checks() -> Iterator[Check]:
    for suite in ("exact-law", "greedy-identity"):
        yield from SUITES[suite].checks(plain)


@pytest.mark.parametrize("check", list(suite_checks()), ids=lambda check: check.name)
def test_without_mask_and_contrast_it_keeps_all_promises_of_speculative_decoding(check: Check) -> None:
    check.run()


def test_without_mask_and_contrast_each_step_is_one_of_speculative_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    """The joint law of what was kept and what was written in the first step, not that of the text alone."""

    def first(self: Generation, step: Step, _limit: int, _eos: Any = None) -> bool:
        self.steps.append(step)
        return False

    monkeypatch.setattr(Generation, "add", first)
    target, drafter = flat_model(3), amateur_for(3)

    def with_kept(result: Generation) -> Generation:
        return Generation([result.steps[0].kept, *result.steps[0].emitted])

    own = {"drafter": drafter, "gamma": 2}
    found = exact_law(lambda s: with_kept(plain(target, [0, 1], 3, sampler=s, **own)))  # type: ignore[arg-type]
    wanted = exact_law(
        lambda s: with_kept(speculative_sampling_chen.generate(target, [0, 1], 3, sampler=s, **own))  # type: ignore[arg-type]
    )
    assert total_variation(found, wanted) < 1e-12


# Greedy


def pair(guess: Any = "random", prompt: Sequence[int] = PROMPT) -> tuple[LanguageModel, LanguageModel]:
    target = varied_model()
    return target, drafter(Scene(target, prompt, 3, guess))


@pytest.mark.parametrize("guess", ["random", "noisy", "perfect"])
@pytest.mark.parametrize(("alpha", "beta"), [(0.1, 0.5), (0.0, 2.0), (0.6, 1.0)])
@torch.inference_mode()
def test_at_temperature_0_the_text_is_that_of_greedy_contrastive_decoding(
    guess: Any, alpha: float, beta: float
) -> None:
    target, drafter = pair(guess)
    model, text = Contrastive(target, drafter, alpha, beta), list(PROMPT)
    if guess == "random":  # the others know their place in the text, and read it from the cache
        for _ in range(20):
            text.append(int(model(text)[-1].argmax()))
    else:
        cache, own = drafter.new_cache(), target.new_cache()
        for _ in range(20):
            scores = contrast(target(text[len(own) :], own)[-1], drafter(text[len(cache) :], cache)[-1], alpha, beta)
            text.append(int(scores.argmax()))
    for gamma in (1, 3, 5):
        own_options = {"drafter": drafter, "gamma": gamma, "alpha": alpha, "beta": beta}
        found = generate(target, PROMPT, 20, sampler=Sampler(0), **own_options)  # type: ignore[arg-type]
        assert found.tokens == text[4:]


def test_the_mask_of_1_leaves_the_experts_best_token() -> None:
    target, drafter = pair()
    own = {"drafter": drafter, "alpha": 1.0, "beta": 3.0}
    wanted = autoregressive(target, PROMPT, 20, sampler=Sampler(0)).tokens
    for temperature in (0.0, 2.0):
        found = generate(target, PROMPT, 20, sampler=Sampler(temperature), **own)  # type: ignore[arg-type]
        assert found.tokens == wanted


def test_an_amateur_that_is_the_expert_is_no_contrast_and_all_its_greedy_guesses_stay() -> None:
    target = varied_model()
    found = generate(target, PROMPT, 20, drafter=target, sampler=Sampler(0), gamma=4, alpha=0.1, beta=2.0)
    assert found.tokens == autoregressive(target, PROMPT, 20, sampler=Sampler(0)).tokens
    assert [step.kept for step in found.steps] == [4] * 4
    assert [step.draft_passes for step in found.steps] == [5] * 4


# Mask and contrast


def test_the_scores_of_a_place_worked_out_by_hand() -> None:
    expert, amateur = torch.tensor([0.4, 0.36, 0.2, 0.04]), torch.tensor([0.64, 0.09, 0.25, 0.02])
    weights = contrast(expert.log() + 3, amateur.log() - 7, 0.2, 0.5).exp()  # logits: a constant says nothing
    wanted = [0.4**1.5 / 0.8, 0.36**1.5 / 0.3, 0.2**1.5 / 0.5, 0]  # 0.04 is less than a fifth of 0.4
    assert weights.tolist() == pytest.approx(wanted, rel=1e-5)
    assert contrast(expert.log(), amateur.log(), 0.0, 0.5).exp()[3].item() == pytest.approx(0.04**1.5 / 0.02**0.5)


def test_each_place_has_a_mask_of_its_own_relative_to_the_experts_best_token() -> None:
    expert = torch.tensor([[0.9, 0.06, 0.04], [0.35, 0.34, 0.31]]).log()
    amateur = torch.tensor([[0.01, 0.01, 0.98], [0.98, 0.01, 0.01]]).log()
    kept = contrast(expert, amateur, 0.5, 0.1).isfinite()
    assert kept.tolist() == [[True, False, False], [True, True, True]]
    assert contrast(expert, amateur, 0.05, 0.1).isfinite().tolist()[0] == [True, True, False]
    assert contrast(expert, amateur, 1.0, 0.1).isfinite().sum(-1).tolist() == [1, 1]


def test_logits_of_a_narrow_type_are_contrasted_in_a_wide_one() -> None:
    expert, amateur = torch.tensor([4.1, 3.7, -9.0]).bfloat16(), torch.tensor([5.0, 1.3, 0.2]).bfloat16()
    found = contrast(expert, amateur, 0.1, 0.5)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, contrast(expert.double(), amateur.double(), 0.1, 0.5).float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("option", [{"alpha": -0.1}, {"alpha": 1.1}, {"beta": -0.1}, {"beta": math.inf}])
def test_a_mask_or_a_contrast_that_cannot_be_is_one_sentence(option: dict[str, float]) -> None:
    (name, value), own = *option.items(), {"alpha": 0.1, "beta": 0.5} | option
    with pytest.raises(ValueError, match=f"^{name} is {value}; "):
        contrast(torch.zeros(3), torch.zeros(3), **own)
    target, drafter = pair()
    with pytest.raises(ValueError, match=f"^{name} is {value}; "):
        generate(target, PROMPT, 3, drafter=drafter, sampler=Sampler(0), **own)


# Passes and positions


@pytest.mark.parametrize(("temperature", "guess", "alpha"), [(0.0, "noisy", 1.0), (1.0, "random", 0.0)])
def test_the_drafter_is_asked_once_more_where_all_its_guesses_stay_and_nowhere_else(
    temperature: float, guess: Any, alpha: float
) -> None:
    prompt, seen = [*PROMPT, 0], set[bool]()
    target, drafter = pair(guess, prompt)
    for seed in range(3):
        own = {"drafter": drafter, "gamma": 2, "alpha": alpha, "beta": 0.2}
        found = generate(target, prompt, 20, sampler=Sampler(temperature, seed=seed), **own)  # type: ignore[arg-type]
        for step in found.steps[:-1]:  # the last one may be cut
            assert step.draft_passes == 2 + (step.kept == 2)
            seen.add(step.kept == 2)
    assert seen == {True, False}


def limited(model: LanguageModel, positions: int) -> LanguageModel:
    """The model, and every place from `positions` on is one that it does not have."""

    class Limited(LanguageModel):
        def forward(self, tokens: Any, cache: Any = None, **more: Any) -> Tensor:
            past = 0 if cache is None else len(cache)
            assert past + len(tokens) <= positions, "read beyond the last position"
            return super().forward(tokens, cache, **more)

    found = Limited(model.shape).double()
    found.load_state_dict(model.state_dict())
    found.shape = replace(model.shape, positions=positions)
    return found


@pytest.mark.parametrize(("of_target", "of_drafter"), [(13, 99), (99, 13), (13, 13)])
def test_where_positions_end_fewer_are_drafted_and_the_text_is_the_same(of_target: int, of_drafter: int) -> None:
    target, drafter = varied_model(), varied_model()
    own = {"gamma": 3, "sampler": Sampler(0)}
    wanted = generate(target, PROMPT, 10, drafter=drafter, **own).tokens  # type: ignore[arg-type]
    target, drafter = limited(target, of_target), limited(drafter, of_drafter)
    found = generate(target, PROMPT, 10, drafter=drafter, **own)  # type: ignore[arg-type]
    assert found.tokens == wanted
    assert [len(step.drafted) for step in found.steps] == [3, 3, 1]


@pytest.mark.parametrize("whose", ["target", "drafter"])
def test_a_text_that_one_of_the_models_cannot_read_to_its_end_is_refused(whose: str) -> None:
    models = {"target": varied_model(), "drafter": varied_model()}
    models[whose] = limited(models[whose], 12)
    said = rf"^the {whose} has 12 positions, and 4 tokens of prompt with 10 more do not fit"
    with pytest.raises(ValueError, match=said):
        generate(prompt=PROMPT, limit=10, sampler=Sampler(0), **models)


def test_a_broken_drafter_is_named() -> None:
    target, drafter = pair()
    with torch.no_grad():
        drafter.embedding.fill_(torch.nan)
    with pytest.raises(ValueError, match="the drafter's logits are not finite"):
        generate(target, PROMPT, 3, drafter=drafter, sampler=Sampler(0))


def test_defaults_are_the_documented_ones() -> None:
    module = importlib.import_module("reference_impls.speculative_decoding.speculative_contrastive_decoding")
    assert defaults_of(module) == {"generate.gamma": 4, "generate.alpha": 0.1, "generate.beta": 0.5}
