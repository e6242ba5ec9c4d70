"""Acceptance over time: a stream of prompts whose domain changes, served by a drafter that learns and by a frozen one.

`python -m accelgen.measuring.streams` serves held-out texts with the zoo's models and stores the figures of the page.
No time is taken: what is accepted belongs to method, models and prompts alone.
"""

from __future__ import annotations

import ast
import json
import random
from collections.abc import Iterator, Mapping, Sequence

from accelgen.measuring.rows import StreamFigures, StreamRow
from accelgen.training.corpora import Side
from accelgen.training.shelf import Shelf
from reference_impls import zoo
from reference_impls.core.generation import Generation
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding import online_speculative_decoding as method

TEXTS, WINDOW = 96, 16  # of a domain, and of a row
PROMPT, LIMIT, TEMPERATURE = 24, 48, 0.8
INTERVAL, RATE = 8, 1e-3  # the paper's interval; the rate was chosen on the development side
LONG = 300  # characters of a docstring that is prose, and not a remark

Stream = Mapping[str, Sequence[Sequence[int]]]  # the prompts of each domain, one domain after the other


def prose(code: str) -> Iterator[str]:
    """The long docstrings of a file; none of one in another Python's syntax."""
    try:
        nodes = list(ast.walk(ast.parse(code)))
    except (SyntaxError, ValueError):
        return
    for node in nodes:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node) or ""
            if len(text) >= LONG:
                yield text


def beginnings(texts: Sequence[str], count: int, seed: int) -> Iterator[list[int]]:
    """Prompts of PROMPT tokens, each from the beginning of a line on; text and line are drawn."""
    chance = random.Random(seed)
    while count:
        lines = chance.choice(texts).splitlines(keepends=True)
        start = chance.randrange(len(lines))
        tokens = zoo.encode("".join(lines[start : start + PROMPT]))[:PROMPT]
        if len(tokens) == PROMPT:
            yield tokens
            count -= 1


def domains(side: Side, count: int = TEXTS) -> Stream:
    """So many prompts from held-out code of the standard library, and as many from the prose in all held-out code."""
    texts = Shelf().texts(side)
    written = [text for code in texts.values() for file in code for text in prose(file)]
    return {"code": [*beginnings(texts["library"], count, 0)], "prose": [*beginnings(written, count, 1)]}


def serve(stream: Stream, interval: int | None, rate: float, limit: int = LIMIT) -> tuple[list[Generation], list[int]]:
    """The texts of a stream, and how many updates the drafter had made after each; it is frozen without an interval."""
    models = method.example()
    drafter, runs, updates = models["drafter"].requires_grad_(), list[Generation](), list[int]()
    replay = None if interval is None else method.Replay(drafter, interval=interval, rate=rate)
    for prompt in (prompt for prompts in stream.values() for prompt in prompts):
        sampler = Sampler(TEMPERATURE, seed=len(runs))
        runs.append(method.generate(prompt=prompt, limit=limit, sampler=sampler, replay=replay, **models))
        updates.append(replay.updates if replay else 0)
    return runs, updates


def accepted(runs: Sequence[Generation]) -> tuple[float, float]:
    """The share of all guesses that were kept, and tokens per pass."""
    steps = [step for run in runs for step in run.steps]
    kept, drafted = sum(step.kept for step in steps), sum(len(step.drafted) for step in steps)
    return kept / drafted, sum(len(run.tokens) for run in runs) / sum(run.passes for run in runs)


def figures(
    stream: Stream, *, interval: int = INTERVAL, rate: float = RATE, window: int = WINDOW, limit: int = LIMIT
) -> StreamFigures:
    """Both drafters on the same stream, in rows of `window` texts of one domain."""
    (learning, updates), (frozen, _) = serve(stream, interval, rate, limit), serve(stream, None, rate, limit)
    rows, start = list[StreamRow](), 0
    for domain, prompts in stream.items():
        for end in range(start + window, start + len(prompts) + 1, window):
            shares, speeds = zip(*(accepted(runs[end - window : end]) for runs in (learning, frozen)), strict=True)
            rows.append(
                StreamRow(
                    domain=domain,
                    texts=end,
                    updates=updates[end - 1],
                    learning=shares[0],
                    frozen=shares[1],
                    learning_tokens=speeds[0],
                    frozen_tokens=speeds[1],
                )
            )
        start += len(prompts)
    return StreamFigures(
        id=method.__name__.rpartition(".")[2].replace("_", "-"),
        limit=limit,
        temperature=TEMPERATURE,
        gamma=method.example()["gamma"],
        interval=interval,
        rate=rate,
        rows=rows,
    )


def main() -> None:
    """Measure and store."""
    from accelgen.project.files import write_whole
    from accelgen.project.places import RESULTS

    write_whole(RESULTS / "streams.json", json.dumps(figures(domains("test")).as_data(), indent=1) + "\n")


if __name__ == "__main__":
    main()
