"""Which proofs a method owes: its fields in the taxonomy select them. Plain data, so that a page needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from accelgen.taxonomy.schema import Call, Guarantee, Method


@dataclass(frozen=True)
class Claim:
    """What a suite of `reference_impls.testing` of the same name proves, and of which methods."""

    id: str
    title: str
    claim: str
    applies: Callable[[Method], bool]


def _called(call: Call) -> Callable[[Method], bool]:
    return lambda method: method.call is call


CLAIMS = (
    Claim(
        "exact-law",
        "Exact law",
        "The law of the whole text, found by following every outcome of every random choice, is that of autoregressive "
        "decoding: total variation below 1e-6.",
        lambda m: m.call is Call.CONTINUE and m.guarantee is Guarantee.EXACT_DISTRIBUTION,
    ),
    Claim(
        "greedy-identity",
        "Greedy identity",
        "At temperature 0 the text is the target's, token for token, whatever is guessed; and no guess that is right "
        "is thrown away.",
        lambda m: m.call is Call.CONTINUE and m.guarantee in (Guarantee.EXACT_DISTRIBUTION, Guarantee.EXACT_GREEDY),
    ),
    Claim(
        "early-exit",
        "Early exit",
        "A threshold that no token reaches gives the full model's text and law; the layers in the trace are those that "
        "were run; skipped layers hold the keys and values that the exit's state projects to.",
        lambda m: m.call is Call.CONTINUE and m.guarantee is Guarantee.LOSSY and m.category == "early-exiting",
    ),
    Claim(
        "accounting",
        "Accounting",
        "The trace adds up to the text and to the passes counted at the models; limits and the end of the text are met "
        "exactly; weights and the global random state stay as they were; the same seed gives the same text.",
        _called(Call.CONTINUE),
    ),
    Claim(
        "options",
        "Options",
        "What cannot work (an option, a prompt, a model that gives NaN) is refused with one clear sentence.",
        _called(Call.CONTINUE),
    ),
    Claim(
        "non-autoregressive",
        "Parallel decoding",
        "The decoder runs as many passes as asked for and as the trace says; no mask is left; the last canvas is the "
        "text; a limit and an end are met exactly; weights and the global random state stay as they were.",
        _called(Call.TRANSLATE),
    ),
    Claim(
        "canvas",
        "Canvas",
        "A text of the length asked for is filled in the passes asked for, and in as many steps as places one place a "
        "pass; no mask is left; the prompt stays; the same seed gives the same text.",
        _called(Call.CANVAS),
    ),
    Claim(
        "batch",
        "Batch",
        "Whatever lengths, limits and ends are mixed, every row has the text and the law that it has alone, and no row "
        "knows of another; rows share passes, and the trace counts them.",
        _called(Call.BATCH),
    ),
    Claim(
        "classify",
        "Classifying",
        "A threshold that nothing reaches gives the whole model's answer from all layers; the layers in the trace are "
        "those that were run.",
        _called(Call.CLASSIFY),
    ),
)


def claims_of(method: Method) -> list[Claim]:
    """The claims that a method's fields select, those that its entry skips with a reason included."""
    return [claim for claim in CLAIMS if claim.applies(method)]
