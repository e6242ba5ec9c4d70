"""Making parts of the zoo by their recipes, which are found by looking in the folder `recipes`."""

from __future__ import annotations

import importlib
import pkgutil
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import torch

from accelgen.training import recipes as folder_of_recipes
from accelgen.training.recipe import Recipe
from accelgen.training.shelf import Shelf
from accelgen.training.staleness import origin, reasons
from accelgen.training.storing import save, update
from reference_impls.zoo.errors import ZooError
from reference_impls.zoo.storage import WEIGHTS, facts, manifest


@cache
def recipes() -> dict[str, Recipe[Any]]:
    """All recipes by the name of their part, each after those that it needs."""
    modules = (
        importlib.import_module(f"{folder_of_recipes.__name__}.{found.name}")
        for found in pkgutil.iter_modules(folder_of_recipes.__path__)
    )
    return in_order([module.RECIPE for module in modules])


def in_order(found: list[Recipe[Any]]) -> dict[str, Recipe[Any]]:
    """Recipes by name, each after those that it needs."""
    known = {recipe.name: recipe for recipe in found}
    order = TopologicalSorter({name: recipe.needs for name, recipe in known.items()}).static_order()
    return {name: known[name] for name in order}


def recipe_of(name: str) -> Recipe[Any]:
    """The recipe of a part. Raises ZooError for an unknown one."""
    if name not in recipes():
        raise ZooError(f"the zoo has no model {name!r} that a recipe makes; recipes make {', '.join(recipes())}")
    return recipes()[name]


def train(name: str, *, folder: Path = WEIGHTS, steps: int | None = None, seed: int = 0) -> dict[str, Any]:
    """Train a part, store it with its facts in `folder`, and return the manifest entry.

    `steps` shortens or lengthens the recipe. Raises ZooError for an unknown name or a missing ingredient.
    """
    recipe = recipe_of(name)
    settings = replace(recipe.settings, seed=seed)
    return make(replace(recipe, settings=settings.shortened(steps) if steps else settings), Shelf(folder))


def make(recipe: Recipe[Any], shelf: Shelf) -> dict[str, Any]:
    """Train and measure a part, put it on the shelf, and return the manifest entry."""
    start, settings = time.monotonic(), recipe.settings
    made_from = origin(recipe, shelf.folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        part = recipe.train(shelf, settings)
        part.module.half().float().eval().requires_grad_(requires_grad=False)  # as it will be stored
        quality = recipe.measure(shelf, settings, part.module)
    said: dict[str, Any] = {
        "recipe": asdict(settings),
        "made_from": made_from,
        "minutes": round((time.monotonic() - start) / 60, 1),
        "quality": quality,
    }
    if recipe.corpus is not None:
        said["corpus"] = recipe.corpus(settings)
    shelf.store_tokenizer()
    return save(recipe.name, part, folder=shelf.folder, **said)


def train_stale(
    known: Iterable[Recipe[Any]], shelf: Shelf, minutes: float, *, report: Callable[[str], None]
) -> dict[str, str]:
    """Train what is stale, in order of need, as long as `minutes` suffice, and return what is left, each with a reason.

    A part is begun only if its recorded minutes still fit, and what it stands on is not left itself. `report` is told
    what is trained and why.
    """
    left: dict[str, str] = {}
    end = time.monotonic() + 60 * minutes
    for recipe in known:
        why, needs = reasons(recipe, shelf.folder), [need for need in recipe.needs if need in left]
        recorded = manifest(shelf.folder).get(recipe.name, {}).get("minutes")
        remaining = (end - time.monotonic()) / 60
        if needs:
            left[recipe.name] = f"stands on {' and '.join(needs)}"
        elif why and recorded is None:
            left[recipe.name] = f"{', '.join(why)}; how long it takes is not recorded, so train it by its name"
        elif why and recorded > remaining:
            left[recipe.name] = f"{', '.join(why)}; it takes {recorded:g} minutes, and {remaining:.1f} are left"
        elif why:
            report(f"{recipe.name}: {', '.join(why)}; it takes {recorded:g} minutes")
            make(recipe, shelf)
    return left


def keep(name: str, folder: Path = WEIGHTS) -> dict[str, Any]:
    """Note that a part is as its recipe would make it now: what changed since does not change what it learns.

    Returns the manifest entry. Raises ZooError for a part that is not there.
    """
    entry = facts(name, folder=folder) | {"made_from": origin(recipe_of(name), folder)}
    update(name, entry, folder=folder)
    return entry


def measure(name: str, shelf: Shelf) -> dict[str, Any]:
    """Measure a stored part anew, replace its figures in the manifest, and return the entry."""
    recipe = recipe_of(name)
    found = recipe.measure(shelf, recipe.settings, shelf.load(name))
    update(name, shelf.facts(name) | {"quality": found}, folder=shelf.folder)
    return shelf.facts(name)


def contrast(name: str, shelf: Shelf) -> dict[str, Any]:
    """What distillation is worth: train a part that has a teacher without it, and note the figures beside its own."""
    recipe = recipe_of(name)
    if getattr(recipe.settings, "teacher", None) is None:
        raise ZooError(f"{name} learns from no teacher, so there is nothing to compare: name a model that does")
    settings = replace(recipe.settings, teacher=None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        part = recipe.train(shelf, settings)
    found = recipe.measure(shelf, settings, part.module.half().float().eval())
    update(name, shelf.facts(name) | {"quality_without_distillation": found}, folder=shelf.folder)
    return found
