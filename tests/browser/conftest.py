"""One browser a worker: Debian's chromium, driven by Playwright, which downloads nothing here.

Playwright is used without its pytest plugin, which would wrap every test of the suite and clear a folder of the
checkout in every session; what is needed of it are these few fixtures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright
from sites import served

from browser.watching import Watched, executable

expect.set_options(timeout=30_000)  # milliseconds; the machine may have other things to do


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = executable()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def address(built_site: Path) -> Iterator[str]:
    """Where the built site is served, ending in a slash."""
    with served(built_site) as address:
        yield address


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Callable[..., Watched]]:
    """Opens a page of the site, given by its path, in a window of its own."""
    opened: list[Watched] = []

    def visit(path: str, base: str = address, **options: object) -> Watched:
        opened.append(Watched(browser, base, **options))
        return opened[-1].go(path)

    yield visit
    for watched in opened:
        watched.close()
