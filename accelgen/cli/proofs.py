"""`accelgen verify`: prove a method of this project, or a port of one in somebody's own code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from accelgen.cli.output import AsJson, console, waiting, write_json
from accelgen.taxonomy.finding import find_implemented
from accelgen.taxonomy.loading import load_taxonomy

if TYPE_CHECKING:
    from reference_impls.testing import Report

MARKS = {"passed": Text("proved", "green"), "failed": Text("FAILED", "bold red"), "skipped": Text("skipped", "yellow")}


def verify(
    subject: Annotated[str, typer.Argument(metavar="ID|MODULE:FUNCTION", help="A method, or your own generate.")],
    port_of: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Yours is a port of this method: its suites and scenes are used."),
    ] = None,
    suite: Annotated[list[str] | None, typer.Option(help="Only this suite; may be repeated.")] = None,
    as_json: AsJson = False,
) -> None:
    """Prove every claim about a method, and print what was proved. Exit code 1 if a claim is false."""
    own = ":" not in subject
    if own and port_of:
        raise typer.BadParameter(f"{subject} is a method of this project: leave out --port-of")
    named = subject if own else port_of
    method = find_implemented(load_taxonomy(), named) if named else None
    subject = method.id if own and method else subject
    with waiting(f"proving {subject}"):
        from accelgen.workshop.proving import proof

        report = proof(subject, method, suite)
    if as_json:
        write_json(report.to_dict())
    else:
        _print(report)
    if not report.passed:
        raise typer.Exit(1)


def _print(report: Report) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("suite", "check", "", "claim"):
        table.add_column(title, overflow="fold")
    for result in report.results:
        claim = Text(result.claim)
        if result.message:
            claim.append(f"\n{result.message}", style="yellow" if result.outcome == "skipped" else "red")
        table.add_row(result.suite, Text(result.check), MARKS[result.outcome], claim)
    screen = console()
    screen.print(table)
    counts = [(kind, sum(result.outcome == kind for result in report.results)) for kind in MARKS]
    shown = ", ".join(f"{count} {MARKS[kind].plain.lower()}" for kind, count in counts if count)
    screen.print(f"{report.subject}: {shown or 'nothing was checked'}")
