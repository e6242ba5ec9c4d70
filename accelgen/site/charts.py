"""Charts of our own figures: inline SVG that stretches to its box and takes its colours from the site's style sheet.

Lengths along the x axis are percentages, all others pixels: on a phone the bars get shorter and the words stay as
large as they are. Nothing is told by colour: bars differ in filling, marks in shape, and every value is written beside
its bar. The same figures stand in a table on the page.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accelgen.exports.markdown import escape
from accelgen.measuring.kinds import Translate
from accelgen.measuring.rows import (
    PASSES,
    PREDICTED,
    RIGHT,
    SPEEDUP,
    TOKENS,
    AcceptanceFigures,
    BenchRow,
    Chunked,
    Column,
    ContrastFigures,
    CopyingRow,
    DistilledRow,
    RelaxedFigures,
    Served,
    Verdict,
    WarmthRow,
)

LOOKS = ("solid", "hollow", "dashed")  # of bars, in the order of their kinds
SHAPES = (  # of marks, in the order of their series; drawn around (0, 0)
    "M5 0A5 5 0 1 1-5 0A5 5 0 1 1 5 0Z",
    "M0-8L8 0L0 8L-8 0Z",
    "M-4-4H4V4H-4Z",
    "M0-6L6 5H-6Z",
    "M0 6L6-5H-6Z",
    "M-6-3H6V3H-6Z",
)
CROSS = "M-5-5L5 5M-5 5L5-5"  # the mark of what others are compared with
SIDES = (  # of a mark, where its label may stand: shift of its anchor and base line, and the anchor
    (11.0, 4.0, "start"),
    (-11.0, 4.0, "end"),
    (0.0, -11.0, "middle"),
    (0.0, 20.0, "middle"),
    (9.0, -8.0, "start"),
    (9.0, 17.0, "start"),
    (-9.0, -8.0, "end"),
    (-9.0, 17.0, "end"),
)
Box = tuple[float, float, float, float]  # left, top, right, bottom
LINE, BAR, GAP, LETTER = 16, 9, 10, 6.6  # heights of a line, a bar and a gap, width of a letter
NARROW = 280  # pixels: the narrowest box that labels are laid out for
AXES = ("predicted", "measured")
PLAIN = (1.0, "plain decoding")  # the speedup and the tokens per pass of plain decoding


@dataclass(frozen=True)
class Bar:
    """One figure of a group, perhaps with the quartiles around it."""

    value: float
    label: str  # the value as it is written beside the bar
    kind: str  # bars of a kind look alike
    says: str  # shown when the pointer rests on the bar
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Group:
    """Bars that belong together, under one name."""

    name: str
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Mark:
    """One figure in the plane."""

    x: float
    y: float
    label: str
    series: str  # marks of a series have one shape
    says: str


@dataclass(frozen=True)
class Scale:
    """From values to percentages of the width, or to pixels."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Where the value stands."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.0
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 5) -> list[float]:
        """Round values between the ends, at most so many and one more."""
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        power = 10.0 ** math.floor(math.log10(span / most))
        step = next(power * n for n in (1, 2, 5, 10) if span / (power * n) <= most)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]


# ---- what the pages show ------------------------------------------------------------------------------------------


def speed(rows: Sequence[BenchRow], names: Mapping[str, str]) -> str:
    """Speedup and tokens per pass of the benchmark's rows, method by method, by the speedup of their first row."""
    groups: dict[str, list[BenchRow]] = {}
    for row in rows:
        groups.setdefault(row.id, []).append(row)
    ordered = sorted(groups.items(), key=lambda item: -item[1][0].speedup)
    order = "Methods in the order of their greedy speedup."
    drawn = []
    for slug, column in (("chart-speedup", SPEEDUP), ("chart-tokens", TOKENS)):
        found = [Group(names.get(id, id), [_bar_of(column, row, names) for row in own]) for id, own in ordered]
        about = f"{order} {_span(found)} The table below has the figures."
        drawn.append(bars(slug, column.title, about, found, line=PLAIN))
    return figure(drawn, f"Whiskers reach from the lower to the upper quartile. {order}")


def _span(groups: Sequence[Group]) -> str:
    """The lowest and the highest bar in words."""
    every = sorted((bar for group in groups for bar in group.bars), key=lambda bar: bar.value)
    return f"Lowest: {every[0].says}. Highest: {every[-1].says}." if every else ""


def _bar_of(column: Column[Any], row: BenchRow, names: Mapping[str, str]) -> Bar:
    """A figure of a row; that of the times with its quartiles."""
    ends = (row.speedup_q1, row.speedup_q3) if column is SPEEDUP else (None, None)
    kind, says = row.setting.partition(",")[0], f"{_title(row, names)}: {column.show(row)}"
    return Bar(column.value(row), column.figure(row), kind, says, *ends)


def _title(row: BenchRow, names: Mapping[str, str]) -> str:
    return ", ".join(filter(None, [names.get(row.id, row.id), row.setting]))


def quality(rows: Sequence[BenchRow], names: Mapping[str, str]) -> str:
    """Right sentences against speedup, one mark for each row of the benchmark's translations."""
    marks = []
    for row in rows:
        passes, right = PASSES.figure(row), row.exact_match or 0.0
        says = f"{_title(row, names)}: {RIGHT.figure(row)} right, speedup {SPEEDUP.figure(row)}, passes {passes}"
        marks.append(Mark(row.speedup, right, passes, names.get(row.id, row.id), says))
    if not marks:
        return ""
    joined = {names.get(row.id, row.id) for row in rows if Translate.refined in row.setting}
    plain = Mark(1.0, rows[0].exact_match_autoregressive or 0.0, "", PLAIN[1], "plain decoding")
    about = "Each mark is a row of the table below; the number beside it counts the passes a sentence."
    title, axes = f"{RIGHT.title} against {SPEEDUP.title.lower()}", (SPEEDUP.title.lower(), RIGHT.title.lower())
    drawn = scatter("chart-quality", title, about, [*marks, plain], axes=axes, joined=joined)
    return figure([drawn], "The number beside a mark: passes a sentence. A line joins one method's settings.")


def predictions(rows: Sequence[Verdict], names: Mapping[str, str], series: Mapping[str, str]) -> str:
    """Measured against predicted speedup, one mark for each row; those with a `number` carry it.

    `series` gives the family of each method: its marks have one shape. Translations are drawn apart.
    """
    parts: dict[str, list[Mark]] = {"continuing a text": [], "translating a sentence": []}
    for row in rows:
        figures = f"predicted {PREDICTED.figure(row.promised)}, measured {SPEEDUP.figure(row.measured)}"
        says = f"{_title(row.measured, names)}: {figures}"
        place, label = (row.promised.predicted, row.measured.speedup), str(row.number or "")
        mark = Mark(*place, label, series.get(row.measured.id, ""), says)
        parts["translating a sentence" if row.measured.translates else "continuing a text"].append(mark)
    about = "Each mark is a row of the table below. On the line a method is as fast as predicted, below it slower."
    drawn = [
        scatter(f"chart-predicted-{i}", f"Measured speedup, {what}", about, marks, axes=AXES, equal="as predicted")
        for i, (what, marks) in enumerate(parts.items())
    ]
    return figure(drawn, "A number beside a mark leads to the reason: there the two differ by more than a tenth.")


def places(found: AcceptanceFigures) -> str:
    """Acceptance by place in the draft, in the worked example of `accelgen.measuring.acceptance_rates`."""
    alpha = found.expected_overlap
    columns = {
        "kept if all before were": found.conditional,
        "kept at all": found.unconditional,
        "αⁱ, the same chance everywhere": [alpha**i for i in range(1, found.gamma + 1)],
    }
    groups = [
        Group(f"guess {i}", [Bar(v, f"{v:.0%}", kind, f"guess {i}, {kind}: {v:.1%}") for kind, v in values])
        for i, values in enumerate(zip(*([(k, v) for v in vs] for k, vs in columns.items()), strict=True), 1)
    ]
    about = "How often the target keeps each guess of a draft; the table below has the same figures."
    return figure([bars("chart-places", "Guesses kept, by place in the draft", about, groups, style=".0%")])


def copies(rows: Sequence[CopyingRow]) -> str:
    """Tokens per pass by workload and match length, at the longest copies that were measured."""
    longest = max(row.gamma for row in rows)
    bars_of: dict[str, list[Bar]] = {}
    for row in (row for row in rows if row.gamma == longest):
        kind, value = f"match of at least {row.shortest}", f"{row.tokens_per_pass:.2f}"
        bar = Bar(row.tokens_per_pass, value, kind, f"{row.workload}, {kind}: {value} tokens per pass")
        bars_of.setdefault(row.workload, []).append(bar)
    groups = [Group(workload, found) for workload, found in bars_of.items()]
    about = f"Copies of up to {longest} tokens after a match of so many; the table below has all figures."
    title = "Tokens per pass, by workload and match length"
    return figure([bars("chart-copies", title, about, groups, line=PLAIN)])


def warmth(rows: Sequence[WarmthRow]) -> str:
    """Tokens per pass from tries that have learned more and more, by setting."""
    bars_of: dict[str, list[Bar]] = {}
    for row in rows:
        value = f"{row.tokens_per_pass:.2f}"
        bar = Bar(row.tokens_per_pass, value, row.trie, f"{row.setting}, {row.trie}: {value} tokens per pass")
        bars_of.setdefault(row.setting, []).append(bar)
    groups = [Group(setting, found) for setting, found in bars_of.items()]
    about = "What a trie had learned before the texts that are counted; the table below has all figures."
    return figure([bars("chart-warmth", "Tokens per pass, from a cold and a warm trie", about, groups, line=PLAIN)])


def distilled(rows: Sequence[DistilledRow]) -> str:
    """Acceptance of drafters that learned in different ways, one bar a setting."""
    bars_of: dict[str, list[Bar]] = {}
    for row in rows:
        value, kind = f"{row.acceptance:.1%}", f"temperature {row.temperature:g}"
        says = f"{row.learned_from}, {kind}: {value} of the guesses are kept"
        bars_of.setdefault(row.learned_from, []).append(Bar(row.acceptance, value, kind, says))
    groups = [Group(name, found) for name, found in bars_of.items()]
    about = "Share of guesses that are kept, held-out prompts; the table below has all figures."
    return figure([bars("chart-distilled", "Acceptance by what a drafter learned from", about, groups, style=".0%")])


def contrasts(found: ContrastFigures) -> str:
    """Quality and speed by the strength of the contrast, at temperature 0: two charts with the same groups."""
    rows = [row for row in found.rows if row.temperature == 0]
    names = [f"α {row.alpha:g}, β {row.beta:g}" for row in rows]
    right, speed = [row.right for row in rows], [row.tokens_per_pass for row in rows]
    return _alike("contrast", "mask and contrast", names, {"Right next tokens": right, "Tokens per pass": speed})


def relaxations(found: RelaxedFigures) -> str:
    """Quality and speed by the rule that lets guesses pass: charts with the same groups."""
    names = [f"β {row.beta:g}, τ {row.tau:g}" for row in found.rows]
    right, speed = [row.right for row in found.rows], [row.tokens_per_pass for row in found.rows]
    same = [row.same for row in found.rows]
    drawn = {"Right sentences": right, "As plain decoding": same, "Tokens per pass": speed}
    return _alike("relaxed", "rule", names, drawn)


def _alike(slug: str, by: str, names: Sequence[str], drawn: Mapping[str, Sequence[float]]) -> str:
    """A chart of each figure, shares and tokens, with the same groups."""

    def chart(title: str, values: Sequence[float]) -> str:
        exact, ticks = (".1f", ".1f") if title.startswith("Tokens") else (".1%", ".0%")
        parts = zip(names, values, strict=True)
        groups = [Group(name, [Bar(v, format(v, exact), title, f"{name}: {v:{exact}}")]) for name, v in parts]
        about = f"{title}, by {by}; the table below has the same figures."
        return bars(f"chart-{slug}-{title.split(maxsplit=1)[0].lower()}", title, about, groups, style=ticks)

    return figure([chart(title, values) for title, values in drawn.items()])


def lengths(rows: Sequence[Served], shown: Mapping[int | None, str]) -> str:
    """Speedup over a batch without drafts, by batch size, for those draft lengths that are `shown`, by their names."""
    groups = [
        Group(f"{size} {'text' if size == 1 else 'texts'}", [_length(row, shown) for row in own if row.length in shown])
        for size, own in itertools.groupby(rows, key=lambda row: row.rows)
    ]
    about = "Whether drafts make a batch faster, by its size. The table below has all lengths."
    drawn = bars("chart-lengths", "Speedup over the same batch without drafts", about, groups, line=(1.0, "no drafts"))
    return figure([drawn], "Whiskers reach from the lower to the upper quartile.")


def _length(row: Served, shown: Mapping[int | None, str]) -> Bar:
    says = f"{row.rows} texts, {shown[row.length]}: {SPEEDUP.show(row)}"
    return Bar(row.speedup, SPEEDUP.figure(row), shown[row.length], says, row.speedup_q1, row.speedup_q3)


def timelines(rows: Sequence[Chunked], names: Sequence[str]) -> str:
    """When each text of a queue read its prompt, and when its tokens came out; all `rows` have one axis of time."""
    last = max(row.times[-1] for row in rows)
    words = "A bar is a pass that reads a part of a text's prompt, a stroke is the moment at which a token comes out."
    return figure([_timeline(row, names, Scale(0.0, last, 22.0, 98.0)) for row in rows], words)


def _timeline(row: Chunked, names: Sequence[str], scale: Scale) -> str:
    head, step = 2 * LINE + GAP + 4, 2 * BAR + 4
    parts = [
        f'<text class="chart__name" x="0" y="{head + i * step + BAR}">{escape(n)}</text>' for i, n in enumerate(names)
    ]
    for share in row.shares:
        start, end, y = scale.at(row.times[share.turn]), scale.at(row.times[share.turn + 1]), head + share.text * step
        if share.tokens > 1:
            shape = f'<rect class="chart__bar chart__bar--solid" x="{start:.2f}%" y="{y}" {_width(end - start)}/>'
            parts.append(f"<g><title>{share.tokens} tokens of the prompt</title>{shape}</g>")
        if share.writes:
            parts.append(_upright(end, y - 1, y + BAR + 1, "chart__whisker"))
    bottom = head + len(names) * step
    what = "prompts read at once" if row.budget is None else f"at most {row.budget} tokens a pass"
    about = (
        f"{row.passes} passes in {row.times[-1]:.0f} ms; between two tokens of a text at most {row.longest_gap:.0f} ms."
    )
    axis = _axis(scale, head, bottom, "g", None)
    slug = f"chart-timeline-{row.budget or 'whole'}"
    return _svg(slug, f"Milliseconds, {what}", about, bottom, [*axis, *parts])


def exits(trace: Mapping[str, Any]) -> str:
    """How many tokens each recorded run read out after which layer; nothing for a run that knows no exits."""
    runs = [(run["title"], Counter(n for step in run["steps"] for n in step["layers"])) for run in trace["runs"]]
    runs, depth = [(title, counts) for title, counts in runs if counts], trace.get("depth")
    groups = [
        Group(f"layer {layer}", [_exit(counts[layer], f"layer {layer} of {depth}", title) for title, counts in runs])
        for layer in sorted({layer for _, counts in runs for layer in counts})
    ]
    about = f"How many tokens of each run were read out after which of the {depth} layers."
    return figure([bars("chart-exits", f"Tokens by exit layer, {depth} layers in all", about, groups, style="g")])


def _exit(count: int, where: str, run: str) -> Bar:
    return Bar(count, str(count), run.lower(), f"{run}, {where}: {count} tokens")


# ---- bars ---------------------------------------------------------------------------------------------------------


def figure(drawn: Iterable[str], caption: str = "") -> str:
    """Charts side by side where there is room, on one line of HTML; nothing if there is no chart."""
    body = "".join(drawn)
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="charts" data-search-exclude="">{body}{words}</figure>' if body else ""


def bars(
    slug: str,
    title: str,
    about: str,
    groups: Sequence[Group],
    *,
    line: tuple[float, str] | None = None,
    style: str = ".3g",
) -> str:
    """Horizontal bars in groups; `line` is a value to compare with and its name, `style` the format of the axis.

    Nothing if there is no bar. Raises ValueError for more kinds of bars than there are looks.
    """
    every = [bar for group in groups for bar in group.bars]
    if not every:
        return ""
    kinds = list(dict.fromkeys(bar.kind for bar in every))
    if len(kinds) > len(LOOKS):
        raise ValueError(f"a chart can show {len(LOOKS)} kinds of bars, and here are {len(kinds)}: {', '.join(kinds)}")
    beside = all(len(group.name) <= 9 for group in groups)  # short names stand beside their bars, others above
    top = max([max(bar.value, bar.high or 0.0) for bar in every] + ([line[0]] if line else []))
    scale = Scale(0.0, top or 1.0, 22.0 if beside else 0.0, 84.0)
    legend = [_sample(LOOKS[i], kind, i) for i, kind in enumerate(kinds)]
    legend += [_sample("line", line[1], len(kinds))] if line else []
    y = LINE * (len(legend) + 2) + GAP + 4
    head, parts = y, []
    for group in groups:
        below = y if beside else y + LINE
        middle = y + len(group.bars) * (BAR + 4) / 2 + 2 if beside else y + 11
        parts.append(f'<text class="chart__name" x="0" y="{middle:.1f}">{escape(group.name)}</text>')
        parts += [
            _bar(bar, LOOKS[kinds.index(bar.kind)], scale, below + i * (BAR + 4)) for i, bar in enumerate(group.bars)
        ]
        y = int(below + len(group.bars) * (BAR + 4) + GAP)
    axis = _axis(scale, head, y, style, line[0] if line else None)
    return _svg(slug, title, about, y, [*legend, *axis, *parts])


def _bar(bar: Bar, look: str, scale: Scale, y: float) -> str:
    """The bar with its whisker, and its value behind both; resting on it shows what it says."""
    start, end, middle = scale.at(0.0), scale.at(bar.value), y + BAR / 2
    shapes = f'<rect class="chart__bar chart__bar--{look}" x="{start:.2f}%" y="{y}" {_width(end - start)}/>'
    reach = max(bar.value, bar.high or 0.0)
    if bar.low is not None and bar.high is not None:
        ends = f'x1="{scale.at(bar.low):.2f}%" x2="{scale.at(bar.high):.2f}%" y1="{middle}" y2="{middle}"'
        shapes += f'<line class="chart__halo" {ends}/><line class="chart__whisker" {ends}/>'
    label = f'<text class="chart__value" x="{scale.at(reach):.2f}%" dx="6" y="{middle + 4}">{escape(bar.label)}</text>'
    return f"<g><title>{escape(bar.says)}</title>{shapes}{label}</g>"


def _width(share: float) -> str:
    return f'width="{share:.2f}%" height="{BAR}"'


def _sample(look: str, words: str, place: int) -> str:
    """A line of the legend, below the chart's title."""
    y = LINE * (place + 1) + GAP
    if look == "line":
        shape = f'<line class="chart__one" x1="10" x2="10" y1="{y}" y2="{y + 13}"/>'
    else:
        shape = f'<rect class="chart__bar chart__bar--{look}" x="1" y="{y + 2}" width="18" height="{BAR}"/>'
    return f'{shape}<text class="chart__soft" x="26" y="{y + 11}">{escape(words)}</text>'


def _axis(scale: Scale, top: float, bottom: float, style: str, one: float | None) -> list[str]:
    """Faint lines at round values, the values above them, and the line to compare with."""
    ticks = scale.ticks() if style != "g" else [tick for tick in scale.ticks() if tick == int(tick)]
    lines = [_upright(scale.at(tick), top - 3, bottom, "chart__grid") for tick in ticks]
    words = [
        f'<text class="chart__soft" x="{scale.at(tick):.2f}%" y="{top - 7}"'
        f"{_anchor(scale.at(tick))}>{tick:{style}}</text>"
        for tick in ticks
    ]
    return [*lines, *words, *([] if one is None else [_upright(scale.at(one), top - 3, bottom, "chart__one")])]


def _anchor(percent: float) -> str:
    return ' text-anchor="middle"' if percent > 1 else ""


def _upright(percent: float, top: float, bottom: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{percent:.2f}%" x2="{percent:.2f}%" y1="{top}" y2="{bottom}"/>'


def _svg(slug: str, title: str, about: str, height: float, parts: Iterable[str]) -> str:
    """The picture with its accessible name and description; the name is written at its top too."""
    return (
        f'<svg class="chart" role="img" aria-labelledby="{slug}-title" aria-describedby="{slug}-about" width="100%" '
        f'height="{height:.0f}"><title id="{slug}-title">{escape(title)}</title>'
        f'<desc id="{slug}-about">{escape(about)}</desc>'
        f'<text class="chart__title" x="0" y="13">{escape(title)}</text>{"".join(parts)}</svg>'
    )


# ---- marks in the plane -------------------------------------------------------------------------------------------


def scatter(
    slug: str,
    title: str,
    about: str,
    marks: Sequence[Mark],
    *,
    axes: tuple[str, str],
    joined: Iterable[str] = (),
    equal: str = "",
) -> str:
    """Marks in the plane of two `axes`, the one across and the one up; a series in `joined` hangs together.

    Values up are shares, and the last series, with which the others are compared, is drawn as a cross. With `equal`
    both values are of one kind: the scales are the same, and a line of that name runs where they are equal. Nothing if
    there is no mark.
    """
    if not marks:
        return ""
    series = list(dict.fromkeys(mark.series for mark in marks))
    shapes = {name: SHAPES[i % len(SHAPES)] for i, name in enumerate(series)} | ({} if equal else {series[-1]: CROSS})
    legend = [_shape_sample(shapes[name], name, place) for place, name in enumerate(series)]
    legend += [_sample("line", equal, len(series))] if equal else []
    top = LINE * (len(legend) + 2) + 3 * GAP
    bottom = top + (240 if equal else 200)
    largest = max(max(mark.x, mark.y) if equal else mark.x for mark in marks)
    across = Scale(0.0, largest, 15.0, 92.0)
    lowest = 0.0 if equal else math.floor(min(mark.y for mark in marks) * 10 - 1e-9) / 10
    up = Scale(lowest, largest if equal else 1.0, bottom, top)
    lines = [_path([m for m in marks if m.series == name], across, up) for name in joined]
    ends = f'x1="{across.start}%" y1="{bottom}" x2="{across.end}%" y2="{top}"'
    lines += [f'<line class="chart__one" {ends}/>'] if equal else []
    grid = _grid(across, up, axes, style=".3g" if equal else ".0%")
    spots = [_mark(mark, shapes[mark.series], across, up) for mark in marks]
    words = _labels(marks, across, up)
    return _svg(slug, title, about, bottom + 2 * LINE + GAP, [*legend, *grid, *lines, *spots, *words])


def _shape_sample(shape: str, words: str, place: int) -> str:
    y = LINE * (place + 1) + GAP
    drawn = f'<path class="chart__mark" d="{shape}" transform="translate(10 {y + 7})"/>'
    return f'{drawn}<text class="chart__soft" x="26" y="{y + 11}">{escape(words)}</text>'


def _grid(across: Scale, up: Scale, axes: tuple[str, str], style: str) -> list[str]:
    """Faint lines both ways with their values, and what the axes say; `style` is the format of the values up."""
    bottom, top = up.start, up.end
    found = [_upright(across.at(tick), top, bottom, "chart__grid") for tick in across.ticks()]
    for tick in across.ticks():
        at = f'x="{across.at(tick):.2f}%" y="{bottom + 14}"'
        found.append(f'<text class="chart__soft" {at} text-anchor="middle">{tick:.3g}</text>')
    for tick in up.ticks():
        y = f"{up.at(tick):.1f}"
        ends = f'x1="{across.start}%" x2="{across.end}%" y1="{y}" y2="{y}"'
        found.append(f'<line class="chart__grid" {ends}/>')
        at = f'x="{across.start}%" dx="-7" y="{y}" dy="4"'
        found.append(f'<text class="chart__soft" {at} text-anchor="end">{tick:{style}}</text>')
    found.append(f'<text class="chart__soft" x="0" y="{top - 14}">{escape(axes[1])}</text>')
    end = f'x="{across.end}%" y="{bottom + 14 + LINE}" text-anchor="end"'
    found.append(f'<text class="chart__soft" {end}>{escape(axes[0])}</text>')
    return found


def _mark(mark: Mark, shape: str, across: Scale, up: Scale) -> str:
    return (
        f'<svg x="{across.at(mark.x):.2f}%" y="{up.at(mark.y):.1f}" overflow="visible">'
        f'<title>{escape(mark.says)}</title><path class="chart__mark" d="{shape}"/></svg>'
    )


def _path(marks: Sequence[Mark], across: Scale, up: Scale) -> str:
    """Straight lines from mark to mark, from left to right."""
    ordered = sorted(marks, key=lambda mark: mark.x)
    return "".join(
        f'<line class="chart__path" x1="{across.at(a.x):.2f}%" y1="{up.at(a.y):.1f}" '
        f'x2="{across.at(b.x):.2f}%" y2="{up.at(b.y):.1f}"/>'
        for a, b in itertools.pairwise(ordered)
    )


def _labels(marks: Sequence[Mark], across: Scale, up: Scale) -> list[str]:
    """Each label on a side of its mark where, in a narrow box, it covers no other label and no mark."""
    boxes = [_box(mark, (0.0, 5.0, "middle"), across, up, width=12.0) for mark in marks]
    found = []
    for mark in (mark for mark in marks if mark.label):
        spots = [(_box(mark, side, across, up, width=LETTER * len(mark.label)), side) for side in SIDES]
        box, (dx, dy, anchor) = next((s for s in spots if not any(_cover(s[0], other) for other in boxes)), spots[0])
        boxes.append(box)
        at = f'x="{across.at(mark.x):.2f}%" dx="{dx:g}" y="{up.at(mark.y) + dy:.1f}" text-anchor="{anchor}"'
        found.append(f'<text class="chart__value" {at}>{escape(mark.label)}</text>')
    return found


def _box(mark: Mark, side: tuple[float, float, str], across: Scale, up: Scale, *, width: float) -> Box:
    """Left, top, right and bottom of a text of this width beside the mark."""
    dx, dy, anchor = side
    left = across.at(mark.x) / 100 * NARROW + dx - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
    return left, up.at(mark.y) + dy - 10, left + width, up.at(mark.y) + dy


def _cover(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
