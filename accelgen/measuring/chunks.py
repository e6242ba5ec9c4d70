"""Time between tokens while long prompts are read: at once, and in chunks under a budget of tokens a pass.

`python -m accelgen.measuring.chunks` serves one queue with several budgets and stores times and timelines on the site.
"""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Sequence
from typing import Any

from accelgen.measuring.machine import environment, now, one_thread
from accelgen.measuring.pairs import spread
from accelgen.measuring.rows import Chunked, Chunks, Share
from reference_impls import zoo
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding import sarathi as method

COMMAND = "python -m accelgen.measuring.chunks"
ROWS = 4  # places
SHORT, LONG = 12, 768  # tokens of the prompts
QUEUE = (SHORT, SHORT, SHORT, LONG, LONG)  # the last one comes in when a text has ended
LIMITS = (32, 64, 96, 32, 32)
WHOLE = sum(QUEUE) + ROWS  # a budget that cuts nothing
BUDGETS = (WHOLE, 256, 128, 64, 32)
ROUNDS = 7

Feeds = list[list[int]]  # for each pass, how many tokens each text that runs fed, oldest first


def prompts() -> list[list[int]]:
    """A queue of prompts of these lengths, cut from the held-out ones laid end to end."""
    ids = [token for text in zoo.prompts() for token in zoo.encode(text + "\n\n")]
    ends = list(itertools.accumulate(QUEUE))
    many = list(itertools.islice(itertools.cycle(ids), ends[-1]))
    return [many[end - length : end] for end, length in zip(ends, QUEUE, strict=True)]


def serve(target: Any, budget: int) -> tuple[Feeds, list[float]]:
    """What each pass read, and when it began and the last one ended, in milliseconds after the start.

    The method fills a pass right before it runs, so a pass takes until the next one is filled.
    """
    feeds, starts, fill = Feeds(), list[float](), method.fill

    def noted(budget: int, unread: Sequence[int]) -> list[int]:
        starts.append(now())
        feeds.append(fill(budget, unread))
        return feeds[-1]

    method.fill = noted
    try:
        method.generate(target, prompts(), LIMITS, sampler=Sampler(0), budget=budget, rows=ROWS)
    finally:
        method.fill = fill
    return feeds, [1000 * (time - starts[0]) for time in [*starts, now()]]


def shares(feeds: Feeds, lengths: Sequence[int], limits: Sequence[int]) -> list[Share]:
    """Which text fed how much to which pass, and whether a token of it came out; no text ends before its limit."""
    found, running, waiting = list[Share](), list[int](), iter(range(len(lengths)))
    read, wrote = [0] * len(lengths), [0] * len(lengths)
    for turn, counts in enumerate(feeds):
        running += itertools.islice(waiting, len(counts) - len(running))
        for text, count in zip(running, counts, strict=True):
            read[text] += count
            writes = read[text] >= lengths[text] + wrote[text]
            wrote[text] += writes
            found.append(Share(turn=turn, text=text, tokens=count, writes=writes))
        running = [text for text in running if wrote[text] < limits[text]]
    return found


def gaps(found: Sequence[Share], times: Sequence[float]) -> list[float]:
    """Milliseconds from each token of a text to its next one."""
    ends: dict[int, list[float]] = {}
    for share in found:
        if share.writes:
            ends.setdefault(share.text, []).append(times[share.turn + 1])
    return [after - before for each in ends.values() for before, after in itertools.pairwise(each)]


def measure(rounds: int = ROUNDS) -> Chunks:
    """Every budget, in rounds that begin in turn; of each budget the medians over the rounds."""
    target = method.example()["target"]
    runs: dict[int, list[tuple[Feeds, list[float]]]] = {budget: [] for budget in BUDGETS}
    with one_thread():
        for turn in range(1 + rounds):
            first = turn % len(BUDGETS)
            for budget in (*BUDGETS[first:], *BUDGETS[:first]):
                runs[budget].append(serve(target, budget))
    plain = [times[-1] for _, times in runs[WHOLE][1:]]
    rows = []
    for budget, every in runs.items():
        found, times = shares(every[0][0], QUEUE, LIMITS), [times for _, times in every[1:]]
        between = [sorted(gaps(found, each)) for each in times]
        first = next(share.turn for share in found if share.text == QUEUE.index(LONG) and share.writes)
        rows.append(
            Chunked(
                budget=None if budget == WHOLE else budget,
                passes=len(every[0][0]),
                median_gap=statistics.median(statistics.median(each) for each in between),
                longest_gap=statistics.median(each[-1] for each in between),
                first_token=statistics.median(each[first + 1] for each in times),
                tokens_per_second=1000 * sum(LIMITS) / statistics.median(each[-1] for each in times),
                times=[statistics.median(column) for column in zip(*times, strict=True)],
                shares=found,
                **vars(spread([a / each[-1] for a, each in zip(plain, times, strict=True)])),
            )
        )
    settings = {"rows": ROWS, "prompts": list(QUEUE), "limits": list(LIMITS), "rounds": rounds}
    return Chunks(command=COMMAND, settings=settings, rows=rows, **environment())


def main() -> None:
    """Measure and store."""
    from accelgen.project.files import write_whole
    from accelgen.project.places import RESULTS

    write_whole(RESULTS / "chunks.json", json.dumps(measure().as_data()) + "\n")


if __name__ == "__main__":
    main()
