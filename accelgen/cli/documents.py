"""The documentation site: build it strictly, serve it, check what was built."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from accelgen.project.places import ROOT

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
        _zensical(ROOT / "build" / "zensical")
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

    problems = site_check.check(ROOT / "site")
    for problem in problems:
        typer.echo(str(problem), err=True)
    if problems:
        typer.echo(f"accelgen: the site has {len(problems)} problem{'s' * (len(problems) > 1)}", err=True)
        raise typer.Exit(1)
    typer.echo("site/ is sound: no dead link or anchor, no double id, no request to another host")


def _mkdocs(*arguments: str) -> None:
    """Run mkdocs on the project. A failed build ends with mkdocs' own exit code."""
    _in_checkout()
    _run(["mkdocs", *arguments], ROOT)


def _zensical(folder: Path) -> None:
    """Lay the project out in the folder, because Zensical runs no hooks, and build it there."""
    from accelgen.site.publish import stage

    _in_checkout()
    if not importlib.util.find_spec("zensical"):
        raise ValueError("Zensical is not installed: pip install zensical")
    stage(folder)
    _run(["zensical", "build", "--strict"], folder)


def _in_checkout() -> None:
    if not (ROOT / "mkdocs.yml").is_file():
        raise ValueError("there is no mkdocs.yml: the site is built in a checkout of the project, after make install")


def _run(module: list[str], folder: Path) -> None:
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}  # the version is pinned
    done = subprocess.run([sys.executable, "-m", *module], cwd=folder, env=quiet, check=False)
    if done.returncode:
        raise typer.Exit(done.returncode)
