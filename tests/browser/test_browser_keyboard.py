"""Everything that answers to a click answers to the keyboard, shows the focus, and says what changed."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from accelgen.project.places import TRACES
from browser.watching import Watched, start_at, tab_to

Visit = Callable[..., Watched]
PLAYED = "methods/speculative-decoding-leviathan/"
TREE = "concepts/token-trees/"


def test_the_player_steps_plays_and_says_where_it_stands(visit: Visit) -> None:
    page = visit(PLAYED).page
    player = page.locator("trace-player").first
    says, slider = player.locator(".player__says"), player.get_by_role("slider", name="Moment")
    expect(says).to_have_attribute("aria-live", "polite")
    start_at(page, "#a-real-run")
    tab_to(page, "trace-player [aria-label='Step back']")
    page.keyboard.press("Home")
    expect(says).to_have_text("The prompt alone; nothing is generated yet.")
    page.keyboard.press("ArrowRight")
    expect(says).to_contain_text("Step 1, draft:")
    tab_to(page, "trace-player [aria-label='Play']", 1)
    tab_to(page, "trace-player [aria-label='Step forward']", 1)
    page.keyboard.press("Space")
    expect(says).to_contain_text("Step 1, verify:")
    tab_to(page, "trace-player input[type=range]", 1)
    expect(slider).to_have_attribute("aria-valuetext", says.text_content() or "")
    page.keyboard.press("ArrowRight")
    expect(slider).to_have_value("3")
    page.keyboard.press("Space")
    expect(player.get_by_role("button", name="Pause")).to_be_visible()
    expect(says).to_have_attribute("aria-live", "off")
    page.keyboard.press("Space")
    expect(player.get_by_role("button", name="Play")).to_be_visible()
    page.keyboard.press("End")
    expect(slider).to_have_value(slider.get_attribute("max") or "")
    tab_to(page, "trace-player select", 1)
    tab_to(page, ".trace__text", 1)
    tab_to(page, ".player__scene", 1)


def test_words_stand_apart_in_the_player_where_a_vocabulary_has_no_spaces(visit: Visit) -> None:
    traces = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(TRACES.glob("*.json"))}
    drafts = {id: t for id, t in traces.items() if t["separator"] and any(s["drafted"] for s in t["runs"][0]["steps"])}
    id, trace = next(iter(drafts.items()))
    run = trace["runs"][0]
    text = visit(f"methods/{id}/").page.locator("trace-player .trace__text").first.text_content()
    assert text == trace["separator"].join(trace["pieces"][str(token)] for token in run["prompt"] + run["tokens"])


@pytest.mark.parametrize(("motion", "animation"), [("reduce", "none"), ("no-preference", "player-new")])
def test_the_player_moves_only_where_motion_is_welcome(visit: Visit, motion: str, animation: str) -> None:
    page = visit(PLAYED, motion=motion).page
    page.locator("trace-player").first.get_by_role("button", name="Step back").click(click_count=2)
    new = page.locator("trace-player").first.locator(".player__new").first
    assert new.evaluate("e => getComputedStyle(e).animationName") == animation


def test_the_player_waits_for_the_reader(visit: Visit) -> None:
    page = visit(PLAYED, motion="no-preference").page
    page.clock.install()
    page.goto(page.url)
    said = page.locator(".player__says").first.text_content() or "nothing"
    page.clock.run_for(10_000)
    expect(page.locator(".player__says").first).to_have_text(said)
    page.get_by_role("button", name="Play").first.click()
    page.clock.run_for(1_000)
    expect(page.locator(".player__says").first).not_to_have_text(said)


def test_two_methods_are_chosen_and_played_by_keyboard(visit: Visit) -> None:
    page = visit("explore/replay/").page
    start_at(page, "h1")
    tab_to(page, "trace-player select[name=left]")
    before = page.locator(".player__name").first.text_content() or ""
    page.keyboard.press("ArrowDown")
    expect(page.locator(".player__name").first).not_to_have_text(before)
    assert "left=" in page.url
    tab_to(page, "trace-player input[type=range]")
    page.keyboard.press("Home")
    for says in page.locator(".player__says").all():
        expect(says).to_have_text("The prompt alone; nothing is generated yet.")


def test_the_table_is_filtered_and_sorted_by_keyboard(visit: Visit) -> None:
    page = visit("explore/comparison/").page
    count, rows = page.locator(".sift__count"), page.locator(".sift tbody tr:visible")
    everything = rows.count()
    expect(count).to_have_text(f"{everything} of {everything}")
    start_at(page, "h1")
    tab_to(page, ".sift__form input[type=search]")
    page.keyboard.type("speculative")
    expect(count).not_to_have_text(f"{everything} of {everything}")
    found = rows.count()
    assert 0 < found < everything
    tab_to(page, ".sift__form select", 1)
    page.keyboard.press("ArrowDown")
    family = page.locator(".sift__form select").first.input_value()
    assert family
    assert all(family in row for row in rows.all_text_contents())
    tab_to(page, ".sift__form button")
    page.keyboard.press("Enter")
    expect(count).to_have_text(f"{everything} of {everything}")
    tab_to(page, "th:nth-child(6) .sift__sort")
    for way, compare in (("ascending", sorted), ("descending", lambda years: sorted(years, reverse=True))):
        page.keyboard.press("Enter")
        expect(page.locator("th:nth-child(6)")).to_have_attribute("aria-sort", way)
        years = page.locator(".sift tbody td:nth-child(6)").all_text_contents()
        assert years == compare(years)
    page.reload()
    expect(page.locator("th:nth-child(6)")).to_have_attribute("aria-sort", "descending")


def test_a_node_of_the_tree_is_chosen_by_keyboard(visit: Visit) -> None:
    page = visit(TREE).page
    start_at(page, "#the-mask-is-the-tree")
    tab_to(page, ".fig__pick input")
    for place in (5, 4):
        page.keyboard.press("ArrowUp")
        expect(page.locator(".fig__pick input").nth(place)).to_be_checked()
        weights = page.locator(".fig__mask tbody tr").evaluate_all(
            "rows => rows.map(r => getComputedStyle(r).fontWeight)"
        )
        assert [i for i, weight in enumerate(weights) if weight == "650"] == [place]
    tab_to(page, ".fig__scroll", 1)


def test_the_guide_is_answered_by_keyboard(visit: Visit) -> None:
    page = visit("explore/guide/").page
    count = page.locator("form.guide output")
    expect(count).to_have_text("Answer what you know.")
    start_at(page, "h1")
    tab_to(page, "form.guide select")
    page.keyboard.press("ArrowDown")
    expect(count).to_contain_text("suit")
    tab_to(page, ".guide__answer summary")
    page.keyboard.press("Enter")
    expect(page.locator(".guide__answer details").first).not_to_have_attribute("open", "")


def test_the_calculator_is_filled_in_by_keyboard(visit: Visit) -> None:
    page = visit("explore/calculator/").page
    start_at(page, "h1")
    tab_to(page, "#calc-acceptance")
    before = page.locator(".calc__answer dd").all_text_contents()
    page.keyboard.press("ControlOrMeta+A")
    page.keyboard.type("0.95")
    expect(page.locator(".calc__answer dd").first).not_to_have_text(before[0])
    for name in ("gamma", "c", "batch", "ridge"):
        tab_to(page, f"#calc-{name}")
    tab_to(page, ".calc__presets button")
    page.keyboard.press("Enter")
    expect(page.locator(".calc__answer dd").first).not_to_have_text(before[0])
