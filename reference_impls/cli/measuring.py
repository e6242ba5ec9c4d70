"""`accelgen bench` and `accelgen trace`: measure and record, and store the results where the site reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from reference_impls.cli.catalogue import implemented
from reference_impls.cli.output import AsJson, console, progress, replace, write_json
from reference_impls.knowledge.loading import load_taxonomy
from reference_impls.knowledge.results import BASELINE, RESULTS

COLUMNS = {  # key of a row -> title; the quartiles join the median, the counts join each other
    "id": "method",
    "setting": "setting",
    "tokens_per_pass": "tokens/pass",
    "acceptance": "acceptance",
    "mean_layers": "layers",
    "speedup": "speedup (quartiles)",
    "output": "output",
}


def bench(
    prompts: Annotated[int, typer.Option(help="Held-out prompts, and held-out sentences.")] = 24,
    limit: Annotated[int, typer.Option(help="Tokens after each prompt.")] = 64,
    repeat: Annotated[int, typer.Option(help="How often each prompt is run, each time with another seed.")] = 1,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the JSON goes.")] = RESULTS / "bench.json",
    as_json: AsJson = False,
) -> None:
    """Measure every implemented method against autoregressive decoding, in paired runs on the zoo."""
    from reference_impls import bench as measuring

    taxonomy, settings = load_taxonomy(), {"prompts": prompts, "limit": limit, "repeat": repeat}
    with progress() as bar:
        task = bar.add_task("loading the models")
        plan = measuring.Plan(**settings, tick=lambda title: bar.update(task, advance=1, description=title))
        bar.update(task, total=measuring.pairs_of(taxonomy, plan))
        rows = list(measuring.measure(taxonomy, plan))
    command = "accelgen bench " + " ".join(f"--{name} {value}" for name, value in settings.items())
    report = {"command": command, **measuring.environment(), "settings": settings, "rows": rows}
    output.parent.mkdir(parents=True, exist_ok=True)
    replace(output, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    if as_json:
        write_json(report)
    else:
        _print(report)
        typer.echo(f"wrote {output}", err=True)
    broken = [f"{row['id']} ({row['setting']})" for row in rows if row.get("as_promised") is False]
    if broken:
        typer.echo(f"accelgen: not the promised output: {', '.join(broken)}", err=True)
        raise typer.Exit(1)


def trace(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="All implemented by default.")] = None,
) -> None:
    """Record the runs that the pages show, with fixed prompts and seeds."""
    from reference_impls.knowledge.traces import write_traces

    taxonomy = load_taxonomy()
    every = [BASELINE, *(m.id for m in taxonomy.methods if m.is_implemented)]
    chosen = [id if id == BASELINE else implemented(taxonomy, id).id for id in ids] if ids else every
    with progress() as bar:
        for id in bar.track(chosen, description="recording"):
            for path in write_traces([id]):
                bar.console.print(f"wrote {path.name}", highlight=False)


def _print(report: dict[str, Any]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in COLUMNS.values():
        table.add_column(title, overflow="fold")
    for row in report["rows"]:
        cells = row | {"speedup": _speedup(row), "output": _output(row)}
        table.add_row(*(_cell(cells.get(key)) for key in COLUMNS))
    screen = console()
    screen.print(table)
    machine = report["machine"]
    screen.print(f"{machine['processor']}, {machine['threads']} thread; torch {report['versions']['torch']}")
    screen.print("speedup: the baseline's wall time divided by the method's, median of paired runs")


def _speedup(row: dict[str, Any]) -> str:
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
