"""Small pieces of Markdown and HTML that the generated pages are made of."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster where libyaml is there
_PROTECTED = re.compile(r"(`+[^`]*`+|\$[^$]+\$)")


def front_matter(**fields: Any) -> str:
    """The YAML head of a page; fields that are empty are left out."""
    kept = {key: value for key, value in fields.items() if value}
    return f"---\n{yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=10_000)}---\n"


def read_front_matter(text: str) -> dict[str, Any]:
    """The YAML head of a page. Raises ValueError for a page without one."""
    before, *rest = text.split("---\n", 2)
    if before or len(rest) < 2:
        raise ValueError(f"the page that begins with {text[:40]!r} has no YAML head between lines of ---")
    found: dict[str, Any] = yaml.load(rest[0], Loader=LOADER)  # noqa: S506 - safe, both of them
    return found


def section(title: str, *blocks: str, attributes: str = "") -> str:
    """A second-level section, or nothing at all if every block is empty."""
    text = "\n\n".join(block for block in blocks if block)
    head = f"## {title} {{ {attributes} }}" if attributes else f"## {title}"
    return f"{head}\n\n{text}" if text else ""


def join(blocks: Iterable[str]) -> str:
    """Blocks that are not empty, a blank line between them, one newline at the end."""
    return "\n\n".join(block.rstrip() for block in blocks if block) + "\n"


def bullets(items: Iterable[str]) -> str:
    """A list; an item of several lines stays one item."""
    return "\n".join(f"- {indent(item.strip(), 4).lstrip()}" for item in items)


def indent(text: str, width: int) -> str:
    """Every line that is not blank, moved right."""
    return "\n".join(" " * width + line if line.strip() else "" for line in text.splitlines())


def cell(text: str) -> str:
    """Text for a table cell: one line, and no bar that would end the cell."""
    parts = _PROTECTED.split(" ".join(text.split()))
    for i, part in enumerate(parts):
        if part.startswith("$"):
            parts[i] = part.replace(r"\|", r"\Vert ").replace("|", r"\vert ")
        elif not part.startswith("`"):
            parts[i] = part.replace("|", "&#124;")
    return "".join(parts)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, or nothing if it has no rows."""
    lines = ["| " + " | ".join(map(cell, row)) + " |" for row in rows]
    if not lines:
        return ""
    return "\n".join(["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *lines])


def fence(text: str, language: str, options: str = "") -> str:
    """A code block whose fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{' '.join(filter(None, [language, options]))}\n{text.strip(chr(10))}\n{ticks}"


def collapsible(title: str, body: str, kind: str = "source") -> str:
    """A closed box that opens on a click; it works without scripts."""
    return f'??? {kind} "{title}"\n\n{indent(body, 4)}'


def columns(lists: Mapping[str, Iterable[str]]) -> str:
    """Lists side by side where there is room, each under its title; empty ones are left out."""
    filled = {title: items for title, items in lists.items() if items}
    cards = [f"<div markdown>\n\n**{title}**\n\n{bullets(items)}\n\n</div>" for title, items in filled.items()]
    return '<div class="pair" markdown>\n\n' + "\n\n".join(cards) + "\n\n</div>" if cards else ""


def note(title: str, body: str, kind: str = "note") -> str:
    """An admonition."""
    return f'!!! {kind} "{title}"\n\n{indent(body, 4)}'


def badge(text: str, kind: str) -> str:
    """A small label whose look says its kind."""
    return f'<span class="badge badge--{kind}">{html.escape(text)}</span>'


def escape(text: str) -> str:
    """Text for raw HTML on one line, in which no fence and no blank line can end the block."""
    return html.escape(text).replace("`", "&#96;").replace("\n", "&#10;").replace("\t", "&#9;")
