"""One case a method: what the kit and the tools must know of it and cannot infer from its signature."""

from __future__ import annotations

import importlib
import importlib.util

from reference_impls.testing.case import Case

__all__ = ["Case", "case_of", "has_case"]


def has_case(id: str) -> bool:
    """Whether there is a case of this name."""
    name = id.replace("-", "_")
    return name.isidentifier() and importlib.util.find_spec(f"{__name__}.{name}") is not None


def case_of(id: str) -> Case:
    """The case of the method `id`; for a name that has none, such as a port's, an empty one."""
    if not has_case(id):
        return Case()
    case: Case = importlib.import_module(f"{__name__}.{id.replace('-', '_')}").CASE
    return case
