"""What a proof consists of: suites of named checks, each with a claim of one sentence."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from reference_impls.core.generation import Generation

Generate = Callable[..., Generation]


@dataclass(frozen=True)
class Check:
    """One claim about a method. `run` raises AssertionError, with a sentence, where it is false."""

    name: str
    claim: str
    run: Callable[[], None]


@dataclass(frozen=True)
class Suite:
    """The checks that prove one promise; `checks(generate)` yields those that apply to a method.

    What the suite claims, and which methods owe it, stands in `accelgen.taxonomy.suites` under the same name.
    """

    name: str
    checks: Callable[[Generate], Iterator[Check]]


def require(holds: bool, sentence: str) -> None:  # noqa: FBT001 - reads as what it is
    """Raise AssertionError with this sentence unless the claim holds."""
    if not holds:
        raise AssertionError(sentence)


def later(test: Callable[..., None], *given: Any, **named: Any) -> Callable[[], None]:
    """The test with these arguments, to be run when its turn comes."""
    return lambda: test(*given, **named)


def takes(generate: Generate, name: str) -> bool:
    """Whether `generate` has an option of this name."""
    return name in inspect.signature(generate).parameters


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
