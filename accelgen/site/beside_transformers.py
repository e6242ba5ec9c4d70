"""The part of the page "Measured" that sets this project's loops beside those of transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from accelgen.exports.markdown import bullets, join, note, table
from accelgen.taxonomy.calls import BASELINE
from accelgen.taxonomy.schema import Taxonomy

MISSING = "`accelgen bench --peers` measures both in one process; its results are not in this checkout."
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

Row = Mapping[str, Any]


def beside_transformers(taxonomy: Taxonomy, peers: Mapping[str, Any] | None) -> str:
    """The fragment docs/generated/peers.md."""
    if not peers:
        return note("Not measured yet", MISSING, "planned") + "\n"
    names = {BASELINE: "Plain decoding"} | {m.id: f"[{m.name}](methods/{m.id}.md)" for m in taxonomy.methods}
    blocks = [LEAD]
    for setting in dict.fromkeys(row["setting"] for row in peers["rows"]):
        rows = [row for row in peers["rows"] if row["setting"] == setting]
        blocks += [f"### {setting.capitalize()}", _table(rows, names, TIMES), bullets(_sentences(rows, names))]
        if any("texts" in row for row in rows):
            blocks += [
                f"The same runs, {setting}: what was guessed, what came out, what it took.",
                _table(rows, names, WORK),
            ]
    versions, defaults = peers["versions"], peers["settings"]["their_defaults"]
    chances = peers["settings"]["their_draft_temperature"]
    notes = [PARTS, _chance(versions, chances), COPYING, _defaults(versions, defaults), MEMORY]
    return join([*blocks, "### How to read it", bullets(notes), "### Setup", bullets(_setup(peers))])


def _table(rows: Sequence[Row], names: Mapping[str, str], columns: Mapping[str, Callable[[Row], str]]) -> str:
    """One row for each comparison, led by what is compared."""
    head = ("Ours", "transformers", *columns)
    sides = [(", ".join([names[row["id"]], *row.get("ours", {}).get("options", [])]), _call(row)) for row in rows]
    cells = [[show(row) or "–" for show in columns.values()] for row in rows]
    return table(head, [(*side, *shown) for side, shown in zip(sides, cells, strict=True)])


def _call(row: Row) -> str:
    code, _, drafts = row["theirs"]["call"].partition(", ")
    return f"`{code}`" + (f", {drafts}" if drafts else "")


def _ratio(row: Row) -> str:
    if "error" in row:
        return f"failed: {row['error']}"
    return f"{_median(row)} {_whole('({speedup_q1:.2f}–{speedup_q3:.2f})'.format(**row))}"


def _parts(row: Row) -> str:
    return _whole(f"{_median(row['loop'])} × {_median(row['algorithm'])}") if "loop" in row else ""


def _whole(text: str) -> str:
    """Text that is never broken over two lines."""
    return f'<span class="nowrap">{text}</span>'


def _median(found: Mapping[str, Any]) -> str:
    return f"{found['speedup']:.2f}"


def _both(show: Callable[[Mapping[str, Any]], str]) -> Callable[[Row], str]:
    """The figure of our side and of theirs; nothing where neither has it."""

    def cell(row: Row) -> str:
        if "error" in row:
            return ""
        ours, theirs = show(row["ours"]), show(row["theirs"])
        return _whole(f"{ours or '–'} / {theirs or '–'}") if ours or theirs else ""

    return cell


def _gain(side: Mapping[str, Any]) -> str:
    return _median(side["over_plain"]) if "over_plain" in side else ""


def _guesses(side: Mapping[str, Any]) -> str:
    return f"{side['drafted_per_pass']:.1f}" if side["drafted_per_pass"] else ""


def _megabytes(side: Mapping[str, Any]) -> str:
    return f"{side['working_bytes'] / 1e6:.1f}" if "working_bytes" in side else ""


def _equal(row: Row) -> str:
    if "texts" not in row:
        return ""
    differing, ties = row["texts"] - row["identical_texts"], row["rounding_ties"]
    shown = f"{row['identical_texts']} of {row['texts']}"
    if ties:
        shown += f"; {ties} by a rounding tie"
    return f"{shown}; {differing - ties} not as promised" if differing > ties else shown


TIMES: Mapping[str, Callable[[Row], str]] = {
    "Their time / ours": _ratio,
    "Loop × drafting": _parts,
    "Gain over own plain decoding, ours / theirs": _both(_gain),
    "Tokens per pass, ours / theirs": _both(lambda side: f"{side['tokens_per_pass']:.2f}"),
}
WORK: Mapping[str, Callable[[Row], str]] = {
    "Guesses per pass, ours / theirs": _both(_guesses),
    "Equal texts": _equal,
    "Working memory in MB, ours / theirs": _both(_megabytes),
}


def _sentences(rows: Sequence[Row], names: Mapping[str, str]) -> list[str]:
    """How much of each ratio is the loop and how much the drafting, where both sides draft alike."""
    found = []
    for row in rows:
        if "error" in row:
            continue
        if row["id"] == BASELINE and "over_plain" not in row["theirs"]:
            found.append(f"Plain decoding: their time is {row['speedup']:.2f} times ours, by the loop alone.")
        elif row["theirs"]["switches"]:
            ours, theirs = (_median(row[side]["over_plain"]) for side in ("ours", "theirs"))
            found.append(
                f"{names[row['id']]}: their time is {row['speedup']:.2f} times ours, {_median(row['loop'])} by the loop"
                f" and {_median(row['algorithm'])} by the drafting. Drafts of equal length gain {ours} over plain"
                f" decoding here and {theirs} there."
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
