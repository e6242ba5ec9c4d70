"""How the value of an option is written: what is printed can be typed back.

A row has commas, `2,4,8`; rows, paths of a tree among them, have semicolons between them, `0;1;0,0` (in quotes, because
a shell ends a command at a semicolon); yes and no are `true` and `false`, and no value at all is `none`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError

FINITE = ConfigDict(allow_inf_nan=False)
SEPARATORS = ",;"  # between the values of a row, between rows
HINTS = ("", "; a row is written 2,4,8", "; rows are written '1,0;0,2'")


def parse(text: str, kind: Any) -> Any:
    """The value of type `kind` that `text` stands for. Raises ValueError with the reason, in words, if none does."""
    if text == "none" and NoneType in get_args(kind):
        return None
    depth = _depth(kind)
    try:
        return TypeAdapter(kind, config=FINITE).validate_python(_split(text, depth))
    except ValidationError as error:
        found = error.errors()[0]
        part = f"{found['input']!r} " if depth else ""
        reason = found["msg"].removeprefix("Input ") if part else found["msg"][:1].lower() + found["msg"][1:]
        raise ValueError(f"{part}{reason}{HINTS[depth]}") from None


def show(value: Any) -> str:
    """The text that `parse` reads as `value`. Raises ValueError for an empty row among rows, which has no spelling."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) or not isinstance(value, Sequence):
        return str(value)
    has_rows = any(isinstance(one, Sequence) and not isinstance(one, str) for one in value)
    if has_rows and not all(value):
        raise ValueError(f"a row without values cannot be written: {value}")
    return SEPARATORS[has_rows].join(map(show, value))


def typed(options: Mapping[str, Any]) -> str:
    """Options as they are typed in a shell: `--gamma 4 --choices '0;1;0,0'`."""
    return " ".join(f"--{name.replace('_', '-')} {shlex.quote(show(value))}" for name, value in options.items())


def _depth(kind: Any) -> int:
    """How many rows stand in each other in values of this type: 0 for a number, 1 for a row, 2 for rows."""
    origin, inside = get_origin(kind), max(map(_depth, get_args(kind)), default=0)
    return inside + (isinstance(origin, type) and issubclass(origin, Sequence))


def _split(text: str, depth: int) -> Any:
    if not depth:
        return text
    return [_split(part, depth - 1) for part in text.split(SEPARATORS[depth - 1])] if text else []
