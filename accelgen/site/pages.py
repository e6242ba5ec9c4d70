"""From data to the site: a pure function that gives the text of every generated file below docs/."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from accelgen.exports import EXPORTS, to_bibtex
from accelgen.exports.llms import llms
from accelgen.exports.markdown import bullets, columns, front_matter, join, section, table
from accelgen.exports.papers import names
from accelgen.site.concepts import CONCEPTS, concept_links
from accelgen.site.fragments import fragments
from accelgen.site.method_page import (
    NEEDS,
    guarantee_badge,
    method_page,
    published,
    status_badge,
)
from accelgen.site.results import Results
from accelgen.site.views import VIEWS
from accelgen.taxonomy.schema import Category, Method, Subcategory, Taxonomy

FOLDERS = ("methods", "categories", "explore", "downloads", "generated")  # below docs/, all generated


def pages(taxonomy: Taxonomy, results: Results) -> dict[str, str]:
    """Path below docs/ -> text, for pages, for the fragments that hand-written pages include, and for downloads."""
    found = {"methods/index.md": _index(taxonomy)}
    found |= {f"categories/{c.id}/index.md": _category(c, taxonomy, results) for c in taxonomy.categories}
    found |= {f"methods/{m.id}.md": method_page(m, taxonomy, results) for m in taxonomy.methods}
    found |= {f"explore/{name}.md": view(taxonomy, results) for name, (_, view) in VIEWS.items()}
    found |= {f"generated/{name}.md": text for name, text in fragments(taxonomy, results).items()}
    found["llms.txt"] = llms(taxonomy, navigation(taxonomy), {**results.written, **found}, results.site)
    return found | {f"downloads/{name}": text for name, text in _downloads(taxonomy, results).items()}


def navigation(taxonomy: Taxonomy) -> list[Any]:
    """The site's navigation, in the form of mkdocs.yml."""
    families = [{c.name: [f"categories/{c.id}/index.md", *_branches(c, taxonomy)]} for c in taxonomy.categories]
    return [
        {"Home": "index.md"},
        {"Techniques": ["methods/index.md", *families]},
        {"Concepts": [f"concepts/{name}.md" for name in CONCEPTS]},
        {"Compare": [{title: f"explore/{name}.md"} for name, (title, _) in VIEWS.items()]},
        {"Use": "use.md"},
        {
            "Evidence": [
                {"How correctness is proved": "proofs.md"},
                {"The zoo": "zoo.md"},
                {"Measured": "measured.md"},
                {"Log of findings": "log.md"},
            ]
        },
        {"API": ["api/index.md", "api/core.md", "api/testing.md", "api/taxonomy.md"]},
        {"Taxonomy": ["taxonomy.md", {"By property": "tags.md"}]},
    ]


def _branches(category: Category, taxonomy: Taxonomy) -> list[Any]:
    return [
        {branch.name: [f"methods/{m.id}.md" for m in taxonomy.methods_of(category.id, branch.id)]}
        for branch in category.subcategories
        if taxonomy.methods_of(category.id, branch.id)
    ]


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
    families = [name.family for name in names(method.paper)]
    count = len(method.paper.authors)
    return f"{families[0]} et al." if count > 2 or len(families) < count else " and ".join(families)


def _index(taxonomy: Taxonomy) -> str:
    done = sum(m.is_implemented for m in taxonomy.methods)
    lead = (
        f"{len(taxonomy.methods)} techniques in {len(taxonomy.categories)} families; {done} have a reference"
        " implementation whose claims are proved by tests. The others are described and wait for theirs."
    )
    families = [
        section(
            c.name, f"[What this family is](../categories/{c.id}/index.md)", method_table(taxonomy.methods_of(c.id), "")
        )
        for c in taxonomy.categories
    ]
    return join([front_matter(title="All techniques", description=lead), "# All techniques", lead, *families])


def _branch(branch: Subcategory, methods: Sequence[Method]) -> str:
    lists = {
        "Advantages": branch.advantages,
        "Limitations": branch.limitations,
        "Recent advancements": branch.advancements,
        "Open problems": branch.open_problems,
    }
    head = f"### {branch.name} {{ #{branch.id} }}"
    methods_below = method_table(methods, "../../methods/")
    return join([head, branch.summary, branch.principle or "", methods_below, columns(lists)])


def _category(category: Category, taxonomy: Taxonomy, results: Results) -> str:
    lists = {
        "Principles": category.principles,
        "Advantages": category.advantages,
        "Limitations": category.limitations,
        "Recent advancements": category.advancements,
        "Open problems": category.open_problems,
    }
    branches = [_branch(branch, taxonomy.methods_of(category.id, branch.id)) for branch in category.subcategories]
    bibtex = to_bibtex(taxonomy, [category.id])
    concepts = concept_links(taxonomy.methods_of(category.id), results.written, "../../concepts/")
    return join(
        [
            front_matter(title=category.name, description=" ".join(category.summary.split())),
            f"# {category.name}",
            f'<div class="lead" markdown>\n\n{category.summary}\n\n</div>',
            f"To understand it: {concepts}." if concepts else "",
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


# ---- downloads ----------------------------------------------------------------------------------------------------


def _downloads(taxonomy: Taxonomy, results: Results) -> dict[str, str]:
    found = {"taxonomy.yaml": results.taxonomy_file}
    found |= {export.file: export.make(taxonomy, results.site) for export in EXPORTS.values()}
    found |= {f"{c.id}.bib": to_bibtex(taxonomy, [c.id]) for c in taxonomy.categories}
    found |= {f"{name}.py": text for name, text in results.bundles.items() if text}
    measured = results.measurements.items()
    found |= {f"{name}.json": json.dumps(data, indent=1, ensure_ascii=False) for name, data in measured}
    return found | {
        f"traces/{name}.json": json.dumps(data, ensure_ascii=False) for name, data in results.traces.items()
    }
