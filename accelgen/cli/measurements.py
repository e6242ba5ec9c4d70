"""`accelgen bench` and `accelgen trace`: measure and record. What the site shows changes only when asked for."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress, TaskID
from rich.table import Table

from accelgen.cli.output import AsJson, check_output, console, progress, write, write_json
from accelgen.measuring import rows as typed
from accelgen.measuring.updating import check_alike, updated
from accelgen.project.files import read_json
from accelgen.project.places import CHECKOUT, RESULTS
from accelgen.site.predictions import problems
from accelgen.taxonomy.calls import BASELINES
from accelgen.taxonomy.finding import find_implemented, find_runnable
from accelgen.taxonomy.loading import load_taxonomy

if TYPE_CHECKING:
    from accelgen.measuring.contests import Plan

SPECULATIVE = "speculative-decoding-leviathan"
SPEEDUPS = "speedup: the baseline's wall time divided by the method's, median of paired runs and quartiles"
SIDES = "times are wall times, medians of rounds with quartiles; gain: over plain decoding on the same side"
STEPS = "target, drafts, rest: what a step costs, in steps of plain decoding"
FORMULAS = "expected and predicted: the formulas of accelgen.measuring.speedup; c and r in target passes"
GAP = 1  # between columns
PEERS: tuple[typed.Column[Any], ...] = (
    typed.CALL,
    typed.SETTING,
    *typed.PEER_TIMES,
    typed.EQUAL,
)
PREDICTIONS: tuple[typed.Column[Any], ...] = (
    typed.SETTING,
    *typed.COSTS,
    typed.PREDICTED,
)


@dataclass(frozen=True)
class Figures:
    """What was measured: rows of one kind under their columns, with what they depend on and what the words mean."""

    head: dict[str, Any]  # the command, the machine, the settings
    rows: Sequence[typed.Measured]
    columns: tuple[typed.Column[Any], ...]
    words: Sequence[str]
    more: dict[str, Any] = field(default_factory=dict)  # what is stored beside the rows

    def as_data(self) -> dict[str, Any]:
        """Plain data, as it is stored."""
        return self.head | self.more | {"rows": [row.as_data() for row in self.rows]}


Maker = Callable[["Plan", Callable[[int], None]], Figures]


def bench(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="All implemented by default.")] = None,
    prompts: Annotated[int, typer.Option(help="Held-out prompts, and held-out sentences.")] = 24,
    limit: Annotated[int, typer.Option(help="Tokens after each prompt.")] = 64,
    repeat: Annotated[int, typer.Option(help="How often each prompt is run, each time with another seed.")] = 1,
    peers: Annotated[
        bool, typer.Option("--peers", help="Measure beside transformers' generate instead, on the same weights.")
    ] = False,
    costs: Annotated[
        bool, typer.Option("--costs", help="Predict the speedups instead, from the costs of single calls.")
    ] = False,
    synthetic_acceptance: Annotated[
        str | None,
        typer.Option(
            metavar="R", help="What would be gained at this acceptance? One chance, or one for each guess: 0.9,0.8,0.6."
        ),
    ] = None,
    method: Annotated[str, typer.Option(metavar="ID", help="Whose drafter gets that acceptance.")] = SPECULATIVE,
    device: Annotated[str, typer.Option(help="Where the models run: cpu, cuda, cuda:1.")] = "cpu",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the JSON to this file.")] = None,
    store: Annotated[
        bool, typer.Option("--store", help="Replace the figures that the site of this checkout shows.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure every implemented method against its baseline, in paired runs on the zoo, and print the figures.

    --peers, --costs and --synthetic-acceptance measure something else instead. A file is written only with -o or
    --store; with --store the rows of some methods take the place of their own among those of all the others.
    """
    from accelgen.measuring.contests import Plan
    from reference_impls.core.device import find_device

    forced = None if synthetic_acceptance is None else _forced(method, synthetic_acceptance)
    place, taxonomy = find_device(device), load_taxonomy()
    some = [find_implemented(taxonomy, id).id for id in ids or ()]
    if some and (peers or forced):
        raise ValueError(f"{', '.join(some)}: --peers and --synthetic-acceptance do not ask which methods; name none")
    make, name = _chosen(peers=peers, costs=costs, forced=forced, device=device)
    output = _place(output, name, store=store)
    check_output(output)
    with progress() as bar:
        task = bar.add_task("loading the models")
        tick = functools.partial(_tick, bar, task)
        plan = Plan(prompts=prompts, limit=limit, repeat=repeat, ids=some, device=place, tick=tick)
        stored = read_json(output) if some and store and output else None
        if stored:
            check_alike(stored, _head(plan))
        report = make(plan, lambda total: bar.update(task, total=total))
    data = report.as_data()
    if stored:
        data = updated(stored, data, [method.id for method in taxonomy.methods])
    if as_json:
        write_json(report.as_data())
    else:
        _print(report)
    if output:
        write(json.dumps(data, indent=1, ensure_ascii=False) + "\n", output, is_json=True)
    _fail_for_broken_promises(report.rows)


def trace(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="All implemented by default.")] = None,
) -> None:
    """Record the runs that the pages show, with fixed inputs and seeds, and replace those that the site has."""
    from accelgen.measuring.traces import write_traces

    taxonomy = load_taxonomy()
    every = [*BASELINES, *(m.id for m in taxonomy.methods if m.is_implemented)]
    chosen = [find_runnable(taxonomy, id).id for id in ids] if ids else every
    with progress() as bar:
        for id in bar.track(chosen, description="recording"):
            for path in write_traces([id]):
                bar.console.print(f"wrote {path.name}", highlight=False)


def _tick(bar: Progress, task: TaskID, title: str) -> None:
    """One run more is under way."""
    bar.update(task, advance=1, description=title)


# ---- which measurement, and where it goes -------------------------------------------------------------------------


def _chosen(*, peers: bool, costs: bool, forced: Maker | None, device: str) -> tuple[Maker, str]:
    """What makes the report, and the name of its file among the results; none where the site has no place for it."""
    if peers + costs + (forced is not None) > 1:
        raise ValueError("--peers, --costs and --synthetic-acceptance are different measurements: choose one of them")
    where = "" if device == "cpu" else f"-{device.replace(':', '-')}"  # the processor's figures are never overwritten
    if peers and where:
        raise ValueError(f"--peers compares on the processor; leave out --device {device}")
    if forced is not None:
        return forced, ""
    if peers:
        return _peers, "peers.json"
    return (_costs, f"costs{where}.json") if costs else (_methods, f"bench{where}.json")


def _place(output: Path | None, name: str, *, store: bool) -> Path | None:
    """The file that is written, if any. Raises ValueError for one that cannot be."""
    if not store:
        return output
    if output is not None:
        raise ValueError("--store and -o name two places for the same figures: choose one of them")
    if not name:
        raise ValueError("the site does not show a forced acceptance: leave out --store, or name a file with -o")
    if not CHECKOUT:
        raise ValueError("--store replaces the figures of a checkout, and this is an installed package: use -o FILE")
    return RESULTS / name


def _methods(plan: Plan, expect: Callable[[int], None]) -> Figures:
    """Every method against its baseline; `expect` learns how many pairs there will be."""
    from accelgen.measuring import bench as measuring

    taxonomy = load_taxonomy()
    expect(measuring.pairs_of(taxonomy, plan))
    return Figures(_head(plan), list(measuring.measure(taxonomy, plan)), typed.BENCH, [SPEEDUPS])


def _costs(plan: Plan, expect: Callable[[int], None]) -> Figures:
    """The costs of single calls, and the speedups that follow; `expect` learns how many runs there will be."""
    from accelgen.measuring import costs

    taxonomy = load_taxonomy()
    expect(costs.runs_of(taxonomy, plan))
    stored = (read_json(RESULTS / "costs.json") or {}) if plan.ids and plan.device.type == "cpu" else {}
    units, rows = costs.measure(taxonomy, plan, [typed.Unit(**unit) for unit in stored.get("units", ())])
    more = {"units": [unit.as_data() for unit in units]}
    report = Figures(_head(plan, "--costs"), rows, PREDICTIONS, [STEPS], more)
    for problem in (
        problems(read_json(RESULTS / "bench.json"), report.as_data())
        if plan.device.type == "cpu" and not plan.ids
        else ()
    ):
        typer.echo(f"beside bench.json: {problem}", err=True)
    return report


def _forced(id: str, acceptance: str) -> Maker:
    """One method with a drafter that is right as often as one says."""
    from accelgen.measuring import synthetic

    method, chances = find_implemented(load_taxonomy(), id), synthetic.parse(acceptance)
    synthetic.check(method, chances)

    def make(plan: Plan, expect: Callable[[int], None]) -> Figures:
        expect(plan.runs)
        head = _head(plan, f"--synthetic-acceptance {acceptance} --method {id}")
        return Figures(head, [synthetic.measure(method, chances, plan)], typed.FORCED, [SPEEDUPS, FORMULAS])

    return make


def _peers(plan: Plan, expect: Callable[[int], None]) -> Figures:
    """Methods beside transformers; `expect` learns how many runs there will be."""
    from accelgen.measuring import peers
    from accelgen.measuring.kinds import Continue

    prompts, head, sides = Continue().inputs(plan.prompts), _head(plan, "--peers"), peers.line_up()
    head["versions"] |= peers.versions()
    head["settings"] |= peers.settings()
    expect(sides.runs(plan))
    return Figures(head, peers.measure(sides, prompts, plan), PEERS, [SIDES])


def _head(plan: Plan, *words: str) -> dict[str, Any]:
    """The command that a report comes from, the machine, and the settings."""
    from accelgen.measuring.machine import environment

    settings = {"prompts": plan.prompts, "limit": plan.limit, "repeat": plan.repeat}
    every = [f"--{name} {value}" for name, value in settings.items()] + list(words)
    every += [] if plan.device.type == "cpu" else [f"--device {plan.device}"]
    command = " ".join(["accelgen bench", *every])
    return {"command": command, **environment(plan.device), "settings": settings}


# ---- how it looks -------------------------------------------------------------------------------------------------


def _print(report: Figures) -> None:
    """The rows, each method's below its id, without columns that are empty, and what the words mean."""
    screen, shown = console(), [typed.cells(report.columns, row) for row in report.rows]
    used = [i for i in range(len(report.columns)) if any(row[i] for row in shown)]
    heads = [report.columns[i].head for i in used]
    cells = [[row[i] or "–" for i in used] for row in shown]
    widths = _widths([heads, *cells], screen.width)
    screen.print(_lines(widths, heads))
    for id, group in itertools.groupby(zip(report.rows, cells, strict=True), key=lambda pair: pair[0].id):
        screen.print(id, style="bold", highlight=False)
        screen.print(_lines(widths, *(row for _, row in group)))
    machine = report.head["machine"]
    screen.print(f"{machine['processor']}, {machine['threads']} thread; torch {report.head['versions']['torch']}")
    for sentence in report.words:
        screen.print(sentence)


def _widths(lines: Sequence[Sequence[str]], room: int) -> list[int]:
    """How wide each column is: no word is broken, and what is left is for the first that need more, in order."""
    columns = list(zip(*lines, strict=True))
    widths = [max(len(word) for text in column for word in text.split()) for column in columns]
    left = max(0, room - sum(widths) - GAP * (len(widths) - 1))
    for i, column in enumerate(columns):
        more = min(left, max(map(len, column)) - widths[i])
        widths[i], left = widths[i] + more, left - more
    return widths


def _lines(widths: Sequence[int], *rows: Sequence[str]) -> Table:
    """Rows under columns of these widths."""
    table = Table.grid(padding=(0, GAP, 0, 0))
    for width in widths:
        table.add_column(width=width)
    for row in rows:
        table.add_row(*row)
    return table


def _fail_for_broken_promises(rows: Sequence[typed.Measured]) -> None:
    """Exit 1 if an exact method wrote another text than its baseline."""
    found = [row for row in rows if isinstance(row, typed.Agreement) and row.as_promised is False]
    broken = [f"{row.id} ({row.setting})" for row in found]
    if broken:
        typer.echo(f"accelgen: not the promised output: {', '.join(broken)}", err=True)
        raise typer.Exit(1)
