"""Measures every implemented method on the zoo against its baseline, in pairs of successive runs.

A method gets its rows by being implemented in the taxonomy: `example()` says with which models and options it runs, its
kind (`accelgen.measuring.kinds`) on what, at which settings and against what.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from accelgen.measuring.contests import Contest, Plan, chosen, contests, settings_of
from accelgen.measuring.machine import one_thread
from accelgen.measuring.pairs import Pair, merged, paired, spread
from accelgen.measuring.rows import BenchRow
from accelgen.taxonomy.schema import Taxonomy


def measure(taxonomy: Taxonomy, plan: Plan) -> Iterator[BenchRow]:
    """Rows of the methods of the plan. Raises ZooError where a model is missing."""
    with one_thread():
        for method in chosen(taxonomy, plan):
            for contest in contests(method, plan):
                runs = [contest.runs(i) for i in range(plan.runs)]
                yield row(contest, paired(runs, f"{method.id}, {contest.title}", plan.tick))


def pairs_of(taxonomy: Taxonomy, plan: Plan) -> int:
    """How many pairs `measure` will run, for a progress bar."""
    return plan.runs * sum(len(settings_of(method)) for method in chosen(taxonomy, plan))


def row(contest: Contest, pairs: Sequence[Pair]) -> BenchRow:
    """The figures of one method at one setting. What its texts are worth is only asked where nothing is drawn."""
    total = merged(result for pair in pairs for result in pair.own)
    greedy = not contest.setting.temperature
    figures = contest.kind.figures(contest.own, contest.inputs, pairs, contest.method) if greedy else {}
    return BenchRow(
        id=contest.method.id,
        setting=contest.title,
        tokens_per_pass=total.tokens_per_pass,
        acceptance=total.acceptance,
        mean_layers=total.mean_layers,
        mean_work=total.mean_work,
        **vars(spread([pair.speedup for pair in pairs])),
        **figures,
    )
