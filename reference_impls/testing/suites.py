"""What is checked of a method, as named checks with one-sentence claims; the taxonomy's fields select the suites."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from reference_impls.core.generation import Generation
from reference_impls.knowledge.taxonomy import Guarantee, Method, Need

Generate = Callable[..., Generation]


@dataclass(frozen=True)
class Check:
    """One claim about a method, and how to test it: `run` raises AssertionError with a sentence if it is false."""

    name: str
    claim: str
    run: Callable[[], None]


@dataclass(frozen=True)
class Suite:
    """A set of checks that prove one promise."""

    name: str
    claim: str
    checks: Callable[[Generate], Iterator[Check]]


def claim(found: bool, sentence: str) -> None:
    """Raise AssertionError with this sentence if what was found is not as claimed."""
    if not found:
        raise AssertionError(sentence)


def suites_for(method: Method) -> list[Suite]:
    """The suites that prove what the taxonomy says of a method."""
    if Need.SEQUENCE_TO_SEQUENCE in method.needs:
        return [SUITES["non-autoregressive"]]
    names = {
        Guarantee.EXACT_DISTRIBUTION: ["exact-law", "greedy-identity"],
        Guarantee.EXACT_GREEDY: ["greedy-identity"],
        Guarantee.LOSSY: ["early-exit"] if method.category == "early-exiting" else [],
        Guarantee.NOT_APPLICABLE: [],
    }[method.guarantee]
    return [SUITES[name] for name in [*names, "accounting", "options"]]


def accepts(generate: Generate, name: str) -> bool:
    """Whether `generate` has an option of this name."""
    return name in inspect.signature(generate).parameters


def bind(test: Callable[..., None], *given: Any, **named: Any) -> Callable[[], None]:
    """The test with these arguments, to be run later."""
    return lambda: test(*given, **named)


from reference_impls.testing import accounting, autoregressive, early_exit, non_autoregressive  # noqa: E402
