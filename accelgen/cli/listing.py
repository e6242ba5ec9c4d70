"""`accelgen list` and `accelgen search`: methods as lines that fit the place where they are read."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from accelgen.cli.output import AsJson, console, print_wrapped, write_json
from accelgen.taxonomy.finding import find_group, search
from accelgen.taxonomy.loading import load_taxonomy
from accelgen.taxonomy.schema import Guarantee, ImplementationStatus, Method

COLUMNS = ("id", "name", "year", "guarantee", "status")
DISPENSABLE = ("guarantee", "year", "status")  # what a narrower window leaves out, first to last
NAME = 30  # columns that a name needs at least; the few longer ones go on in the next line
GAP = 2
FOUND = 20  # hits that are shown


def list_methods(
    category: Annotated[str | None, typer.Option(help="Only this category, or this branch of one.")] = None,
    status: Annotated[ImplementationStatus | None, typer.Option(help="Only this state of implementation.")] = None,
    guarantee: Annotated[Guarantee | None, typer.Option(help="Only this promise about the output.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the methods, all or those that fit."""
    taxonomy = load_taxonomy()
    group = category if category is None else find_group(taxonomy, category)
    found = [
        method
        for method in taxonomy.methods
        if group in (None, method.category, method.subcategory)
        and status in (None, method.implementation.status)
        and guarantee in (None, method.guarantee)
    ]
    if as_json:
        write_json([_summary(method) for method in found])
        return
    screen = console()
    families = {f"{c.name} ({c.id})": [m for m in found if m.category == c.id] for c in taxonomy.categories}
    _print(screen, {title: methods for title, methods in families.items() if methods})
    screen.print(f"{len(found)} of {len(taxonomy.methods)} methods", soft_wrap=True)


def search_taxonomy(
    words: Annotated[list[str], typer.Argument(metavar="WORDS", help="What must stand in it, all of it.")],
    as_json: AsJson = False,
) -> None:
    """Search methods, branches and the glossary, best first. Exit code 1 if nothing is found."""
    hits = search(load_taxonomy(), " ".join(words))
    if as_json:
        write_json([{"kind": h.kind, "id": h.id, "name": h.name, "sentence": h.sentence} for h in hits])
    elif not hits:
        typer.echo(
            f"accelgen: nothing holds all of {' '.join(words)!r}; try fewer words, or the beginning of one", err=True
        )
    else:
        screen = console()
        for hit in hits[:FOUND]:
            screen.print(Text.assemble((hit.id, "cyan"), f"  {hit.name} ({hit.kind})"), soft_wrap=True)
            print_wrapped(screen, Text(hit.sentence, style="dim"), indent=2)
        if len(hits) > FOUND:
            screen.print(f"and {len(hits) - FOUND} more; add a word", soft_wrap=True)
    if not hits:
        raise typer.Exit(1)


# ---- how it looks -------------------------------------------------------------------------------------------------


def _summary(method: Method) -> dict[str, Any]:
    fields = {"id", "name", "category", "subcategory", "in_survey", "guarantee"}
    paper = {"year": method.paper.year, "venue": method.paper.venue, "url": method.paper.url}
    return method.model_dump(mode="json", include=fields) | paper | {"status": method.implementation.status}


def _cells(method: Method) -> dict[str, Text]:
    state = Text(method.implementation.status, style="green" if method.is_implemented else "dim")
    plain = {"name": method.name, "year": str(method.paper.year), "guarantee": method.guarantee}
    return {"id": Text(method.id, style="cyan"), **{key: Text(value) for key, value in plain.items()}, "status": state}


def _print(screen: Console, families: dict[str, list[Method]]) -> None:
    """One line a method, with the columns that fit; a paragraph a method where not even id and name do."""
    rows = {title: [_cells(method) for method in methods] for title, methods in families.items()}
    widths = _widths([row for family in rows.values() for row in family], screen.width)
    for title, family in rows.items():
        print_wrapped(screen, Text(title, style="bold"), indent=0)
        if widths:
            screen.print(_line({name: Text(name, style="bold") for name in widths}, widths), soft_wrap=True)
        for row in family:
            if widths:
                screen.print(_line(row, widths), soft_wrap=True)
                continue
            screen.print(row["id"], soft_wrap=True)
            print_wrapped(screen, ", ".join(str(row[name]) for name in COLUMNS[1:]), indent=2)
        screen.print()
    hidden = [name for name in COLUMNS if widths and name not in widths]
    if hidden:
        print_wrapped(screen, f"not shown for want of columns: {', '.join(hidden)}", indent=0)


def _widths(rows: list[dict[str, Text]], width: int) -> dict[str, int]:
    """The columns that fit into `width`, with theirs; none where id and name do not fit beside each other."""
    full = {name: max(len(name), *(row[name].cell_len for row in rows)) for name in COLUMNS} if rows else {}
    for count in range(len(DISPENSABLE) + 1):
        shown = {name: size for name, size in full.items() if name not in DISPENSABLE[:count]}
        spare = width - sum(shown.values()) - GAP * (len(shown) - 1)
        if shown and spare + shown["name"] >= min(NAME, shown["name"]):
            return shown | {"name": min(shown["name"], shown["name"] + spare)}
    return {}


def _line(row: dict[str, Text], widths: dict[str, int]) -> Text:
    """The cells below each other's titles, without blanks at the end; a long name goes on in lines of its own."""
    first, *others = row["name"].wrap(Console(width=widths["name"]), widths["name"])
    cells, line = row | {"name": first}, Text()
    for name, size in widths.items():
        line = Text.assemble(line, cells[name], " " * (size - cells[name].cell_len + GAP))
    line.rstrip()
    return Text("\n").join([line, *(Text(" " * (widths["id"] + GAP)) + other for other in others)])
