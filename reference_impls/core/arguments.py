"""What a caller gives, held against the annotations: once a call, at the entry, and never inside a loop."""

from __future__ import annotations

import functools
import inspect
import reprlib
from collections.abc import Callable, Collection, Sequence
from math import isnan
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

P = ParamSpec("P")
R = TypeVar("R")
PLAIN = (NoneType, int, float, str, bytes, list, tuple, dict)


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, which first holds its arguments against its annotations.

    Checked are numbers, texts, lists of them, and that something stands where a class is asked for; not which class, so
    that a model may be any that answers the same calls. Raises TypeError for the wrong kind and ValueError for a number
    that is none (NaN), each with one sentence that names the parameter.
    """
    signature = inspect.signature(function)
    hints = functools.cache(lambda: get_type_hints(function))  # they can be read when the module is complete

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            hint = hints().get(name)
            if not fits(value, hint):
                raise TypeError(f"{name} is {shown(value)}; it must be {words(hint)}")
            if isinstance(value, Real) and isnan(value):
                raise ValueError(f"{name} is not a number (NaN); it must be {words(hint)}")
        return function(*args, **kwargs)

    return called


def fits(value: object, hint: Any) -> bool:
    """Whether a value is of the kind that an annotation asks for; True for annotations that are not looked at."""
    kind, parts = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return any(fits(value, part) for part in parts)
    if kind in (Sequence, Collection):
        return isinstance(value, kind) and not isinstance(value, str) and all(fits(one, parts[0]) for one in value)
    if hint in (int, float):
        return isinstance(value, Integral if hint is int else Real)
    if hint is str:
        return isinstance(value, str)
    if hint is NoneType:
        return value is None
    own = isinstance(hint, type) and hint.__module__ not in ("builtins", "typing")
    return not (own and isinstance(value, PLAIN))


def words(hint: Any) -> str:
    """An annotation as people say it."""
    kind, parts = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return " or ".join(map(words, parts))
    if kind in (Sequence, Collection):
        whole = parts[0] is int  # what prompts are, and what people give in place of token ids
        return "a list of whole numbers, as a tokenizer or Tensor.tolist() gives them" if whole else "a list"
    known = {int: "a whole number", float: "a number", str: "a text", NoneType: "None"}
    return known.get(hint, f"a {hint.__name__}")


def shown(value: object) -> str:
    """A value in a sentence: of a tensor its shape, of a long list its beginning, of another object its class."""
    if isinstance(value, PLAIN):
        return reprlib.repr(value)
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}" + (f" of shape {[*shape]}" if isinstance(shape, tuple) else "")
