"""The defaults of a method: part of what it promises, so each method's own test names them."""

import inspect
from types import ModuleType
from typing import Any


def defaults_of(module: ModuleType) -> dict[str, Any]:
    """Every default of the module's public functions and classes, but None, as `function.parameter`."""
    own = [
        thing
        for name, thing in vars(module).items()
        if not name.startswith("_") and getattr(thing, "__module__", "") == module.__name__ and callable(thing)
    ]
    parameters = [(thing.__name__, p) for thing in own for p in inspect.signature(thing).parameters.values()]
    return {f"{name}.{p.name}": p.default for name, p in parameters if p.default not in (p.empty, None)}
