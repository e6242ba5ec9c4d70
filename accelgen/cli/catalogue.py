"""What the taxonomy knows of a method: show, cite, copy, validate and export. Nothing here imports torch."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from accelgen import exports
from accelgen.cli.output import AsJson, OutFile, check_output, console, print_wrapped, write, write_json
from accelgen.exports.formulas import in_plain_text
from accelgen.measuring.kinds import KINDS
from accelgen.project.places import ROOT, TAXONOMY
from accelgen.site import docstring
from accelgen.site.results import read_results, site_address
from accelgen.taxonomy.calls import BASELINES, Baseline
from accelgen.taxonomy.finding import find_entry, find_runnable, resolve
from accelgen.taxonomy.loading import TaxonomyError, load_taxonomy
from accelgen.taxonomy.schema import Method

LLMS = "llms"
_PARAGRAPH = re.compile(r"\n\n|\n(?=\d+\. )")  # of a docstring, and the items of a list in it
LABEL = 11  # columns of the names of facts
FORMATS = [*exports.EXPORTS, LLMS]


def method_ids(incomplete: str) -> list[str]:
    """What completion in a shell offers for the beginning of an id: methods and baselines."""
    known = [method.id for method in load_taxonomy().methods] + list(BASELINES)
    return [id for id in known if id.startswith(incomplete)]


MethodId = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="The id, as `accelgen list` prints it, or a part of it.", autocompletion=method_ids
    ),
]


def source_file(entry: Method | Baseline) -> Path:
    """The file of the reference implementation, below the project's root."""
    return Path(*entry.module.split(".")).with_suffix(".py")


# ---- commands -----------------------------------------------------------------------------------------------------


def show(id: MethodId, as_json: AsJson = False) -> None:
    """Show what is known about a method: paper, promise, needs, and how to use its implementation."""
    entry = find_entry(load_taxonomy(), id)
    if as_json:
        write_json(entry.model_dump(mode="json") if isinstance(entry, Method) else _baseline_data(entry))
        return
    screen = console()
    screen.print(Text(entry.name, style="bold"), soft_wrap=True)
    for name, value in _facts(entry).items():
        print_wrapped(screen, in_plain_text(value), indent=LABEL, label=Text(name, style="cyan"))
    for title, items in _sections(entry):
        screen.print(Text(f"\n{title}", style="bold"))
        for item in items:
            print_wrapped(screen, in_plain_text(item), indent=2)


def cite(
    id: MethodId,
    page: Annotated[bool, typer.Option("--page", help="Cite the method's page instead of its paper.")] = False,
) -> None:
    """Print the BibTeX entry of a method's paper; its key is the method's id. A baseline has a page only."""
    taxonomy = load_taxonomy()
    entry = find_entry(taxonomy, id)
    if page or isinstance(entry, Baseline):
        write(exports.page_bibtex(entry, taxonomy), None)
    else:
        write(exports.method_bibtex(entry), None)


def copy(id: MethodId, output: OutFile = None) -> None:
    """Copy a method and what it uses of the core as one file that runs alone."""
    from accelgen.exports.bundle import bundle

    write(bundle(find_runnable(load_taxonomy(), id).id), output)


def export_hf(
    id: MethodId,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is new or empty.")],
) -> None:
    """Write a method as a custom_generate folder, with which transformers runs it on any decoder."""
    from accelgen.checkpoints.export_hf import export_hf as write_folder

    entry = find_runnable(load_taxonomy(), id)
    place = write_folder(entry.id, folder, entry if isinstance(entry, Method) else None)
    typer.echo(f"wrote {place}", err=True)


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
    format = resolve(format, dict.fromkeys(FORMATS, ()), "export")
    check_output(output)
    taxonomy = load_taxonomy()
    if format == LLMS:
        from accelgen.site.pages import pages

        text = pages(taxonomy, read_results(taxonomy, TAXONOMY))["llms.txt"]
    else:
        text = exports.EXPORTS[format].make(taxonomy, site_address())
    write(text, output, is_json=format != LLMS and "json" in exports.EXPORTS[format].file)


# ---- how it looks -------------------------------------------------------------------------------------------------


def _facts(entry: Method | Baseline) -> dict[str, str]:
    facts = {"id": entry.id, **(_paper_facts(entry) if isinstance(entry, Method) else {})}
    if isinstance(entry, Method) and not entry.is_implemented:
        facts["here"] = "not implemented yet"
    else:
        state = entry.implementation.status if isinstance(entry, Method) else "a baseline"
        facts["here"] = f"{source_file(entry)}, {state}"
        facts["call"] = _signature(entry)
        facts["run it"] = f"accelgen run {entry.id}"
    return {name: value for name, value in facts.items() if value}


def _paper_facts(method: Method) -> dict[str, str]:
    paper = method.paper
    place = paper.venue if str(paper.year) in paper.venue else f"{paper.venue} {paper.year}"
    return {
        "paper": f"{paper.title}. {paper.byline.removesuffix('.')}. {place}. {paper.url}",
        "family": f"{method.category}, {method.subcategory}",
        "guarantee": f"{method.guarantee}: {method.guarantee_reason}",
        "trained": method.trained,
        "needs": ", ".join(method.needs),
        "builds on": ", ".join(method.builds_on),
        "code": ", ".join(f"{code.url} ({code.licence})" for code in method.code),
    }


def _baseline_data(baseline: Baseline) -> dict[str, Any]:
    return {"id": baseline.id, "name": baseline.name, "call": baseline.call, "module": baseline.module} | {
        "sections": docstring.parse(_source(baseline)).sections
    }


def _source(entry: Method | Baseline) -> str:
    return (ROOT / source_file(entry)).read_text(encoding="utf-8")


def _signature(entry: Method | Baseline) -> str:
    """How it is called, read from the source so that torch need not be imported."""
    tree, function = ast.parse(_source(entry)), KINDS[entry.call].function
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
    return f"{function}({ast.unparse(found[0].args)})" if found else ""


def _sections(entry: Method | Baseline) -> list[tuple[str, list[str]]]:
    return _entry_sections(entry) if isinstance(entry, Method) else _baseline_sections(entry)


def _baseline_sections(baseline: Baseline) -> list[tuple[str, list[str]]]:
    sections = docstring.parse(_source(baseline)).sections.items()
    return [(title, _PARAGRAPH.split(text)) for title, text in sections if title != "Example"]


def _entry_sections(method: Method) -> list[tuple[str, list[str]]]:
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
