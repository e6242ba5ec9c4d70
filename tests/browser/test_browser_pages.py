"""Every kind of page in a real browser: readable, reachable, quiet, and as wide as the window."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from accelgen.project.places import ROOT
from accelgen.site.pages import navigation
from accelgen.taxonomy.loading import load_taxonomy
from browser.watching import THEME, Watched, executable, problems

LIMIT = 40 * 1024  # bytes
ALIKE = ("methods/", "categories/", "api/")  # folders with many pages of one kind
FRAMED = ("404.html", "/", "concepts/token-trees/")  # where what surrounds a page is looked at too


def paths() -> list[str]:
    """The pages of the navigation; of those that are made alike some, of the methods one a family and one planned."""
    taxonomy = load_taxonomy()
    done = [next(m.id for m in taxonomy.methods_of(c.id) if m.is_implemented) for c in taxonomy.categories]
    planned = [m.id for m in taxonomy.methods if not m.is_implemented][:1]
    sources = list(_sources(navigation(taxonomy)))
    shown = {f"methods/{id}.md" for id in ("index", *done, *planned)}
    shown |= {next(s for s in sources if s.startswith("categories/")), "api/index.md", "api/core.md"}
    sources = [source for source in sources if not source.startswith(ALIKE) or source in shown]
    return ["404.html", *(source.removesuffix(".md").removesuffix("index").rstrip("/") + "/" for source in sources)]


def _sources(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from _sources(part)


@pytest.mark.parametrize("path", paths())
def test_page(path: str, visit: Callable[..., Watched]) -> None:
    found = problems(visit(path.removeprefix("/")), frame=path in FRAMED)
    assert not found, "\n".join(found)


def test_the_checks_see_what_is_planted(visit: Callable[..., Watched]) -> None:
    watched = visit("404.html")
    watched.page.evaluate(
        """() => {
            const wide = Object.assign(document.createElement("div"), { innerHTML: "<img src=/gone.png>" })
            wide.style.width = "400px"
            const pale = Object.assign(document.createElement("p"), { textContent: "pale" })
            pale.style.color = "var(--ag-line)"
            const box = document.createElement("div")
            box.innerHTML = "<p style='white-space: nowrap'>" + "wide ".repeat(40)
            box.style.overflowX = "auto"
            document.querySelector("article").append(wide, pale, box)
            console.warn("mind")
            fetch("http://127.0.0.2:9/", { mode: "no-cors" }).catch(() => {})
            setTimeout(() => { throw new Error("oh") })
        }"""
    )
    found = problems(watched)
    for what in (
        "light: axe, image-alt", "light: axe, color-contrast", "dark: axe, color-contrast",
        "320 pixels wide: the page is", "320 pixels wide: axe, scrollable-region-focusable", "console, warning: mind",
        "error on the page: oh", "another host: http://127.0.0.2:9/", "not fetched: http://127.0.0.2:9/",
    ):  # fmt: skip
        assert any(what in problem for problem in found), (what, found)


def test_only_the_named_violations_of_the_theme_are_left_out(visit: Callable[..., Watched]) -> None:
    found = set()
    for watched in (visit("use/"), visit("api/")):
        found |= {watched.theirs(rule, selector) for rule, selector, _ in watched.violations()}
    assert found == set(THEME)


def test_scripts_and_styles_of_our_own_are_small() -> None:
    assets = ROOT / "docs" / "assets"
    sizes = {
        path.name: len(gzip.compress(path.read_bytes())) for path in assets.iterdir() if path.suffix in {".js", ".css"}
    }
    assert sizes.keys() >= {"extra.css", "player.js", "sift.js"}
    assert sum(sizes.values()) <= LIMIT, sizes


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_without_a_browser_one_sentence_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("CHROMIUM", "/no/such/browser")
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="install Debian's chromium"):
        executable()
