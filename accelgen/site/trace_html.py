"""A recorded run as HTML: what was drafted, kept, corrected, how deep, in which pass. Needs no script.

Every state is told twice, by colour and by a mark (underline, strike-through, height of the fill), and in words in
the step table. With a script, docs/assets/player.js replays the run from the data in the <template>: the facts of the
model, the pieces of the tokens that occur, the prompt, and the steps without what has the default of `Step`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from accelgen.exports.markdown import escape

FACTS = ("separator", "depth", "mask")  # of the model
PLAIN = {ord(sign): f"\\u{ord(sign):04x}" for sign in "&<>`"}  # signs of HTML and Markdown, as JSON may write them
LEGEND = {
    "accepted": "drafted and accepted",
    "corrected": "the target's own token in place of a rejected guess",
    "plain": "the target's own token",
    "rejected": "drafted and rejected",
    "masked": "masked, to be filled by a pass",
    "changed": "new or changed in this pass",
    "again": "masked, and the same word again",
    "depth": "layers used: the more, the stronger the tint and the thicker the bar",
}
NEWLINE = '<span class="t__nl">↵</span>'
MASK = '<span class="t t--masked">▢</span>'


def render(trace: dict[str, Any]) -> list[tuple[str, str]]:
    """(title, HTML) of each run in a trace; each HTML is one line, so that it can stand anywhere in Markdown."""
    return [(run["title"], _run(run, trace)) for run in trace["runs"]]


def _run(run: dict[str, Any], trace: dict[str, Any]) -> str:
    caption = f"<figcaption>{escape(summary(run))}</figcaption>"
    body = [caption, legend([run], trace), player(still(run, trace), data(run, trace))]
    if _is_parallel(run):
        body.append(_canvases(run["steps"], trace))
    elif _is_deep(run, trace):
        body.append(_depths(run["steps"], trace["depth"]))
    elif any(step["drafted"] for step in run["steps"]):
        body.append(_step_table(run["steps"], trace))
    return f'<figure class="trace" data-search-exclude>{"".join(body)}</figure>'


def _is_parallel(run: dict[str, Any]) -> bool:
    return any(step["canvas"] for step in run["steps"])


def _is_deep(run: dict[str, Any], trace: dict[str, Any]) -> bool:
    return bool(trace.get("depth")) and any(step["layers"] for step in run["steps"])


def player(before: str, facts: dict[str, Any]) -> str:
    """`before` as what stands there without a script, and the data from which the script replays.

    They stand in a <template>: the theme, when it swaps pages in place, runs every inline <script> of any type. The
    element stands last and is empty: Markdown within HTML takes what is in or after an unknown element for a line.
    """
    written = json.dumps(facts, ensure_ascii=False, separators=(",", ":")).translate(PLAIN)
    return f'<div class="player">{before}<template>{written}</template><trace-player></trace-player></div>'


def data(run: dict[str, Any], trace: dict[str, Any]) -> dict[str, Any]:
    """What the player needs to know of a run."""
    facts = {key: trace[key] for key in FACTS if key in trace}
    used = {token for step in run["steps"] for key in ("emitted", "drafted", "canvas") for token in step[key]}
    pieces = {token: trace["pieces"][token] for token in sorted(map(str, used | set(run["prompt"])), key=int)}
    return {**facts, "pieces": pieces, "prompt": run["prompt"], "steps": compact(run["steps"])}


def compact(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The steps without empty fields and without a count of passes that is 1."""
    return [{key: v for key, v in step.items() if (v != 1 if key == "passes" else v)} for step in steps]


def summary(run: dict[str, Any]) -> str:
    """The run in one or two sentences."""
    figures = run["figures"]
    text = f"{figures['tokens']} tokens in {_count(figures['passes'], 'pass', 'passes')} of the model"
    text += f", {figures['tokens_per_pass']:.2f} per pass."
    if figures.get("acceptance") is not None:
        text += f" {figures['acceptance']:.0%} of the drafted tokens were kept."
    if figures.get("mean_layers") is not None:
        text += f" A token was read after {figures['mean_layers']:.1f} layers on average."
    if figures.get("mean_work") is not None:
        text += f" {figures['mean_work']:.1f} layers were run for a token."
    return text


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _piece(text: str, *, inline: bool = True) -> str:
    """A token's text with its white space visible; `inline` text keeps its line breaks."""
    if not text:
        return '<span class="t__nl">∅</span>'
    return escape(text).replace("&#10;", NEWLINE + ("&#10;" if inline else ""))


def _token(text: str, kind: str, title: str, *, share: float | None = None, inline: bool = True) -> str:
    more = f' title="{escape(title)}"' if title else ""
    more += "" if share is None else f' style="--share:{share:.2f}"'
    return f'<span class="t t--{kind}"{more}>{_piece(text, inline=inline)}</span>'


def legend(runs: Iterable[dict[str, Any]], trace: dict[str, Any]) -> str:
    """The marks that occur in the runs, each with its meaning."""
    kinds = {kind: None for run in runs for kind in _marks(run, trace)}  # a set that keeps its order
    samples = {kind: (f'<span class="t t--{kind}">token</span>', meaning) for kind, meaning in LEGEND.items()}
    samples["masked"] = (MASK, LEGEND["masked"])
    samples["depth"] = (
        "".join(_token(word, "depth", "", share=share) for word, share in (("few", 0.1), ("half", 0.5), ("all", 1.0))),
        LEGEND["depth"],
    )
    items = "".join(f"<li>{samples[kind][0]} {samples[kind][1]}</li>" for kind in LEGEND if kind in kinds)
    return f'<ul class="trace__legend">{items}</ul>'


def _marks(run: dict[str, Any], trace: dict[str, Any]) -> Iterator[str]:
    if _is_parallel(run):
        yield "changed"
        if any(step.get("masked") for step in run["steps"]):
            yield from ("masked", "again")
        elif any(trace.get("mask") in step["canvas"] for step in run["steps"]):
            yield "masked"
        return
    if _is_deep(run, trace):
        yield "depth"
    else:
        yield from run["kinds"]
    if any(len(kept_nodes(step)) < len(step["drafted"]) for step in run["steps"]):
        yield "rejected"


def still(run: dict[str, Any], trace: dict[str, Any]) -> str:
    """The prompt, and token by token what the run made of it; of a parallel decoder the prompt alone."""
    pieces, spans, kinds = trace["pieces"], [], iter(run["kinds"])
    deep, depth = _is_deep(run, trace), trace.get("depth", 0)
    prompt = trace["separator"].join(pieces[str(token)] for token in run["prompt"])
    for number, step in enumerate([] if _is_parallel(run) else run["steps"], 1):
        for i, token in enumerate(step["emitted"]):
            kind, piece = next(kinds), pieces[str(token)]
            if deep:
                layers = step["layers"][i]
                spans.append(_token(piece, "depth", f"{layers} of {depth} layers", share=layers / depth))
            else:
                spans.append(_token(piece, kind, f"step {number}: {LEGEND[kind]}"))
    head = f'<span class="t__prompt" title="prompt">{_piece(prompt)}</span>'
    return f'<div class="trace__text" tabindex="0">{trace["separator"].join([head, *spans])}</div>'


def kept_nodes(step: dict[str, Any]) -> set[int]:
    """Which of the drafted tokens were kept: the first ones of a chain, or one path of a tree."""
    if not step["parents"]:
        return set(range(step["kept"]))
    found, node = set(), -1
    for token in step["emitted"][: step["kept"]]:
        children = zip(step["drafted"], step["parents"], strict=True)
        node = next(i for i, (drafted, parent) in enumerate(children) if (drafted, parent) == (token, node))
        found.add(node)
    return found


def _step_table(steps: list[dict[str, Any]], trace: dict[str, Any]) -> str:
    rows, pieces, separator = [], trace["pieces"], trace["separator"]
    for number, step in enumerate(steps, 1):
        kept = kept_nodes(step)
        draft = separator.join(
            _token(pieces[str(token)], "accepted", "kept", inline=False)
            if i in kept
            else f'<del class="t t--rejected">{_piece(pieces[str(token)], inline=False)}</del>'
            for i, token in enumerate(step["drafted"])
        )
        kind = "corrected" if len(step["drafted"]) > step["kept"] else "plain"
        own = separator.join(
            _token(pieces[str(token)], kind, LEGEND[kind], inline=False) for token in step["emitted"][step["kept"] :]
        )
        share = f"{step['kept']} of {len(step['drafted'])}" if step["drafted"] else "–"
        rows.append(f"<tr><td>{number}</td><td>{draft or '–'}</td><td>{share}</td><td>{own or '–'}</td></tr>")
    head = (
        "<tr><th>step</th><th>draft, rejected tokens struck through</th><th>kept</th><th>target's own token</th></tr>"
    )
    return _details("Step by step", f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>")


def _depths(steps: list[dict[str, Any]], depth: int) -> str:
    """How many tokens left after which layer."""
    counts = Counter(layers for step in steps for layers in step["layers"])
    rows = "".join(f"<tr><td>{layers} of {depth}</td><td>{n}</td></tr>" for layers, n in sorted(counts.items()))
    head = "<tr><th>layers</th><th>tokens</th></tr>"
    return _details("Tokens by layers used", f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>")


def _canvases(steps: list[dict[str, Any]], trace: dict[str, Any]) -> str:
    """One row for each pass of a parallel decoder."""
    rows: list[str] = []
    before: list[int] = []
    for number, step in enumerate((s for s in steps if s["canvas"]), 1):
        spans = []
        for i, token in enumerate(step["canvas"]):
            if token == trace.get("mask"):
                spans.append(MASK)
                continue
            kind = "changed" if before[i : i + 1] != [token] else "again" if i in step.get("masked", ()) else "same"
            spans.append(_token(trace["pieces"][str(token)], kind, f"position {i + 1}", inline=False))
        rows.append(f"<tr><th>pass {number}</th><td>{' '.join(spans)}</td></tr>")
        before = step["canvas"]
    return _details("Pass by pass", f"<table><tbody>{''.join(rows)}</tbody></table>", "canvas", state=" open")


def _details(title: str, table: str, kind: str = "steps", state: str = "") -> str:
    box = f'<div class="trace__{kind}" tabindex="0">{table}</div>'
    return f"<details{state}><summary>{title}</summary>{box}</details>"
