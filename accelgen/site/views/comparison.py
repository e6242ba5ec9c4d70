"""The comparison: every technique in one table, which a small script makes sortable and filterable."""

from __future__ import annotations

from accelgen.exports.markdown import bullets, front_matter, join, section, table
from accelgen.site.method_page import GUARANTEES, NEEDS, guarantee_badge
from accelgen.site.results import Results
from accelgen.taxonomy.schema import Guarantee, Method, Need, Taxonomy

LEAD = "Every technique of the taxonomy with what it promises, what it asks for, and where it runs today."
COLUMNS = ("Method", "Family", "Guarantee", "Needs", "Training", "Year", "Code here", "Engines")
FILTERS = COLUMNS[1:]


def page(taxonomy: Taxonomy, _: Results) -> str:
    """The Markdown of docs/explore/comparison.md; without a script it is a plain table."""
    rows = [row(method, taxonomy) for method in taxonomy.methods]
    return join(
        [
            front_matter(title="Compare all techniques", description=LEAD, hide=["toc"]),
            "# Compare all techniques",
            f'<p class="lead">{LEAD}</p>',
            f'<div class="sift" data-filters="{",".join(FILTERS)}" markdown>\n\n{table(COLUMNS, rows)}\n\n</div>',
            "The words of the columns are explained with the [taxonomy](../taxonomy.md#guarantees).",
            section("Lossless without training", _lossless(taxonomy)),
        ]
    )


def _lossless(taxonomy: Taxonomy) -> str:
    """The answer to a question that many come with: what is exact and asks for no training, by promise."""
    lists = []
    for guarantee in (Guarantee.EXACT_DISTRIBUTION, Guarantee.EXACT_GREEDY):
        found = [m for m in taxonomy.methods if m.guarantee is guarantee and training(m) == "none"]
        found.sort(key=lambda m: Need.TARGET_ONLY not in m.needs)  # stable: what needs least comes first
        items = [f"[{m.name}](../methods/{m.id}.md): {', '.join(NEEDS[need][0] for need in m.needs)}" for m in found]
        label, meaning = GUARANTEES[guarantee]
        lists += [f"**{label}**: {meaning}.\n\n{bullets(items)}"] if items else []
    lead = (
        "With what each needs instead; where that is a drafter, it must exist already, as a smaller model of a family."
    )
    return "\n\n".join([lead, *lists]) if lists else ""


def row(method: Method, taxonomy: Taxonomy) -> tuple[str, ...]:
    """One method, a cell for each of COLUMNS."""
    return (
        f"[{method.name}](../methods/{method.id}.md)",
        taxonomy.category(method.category).name,
        guarantee_badge(method),
        ", ".join(NEEDS[need][0] for need in method.needs),
        training(method),
        str(method.paper.year),
        "proved" if method.is_implemented else "–",
        ", ".join(engines(method)) or "–",
    )


def training(method: Method) -> str:
    """What the method's needs say about training."""
    if Need.TARGET_TRAINING in method.needs or Need.SEQUENCE_TO_SEQUENCE in method.needs:
        return "the model"
    if Need.TRAINED_HEADS in method.needs:
        return "an addition"
    return "none" if method.trained.startswith("nothing") else "optional"


def engines(method: Method) -> list[str]:
    """The engines that run it in the version that was read."""
    off = ("absent", "removed")
    return list(dict.fromkeys(p.engine for p in method.production if not p.switch.startswith(off)))
