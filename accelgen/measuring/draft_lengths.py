"""How long drafts should be in a batch: what passes cost, the table that follows, and what the table gains.

`python -m accelgen.measuring.draft_lengths` takes the profile on development prompts, serves batches of held-out ones
with the table and with fixed lengths, and stores both on the site.
"""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Sequence
from typing import Any

import torch

from accelgen.measuring.machine import environment, one_thread, timed
from accelgen.measuring.pairs import spread
from accelgen.measuring.rows import DraftLengths, Profile, Served
from reference_impls import zoo
from reference_impls.core.batch import Batch
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding import speculative_batching_synergy as method

COMMAND = "python -m accelgen.measuring.draft_lengths"
SIZES = (1, 2, 4, 8, 16, 32)  # of batches
LONGEST = 6  # guesses
FIXED = (0, 1, 2, 4, 6)  # lengths that the table is compared with; the first is plain decoding of a batch
PASSES, ROUNDS, LIMIT = 9, 7, 48  # of each kind of pass; of each policy; tokens of each row


def texts(side: str, rows: int) -> list[list[int]]:
    """The first prompts of a side as token ids, over again where there are fewer."""
    return [zoo.encode(text) for text in itertools.islice(itertools.cycle(zoo.prompts(side)), rows)]


@torch.inference_mode()
def pass_times(
    model: Any, sizes: Sequence[int], tokens: Sequence[int], passes: int = PASSES
) -> dict[tuple[int, int], float]:
    """Median milliseconds of a pass over b rows of s tokens each, for all b of `sizes` and s of `tokens`.

    All kinds of pass take turns, so that a slow moment of the machine hits all alike; a first round warms up, and so
    does a pass of each batch before its turn: in a loop over one batch its keys and values are at hand.
    """
    batches = {b: Batch(model, b) for b in sizes}
    prompts = {b: texts("development", b) for b in sizes}
    for b, batch in batches.items():
        batch(prompts[b], last=1)
    found: dict[tuple[int, int], list[float]] = {key: [] for key in itertools.product(sizes, tokens)}
    for _, b in itertools.product(range(1 + passes), sizes):
        for turn, s in enumerate((tokens[0], *tokens)):
            _, seconds = timed(lambda b=b, s=s: batches[b]([prompt[:1] * s for prompt in prompts[b]]))  # type: ignore[misc]
            batches[b].crop([len(prompt) for prompt in prompts[b]])
            found[b, s] += [1000 * seconds] if turn else []
    return {key: statistics.median(times[1:]) for key, times in found.items()}


def kept_counts(models: dict[str, Any], side: str = "development", limit: int = LIMIT) -> list[int]:
    """How many guesses of each draft of the longest length are kept, on all prompts of a side at temperature 0."""
    prompts = texts(side, len(zoo.prompts(side)))
    given = models | {"table": [[1, LONGEST]]}
    rows = method.generate(prompts=prompts, limits=[limit] * len(prompts), sampler=Sampler(0), **given)
    return [step.kept for row in rows for step in row.steps if len(step.drafted) == LONGEST]


def profile(models: dict[str, Any], kept: Sequence[float], sizes: Sequence[int] = SIZES) -> list[Profile]:
    """What passes cost, and the best length, for each size of a batch."""
    target = pass_times(models["target"], sizes, range(1, len(kept) + 1))
    drafter = {b: time for (b, _), time in pass_times(models["drafter"], sizes, [1]).items()}
    best = dict(method.best_lengths(target, drafter, kept))
    tokens = range(1, len(kept) + 1)
    return [Profile(rows=b, target=[target[b, s] for s in tokens], drafter=drafter[b], best=best[b]) for b in sizes]


def serve(
    models: dict[str, Any], table: Sequence[Sequence[int]], rows: int, rounds: int = ROUNDS, limit: int = LIMIT
) -> list[Served]:
    """A batch of held-out prompts with every fixed length and with the table, in rounds that begin in turn."""
    policies: dict[int | None, Any] = {length: [[1, length]] for length in FIXED} | {None: table}
    prompts, seconds = texts("test", rows), {length: list[float]() for length in policies}
    for turn in range(1 + rounds):
        order = list(policies)[turn % len(policies) :] + list(policies)[: turn % len(policies)]
        for length in order:
            given = {**models, "table": policies[length], "limits": [limit] * rows}
            _, time = timed(lambda given=given: method.generate(prompts=prompts, sampler=Sampler(0), **given))  # type: ignore[misc]
            seconds[length].append(time)
    found = []
    for length, times in seconds.items():
        ratios = [plain / own for plain, own in zip(seconds[0][1:], times[1:], strict=True)]
        rate = rows * limit / statistics.median(times[1:])
        found.append(Served(rows=rows, length=length, tokens_per_second=rate, **vars(spread(ratios))))
    return found


def measure() -> DraftLengths:
    """All of it, on the zoo's target and drafter."""
    models = {name: model for name, model in method.example().items() if name != "table"}
    with one_thread():
        kept = method.mean_kept(kept_counts(models), LONGEST)
        found = profile(models, kept)
        table = [[row.rows, row.best] for row in found]
        served = [row for size in SIZES for row in serve(models, table, size)]
    settings = {"passes": PASSES, "rounds": ROUNDS, "limit": LIMIT, "longest": LONGEST}
    return DraftLengths(command=COMMAND, settings=settings, kept=kept, profile=found, served=served, **environment())


def main() -> None:
    """Measure and store."""
    from accelgen.project.files import write_whole
    from accelgen.project.places import RESULTS

    write_whole(RESULTS / "draft-lengths.json", json.dumps(measure().as_data(), indent=1) + "\n")


if __name__ == "__main__":
    main()
