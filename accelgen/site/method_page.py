"""The page of one method. Every section with nothing to say is left out, so a planned method has a short page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from accelgen.exports import method_bibtex, page_bibtex, page_jsonld, scholar_tags
from accelgen.exports.markdown import (
    badge,
    bullets,
    columns,
    fence,
    front_matter,
    indent,
    join,
    note,
    section,
    table,
)
from accelgen.measuring.rows import BENCH, BenchRow, rows_of
from accelgen.site import charts, method_code, predictions, quality_beside_speed, trace_html
from accelgen.site.concepts import concept_links
from accelgen.site.docstring import Docstring, parse
from accelgen.site.proof_links import guarantee_address
from accelgen.site.results import Results
from accelgen.site.source_links import SourceLinks
from accelgen.taxonomy.schema import Call, FigureStatus, Guarantee, Method, Need, Paper, Taxonomy, Workload

GUARANTEES = {
    Guarantee.EXACT_DISTRIBUTION: (
        "Exact distribution",
        "the text has exactly the law of the target, also when sampling",
    ),
    Guarantee.EXACT_GREEDY: ("Exact greedy", "at temperature 0 the text is the target's own, token for token"),
    Guarantee.LOSSY: ("Lossy", "the text may differ from the target's; the page says how much and why"),
    Guarantee.NOT_APPLICABLE: ("Not applicable", "there is no autoregressive target to compare with"),
}
NEEDS = {
    Need.DRAFTER: ("a drafter", "a separate, smaller model"),
    Need.TRAINED_HEADS: ("trained heads", "extra modules trained on the target"),
    Need.TARGET_TRAINING: ("target training", "the target itself is trained or fine-tuned for it"),
    Need.EXITS: ("exits", "a target that can be read out after several layers"),
    Need.DATASTORE: ("a datastore", "text to retrieve from"),
    Need.TREE_ATTENTION: ("tree attention", "attention with a mask of one's own"),
    Need.CALIBRATION: ("calibration", "held-out prompts to set a threshold"),
    Need.DISTILLED_DATA: ("distilled data", "outputs of a teacher to train on"),
    Need.LENGTH_PREDICTION: ("length prediction", "the length of the output is guessed first"),
    Need.SEQUENCE_TO_SEQUENCE: ("sequence-to-sequence model", "an encoder and a decoder"),
    Need.TARGET_ONLY: ("the target only", "nothing beside the model that generates"),
}
WORKLOADS: Mapping[Workload, tuple[str, str]] = {
    Workload.ONE_STREAM: ("One stream", "latency of one request, or a few"),
    Workload.LARGE_BATCH: ("Large batch", "throughput of many requests at once"),
    Workload.SAMPLING: ("Sampling", "temperatures well above 0"),
    Workload.LONG_CONTEXT: ("Long context", "reading the cache costs more than reading the weights"),
    Workload.COPY_HEAVY: ("Copying", "the output repeats the prompt or known documents"),
    Workload.TRANSLATION: ("Translation", "a source sentence determines most of the output"),
}
FIGURE_STATUS = {
    FigureStatus.SEEN: "read at the source",
    FigureStatus.SECONDARY: "second-hand",
    FigureStatus.THIRD_PARTY: "measured by others",
}


def method_page(method: Method, taxonomy: Taxonomy, results: Results) -> str:
    """The Markdown of docs/methods/<id>.md."""
    source = results.sources.get(method.id, "")
    text = parse(source) if source else Docstring("", {})
    lines = SourceLinks.of(source, method_code.CODE) if source else None
    said = {title: lines.link(part) if lines else part for title, part in text.sections.items()}
    trace = results.traces.get(method.id)
    return join(
        [
            _head(method, text, taxonomy, results),
            f"# {method.name}",
            f'<p class="lead">{text.summary}</p>' if text.summary else _planned(method, taxonomy),
            _facts(method, taxonomy, results),
            section("Idea", said.get("Idea", "")),
            section("Algorithm", said.get("Algorithm", "")),
            section("Guarantee", said.get("Guarantee", method.guarantee_reason), _proofs(method, results)),
            section("Why it works", method.principle or ""),
            section("When to use it, and when not", _when(method)),
            method_code.additions(method, taxonomy, results, _character) if source else "",
            section("Source", method_code.source(method, results) if source else "", attributes="data-search-exclude"),
            section("Run it", _example(method, text.sections.get("Example", ""))),
            section("A real run", _trace(trace)),
            section(
                "Measured here",
                measured(method.id, results.bench),
                predictions.losses(method.id, results.bench, results.costs),
                _in_batches(method, results),
            ),
            section(
                "Quality beside speed",
                quality_beside_speed.figures(method.id, results.contrasts),
                quality_beside_speed.relaxed(method.id, results.relaxations),
            ),
            section("Reported by others", _reported(method)),
            section("In inference engines", _production(method)),
            section("Differences from the paper", said.get("Differences from the paper", "")),
            section("Lineage", _lineage(method, taxonomy)),
            section("Notes", bullets(method.notes)),
            section("Cite", _cite(method, taxonomy, results.site)),
            section("Sources", bullets(f"<{url}>" for url in method.sources)),
        ]
    )


def _head(method: Method, text: Docstring, taxonomy: Taxonomy, results: Results) -> str:
    names = [GUARANTEES[method.guarantee][0], *(NEEDS[need][0] for need in method.needs)]
    return front_matter(
        title=method.name,
        description=_description(method, text),
        tags=[name.removeprefix("a ").removeprefix("the ").capitalize() for name in names],
        status="proved" if method.is_implemented else None,
        hide=["tags"],
        citation=scholar_tags(method.paper),
        linked=page_jsonld(method, _description(method, text), taxonomy, results.site),
    )


def _description(method: Method, text: Docstring) -> str:
    return text.summary or f"{method.paper.title} ({method.paper.year})"


def _planned(method: Method, taxonomy: Taxonomy) -> str:
    branch = next(s for s in taxonomy.category(method.category).subcategories if s.id == method.subcategory)
    body = (
        f"{method.name} has its place in the taxonomy, under *{branch.name}*, and no reference implementation so far. "
        "What this page says comes from the sources that it names."
    )
    return note("Not implemented yet", body, "planned")


# ---- facts ------------------------------------------------------------------------------------------------------


def published(paper: Paper) -> str:
    """Venue and year, the year once."""
    return paper.venue if str(paper.year) in paper.venue else f"{paper.venue}, {paper.year}"


def paper_links(paper: Paper) -> str:
    """Links to arXiv and DOI, or to the paper's own address."""
    links = [f"[arXiv:{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv})"] if paper.arxiv else []
    links += [f"[doi:{paper.doi}](https://doi.org/{paper.doi})"] if paper.doi else []
    if not any(paper.url.rstrip("/") in link for link in links):
        links.append(f"[{paper.url.split('/')[2].removeprefix('www.')}]({paper.url})")
    return " · ".join(links)


def guarantee_badge(method: Method, *, link: str = "") -> str:
    """The badge of the method's guarantee, linked to what it means."""
    label = badge(GUARANTEES[method.guarantee][0], method.guarantee.value)
    return f"[{label}]({link})" if link else label


def status_badge(method: Method) -> str:
    """Implemented and proved, or planned."""
    return badge("Proved" if method.is_implemented else "Planned", method.implementation.status.value)


def _facts(method: Method, taxonomy: Taxonomy, results: Results) -> str:
    paper, category = method.paper, taxonomy.category(method.category)
    branch = next(s.name for s in category.subcategories if s.id == method.subcategory)
    facts = {
        "Paper": f"*{paper.title}*",
        "Authors": paper.byline,
        "Published": published(paper),
        "Links": paper_links(paper),
        "Family": f"[{category.name}](../categories/{category.id}/index.md) › {branch}",
        "Guarantee": _guarantee(method, results),
        "Needs": ", ".join(NEEDS[need][0] for need in method.needs),
        "Trained": method.trained,
        "Background": concept_links([method], results.written, "../concepts/"),
        "Official code": _code(method),
        "Status": status_badge(method),
        "Module": f"`{method.module}`" if method.is_implemented else "",
        "In the survey": "yes" if method.in_survey else "no, added since",
    }
    rows = "\n\n".join(f"{name}\n:   {indent(value, 4).lstrip()}" for name, value in facts.items() if value)
    return f'<div class="facts" markdown>\n\n{rows}\n\n</div>'


def _guarantee(method: Method, results: Results) -> str:
    """The badge, which opens the test that proves it, and a way to what the word means."""
    meaning = "../taxonomy.md#guarantees"
    if not method.is_implemented:
        return guarantee_badge(method, link=meaning)
    own = f"#{method_code.TESTS}" if results.tests.get(method.id) in results.proofs else "#guarantee"
    proof = guarantee_address(method, results.proofs, method_code.PROOFS, own)
    return f"{guarantee_badge(method, link=proof)} [what it means]({meaning})"


def _code(method: Method) -> str:
    if not method.code:
        return "none known"
    items = []
    for code in method.code:
        name = code.url.removeprefix("https://").removeprefix("github.com/").rstrip("/")
        licence = "no licence stated" if code.licence == "none stated" else code.licence
        items.append(f"[{name}]({code.url}) ({licence}{'; ' + code.note if code.note else ''})")
    return "; ".join(items)


# ---- what is claimed ----------------------------------------------------------------------------------------------


def _proofs(method: Method, results: Results) -> str:
    return method_code.proofs(method, results) if method.is_implemented else ""


def _character(method: Method, results: Results) -> dict[str, str]:
    """What tells an implemented method from its parent, title -> cell of a table."""
    return {
        "In a sentence": parse(results.sources[method.id]).summary,
        "Guarantee": guarantee_badge(method),
        "Needs": ", ".join(NEEDS[need][0] for need in method.needs),
        "Trained": method.trained,
    }


def _when(method: Method) -> str:
    lists = {
        "Use it when": method.when_to_use,
        "Look elsewhere when": method.when_not,
        "Advantages": method.advantages,
        "Limitations": method.limitations,
    }
    rows = [
        (
            WORKLOADS[fit.workload][0],
            "suits" if fit.good else "does not",
            fit.reason + (f" [Source]({fit.url})" if fit.url else ""),
        )
        for fit in method.fits
    ]
    by_workload = table(("Workload", "Verdict", "Why"), rows)
    lead = "By workload; the [guide](../explore/guide.md) compares all methods."
    return "\n\n".join(filter(None, [columns(lists), by_workload and f"{lead}\n\n{by_workload}"]))


# ---- code and runs ------------------------------------------------------------------------------------------------


def _example(method: Method, example: str) -> str:
    if not example:
        return ""
    command = f"accelgen run {method.id}\naccelgen verify {method.id}"
    return "\n\n".join(
        [
            "This session is a doctest: the test suite runs it and compares the output.",
            fence(example, "pycon"),
            "On the command line, with the text in colours, and the proofs:",
            fence(command, "bash"),
        ]
    )


def _trace(trace: dict[str, Any] | None) -> str:
    if not trace:
        return ""
    runs = trace_html.render(trace)
    lead = (
        "Recorded from the code above on the [zoo's models](../zoo.md) with a fixed prompt and seed; a test records it"
        f" again and compares. [The data as JSON](../downloads/traces/{trace['id']}.json)."
    )
    return "\n\n".join(filter(None, [lead, charts.exits(trace), *(f"### {title}\n\n{html}" for title, html in runs)]))


# ---- figures ------------------------------------------------------------------------------------------------------


def measured(id: str, bench: dict[str, Any] | None) -> str:
    """The method's rows of the benchmark."""
    rows = [row for row in rows_of(BenchRow, bench) if row.id == id]
    return f"{figures_table(rows)}\n\nSetup, machine and command: [Measured](../measured.md)." if rows else ""


def _in_batches(method: Method, results: Results) -> str:
    """Where more is measured of a method that decodes several texts together."""
    if method.call is not Call.BATCH or not method.is_implemented or not (results.draft_lengths or results.chunks):
        return ""
    return (
        "A few texts together, against the same texts one after another. Against plain decoding of a batch, by its"
        " size, and in time: [many texts at once](../explore/batches.md)."
    )


def figures_table(rows: Sequence[BenchRow], names: Mapping[str, str] | None = None) -> str:
    """Benchmark rows as a table, led by the methods' `names` if given; columns without a value are left out."""
    columns = [(column.head, [column.show(row) for row in rows]) for column in BENCH]
    if names is not None:
        columns.insert(0, ("Method", [names.get(row.id, row.id) for row in rows]))
    filled = [(title, [_whole(cell) for cell in cells]) for title, cells in columns if any(cells)]
    return table([title for title, _ in filled], zip(*(cells for _, cells in filled), strict=True))


def _whole(cell: str) -> str:
    """Text of a cell whose quartiles are never broken over two lines."""
    return re.sub(r"\([\d.]+–[\d.]+\)", r'<span class="nowrap">\g<0></span>', cell) or "–"


def _reported(method: Method) -> str:
    rows = [(r.figure, r.setup, f"[{r.place}]({r.url})", FIGURE_STATUS[r.status]) for r in method.reported]
    figures = table(("Figure", "Setup", "Where", "How it reached us"), rows)
    return f"None of these figures is ours.\n\n{figures}" if figures else ""


def _production(method: Method) -> str:
    rows = [
        (f"[{p.engine}]({p.url})", f"`{p.switch}`" if " " not in p.switch else p.switch, p.version)
        for p in method.production
    ]
    found = table(("Engine", "How to turn it on", "Read in version"), rows)
    ready = any(p.command for p in method.production)
    return f"{found}\n\nCommands ready to copy: [engines](../explore/engines.md)." if ready else found


# ---- the rest -----------------------------------------------------------------------------------------------------


def _lineage(method: Method, taxonomy: Taxonomy) -> str:
    parents = [taxonomy.method(parent) for parent in method.builds_on]
    children = [m for m in taxonomy.methods if method.id in m.builds_on]
    lines = [
        f"{title}: " + ", ".join(f"[{m.name}]({m.id}.md) ({m.paper.year})" for m in related) + "."
        for title, related in (("Builds on", parents), ("Extended by", children))
        if related
    ]
    later = f"What later work made of it:\n\n{bullets(method.advancements)}" if method.advancements else ""
    return "\n\n".join(filter(None, ["\n\n".join(lines), later]))


def _cite(method: Method, taxonomy: Taxonomy, site: str) -> str:
    page = page_bibtex(method, taxonomy, f"{site}methods/{method.id}/" if site else None)
    return "\n\n".join(
        [
            f'=== "The paper"\n\n{indent(fence(method_bibtex(method), "bibtex"), 4)}',
            f'=== "This page"\n\n{indent(fence(page, "bibtex"), 4)}',
        ]
    )
