"""The trained models: which there are, what is known about them, and how each is trained anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from accelgen.cli.output import AsJson, console, waiting, write_json
from accelgen.taxonomy.loading import suggestion

app = typer.Typer(no_args_is_help=True, help="The trained models: list them, look at one, train one anew.")
ModelName = Annotated[str, typer.Argument(metavar="NAME", help="A model, as `accelgen zoo list` prints it.")]


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the models and check that each file is the one that was trained."""
    with waiting("checking the models"):
        rows = _rows()
    if as_json:
        write_json(rows)
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("model", "parameters", "bytes", "file"):
        table.add_column(title, justify="right" if title in ("parameters", "bytes") else "left", overflow="fold")
    for row in rows:
        style = "green" if row["file"] == "intact" else "red"
        numbers = (f"{row[key]:,}" if row[key] is not None else "–" for key in ("parameters", "bytes"))
        table.add_row(row["name"], *numbers, Text(row["file"], style=style))
    console().print(table)


@app.command()
def show(name: ModelName, as_json: AsJson = False) -> None:
    """Show what is known about a model: recipe, corpus with its licences, held-out quality, hash."""
    from reference_impls import zoo

    known = zoo.manifest()
    if name not in known:
        raise ValueError(f"no trained model is called {name!r}{suggestion(name, known)}")
    if as_json:
        write_json(known[name])
        return
    screen = console()
    screen.print(Text(name, style="bold"))
    for line in _lines(known[name]):
        screen.print(Text(line), soft_wrap=True)


@app.command()
def train(
    name: ModelName,
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of as many as the recipe says.")] = None,
    seed: Annotated[int, typer.Option(help="Of the initial weights and the order of the data.")] = 0,
) -> None:
    """Train a model by its recipe, and replace the stored one when it is done."""
    from accelgen.training import recipes

    entry = recipes.train(name, steps=steps, seed=seed)
    for line in _lines({name: entry}):
        typer.echo(line)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Each model becomes a folder in it.")],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Language models; target and drafter by default.")
    ] = None,
) -> None:
    """Write language models as checkpoints that transformers loads: AutoModelForCausalLM and AutoTokenizer."""
    from accelgen.checkpoints.writing import export as write_checkpoints

    for place in write_checkpoints(folder, names or ()):
        typer.echo(f"wrote {place}", err=True)


def _rows() -> list[dict[str, Any]]:
    from accelgen.training import recipes
    from reference_impls import zoo
    from reference_impls.zoo.storage import load_state

    known, rows = zoo.manifest(), []
    for name in dict.fromkeys([*recipes.MODULES, *known]):
        facts = known.get(name, {})
        try:
            load_state(name)
            state = "intact"
        except zoo.ZooError as error:
            state = str(error) if facts else f"not trained yet: accelgen zoo train {name}"
        numbers = {key: facts.get(key) for key in ("parameters", "bytes", "sha256")}
        rows.append({"name": name, **numbers, "file": state, "quality": facts.get("quality")})
    return rows


def _lines(data: Any, depth: int = 0) -> list[str]:
    """Nested facts, one a line, indented."""
    lines = []
    for key, value in data.items():
        if isinstance(value, dict):
            lines += ["  " * depth + f"{key}:", *_lines(value, depth + 1)]
        else:
            lines.append("  " * depth + f"{key}: {value}")
    return lines
