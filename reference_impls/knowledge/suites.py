"""Which proofs a method owes: its fields in the taxonomy select them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reference_impls.knowledge.taxonomy import Guarantee, Method

EXACT = (Guarantee.EXACT_DISTRIBUTION, Guarantee.EXACT_GREEDY)


@dataclass(frozen=True)
class Suite:
    """A set of tests that proves one claim."""

    id: str
    title: str
    claim: str
    applies: Callable[[Method], bool]


SUITES = (
    Suite(
        "exact-law",
        "Exact law",
        "The law of the whole output, found by enumerating every outcome of every random choice, equals that of "
        "autoregressive decoding: total variation below 1e-6.",
        lambda m: m.guarantee is Guarantee.EXACT_DISTRIBUTION,
    ),
    Suite(
        "greedy-identity",
        "Greedy identity",
        "At temperature 0 the output equals greedy autoregressive decoding, token for token, with a random, a noisy "
        "and a perfect drafter.",
        lambda m: m.guarantee in EXACT,
    ),
    Suite(
        "accounting",
        "Accounting",
        "The trace adds up to the tokens, the passes it claims were made, limits and end of text are kept, weights and "
        "the global random state stay untouched, and the same seed gives the same text.",
        lambda _: True,
    ),
    Suite(
        "early-exit",
        "Early exit",
        "With the threshold at its end every layer runs and the output is the full model's; no token uses more layers "
        "than there are.",
        lambda m: m.category == "early-exiting",
    ),
    Suite(
        "parallel-decoding",
        "Parallel decoding",
        "The number of passes is the one claimed, and no mask is left in the output.",
        lambda m: m.category == "non-autoregressive",
    ),
    Suite(
        "runs-alone",
        "Runs alone",
        "The copied file runs in a fresh process without this project and gives the same tokens.",
        lambda _: True,
    ),
)


def suites_of(method: Method) -> list[Suite]:
    """The suites that a method's fields select, those that its entry skips with a reason included."""
    return [suite for suite in SUITES if suite.applies(method)]
