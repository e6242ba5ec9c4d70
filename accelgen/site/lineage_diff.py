"""What a method adds to the one it builds on: the nearest implemented ancestor, and the code that differs from it.

Two modules are compared definition by definition, by name. Where hardly a line is common, the old text stands whole
before the new one, because that can be read. A module's docstring, its imports and `example` are left out: they differ
everywhere and say nothing.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from accelgen.taxonomy.schema import Method, Taxonomy

LOOP = "generate"  # shown first, because that is where methods differ
COMMON = 0.25  # below this share of common lines two texts are shown one after the other


@dataclass(frozen=True)
class Difference:
    """How one module becomes another: every line begins with a blank, `+` or `-`."""

    changed: Mapping[str, tuple[str, ...]]
    """Definition -> its lines on both sides, the loop first; a definition that is new has only lines with `+`."""
    left: tuple[str, ...]
    """The definitions that the new module does without."""

    @property
    def text(self) -> str:
        """A unified diff to read: each hunk is headed by the name of its definition."""
        return "\n".join(line for name, lines in self.changed.items() for line in (f"@@ {name} @@", *lines))

    def count(self, sign: str) -> int:
        """The lines with `+` or `-`; blank ones count for nothing."""
        return sum(line[0] == sign and bool(line[1:].strip()) for lines in self.changed.values() for line in lines)


def parent_of(method: Method, taxonomy: Taxonomy, sources: Mapping[str, str]) -> Method | None:
    """The nearest ancestor of which there is a source, of equally near ones the first; None if there is none."""
    front, seen = list(method.builds_on), set[str]()
    while front:
        for id in front:
            if id in sources:
                return taxonomy.method(id)
        seen.update(front)
        front = [above for id in front for above in taxonomy.method(id).builds_on if above not in seen]
    return None


def compare(old: str, new: str) -> Difference:
    """The difference between the sources of two modules. Raises SyntaxError for source that is no Python."""
    before, after = definitions(old), definitions(new)
    names = sorted((name for name in after if after[name] != before.get(name)), key=lambda name: name != LOOP)
    changed = {name: tuple(_lines(before.get(name, ()), after[name])) for name in names}
    return Difference(changed, tuple(name for name in before if name not in after))


def definitions(source: str) -> dict[str, tuple[str, ...]]:
    """Name -> lines of every function, class and constant of a module but `example`, decorators included."""
    lines, found = source.splitlines(), dict[str, tuple[str, ...]]()
    for node in ast.parse(source).body:
        if (name := _name(node)) and name != "example":
            first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
            found[name] = tuple(lines[first - 1 : node.end_lineno])
    return found


def _name(node: ast.stmt) -> str:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return node.name
    if isinstance(node, ast.Assign):
        return ", ".join(map(ast.unparse, node.targets))
    return ast.unparse(node.target) if isinstance(node, ast.AnnAssign) else ""


def _lines(old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    at = to = 0
    for i, j, n in _blocks(old, new):
        yield from (f"-{line}" for line in old[at:i])
        yield from (f"+{line}" for line in new[to:j])
        yield from (f" {line}" for line in new[j : j + n])
        at, to = i + n, j + n


def _blocks(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    """Where lines are common: place in `old`, place in `new`, number of lines; the last block has none."""
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    alike = difflib.SequenceMatcher(None, [*filter(_says, old)], [*filter(_says, new)], autojunk=False).ratio() > COMMON
    for i, j, n in matcher.get_matching_blocks():
        if n == 0 or (alike and any(map(_says, new[j : j + n]))):
            yield i, j, n


def _says(line: str) -> bool:
    """Whether a line says something: blank ones and lone brackets are common to all code."""
    return any(map(str.isalnum, line))
