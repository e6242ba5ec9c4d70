"""A method's own options on the command line: which there are, and how they are read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, get_args, get_type_hints

from accelgen.cli.options import parse
from accelgen.taxonomy.loading import suggestion

PLAIN = (int, float, str, bool, type(None))  # types of options that can be written on the command line


def is_plain(value: Any) -> bool:
    """Whether an option's value can be written on the command line: numbers, words, and rows of them."""
    return isinstance(value, PLAIN) or (isinstance(value, list | tuple) and all(map(is_plain, value)))


def own_options(generate: Callable[..., Any]) -> dict[str, Any]:
    """Keyword options of `generate` that can be written on the command line, with their types."""
    hints = get_type_hints(generate)
    keywords = [p.name for p in inspect.signature(generate).parameters.values() if p.kind is p.KEYWORD_ONLY]
    return {name: hints[name] for name in keywords if name not in ("sampler", "eos") and _is_plain_type(hints[name])}


def _is_plain_type(kind: Any) -> bool:
    if kind in PLAIN or isinstance(kind, str):  # a string stands in Literal["…"]
        return True
    return bool(get_args(kind)) and all(map(_is_plain_type, get_args(kind)))


def parse_options(generate: Callable[..., Any], words: Sequence[str], id: str) -> dict[str, Any]:
    """The method's own options from `--name value` or `--name=value`; a row of numbers is written 2,4,8.

    Raises ValueError for a name that the method does not have and a value that does not fit.
    """
    known = own_options(generate)
    found: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise ValueError(f"{word!r} belongs to no option; put text with spaces in quotes: --prompt 'def f(x):'")
        name, equals, value = word.removeprefix("--").partition("=")
        key = name.replace("-", "_")
        if key not in known:
            hint = suggestion(name, [option.replace("_", "-") for option in known])
            raise ValueError(f"{id} has no option --{name}{hint or f'; `accelgen show {id}` tells how it is called'}")
        if not equals:
            if not rest:
                raise ValueError(f"--{name} needs a value")
            value = rest.pop(0)
        try:
            found[key] = parse(value, known[key])
        except ValueError as error:
            raise ValueError(f"--{name} cannot be {value!r}: {error}") from None
    return found


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """The method's own options that can be written on the command line, where they have a default other than None."""
    signature = inspect.signature(function).parameters
    found = {name: signature[name].default for name in own_options(function)}
    return {name: value for name, value in found.items() if value is not None and value is not inspect.Parameter.empty}
