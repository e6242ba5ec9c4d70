"""What the taxonomy knows: list, show, cite, copy, validate and export. Nothing here imports torch."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from accelgen import exports
from accelgen.cli.output import AsJson, OutFile, console, write, write_json
from accelgen.project.places import ROOT, TAXONOMY
from accelgen.site.results import read_results, site_address
from accelgen.taxonomy.calls import BASELINE
from accelgen.taxonomy.loading import TaxonomyError, load_taxonomy, suggestion
from accelgen.taxonomy.schema import Guarantee, ImplementationStatus, Method, Taxonomy

LLMS = "llms"
FORMATS = [*exports.EXPORTS, LLMS]
MethodId = Annotated[str, typer.Argument(metavar="ID", help="The method's id, as `accelgen list` prints it.")]


def find(taxonomy: Taxonomy, id: str) -> Method:
    """The method of this id. Raises ValueError with the nearest ids for an unknown one."""
    known = {method.id: method for method in taxonomy.methods}
    if id not in known:
        raise ValueError(f"no method is called {id!r}{suggestion(id, known) or '; `accelgen list` shows all'}")
    return known[id]


def implemented(taxonomy: Taxonomy, id: str) -> Method:
    """The method of this id, if it can be run. Raises ValueError otherwise."""
    method = find(taxonomy, id)
    if not method.is_implemented:
        hint = f"`accelgen list --status {ImplementationStatus.PROVED}` shows what can be run, copied and verified"
        raise ValueError(f"{id} is not implemented yet; {hint}")
    return method


def source_file(method: Method) -> Path:
    """The file of the reference implementation, below the project's root."""
    return Path(*method.module.split(".")).with_suffix(".py")


# ---- commands -----------------------------------------------------------------------------------------------------


def list_methods(
    category: Annotated[str | None, typer.Option(help="Only this category, by its id.")] = None,
    status: Annotated[ImplementationStatus | None, typer.Option(help="Only this state of implementation.")] = None,
    guarantee: Annotated[Guarantee | None, typer.Option(help="Only this promise about the output.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the methods, all or those that fit."""
    taxonomy = load_taxonomy()
    names = {c.id: c.name for c in taxonomy.categories}
    if category is not None and category not in names:
        raise ValueError(f"no category is called {category!r}{suggestion(category, names)}")
    found = [
        method
        for method in taxonomy.methods
        if category in (None, method.category)
        and status in (None, method.implementation.status)
        and guarantee in (None, method.guarantee)
    ]
    if as_json:
        write_json([_summary(method) for method in found])
        return
    screen = console()
    for id, name in names.items():
        rows = [method for method in found if method.category == id]
        if rows:
            screen.print(_table(f"{name} ({id})", rows))
    screen.print(f"{len(found)} of {len(taxonomy.methods)} methods")


def show(id: MethodId, as_json: AsJson = False) -> None:
    """Show what is known about a method: paper, promise, needs, and how to use its implementation."""
    method = find(load_taxonomy(), id)
    if as_json:
        write_json(method.model_dump(mode="json"))
        return
    screen = console()
    screen.print(Text(method.name, style="bold"), soft_wrap=True)
    screen.print(_facts(method))
    for title, items in _sections(method):
        screen.print(Text(f"\n{title}", style="bold"))
        for item in items:
            screen.print(Padding(Text(item), (0, 0, 0, 2)))


def cite(
    id: MethodId,
    page: Annotated[bool, typer.Option("--page", help="Cite the method's page instead of its paper.")] = False,
) -> None:
    """Print the BibTeX entry of a method's paper; its key is the method's id."""
    taxonomy = load_taxonomy()
    method = find(taxonomy, id)
    write(exports.page_bibtex(method, taxonomy) if page else exports.method_bibtex(method), None)


def copy(id: MethodId, output: OutFile = None) -> None:
    """Copy a method and what it uses of the core as one file that runs alone."""
    from accelgen.exports.bundle import bundle

    method = implemented(load_taxonomy(), id)
    write(bundle(method.id), output)


def export_hf(
    id: MethodId,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is new or empty.")],
) -> None:
    """Write a method as a custom_generate folder, with which transformers runs it on any decoder."""
    from accelgen.checkpoints.export_hf import export_hf as write_folder

    method = None if id == BASELINE else implemented(load_taxonomy(), id)
    typer.echo(f"wrote {write_folder(id, folder, method)}", err=True)


def validate(
    file: Annotated[Path | None, typer.Argument(help="The file; the project's own taxonomy.yaml by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check a taxonomy file; the first mistake is told with its line and field."""
    path = file or TAXONOMY
    report: dict[str, Any] = {"file": path.name, "valid": True}
    try:
        taxonomy = load_taxonomy(path)
    except TaxonomyError as error:
        if not as_json:
            raise
        write_json(report | {"valid": False, "error": str(error)})
        raise typer.Exit(2) from None
    report |= {"categories": len(taxonomy.categories), "methods": len(taxonomy.methods)}
    report |= {"implemented": sum(method.is_implemented for method in taxonomy.methods)}
    if as_json:
        write_json(report)
    else:
        counts = "{methods} methods in {categories} categories, {implemented} implemented".format(**report)
        typer.echo(f"{path.name} is valid: {counts}")


def export(
    format: Annotated[str, typer.Argument(help=f"One of {', '.join(FORMATS)}.")],
    output: OutFile = None,
) -> None:
    """Export the taxonomy for programs, bibliographies, editors and language models."""
    if format not in FORMATS:
        raise ValueError(f"no export is called {format!r}{suggestion(format, FORMATS)}")
    taxonomy = load_taxonomy()
    if format == LLMS:
        from accelgen.site.pages import pages

        text = pages(taxonomy, read_results(taxonomy, TAXONOMY))["llms.txt"]
    else:
        text = exports.EXPORTS[format].make(taxonomy, site_address())
    write(text, output, is_json=format != LLMS and "json" in exports.EXPORTS[format].file)


# ---- how it looks -------------------------------------------------------------------------------------------------


def _summary(method: Method) -> dict[str, Any]:
    fields = {"id", "name", "category", "subcategory", "in_survey", "guarantee"}
    paper = {"year": method.paper.year, "venue": method.paper.venue, "url": method.paper.url}
    return method.model_dump(mode="json", include=fields) | paper | {"status": method.implementation.status}


def _table(title: str, methods: list[Method]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("id", no_wrap=True, style="cyan")
    table.add_column("name", overflow="fold")
    table.add_column("year", no_wrap=True)
    table.add_column("guarantee", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for m in methods:
        state = Text(m.implementation.status, style="green" if m.is_implemented else "dim")
        table.add_row(m.id, m.name, str(m.paper.year), m.guarantee, state)
    table.add_row()
    return table


def _facts(method: Method) -> Table:
    paper = method.paper
    place = paper.venue if str(paper.year) in paper.venue else f"{paper.venue} {paper.year}"
    facts = {
        "id": method.id,
        "paper": f"{paper.title}. {paper.byline.removesuffix('.')}. {place}. {paper.url}",
        "family": f"{method.category}, {method.subcategory}",
        "guarantee": f"{method.guarantee}: {method.guarantee_reason}",
        "trained": method.trained,
        "needs": ", ".join(method.needs),
        "builds on": ", ".join(method.builds_on),
        "code": ", ".join(f"{code.url} ({code.licence})" for code in method.code),
        "here": "not implemented yet",
    }
    if method.is_implemented:
        facts["here"] = f"{source_file(method)}, {method.implementation.status}"
        facts["call"] = _signature(method)
        facts["run it"] = f"accelgen run {method.id}"
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if value:
            table.add_row(name, Text(value))
    return table


def _signature(method: Method) -> str:
    """How `generate` is called, read from the source so that torch need not be imported."""
    tree = ast.parse((ROOT / source_file(method)).read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "generate"]
    return f"generate({ast.unparse(found[0].args)})" if found else ""


def _sections(method: Method) -> list[tuple[str, list[str]]]:
    reported = [f"{r.figure} ({r.setup}; {r.place}, {r.status}) {r.url}" for r in method.reported]
    sections = [
        ("Principle", [method.principle] if method.principle else []),
        ("Advantages", method.advantages),
        ("Limitations", method.limitations),
        ("When to use it", method.when_to_use),
        ("When not", method.when_not),
        ("Reported by others, not by us", reported),
        ("In production", [f"{p.engine}: {p.switch} ({p.version}) {p.url}" for p in method.production]),
        ("Notes", method.notes),
    ]
    return [(title, items) for title, items in sections if items]
