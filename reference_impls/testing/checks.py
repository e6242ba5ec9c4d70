"""What a proof consists of: a subject, and suites of named checks, each with a claim of one sentence."""

from __future__ import annotations

import copy
import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from reference_impls.testing.case import EMPTY, Case, Guess, Scene
from reference_impls.testing.from_signature import guessing, options

Generate = Callable[..., Any]  # gives a Generation, or what a port has instead: of that only `tokens` is needed
GOOD: tuple[Guess, ...] = ("noisy", "perfect")


@dataclass(frozen=True)
class Check:
    """One claim about a method. `run` raises AssertionError, with a sentence, where it is false."""

    name: str
    claim: str
    run: Callable[[], None]


@dataclass(frozen=True)
class Subject:
    """The function under proof, with the case that says what its signature does not."""

    generate: Generate
    case: Case = EMPTY

    @property
    def qualities(self) -> tuple[Guess, ...]:
        """The qualities of guesses that it can be given."""
        both = guessing(self.generate)
        return ("random", *(quality for quality in GOOD if both or quality in self.case.qualities))

    def takes(self, name: str) -> bool:
        """Whether it has an option of this name."""
        return name in inspect.signature(self.generate).parameters

    def options(self, scene: Scene, **given: Any) -> dict[str, Any]:
        """Everything that it asks for in this scene beside the suites' own parameters."""
        return options(self.generate, scene, self.case, **given)

    def fresh(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """These options, with a copy of each that it changes while it decodes; what refers to another still does."""
        return {**own, **copy.deepcopy({name: own[name] for name in self.case.learns if name in own})}


@dataclass(frozen=True)
class Suite:
    """The checks that prove one promise; `find(subject)` yields those that apply to a method.

    What the suite claims, and which methods owe it, stands in `accelgen.taxonomy.suites` under the same name.
    """

    name: str
    find: Callable[[Subject], Iterator[Check]]

    def checks(self, generate: Generate, case: Case = EMPTY) -> Iterator[Check]:
        """Its checks of this function."""
        return self.find(Subject(generate, case))


class Skip(Exception):  # noqa: N818 - it is no error
    """A check cannot judge this subject; the message is one sentence that says why."""


def trace(result: Any, *needed: str) -> list[Any]:
    """The steps of a result. Raises Skip where it has none, or none that say what is `needed`."""
    steps = getattr(result, "steps", None)
    lacking = [name for name in needed if any(not hasattr(step, name) for step in steps or ())]
    if steps is None or lacking:
        what = f"`{lacking[0]}` in its steps" if steps is not None else "`steps`"
        raise Skip(f"the result has no {what}, and only the trace can tell: `core.generation.Step` says what it holds")
    return list(steps)


def total(result: Any, kind: str) -> int:
    """The passes of a result, of the `kind` `passes` or `draft_passes`, summed over its steps."""
    return sum(getattr(step, kind) for step in trace(result, kind))


def require(holds: bool, sentence: str) -> None:  # noqa: FBT001 - reads as what it is
    """Raise AssertionError with this sentence unless the claim is True; a sentence in its place is no claim."""
    if holds is not True:
        raise AssertionError(sentence)


def later(test: Callable[..., None], *given: Any, **named: Any) -> Callable[[], None]:
    """The test with these arguments, to be run when its turn comes."""
    return lambda: test(*given, **named)


def named(chosen: Mapping[str, Any]) -> str:
    """How a check's name tells the variant that it is about."""
    return "".join(f"[{value}]" for value in chosen.values())


def guessed(drafted: list[int], parents: list[int], kept: list[int]) -> bool:
    """Whether the kept tokens were drafted one after another: a prefix of the chain, or a path from the tree's root."""
    if not parents:
        return drafted[: len(kept)] == kept
    level = {-1}
    for token in kept:
        level = {i for i, (guess, parent) in enumerate(zip(drafted, parents, strict=True)) if parent in level}
        level = {i for i in level if drafted[i] == token}
    return bool(level)


@contextmanager
def ending(positions: int, *models: Any) -> Iterator[list[int]]:
    """Give models so many positions while inside, and list how many each of their passes needs."""
    needed, shapes = list[int](), {model: model.shape for model in models}  # a model that is given twice counts once

    def noted(angles: Callable[..., Any], start: int, new: int, places: Any = None) -> Any:
        needed.append(start + new if places is None else int(places.max()) + 1)
        return angles(start, new, places)

    for model, shape in shapes.items():
        model.shape, model.angles = replace(shape, positions=positions), partial(noted, model.angles)
    try:
        yield needed
    finally:
        for model, shape in shapes.items():
            model.shape = shape
            del model.angles


@contextmanager
def counted(**blocks: Any) -> Iterator[Counter[str]]:
    """Count the passes of models while inside, by how often attention begins in the given blocks (their first ones)."""
    calls: Counter[str] = Counter()

    def noted(name: str, project: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any) -> Any:
            calls.update([name])
            return project(*args)

        return counting

    for name, block in blocks.items():
        block.attention.project = noted(name, block.attention.project)
    try:
        yield calls
    finally:
        for block in blocks.values():
            del block.attention.project
