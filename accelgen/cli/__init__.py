"""`accelgen`: browse, copy, cite, run and prove the methods from the command line.

One module for each group of commands. What is slow to import (torch, mkdocs) is imported by the command that needs it,
so that `accelgen list` answers at once.

Commands: `listing` lists and searches, `catalogue` shows, cites, copies, validates and exports, `running` runs a
method, `proofs` verifies, `measurements` measures and traces, `adding` begins a method and says what it lacks, `models`
is the zoo, `documents` the site. A run: `prompts` reads what it begins with, `own_options` what a method asks for,
`options` writes values so that they can be typed back, `on_checkpoint` finds out what runs on a user's model, `outcome`
says what became of it, `tokens` colours it. Around all commands: `sentences` makes one sentence of an error, `output`
writes, `encoding` sees that what is written can be read everywhere.
"""

from __future__ import annotations

import importlib.metadata
from typing import Annotated

import typer

from accelgen.cli import adding, catalogue, documents, listing, measurements, models, proofs, running
from accelgen.cli.sentences import OneSentence


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(importlib.metadata.version("accelerated-generation"))
        raise typer.Exit


app = typer.Typer(
    cls=OneSentence,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Accelerated text generation: a taxonomy with proved reference implementations."""


for command in (
    listing.list_methods,
    listing.search_taxonomy,
    catalogue.show,
    catalogue.cite,
    catalogue.copy,
    catalogue.export_hf,
    running.run,
    proofs.verify,
    catalogue.validate,
    catalogue.export,
    measurements.bench,
    measurements.trace,
    adding.new,
    adding.status,
):
    settings = running.CONTEXT if command is running.run else None
    name = command.__name__.removesuffix("_methods").removesuffix("_taxonomy").replace("_", "-")
    app.command(name, context_settings=settings)(command)
app.add_typer(models.app, name="zoo")
app.add_typer(documents.app, name="docs")
