"""The documentation site: build it strictly, serve it, check what was built."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import typer

from reference_impls.knowledge.loading import PROJECT_ROOT

app = typer.Typer(no_args_is_help=True, help="The documentation site: build, serve, check.")


@app.command()
def build() -> None:
    """Build the site into site/; every warning is an error."""
    _mkdocs("build", "--strict", "--clean")


@app.command()
def serve(
    address: Annotated[str, typer.Option(help="Host and port.")] = "127.0.0.1:8000",
) -> None:
    """Build the site and serve it, anew after every change."""
    _mkdocs("serve", "--dev-addr", address)


def _mkdocs(*arguments: str) -> None:
    """Run mkdocs on the project. A failed build ends with mkdocs' own exit code."""
    if not (PROJECT_ROOT / "mkdocs.yml").is_file():
        raise ValueError("there is no mkdocs.yml: the site is built in a checkout of the project, after make install")
    done = subprocess.run([sys.executable, "-m", "mkdocs", *arguments], cwd=PROJECT_ROOT, check=False)
    if done.returncode:
        raise typer.Exit(done.returncode)
