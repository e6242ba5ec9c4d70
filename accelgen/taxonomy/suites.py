"""Which proofs a method owes: its fields in the taxonomy select them. Plain data, so that a page needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from accelgen.taxonomy.schema import Guarantee, Method, Need


@dataclass(frozen=True)
class Suite:
    """A set of checks that proves one claim."""

    id: str
    title: str
    claim: str
    applies: Callable[[Method], bool]


def _translates(method: Method) -> bool:
    return Need.SEQUENCE_TO_SEQUENCE in method.needs


SUITES = (
    Suite(
        "exact-law",
        "Exact law",
        "The law of the whole text, found by following every outcome of every random choice, is that of autoregressive "
        "decoding: total variation below 1e-6.",
        lambda m: m.guarantee is Guarantee.EXACT_DISTRIBUTION and not _translates(m),
    ),
    Suite(
        "greedy-identity",
        "Greedy identity",
        "At temperature 0 the text is the target's, token for token, whatever is guessed; and no guess that is right "
        "is thrown away.",
        lambda m: m.guarantee in (Guarantee.EXACT_DISTRIBUTION, Guarantee.EXACT_GREEDY) and not _translates(m),
    ),
    Suite(
        "early-exit",
        "Early exit",
        "A threshold that no token reaches gives the full model's text and law; the layers in the trace are those that "
        "were run; skipped layers hold the keys and values that the exit's state projects to.",
        lambda m: m.guarantee is Guarantee.LOSSY and m.category == "early-exiting" and not _translates(m),
    ),
    Suite(
        "accounting",
        "Accounting",
        "The trace adds up to the text and to the passes counted at the models; limits and the end of the text are met "
        "exactly; weights and the global random state stay as they were; the same seed gives the same text.",
        lambda m: not _translates(m),
    ),
    Suite(
        "options",
        "Options",
        "What cannot work (an option, a prompt, a model that gives NaN) is refused with one clear sentence.",
        lambda m: not _translates(m),
    ),
    Suite(
        "non-autoregressive",
        "Parallel decoding",
        "The decoder runs as many passes as asked for and as the trace says; no mask is left; the last canvas is the "
        "text; weights and the global random state stay as they were.",
        _translates,
    ),
)


def suites_of(method: Method) -> list[Suite]:
    """The suites that a method's fields select, those that its entry skips with a reason included."""
    return [suite for suite in SUITES if suite.applies(method)]
