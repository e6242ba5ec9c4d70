"""What is measured where several texts are decoded together: draft lengths by batch size, time between tokens."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from accelgen.exports.markdown import front_matter, join, note, section, table
from accelgen.measuring.rows import SPEEDUP, Chunked, Chunks, DraftLengths, Served, Setup, read
from accelgen.site import charts
from accelgen.site.results import Results
from accelgen.taxonomy.schema import Taxonomy

LEAD = "What a pass over many texts costs, how long drafts should then be, and what long prompts do to everybody else."
TABLE = "as the table says"
COMMANDS = ("python -m accelgen.measuring.draft_lengths", "python -m accelgen.measuring.chunks")


def page(_: Taxonomy, results: Results) -> str:
    """The Markdown of docs/explore/batches.md."""
    head = [
        front_matter(title="Many texts at once", description=LEAD),
        "# Many texts at once",
        f'<p class="lead">{LEAD}</p>',
    ]
    if not (results.draft_lengths and results.chunks):
        return join(
            [*head, note("Not measured yet", " and ".join(f"`{c}`" for c in COMMANDS) + " measure it.", "planned")]
        )
    lengths, chunks = read(DraftLengths, results.draft_lengths), read(Chunks, results.chunks)
    return join(
        [
            *head,
            section("What a pass costs", _costs(lengths)),
            section("How long drafts should be", _lengths(lengths)),
            section("Prompts in chunks", _chunks(chunks)),
        ]
    )


def _costs(found: DraftLengths) -> str:
    lead = (
        "Milliseconds of a pass of the zoo's target over $b$ texts of $s$ tokens each, $t(b, s)$, and of the drafter"
        " over one token of each, $d(b)$. With few texts further tokens are nearly free, with many they are not. Of 1,"
        f" 2, … guesses the target keeps {_row(f'{kept:.2f}' for kept in found.kept[1:])} on"
        " average, $l(s)$; development prompts, temperature 0. The last column is the length of least time for a token,"
        f" $(t(b, s + 1) + s\\, d(b)) / (l(s) + 1)$. {_trend(found)}"
    )
    head = ("Texts", "*s* = 1", *map(str, range(2, len(found.kept) + 1)), "*d*", "best")
    rows = [
        (str(row.rows), *(f"{time:.1f}" for time in row.target), f"{row.drafter:.2f}", str(row.best))
        for row in found.profile
    ]
    return f"{lead}\n\n{table(head, rows)}"


def _trend(found: DraftLengths) -> str:
    """Whether the best length falls as the batch grows, as one expects."""
    rises = [str(b.rows) for a, b in itertools.pairwise(found.profile) if b.best > a.best]
    return f"It falls with the batch, except at {_row(rises)}." if rises else "It falls with the batch."


def _lengths(found: DraftLengths) -> str:
    longest = max(row.length or 0 for row in found.served)
    shown = {1: "1 guess", longest: f"{longest} guesses", None: TABLE}
    sizes = [(size, list(rows)) for size, rows in itertools.groupby(found.served, key=lambda row: row.rows)]
    lead = (
        f"The first so many held-out prompts, {found.settings['limit']} tokens each, at temperature 0, by"
        " [adaptive speculation length](../methods/speculative-batching-synergy.md): with fixed lengths, and with the"
        f" table above, looked up for the texts that still run. {_crossover(sizes)}"
    )
    head = ("Texts", *(_called(row.length) for row in sizes[0][1]))
    rows = [
        (str(size), *(f"{row.tokens_per_second:.0f} ({SPEEDUP.figure(row)})" for row in own)) for size, own in sizes
    ]
    data = f"Tokens a second, and the speedup over no drafts. {_source(found, 'draft-lengths')}"
    return "\n\n".join([lead, charts.lengths(found.served, shown), table(head, rows), data])


def _crossover(sizes: list[tuple[int, list[Served]]]) -> str:
    """From which size on no fixed length pays."""
    idle = [size for size, rows in sizes if all(row.speedup <= 1 for row in rows if row.length is not None)]
    behind = [size for size, _ in sizes if size not in idle]
    if not idle or (behind and max(behind) > min(idle)):
        return "No size was measured from which on drafts stop paying."
    return f"From {min(idle)} texts on, no fixed length is faster than none."


def _called(length: int | None) -> str:
    if length is None:
        return TABLE
    return {0: "no drafts", 1: "1 guess"}.get(length, f"{length} guesses")


def _chunks(found: Chunks) -> str:
    prompts, limits = found.settings["prompts"], found.settings["limits"]
    lead = (
        f"A queue of {len(prompts)} texts, with prompts of {_row(map(str, prompts))} tokens that go on by"
        f" {_row(map(str, limits))}, served by [SARATHI](../methods/sarathi.md) with {found.settings['rows']} places,"
        " in which the last text comes in when another one has ended. Read at once, a long prompt keeps all others"
        " waiting for one long pass. In chunks they wait less, and the prompt's own first token comes later."
    )
    rows = sorted(found.rows, key=lambda row: row.budget or 0)
    names = [f"{length} tokens" for length in prompts]
    head = (
        *("Tokens a pass", "Passes", "Between tokens, median (ms)", "longest (ms)"),
        *("First token of the first long prompt (ms)", "Tokens a second", "Speedup over prompts at once"),
    )
    cells = [
        (
            "no limit" if row.budget is None else str(row.budget),
            str(row.passes),
            f"{row.median_gap:.1f}",
            f"{row.longest_gap:.1f}",
            f"{row.first_token:.0f}",
            f"{row.tokens_per_second:.0f}",
            SPEEDUP.show(row),
        )
        for row in rows
    ]
    shown = [rows[0], _middle(rows)]
    return "\n\n".join([lead, charts.timelines(shown, names), table(head, cells), _source(found, "chunks")])


def _middle(rows: list[Chunked]) -> Chunked:
    """Of the budgets that cut prompts, the one in the middle."""
    return rows[1:][len(rows[1:]) // 2]


def _row(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def _source(found: Setup, name: str) -> str:
    machine = ", ".join(f"{key} {value}" for key, value in found.machine.items())
    return (
        f"`{found.command}`, {found.date}; {machine}; torch {found.versions['torch']}."
        f" [The figures as JSON](../downloads/{name}.json){{ download }}."
    )
