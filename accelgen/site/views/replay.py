"""Side by side: two methods go on from the same prompt, and the passes of the target are counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelgen.exports.markdown import escape, front_matter, join, note
from accelgen.site import trace_html
from accelgen.site.results import Results
from accelgen.site.views.drawing import address
from accelgen.taxonomy.calls import BASELINE
from accelgen.taxonomy.schema import Taxonomy

HERE = "explore/replay.md"
LEAD = "Two methods, one prompt, one seed: watch who needs how many passes of the target for the same number of tokens."
READ = """\
One pass of the target is one tick of the clock, for both sides alike; a guess shows up half a tick before it is
verified. Draft passes are counted beside it: they cost less than a pass of the target, and they are not free. An early
exit saves layers, not passes. So this is no race in seconds; those are [measured](../measured.md) on a named machine.
Every run is recorded from the code that the tests prove."""
PLAIN = "Plain decoding"
Trace = dict[str, Any]


def page(taxonomy: Taxonomy, results: Results) -> str:
    """The Markdown of docs/explore/replay.md; without a script it shows two of the runs."""
    head = [front_matter(title="Side by side", description=LEAD, hide=["toc"]), "# Side by side"]
    traces = comparable(results.traces)
    if len(traces) < 2:
        return join([*head, note("Not recorded yet", "`accelgen trace` records the runs that stand here.", "planned")])
    names = {id: PLAIN if id == BASELINE else taxonomy.method(id).name for id in traces}
    shown = opening(traces)
    before = "".join(_still(names[id], traces[id]) for id in shown)
    legend = trace_html.legend([run for trace in traces.values() for run in trace["runs"]], traces[BASELINE])
    player = trace_html.player(f'<div class="replay__pair">{before}</div>', data(taxonomy, results, traces, shown))
    pages = ", ".join(f"[{names[id]}](../methods/{id}.md#a-real-run)" for id in traces if id != BASELINE)
    return join(
        [
            *head,
            f'<p class="lead">{LEAD}</p>',
            f'<figure class="trace replay" data-search-exclude>{legend}{player}</figure>',
            READ,
            f"Recorded on the same prompt: {pages}.",
        ]
    )


def comparable(traces: Mapping[str, Trace]) -> dict[str, Trace]:
    """Plain decoding first, and the methods that continue the same prompts with the same settings of the same model."""
    if BASELINE not in traces:
        return {}
    return {id: traces[id] for id in (BASELINE, *traces) if _task(traces[id]) == _task(traces[BASELINE])}


def opening(traces: Mapping[str, Trace]) -> list[str]:
    """Plain decoding, and the first method that drafts."""
    drafts = [id for id, trace in traces.items() if any(step["drafted"] for step in trace["runs"][0]["steps"])]
    return [BASELINE, next(iter(drafts), list(traces)[-1])]


def data(taxonomy: Taxonomy, results: Results, traces: Mapping[str, Trace], shown: list[str]) -> dict[str, Any]:
    """What the player needs: every run, and what all have in common only once."""
    parts = [trace_html.data(run, trace) for trace in traces.values() for run in trace["runs"]]
    pieces = {token: text for part in parts for token, text in part["pieces"].items()}
    methods = {}
    for id, trace in traces.items():
        family = "" if id == BASELINE else taxonomy.category(taxonomy.method(id).category).name
        methods[id] = {
            "name": PLAIN if id == BASELINE else taxonomy.method(id).name,
            "family": family or "Baseline",
            "href": _link(id, results),
            "steps": [trace_html.compact(run["steps"]) for run in trace["runs"]],
        }
    common = {key: parts[0][key] for key in (*trace_html.FACTS, "prompt") if key in parts[0]}
    titles = [run["title"] for run in traces[BASELINE]["runs"]]
    return {**common, "pieces": pieces, "runs": titles, "shown": shown, "methods": methods}


def _task(trace: Trace) -> Any:
    """What must be equal for two runs to be compared: the model's facts, the prompts and the settings."""
    facts = [trace.get(key) for key in trace_html.FACTS]
    return facts, [(run["title"], run["prompt"], run["settings"]) for run in trace["runs"]]


def _link(id: str, results: Results) -> str:
    """The address of the method's run, from this page; plain decoding has no page of its own."""
    return "" if id == BASELINE else address(f"methods/{id}.md", HERE, directories=results.directories) + "#a-real-run"


def _still(name: str, trace: Trace) -> str:
    run = trace["runs"][0]
    words = f"<p>{escape(run['title'])}: {escape(trace_html.summary(run))}</p>"
    return f'<div><p class="player__name">{escape(name)}</p>{words}{trace_html.still(run, trace)}</div>'
