"""A page in the browser that notes what goes wrong, and what is looked for on every page."""

from __future__ import annotations

import os
import re
import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

WIDE, NARROW = 1280, (360, 320)  # pixels
HEIGHT = 800
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
THEME = {  # (axe's rule, selector) -> what the theme does; all are best practice, no failure of WCAG
    ("aria-dialog-name", ".md-search"): "the search box is a dialog without a name",
    ("landmark-unique", ".md-code__nav"): "every block of code has its own nav for the copy button, without a name",
    ("landmark-unique", "nav.md-nav"): "the navigation holds a landmark for each of its levels",
}
FRAME = (".md-header", ".md-tabs", ".md-sidebar--primary", ".md-footer")  # the same on every page
EMPTY_INDEX = {"config": {"lang": ["en"], "separator": "\\s", "pipeline": [], "fields": {}}, "docs": []}
STILL = "*, *::before, *::after { animation: none !important; transition: none !important }"


def executable() -> str:
    """Where the browser is. Without one the test is skipped, but where everything must run it fails."""
    found = shutil.which(os.environ.get("CHROMIUM", "chromium"))
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            "no browser: install Debian's chromium (apt-get install chromium), or name one in CHROMIUM"
        )
    return found


class Watched:
    """A window with one page. `wrong` gathers what the console says and what could not be fetched."""

    def __init__(self, browser: Browser, base: str, *, search: bool = False, motion: str = "reduce") -> None:
        """`base` is where the site stands. Without `search` its index is empty: the real one takes a second a page."""
        self.base = base
        self.wrong: list[str] = []
        self.requests: list[str] = []
        size = {"width": WIDE, "height": HEIGHT}
        self._context = browser.new_context(viewport=size, color_scheme="light", reduced_motion=motion)
        if not search:
            self._context.route("**/search_index.json", lambda route: route.fulfill(json=EMPTY_INDEX))
        self.page: Page = self._context.new_page()
        self.page.on("console", lambda said: self._say(said.type, said.text))
        self.page.on("pageerror", lambda error: self.wrong.append(f"error on the page: {error}"))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("requestfailed", lambda request: self.wrong.append(f"not fetched: {request.url}"))

    def _say(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self.wrong.append(f"console, {kind}: {text}")

    def go(self, path: str) -> Watched:
        self.page.goto(self.base + path)
        return self

    def close(self) -> None:
        self._context.close()

    def elsewhere(self) -> list[str]:
        """The requests that left the site."""
        return [url for url in self.requests if not url.startswith((self.base, "data:", "blob:"))]

    def scheme(self, scheme: str) -> None:
        """Prefer light or dark colours, as the reader's system does."""
        self.page.emulate_media(color_scheme=scheme)
        name = {"light": "default", "dark": "slate"}[scheme]
        self.page.wait_for_function(f"document.body.dataset.mdColorScheme === '{name}'")

    def width(self, pixels: int) -> None:
        self.page.set_viewport_size({"width": pixels, "height": HEIGHT})

    def violations(self, *rules: str, frame: bool = True) -> list[tuple[str, str, str]]:
        """What axe finds as (rule, selector, why); by all rules of `RULES`, or by these; also in the frame, or not."""
        only = {"type": "rule", "values": list(rules)} if rules else {"type": "tag", "values": list(RULES)}
        options = {"resultTypes": ["violations"], "runOnly": only}
        where = None if frame else {"exclude": [[part] for part in FRAME]}
        found = Axe().run(self.page, where, options).response["violations"]
        return [
            (violation["id"], node["target"][0], " ".join(node["failureSummary"].split()))
            for violation in found
            for node in violation["nodes"]
        ]

    def theirs(self, rule: str, selector: str) -> tuple[str, str] | None:
        """The entry of `THEME` that excuses a violation."""
        element = self.page.locator(selector).first
        return next(
            (known for known in THEME if known[0] == rule and element.evaluate("(e, s) => e.matches(s)", known[1])),
            None,
        )

    def ours(self, *rules: str, frame: bool) -> list[str]:
        """What axe finds and no entry of `THEME` excuses."""
        return [
            f"axe, {rule}: {selector}: {why}"
            for rule, selector, why in self.violations(*rules, frame=frame)
            if not self.theirs(rule, selector)
        ]


def problems(watched: Watched, *, frame: bool = True) -> list[str]:
    """All that is wrong with the page that is open: to see, to reach by keyboard, to fetch, in both schemes."""
    page = watched.page
    page.add_style_tag(content=STILL)
    page.wait_for_function("[...document.querySelectorAll('.arithmatex')].every(e => e.querySelector('.katex'))")
    found = [f"light: {one}" for one in watched.ours(frame=frame)]
    watched.scheme("dark")
    found += [f"dark: {one}" for one in watched.ours("color-contrast", frame=frame)]
    for width in NARROW:
        watched.width(width)
        reach = page.evaluate("document.scrollingElement.scrollWidth")
        found += [f"{width} pixels wide: the page is {reach} wide"] if reach > width else []
    found += [f"{width} pixels wide: {one}" for one in watched.ours("scrollable-region-focusable", frame=frame)]
    found += [f"a request to another host: {url}" for url in watched.elsewhere()]
    formulas = page.locator(".arithmatex").count() > 0
    fetched = any(re.search(r"/vendor/katex/", url) for url in watched.requests)
    if formulas != fetched:
        found.append(f"formulas: {formulas}, KaTeX fetched: {fetched}")
    return found + watched.wrong


SHOWN = """() => {
    const element = document.activeElement
    const look = () => {
        const style = getComputedStyle(element)
        return ["outline", "boxShadow", "background", "border", "color", "textDecoration"].map((n) => style[n]).join()
    }
    const focused = look()
    element.blur()
    const plain = look()
    element.focus()
    return focused !== plain
}"""


def tab_to(page: Page, selector: str, limit: int = 40) -> None:
    """Press Tab until an element that the selector matches has the focus, and see that it looks so."""
    for _ in range(limit):
        page.keyboard.press("Tab")
        if page.evaluate("s => document.activeElement.matches(s)", selector):
            assert page.evaluate(SHOWN), f"one does not see that {selector} has the focus"
            return
    raise AssertionError(f"{limit} times Tab did not lead to {selector}")


def start_at(page: Page, selector: str) -> None:
    """The next Tab goes on from here, as after a click on this text."""
    page.locator(selector).first.evaluate("element => { element.tabIndex = -1; element.focus() }")
