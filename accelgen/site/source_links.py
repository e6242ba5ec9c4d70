"""Source whose lines have addresses, and the links that lead there: names in backticks, and steps headed by comments.

The lines are found in the source itself, by `ast`, whenever the pages are made; so a link cannot outlive what it
points at, and a renamed function takes its links along.
"""

from __future__ import annotations

import ast
import html
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import pygments
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from accelgen.site.lineage_diff import LOOP

LINE = "line"  # line 7 of the listing with the id `code` has the id `line-code-7`
_CODE = re.compile(r"(?<![`\[])`([^`]+)`(?!`)")
_STEP = re.compile(r"^(\d+\. )\*([A-Z][\w-]*)\*", re.MULTILINE)
_COMMENT = re.compile(r"\s*# ([A-Z][\w-]*): ")
_ITEM = re.compile(r"^(?=\d+\. )", re.MULTILINE)


class _Kind(IntEnum):
    """How a line speaks of a name; the least says most."""

    DEFINED = 0  # a function, a class, a constant of the module
    OWN = 1  # a parameter or a variable of `generate`
    MEMBER = 2
    PARAMETER = 3
    ASSIGNED = 4
    VALUE = 5  # a string, as one of several choices
    USED = 6
    KEYWORD = 7
    ATTRIBUTE = 8


def anchor(block: str, line: int) -> str:
    """The address, on its own page, of a line of the source block with this id."""
    return f"#{LINE}-{block}-{line}"


@lru_cache(maxsize=256)
def listing(title: str, source: str, id: str) -> str:
    """Python in a closed box, coloured, with an id for each line.

    It is HTML, because only all fences of a site or none can have such ids; and it stands on one line, so that Markdown
    finds no block to begin in it.
    """
    coloured = pygments.highlight(source, PythonLexer(stripnl=False), HtmlFormatter(nowrap=True))
    lines = enumerate(coloured.rstrip("\n").split("\n"), start=1)
    code = "".join(f'<span id="{LINE}-{id}-{number}">{line}&#10;</span>' for number, line in lines)
    block = f'<div class="language-python highlight" id="{id}"><pre><span></span><code>{code}</code></pre></div>'
    return f'<details class="source"><summary>{html.escape(title)}</summary>{block}</details>'


def place(source: str) -> Mapping[str, int]:
    """Name -> line where it is defined, or else first used, for all names in a module's code; imports do not count."""
    tree, found = ast.parse(source), dict[str, tuple[_Kind, int]]()
    for node in ast.walk(tree):
        for name, kind, line in _names(node, top=node in tree.body):
            found[name] = min(found.get(name, (kind, line)), (kind, line))
    return {name: line for name, (_, line) in found.items()}


def _names(node: ast.AST, *, top: bool) -> Iterator[tuple[str, _Kind, int]]:
    match node:
        case ast.FunctionDef() | ast.ClassDef():
            yield node.name, _Kind.DEFINED if top else _Kind.MEMBER, node.lineno
            if top and node.name == LOOP:
                yield from _own(node)
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)) if top:
            yield name, _Kind.DEFINED, node.lineno
        case ast.arg():
            yield node.arg, _Kind.PARAMETER, node.lineno
        case ast.Name():
            yield node.id, _Kind.USED if isinstance(node.ctx, ast.Load) else _Kind.ASSIGNED, node.lineno
        case ast.Constant(value=str(value)):
            yield value, _Kind.VALUE, node.lineno
        case ast.keyword(arg=str(name)):
            yield name, _Kind.KEYWORD, node.value.lineno
        case ast.Attribute():
            yield node.attr, _Kind.ATTRIBUTE, node.end_lineno or node.lineno


def _own(loop: ast.AST) -> Iterator[tuple[str, _Kind, int]]:
    for node in ast.walk(loop):
        if isinstance(node, ast.arg):
            yield node.arg, _Kind.OWN, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, _Kind.OWN, node.lineno


@dataclass(frozen=True)
class SourceLinks:
    """The lines of one source block of a page."""

    block: str
    names: Mapping[str, int]
    steps: Mapping[str, int]
    """First word of a comment that heads a paragraph, such as Draft, Verify and Commit -> its line."""
    code: tuple[str, ...] = ()
    """The lines themselves; those of the module's docstring are empty."""

    @classmethod
    def of(cls, source: str, block: str) -> SourceLinks:
        """Read them in the source that the block shows. Raises SyntaxError for source that is no Python."""
        steps: dict[str, int] = {}
        for number, line in enumerate(source.splitlines(), start=1):
            if found := _COMMENT.match(line):
                steps.setdefault(found[1], number)
        tree = ast.parse(source)
        said = (tree.body[0].end_lineno or 0) if ast.get_docstring(tree) else 0
        return cls(block, place(source), steps, ("",) * said + tuple(source.splitlines()[said:]))

    def link(self, text: str) -> str:
        """Markdown whose names and steps lead to their lines, the first of each in a paragraph or a numbered item."""
        return "".join(map(self._link_item, _ITEM.split(text)))

    def _link_item(self, text: str) -> str:
        seen = set[int]()

        def name(found: re.Match[str]) -> str:
            line = self.line(found[1])
            if line is None or line in seen:
                return found[0]
            seen.add(line)
            return f"[{found[0]}]({anchor(self.block, line)})"

        def step(found: re.Match[str]) -> str:
            line = self.steps.get(found[2])
            return f"{found[1]}[*{found[2]}*]({anchor(self.block, line)})" if line else found[0]

        replace: list[tuple[re.Pattern[str], Callable[[re.Match[str]], str]]] = [(_CODE, name), (_STEP, step)]
        for pattern, make in replace:
            text = pattern.sub(make, text)
        return text

    def line(self, code: str) -> int | None:
        """The line of a name; of longer code the line that holds it, or else that of the first name that is known."""
        if not code.isidentifier():
            for number, line in enumerate(self.code, start=1):
                if code in line:
                    return number
        return next((self.names[name] for name in re.findall(r"[^\W\d]\w*", code) if name in self.names), None)

    def name(self, name: str, page: str = "") -> str:
        """A name as a link to its line, from another page if that one's address is given."""
        return f"[`{name}`]({page}{anchor(self.block, self.names[name])})"
