"""What a trie gains that has learned: texts drafted from a cold trie, after other texts, and after the same ones.

`python -m accelgen.measuring.warming` decodes the zoo's prompts and stores the figures of the site. No time is taken:
tokens per pass belong to method, model and prompts alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from accelgen.measuring.rows import WarmthRow
from accelgen.measuring.sides import setting_name
from reference_impls import zoo
from reference_impls.core.generation import Generation
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding.lookahead_trie import Trie, generate

PROMPTS, LIMIT = 24, 48
TEMPERATURES = (0.0, 0.8)
COLD, OTHERS, SAME = "cold", "after other prompts", "after the same prompts"


def stream(
    target: Any, prompts: Sequence[Sequence[int]], trie: Trie | None, temperature: float, limit: int, *, seed: int
) -> list[Generation]:
    """One text after each prompt, in turn, from one trie that learns them all; without one, each from a new trie."""
    return [
        generate(target, prompt, limit, sampler=Sampler(temperature, seed=seed + i), trie=trie)
        for i, prompt in enumerate(prompts)
    ]


def measure(
    target: Any, prompts: Sequence[Sequence[int]], others: Sequence[Sequence[int]], limit: int = LIMIT
) -> Iterator[WarmthRow]:
    """Texts with the same seeds from tries of three kinds; what a trie learned before has seeds of its own."""
    for temperature in TEMPERATURES:
        for kind, before in ((COLD, None), (OTHERS, others), (SAME, prompts)):
            trie = None if before is None else Trie()
            stream(target, before or (), trie, temperature, limit, seed=1000)
            learned = 0 if trie is None else sum(1 for _ in trie.root.below())
            runs = stream(target, prompts, trie, temperature, limit, seed=0)
            passes, steps = sum(run.passes for run in runs), [step for run in runs for step in run.steps]
            tokens = sum(len(run.tokens) for run in runs)
            yield WarmthRow(
                setting=setting_name(temperature),
                trie=kind,
                texts=len(runs),
                tokens=tokens,
                learned=learned,
                drafted_per_pass=sum(len(step.drafted) for step in steps) / passes,
                tokens_per_pass=tokens / passes,
            )


def main() -> None:
    """Measure and store."""
    from accelgen.project.files import write_whole
    from accelgen.project.places import RESULTS

    prompts, others = ([zoo.encode(text) for text in zoo.prompts(side)[:PROMPTS]] for side in ("test", "development"))
    rows = [row.as_data() for row in measure(zoo.load("target"), prompts, others)]
    write_whole(RESULTS / "warming.json", json.dumps({"limit": LIMIT, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
