"""The offline build from disk, without a server: nothing is missing, formulas, player and search work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from browser.watching import Watched


@pytest.fixture
def offline(browser: Browser, offline_site: Path) -> Iterator[Watched]:
    """A window on the folder that `make offline` packs; in the end nothing has gone wrong in it."""
    watched = Watched(browser, offline_site.as_uri() + "/", search=True)
    yield watched
    watched.close()
    assert not [*watched.wrong, *watched.elsewhere()]


def test_home_and_its_links_open_from_disk(offline: Watched) -> None:
    page = offline.go("index.html").page
    page.locator("article a[href]").first.click()
    expect(page.locator("h1")).to_be_visible()
    assert page.url.startswith(offline.base)
    assert page.url != offline.base + "index.html"


def test_a_run_is_replayed_from_disk_beside_formulas(offline: Watched) -> None:
    page = offline.go("methods/speculative-decoding-leviathan.html").page
    expect(page.locator(".arithmatex .katex").first).to_be_visible()
    says = page.locator(".player__says").first
    said = says.text_content() or "nothing"
    page.get_by_role("button", name="Step back").first.click()
    expect(says).not_to_have_text(said)


def test_two_runs_are_chosen_from_disk(offline: Watched) -> None:
    page = offline.go("explore/replay.html").page
    before = page.locator(".player__name").first.text_content() or ""
    page.get_by_label("Left").select_option(index=2)
    expect(page.locator(".player__name").first).not_to_have_text(before)


def test_the_table_is_sifted_from_disk(offline: Watched) -> None:
    page = offline.go("explore/comparison.html").page
    page.locator(".sift__form input").fill("EAGLE")
    expect(page.locator(".sift__count")).not_to_contain_text(f"{page.locator('.sift tbody tr').count()} of")


def test_the_search_finds_a_technique_from_disk(offline: Watched) -> None:
    page = offline.go("index.html").page
    page.locator(".md-search__input").fill("Medusa")
    found = page.locator(".md-search-result__link").first
    expect(found).to_be_visible(timeout=20_000)
    found.click()
    expect(page.locator("h1")).to_contain_text("Medusa")
