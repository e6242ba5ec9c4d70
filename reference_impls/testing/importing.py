"""From `package.module:function` or `file.py:function` to the function, or one sentence why not."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from reference_impls.testing.from_signature import KitError

CALLS = {
    "source": "generate(model, source, …)",
    "length": "generate(model, prompt, length, *, steps, …)",
    "prompts": "generate(target, prompts, limits, *, …)",
    "tokens": "predict(model, tokens, …)",
    "limit": "generate(target, prompt, limit, *, sampler, …, eos=None)",
}  # the parameter that tells a call, and the call


def function(name: str) -> Callable[..., Any]:
    """The function of this name. Raises KitError where it cannot be had or called as a method is."""
    place, _, attribute = name.rpartition(":")
    found = getattr(_module(place), attribute, None)
    if found is None:
        raise KitError(f"module {place!r} has no function {attribute!r}")
    if not callable(found) or isinstance(found, type):
        raise KitError(f"{name} is not a function")
    call = call_of(found)
    if call == "limit" and "sampler" not in inspect.signature(found).parameters:
        raise KitError(f"{name} has no parameter 'sampler'; the kit calls it as {CALLS['limit']}")
    return found


def call_of(found: Callable[..., Any]) -> str:
    """The parameter, one of `CALLS`, that tells how the function is called. Raises KitError where none does."""
    parameters = inspect.signature(found).parameters
    known = next((name for name in CALLS if name in parameters), None)
    if known is None:
        raise KitError(f"{found.__name__} has no parameter 'limit'; the kit calls it as {CALLS['limit']}")
    return known


def _module(place: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # people verify a file of the folder they stand in
    try:
        return _from_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name and place.split(".", maxsplit=1)[0] == error.name.split(".")[0]:
            raise KitError(
                f"there is no module {place!r} here: run from the folder it is in, or name its file"
            ) from None
        raise KitError(f"module {place!r} cannot be imported: {_sentence(error)}") from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a module may do anything while it is imported
        raise KitError(f"module {place!r} cannot be imported: {_sentence(error)}") from None


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise KitError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses and annotations are resolved there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]  # half a module is none
        raise
    return module


def _sentence(error: BaseException) -> str:
    words = " ".join(str(error).split())
    return f"it raised {type(error).__name__}{f' ({words})' if words else ''}"
