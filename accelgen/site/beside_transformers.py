"""The part of the page "Measured" that sets this project's loops beside those of transformers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from accelgen.exports.markdown import bullets, join, note, table
from accelgen.measuring.rows import PEER_TIMES, PEER_WORK, SPEEDUP, Column, FailedRow, PeerRow, cells, peer_rows
from accelgen.taxonomy.calls import BASELINE
from accelgen.taxonomy.schema import Taxonomy

MISSING = "`accelgen bench --peers --store` measures both in one process; its results are not in this checkout."
LEAD = (
    "The same weights, prompts, number of tokens and precision, in one process and one thread, all sides in turn."
    " *Their time / ours* above one means that ours is faster: median and quartiles over the rounds."
    " [All figures as JSON](downloads/peers.json){ download }."
)
PARTS = (
    "Plain decoding is the same arithmetic on both sides, so its ratio is what the leaner loop brings. The other ratios"
    " are split as *loop × drafting*: that loop, and our gain over our own plain decoding divided by theirs over"
    " theirs. The product is exact within a round, and nearly so between medians."
)
MEMORY = (
    "*Working memory* is the most bytes of tensors alive at once, weights not counted, in a greedy run after the"
    " longest prompt: caches, activations and workspaces, as torch's profiler sees them allocated and freed."
)
COPYING = (
    "No method here copies from the prompt as prompt lookup does, so it stands beside our plain decoding, and beside"
    " REST, which copies from a datastore instead."
)

NUMBERS = re.compile(r"\([\d.]+–[\d.]+\)|[\d.–]+ [×/] [\d.–]+")  # quartiles, products, and ours / theirs
Row = PeerRow | FailedRow


def beside_transformers(taxonomy: Taxonomy, peers: Mapping[str, Any] | None) -> str:
    """The fragment docs/generated/peers.md."""
    if not peers:
        return note("Not measured yet", MISSING, "planned") + "\n"
    names = {BASELINE: "Plain decoding"} | {m.id: f"[{m.name}](methods/{m.id}.md)" for m in taxonomy.methods}
    blocks = [LEAD]
    every = peer_rows(peers)
    for setting in dict.fromkeys(row.setting for row in every):
        rows = [row for row in every if row.setting == setting]
        blocks += [f"### {setting.capitalize()}", _table(rows, names, PEER_TIMES), bullets(_sentences(rows, names))]
        if any(isinstance(row, PeerRow) and row.texts is not None for row in rows):
            blocks += [
                f"The same runs, {setting}: what was guessed, what came out, what it took.",
                _table(rows, names, PEER_WORK),
            ]
    versions, defaults = peers["versions"], peers["settings"]["their_defaults"]
    chances = peers["settings"]["their_draft_temperature"]
    notes = [PARTS, _chance(versions, chances), COPYING, _defaults(versions, defaults), MEMORY]
    return join([*blocks, "### How to read it", bullets(notes), "### Setup", bullets(_setup(peers))])


def _table(rows: Sequence[Row], names: Mapping[str, str], columns: tuple[Column[Any], ...]) -> str:
    """One row for each comparison, led by what is compared."""
    head = ("Ours", "transformers", *(column.head for column in columns))
    return table(head, [(_ours(row, names), _call(row), *map(_cell, cells(columns, row))) for row in rows])


def _ours(row: Row, names: Mapping[str, str]) -> str:
    return ", ".join([names[row.id], *(row.ours.options if isinstance(row, PeerRow) else [])])


def _call(row: Row) -> str:
    code, _, drafts = row.theirs.call.partition(", ")
    return f"`{code}`" + (f", {drafts}" if drafts else "")


def _cell(text: str) -> str:
    """A figure, a pair or a range of figures, never broken over two lines."""
    return NUMBERS.sub(r'<span class="nowrap">\g<0></span>', text) or "–"


def _sentences(rows: Sequence[Row], names: Mapping[str, str]) -> list[str]:
    """How much of each ratio is the loop and how much the drafting, where both sides draft alike."""
    found = []
    for row in rows:
        if isinstance(row, FailedRow):
            continue
        ratio, ours, theirs = SPEEDUP.figure(row), row.ours.over_plain, row.theirs.over_plain
        if row.id == BASELINE and theirs is None:
            found.append(f"Plain decoding: their time is {ratio} times ours, by the loop alone.")
        elif row.theirs.switches and row.loop and row.algorithm and ours and theirs:
            found.append(
                f"{names[row.id]}: their time is {ratio} times ours, {SPEEDUP.figure(row.loop)} by the loop"
                f" and {SPEEDUP.figure(row.algorithm)} by the drafting. Drafts of equal length gain"
                f" {SPEEDUP.figure(ours)} over plain decoding here and {SPEEDUP.figure(theirs)} there."
            )
    return found


def _chance(versions: Mapping[str, str], drawn: Mapping[str, float]) -> str:
    """Why tokens per pass differ above temperature 0."""
    found = [f"{below} where {temperature} was asked for" for temperature, below in drawn.items()]
    return (
        "Above temperature 0 the two sides draw other random numbers, so the texts differ. Guesses are drawn"
        f" differently too: transformers {versions['transformers']} applies the temperature twice to what a model"
        f" drafts, so that guesses come from temperature {' and '.join(found)} (its authors"
        " [on the temperature of drafts](https://github.com/huggingface/transformers/pull/40976)). The text keeps the"
        " target's law, but other guesses are kept."
    )


def _defaults(versions: Mapping[str, str], defaults: Mapping[str, Any]) -> str:
    """What *default drafts* are."""
    most, below = defaults["num_assistant_tokens"], defaults["assistant_confidence_threshold"]
    adapts = "would adapt with scikit-learn" if versions["scikit-learn"] == "not installed" else "adapts as it goes"
    return (
        f"*Default drafts* are those of transformers {versions['transformers']}: {most} guesses at most, and none after"
        f" one whose probability is below {below}, a threshold that {adapts}. All other drafts have our length, on a"
        " constant schedule and with the threshold at 0; at the end of a text theirs are shorter."
    )


def _setup(peers: Mapping[str, Any]) -> list[str]:
    machine, versions, settings = peers["machine"], peers["versions"], peers["settings"]
    rounds = settings["prompts"] * settings["repeat"]
    return [
        f"Command: `{peers['command']}`, on {peers['date']}",
        f"{rounds} rounds, {settings['limit']} tokens after each prompt, {settings['dtype']}",
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} thread, {machine['system']}",
        ", ".join(f"{name} {version}" for name, version in versions.items()),
    ]
