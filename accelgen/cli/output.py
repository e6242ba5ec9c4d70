"""What every command writes with: a console that fits the place, JSON, and files that are whole or absent."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from accelgen.project.files import write_whole

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
OutFile = Annotated[Path | None, typer.Option("-o", "--output", help="Write to this file instead of the screen.")]

WIDE = 160  # columns of a table that goes to a file or a pipe


def console() -> Console:
    """The screen, or a wide page where the output is not a screen; nothing is coloured by guessing."""
    return Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)


def progress() -> Progress:
    """A bar on stderr, so that it never mixes with results."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Shows on stderr that something is under way, where someone watches."""
    with Console(stderr=True).status(what):
        yield


def write_json(data: Any) -> None:
    """Print plain data as JSON."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


def write(text: str, path: Path | None) -> None:
    """Print `text`, or put it into the file `path` and say so on stderr."""
    if path is None:
        typer.echo(text, nl=not text.endswith("\n"))
        return
    replace(path, text)
    typer.echo(f"wrote {path}", err=True)


def replace(path: Path, text: str) -> None:
    """Write a whole file or nothing. Raises ValueError where no file can be."""
    if path.is_dir():
        raise ValueError(f"{path} is a directory; name a file in it, for example -o {path / 'method.py'}")
    if not path.parent.is_dir():
        raise ValueError(f"the directory {path.parent} does not exist; create it first")
    write_whole(path, text)
