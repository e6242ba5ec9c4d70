"""What a caller gives, held against the annotations: once a call, at the entry, and never inside a loop."""

from __future__ import annotations

import functools
import inspect
import reprlib
from collections.abc import Callable, Collection, Sequence
from math import inf, isinf, isnan
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")
KINDS: dict[Any, type] = {int: Integral, float: Real, bool: bool, str: str, NoneType: NoneType}
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
            check_kind(name, value, hints().get(name))
        return function(*args, **kwargs)

    return called


def check_kind(name: str, value: object, hint: Any) -> None:
    """Raise TypeError, by its name, for a value of another kind than an annotation asks for; ValueError for NaN."""
    if not fits(value, hint):
        raise TypeError(f"{name} is {shown(value)}; it must be {words(hint)}")
    if isinstance(value, Real) and isnan(value):
        raise ValueError(f"{name} is not a number (NaN); it must be {words(hint)}")


def fits(value: object, hint: Any) -> bool:
    """Whether a value is of the kind that an annotation asks for; True for annotations that are not looked at."""
    kind, parts = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return any(fits(value, part) for part in parts)
    if kind in (Sequence, Collection):
        return isinstance(value, kind) and not isinstance(value, str) and all(fits(one, parts[0]) for one in value)
    if hint in KINDS:
        return isinstance(value, KINDS[hint])
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
    known = {int: "a whole number", float: "a number", bool: "True or False", str: "a text", NoneType: "None"}
    return known.get(hint, f"a {hint.__name__}")


def shown(value: object) -> str:
    """A value in a sentence: of a tensor its shape, of a long list its beginning, of another object its class."""
    if isinstance(value, PLAIN):
        return reprlib.repr(value)
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}" + (f" of shape {[*shape]}" if isinstance(shape, tuple) else "")


def check_range(low: float, high: float = inf, **numbers: float) -> None:
    """Raise ValueError, by its name, for what is no number, is not finite or lies outside of [low, high]."""
    for name, number in numbers.items():
        if not isinstance(number, Real) or not low <= number <= high or isinf(number):
            wanted = f"at least {low}" if high == inf else f"from {low} to {high}"
            raise ValueError(f"{name} is {shown(number)}; give a number {wanted}")


def check_texts(
    vocab: int, least: int, *, padding: int | None = None, never: int | None = None, **texts: Tensor
) -> None:
    """Raise ValueError, by their name, for texts [batch, n] that nothing can be learnt from.

    Each row needs `least` tokens beside the `padding`, all of the vocabulary, and none that the model can `never`
    write. For training alone: to look into a tensor is to wait for its device.
    """
    for name, tokens in texts.items():
        if tokens.dim() != 2 or tokens.dtype != torch.long or not len(tokens):
            raise ValueError(f"{name} is {shown(tokens)} of {tokens.dtype}; give token ids [batch, n] of torch.long")
        wrong = tokens[(tokens < 0) | (tokens >= vocab)].tolist()
        if wrong:
            raise ValueError(f"{name} has the token id {wrong[0]}, outside the model's vocabulary of {vocab}")
        if never is not None and bool((tokens == never).any()):
            raise ValueError(f"{name} has the token id {never}, which the model never writes: leave it out")
        found = int((tokens != padding).sum(-1).min()) if padding is not None else tokens.shape[1]
        if found < least:
            raise ValueError(f"{name} has a text of {found} tokens, too short to learn from: give at least {least}")


def check_pairs(model: Any, source: Tensor, target: Tensor, *, never: int) -> None:
    """Raise ValueError for padded sources and targets [batch, n] that nothing can be learnt from, as `check_texts`."""
    check_texts(model.shape.vocab, 1, padding=model.pad, source=source)
    check_texts(model.shape.vocab, 1, padding=model.pad, never=never, target=target)
