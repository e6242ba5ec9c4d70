"""The lineage: what builds on what, a tree for each family."""

from __future__ import annotations

from collections.abc import Iterator

from accelgen.exports.markdown import front_matter, join, section
from accelgen.site.results import Results
from accelgen.site.views.drawing import ROW, address, drawing, label, width_of
from accelgen.taxonomy.schema import Category, Method, Taxonomy

LEAD = "What builds on what. A line leads from a technique to those that extend it."
GAP = 34  # between a name and the names that build on it


def page(taxonomy: Taxonomy, results: Results) -> str:
    """The Markdown of docs/explore/lineage.md."""
    legend = (
        "Dashed lines lead to a further ancestor. A line that begins in another family begins at a name in italics. A"
        " filled dot stands before a technique with a proved implementation here."
    )
    drawings = [section(c.name, _draw(c, taxonomy, results)) for c in taxonomy.categories]
    return join(
        [
            front_matter(title="Lineage", description=LEAD, hide=["toc"]),
            "# Lineage",
            f'<p class="lead">{LEAD}</p>',
            legend,
            *drawings,
        ]
    )


def forest(category: Category, taxonomy: Taxonomy) -> Iterator[tuple[Method, int]]:
    """The methods of a family and their foreign ancestors, each under the first that it builds on, with its depth."""
    own = taxonomy.methods_of(category.id)
    children: dict[str, list[Method]] = {}
    for method in own:
        for parent in method.builds_on[:1]:
            children.setdefault(parent, []).append(method)
    foreign = [taxonomy.method(parent) for parent in children if taxonomy.method(parent).category != category.id]
    roots = foreign + [method for method in own if not method.builds_on]

    def below(method: Method, depth: int) -> Iterator[tuple[Method, int]]:
        yield method, depth
        for child in children.get(method.id, []):
            yield from below(child, depth + 1)

    connected = [root for root in roots if root.id in children]
    alone = [root for root in roots if root.id not in children]
    for root in connected + alone:
        yield from below(root, 0)


def _draw(category: Category, taxonomy: Taxonomy, results: Results) -> str:
    rows = list(forest(category, taxonomy))
    columns: dict[int, float] = {}  # only names with lines behind them push the next column to the right
    for (method, depth), (_, following) in zip(rows, [*rows[1:], (None, 0)], strict=True):
        columns[depth] = max(columns.get(depth, 0), width_of(method) if following > depth else 0)
    left = {depth: sum(columns[d] + GAP for d in range(depth)) for depth in columns}
    place = {method.id: (left[depth], ROW * (i + 0.5)) for i, (method, depth) in enumerate(rows)}
    edges, names = list[str](), list[str]()
    for method, _ in rows:
        x, y = place[method.id]
        href = address(f"methods/{method.id}.md", "explore/lineage.md", directories=results.directories)
        names.append(label(method, x, y, href, faint=method.category != category.id))
        for i, parent in enumerate(method.builds_on):
            if parent in place and method.category == category.id:
                edges.append(_edge(place[parent], width_of(taxonomy.method(parent)), (x, y), dashed=i > 0))
    width = max(left[depth] + width_of(method) for method, depth in rows)
    return drawing([*edges, *names], width, ROW * len(rows), f"Lineage of {category.name}")


def _edge(parent: tuple[float, float], wide: float, child: tuple[float, float], *, dashed: bool) -> str:
    """A line from the end of the parent's name to the child; on the left side where the child stands no further."""
    (x1, y1), (x2, y2) = parent, child
    turn = 8 if y2 > y1 else -8
    if x1 + wide < x2:
        bend = x2 - GAP / 2
        way = f"M{x1 + wide:.0f} {y1:.0f} H{bend - 8:.0f} Q{bend:.0f} {y1:.0f} {bend:.0f} {y1 + turn:.0f}"
    else:
        bend = x2 - 12
        way = f"M{x1 - 4:.0f} {y1:.0f} Q{bend:.0f} {y1:.0f} {bend:.0f} {y1 + turn:.0f}"
    way += f" V{y2 - turn:.0f} Q{bend:.0f} {y2:.0f} {bend + 8:.0f} {y2:.0f} H{x2 - 4:.0f}"
    return f'<path class="draw__edge{" draw__edge--second" if dashed else ""}" d="{way}" />'
