"""Status in engines: for each technique the exact switch of each engine, and commands ready to copy."""

from __future__ import annotations

from reference_impls.knowledge.markdown import fence, front_matter, join, section, table
from reference_impls.knowledge.results import Results
from reference_impls.knowledge.taxonomy import Method, Production, Taxonomy

LEAD = "Which engine runs which technique today, by which switch, and in which release that was read."
ENGINES = ("transformers", "vLLM", "SGLang", "TensorRT-LLM", "llama.cpp", "mlx-lm")


def page(taxonomy: Taxonomy, _: Results) -> str:
    """The Markdown of docs/explore/engines.md."""
    shown = [method for method in taxonomy.methods if any(_runs(p) for p in method.production)]
    gone = [m for m in taxonomy.methods if m not in shown and any("removed" in p.switch for p in m.production)]
    head = ("Technique", *ENGINES)
    return join(
        [
            front_matter(title="Status in engines", description=LEAD, hide=["toc"]),
            "# Status in engines",
            f'<p class="lead">{LEAD}</p>',
            "A dash means that the release named below has no such option; an empty place means that nobody looked.",
            section("What runs where", table(head, [_row(method) for method in shown])),
            section("What engines dropped", table(head, [_row(method) for method in gone])),
            *(section(engine, *_commands(engine, taxonomy)) for engine in ENGINES),
        ]
    )


def _runs(production: Production) -> bool:
    return not production.switch.startswith(("absent", "removed"))


def _row(method: Method) -> tuple[str, ...]:
    found = {p.engine: p for p in method.production}
    return (f"[{method.name}](../methods/{method.id}.md)", *(_cell(found.get(engine)) for engine in ENGINES))


def _cell(production: Production | None) -> str:
    if production is None:
        return ""
    if production.switch.startswith("absent"):
        return "–"
    words = "yes" if _runs(production) else "removed"
    return f"[{words}]({production.url})" if not production.command else f"[{words}](#{_anchor(production)})"


def _anchor(production: Production) -> str:
    return production.engine.lower().replace(".", "").replace(" ", "-")


def _commands(engine: str, taxonomy: Taxonomy) -> list[str]:
    """Every technique of this engine: its switch, where that was read, and the command."""
    blocks = []
    for method in taxonomy.methods:
        for production in method.production:
            if production.engine == engine and not production.switch.startswith("absent"):
                switch = f"`{production.switch}`" if " " not in production.switch else production.switch
                read = f"read in [{production.version}]({production.url})"
                blocks.append(f"**[{method.name}](../methods/{method.id}.md)**: {switch}; {read}.")
                if production.command:
                    blocks.append(fence(production.command, "bash" if _is_shell(production.command) else "python"))
    return blocks


def _is_shell(command: str) -> bool:
    return command.split(maxsplit=1)[0] not in {"from", "import"} and "(" not in command.split("\n", 1)[0]
