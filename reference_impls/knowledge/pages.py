"""From data to the site: a pure function that gives the text of every generated file below docs/."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from reference_impls.knowledge import trace_html
from reference_impls.knowledge.exports import json_schema, page_bibtex, to_bibtex, to_json
from reference_impls.knowledge.markdown import badge, bullets, fence, front_matter, join, note, section, table
from reference_impls.knowledge.method_page import (
    GUARANTEES,
    NEEDS,
    figures_table,
    guarantee_badge,
    method_page,
    paper_links,
    published,
    status_badge,
)
from reference_impls.knowledge.results import Results
from reference_impls.knowledge.suites import SUITES, suites_of
from reference_impls.knowledge.taxonomy import Category, Method, Taxonomy

FOLDERS = ("methods", "categories", "downloads", "generated")  # below docs/; nothing in them is written by hand


def pages(taxonomy: Taxonomy, results: Results) -> dict[str, str]:
    """Path below docs/ -> text, for pages, for the fragments that hand-written pages include, and for downloads."""
    found = {"methods/index.md": _index(taxonomy)}
    found |= {f"categories/{c.id}/index.md": _category(c, taxonomy) for c in taxonomy.categories}
    found |= {f"methods/{m.id}.md": method_page(m, taxonomy, results) for m in taxonomy.methods}
    found |= {f"generated/{name}.md": text for name, text in _fragments(taxonomy, results).items()}
    return found | {f"downloads/{name}": text for name, text in _downloads(taxonomy, results).items()}


def navigation(taxonomy: Taxonomy) -> list[Any]:
    """The site's navigation, in the form of mkdocs.yml."""
    families = [{c.name: [f"categories/{c.id}/index.md", *_branches(c, taxonomy)]} for c in taxonomy.categories]
    return [
        {"Home": "index.md"},
        {"Techniques": ["methods/index.md", *families]},
        {"Use": "use.md"},
        {
            "Evidence": [
                {"How correctness is proved": "proofs.md"},
                {"The zoo": "zoo.md"},
                {"Measured": "measured.md"},
                {"Log of findings": "log.md"},
            ]
        },
        {"API": ["api/index.md", "api/core.md", "api/testing.md", "api/knowledge.md"]},
        {"Taxonomy": ["taxonomy.md", {"By property": "tags.md"}]},
    ]


def _branches(category: Category, taxonomy: Taxonomy) -> list[Any]:
    return [
        {branch.name: [f"methods/{m.id}.md" for m in _methods(taxonomy, category.id, branch.id)]}
        for branch in category.subcategories
        if _methods(taxonomy, category.id, branch.id)
    ]


def _methods(taxonomy: Taxonomy, category: str, branch: str | None = None) -> list[Method]:
    return [m for m in taxonomy.methods if m.category == category and branch in (None, m.subcategory)]


# ---- index and families -------------------------------------------------------------------------------------------


def method_table(methods: Iterable[Method], folder: str) -> str:
    """The methods as a table; `folder` leads from the page to docs/methods/."""
    rows = [
        (
            f"[{m.name}]({folder}{m.id}.md)",
            f"{_authors(m)}, {published(m.paper)}",
            guarantee_badge(m),
            ", ".join(NEEDS[need][0] for need in m.needs),
            status_badge(m),
        )
        for m in methods
    ]
    return table(("Method", "Paper", "Guarantee", "Needs", "Status"), rows)


def _authors(method: Method) -> str:
    surnames = [name.split()[-1] for name in method.paper.authors]
    return (
        surnames[0] if len(surnames) == 1 else " and ".join(surnames) if len(surnames) == 2 else f"{surnames[0]} et al."
    )


def _index(taxonomy: Taxonomy) -> str:
    done = sum(m.is_implemented for m in taxonomy.methods)
    lead = (
        f"{len(taxonomy.methods)} techniques in {len(taxonomy.categories)} families; {done} have a reference"
        " implementation whose claims are proved by tests. The others are described and wait for theirs."
    )
    families = [
        section(
            c.name, f"[What this family is](../categories/{c.id}/index.md)", method_table(_methods(taxonomy, c.id), "")
        )
        for c in taxonomy.categories
    ]
    return join([front_matter(title="All techniques", description=lead), "# All techniques", lead, *families])


def _category(category: Category, taxonomy: Taxonomy) -> str:
    lists = {
        "Principles": category.principles,
        "Advantages": category.advantages,
        "Limitations": category.limitations,
        "Recent advancements": category.advancements,
        "Open problems": category.open_problems,
    }
    branches = [
        f"### {branch.name}\n\n{branch.summary}\n\n"
        + method_table(_methods(taxonomy, category.id, branch.id), "../../methods/")
        for branch in category.subcategories
    ]
    bibtex = to_bibtex(taxonomy, [category.id])
    return join(
        [
            front_matter(title=category.name, description=" ".join(category.summary.split())),
            f"# {category.name}",
            f'<div class="lead" markdown>\n\n{category.summary}\n\n</div>',
            *(section(title, bullets(items)) for title, items in list(lists.items())[:3]),
            section("The methods", *branches),
            *(section(title, bullets(items)) for title, items in list(lists.items())[3:]),
            section(
                "Cite",
                f"All {bibtex.count('@')} papers of this family as "
                f"[BibTeX](../../downloads/{category.id}.bib){{ download }}.",
            ),
        ]
    )


# ---- fragments of hand-written pages --------------------------------------------------------------------------------


def _fragments(taxonomy: Taxonomy, results: Results) -> dict[str, str]:
    return {
        "families": _families(taxonomy),
        "glance": _glance(taxonomy, results),
        "progress": _progress(taxonomy),
        "suites": _suites(taxonomy),
        "zoo": _zoo(results.zoo),
        "corpus": _corpus(results.zoo),
        "measured": _measured(taxonomy, results.bench),
        "vocabulary": _vocabulary(),
        "cite": _cite(taxonomy),
        "downloads": _download_list(taxonomy),
        **{f"api-{package}": _api(modules) for package, modules in results.modules.items()},
    }


def _families(taxonomy: Taxonomy) -> str:
    cards = []
    for category in taxonomy.categories:
        methods = _methods(taxonomy, category.id)
        done = [f"[{m.name}](methods/{m.id}.md)" for m in methods if m.is_implemented]
        proved = f"Proved: {', '.join(done)}." if done else ""
        cards.append(
            f'<div class="card card--{category.id}" markdown>\n\n'
            f"**[{category.name}](categories/{category.id}/index.md)**\n\n{category.summary}\n\n"
            f'<p class="card__count" markdown>{len(methods)} methods. {proved}</p>\n\n</div>'
        )
    return '<div class="cards" markdown>\n\n' + "\n\n".join(cards) + "\n\n</div>\n"


def _glance(taxonomy: Taxonomy, results: Results) -> str:
    """One recorded run for the home page: the first method that has drafts to show."""
    for method in taxonomy.methods:
        run = next(iter(results.traces.get(method.id, {}).get("runs", [])), None)
        if run and any(step["drafted"] for step in run["steps"]):
            (_, html), *_ = trace_html.render(results.traces[method.id])
            link = f"A real run of [{method.name}](methods/{method.id}.md#a-real-run) on a small trained model:"
            return f'<div class="glance" markdown>\n\n{link}\n\n{html}\n\n</div>\n'
    return "\n"


def _progress(taxonomy: Taxonomy) -> str:
    done = sum(m.is_implemented for m in taxonomy.methods)
    return f"{len(taxonomy.methods)} techniques, {done} of them implemented and proved so far.\n"


def _suites(taxonomy: Taxonomy) -> str:
    blocks = []
    for suite in SUITES:
        methods = [m for m in taxonomy.methods if m.is_implemented and suite in suites_of(m)]
        links = ", ".join(f"[{m.name}](methods/{m.id}.md)" for m in methods if suite.id not in m.implementation.skip)
        blocks.append(f"### {suite.title} {{ #{suite.id} }}\n\n{suite.claim}")
        blocks.append(f"Proved for: {links}." if links else "No implemented method owes this proof yet.")
    return join(blocks)


def _zoo(manifest: dict[str, Any] | None) -> str:
    if not manifest:
        body = "The models are trained by `accelgen zoo train`; there are no weights in this checkout."
        return note("Not trained yet", body, "planned") + "\n"
    rows = [
        (f"`{name}`", f"{entry['parameters']:,}", _size(entry["bytes"]), f"`{entry['sha256'][:12]}…`")
        for name, entry in manifest.items()
        if "parameters" in entry
    ]
    blocks = [table(("Model", "Parameters", "File", "sha256"), rows)]
    for name, entry in manifest.items():
        facts = {key: value for key, value in entry.items() if key not in ("parameters", "bytes", "sha256", "corpus")}
        blocks += [f"### {name}", _nested(facts)] if facts else []
    return join(blocks)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"


def _corpus(manifest: dict[str, Any] | None) -> str:
    corpora: dict[str, Any] = {}
    for name, entry in (manifest or {}).items():
        if corpus := entry.get("corpus"):
            corpora.setdefault(_nested(corpus), []).append(f"`{name}`")
    return join(f"Of {', '.join(names)}:\n\n{text}" for text, names in corpora.items()) if corpora else "\n"


def _nested(value: Any) -> str:
    """Plain data as Markdown: rows with the same keys as a table, single facts as a list, the rest under its name."""
    if isinstance(value, dict) and (keys := _common_keys(list(value.values()))):
        rows = [[_words(name), *map(_plain, row.values())] for name, row in value.items()]
        return table(["", *map(_words, keys)], rows)
    if isinstance(value, list) and (keys := _common_keys(value)):
        return table(list(map(_words, keys)), [list(map(_plain, row.values())) for row in value])
    if not isinstance(value, dict):
        return _plain(value)
    single = {key: item for key, item in value.items() if not _is_deep(item)}
    facts = bullets(f"{_words(key)}: {_plain(item)}" for key, item in single.items())
    deep = [f"*{_words(key)}*\n\n{_nested(item)}" for key, item in value.items() if key not in single]
    return "\n\n".join(filter(None, [facts, *deep]))


def _is_deep(value: Any) -> bool:
    """Whether a value needs more than a line."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return any(isinstance(item, dict | list) for item in inner) or (isinstance(value, dict) and len(value) > 8)


def _common_keys(rows: list[Any]) -> list[str]:
    """The keys that all rows have, if all are flat mappings with the same keys."""
    flat = all(isinstance(row, dict) and not any(isinstance(v, dict) for v in row.values()) for row in rows)
    return list(rows[0]) if len(rows) > 1 and flat and len({tuple(row) for row in rows}) == 1 else []


def _words(key: Any) -> str:
    return str(key).replace("_", " ")


def _plain(value: Any) -> str:
    if isinstance(value, bool | None):
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}" if value >= 10_000 else str(value)
    if isinstance(value, dict):
        return ", ".join(f"{_words(key)} {_plain(item)}" for key, item in value.items())
    return ", ".join(map(_plain, value)) if isinstance(value, list) else str(value)


def _measured(taxonomy: Taxonomy, bench: dict[str, Any] | None) -> str:
    if not bench:
        body = "`accelgen bench` measures every implemented method; its results are not in this checkout."
        return note("Not measured yet", body, "planned") + "\n"
    names = {m.id: f"[{m.name}](methods/{m.id}.md)" for m in taxonomy.methods}
    rows = bench["rows"]
    language = [row for row in rows if "exact_match" not in row]
    translation = [row for row in rows if "exact_match" in row]
    setup = {key: value for key, value in bench.items() if key != "rows"}
    return join(
        [
            "Speedup: plain decoding's time divided by the method's, median and quartiles over pairs of runs.",
            section("Continuing a text", figures_table(language, names)),
            section("Translating a sentence", figures_table(translation, names)),
            section("Setup", _nested(setup)),
        ]
    )


def _vocabulary() -> str:
    guarantees = [(badge(label, kind.value), meaning) for kind, (label, meaning) in GUARANTEES.items()]
    needs = [(label, meaning) for label, meaning in NEEDS.values()]
    return join(
        [
            section(
                "Guarantees",
                table(("Guarantee", "Compared with autoregressive decoding of the same target"), guarantees),
            ),
            section("Needs", table(("Need", "Meaning"), needs)),
        ]
    )


def _cite(taxonomy: Taxonomy) -> str:
    survey = to_bibtex(taxonomy).partition("\n\n")[0]
    return join(
        [
            "The taxonomy:",
            fence(page_bibtex(None, taxonomy), "bibtex"),
            f"The survey it accompanies ({paper_links(taxonomy.survey)}):",
            fence(survey, "bibtex"),
        ]
    )


def _download_list(taxonomy: Taxonomy) -> str:
    files = {
        "taxonomy.yaml": "the source, as people edit it",
        "taxonomy.json": "the same for programs",
        "taxonomy.schema.json": "JSON Schema: every field, its type and meaning",
        "references.bib": "every paper, and the survey, as BibTeX; the key is the method's id",
    }
    files |= {f"{c.id}.bib": f"the papers of the family *{c.name}*" for c in taxonomy.categories}
    rows = [(f"[{name}](downloads/{name}){{ download }}", meaning) for name, meaning in files.items()]
    return table(("File", "What it is"), rows) + "\n"


def _api(modules: Iterable[str]) -> str:
    return join(f"::: {module}" for module in modules)


# ---- downloads ----------------------------------------------------------------------------------------------------


def _downloads(taxonomy: Taxonomy, results: Results) -> dict[str, str]:
    found = {
        "taxonomy.yaml": results.taxonomy_file,
        "taxonomy.json": to_json(taxonomy),
        "taxonomy.schema.json": json_schema(),
        "references.bib": to_bibtex(taxonomy),
    }
    found |= {f"{c.id}.bib": to_bibtex(taxonomy, [c.id]) for c in taxonomy.categories}
    found |= {f"{name}.py": text for name, text in results.bundles.items() if text}
    return found | {
        f"traces/{name}.json": json.dumps(data, ensure_ascii=False) for name, data in results.traces.items()
    }
