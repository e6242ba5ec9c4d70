"""Status in engines: which engine runs which technique, by which switch, with commands ready to copy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from accelgen.exports.markdown import bullets, fence, front_matter, join, section, table
from accelgen.site.results import Results
from accelgen.taxonomy.schema import Method, Production, Taxonomy

LEAD = "Which engine runs which technique today, by which switch, and in which release that was read."


@dataclass(frozen=True)
class Engine:
    """An engine and where its column was read."""

    read: str
    """The release or commit, as `version` of the taxonomy's entries spells it; a few were read in another file."""
    date: str
    url: str
    before: str = ""
    """What its commands take for granted, shown once."""


SETUP = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("TARGET")
drafter = AutoModelForCausalLM.from_pretrained("DRAFTER")
inputs = AutoTokenizer.from_pretrained("TARGET")("PROMPT", return_tensors="pt")"""
ENGINES = {
    "transformers": Engine("5.23.0", "2026-11-13", "https://github.com/huggingface/transformers/tree/v5.23.0", SETUP),
    "vLLM": Engine("0.33.0", "2026-11-01", "https://github.com/vllm-project/vllm/tree/v0.33.0"),
    "SGLang": Engine("0.5.23", "2026-10-30", "https://github.com/sgl-project/sglang/tree/v0.5.23"),
    "TensorRT-LLM": Engine("commit 04c8822c", "2026", "https://github.com/NVIDIA/TensorRT-LLM/commit/04c8822c"),
    "llama.cpp": Engine("commit 00dc8057", "2026", "https://github.com/ggml-org/llama.cpp/commit/00dc8057"),
    "mlx-lm": Engine("0.32.2", "2026-10-16", "https://github.com/ml-explore/mlx-lm/tree/v0.32.2"),
}


def page(taxonomy: Taxonomy, _: Results) -> str:
    """The Markdown of docs/explore/engines.md."""
    listed = [method for method in taxonomy.methods if method.production]
    running = sum(any(map(runs, method.production)) for method in listed)
    matrix = table(("Technique", *ENGINES), [_row(method, taxonomy) for method in listed])
    counts = (
        f"{len(listed)} of {len(taxonomy.methods)} techniques were looked for, and at least one engine runs {running} "
        "of them. A word in the table leads to the switch and, where there is one, to a command to copy. A dash means "
        "that the release has no such option, and a question mark that nobody looked."
    )
    return join(
        [
            front_matter(title="Status in engines", description=LEAD, hide=["toc"]),
            "# Status in engines",
            f'<p class="lead">{LEAD}</p>',
            section(
                "What runs where",
                counts,
                f'<div class="sift engines" data-filters="{",".join(ENGINES)}" markdown>\n\n{matrix}\n\n</div>',
            ),
            section("What engines dropped", bullets(_dropped(taxonomy))),
            section("What was read", table(("Engine", "Read in", "Date"), _versions()), READING),
            *(section(engine, *_commands(engine, taxonomy), attributes=f"#{anchor(engine)}") for engine in ENGINES),
        ]
    )


READING = (
    "The Python packages were read as published; a link to a file leads to the same file at the tag of that release. "
    "TensorRT-LLM and llama.cpp were read in single files of the commits that their links name; what a pull request "
    "says is marked as such. Capitals in a command are yours to fill in; lengths are examples."
)


def runs(production: Production) -> bool:
    """Whether the engine has it in the version that was read."""
    return not production.switch.startswith(("absent", "removed"))


def anchor(engine: str, method: str = "") -> str:
    """The id of what the page says about a method in an engine."""
    return f"{engine.lower().replace('.', '-')}-{method}".rstrip("-")


def _row(method: Method, taxonomy: Taxonomy) -> tuple[str, ...]:
    found = {p.engine: p for p in method.production}
    cells = [_cell(found[engine], taxonomy) if engine in found else "?" for engine in ENGINES]
    return (_link(method), *cells)


def _cell(production: Production, taxonomy: Taxonomy) -> str:
    """A word, and a link to where the page says more."""
    word = "yes" if runs(production) else "removed" if production.switch.startswith("removed") else "–"
    if production.switch == "absent":
        return word
    kind = " .engines__removed" if word == "removed" else ""
    return f"[{word}]({_place(production, taxonomy)}){{ title={_title(production)}{kind} }}"


def _place(production: Production, taxonomy: Taxonomy) -> str:
    """Where the page says it; techniques of which the same is said share a place."""
    first = next(method for method in taxonomy.methods if production in method.production)
    return f"#{anchor(production.engine, first.id)}"


def _title(production: Production) -> str:
    """The switch as a tooltip: no mark-up, no quotation marks that would end it."""
    plain = production.switch.replace("`", "").replace('"', "").replace("'", "")
    return f'"{" ".join(plain.split())}"'


def _link(method: Method) -> str:
    return f"[{method.name}](../methods/{method.id}.md)"


def _versions() -> list[tuple[str, ...]]:
    return [(f"[{name}](#{anchor(name)})", f"[{e.read}]({e.url})", e.date) for name, e in ENGINES.items()]


def _dropped(taxonomy: Taxonomy) -> Iterator[str]:
    for method in taxonomy.methods:
        gone = [p for p in method.production if p.switch.startswith("removed")]
        if gone:
            where = "; ".join(f"[{p.engine}]({_place(p, taxonomy)}) {p.switch}" for p in gone)
            yield f"{_link(method)}: {where}."


def _commands(engine: str, taxonomy: Taxonomy) -> Iterator[str]:
    """Every technique of an engine: its switch, where that was read, and the command; then what is not there."""
    groups: dict[Production, list[Method]] = {}
    for method in taxonomy.methods:
        for production in method.production:
            if production.engine == engine:
                groups.setdefault(production, []).append(method)
    before = ENGINES[engine].before
    yield f"Every command goes on from here:\n\n{fence(before, 'python')}" if before else ""
    for production, methods in groups.items():
        if not production.switch.startswith("absent"):
            yield _entry(production, methods)
    yield _absent(engine, groups)


def _entry(production: Production, methods: list[Method]) -> str:
    title = ", ".join(map(_link, methods))
    usual = production.version == ENGINES[production.engine].read
    source = f"[source]({production.url})" if usual else f"[{production.version}]({production.url})"
    lines = [
        f"### {title} {{ #{anchor(production.engine, methods[0].id)} }}",
        f"{production.switch[0].upper()}{production.switch[1:]} ({source}).",
    ]
    if production.command:
        lines.append(fence(production.command, language(production.command)))
    return "\n\n".join(lines)


def _absent(engine: str, groups: dict[Production, list[Method]]) -> str:
    """What was looked for and is not there: with the reason where one was noted, the others in one sentence."""
    reasons: list[str] = []
    plain: list[str] = []
    for production, methods in groups.items():
        if production.switch == "absent":
            plain += map(_link, methods)
        elif production.switch.startswith("absent"):
            first, *others = methods
            named = f"{_link(first)}{{ #{anchor(engine, first.id)} }}"
            why = production.switch.removeprefix("absent").strip(" ,;()")
            reasons.append(f"{', '.join([named, *map(_link, others)])}: {why} ([source]({production.url})).")
    if plain:
        reasons.append(f"{', '.join(plain)}.")
    return f"Looked for and not there:\n\n{bullets(reasons)}" if reasons else ""


def language(command: str) -> str:
    """What a command is written in, for its colours."""
    first = command.split("\n", 1)[0]
    return "python" if first.startswith(("from ", "import ")) or "(" in first else "bash"
