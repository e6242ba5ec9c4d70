"""Pairs of successive runs, and what they tell: how much faster, and whether the texts agree.

A pair decodes one input with the baseline and with the method, in one process and one thread, in alternating order; a
slow moment of the machine hits both alike. The ratio of their times is taken within the pair.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from accelgen.measuring.machine import timed
from accelgen.measuring.rows import Spread
from reference_impls.core.generation import Generation
from reference_impls.core.model import LanguageModel

TIE = 1e-4  # two logits this close may swap when the same sum is taken in another order

Run = Callable[[], list[Generation]]  # one result for each sequence


@dataclass(frozen=True)
class Pair:
    """The baseline's results and the method's on one input, with the seconds that each took."""

    baseline: list[Generation]
    own: list[Generation]
    baseline_seconds: float
    own_seconds: float

    @property
    def speedup(self) -> float:
        """The baseline's time divided by the method's."""
        return self.baseline_seconds / self.own_seconds


def paired(
    runs: Sequence[tuple[Run, Run]], title: str = "", tick: Callable[[str], None] = lambda _: None
) -> list[Pair]:
    """Time (baseline, method) pairs, after one run of each to warm up; every second pair begins with the method."""
    for run in runs[0]:
        run()
    found = []
    for i, (baseline, own) in enumerate(runs):
        tick(title)
        if i % 2:
            own_results, own_seconds = timed(own)
            baseline_results, baseline_seconds = timed(baseline)
        else:
            baseline_results, baseline_seconds = timed(baseline)
            own_results, own_seconds = timed(own)
        found.append(Pair(baseline_results, own_results, baseline_seconds, own_seconds))
    return found


def merged(results: Iterable[Generation]) -> Generation:
    """All runs as one, so that its figures are means over tokens, passes and guesses, not over prompts."""
    found = list(results)
    return Generation([t for r in found for t in r.tokens], [s for r in found for s in r.steps])


def spread(ratios: Sequence[float]) -> Spread:
    """Median and quartiles of paired ratios, and how many there are."""
    ends = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else [ratios[0]] * 3
    return Spread(speedup=ends[1], speedup_q1=ends[0], speedup_q3=ends[2], pairs=len(ratios))


def agreement(
    prompts: Sequence[Sequence[int]], pairs: Sequence[Pair], *, exact: bool, target: LanguageModel | None = None
) -> dict[str, Any]:
    """How far the texts equal the baseline's, by the names of a row's fields.

    In an exact method every difference must be a tie of two logits of `target`; without one there may be none.
    """
    texts = [both for pair in pairs for both in zip(pair.baseline, pair.own, strict=True)]
    differing = [(p, *both) for p, both in zip(prompts, texts, strict=True) if both[0].tokens != both[1].tokens]
    same = [a == b for baseline, own in texts for a, b in zip(baseline.tokens, own.tokens, strict=False)]
    row: dict[str, Any] = {
        "texts": len(texts),
        "identical_texts": len(texts) - len(differing),
        "identical_tokens": sum(same) / max(1, sum(len(baseline.tokens) for baseline, _ in texts)),
    }
    if exact:
        ties = 0 if target is None else sum(is_tie(target, *each) for each in differing)
        row |= {"rounding_ties": ties, "as_promised": ties == len(differing)}
    return row


@torch.inference_mode()
def is_tie(target: LanguageModel, prompt: Sequence[int], baseline: Generation, own: Generation) -> bool:
    """Whether the first two different tokens have the same logit up to rounding, so that either is the greedy one.

    One pass over several tokens adds the same numbers in another order than several passes over one.
    """
    ours, theirs = own.tokens, baseline.tokens
    place = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    if place is None:  # one text is a beginning of the other
        return False
    logits = target([*prompt, *theirs[:place]], last=1)[0]
    return bool((logits[ours[place]] - logits[theirs[place]]).abs() < TIE)
