"""The docstring of a method's module is its page. It is read with `ast`, so nothing is imported."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

SECTIONS = ("Idea", "Algorithm", "Guarantee", "Differences from the paper", "Example")
_HEADING = re.compile(r"^([A-Z][^\n]*)\n-{3,}$", re.MULTILINE)


@dataclass(frozen=True)
class Docstring:
    """What a method's docstring says."""

    summary: str  # its first sentence, without the method's name
    sections: dict[str, str]  # heading -> text, in order


def parse(source: str) -> Docstring:
    """The docstring of a module's source. Raises SyntaxError for source that is no Python."""
    head, *rest = _HEADING.split(ast.get_docstring(ast.parse(source)) or "")
    first = " ".join(head.strip().split("\n\n")[0].split())
    summary = first.partition(": ")[2] or first
    titles, texts = rest[::2], (text.strip() for text in rest[1::2])
    return Docstring(summary[:1].upper() + summary[1:], dict(zip(titles, texts, strict=True)))
