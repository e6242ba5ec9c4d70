"""The meta tags that Google Scholar, Zotero and other reference managers read from a page."""

from __future__ import annotations

from accelgen.exports.papers import Kind, kind, names
from accelgen.taxonomy.schema import Paper

_PLACES = {Kind.JOURNAL: "citation_journal_title", Kind.PROCEEDINGS: "citation_conference_title"}


def scholar_tags(paper: Paper) -> list[list[str]]:
    """Name and content of each tag; the address of the abstract says that the paper itself is elsewhere."""
    place = _PLACES.get(kind(paper))
    tags = [
        ("citation_title", paper.title),
        *(("citation_author", name.inverted) for name in names(paper)),
        ("citation_publication_date", str(paper.year)),
        (place or "", paper.venue),
        ("citation_arxiv_id", paper.arxiv or ""),
        ("citation_doi", paper.doi or ""),
        ("citation_abstract_html_url", paper.url),
    ]
    return [[name, content] for name, content in tags if name and content]
