"""Known bugs: the lists `MUTANTS = [(name, old, new), …]` at the tops of the tests, found by looking.

Many were found in published code; the others are what one could easily get wrong. Which module a list is about follows
from the test's name: `tests/core/test_core_cache.py` speaks of `core/cache.py`, `tests/methods/<family>/test_<id>.py`
of the method.
"""

from __future__ import annotations

import ast
from pathlib import Path

from .changes import ROOT, Change, MutantError

PACKAGES = ("reference_impls", "accelgen")


def own_test(file: str) -> Path | None:
    """The test that bears the name of a module (its path from the root), if there is one."""
    room, name = Path(file).parent.name, Path(file).stem
    places = (f"methods/{room}/test_{name}.py", f"{room}/test_{name}.py", f"{room}/test_{room}_{name}.py")
    return next((test for place in places if (test := ROOT / "tests" / place).is_file()), None)


def rows(test: Path) -> list[tuple[str, str, str]]:
    """The list `MUTANTS` of a test, which is read and not run; an empty one if it has none."""
    for statement in ast.parse(test.read_text("utf-8")).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="MUTANTS")], value=value):
                return ast.literal_eval(value)
    return []


def named() -> list[Change]:
    """Every known bug. Raises MutantError where a list stands in a test that bears no module's name."""
    files = [path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    module_of = {test: file for file in files if (test := own_test(file))}
    found = []
    for test in sorted((ROOT / "tests").rglob("test_*.py")):
        listed = rows(test)
        if listed and test not in module_of:
            raise MutantError(f"{test.relative_to(ROOT)} lists mutants, but no module bears its name: rename the test")
        found += [Change(module_of[test], old, new, name) for name, old, new in listed]
    return found
