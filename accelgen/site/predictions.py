"""Prediction beside measurement: the benchmark's speedups against those that the costs of single calls promise.

`WHY` is the one place where deviations are explained. `accelgen bench --costs` and a test print what is missing there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from accelgen.exports.markdown import collapsible, join, section, table
from accelgen.measuring.rows import COSTS, PREDICTED, SPEEDUP, BenchRow, Prediction, Unit, Verdict, read, rows_of
from accelgen.site import charts
from accelgen.taxonomy.schema import Taxonomy

TOLERANCE = 0.10  # a deviation above a tenth is explained
SIZES = (1, 2, 3, 4, 5, 6, 7, 9, 11, 13, 17, 25)  # new tokens for which the cost of a pass is shown
# Method id -> why the measured speedup is not the predicted one, in a sentence.
WHY: dict[str, str] = {
    "specinfer": (
        "Of its time 8 % lies in no timed call, where a chain leaves 4 %: there its votes are merged into a tree, and"
        " the tree is laid out, in Python."
    ),
    "spectr": (
        "Of its time 8 % lies in no timed call, where a chain leaves 4 %: there its drafts are shared out over a tree,"
        " and the tree is laid out, in Python."
    ),
    "triforce": (
        "Of its time 8 % lies in no timed call, where a chain leaves 4 %: there two levels of drafts and a sliding"
        " window are kept, in Python."
    ),
    "staged-speculative-decoding": (
        "Of its time 10 % lies in no timed call, where a chain leaves 4 %: there its trees are grown, prepared and laid"
        " out, in Python."
    ),
    "lookahead-trie": (
        "The cause was not found. Its runs and the costs of its calls were timed at different hours, on a machine whose"
        " pace changes."
    ),
    "speculative-batching-synergy": (
        "The cause was not found. Its runs and the costs of its calls were timed at different hours, on a machine whose"
        " pace changes."
    ),
    "mask-predict": (
        "Between the calls of its two-layer model it chooses, masks and merges places with a dozen small tensor"
        " operations, which weigh most where a single pass writes the whole sentence."
    ),
}

LEAD = (
    "A pass of the target lets $\\tau$ tokens through and costs $r(k)$ for its $k$ new tokens; $d$ passes of a drafter"
    " at $c$ each go before it, and $v$ is drawing, masks and verification. All are counted in steps of plain decoding,"
    " so the speedup should be"
)
FORMULA = "$$\n\\frac{\\tau}{r(k) + d\\,c + v}.\n$$"
HOW = (
    "The costs are medians of single calls, timed where they stand inside the loops of all methods, on prompts that the"
    " measurement above does not use; on its own prompts the calls were only counted. So the method's own time does not"
    " enter its prediction. What happens between the calls is not in it either: the method's own Python, and whatever"
    " makes the same call slower in one loop than in another. Layers of the target that draft, as in LayerSkip, are"
    " counted with the target."
)


def compared(bench: Mapping[str, Any], costs: Mapping[str, Any]) -> list[Verdict]:
    """The benchmark's rows that have a prediction, with it. Those that deviate are numbered method by method."""
    promised = {row.key: row for row in rows_of(Prediction, costs)}
    rows = [Verdict(row, promised[row.key]) for row in rows_of(BenchRow, bench) if row.key in promised]
    numbers = {id: i for i, id in enumerate(dict.fromkeys(row.id for row in rows if _deviates(row)), 1)}
    return [replace(row, number=numbers[row.id]) if _deviates(row) else row for row in rows]


def _deviates(row: Verdict) -> bool:
    return abs(row.deviation) > TOLERANCE + 1e-9


def problems(
    bench: Mapping[str, Any] | None, costs: Mapping[str, Any] | None, why: Mapping[str, str] = WHY
) -> list[str]:
    """What is wrong with the stored figures, or else with their explanations, a sentence each; empty if nothing is."""
    if not bench or not costs:
        missing, command = (
            ("bench", "accelgen bench --store") if not bench else ("costs", "accelgen bench --costs --store")
        )
        return [f"measuring/results/{missing}.json is missing: make it with `{command}`"]
    if bench["settings"] != costs["settings"]:
        both = f"bench.json {bench['settings']}, costs.json {costs['settings']}"
        return [f"the settings differ: make both with the same --prompts, --limit and --repeat ({both})"]
    found = []
    ours = {row.key: row.tokens_per_pass for row in rows_of(BenchRow, bench)}
    theirs = {row.key: row.tokens_per_pass for row in rows_of(Prediction, costs)}
    for key in dict.fromkeys([*ours, *theirs]):
        if key not in ours or key not in theirs:
            where = "costs.json" if key in ours else "bench.json"
            found.append(f"{where} has no row for {', '.join(key)}: make it anew")
        elif abs(ours[key] - theirs[key]) > 0.02 * ours[key]:
            found.append(f"{', '.join(key)}: tokens per pass differ between bench.json and costs.json: make both anew")
    return found or _unexplained(compared(bench, costs), why)


def _unexplained(rows: Sequence[Verdict], why: Mapping[str, str]) -> list[str]:
    deviating: dict[str, list[str]] = {}
    for row in rows:
        if _deviates(row):
            figures = f"predicted {PREDICTED.figure(row.promised)}, measured {SPEEDUP.figure(row.measured)}"
            deviating.setdefault(row.id, []).append(f"{row.measured.setting}: {figures}, {row.deviation:+.0%}")
    place = "WHY of site/predictions.py"
    absent = [
        f"{id} deviates and {place} does not say why ({'; '.join(each)})"
        for id, each in deviating.items()
        if not why.get(id, "").strip()
    ]
    stale = [f"{place} explains {id}, which is as predicted to a tenth: remove it" for id in why if id not in deviating]
    return absent + stale


# ---- the page -----------------------------------------------------------------------------------------------------


def losses(id: str, bench: Mapping[str, Any] | None, costs: Mapping[str, Any] | None) -> str:
    """Why a method is slower than plain decoding where it is: what a pass gives, and what it costs."""
    rows = [row for row in compared(bench or {}, costs or {}) if row.id == id and row.measured.speedup < 1]
    if not rows:
        return ""
    lead = (
        "**Where it loses.** A pass of the target brings so many tokens, and with all that belongs to it costs so many"
        " steps of plain decoding. Plain decoding is faster where the cost is the larger number."
    )
    head = ("Setting", "Tokens per pass", "Cost in plain steps", "of it the target", "drafts", "the rest")
    cells = [
        (
            row.measured.setting,
            f"{row.measured.tokens_per_pass:.2f}",
            f"{row.promised.target + row.promised.draft + row.promised.rest:.2f}",
            *(f"{part:.2f}" for part in (row.promised.target, row.promised.draft, row.promised.rest)),
        )
        for row in rows
    ]
    return join([lead, table(head, cells), WHY.get(id, "") if any(row.number for row in rows) else ""])


def predicted(taxonomy: Taxonomy, bench: Mapping[str, Any] | None, costs: Mapping[str, Any] | None) -> str:
    """The fragment of docs/measured.md; nothing without both results."""
    if not bench or not costs:
        return "\n"
    names = {m.id: m.name for m in taxonomy.methods}
    families = {m.id: taxonomy.category(m.category).name for m in taxonomy.methods}
    rows = compared(bench, costs)
    data = (
        f"Costs taken on {costs['date']} with `{costs['command']}`."
        " [All costs and predictions as JSON](downloads/costs.json){ download }."
    )
    return join(
        [
            section("Prediction beside measurement", LEAD, FORMULA, HOW),
            charts.predictions(rows, names, families),
            _table(rows, names),
            _reasons(rows, names),
            "### What a call costs",
            _costs([read(Unit, unit) for unit in costs["units"]]),
            data,
        ]
    )


def _table(rows: Sequence[Verdict], names: Mapping[str, str]) -> str:
    steps = (f"{column.title} {column.symbol}" for column in COSTS)
    head = ("Method", "Setting", PREDICTED.title, "Measured", "Deviation", *steps)
    cells = [
        (
            f"[{names.get(row.id, row.id)}](methods/{row.id}.md)",
            _setting(row.measured),
            PREDICTED.figure(row.promised),
            SPEEDUP.figure(row.measured),
            _deviation(row),
            *(column.figure(row.promised) for column in COSTS),
        )
        for row in rows
    ]
    return table(head, cells)


def _deviation(row: Verdict) -> str:
    percent = f"{round(row.deviation, 2) + 0:+.0%}".replace("-", "−")  # + 0 makes an even -0 a plain one
    return percent + (f" ({row.number})" if row.number else "")


def _setting(row: BenchRow) -> str:
    """The temperature alone, as the tables above have the rest; or what a translation varies."""
    return row.setting if row.translates else row.setting.partition(",")[0]


def _reasons(rows: Sequence[Verdict], names: Mapping[str, str]) -> str:
    numbers = {row.number: row.id for row in rows if row.number}
    lines = [f"{n}. {names.get(id, id)}: {WHY.get(id, 'not explained yet.')}" for n, id in sorted(numbers.items())]
    return "Why the measured speedup is not the predicted one:\n\n" + "\n".join(lines) if lines else ""


def _costs(units: Sequence[Unit]) -> str:
    """r(k) as a table, and every other kind of call at the size at which it was seen most often."""
    passes = {
        way: {unit.new: unit.microseconds for unit in units if unit.kind == ("target", "forward", how)}
        for way, how in (("a chain", ""), ("a tree", "masked"))
    }
    one = passes["a chain"].get(1)
    if one is None:
        return ""
    sizes = [k for k in SIZES if any(k in each for each in passes.values())]
    rows = [(str(k), *(f"{each[k] / one:.2f}" if k in each else "–" for each in passes.values())) for k in sizes]
    kinds: dict[tuple[str, ...], Unit] = {}
    for unit in units:
        kinds[unit.kind] = max(kinds.get(unit.kind, unit), unit, key=lambda each: each.calls)
    calls = [
        (*kind, str(u.new), f"{u.microseconds:,.0f}", f"{u.microseconds / one:.3f}", str(u.calls))
        for kind, u in kinds.items()
    ]
    lead = (
        f"A pass of the target over one token takes {one / 1000:.2f} ms inside the loops. Over $k$ new"
        " tokens it takes so many times as long:"
    )
    head = ("Of", "Call", "How", "Tokens, rows or nodes", "Microseconds", "In target passes", "Calls timed")
    every = collapsible("Every kind of call, at the size that is most frequent", table(head, calls))
    return "\n\n".join([lead, table(("New tokens $k$", *(f"as {way}" for way in passes)), rows), every])
