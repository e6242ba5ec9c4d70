"""The timeline: which technique came when, a lane for each family."""

from __future__ import annotations

import html
from collections.abc import Sequence

from accelgen.exports.markdown import front_matter, join
from accelgen.site.results import Results
from accelgen.site.views.drawing import ROW, address, drawing, label
from accelgen.taxonomy.schema import Method, Taxonomy

LEAD = (
    "When the techniques were first shown: by the month of the preprint where there is one, else by the venue's year."
)
LANE, MARGIN, HEAD = 300, 56, 34


def page(taxonomy: Taxonomy, results: Results) -> str:
    """The Markdown of docs/explore/timeline.md."""
    return join(
        [
            front_matter(title="Timeline", description=LEAD, hide=["toc"]),
            "# Timeline",
            f'<p class="lead">{LEAD}</p>',
            "A filled dot stands before a technique with a proved implementation here.",
            _draw(taxonomy, results),
        ]
    )


def first_shown(method: Method) -> tuple[int, int]:
    """Year and month of the preprint, or the venue's year and its end."""
    if method.paper.arxiv:
        return 2000 + int(method.paper.arxiv[:2]), int(method.paper.arxiv[2:4])
    return method.paper.year, 12


def _draw(taxonomy: Taxonomy, results: Results) -> str:
    families = [category.id for category in taxonomy.categories]
    lanes: dict[int, list[Sequence[Method]]] = {}
    for year in sorted({first_shown(m)[0] for m in taxonomy.methods}):
        found = sorted((m for m in taxonomy.methods if first_shown(m)[0] == year), key=first_shown)
        lanes[year] = [[m for m in found if m.category == family] for family in families]
    parts = [
        f'<text class="draw__head draw__node--{c.id}" x="{MARGIN + i * LANE}" y="16">{html.escape(c.name)}</text>'
        for i, c in enumerate(taxonomy.categories)
    ]
    width, y = MARGIN + LANE * len(families), float(HEAD)
    for year, columns in lanes.items():
        height = ROW * max(map(len, columns)) + ROW / 2
        parts.append(f'<line class="draw__line" x1="0" x2="{width}" y1="{y:.0f}" y2="{y:.0f}" />')
        parts.append(
            f'<text class="draw__year" x="0" y="{y + ROW * 0.75:.0f}" dominant-baseline="middle">{year}</text>'
        )
        for i, column in enumerate(columns):
            for row, method in enumerate(column):
                href = address(f"methods/{method.id}.md", "explore/timeline.md", directories=results.directories)
                parts.append(label(method, MARGIN + i * LANE, y + ROW * (row + 0.75), href))
        y += height
    return drawing(parts, width, y, "Timeline of the techniques")
