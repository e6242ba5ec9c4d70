"""The one place where an error of the input becomes a sentence on stderr and exit code 2."""

from __future__ import annotations

import errno
from typing import Any

import typer
from typer.core import TyperGroup

from accelgen.cli.encoding import print_everywhere
from accelgen.taxonomy.loading import TaxonomyError

NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")  # as torch says it, on all devices


class OneSentence(TyperGroup):
    """The root of all commands. What the project raises on bad input is shown without a traceback."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Begin with streams that print everything; help, too, speaks every encoding."""
        print_everywhere()
        return super().main(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; bad input ends it with exit code 2, everything else passes through."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, typer.TyperException):
            raise
        except Exception as error:
            sentence = explain(error)
            if sentence is None:
                raise
            typer.echo(f"accelgen: {sentence}", err=True)
            raise typer.Exit(2) from None


def explain(error: Exception) -> str | None:
    """The sentence for the user; None for a bug of ours, and for a pipe whose reader has left."""
    if isinstance(error, OSError):
        if error.errno == errno.EPIPE:
            return None
        reason = error.strerror.lower() if error.strerror else str(error)
        return f"{error.filename}: {reason}" if error.filename else reason
    if isinstance(error, TaxonomyError | ValueError | FloatingPointError):
        return str(error)
    if isinstance(error, MemoryError | RuntimeError) and any(words in str(error) for words in NO_MEMORY):
        reason = str(error).partition("\n")[0].rstrip(".")
        return f"out of memory ({reason}): choose a smaller model or --limit, a narrower --dtype or another --device"
    from reference_impls.testing import KitError  # late: these packages import torch
    from reference_impls.zoo import ZooError

    return str(error) if isinstance(error, KitError | ZooError) else None
