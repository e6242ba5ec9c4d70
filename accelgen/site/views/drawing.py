"""Linked drawings: inline SVG that takes its colours from the site's style sheet."""

from __future__ import annotations

import html
import posixpath
from collections.abc import Iterable

from accelgen.taxonomy.schema import Method

ROW = 24  # height of a line of text, in pixels
LETTER = 7.3  # width of a letter, on average


def address(there: str, here: str, *, directories: bool = True) -> str:
    """The link from the page `here` to the page `there`, both given as Markdown files below docs/.

    Links in raw HTML reach the reader as they are, so they must know whether a page becomes a folder.
    """

    def published(path: str) -> str:
        stem = path.removesuffix(".md")
        if not directories:
            return f"{stem}.html"
        return stem.removesuffix("index") if stem.endswith("index") else f"{stem}/"

    base = published(here) if directories else posixpath.dirname(here)
    relative = posixpath.relpath(published(there), base or ".")
    return f"{relative}/" if directories else relative


def label(method: Method, x: float, y: float, href: str, *, faint: bool = False) -> str:
    """The method's name as a link, its middle left at (x, y); the title tells paper and year.

    The address stands in `xlink:href`, which no generator rewrites; in raw HTML Zensical makes relative ones longer.
    """
    kind = f"draw__node draw__node--{method.category}{' draw__node--faint' if faint else ''}"
    title = html.escape(f"{method.paper.title} ({method.paper.year})")
    done = "●" if method.is_implemented else "○"
    return (
        f'<a class="{kind}" xlink:href="{html.escape(href)}"><title>{title}</title>'
        f'<text x="{x:.0f}" y="{y:.0f}" dominant-baseline="middle">{done} {html.escape(method.name)}</text></a>'
    )


def width_of(method: Method) -> float:
    """About how wide the label is."""
    return LETTER * (len(method.name) + 2.5)


def drawing(parts: Iterable[str], width: float, height: float, name: str) -> str:
    """The parts as one SVG of this size, in a box that scrolls where the page is narrower."""
    shapes = "\n".join(parts)
    return (
        f'<div class="draw" tabindex="0" role="region" aria-label="{html.escape(name)}">\n'
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
        f'role="group" aria-label="{html.escape(name)}">\n{shapes}\n</svg>\n</div>'
    )
