"""What copying gains: answers that quote, by workload, match length and copy length."""

from __future__ import annotations

from collections.abc import Sequence

from accelgen.exports.markdown import front_matter, join, note, section, table
from accelgen.measuring.rows import CopyingRow, rows_of
from accelgen.site import charts
from accelgen.site.results import Results
from accelgen.taxonomy.schema import Taxonomy

COMMAND = "python -m accelgen.measuring.copying"
LEAD = "How far a text at hand is copied where an answer repeats it: documents, a stored answer, earlier turns."
WHY = (
    "[LLMA](../methods/llma.md) copies what followed the newest tokens in a reference. Two numbers decide what that"
    " brings: how many tokens must match before a copy is made (`shortest`), and how many are copied then (`gamma`). A"
    " short match is found more often and is right less often; a long copy saves more passes where it is right, and"
    " makes the pass wider where it is not."
)
HOW = (
    "The texts are small ones of our own, a few for each workload. Their answers are stored, and the target is made to"
    " write them whatever its weights say, so the figures belong to the texts alone: no machine and no model changes"
    f" them. `{COMMAND}` computes them anew."
)


def page(_: Taxonomy, results: Results) -> str:
    """The Markdown of docs/explore/copying.md."""
    head = [
        front_matter(title="What copying gains", description=LEAD),
        "# What copying gains",
        f'<p class="lead">{LEAD}</p>',
    ]
    rows = rows_of(CopyingRow, results.copying)
    if not rows:
        return join([*head, note("Not computed yet", f"`{COMMAND}` computes it.", "planned")])
    return join(
        [*head, WHY, section("Tokens per pass", charts.copies(rows), HOW), section("All figures", _figures(rows))]
    )


def _figures(rows: Sequence[CopyingRow]) -> str:
    head = ("Workload", "Match, at least", "Copy, at most", "Match rate", "Tokens a copy", "Kept of copied",
            "Tokens per pass")  # fmt: skip
    cells = [
        (
            f"{row.workload} ({row.texts} texts, {row.tokens} tokens)",
            str(row.shortest),
            str(row.gamma),
            f"{row.match_rate:.0%}",
            f"{row.copied:.1f}",
            f"{row.kept:.0%}",
            f"{row.tokens_per_pass:.2f}",
        )
        for row in rows
    ]
    words = (
        "The match rate counts passes that found something to copy, among all but the first of a text, which has no"
        " token to look up yet."
    )
    data = "[The figures of this page as JSON](../downloads/copying.json){ download }."
    return "\n\n".join([table(head, cells), words, data])
