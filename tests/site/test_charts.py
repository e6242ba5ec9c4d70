"""Charts say what the figures say: one bar for each row, as long as its value, with the value beside it."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from accelgen.measuring.rows import AcceptanceFigures, BenchRow, Prediction, Verdict, read, rows_of
from accelgen.project.files import read_json
from accelgen.project.places import RESULTS, ROOT, TRACES
from accelgen.site import charts
from accelgen.site.charts import Bar, Group, Mark, Scale
from accelgen.taxonomy.loading import load_taxonomy

NAMES = {"a": "A & <B>", "b": "The second one"}


def row(id: str, setting: str, speedup: float, **more: Any) -> BenchRow:
    ends = {"speedup_q1": speedup - 0.1, "speedup_q3": speedup + 0.1, "pairs": 9}
    return BenchRow(**{"id": id, "setting": setting, "speedup": speedup, "tokens_per_pass": 1.0} | ends | more)


LANGUAGE = [
    row("b", "greedy", 0.8),
    row("a", "greedy, n 4", 1.6, tokens_per_pass=3.2, speedup_q1=1.2, speedup_q3=2.0),
    row("a", "temperature 0.8, n 4", 1.25, tokens_per_pass=2.5),
]
TRANSLATION = [
    row(
        "a", f"iterations {n}", speedup, passes_per_sentence=float(n), exact_match=right, exact_match_autoregressive=1.0
    )
    for n, right, speedup in ((1, 0.75, 4.0), (4, 0.95, 2.0), (10, 1.0, 0.5))
]
TRACE = {
    "depth": 24,
    "runs": [
        {"title": "Greedy", "steps": [{"layers": [2]}, {"layers": [24, 24]}]},
        {"title": "Temperature 0.8", "steps": [{"layers": [6]}]},
        {"title": "Without exits", "steps": [{"layers": []}]},
    ],
}
BENCH = rows_of(BenchRow, read_json(RESULTS / "bench.json"))
FOUND = read(AcceptanceFigures, read_json(RESULTS / "acceptance.json") or {})
STORED = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(TRACES.glob("*.json"))]


def parts(chart: str, path: str = "") -> list[ET.Element]:
    """Elements of a chart; parsing fails unless it is well-formed XML."""
    return ET.fromstring(chart).findall(f".//{path}" if path else ".//svg[@role='img']")  # noqa: S314 - our own text


def groups(picture: ET.Element) -> list[tuple[str, float, str]]:
    """What each bar says, its length in percent, and the value beside it."""
    found = []
    for group in picture.findall("g"):
        title, rect, text = (group.find(tag) for tag in ("title", "rect", "text"))
        assert title is not None
        assert rect is not None
        assert text is not None
        found.append((title.text or "", float(rect.attrib["width"].rstrip("%")), text.text or ""))
    return found


def every_chart() -> list[str]:
    """All charts of the stored results."""
    names = {m.id: m.name for m in load_taxonomy().methods}
    language = [row for row in BENCH if not row.translates]
    translation = [row for row in BENCH if row.translates]
    found = [charts.speed(language, names), charts.quality(translation, names), charts.places(FOUND)]
    return [chart for chart in [*found, *map(charts.exits, STORED)] if chart]


def test_every_row_has_one_bar_with_its_value():
    speedup, tokens = parts(charts.speed(LANGUAGE, NAMES))
    assert [(says, label) for says, _, label in groups(speedup)] == [
        ("A & <B>, greedy, n 4: 1.60 (1.20–2.00)", "1.60"),
        ("A & <B>, temperature 0.8, n 4: 1.25 (1.15–1.35)", "1.25"),
        ("The second one, greedy: 0.80 (0.70–0.90)", "0.80"),
    ]
    assert [label for _, _, label in groups(tokens)] == ["3.20", "2.50", "1.00"]


def test_bars_are_as_long_as_their_values():
    speedup, tokens = parts(charts.speed(LANGUAGE, NAMES))
    for picture, values in ((speedup, (1.6, 1.25, 0.8)), (tokens, (3.2, 2.5, 1.0))):
        lengths = [length for _, length, _ in groups(picture)]
        assert [length / lengths[0] for length in lengths] == pytest.approx([v / values[0] for v in values], abs=1e-3)
    whisker = speedup.find("g/line[@class='chart__whisker']")
    assert whisker is not None
    ends = [float(whisker.attrib[end].rstrip("%")) for end in ("x1", "x2")]
    assert ends == pytest.approx([84 * 1.2 / 2, 84], abs=0.01), "from quartile to quartile, the longest to the end"
    value = speedup.find("g/text")
    assert value is not None
    assert value.attrib["x"] == whisker.attrib["x2"], "the value stands behind the whisker"


def test_the_line_stands_at_one():
    for picture, top in zip(parts(charts.speed(LANGUAGE, NAMES)), (2.0, 3.2), strict=True):
        *_, line = picture.findall("line[@class='chart__one']")
        assert float(line.attrib["x1"].rstrip("%")) == pytest.approx(84 / top, abs=0.01)
        assert line.attrib["x1"] == line.attrib["x2"]


def test_kinds_of_bars_differ_in_filling():
    (speedup, _) = parts(charts.speed(LANGUAGE, NAMES))
    looks = [rect.attrib["class"].split("--")[1] for rect in speedup.findall("g/rect")]
    assert looks == ["solid", "hollow", "solid"]
    four = [Group("g", [Bar(1.0, "1", kind, kind) for kind in "abcd"])]
    with pytest.raises(ValueError, match="3 kinds of bars, and here are 4: a, b, c, d"):
        charts.bars("s", "t", "about", four)


@pytest.mark.parametrize(
    "chart",
    [
        charts.speed([], {}),
        charts.quality([], {}),
        charts.exits({"depth": 24, "runs": [{"title": "Greedy", "steps": [{"layers": []}]}]}),
        charts.bars("slug", "title", "about", []),
        charts.scatter("slug", "title", "about", [], axes=("across", "up")),
        charts.figure([""], "words"),
    ],
)
def test_no_figures_no_chart(chart):
    assert chart == ""


def test_every_stored_row_is_drawn():
    speed, quality, *_ = every_chart()
    language = [row for row in BENCH if not row.translates]
    for picture, key in zip(parts(speed), ("speedup", "tokens_per_pass"), strict=True):
        assert Counter(label for _, _, label in groups(picture)) == Counter(
            f"{getattr(row, key):.2f}" for row in language
        )
        by_length = [float(label) for _, _, label in sorted(groups(picture), key=lambda bar: bar[1])]
        assert by_length == sorted(by_length), "a longer bar has the larger value"
    marks = parts(quality, "svg[@overflow]")
    assert len(marks) == len(BENCH) - len(language) + 1, "one for each row, and plain decoding"


def test_marks_stand_where_their_figures_say():
    chart = charts.quality(TRANSLATION, NAMES)
    x = [float(mark.attrib["x"].rstrip("%")) for mark in parts(chart, "svg[@overflow]")]
    y = [float(mark.attrib["y"]) for mark in parts(chart, "svg[@overflow]")]
    zero, top = 15.0, 92.0
    assert [(at - zero) / (top - zero) * 4 for at in x] == pytest.approx([4.0, 2.0, 0.5, 1.0], abs=1e-3)
    assert [1 - (at - y[-1]) / 200 * 0.3 for at in y] == pytest.approx([0.75, 0.95, 1.0, 1.0], abs=1e-3)
    assert [text.text for text in parts(chart, "text[@class='chart__value']")] == ["1", "4", "10"]
    assert len(parts(chart, "line[@class='chart__path']")) == 2
    assert len({mark.attrib["d"] for mark in parts(chart, "svg[@overflow]/path")}) == 2


def test_what_is_measured_stands_over_what_was_predicted():
    def verdict(id: str, setting: str, predicted: float, speedup: float, number: int | None = None) -> Verdict:
        parts = {"tokens_per_pass": 1.0, "target": 1.0, "draft": 0.0, "rest": 0.0, "runs": 9}
        promised = Prediction(**{"id": id, "setting": setting, "predicted": predicted} | parts)
        return Verdict(row(id, setting, speedup), promised, number)

    rows = [verdict("a", "greedy", 2.0, 1.0, 1), verdict("b", "greedy", 1.5, 4.0), verdict("b", "hot", 0.5, 0.5)]
    chart = charts.predictions(rows, NAMES, {"a": "One & only", "b": "Another"})
    (picture,) = parts(chart)
    marks = parts(chart, "svg[@overflow]")
    assert [mark.findtext("title") for mark in marks] == [
        "A & <B>, greedy: predicted 2.00, measured 1.00", "The second one, greedy: predicted 1.50, measured 4.00",
        "The second one, hot: predicted 0.50, measured 0.50",
    ]  # fmt: skip
    (line,) = [each for each in picture.findall("line[@class='chart__one']") if each.attrib["x1"] != each.attrib["x2"]]
    left, right = (float(line.attrib[end].rstrip("%")) for end in ("x1", "x2"))
    bottom, top = (float(line.attrib[end]) for end in ("y1", "y2"))
    across = [(float(mark.attrib["x"].rstrip("%")) - left) / (right - left) for mark in marks]
    up = [(bottom - float(mark.attrib["y"])) / (bottom - top) for mark in marks]
    assert across == pytest.approx([0.5, 0.375, 0.125], abs=1e-3)
    assert up == pytest.approx([0.25, 1.0, 0.125], abs=1e-3), (
        "both scales are the same, so equal values are on the line"
    )
    assert [text.text for text in parts(chart, "text[@class='chart__value']")] == ["1"]
    words = [text.text for text in parts(chart, "text[@class='chart__soft']")]
    assert {"One & only", "Another", "as predicted", "predicted", "measured"} <= set(words)
    assert {"right sentences", "speedup"}.isdisjoint(words)
    assert charts.CROSS not in chart, "there is no plain decoding here"
    translated = replace(rows[0], measured=replace(rows[0].measured, exact_match=1.0))
    both = parts(charts.predictions([*rows, translated], NAMES, {}))
    assert [picture.findtext("title") for picture in both] == [
        "Measured speedup, continuing a text", "Measured speedup, translating a sentence",
    ]  # fmt: skip
    assert [len(picture.findall("svg[@overflow]")) for picture in both] == [3, 1]
    assert charts.predictions([], {}, {}) == ""


def test_labels_of_marks_at_one_place_stand_apart():
    marks = [Mark(1.0, 0.9, "12", "s", "x")] * 3
    found = parts(
        charts.figure([charts.scatter("s", "t", "a", marks, axes=("across", "up"))]), "text[@class='chart__value']"
    )
    assert len({(t.attrib["dx"], t.attrib["y"]) for t in found}) == 3


def test_places_and_exits_show_all_their_figures():
    (picture,) = parts(charts.places(FOUND))
    alpha = FOUND.expected_overlap
    expected = [
        f"{value:.0%}"
        for i, (given, at_all) in enumerate(zip(FOUND.conditional, FOUND.unconditional, strict=True), 1)
        for value in (given, at_all, alpha**i)
    ]
    assert [label for _, _, label in groups(picture)] == expected
    (picture,) = parts(charts.exits(TRACE))
    assert [length for _, length, _ in groups(picture)] == [31.0, 0.0, 0.0, 31.0, 62.0, 0.0]
    assert [(says, label) for says, _, label in groups(picture)] == [
        ("Greedy, layer 2 of 24: 1 tokens", "1"), ("Temperature 0.8, layer 2 of 24: 0 tokens", "0"),
        ("Greedy, layer 6 of 24: 0 tokens", "0"), ("Temperature 0.8, layer 6 of 24: 1 tokens", "1"),
        ("Greedy, layer 24 of 24: 2 tokens", "2"), ("Temperature 0.8, layer 24 of 24: 0 tokens", "0"),
    ]  # fmt: skip


def test_only_methods_that_exit_early_have_a_histogram():
    for trace in STORED:
        layers = sum(len(step["layers"]) for run in trace["runs"] for step in run["steps"])
        assert bool(charts.exits(trace)) == bool(layers), trace["id"]
        if layers:
            (picture,) = parts(charts.exits(trace))
            assert sum(int(label) for _, _, label in groups(picture)) == layers


@pytest.mark.parametrize("chart", every_chart())
def test_a_chart_has_a_name_a_description_and_no_colour_of_its_own(chart):
    for picture in parts(chart):
        for attribute, tag in (("aria-labelledby", "title"), ("aria-describedby", "desc")):
            element = picture.find(tag)
            assert element is not None
            assert element.attrib["id"] == picture.attrib[attribute]
            assert element.text
    assert not re.search(r'fill="|stroke="|style="|#[0-9a-f]{3}', chart), "colours come from the style sheet"
    assert "\n" not in chart, "a line break could end the HTML block"


def test_ids_are_unique_on_a_page():
    speed, quality, *_ = every_chart()
    ids = re.findall(r'\bid="([^"]+)"', speed + quality)
    assert len(ids) == len(set(ids)) == 6


def test_the_style_sheet_knows_what_must_be_told_apart():
    css = (ROOT / "docs" / "assets" / "extra.css").read_text(encoding="utf-8")
    for name in ("chart__bar--solid", "chart__bar--dashed", "chart__whisker", "chart__one", "chart__mark"):
        assert f".{name}" in css


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.95), (0.0, 0.71), (0.7, 1.0), (0.0, 43.0), (0.0, 1234.5)])
def test_a_scale_is_monotone_and_its_ticks_are_round(low, high):
    scale = Scale(low, high, 10.0, 84.0)
    steps = [low + (high - low) * i / 10 for i in range(11)]
    places = [scale.at(value) for value in steps]
    assert places == sorted(places)
    assert len(set(places)) == 11
    assert (places[0], places[-1]) == pytest.approx((10.0, 84.0))
    ticks: list[Any] = scale.ticks()
    assert 2 <= len(ticks) <= 6
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
    width = ticks[1] - ticks[0]
    assert f"{width:.0e}"[0] in "125"


def test_a_scale_of_one_value_stands_at_its_start():
    assert Scale(0.0, 0.0, 10.0, 84.0).at(0.0) == 10.0
    assert Scale(1.0, 1.0, 10.0, 84.0).ticks() == [1.0]
