"""What every command writes with: a console that fits the place, JSON, and files that are whole or absent."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from accelgen.cli.encoding import escaped, in_ascii, is_unicode
from accelgen.project.files import check_place, write_whole

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
OutFile = Annotated[
    Path | None, typer.Option("-o", "--output", help="Write to this file instead of the screen; - is the screen.")
]

SCREEN = ("-", "/dev/stdout")  # the names of standard output: what leads there is printed, and no file is replaced
WIDE = 160  # columns of a table that goes to a file or a pipe


def console() -> Console:
    """The screen, or a wide page where the output is not a screen; COLUMNS is heard, and no colour is guessed."""
    has_width = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return Console(width=None if has_width else WIDE, highlight=False)


def print_wrapped(screen: Console, text: str | Text, *, indent: int, label: Text | str = "") -> None:
    """Print lines of whole words beside an indent, `label` in the first; a path or address is never broken."""
    width, style = max(screen.width - indent, 1), text.style if isinstance(text, Text) else ""
    start = Text.assemble(label)
    start.pad_right(indent - start.cell_len)
    for line in textwrap.wrap(str(text), width, break_long_words=False, break_on_hyphens=False):
        screen.print(start + Text(line, style), soft_wrap=True)
        start = Text(" " * indent)


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
    write(json.dumps(data, indent=2, ensure_ascii=False), None, is_json=True)


def check_output(path: Path | None) -> None:
    """Raise ValueError where `write` could not write; for commands that take long before they do."""
    if path is not None and str(path) not in SCREEN:
        check_place(path)


def write(text: str, path: Path | None, *, is_json: bool = False) -> None:
    """Print a text for programs, or put it into the file `path` and say so on stderr.

    A file is UTF-8. On a screen or pipe of a narrower encoding all of the text is ASCII, so that it reads the same
    whatever its reader expects. Raises ValueError where no file can be.
    """
    if path is None or str(path) in SCREEN:
        shown = text if is_unicode() else escaped(text) if is_json else in_ascii(text)
        typer.echo(shown, nl=not text.endswith("\n"))
        return
    write_whole(path, text)
    typer.echo(f"wrote {path}", err=True)
