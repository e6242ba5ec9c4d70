"""The gap map: how many techniques each family has of each kind, and where there are none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import quote

from accelgen.exports.markdown import front_matter, join, section, table
from accelgen.site.method_page import GUARANTEES, NEEDS
from accelgen.site.results import Results
from accelgen.site.views.comparison import engines, training
from accelgen.taxonomy.schema import Method, Taxonomy

LEAD = "Where the field is dense and where it is thin: techniques of each family by what they promise and ask for."
LEGEND = (
    "A dot is an empty place: a combination that no technique here has. Some are impossible, some are open. "
    "A technique with several needs counts in several rows."
)
Column = tuple[str, Callable[[Method], list[str]]]  # the column of the comparison, and a method's values in it


def page(taxonomy: Taxonomy, _: Results) -> str:
    """The Markdown of docs/explore/gaps.md; every number links to the methods behind it."""
    columns: Mapping[str, Column] = {
        "What they promise": ("Guarantee", lambda m: [GUARANTEES[m.guarantee][0]]),
        "What they need": ("Needs", lambda m: [NEEDS[need][0] for need in m.needs]),
        "What is trained": ("Training", lambda m: [training(m)]),
        "Where they run": ("Engines", lambda m: engines(m) or ["–"]),
        "Implemented here": ("Code here", lambda m: ["proved" if m.is_implemented else "–"]),
    }
    return join(
        [
            front_matter(title="Gap map", description=LEAD),
            "# Gap map",
            f'<p class="lead">{LEAD}</p>',
            LEGEND,
            *(section(title, _map(column, taxonomy)) for title, column in columns.items()),
            section("Branches", _branches(taxonomy)),
        ]
    )


def _map(column: Column, taxonomy: Taxonomy) -> str:
    name, values_of = column
    values = sorted({value for method in taxonomy.methods for value in values_of(method)})
    rows = []
    for value in values:
        counts = [sum(value in values_of(m) for m in taxonomy.methods_of(c.id)) for c in taxonomy.categories]
        links = [
            _cell(count, {"Family": c.name, name: value}) for count, c in zip(counts, taxonomy.categories, strict=True)
        ]
        rows.append((value if value != "–" else "none", *links, str(sum(counts))))
    return table((name, *(c.name for c in taxonomy.categories), "All"), rows)


def _cell(count: int, filters: Mapping[str, str]) -> str:
    """The count, linked to the comparison filtered to it; a value that cannot be filtered for stays plain."""
    if not count or "–" in filters.values():
        return str(count) if count else "·"
    query = "&".join(f"{name}={quote(value)}" for name, value in filters.items())
    return f"[{count}](comparison.md?{query})"


def _branches(taxonomy: Taxonomy) -> str:
    rows = []
    for category in taxonomy.categories:
        for branch in category.subcategories:
            methods = taxonomy.methods_of(category.id, branch.id)
            years = [m.paper.year for m in methods]
            span = f"{min(years)}–{max(years)}" if years else "·"
            link = f"[{branch.name}](../categories/{category.id}/index.md#{branch.id})"
            rows.append((link, category.name, str(len(methods)), span, str(sum(m.is_implemented for m in methods))))
    return table(("Branch", "Family", "Techniques", "Years", "Implemented"), rows)
