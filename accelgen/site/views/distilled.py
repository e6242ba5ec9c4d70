"""What distilling gains: the same drafter after equal steps, by divergence and by whose texts it learned from."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from accelgen.exports.markdown import front_matter, join, note, section, table
from accelgen.measuring.rows import DistilledRow, rows_of
from accelgen.site import charts
from accelgen.site.results import Results
from accelgen.taxonomy.schema import Taxonomy

COMMAND = "python -m accelgen.measuring.divergences"
LEAD = "One drafter, equal steps, four divergences and two kinds of text: how many more guesses are kept."
WHY = (
    "[DistillSpec](../methods/distillspec.md) lets a drafter learn its target's laws before it serves. How their"
    " distance is measured and whose texts they are compared on are separate choices. The control learns on for as many"
    " steps, but only the next token of the corpus, as in its first training: what it gains is not due to the target."
)


def page(_: Taxonomy, results: Results) -> str:
    """The Markdown of docs/explore/distilling.md."""
    head = [
        front_matter(title="What distilling gains", description=LEAD),
        "# What distilling gains",
        f'<p class="lead">{LEAD}</p>',
    ]
    rows, found = rows_of(DistilledRow, results.divergences), results.divergences
    if not rows or not found:
        return join([*head, note("Not measured yet", f"`{COMMAND}` measures it.", "planned")])
    how = (
        f"{found['steps']} steps on {found['batch']} windows of {found['length']} tokens each, from the zoo's plain"
        " drafter on. Acceptance is the mean of $\\sum_x \\min(p(x), q(x))$ over the places of texts that the target"
        " writes itself, the same for all drafters, so only the texts are drawn; each way was trained once, so what the"
        f" training draws is not in the intervals. `{COMMAND}` measures it anew. The best mean over the settings on"
        f" development prompts is that of {chosen(rows).learned_from}; so the zoo's distilled drafter was made."
    )
    drawn = section("Acceptance", charts.distilled([row for row in rows if row.side == "test"]), how)
    return join([*head, WHY, drawn, section("All figures", _figures(rows))])


def chosen(rows: Sequence[DistilledRow]) -> DistilledRow:
    """A row of the way to learn that has the best mean acceptance over the settings on development prompts."""
    ways: dict[str, list[DistilledRow]] = {}
    for row in rows:
        if row.side == "development":
            ways.setdefault(row.learned_from, []).append(row)
    return max(ways.values(), key=lambda own: fmean(row.acceptance for row in own))[0]


def _figures(rows: Sequence[DistilledRow]) -> str:
    head = ("Learned from", "Prompts", "Temperature", "Acceptance", "Gain in points, with its 95% interval")
    cells = [
        (
            *(row.learned_from, row.side, f"{row.temperature:g}", f"{row.acceptance:.1%}"),
            f"{100 * row.gain:+.1f} ± {100 * row.margin:.1f}" if row.margin else "–",
        )
        for row in rows
    ]
    data = "[The figures of this page as JSON](../downloads/divergences.json){ download }."
    return "\n\n".join([table(head, cells), data])
