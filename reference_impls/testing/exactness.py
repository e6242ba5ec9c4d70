"""Suites `exact-law` and `greedy-identity`: nothing about the text changes, and good guesses are really used."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from reference_impls.baselines.autoregressive import generate as autoregressive
from reference_impls.core.generation import Ends, Generation
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.testing.case import Guess, Scene
from reference_impls.testing.checks import Check, Subject, Suite, later, require, trace
from reference_impls.testing.laws import Law, autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import PERIOD, flat_model, table_model, varied_model

TOLERANCE = 1e-6
PROMPTS = ([5, 3, 8, 1], [2], [7, 7, 0, 4, 9, 6, 2])
LIMIT = 13
FAR = 24  # tokens that a draft may reach beyond the limit

# Rows are laws of the next token after each token: the target's, and a drafter's.
SPREAD = ((0.5, 0.3, 0.2), (0.2, 0.5, 0.3), (0.3, 0.2, 0.5))
PAIRS: dict[str, tuple[str, Sequence[Sequence[float]], Sequence[Sequence[float]]]] = {
    "nearly-equal": (
        "a drafter's law that differs from it by less than a hundredth",
        SPREAD,
        ((0.506, 0.296, 0.198), (0.197, 0.497, 0.306), (0.296, 0.207, 0.497)),
    ),
    "certain-drafter": (
        "a drafter that knows one token only, fewer than a tree has branches",
        SPREAD,
        ((0, 1, 0),) * 3,
    ),
    "certain-target": ("a target that knows one token only", ((0, 1, 0), (0, 0, 1), (1, 0, 0)), SPREAD),
    "disjoint": ("a drafter that never says what the target says", ((0.4, 0.6, 0),) * 3, ((0, 0, 1),) * 3),
}


def law_of(
    subject: Subject, scene: Scene, limit: int, eos: Ends | None = None, *, after: Sequence[int] = (), **settings: Any
) -> Law:
    """The exact law of what the subject returns in this scene; `settings` are the sampler's.

    With `after`, it has decoded after that prompt before, and may have learned from it.
    """
    own = subject.options(scene)
    if after:
        subject.generate(scene.target, list(after), limit, sampler=Sampler(0), **own)

    def run(sampler: Sampler) -> Generation:
        found: Generation = subject.generate(
            scene.target, list(scene.prompt), limit, sampler=sampler, eos=eos, **subject.fresh(own)
        )
        return found

    return exact_law(run, **settings)


def _same_law(subject: Subject, scene: Scene, limit: int, eos: Ends | None = None, **settings: Any) -> None:
    found = law_of(subject, scene, limit, eos, **settings)
    settings.pop("after", None)
    wanted = autoregressive_law(scene.target, scene.prompt, limit, eos=eos, **settings)
    distance = total_variation(found, wanted)
    require(distance < TOLERANCE, f"the law differs from the target's by {distance:.2g} (total variation)")


def exact_law_checks(subject: Subject) -> Iterator[Check]:
    """The law of the whole sequence, in scenes that together reach every branch of a step, and of the step after it."""
    sizes: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
        "two-guesses": ((3, 2, 2), {}),
        "three-steps": ((3, 1, 3), {}),
        "longer-text": ((2, 2, 3), {}),
        "end-of-text": ((3, 2, 2), {"eos": 1}),
        "several-ends": ((3, 2, 2), {"eos": (2, 1)}),
        "tempered-nucleus": ((3, 2, 2), {"temperature": 1.3, "top_p": 0.85}),
    }
    if subject.case.learns:
        sizes["after-learning"] = (3, 2, 2), {"after": (1, 0, 2)}
    condition = {
        "eos": ", cut at the end of the text",
        "top_p": " at temperature 1.3 with top-p 0.85",
        "after": ", also after it has learned from another text",
    }
    for name, ((vocab, guesses, limit), extra) in sizes.items():
        texts = f"texts of {limit} tokens from a vocabulary of {vocab}"
        tail = next((words for key, words in condition.items() if key in extra), "")
        sentence = f"With {guesses} guess{'es' * (guesses > 1)} a step, the law of {texts} is the target's{tail}."
        scene = Scene(flat_model(vocab), [0, 1], guesses)
        yield Check(name, sentence, later(_same_law, subject, scene, limit, **extra))
    for name, (who, p, q) in PAIRS.items():
        scene = Scene(table_model(p), [0, 1], drafter=table_model(q))
        yield Check(name, f"The law is the target's with {who}.", later(_same_law, subject, scene, 2))


def greedy(target: LanguageModel, prompt: Sequence[int], limit: int, eos: Ends | None = None) -> list[int]:
    """What the target says at temperature 0."""
    return autoregressive(target, prompt, limit, sampler=Sampler(0), eos=eos).tokens


@dataclass(frozen=True)
class Run:
    """A greedy run with guesses of some quality, and what the target says, further than the run goes."""

    scene: Scene
    result: Any
    wanted: list[int]

    @property
    def where(self) -> str:
        """The scene in words."""
        return f"after prompt {list(self.scene.prompt)} with {self.scene.guesses} guesses a step"


def _runs(subject: Subject, guess: Guess) -> list[Run]:
    found = []
    for prompt in PROMPTS:
        for guesses in (1, 3, 4):
            scene = subject.case.scene(Scene(varied_model(), prompt, guesses, guess))
            own = subject.options(scene)
            result = subject.generate(scene.target, list(scene.prompt), LIMIT, sampler=Sampler(0), **own)
            found.append(Run(scene, result, greedy(scene.target, scene.prompt, LIMIT + FAR)))
    return found


def _identity(runs: Callable[[Guess], list[Run]], guess: Guess) -> None:
    for run in runs(guess):
        wanted = run.wanted[:LIMIT]
        require(run.result.tokens == wanted, f"{run.result.tokens} is not the greedy text {wanted} {run.where}")


def right(step: Any, ahead: Sequence[int]) -> int:
    """How many guesses of a step are right one after another: along its chain, or its best path."""
    depth = {-1: 0}
    parents = step.parents or range(-1, len(step.drafted) - 1)
    for node, (token, parent) in enumerate(zip(step.drafted, parents, strict=True)):
        if parent in depth and ahead[depth[parent]] == token:
            depth[node] = depth[parent] + 1
    return max(depth.values())


def _kept(runs: Callable[[Guess], list[Run]], qualities: Sequence[Guess]) -> None:
    for run in (run for guess in qualities for run in runs(guess)):
        place = 0
        for number, step in enumerate(trace(run.result, "drafted", "parents", "kept", "emitted"), start=1):
            best = min(right(step, run.wanted[place:]), len(step.emitted))
            require(step.kept == best, f"step {number} kept {step.kept} of {best} right guesses {run.where}")
            place += len(step.emitted)


def reach(step: Any) -> int:
    """The length of a step's chain, or the depth of its tree."""
    depths: list[int] = []
    for parent in step.parents:
        depths.append(1 if parent < 0 else depths[parent] + 1)
    return max(depths) if depths else len(step.drafted)


def possible(step: Any, start: int, guess: Guess) -> int:
    """How many guesses of a step whose first guess is for place `start` can be right, if they are of this quality."""
    right = [guess == "perfect" or (start + i) % PERIOD != 0 for i in range(reach(step))]
    kept = right.index(False) if False in right else len(right)
    return min(kept, len(step.emitted))


def _use(subject: Subject, runs: Callable[[Guess], list[Run]], guess: Guess) -> None:
    for run in runs(guess):
        start = len(run.scene.prompt)
        steps = trace(run.result, "drafted", "parents", "kept", "emitted", "passes")
        require(any(step.drafted for step in steps), f"nothing was drafted {run.where}")
        for number, step in enumerate(steps, start=1):
            best = possible(step, start, guess)
            require(step.kept == best, f"step {number} kept {step.kept} of {best} possible guesses {run.where}")
            start += len(step.emitted)
        turn = subject.case.passes
        passes = sum(step.passes for step in steps)
        begun = next(i for i, step in enumerate(steps) if step.drafted)  # passes that read the prompt and look ahead
        fewest = max(1, begun) + turn * math.ceil(LIMIT / (run.scene.guesses + turn))
        few = guess != "perfect" or passes <= fewest
        require(few, f"{LIMIT} tokens took {passes} passes, and {fewest} are enough for perfect guesses {run.where}")


def greedy_checks(subject: Subject) -> Iterator[Check]:
    """Greedy identity for guesses of every quality, whatever makes them, and the best possible use of good ones."""

    @cache
    def runs(guess: Guess) -> list[Run]:
        return _runs(subject, guess)

    claims: dict[Guess, tuple[str, str]] = {
        "random": ("At temperature 0 the text is the target's, whatever is guessed.", ""),
        "noisy": (
            f"With guesses wrong at every {PERIOD}rd place the text is the target's.",
            f"Of guesses wrong at every {PERIOD}rd place every other one is kept that no wrong one precedes.",
        ),
        "perfect": (
            "With perfect guesses the text is the target's.",
            "Perfect guesses are made and all kept: the best possible tokens per pass.",
        ),
    }
    for guess in subject.qualities:
        yield Check(f"{guess}-guesses", claims[guess][0], later(_identity, runs, guess))
    sentence = "A step keeps the longest run of its guesses that is the target's text, no guess more and no guess less."
    yield Check("kept-guesses", sentence, later(_kept, runs, subject.qualities))
    for guess in subject.qualities[1:]:
        yield Check(f"{guess}-use", claims[guess][1], later(_use, subject, runs, guess))


EXACT_LAW = Suite("exact-law", exact_law_checks)
GREEDY_IDENTITY = Suite("greedy-identity", greedy_checks)
