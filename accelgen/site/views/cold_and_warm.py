"""Cold and warm: what drafts gain from a trie that has learned other texts before."""

from __future__ import annotations

from collections.abc import Sequence

from accelgen.exports.markdown import front_matter, join, note, section, table
from accelgen.measuring.rows import WarmthRow, rows_of
from accelgen.site import charts
from accelgen.site.results import Results
from accelgen.taxonomy.schema import Taxonomy

COMMAND = "python -m accelgen.measuring.warming"
LEAD = "A trie that learns while it decodes begins with nothing: what it gains cold, after other texts, after these."
WHY = (
    "The [lookahead trie](../methods/lookahead-trie.md) drafts from prompts and outputs. A *cold* one begins with each"
    " text and knows only that. A warm one has answered before: either other prompts of the same kind, or the very same"
    " ones, with other seeds. At temperature 0 the same prompts give the same texts, so the last case is then a text"
    " that is known by heart; it is the most that a trie can gain."
)


def page(_: Taxonomy, results: Results) -> str:
    """The Markdown of docs/explore/warming.md."""
    head = [
        front_matter(title="Cold and warm", description=LEAD),
        "# Cold and warm",
        f'<p class="lead">{LEAD}</p>',
    ]
    rows = rows_of(WarmthRow, results.warming)
    if not rows or not results.warming:
        return join([*head, note("Not measured yet", f"`{COMMAND}` measures it.", "planned")])
    how = (
        f"{rows[0].texts} held-out prompts of the zoo, {results.warming['limit']} tokens after each. All kinds of trie"
        f" see the same prompts with the same seeds, and a warm one goes on learning from text to text; the law of the"
        f" texts is the target's in each case. `{COMMAND}`"
        " measures it anew."
    )
    drawn = section("Tokens per pass", charts.warmth(rows), how)
    return join([*head, WHY, drawn, section("All figures", _figures(rows))])


def _figures(rows: Sequence[WarmthRow]) -> str:
    head = ("Setting", "Trie", "Nodes learned before", "Guesses per pass", "Tokens per pass")
    cells = [
        (row.setting, row.trie, f"{row.learned:,}", f"{row.drafted_per_pass:.1f}", f"{row.tokens_per_pass:.2f}")
        for row in rows
    ]
    data = "[The figures of this page as JSON](../downloads/warming.json){ download }."
    return "\n\n".join([table(head, cells), data])
