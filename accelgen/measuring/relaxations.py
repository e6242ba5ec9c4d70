"""Quality beside speed where a guess may stay that is not the model's own word: one row for each rule.

`python -m accelgen.measuring.relaxations` translates held-out sentences and stores the figures of the page.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from accelgen.measuring.pairs import merged
from accelgen.measuring.rows import RelaxedFigures, RelaxedRow
from accelgen.training.sentence_pairs import COUNT, examples
from reference_impls.baselines import translation
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding import specdec as method
from reference_impls.zoo.tasks import END, task

# beta and tau: strict, the paper's choice, that of the published command, and one that goes too far.
RULES = ((1, 0.0), (3, 1.0), (5, 3.0), (20, 20.0))


def figures(count: int = COUNT, rules: Sequence[tuple[int, float]] = RULES) -> RelaxedFigures:
    """A row for each rule, over the first `count` sentences of the test side."""
    own, lite = method.example(), task("lite")
    found = examples(lite, count=count)
    sources = [lite.encode(each.source) for each in found]
    greedy = [
        translation.generate(own["model"], source, lite.longest, sampler=Sampler(0), eos=END) for source in sources
    ]

    def right(texts: Sequence[Sequence[int]]) -> float:
        return sum(map(lite.is_correct, texts, found)) / len(found)

    rows = []
    for beta, tau in rules:
        options = own | {"beta": beta, "tau": tau, "eos": END}
        written = [method.generate(source=source, limit=lite.longest, **options) for source in sources]
        total = merged(written)
        assert total.acceptance is not None
        row = RelaxedRow(
            beta=beta,
            tau=tau,
            right=right([each.tokens for each in written]),
            same=sum(a.tokens == b.tokens for a, b in zip(written, greedy, strict=True)) / len(found),
            acceptance=total.acceptance,
            tokens_per_pass=total.tokens_per_pass,
        )
        rows.append(row)
    return RelaxedFigures(
        id=method.__name__.rpartition(".")[2].replace("_", "-"),
        sentences=len(found),
        gamma=own["gamma"],
        right=right([each.tokens for each in greedy]),
        rows=rows,
    )


def main() -> None:
    """Measure and store."""
    from accelgen.project.files import write_whole
    from accelgen.project.places import RESULTS

    text = json.dumps(figures().as_data(), indent=2)
    write_whole(RESULTS / "relaxations.json", text + "\n")


if __name__ == "__main__":
    main()
