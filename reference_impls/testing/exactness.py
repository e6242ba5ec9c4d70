"""Suites `exact-law` and `greedy-identity`: nothing about the text changes, and good guesses are really used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reference_impls.baselines.autoregressive import generate as autoregressive
from reference_impls.core.generation import Generation, Step
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.testing.checks import Check, Generate, Suite, later, require
from reference_impls.testing.laws import autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import PERIOD, Guess, Scene, flat_model, guessing, options, varied_model

TOLERANCE = 1e-6
PROMPTS = ([5, 3, 8, 1], [2], [7, 7, 0, 4, 9, 6, 2])


def law_of(generate: Generate, scene: Scene, limit: int, eos: int | None = None, **settings: Any) -> dict[Any, float]:
    """The exact law of what `generate` returns in this scene; `settings` are the sampler's."""
    own = options(generate, scene)

    def run(sampler: Sampler) -> Generation:
        return generate(scene.target, list(scene.prompt), limit, sampler=sampler, eos=eos, **own)

    return exact_law(run, **settings)


def _same_law(
    generate: Generate, vocab: int, guesses: int, limit: int, eos: int | None = None, **settings: Any
) -> None:
    scene = Scene(flat_model(vocab), [0, 1], guesses)
    found = law_of(generate, scene, limit, eos, **settings)
    wanted = autoregressive_law(scene.target, scene.prompt, limit, eos=eos, **settings)
    distance = total_variation(found, wanted)
    require(distance < TOLERANCE, f"the law differs from the target's by {distance:.2g} (total variation)")


def exact_law_checks(generate: Generate) -> Iterator[Check]:
    """The law of the whole sequence, in scenes that together reach every branch of a step, and of the step after it."""
    sizes: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
        "two-guesses": ((3, 2, 2), {}),
        "three-steps": ((3, 1, 3), {}),
        "longer-text": ((2, 2, 3), {}),
        "end-of-text": ((3, 2, 2), {"eos": 1}),
        "tempered-nucleus": ((3, 2, 2), {"temperature": 1.3, "top_p": 0.85}),
    }
    for name, ((vocab, guesses, limit), extra) in sizes.items():
        texts = f"texts of {limit} tokens from a vocabulary of {vocab}"
        condition = {"eos": ", cut at the end of the text", "top_p": " at temperature 1.3 with top-p 0.85"}
        tail = next((words for key, words in condition.items() if key in extra), "")
        sentence = f"With {guesses} guess{'es' * (guesses > 1)} a step, the law of {texts} is the target's{tail}."
        yield Check(name, sentence, later(_same_law, generate, vocab, guesses, limit, **extra))


def greedy(target: LanguageModel, prompt: list[int], limit: int, eos: int | None = None) -> list[int]:
    """What the target says at temperature 0."""
    return autoregressive(target, prompt, limit, sampler=Sampler(0), eos=eos).tokens


def possible(step: Step, start: int, guess: Guess) -> int:
    """How many guesses of a step whose first guess is for place `start` a drafter of this quality can have kept."""
    if step.parents:
        depths: list[int] = []
        for parent in step.parents:
            depths.append(1 if parent < 0 else depths[parent] + 1)
        reach = max(depths)
    else:
        reach = len(step.drafted)
    right = [guess == "perfect" or (start + i) % PERIOD != 0 for i in range(reach)]
    kept = right.index(False) if False in right else reach
    return min(kept, len(step.emitted))


def _identity(generate: Generate, guess: Guess) -> None:
    target, limit = varied_model(), 13
    for prompt in PROMPTS:
        wanted = greedy(target, prompt, limit)
        for guesses in (1, 3, 4):
            own = options(generate, Scene(target, prompt, guesses, guess))
            result = generate(target, list(prompt), limit, sampler=Sampler(0), **own)
            where = f"after prompt {prompt} with {guesses} guesses a step"
            require(result.tokens == wanted, f"{result.tokens} is not the greedy text {wanted} {where}")
            if guess != "random":
                _uses_guesses(result, len(prompt), guess, where)


def _uses_guesses(result: Generation, start: int, guess: Guess, where: str) -> None:
    require(any(step.drafted for step in result.steps), f"nothing was drafted {where}")
    for number, step in enumerate(result.steps, start=1):
        best = possible(step, start, guess)
        require(step.kept == best, f"step {number} kept {step.kept} guesses and not the possible {best} {where}")
        start += len(step.emitted)


def greedy_checks(generate: Generate) -> Iterator[Check]:
    """Greedy identity for guesses of every quality, and the best possible use of good ones."""
    yield Check(
        "random-guesses",
        "At temperature 0 the text is the target's, whatever is guessed.",
        later(_identity, generate, "random"),
    )
    if guessing(generate):
        yield Check(
            "noisy-guesses",
            f"With guesses wrong at every {PERIOD}rd place the text is the target's, and every other guess is kept "
            "that no wrong one precedes.",
            later(_identity, generate, "noisy"),
        )
        yield Check(
            "perfect-guesses",
            "With perfect guesses the text is the target's and every guess is kept: the best possible tokens per pass.",
            later(_identity, generate, "perfect"),
        )


EXACT_LAW = Suite("exact-law", exact_law_checks)
GREEDY_IDENTITY = Suite("greedy-identity", greedy_checks)
