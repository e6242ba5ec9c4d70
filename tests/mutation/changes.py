"""What a mutant is: a change of source text, planted while its module is imported. Nothing is written to disk."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class MutantError(Exception):
    """A mutant cannot be planted or judged, so it proves nothing."""


@dataclass(frozen=True)
class Change:
    """Replace `old`, which stands at exactly one place of `file` (a path from the root), by `new`."""

    file: str
    old: str
    new: str
    name: str = ""

    @property
    def module(self) -> str:
        """The dotted name of the changed module."""
        return self.file.removesuffix(".py").replace("/", ".")

    def text(self) -> str:
        """The whole changed text. Raises MutantError unless the change applies at one place."""
        source = (ROOT / self.file).read_text("utf-8")
        found = source.count(self.old)
        if found != 1:
            why = "does not apply any more" if not found else f"is ambiguous, it applies at {found} places"
            raise MutantError(f"mutant {self.name or 'without a name'} {why}: {self.old!r} in {self.file}")
        return source.replace(self.old, self.new)

    def __str__(self) -> str:
        """One line: what is changed where. The two texts can be pasted into a list."""
        line = (ROOT / self.file).read_text("utf-8").partition(self.old)[0].count("\n") + 1
        return f"{self.name and f'{self.name}  '}{self.file}:{line}  {self.old!r} -> {self.new!r}"


class Planted(importlib.machinery.SourceFileLoader):
    """Loads a module from changed text, never from compiled code."""

    text = ""

    def get_code(self, fullname):
        return compile(self.text, self.get_filename(fullname), "exec")


class Planter(importlib.abc.MetaPathFinder):
    """Hands out the changed module and nothing else."""

    def __init__(self, change: Change) -> None:
        self.change, self.text = change, change.text()

    def find_spec(self, fullname, path=None, target=None):  # noqa: ARG002 - the interface of importlib
        if fullname != self.change.module:
            return None
        file = ROOT / self.change.file
        loader = Planted(fullname, str(file))
        loader.text = self.text
        return importlib.util.spec_from_file_location(fullname, file, loader=loader)


def plant(change: Change) -> None:
    """Let this process import the changed module. It must be a fresh one."""
    if change.module in sys.modules:
        raise MutantError(f"{change.module} was imported before it could be changed")
    sys.meta_path.insert(0, Planter(change))
    sys.path.insert(0, str(ROOT))
