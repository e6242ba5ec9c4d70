"""The same pages built by Zensical, which is to take over from MkDocs: compared page by page, not by exit code."""

from __future__ import annotations

import importlib.util
import json
import os
import posixpath
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from accelgen.site.check import check
from accelgen.site.publish import stage

# What differs, exactly; the tests below fail when Zensical learns it, or unlearns more.
ONLY_MKDOCS = {"assets/_mkdocstrings.css", "search/search_index.json", "sitemap.xml.gz", "tags.json"}
ONLY_ZENSICAL = {"search.json"}
THEIR_OWN = ("assets/javascripts/", "assets/stylesheets/", "assets/images/")  # the files of the two themes
SKIP = ("a", "id", "__skip")  # Zensical puts the target of its skip link into the article
UNMARKED = "tags/index.html"  # the tags themselves are no headings with a link of their own

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("zensical"), reason="Zensical is not installed: make install"),
]


@pytest.fixture(scope="module")
def other(shared: Path) -> Path:
    """The folder that Zensical built."""
    folder, done = shared / "zensical", shared / "zensical.done"
    with FileLock(shared / "zensical.lock"):
        if not done.exists():
            stage(folder)
            command = [sys.executable, "-m", "zensical", "build", "--strict"]
            ran = subprocess.run(command, cwd=folder, env=os.environ, capture_output=True, text=True, check=False)
            assert ran.returncode == 0, ran.stdout + ran.stderr
            done.touch()
    return folder / "site"


class Page(HTMLParser):
    """What a page consists of: its article's elements, classes and ids, its headings, and what stands around it."""

    VOID = frozenset({"br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"})

    def __init__(self, site: Path, name: str) -> None:
        """The page of this name, which is its path below `site`."""
        super().__init__()
        self.folder = posixpath.dirname(f"/{name}")
        self.parts: Counter[tuple[str, str, str]] = Counter()
        self.headings: list[list[str]] = []
        self.head: list[tuple[str, ...]] = []
        self.scripts: list[str] = []
        self.nav: list[str] = []
        self._open: list[tuple[str, str]] = []
        self.feed((site / name).read_text(encoding="utf-8"))
        self.headings = [[tag, id, " ".join(text.split())] for tag, id, text in self.headings]

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        found = {name: value or "" for name, value in attrs}
        kind = found.get("class", "")
        if tag not in self.VOID:
            self._open.append((tag, kind))
        if tag == "meta" and found.get("name", "").startswith(("citation_", "description")):
            self.head.append((found["name"], found["content"]))
        if tag == "script" and "/javascripts/" not in found.get("src", ""):
            self.scripts.append(self._whole(found["src"]) if "src" in found else found.get("type", ""))
        if tag == "a" and "md-nav__link" in kind:
            self.nav.append(self._whole(found["href"]))
        if self._inside("article", "md-content__inner"):
            self.parts[tag, "", ""] += 1
            self.parts.update((tag, "class", name) for name in kind.split())
            if "id" in found:
                self.parts[tag, "id", found["id"]] += 1
            if tag in {"h1", "h2", "h3", "h4", "h5", "h6"}:
                self.headings.append([tag, found.get("id", ""), ""])

    def handle_endtag(self, tag: str) -> None:
        if self._inside(tag):
            while self._open.pop()[0] != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self.headings and self._inside(self.headings[-1][0]) and not self._inside("a", "headerlink"):
            self.headings[-1][2] += data

    def _whole(self, address: str) -> str:
        """The address as seen from the root of the site."""
        return posixpath.normpath(posixpath.join(self.folder, address))

    def _inside(self, tag: str, kind: str = "") -> bool:
        return any(tag == name and kind in found for name, found in self._open)


def files(site: Path) -> set[str]:
    found = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith(THEIR_OWN)}


def differences(name: str, one: Path, two: Path) -> list[str]:
    """Where a page of MkDocs and the same of Zensical differ, beyond what is known."""
    ours, theirs = Page(one, name), Page(two, name)
    theirs.parts -= Counter([SKIP, ("a", "", "")])
    if name == UNMARKED:
        for part in (("a", "", ""), ("a", "class", "headerlink")):
            ours.parts[part] = theirs.parts[part]
    found = [f"{part}: {ours.parts[part]} and {theirs.parts[part]}" for part in sorted(ours.parts | theirs.parts)
             if ours.parts[part] != theirs.parts[part]]  # fmt: skip
    pairs = {what: (getattr(ours, what), getattr(theirs, what)) for what in ("headings", "head", "scripts", "nav")}
    found += [f"{what}: {one} and {two}" for what, (one, two) in pairs.items() if one != two]
    return [f"{name}: {one}" for one in found]


def test_the_files_are_the_same(built_site: Path, other: Path) -> None:
    ours, theirs = files(built_site), files(other)
    assert ours - theirs == ONLY_MKDOCS
    assert theirs - ours == ONLY_ZENSICAL
    for name in ours & theirs:
        if name.startswith(("assets/", "downloads/")):
            assert (built_site / name).read_bytes() == (other / name).read_bytes(), name


def test_every_page_has_the_same_parts(built_site: Path, other: Path) -> None:
    names = sorted(name for name in files(built_site) if name.endswith(".html"))
    found = [one for name in names for one in differences(name, built_site, other)]
    assert not found, "\n".join(found[:20])


def test_the_parts_that_matter_are_seen(built_site: Path) -> None:
    parts = Page(built_site, "methods/speculative-decoding-leviathan/index.html").parts
    for tag, kind in (
        ("trace-player", ""), ("span", "badge"), ("abbr", ""), ("span", "arithmatex"), ("div", "highlight"),
        ("table", ""), ("details", "source"), ("template", ""), ("a", "headerlink"),
    ):  # fmt: skip
        assert parts[tag, "class" if kind else "", kind], (tag, kind)


def test_each_page_can_be_searched(other: Path) -> None:
    index = json.loads((other / "search.json").read_text(encoding="utf-8"))
    found = {entry["location"].partition("#")[0] for entry in index["items"]}
    pages = {path.relative_to(other).parent.as_posix() for path in other.rglob("index.html")}
    assert {place.rstrip("/") or "." for place in found} == pages


def test_links_are_sound_and_stay_on_the_site(other: Path) -> None:
    problems = check(other)
    assert not problems, "\n".join(map(str, problems))
