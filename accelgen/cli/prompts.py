r"""Where a prompt comes from: words on the command line, in which `\n` begins a new line, a file, or standard input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

STDIN = "-"
PromptFile = Annotated[
    Path | None,
    typer.Option("--prompt-file", help="Read the prompt from this file, to the last byte; - is standard input."),
]


def read_prompt(words: str | None, file: Path | None) -> str | None:
    r"""The prompt in `words`, where `\n` is a new line, or in the file, as it stands; None where neither is given.

    Raises ValueError for both at once and for bytes that are no text, OSError for a file that cannot be read.
    """
    if file is None:
        return words if words is None else _spoken(words)
    if words is not None:
        raise ValueError("--prompt and --prompt-file are two prompts: choose one of them")
    data = sys.stdin.buffer.read() if str(file) == STDIN else file.read_bytes()
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        name = "standard input" if str(file) == STDIN else file
        raise ValueError(f"{name}: byte {error.start + 1} is not UTF-8 text; save the prompt as UTF-8") from None


def _spoken(words: str) -> str:
    try:
        words.encode()
    except UnicodeEncodeError:  # Python keeps foreign bytes of the command line as halves of surrogates
        raise ValueError(
            "--prompt holds bytes that are not UTF-8 text; write it to a file as UTF-8, --prompt-file"
        ) from None
    return words.replace("\\n", "\n")
