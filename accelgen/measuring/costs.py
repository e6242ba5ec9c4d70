"""Predicts every method's speedup from what the calls of its models cost, and never from how long the method took.

`accelgen bench --costs` runs the methods twice. On prompts that the benchmark does not use, each call of a model and
each drawing and verification is timed where it really stands, inside the loop: a drafter that is called again and
again alone has its weights at hand, and looks three times cheaper than it is. The medians of equal calls of all methods
together are the unit costs: c of a drafter's pass, r(k) of the target's pass over k new tokens, both against a plain
step. On the benchmark's own prompts the calls are only counted. Counts times unit costs is the predicted time:

    speedup = tau / (r(k) + d c + v),    tau tokens and d drafter passes for each pass of the target, v for the rest.

What it cannot see is all that happens between the calls. So it can be wrong, and where it is, that is what one learns.
"""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence

from accelgen.measuring.contests import Contest, Plan, chosen, contests, settings_of
from accelgen.measuring.machine import one_thread
from accelgen.measuring.pairs import merged
from accelgen.measuring.recording import PARTS, Operation, Recorder
from accelgen.measuring.rows import Prediction, Unit
from accelgen.taxonomy.schema import Taxonomy
from reference_impls.core.generation import Generation
from reference_impls.testing.cases import case_of, has_case

TIMED = 8  # prompts or sentences that calls are timed on, where so many are left over
LAYERS = re.compile(r"\d+(?= layers)")
Timed = tuple[Operation, float]  # with its seconds
Known = dict[tuple[str, int], tuple[int, float]]  # baseline and run -> its tokens, and its expected seconds


# ---- unit costs ---------------------------------------------------------------------------------------------------


class Units:
    """The median seconds of every kind of call; between two sizes, or two numbers of layers, what lies between them."""

    def __init__(self, calls: Sequence[tuple[Operation, float]], stored: Sequence[Unit] = ()) -> None:
        seconds: dict[Operation, list[float]] = defaultdict(list)
        for call, each in calls:
            seconds[call].append(each)
        self.found = {call: (statistics.median(each), len(each)) for call, each in seconds.items()}
        known = {Operation(u.part, u.who, u.call, u.how, u.new): (u.microseconds / 1e6, u.calls) for u in stored}
        # What has a cost keeps it, so that all rows are predicted from one table; the others come to its pace.
        both = [self.found[call][0] / seconds for call, (seconds, _) in known.items() if call in self.found]
        pace = statistics.median(both) if both else 1.0
        self.found = {call: (median / pace, count) for call, (median, count) in self.found.items()} | known
        self.found = dict(sorted(self.found.items()))
        self.kinds: dict[tuple[str, ...], dict[int, float]] = defaultdict(dict)
        for call, (median, _) in self.found.items():
            self.kinds[_kind(call)][call.new] = median

    def seconds(self, call: Operation) -> float:
        """What the call costs. Raises ValueError if no call of its kind was ever timed."""
        known = self.kinds.get(_kind(call))
        if known:
            return between(known, call.new)
        depths = self.by_depth(call)
        if not depths:
            raise ValueError(
                f"no call like {call} was timed, so its cost is unknown: time more runs with a larger --prompts"
            )
        return between(depths, _depth(call.how))

    def by_depth(self, call: Operation) -> dict[int, float]:
        """What the call costs through other numbers of layers: an exit that is seldom taken may not have been timed."""
        others = {kind: known for kind, known in self.kinds.items() if _depth(kind[-1]) >= 0}
        alike = {kind: known for kind, known in others.items() if _any_depth(kind) == _any_depth(_kind(call))}
        return {_depth(kind[-1]): between(known, call.new) for kind, known in alike.items()}

    def rows(self) -> list[Unit]:
        """Microseconds, and how many calls the median is over."""
        return [
            Unit(
                part=c.part,
                who=c.who,
                call=c.name,
                how=c.how,
                new=c.new,
                microseconds=round(1e6 * median, 2),
                calls=count,
            )
            for c, (median, count) in self.found.items()
        ]


def _kind(call: Operation) -> tuple[str, ...]:
    return call.part, call.who, call.name, call.how


def _depth(how: str) -> int:
    """The number of layers that a call runs, or -1 where that is not told."""
    found = LAYERS.search(how)
    return int(found[0]) if found else -1


def _any_depth(kind: tuple[str, ...]) -> tuple[str, ...]:
    """A kind of call whatever its number of layers."""
    return (*kind[:-1], LAYERS.sub("", kind[-1]))


def between(known: Mapping[int, float], new: int) -> float:
    """A straight line between the neighbouring sizes; outside, the line through the smallest and the largest."""
    if new in known or len(known) == 1:
        return known.get(new, next(iter(known.values())))
    sizes = sorted(known)
    inside = sizes[0] < new < sizes[-1]
    low = max(s for s in sizes if s < new) if inside else sizes[0]
    high = min(s for s in sizes if s > new) if inside else sizes[-1]
    value = known[low] + (new - low) / (high - low) * (known[high] - known[low])
    return max(value, min(known.values()))


# ---- runs ---------------------------------------------------------------------------------------------------------


def record(contest: Contest, i: int, *, baseline: bool) -> tuple[list[Generation], list[Timed]]:
    """What the i-th run of the baseline or of the method gives, and its calls.

    Raises ValueError for a method without a case: it would silently count as free.
    """
    id, side = contest.method.id, contest.baseline if baseline else contest.own
    if not has_case(id):
        place = f"reference_impls/testing/cases/{id.replace('-', '_')}.py"
        raise ValueError(f"{id} has no case, so nothing says where its time goes: write {place}")
    same = side.module is contest.own.module  # it is compared with itself, otherwise called
    recorder = Recorder()
    with recorder.watching(side.module, side.options, case_of(id).costs if same else {}, contest.kind.model):
        return contest.runs(i)[0 if baseline else 1](), recorder.calls


# ---- the report ---------------------------------------------------------------------------------------------------


def measure(taxonomy: Taxonomy, plan: Plan, stored: Sequence[Unit] = ()) -> tuple[list[Unit], list[Prediction]]:
    """The unit costs, those that are `stored` among them, and a prediction for every row of the same plan's benchmark.

    Timed runs go round: one prompt after the other, and on each all methods, so that a slow moment hits all alike.
    """
    spare = 1 + timed_runs(plan)
    with one_thread():
        every = [contest for method in chosen(taxonomy, plan) for contest in contests(method, plan, spare)]
        timed = list[Timed]()
        for i in range(plan.runs, plan.runs + spare):
            for contest in every:
                plan.tick(f"timing {contest.method.id}")
                calls = [entry for which in (True, False) for entry in record(contest, i, baseline=which)[1]]
                timed += calls if i > plan.runs else []  # the first run of a model is slower
        units, known = Units(timed, stored), Known()
        return units.rows(), [prediction(contest, plan, units, known) for contest in every]


def timed_runs(plan: Plan) -> int:
    """How many prompts or sentences the calls are timed on, after one to warm up. Raises ValueError if none is left."""
    from reference_impls import zoo

    left = len(zoo.prompts()) - plan.prompts - 1
    if left < 1:
        most = len(zoo.prompts()) - 2
        raise ValueError(f"--prompts {plan.prompts} leaves no held-out prompt to time calls on: take at most {most}")
    return min(TIMED, left)


def prediction(contest: Contest, plan: Plan, units: Units, known: Known) -> Prediction:
    """Counted calls times unit costs, for the baseline and the method on each of the benchmark's prompts.

    `predicted` is the median of the ratios. `target`, `draft` and `rest` are what a step costs on the average, in plain
    steps of the baseline; a step is a pass of the target. `known` keeps the tokens and the expected seconds of the
    baseline's runs from contest to contest.
    """
    spent, ratios, found = dict.fromkeys(PARTS, 0.0), list[float](), list[Generation]()
    tokens, plain = 0, 0.0
    for i in range(plan.runs):
        plan.tick(f"counting {contest.method.id}")
        key = contest.shared or f"{contest.method.id}, {contest.title}", i
        if key not in known:
            results, calls = record(contest, i, baseline=True)
            known[key] = sum(len(r.tokens) for r in results), sum(units.seconds(call) for call, _ in calls)
        count, expected = known[key]
        tokens, plain = tokens + count, plain + expected
        results, calls = record(contest, i, baseline=False)
        found += results
        ratios.append(expected / sum(units.seconds(call) for call, _ in calls))
        for call, _ in calls:
            spent[call.part] += units.seconds(call)
    total, step = merged(found), plain / tokens
    return Prediction(
        id=contest.method.id,
        setting=contest.title,
        tokens_per_pass=total.tokens_per_pass,
        **{part: seconds / total.passes / step for part, seconds in spent.items()},
        predicted=statistics.median(ratios),
        runs=len(ratios),
    )


def runs_of(taxonomy: Taxonomy, plan: Plan) -> int:
    """How many runs of baseline and method `measure` will announce, for a progress bar."""
    rows = sum(len(settings_of(method)) for method in chosen(taxonomy, plan))
    return rows * (plan.runs + 1 + timed_runs(plan))
