"""The calculator's script: the values of the Python, a sentence for what makes no sense, a link for every result."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from accelgen.measuring.speedup import best_gamma, expected_tokens, operations, pass_cost, speedup, verification
from accelgen.project.files import read_json
from accelgen.project.places import RESULTS, ROOT
from accelgen.site.results import Results
from accelgen.site.views import calculator
from accelgen.taxonomy.loading import load_taxonomy

SCRIPT = ROOT / "docs" / "assets" / "calculator.js"
MARKDOWN = calculator.page(load_taxonomy(), Results(acceptance=read_json(RESULTS / "acceptance.json")))
THEME = "globalThis.document$ = { subscribe: (shown) => shown() }"  # what the theme's stream of pages does at first

ACCEPTANCES = [0.0, 0.3, 0.6543289342067238, 0.8, 0.95, 1.0, [0.61, 0.66, 0.71, 0.68], [1.0, 0.0, 0.9], [0.5] * 7]
INPUTS = [
    {"acceptance": acceptance, "gamma": gamma, "c": c, "batch": batch, "ridge": ridge}
    for acceptance in ACCEPTANCES
    for gamma in (0, 1, 3, 64)
    for c in (0.0, 0.1, 1.5)
    for batch in (1, 48, 512)
    for ridge in (1.0, 295.5, math.inf)
    if not isinstance(acceptance, list) or gamma <= len(acceptance)
]


def expected(given: dict[str, Any]) -> list[float]:
    """What the Python says to these numbers."""
    acceptance, gamma, c, batch, ridge = given.values()

    def check(tokens: int) -> float:
        return verification(tokens, batch, ridge)

    best = best_gamma(acceptance, c, check)
    return [
        expected_tokens(acceptance, gamma),
        pass_cost(gamma + 1, batch, ridge),
        check(gamma + 1),
        speedup(acceptance, gamma, c, check(gamma + 1)),
        operations(acceptance, gamma),
        best,
        speedup(acceptance, best, c, check(best + 1)),
    ]


FOUND = """(inputs) => inputs.map((given) => {
    const of = speedupCalculator, { acceptance, gamma, batch, ridge } = given, best = of.bestGamma(given)
    return [of.expectedTokens(acceptance, gamma), of.passCost(gamma + 1, batch, ridge),
            of.verification(gamma + 1, batch, ridge), of.speedup(given, gamma), of.operations(acceptance, gamma),
            best, of.speedup(given, best)]
})"""


@pytest.fixture(scope="module")
def window(browser: Browser) -> Iterator[tuple[Page, list[str]]]:
    """One window for all tests of this file, and the errors in it."""
    context = browser.new_context()
    page, errors = context.new_page(), list[str]()
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page, errors
    context.close()


@pytest.fixture
def page(window: tuple[Page, list[str]]) -> Iterator[Page]:
    page, errors = window
    errors.clear()
    yield page
    assert not errors


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The form and the link of the real page, with nothing but the script around them."""
    form = re.search(r'<div class="calc">.*?\n</div>', MARKDOWN, re.DOTALL)
    link = re.search(r"<p><a [^>]*calculator.*?</p>", MARKDOWN)
    assert form
    assert link
    scripts = f'<script>{THEME}</script><script src="{SCRIPT.as_uri()}"></script>'
    file = tmp_path_factory.mktemp("calculator") / "page.html"
    file.write_text(f"<!doctype html><meta charset=utf-8><body>{form[0]}{link[0]}{scripts}", encoding="utf-8")
    return file


@pytest.fixture
def open_page(page: Page, file: Path) -> Callable[..., Page]:
    """Opens that page, without a server."""

    def open_page(query: str = "") -> Page:
        page.goto(file.as_uri() + query)
        return page

    return open_page


def figures(page: Page) -> dict[str, str]:
    names, values = (page.locator(f".calc__answer {tag}").all_text_contents() for tag in ("dt", "dd"))
    return dict(zip(names, values, strict=True))


def test_the_script_gives_the_values_of_the_python(page: Page) -> None:
    page.goto("about:blank")
    page.add_script_tag(path=SCRIPT)
    found = page.evaluate(FOUND, INPUTS)
    assert len(found) == len(INPUTS) > 600
    for given, own in zip(INPUTS, found, strict=True):
        assert own == pytest.approx(expected(given), rel=1e-9, abs=1e-9), given


def test_what_the_page_says_before_the_script_is_what_the_script_says(open_page: Callable[..., Page]) -> None:
    written = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", MARKDOWN))
    page = open_page()
    expect(page.locator("form")).to_be_visible()
    assert figures(page) == written


def test_every_entry_counts(open_page: Callable[..., Page]) -> None:
    page = open_page()
    for name, value in (("acceptance", "0.9"), ("gamma", "7"), ("c", "0.3"), ("batch", "100"), ("ridge", "50")):
        before = figures(page)
        page.fill(f"#calc-{name}", value)
        assert figures(page) != before, name
    wanted = calculator.figures(0.9, 7, 0.3, 100, 50.0)
    assert figures(page) == wanted


@pytest.mark.parametrize(
    ("name", "typed", "sentence"),
    [
        ("acceptance", "", "Enter a chance"),
        ("acceptance", "1.2", "“1.2” is no chance"),
        ("acceptance", "-0.1", "“-0.1” is no chance"),
        ("acceptance", "0,8", "“8” is no chance"),
        ("acceptance", "often", "“often” is no chance"),
        ("acceptance", "0.6, 0.7, 0.8", "for 3 places"),
        ("acceptance", "NaN", "“NaN” is no chance"),
        ("acceptance", ", ".join(["0.5"] * 65), "at most 64"),
        ("gamma", "", "whole number from 0 to 64"),
        ("gamma", "2.5", "whole number from 0 to 64"),
        ("gamma", "65", "whole number from 0 to 64"),
        ("gamma", "-1", "whole number from 0 to 64"),
        ("c", "", "number from 0 to 100"),
        ("c", "-1", "number from 0 to 100"),
        ("c", "Infinity", "number from 0 to 100"),
        ("batch", "0", "whole number from 1 to 1,000,000"),
        ("batch", "1.5", "whole number from 1 to 1,000,000"),
        ("ridge", "0.5", "number from 1 to 1,000,000"),
        ("ridge", "many", "number from 1 to 1,000,000"),
        ("ridge", "1e999", "number from 1 to 1,000,000"),
    ],
)
def test_what_makes_no_sense_gets_a_sentence(
    open_page: Callable[..., Page], name: str, typed: str, sentence: str
) -> None:
    page = open_page()
    page.fill(f"#calc-{name}", typed)
    at = "gamma" if "places" in sentence else name  # too few places is said beside the draft length
    field, said = page.locator(f"#calc-{at}"), page.locator(f"#calc-{at}-wrong")
    expect(said).to_contain_text(sentence)
    expect(said).to_have_role("alert")
    assert f"calc-{at}-wrong" in (field.get_attribute("aria-describedby") or "").split()
    expect(field).to_have_attribute("aria-invalid", "true")
    assert page.locator(".calc__answer").get_attribute("class") == "calc__answer calc__answer--off"
    page.click("[type=reset]")
    expect(field).not_to_have_attribute("aria-invalid", "true")
    expect(said).to_be_empty()
    assert page.locator(".calc__answer").get_attribute("class") == "calc__answer"


@pytest.mark.parametrize(
    "typed",
    [
        {"acceptance": "0", "gamma": "0", "c": "100"},
        {"acceptance": "1", "gamma": "64", "c": "100", "batch": "1000000", "ridge": "1"},
        {"acceptance": "1", "gamma": "64", "c": "0", "ridge": ""},
        {"acceptance": "0.5, 0.5", "gamma": "0", "ridge": "1e6"},
    ],
)
def test_extremes_are_numbers_still(open_page: Callable[..., Page], typed: dict[str, str]) -> None:
    page = open_page(f"?{urlencode(typed)}")
    assert page.locator("[aria-invalid]").count() == 0
    shown = page.locator(".calc").inner_html()
    assert "plain decoding" in shown
    for word in ("NaN", "Infinity", "undefined"):
        assert word not in shown


def test_no_ridge_is_the_theorem(open_page: Callable[..., Page]) -> None:
    page = open_page("?batch=5000")
    page.get_by_role("button", name="no ridge").click()
    assert figures(page)["Check, r"] == "1.00"
    page.get_by_role("button", name="A100").click()
    assert page.input_value("#calc-ridge") == "201"
    assert figures(page)["Check, r"] == "5.00"


def test_the_address_holds_what_was_entered(open_page: Callable[..., Page]) -> None:
    page = open_page()
    assert urlsplit(page.url).query == ""
    page.fill("#calc-acceptance", "0.6, 0.7, 0.8")
    page.fill("#calc-gamma", "2")
    page.fill("#calc-ridge", "")
    entered = {"acceptance": ["0.6, 0.7, 0.8"], "gamma": ["2"], "ridge": [""]}
    assert parse_qs(urlsplit(page.url).query, keep_blank_values=True) == entered
    shown = figures(page)
    page.reload()
    assert figures(page) == shown
    assert page.input_value("#calc-ridge") == ""
    page.click("[type=reset]")
    expect(page.locator("#calc-gamma")).to_have_value("4")
    page.wait_for_function("location.search === ''")


def test_an_address_of_somebody_else_s_making_does_no_harm(open_page: Callable[..., Page]) -> None:
    page = open_page("?acceptance=<b>x</b>&gamma=9e9&unknown=1&c=0.2")
    expect(page.locator("#calc-acceptance-wrong")).to_contain_text("“<b>x</b>” is no chance")
    assert page.input_value("#calc-c") == "0.2"


def test_the_link_puts_our_own_chances_into_the_form(open_page: Callable[..., Page]) -> None:
    found = read_json(RESULTS / "acceptance.json")
    assert found
    page = open_page()
    page.get_by_role("link", name="Put these chances").click()
    expect(page.locator("#calc-gamma")).to_have_value(str(found["gamma"]))
    entered = [float(part) for part in page.input_value("#calc-acceptance").split(",")]
    assert entered == pytest.approx(found["conditional"], abs=5e-5)
    assert float(figures(page)["Tokens a pass, n"]) == pytest.approx(found["tokens_per_pass"], abs=0.006)


@pytest.mark.parametrize(("acceptance", "gamma", "last"), [("0.8", 4, 12), ("0.8", 20, 22), ("0.6, 0.7", 1, 2)])
def test_the_curve_and_its_table_are_the_formula(
    open_page: Callable[..., Page], acceptance: str, gamma: int, last: int
) -> None:
    page = open_page()
    page.fill("#calc-acceptance", acceptance)
    page.fill("#calc-gamma", str(gamma))
    chances = [float(part) for part in acceptance.split(",")]
    values = chances if len(chances) > 1 else chances[0]
    rows = [row.split("\t") for row in page.locator(".calc__answer tbody tr").evaluate_all(TEXTS)]
    assert [(int(g), float(s)) for g, *_, s in rows] == [
        (g, pytest.approx(speedup(values, g, 0.1), abs=0.005)) for g in range(last + 1)
    ]
    best = best_gamma(values, 0.1)
    dots, ring = page.locator("circle:not(.calc__best)"), page.locator("circle.calc__best")
    assert dots.count() == last + 1
    assert ring.get_attribute("cx") == dots.nth(best).get_attribute("cx")
    assert ring.get_attribute("cy") == dots.nth(best).get_attribute("cy")
    diamond = page.locator("path.fig__turn").get_attribute("d") or ""
    x, y = map(float, diamond.removeprefix("M").split("l")[0].split())
    assert x == pytest.approx(float(dots.nth(gamma).get_attribute("cx") or 0))
    assert y + 7 == pytest.approx(float(dots.nth(gamma).get_attribute("cy") or 0))
    heights = [float(dots.nth(g).get_attribute("cy") or 0) for g in range(last + 1)]
    assert heights.index(min(heights)) == best
    assert f"γ = {gamma}" in (page.locator("svg").text_content() or "")


TEXTS = "rows => rows.map(row => [...row.cells].map(cell => cell.textContent).join('\\t'))"


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ({"acceptance": "0.8"}, "2.40 times as fast as plain decoding. Best: 6 guesses, 2.47 times."),
        ({"gamma": "6"}, "With 6 guesses: 2.47 times as fast as plain decoding. No other draft length is better."),
        ({"acceptance": "0.1", "c": "0.5"}, "so slower. No draft length beats plain decoding."),
        (
            {"acceptance": "0.9, 0.9", "gamma": "1"},
            "Best: 2 guesses, 2.26 times. More might be better, but you gave no more",
        ),
        ({"acceptance": "1", "c": "0"}, "Best: 64 guesses, 65.00 times. More were not tried."),
        ({"batch": "256", "gamma": "1"}, "With 1 guess: 0.98 times as fast as plain decoding, so slower."),
    ],
)
def test_the_verdict_in_words(open_page: Callable[..., Page], typed: dict[str, str], words: str) -> None:
    page = open_page()
    if "gamma" in typed:
        page.fill("#calc-gamma", typed["gamma"])
    for name, value in typed.items():
        page.fill(f"#calc-{name}", value)
    expect(page.locator("output")).to_contain_text(words)
    assert (page.locator("svg").get_attribute("aria-label") or "").endswith(page.locator("output").inner_text())
