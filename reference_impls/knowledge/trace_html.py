"""A recorded run as HTML: what was drafted, kept, corrected, how deep, in which pass. Needs no script.

Every state is told twice, by colour and by a mark (underline, strike-through, height of the fill), and in words in
the step table. The data are what `traces.record` stores; the trace player of a later version can read the same file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from reference_impls.knowledge.markdown import escape

LEGEND = {
    "accepted": "drafted and accepted",
    "corrected": "the target's own token in place of a rejected guess",
    "plain": "the target's own token",
}
NEWLINE = '<span class="t__nl">↵</span>'
MASK = '<span class="t t--masked">▢</span>'


def render(trace: dict[str, Any]) -> list[tuple[str, str]]:
    """(title, HTML) of each run in a trace; each HTML is one line, so that it can stand anywhere in Markdown."""
    return [(run["title"], _run(run, trace)) for run in trace["runs"]]


def _run(run: dict[str, Any], trace: dict[str, Any]) -> str:
    steps, pieces = run["steps"], trace["pieces"]
    depth = trace.get("depth")
    if any(step["canvas"] for step in steps):
        body = [
            _legend(["masked"] * _is_masked(steps, trace) + ["changed"]),
            _text(run, trace, shown=[]),
            _canvases(steps, trace),
        ]
    elif depth and any(step["layers"] for step in steps):
        body = [_legend(["depth"]), _text(run, trace, steps, depth), _depths(steps, depth)]
    else:
        body = [
            _legend(kind for kind in LEGEND if kind in run["kinds"]),
            _text(run, trace, steps),
            _step_table(steps, pieces),
        ]
    caption = f"<figcaption>{escape(summary(run))}</figcaption>"
    return f'<figure class="trace" data-search-exclude>{caption}{"".join(body)}</figure>'


def summary(run: dict[str, Any]) -> str:
    """The run in one or two sentences."""
    figures = run["figures"]
    text = f"{figures['tokens']} tokens in {_count(figures['passes'], 'pass', 'passes')} of the model"
    text += f", {figures['tokens_per_pass']:.2f} per pass."
    if figures.get("acceptance") is not None:
        text += f" {figures['acceptance']:.0%} of the drafted tokens were kept."
    if figures.get("mean_layers") is not None:
        text += f" {figures['mean_layers']:.1f} layers per token on average."
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


def _legend(kinds: Iterable[str]) -> str:
    samples = {kind: (f'<span class="t t--{kind}">token</span>', text) for kind, text in LEGEND.items()}
    samples["masked"] = (MASK, "still masked, decided by a later pass")
    samples["changed"] = ('<span class="t t--changed">token</span>', "new or changed in this pass")
    samples["depth"] = (
        "".join(_token(word, "depth", "", share=share) for word, share in (("few", 0.1), ("half", 0.5), ("all", 1.0))),
        "layers used: the more, the stronger the tint and the thicker the bar",
    )
    items = "".join(f"<li>{samples[kind][0]} {samples[kind][1]}</li>" for kind in kinds)
    return f'<ul class="trace__legend">{items}</ul>'


def _text(run: dict[str, Any], trace: dict[str, Any], shown: list[dict[str, Any]], depth: int | None = None) -> str:
    """The prompt, and token by token what the steps `shown` emitted."""
    pieces, spans, kinds = trace["pieces"], [], iter(run["kinds"])
    prompt = trace["separator"].join(pieces[str(token)] for token in run["prompt"])
    for number, step in enumerate(shown, 1):
        layers = step["layers"] if depth else []
        for i, token in enumerate(step["emitted"]):
            kind, piece = next(kinds), pieces[str(token)]
            if layers and depth:
                spans.append(_token(piece, "depth", f"{layers[i]} of {depth} layers", share=layers[i] / depth))
            else:
                spans.append(_token(piece, kind, f"step {number}: {LEGEND[kind]}"))
    head = f'<span class="t__prompt" title="prompt">{_piece(prompt)}</span>'
    return f'<div class="trace__text" tabindex="0">{head}{"".join(spans)}</div>'


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


def _step_table(steps: list[dict[str, Any]], pieces: dict[str, str]) -> str:
    rows = []
    for number, step in enumerate(steps, 1):
        kept = kept_nodes(step)
        draft = "".join(
            _token(pieces[str(token)], "accepted", "kept", inline=False)
            if i in kept
            else f'<del class="t t--rejected">{_piece(pieces[str(token)], inline=False)}</del>'
            for i, token in enumerate(step["drafted"])
        )
        kind = "corrected" if len(step["drafted"]) > step["kept"] else "plain"
        own = "".join(
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
    most = max(counts.values())
    rows = "".join(
        f"<tr><td>{layers} of {depth}</td><td>{n}</td>"
        f'<td class="trace__bar"><span style="--share:{n / most:.0%}"></span></td></tr>'
        for layers, n in sorted(counts.items())
    )
    head = "<tr><th>layers</th><th>tokens</th><th></th></tr>"
    return _details("Tokens by layers used", f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>")


def _is_masked(steps: list[dict[str, Any]], trace: dict[str, Any]) -> bool:
    """Whether a pass left something to a later one."""
    return any(trace.get("mask") in step["canvas"] for step in steps)


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
            kind = "same" if i < len(before) and before[i] == token else "changed"
            spans.append(_token(trace["pieces"][str(token)], kind, f"position {i + 1}", inline=False))
        rows.append(f"<tr><th>pass {number}</th><td>{' '.join(spans)}</td></tr>")
        before = step["canvas"]
    return f'<div class="trace__canvas" tabindex="0"><table><tbody>{"".join(rows)}</tbody></table></div>'


def _details(title: str, table: str) -> str:
    return f'<details><summary>{title}</summary><div class="trace__steps" tabindex="0">{table}</div></details>'
