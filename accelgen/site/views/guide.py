"""The decision guide: for each workload what suits it, in a stated order, and what does not, each with its reason.

The tables hold all there is to know, so the page works as it stands. `docs/assets/guide.js` shows the form and reads
the answers' consequences from the same tables: the first cell of a row carries what the questions ask about.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping, Sequence

from accelgen.exports.markdown import front_matter, join, section, table
from accelgen.measuring.rows import BenchRow, rows_of
from accelgen.site.method_page import GUARANTEES, NEEDS, WORKLOADS, guarantee_badge
from accelgen.site.results import Results
from accelgen.site.views.comparison import engines, training
from accelgen.taxonomy.schema import Call, Fit, Guarantee, Method, Taxonomy, Workload

TITLE = "Which method for my workload?"
LEAD = "What suits your case, what does not, and why; all of it follows from the taxonomy, with the sources it names."
RULE = (
    "Order, here and below: what more engines run comes first; then what has proved code here; then what trains less;"
    " then the alphabet."
)
HOW = (
    "A technique is listed where its entry says that it suits a workload or does not; where it says nothing, so does"
    " this page. A reason without a source follows from how the method works."
)
TRAINING = ("none", "optional", "an addition", "the model")  # what `comparison.training` says, from the least
HERE = "proved code here"  # the answer to "Where should it run?" that asks for this project's own
# Which of the benchmark's rows speak about a workload: it decodes single requests with short contexts.
MEASURED: Mapping[Workload, Callable[[BenchRow], bool]] = {
    Workload.ONE_STREAM: lambda row: not row.translates,
    Workload.SAMPLING: lambda row: row.setting.startswith("temperature"),
    Workload.TRANSLATION: lambda row: row.translates,
}
EXACT = (Guarantee.EXACT_DISTRIBUTION, Guarantee.EXACT_GREEDY)


def page(taxonomy: Taxonomy, results: Results) -> str:
    """The Markdown of docs/explore/guide.md."""
    place = {method.id: i for i, method in enumerate(sorted(taxonomy.methods, key=rank))}
    return join(
        [
            front_matter(title=TITLE, description=LEAD, hide=["toc"]),
            f"# {TITLE}",
            f'<p class="lead">{LEAD}</p>',
            _form(taxonomy),
            f"{RULE} {HOW}",
            *(_workload(workload, taxonomy, results, place) for workload in WORKLOADS),
        ]
    )


def rank(method: Method) -> tuple[int, bool, int, str]:
    """What `RULE` says, as a key to sort by."""
    return -len(engines(method)), not method.is_implemented, TRAINING.index(training(method)), method.name.casefold()


def verdicts(taxonomy: Taxonomy, workload: Workload, *, good: bool) -> list[tuple[Method, Fit]]:
    """The techniques that suit the workload, or those that do not, in the order of `RULE`."""
    found = [(m, f) for m in taxonomy.methods for f in m.fits if f.workload is workload and f.good is good]
    return sorted(found, key=lambda pair: rank(pair[0]))


# ---- tables -------------------------------------------------------------------------------------------------------


def _workload(workload: Workload, taxonomy: Taxonomy, results: Results, place: Mapping[str, int]) -> str:
    title, meaning = WORKLOADS[workload]
    good, bad = (verdicts(taxonomy, workload, good=good) for good in (True, False))
    if not good and not bad:
        return ""
    suited = [
        (_name(m, place), reason(f), _asks(m), training(m), figures(m, workload, results), _runs(m)) for m, f in good
    ]
    others = [(_name(m, place), reason(f)) for m, f in bad]
    head = ("Technique", "Why it suits", "Asks for", "Training", "Figures", "Runs in")
    return section(
        title,
        f"*{meaning[0].upper()}{meaning[1:]}.*",
        _box(workload, table(head, suited), good=True),
        f"**Look elsewhere than {'these' if len(others) > 1 else 'this'}:**" if others else "",
        _box(workload, table(("Technique", "Why not"), others), good=False),
        attributes=f"#{workload}",
    )


def _box(workload: Workload, rows: str, *, good: bool) -> str:
    """The table, marked with what its rows say."""
    kind = f'data-workload="{workload}" data-label="{WORKLOADS[workload][0]}" data-good="{"yes" if good else "no"}"'
    return f'<div class="verdicts" {kind} markdown>\n\n{rows}\n\n</div>' if rows else ""


def _name(method: Method, place: Mapping[str, int]) -> str:
    """The technique and its promise; the attributes of the cell are what the form's questions look at."""
    facts = {
        "id": method.id,
        "rank": str(place[method.id]),
        "promise": GUARANTEES[method.guarantee][0],
        "training": training(method),
        "runs": ",".join([*engines(method), *([HERE] if method.is_implemented else [])]),
    }
    attributes = " ".join(f'data-{key}="{html.escape(value)}"' for key, value in facts.items())
    return f"[{method.name}](../methods/{method.id}.md) {guarantee_badge(method)} {{ {attributes} }}"


def reason(fit: Fit) -> str:
    """The reason with its source, if it has one."""
    return f"{fit.reason} ([source]({fit.url}))" if fit.url else fit.reason


def _asks(method: Method) -> str:
    return ", ".join(NEEDS[need][0] for need in method.needs)


def figures(method: Method, workload: Workload, results: Results) -> str:
    """What was measured here for such a workload, and how much others report."""
    speaks = MEASURED.get(workload)
    alone = method.call is not Call.BATCH  # a batch is measured against its texts one after another
    rows = [row for row in rows_of(BenchRow, results.bench) if row.id == method.id and alone]
    found = [row.speedup for row in rows if speaks and speaks(row)]
    parts = [f"[{span(found)} here](../methods/{method.id}.md#measured-here)"] if found else []
    if method.reported:
        parts.append(f"[{len(method.reported)} reported](../methods/{method.id}.md#reported-by-others)")
    return ", ".join(parts) or "–"


def span(speedups: Sequence[float]) -> str:
    """The least and the greatest of the speedups."""
    low, high = (f"{bound(speedups):.2f}" for bound in (min, max))
    return f"{high}×" if low == high else f"{low}× to {high}×"


def _runs(method: Method) -> str:
    names = engines(method)
    parts = [f"[{', '.join(names)}](../methods/{method.id}.md#in-inference-engines)"] if names else []
    parts += [f"[{HERE}](../methods/{method.id}.md#source)"] if method.is_implemented else []
    return ", ".join(parts) or "–"


# ---- the form -----------------------------------------------------------------------------------------------------


def _form(taxonomy: Taxonomy) -> str:
    """The questions; hidden until the script shows them. An option says which workload it means, or what it keeps."""
    exact = [GUARANTEES[guarantee][0] for guarantee in EXACT]
    names = sorted({name for method in taxonomy.methods for name in engines(method)}, key=str.casefold)
    load, tokens = (Workload.ONE_STREAM, Workload.LARGE_BATCH), (Workload.SAMPLING,)
    text = (Workload.LONG_CONTEXT, Workload.COPY_HEAVY, Workload.TRANSLATION)
    questions = [
        _select("load", "What should improve?", [_option(w, WORKLOADS[w][1]) for w in load]),
        _select(
            "tokens", "Greedy or sampling?", [_option("greedy", "greedy"), *(_option(w, "sampling") for w in tokens)]
        ),
        _select(
            "differ",
            "May the text differ?",
            [
                _option("greedy", "not when greedy", "promise", exact),
                _option("never", "not when sampling either", "promise", exact[:1]),
            ],
        ),
        _select(
            "train",
            "What can you train?",
            [
                _option("nothing", "nothing", "training", TRAINING[:2]),
                _option("addition", "an addition to the model", "training", TRAINING[:3]),
            ],
        ),
        _select(
            "runs",
            "Where should it run?",
            [*(_option(n, n, "runs", [n]) for n in names), _option("here", HERE, "runs", [HERE])],
        ),
        "<fieldset><legend>The text</legend>"
        + "".join(
            f'<label><input type="checkbox" name="text" value="{w}">{": ".join(WORKLOADS[w])}</label>' for w in text
        )
        + "</fieldset>",
    ]
    end = '<p><output class="sift__count"></output><button type="reset">Reset</button></p>'
    return "\n".join(['<form class="sift__form guide" hidden>', *questions, end, "</form>"])


def _select(name: str, question: str, options: Iterable[str]) -> str:
    return f'<label>{question}<select name="{name}"><option value="">open</option>{"".join(options)}</select></label>'


def _option(value: str, words: str, field: str = "", keeps: Sequence[str] = ()) -> str:
    """An answer; with `field` it keeps the techniques one of whose values there is among `keeps`."""
    keep = f' data-field="{field}" data-keep="{html.escape(",".join(keeps))}"' if field else ""
    return f'<option value="{html.escape(value)}"{keep}>{html.escape(words)}</option>'
