"""Checks a built site for what `mkdocs build --strict` does not see.

Every link and every anchor leads somewhere, no id occurs twice on a page, and no page makes the reader's browser talk
to another host. Links that a reader may follow to other sites are not looked at.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

# Elements that make a browser fetch something, and the attributes that say what.
FETCHED = {
    "audio": ("src",), "embed": ("src",), "feimage": ("href", "xlink:href"), "iframe": ("src",),
    "image": ("href", "xlink:href"), "img": ("src", "srcset"), "input": ("src",), "object": ("data",),
    "script": ("src",), "source": ("src", "srcset"), "track": ("src",), "use": ("href", "xlink:href"),
    "video": ("src", "poster"),
}  # fmt: skip
FOLLOWED = {"a": ("href", "xlink:href"), "area": ("href",), "form": ("action",)}
NAMED_ONLY = {"canonical", "alternate", "author", "license", "me"}  # `link` relations that fetch nothing
CSS_URL = re.compile(r"""url\(\s*(?:"([^"]*)"|'([^']*)'|([^)"']*))\s*\)|@import\s+(?:"([^"]*)"|'([^']*)')""")
CSS_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
EXTERNAL = re.compile(r"^([a-z][a-z0-9+.-]*:)?//|^(https?|wss?|ftp):", re.IGNORECASE)
HARMLESS = re.compile(r"^(data|mailto|tel|javascript|blob):", re.IGNORECASE)


@dataclass(frozen=True, order=True)
class Problem:
    """Something wrong with a page of the site."""

    page: str
    line: int
    what: str

    def __str__(self) -> str:
        """One line: where, and what."""
        return f"{self.page}, line {self.line}: {self.what}"


@dataclass(frozen=True)
class Reference:
    """An address that a page or a style sheet mentions."""

    line: int
    target: str
    fetched: bool


class _Page(HTMLParser):
    """Collects the ids and the references of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[tuple[int, str]] = []
        self.references: list[Reference] = []
        self._style: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        line = self.getpos()[0]
        if found.get("id"):
            self.ids.append((line, found["id"]))
        for name in FOLLOWED.get(tag, ()):
            self._refer(line, found.get(name), fetched=False)
        for name in FETCHED.get(tag, ()):
            for address in _addresses(name, found.get(name)):
                self._refer(line, address, fetched=True)
        if tag == "link":
            self._refer(line, found.get("href"), fetched=not NAMED_ONLY.issuperset(found.get("rel", "").split()))
        self.references += css_references(found.get("style", ""), line)
        if tag == "style":
            self._style = []

    def handle_data(self, data: str) -> None:
        if self._style is not None:
            self._style.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "style" and self._style is not None:
            self.references += css_references("".join(self._style), self.getpos()[0])
            self._style = None

    def _refer(self, line: int, target: str | None, *, fetched: bool) -> None:
        if target is not None:
            self.references.append(Reference(line, target.strip(), fetched))


def _addresses(name: str, value: str | None) -> list[str]:
    if value is None:
        return []
    return [part.split()[0] for part in value.split(",") if part.strip()] if name == "srcset" else [value]


def css_references(text: str, line: int | None = None) -> list[Reference]:
    """The addresses that a style sheet fetches; `line` for all of them, or counted from 1."""
    text = CSS_COMMENT.sub(lambda comment: "\n" * comment[0].count("\n"), text)
    found = []
    for match in CSS_URL.finditer(text):
        target = next((group for group in match.groups() if group is not None), "").strip()
        found.append(Reference(line or text.count("\n", 0, match.start()) + 1, target, fetched=True))
    return found


def check(site: Path) -> list[Problem]:
    """All problems of the site built in the folder `site`, in order; an empty list if there is none.

    Raises FileNotFoundError if there is no page in it.
    """
    site = site.resolve()
    paths = sorted(path for path in site.rglob("*.html") if path.is_file())
    if not paths:
        raise FileNotFoundError(f"{site} has no HTML page: build the site first")

    @cache
    def page(path: Path) -> _Page:
        parser = _Page()
        parser.feed(path.read_text(encoding="utf-8"))
        parser.close()
        return parser

    @cache
    def ids(path: Path) -> frozenset[str]:
        return frozenset(name for _, name in page(path).ids)

    problems: set[Problem] = set()
    for path in paths:
        name = path.relative_to(site).as_posix()
        problems |= {Problem(name, line, what) for line, what in _doubles(page(path))}
        problems |= {Problem(name, r.line, what) for r in page(path).references if (what := _wrong(r, path, site, ids))}
    for path in sorted(site.rglob("*.css")):
        name = path.relative_to(site).as_posix()
        found = css_references(path.read_text(encoding="utf-8"))
        problems |= {Problem(name, r.line, what) for r in found if (what := _wrong(r, path, site, ids))}
    return sorted(problems)


def _doubles(page: _Page) -> Iterator[tuple[int, str]]:
    counts = Counter(name for _, name in page.ids)
    for name, count in counts.items():
        if count > 1:
            line = [at for at, other in page.ids if other == name][1]
            yield line, f"the id {name!r} occurs {count} times"


def _wrong(reference: Reference, path: Path, site: Path, ids: Callable[[Path], frozenset[str]]) -> str | None:
    """What is wrong with a reference on the page or style sheet `path`, if anything."""
    target = reference.target
    if HARMLESS.match(target):
        return None
    if EXTERNAL.match(target):
        return f"the page would fetch {target} from another host" if reference.fetched else None
    address, fragment = urldefrag(target)
    file = _file(unquote(address.partition("?")[0]), path, site)
    if file is None:
        return f"{target} leads to nothing"
    fragment = unquote(fragment)
    if fragment and file.suffix == ".html" and fragment not in ids(file):
        return f"{target} leads to a page without the id {fragment!r}"
    return None


def _file(address: str, path: Path, site: Path) -> Path | None:
    """The file of the site that an address on `path` means; None if there is none."""
    found = site / address.lstrip("/") if address.startswith("/") else path.parent / address
    found = found.resolve() if address else path
    if found.is_dir():
        found /= "index.html"
    return found if found.is_file() and found.is_relative_to(site) else None
