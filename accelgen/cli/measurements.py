"""`accelgen bench` and `accelgen trace`: measure and record, and store the results where the site reads them."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress, TaskID
from rich.table import Table

from accelgen.cli.output import AsJson, check_output, console, progress, write, write_json
from accelgen.project.files import read_json
from accelgen.project.places import RESULTS
from accelgen.site.predictions import problems
from accelgen.taxonomy.calls import BASELINE
from accelgen.taxonomy.finding import find_implemented, find_runnable
from accelgen.taxonomy.loading import load_taxonomy

if TYPE_CHECKING:
    from accelgen.measuring.bench import Plan

COLUMNS = {  # key of a row -> title; the quartiles join the median, the counts join each other
    "id": "method",
    "setting": "setting",
    "tokens_per_pass": "tokens/pass",
    "acceptance": "acceptance",
    "mean_layers": "layers",
    "speedup": "speedup (quartiles)",
    "output": "output",
}
PEER_COLUMNS = {  # the same for comparisons with transformers
    "id": "ours",
    "call": "transformers",
    "setting": "setting",
    "ours_tokens_per_pass": "tokens/pass",
    "theirs_tokens_per_pass": "theirs",
    "ours_gain": "gain",
    "theirs_gain": "theirs",
    "speedup": "speedup (quartiles)",
    "output": "output",
}
COST_COLUMNS = {  # the same for predictions: the parts of a step, in steps of plain decoding
    "id": "method",
    "setting": "setting",
    "tokens_per_pass": "tokens/pass",
    "target": "target",
    "draft": "drafts",
    "rest": "rest",
    "predicted": "predicted speedup",
}
FORCED_COLUMNS = {  # and for a forced acceptance
    "id": "method",
    "gamma": "gamma",
    "tokens_per_pass": "tokens/pass",
    "expected_tokens": "expected",
    "cost_ratio": "drafter pass c",
    "verify_cost": "target pass r",
    "speedup": "speedup (quartiles)",
    "predicted": "predicted",
    "output": "output",
}
SPECULATIVE = "speculative-decoding-leviathan"
Maker = Callable[["Plan", Callable[[int], None]], dict[str, Any]]


def bench(
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
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where the JSON goes, if not to the site's results.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure every implemented method against autoregressive decoding, in paired runs on the zoo.

    --peers, --costs and --synthetic-acceptance measure something else instead; the last is shown and not stored.
    """
    from accelgen.measuring import bench as measuring
    from reference_impls.core import device as devices

    forced = None if synthetic_acceptance is None else _forced(method, synthetic_acceptance)
    place = devices.find_device(device)
    check_output(output)
    make, name = _chosen(peers=peers, costs=costs, forced=forced, device=device)
    with progress() as bar:
        task = bar.add_task("loading the models")
        tick = functools.partial(_tick, bar, task)
        plan = measuring.Plan(prompts=prompts, limit=limit, repeat=repeat, device=place, tick=tick)
        report = make(plan, lambda total: bar.update(task, total=total))
    output = output or (RESULTS / name if name else None)
    if output:
        write(json.dumps(report, indent=1, ensure_ascii=False) + "\n", output, is_json=True)
    if as_json:
        write_json(report)
    else:
        _print(report)
    broken = [f"{row['id']} ({row['setting']})" for row in report["rows"] if row.get("as_promised") is False]
    if broken:
        typer.echo(f"accelgen: not the promised output: {', '.join(broken)}", err=True)
        raise typer.Exit(1)


def trace(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="All implemented by default.")] = None,
) -> None:
    """Record the runs that the pages show, with fixed prompts and seeds."""
    from accelgen.measuring.traces import write_traces

    taxonomy = load_taxonomy()
    every = [BASELINE, *(m.id for m in taxonomy.methods if m.is_implemented)]
    chosen = [find_runnable(taxonomy, id).id for id in ids] if ids else every
    with progress() as bar:
        for id in bar.track(chosen, description="recording"):
            for path in write_traces([id]):
                bar.console.print(f"wrote {path.name}", highlight=False)


def _tick(bar: Progress, task: TaskID, title: str) -> None:
    """One run more is under way."""
    bar.update(task, advance=1, description=title)


def _chosen(*, peers: bool, costs: bool, forced: Maker | None, device: str) -> tuple[Maker, str]:
    """What makes the report, and the name of its file among the results; none where it is only shown."""
    if peers + costs + (forced is not None) > 1:
        raise ValueError("--peers, --costs and --synthetic-acceptance are different measurements: choose one of them")
    where = "" if device == "cpu" else f"-{device.replace(':', '-')}"  # the processor's figures are never overwritten
    if peers and where:
        raise ValueError(f"--peers compares on the processor; leave out --device {device}")
    if forced is not None:
        return forced, ""
    return (
        (_peers, "peers.json")
        if peers
        else (_costs, f"costs{where}.json")
        if costs
        else (_methods, f"bench{where}.json")
    )


def _methods(plan: Plan, expect: Callable[[int], None]) -> dict[str, Any]:
    """Every method against plain decoding; `expect` learns how many pairs there will be."""
    from accelgen.measuring import bench as measuring

    taxonomy = load_taxonomy()
    expect(measuring.pairs_of(taxonomy, plan))
    return _head(plan) | {"rows": list(measuring.measure(taxonomy, plan))}


def _costs(plan: Plan, expect: Callable[[int], None]) -> dict[str, Any]:
    """The costs of single calls, and the speedups that follow; `expect` learns how many runs there will be."""
    from accelgen.measuring import costs

    taxonomy = load_taxonomy()
    expect(costs.runs_of(taxonomy, plan))
    report = _head(plan, "--costs") | costs.measure(taxonomy, plan)
    for problem in problems(read_json(RESULTS / "bench.json"), report) if plan.device.type == "cpu" else ():
        typer.echo(f"beside bench.json: {problem}", err=True)
    return report


def _forced(id: str, acceptance: str) -> Maker:
    """One method with a drafter that is right as often as one says."""
    from accelgen.measuring import synthetic

    method, chances = find_implemented(load_taxonomy(), id), synthetic.parse(acceptance)
    synthetic.check(method, chances)

    def make(plan: Plan, expect: Callable[[int], None]) -> dict[str, Any]:
        expect(plan.prompts * plan.repeat)
        row = synthetic.measure(method, chances, plan)
        return _head(plan, f"--synthetic-acceptance {acceptance} --method {id}") | {"rows": [row]}

    return make


def _head(plan: Plan, *words: str) -> dict[str, Any]:
    """The command that a report comes from, the machine, and the settings."""
    from accelgen.measuring import bench as measuring

    settings = {"prompts": plan.prompts, "limit": plan.limit, "repeat": plan.repeat}
    every = [f"--{name} {value}" for name, value in settings.items()] + list(words)
    every += [] if plan.device.type == "cpu" else [f"--device {plan.device}"]
    command = " ".join(["accelgen bench", *every])
    return {"command": command, **measuring.environment(plan.device), "settings": settings}


def _peers(plan: Plan, expect: Callable[[int], None]) -> dict[str, Any]:
    """Methods beside transformers; `expect` learns how many runs there will be."""
    from accelgen.measuring import bench as measuring
    from accelgen.measuring import peers
    from reference_impls import zoo

    prompts = [zoo.encode(text) for text in measuring.take(zoo.prompts(), plan.prompts, "held-out prompts")]
    report, sides = _head(plan, "--peers"), peers.line_up()
    report["versions"] |= peers.versions()
    report["settings"] |= peers.settings()
    expect(sides.runs(plan))
    return report | {"rows": peers.measure(sides, prompts, plan)}


def _print(report: dict[str, Any]) -> None:
    beside = "theirs" in report["rows"][0]
    columns = PEER_COLUMNS if beside else _columns(report["rows"][0])
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in columns.values():
        table.add_column(title, overflow="fold")
    for found in report["rows"]:
        row = _beside(found) if beside else found
        cells = row | {"speedup": _speedup(row), "output": _output(row)}
        table.add_row(*(_cell(cells.get(key)) for key in columns))
    screen = console()
    screen.print(table)
    machine = report["machine"]
    screen.print(f"{machine['processor']}, {machine['threads']} thread; torch {report['versions']['torch']}")
    baseline = "transformers'" if beside else "the baseline's"
    if columns is COST_COLUMNS:
        screen.print("target, drafts, rest: what a step costs, in steps of plain decoding")
    else:
        screen.print(f"speedup: {baseline} wall time divided by the method's, median of paired runs")
    if columns is FORCED_COLUMNS:
        screen.print("expected and predicted: the formulas of accelgen.measuring.speedup; c and r in target passes")


def _columns(row: dict[str, Any]) -> dict[str, str]:
    """The columns of a benchmark, of a prediction, or of a forced acceptance, by what a row has."""
    return FORCED_COLUMNS if "verify_cost" in row else COST_COLUMNS if "predicted" in row else COLUMNS


def _beside(row: dict[str, Any]) -> dict[str, Any]:
    """A comparison with transformers as one flat row."""
    flat = row | {"call": row["theirs"]["call"]}
    for side in ("ours", "theirs") if "error" not in row else ():
        flat[f"{side}_tokens_per_pass"] = row[side]["tokens_per_pass"]
        flat[f"{side}_gain"] = row[side].get("over_plain", {}).get("speedup")
    return flat


def _speedup(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"failed: {row['error']}"
    if "speedup" not in row:
        return "–"
    return "{speedup:.2f} ({speedup_q1:.2f}–{speedup_q3:.2f}, n {pairs})".format(**row)


def _output(row: dict[str, Any]) -> str:
    """What is known about the text itself."""
    if "exact_match" in row:
        return "exact match {exact_match:.0%}, autoregressive {exact_match_autoregressive:.0%}".format(**row)
    if "texts" not in row:
        return "–"
    ties = f", {row['rounding_ties']} by rounding" if row.get("rounding_ties") else ""
    return "{identical_texts}/{texts} identical, {identical_tokens:.1%} of tokens".format(**row) + ties


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
