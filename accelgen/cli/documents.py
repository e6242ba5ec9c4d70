"""The documentation site: build it strictly, serve it, check what was built."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from accelgen.project.places import CHECKOUT, ROOT

app = typer.Typer(no_args_is_help=True, help="The documentation site: build, serve, check.")


class Generator(StrEnum):
    """What makes pages out of Markdown."""

    MKDOCS = "mkdocs"
    ZENSICAL = "zensical"


@app.command()
def build(
    generator: Annotated[Generator, typer.Option("--with", help="Zensical builds into build/zensical/site.")] = (
        Generator.MKDOCS
    ),
) -> None:
    """Build the site into site/; every warning is an error."""
    if generator is Generator.ZENSICAL:
        _zensical((ROOT if CHECKOUT else Path.cwd()) / "build" / "zensical")
    else:
        _mkdocs("build", "--strict", "--clean")


@app.command()
def serve(
    address: Annotated[str, typer.Option(help="Host and port.")] = "127.0.0.1:8000",
) -> None:
    """Build the site and serve it, anew after every change."""
    _mkdocs("serve", "--dev-addr", address)


@app.command()
def check() -> None:
    """Check the built site for what the build does not see: dead links and anchors, double ids, requests to hosts."""
    from accelgen.site import check as site_check

    problems = site_check.check((ROOT if CHECKOUT else Path.cwd()) / "site")
    for problem in problems:
        typer.echo(str(problem), err=True)
    if problems:
        typer.echo(f"accelgen: the site has {len(problems)} problem{'s' * (len(problems) > 1)}", err=True)
        raise typer.Exit(1)
    typer.echo("site/ is sound: no dead link or anchor, no double id, no request to another host")


def _mkdocs(command: str, *arguments: str) -> None:
    """Run mkdocs on the project, or outside a checkout on a copy of its texts, which writes ./site.

    A failed build ends with mkdocs' own exit code.
    """
    if not importlib.util.find_spec("mkdocs"):
        raise ValueError("MkDocs is not installed: install the project with its extra `docs`")
    if CHECKOUT:
        _check_writable(ROOT / "docs")
        _check_writable(ROOT / "site")
        _run(["mkdocs", command, *arguments], ROOT)
        return
    from accelgen.site.publish import stage

    _check_writable(Path.cwd())
    with tempfile.TemporaryDirectory() as folder:
        stage(Path(folder) / "texts")
        place = ["--site-dir", str(Path.cwd() / "site")] if command == "build" else []
        _run(["mkdocs", command, *arguments, *place], Path(folder) / "texts")


def _zensical(folder: Path) -> None:
    """Lay the project out in the folder, because Zensical runs no hooks, and build it there."""
    from accelgen.site.publish import stage

    if not importlib.util.find_spec("zensical"):
        raise ValueError("Zensical is not installed: pip install zensical")
    _check_writable(folder.parent.parent)
    stage(folder)
    _run(["zensical", "build", "--strict"], folder)


def _check_writable(folder: Path) -> None:
    """Raise ValueError where nothing can be written in the folder, or where it cannot be made."""
    try:
        with tempfile.TemporaryFile(dir=folder if folder.is_dir() else folder.parent):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ValueError(f"the site cannot be built: {folder} ({reason}); use a copy that can be written") from None


def _run(module: list[str], folder: Path) -> None:
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}  # the version is pinned
    done = subprocess.run([sys.executable, "-m", *module], cwd=folder, env=quiet, check=False)
    if done.returncode:
        raise typer.Exit(done.returncode)
