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
    """List the models: is each file the one that was trained, and is it what its recipe would make now?"""
    with waiting("checking the models"):
        rows = _rows()
    if as_json:
        write_json(rows)
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("model", "parameters", "bytes", "file", "recipe"):
        table.add_column(title, justify="right" if title in ("parameters", "bytes") else "left", overflow="fold")
    for row in rows:
        numbers = (f"{row[key]:,}" if row[key] is not None else "–" for key in ("parameters", "bytes"))
        file = Text(row["file"], style="green" if row["file"] == "intact" else "red")
        recipe = Text(f"stale: {', '.join(row['stale'])}", style="yellow") if row["stale"] else Text("the same")
        table.add_row(row["name"], *numbers, file, recipe)
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
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A model; or say --all instead.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of as many as the recipe says.")] = None,
    seed: Annotated[int, typer.Option(help="Of the initial weights and the order of the data.")] = 0,
    everything: Annotated[bool, typer.Option("--all", help="Whatever is stale, in order of need.")] = False,
    budget: Annotated[
        float | None, typer.Option(min=0, metavar="MINUTES", help="With --all: begin nothing that takes longer.")
    ] = None,
) -> None:
    """Train a model by its recipe, and replace the stored one when it is done; or all that a change made stale."""
    if (name is None) != everything:
        raise ValueError("name one model, or leave the name out and say --all for those that are stale")
    if name is not None:
        if budget is not None:
            raise ValueError("--budget belongs to --all: a model that is named is trained to its end")
        from accelgen.training import making

        _echo({name: making.train(name, steps=steps, seed=seed)})
        return
    if steps is not None or seed or budget is None:
        raise ValueError("--all takes a --budget in minutes, and neither --steps nor --seed: recipes say what they are")
    _train_stale(budget)


@app.command()
def measure(name: ModelName) -> None:
    """Measure a stored model anew, and replace its figures."""
    from accelgen.training import making
    from accelgen.training.shelf import Shelf

    _echo({name: making.measure(name, Shelf())})


@app.command()
def keep(names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Models that are to stay.")]) -> None:
    """Say that stale models are still as their recipes would make them: a change was one of form only."""
    from accelgen.training import making

    recipes = [making.recipe_of(name).name for name in names]
    for name in recipes:
        making.keep(name)
        typer.echo(f"kept {name}", err=True)


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


def _train_stale(budget: float) -> None:
    from accelgen.training import making
    from accelgen.training.shelf import Shelf

    left = making.train_stale(
        making.recipes().values(), Shelf(), budget, report=lambda line: typer.echo(line, err=True)
    )  # fmt: skip
    if left:
        _echo({"left": left})
    else:
        typer.echo("nothing is stale")


def _rows() -> list[dict[str, Any]]:
    from accelgen.training import making, staleness
    from reference_impls import zoo
    from reference_impls.zoo.storage import WEIGHTS, load_state

    known, rows = zoo.manifest(), []
    for name in dict.fromkeys([*known, *making.recipes()]):
        facts = known.get(name, {})
        try:
            load_state(name)
            state = "intact"
        except zoo.ZooError as error:
            state = str(error) if facts else f"not trained yet: accelgen zoo train {name}"
        recipe = making.recipes().get(name)
        stale = staleness.reasons(recipe, WEIGHTS) if recipe else ["no recipe makes it"]
        numbers = {key: facts.get(key) for key in ("parameters", "bytes", "sha256")}
        rows.append({"name": name, **numbers, "file": state, "stale": stale, "quality": facts.get("quality")})
    return rows


def _echo(facts: dict[str, Any]) -> None:
    for line in _lines(facts):
        typer.echo(line)


def _lines(data: Any, depth: int = 0) -> list[str]:
    """Nested facts, one a line, indented."""
    lines = []
    for key, value in data.items():
        if isinstance(value, dict):
            lines += ["  " * depth + f"{key}:", *_lines(value, depth + 1)]
        else:
            lines.append("  " * depth + f"{key}: {value}")
    return lines
