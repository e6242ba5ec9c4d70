"""Which parts a change has made stale: what a part was made from is written down, and compared with what is there now.

What a part is made from is its recipe and the parts that it stands on. A recipe is its settings and the code that its
`train` reaches: in its own file, in this room and in the method's file. Comments and docstrings do not count, nor does
the core, whose tests hold its functions fixed.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from accelgen.training.recipe import Recipe
from reference_impls.zoo.storage import manifest

DIGITS = 12  # of a SHA-256 that tell two of them apart
FIXED = ("reference_impls.core.", "reference_impls.zoo.", "reference_impls.baselines.")
READ = ("accelgen.training.recipe.", "accelgen.training.shelf.", "accelgen.training.storing.")  # nothing that learns


def origin(recipe: Recipe[Any], folder: Path) -> dict[str, str]:
    """What a part would be made from now: hashes of its recipe and of the parts in `folder` that it needs."""
    known = manifest(folder)
    needed = {need: str(known.get(need, {}).get("sha256", "missing"))[:DIGITS] for need in recipe.needs}
    return {"recipe": fingerprint(recipe)} | needed


def reasons(recipe: Recipe[Any], folder: Path) -> list[str]:
    """Why the part in `folder` is stale, in words; empty if it is as its recipe would make it."""
    entry = manifest(folder).get(recipe.name)
    if entry is None or not (folder / f"{recipe.name}.safetensors").is_file():
        return ["not trained yet"]
    now, then = origin(recipe, folder), entry.get("made_from", {})
    return [
        "its recipe changed" if what == "recipe" else f"{what} changed" for what in now if now[what] != then.get(what)
    ]


def fingerprint(recipe: Recipe[Any]) -> str:
    """A hash of a recipe's settings and of the code that its training runs."""
    code = sorted(f"{each.__module__}.{each.__qualname__} {written(each)}" for each in reached(recipe.train))
    text = json.dumps([asdict(recipe.settings), code], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def written(definition: Callable[..., Any]) -> str:
    """The syntax tree of a function or class, without docstrings."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(definition)))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def reached(start: Callable[..., Any]) -> set[Callable[..., Any]]:
    """The functions and classes of recipes, of this room and of methods that a function names, and they in turn."""
    found, open_ones = set[Callable[..., Any]](), [start]
    while open_ones:
        definition = open_ones.pop()
        if definition in found or not (definition is start or is_judged(definition)):
            continue
        found.add(definition)
        open_ones += named(definition)
    return found


def is_judged(definition: Any) -> bool:
    """Whether a change of this function or class can change what is learnt, as far as it is looked at."""
    place = f"{getattr(definition, '__module__', '')}."
    ours = place.startswith(("accelgen.training.", "reference_impls."))
    return ours and isinstance(definition, FunctionType | type) and not place.startswith(FIXED + READ)


def named(definition: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """What the code of a function, or of a class's methods, names: globals, and what modules among them hold."""
    functions = [definition] if isinstance(definition, FunctionType) else vars(definition).values()
    for function in map(inspect.unwrap, functions):  # what a decorator wraps
        if isinstance(function, FunctionType):
            names = set(names_in(function.__code__))
            for value in [function.__globals__[name] for name in names if name in function.__globals__]:
                held = [vars(value).get(name) for name in names] if isinstance(value, ModuleType) else [value]
                yield from (each for each in held if isinstance(each, FunctionType | type))


def names_in(code: CodeType) -> Iterator[str]:
    """All names in a piece of code and in the functions inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from names_in(constant)
