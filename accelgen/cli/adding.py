"""`accelgen new` and `accelgen status`: begin a method, and see what it still lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from accelgen.cli.output import AsJson, console, progress, write_json
from accelgen.project.places import ROOT
from accelgen.taxonomy.finding import find
from accelgen.taxonomy.loading import TaxonomyError, load_taxonomy, suggestion
from accelgen.taxonomy.schema import Method, Taxonomy

if TYPE_CHECKING:
    from accelgen.workshop.status import Finding


def new(id: Annotated[str, typer.Argument(metavar="ID", help="A planned method of taxonomy.yaml.")]) -> None:
    """Begin a method: its file, its case and its test, from its entry in the taxonomy."""
    from accelgen.workshop.skeleton import begin

    method = _method(load_taxonomy(), id)
    for path in begin(method):
        typer.echo(f"wrote {path.relative_to(ROOT)}")
    typer.echo(f'next: write what is marked "to be written"; `accelgen status {id}` tells what is lacking')


def status(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="All implemented by default.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 where anything is lacking.")] = False,
    proofs: Annotated[bool, typer.Option(help="Run the proofs too, which takes seconds a method.")] = True,
    as_json: AsJson = False,
) -> None:
    """What methods still lack to be done, found by looking at files and by running the proofs."""
    from accelgen.workshop.status import Workbench
    from accelgen.workshop.status import status as look

    taxonomy = load_taxonomy()
    methods = [find(taxonomy, id) for id in ids] if ids else [m for m in taxonomy.methods if m.is_implemented]
    bench = Workbench(taxonomy)
    found: dict[str, list[Finding]] = {}
    with progress() as bar:
        for method in bar.track(methods, description="looking"):
            found[method.id] = list(look(method, bench, proofs=proofs))
    if as_json:
        write_json({id: [finding.to_dict() for finding in findings] for id, findings in found.items()})
    else:
        _print(found, whole=bool(ids))
    if strict and not all(finding.is_there for findings in found.values() for finding in findings):
        raise typer.Exit(1)


def _print(found: dict[str, list[Finding]], *, whole: bool) -> None:
    """Every part of the methods that were asked for; of all methods only what they lack."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for id, findings in found.items():
        lacking = [finding for finding in findings if not finding.is_there]
        table.add_row(Text(id, "bold"), Text("lacks", "yellow") if lacking else Text("done", "green"))
        for finding in findings if whole else lacking:
            mark = Text(finding.found) if finding.is_there else Text(finding.lacking, "yellow")
            table.add_row(f"  {finding.part}", mark)
    console().print(table)


def _method(taxonomy: Taxonomy, id: str) -> Method:
    try:
        return taxonomy.method(id)
    except KeyError:
        hint = suggestion(id, [method.id for method in taxonomy.methods])
        raise TaxonomyError(f"no method is called {id!r}{hint}; list it in taxonomy.yaml first") from None
