"""Which proofs a method owes: its fields in the taxonomy select them. Plain data, so that a page needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reference_impls.knowledge.taxonomy import Guarantee, Method, Need


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
        "The law of the whole output, found by following every outcome of every random choice, equals that of "
        "autoregressive decoding: total variation below 1e-6.",
        lambda m: m.guarantee is Guarantee.EXACT_DISTRIBUTION and not _translates(m),
    ),
    Suite(
        "greedy-identity",
        "Greedy identity",
        "At temperature 0 the output equals greedy autoregressive decoding, token for token, with a random, a noisy "
        "and a perfect drafter.",
        lambda m: m.guarantee in (Guarantee.EXACT_DISTRIBUTION, Guarantee.EXACT_GREEDY) and not _translates(m),
    ),
    Suite(
        "early-exit",
        "Early exit",
        "With the threshold at its end every layer runs and the output is the full model's; no token uses more layers "
        "than there are.",
        lambda m: m.guarantee is Guarantee.LOSSY and m.category == "early-exiting" and not _translates(m),
    ),
    Suite(
        "accounting",
        "Accounting",
        "The trace adds up to the tokens, the passes it claims were made, limits and end of text are kept, weights and "
        "the global random state stay untouched, and the same seed gives the same text.",
        lambda m: not _translates(m),
    ),
    Suite(
        "options",
        "Options",
        "An option that cannot work is refused with one clear sentence.",
        lambda m: not _translates(m),
    ),
    Suite(
        "non-autoregressive",
        "Parallel decoding",
        "The number of passes is the one claimed, no mask is left in the output, and the loss and its dynamic "
        "programmes equal brute force on small cases.",
        _translates,
    ),
)


def suites_of(method: Method) -> list[Suite]:
    """The suites that a method's fields select, those that its entry skips with a reason included."""
    return [suite for suite in SUITES if suite.applies(method)]
