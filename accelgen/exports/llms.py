"""llms.txt: the site's contents for language models, in the form that llmstxt.org proposes.

A title, a summary, then lists of links, each with the page's own description; what stands under `Optional` may be left
out where room is short.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from accelgen.exports import EXPORTS
from accelgen.exports.markdown import join, read_front_matter, section
from accelgen.taxonomy.schema import Taxonomy

NAME = "Accelerated Generation"
SUMMARY = (
    "> Techniques that make language models generate faster, as one taxonomy in three families, with minimal, proved"
    " PyTorch implementations."
)
OPTIONAL = "API"


def llms(taxonomy: Taxonomy, navigation: Sequence[Any], texts: Mapping[str, str], site: str = "") -> str:
    """The text of llms.txt. `texts` holds the pages of the navigation; one that it lacks is left out.

    Addresses are relative to the site's root unless `site`, the site's address, is given.
    """
    sections: dict[str, list[str]] = {}
    for title, paths in _sections(navigation):
        sections[title] = [_link(path, texts[path], site) for path in paths if path in texts]
    optional = sections.pop(OPTIONAL, [])
    data = [f"- [{export.file}]({site}downloads/{export.file}): {export.meaning}" for export in EXPORTS.values()]
    return join(
        [
            f"# {NAME}",
            SUMMARY,
            _notes(taxonomy),
            *(section(name, "\n".join(links)) for name, links in sections.items()),
            section("Data", "\n".join(data)),
            section("Optional", "\n".join(optional)),
        ]
    )


def _notes(taxonomy: Taxonomy) -> str:
    done = sum(method.is_implemented for method in taxonomy.methods)
    return (
        f"Version {taxonomy.version}: {len(taxonomy.methods)} techniques, {done} of them implemented. The page of a"
        " technique says what it promises about the output, what it needs, and where each figure was read; figures that"
        " papers report and figures measured here stand apart. The site accompanies the survey"
        f" [{taxonomy.survey.title}]({taxonomy.survey.url})."
    )


def _sections(navigation: Sequence[Any]) -> Iterator[tuple[str, list[str]]]:
    """Title and pages of each section: the top of the navigation, and each family below the techniques."""
    for item in navigation:
        ((title, below),) = item.items()
        if below == "index.md":  # the home page says what this file says
            continue
        families = [entry for entry in below if title == "Techniques" and isinstance(entry, dict)]
        yield title, list(_paths([entry for entry in below if entry not in families] if families else below))
        for family in families:
            ((name, pages),) = family.items()
            yield name, list(_paths(pages))


def _paths(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    else:
        for below in entry.values() if isinstance(entry, dict) else entry:
            yield from _paths(below)


def _link(path: str, text: str, site: str) -> str:
    head = read_front_matter(text)
    address = path.removesuffix("index.md") if path.endswith("index.md") else f"{path.removesuffix('.md')}/"
    return f"- [{head['title']}]({site}{address}): {' '.join(head['description'].split())}"
