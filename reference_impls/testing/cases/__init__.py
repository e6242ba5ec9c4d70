"""One case a method: what the kit and the tools must know of it and cannot infer from its signature."""

from __future__ import annotations

import importlib
import importlib.util

from reference_impls.testing.case import Case

__all__ = ["Case", "case_of"]


def case_of(id: str) -> Case:
    """The case of the method `id`; for a name that has none, such as a port's, an empty one."""
    name = f"{__name__}.{id.replace('-', '_')}"
    if not id.replace("-", "_").isidentifier() or importlib.util.find_spec(name) is None:
        return Case()
    case: Case = importlib.import_module(name).CASE
    return case
