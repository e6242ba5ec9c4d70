"""What programs read of a page and of llms.txt, checked alike on made-up pages and on the built site."""

from __future__ import annotations

import re
import warnings
from html.parser import HTMLParser
from typing import Any

from rdflib import RDF, Graph, Literal, Namespace, URIRef

from accelgen import exports
from accelgen.site.results import site_address
from accelgen.taxonomy.schema import Method, Paper

SCHEMA = Namespace("https://schema.org/")
LINK = re.compile(r"- \[([^]]+)\]\(([^)\s]+)\): \S.*")


def parsed(text: str) -> Graph:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # rdflib's parser uses a class that rdflib deprecates
        return Graph().parse(data=text, format="json-ld")


def known_names(paper: Paper) -> list[str]:
    return [author for author in paper.authors if author != "others"]


class Head(HTMLParser):
    """The meta tags and the JSON-LD of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.metas: list[tuple[str, str]] = []
        self.scripts: list[str] = []
        self._inside = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        found = dict(attrs)
        if tag == "meta" and found.get("name", "").startswith("citation_"):
            self.metas.append((found["name"], found["content"]))
        self._inside = tag == "script" and found.get("type") == "application/ld+json"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts.append(data)
            self._inside = False


def check_page(html: str, method: Method) -> None:
    """A built page names the paper to reference managers and to search engines; also used on the whole site."""
    head = Head(html)
    paper = method.paper
    tags = [content for name, content in head.metas if name == "citation_title"]
    assert tags == [paper.title], method.id
    authors = [content for name, content in head.metas if name == "citation_author"]
    assert [" ".join(reversed(author.split(", "))) for author in authors] == known_names(paper), method.id
    found = dict(head.metas)
    assert found["citation_publication_date"] == str(paper.year)
    assert (found.get("citation_arxiv_id"), found.get("citation_doi")) == (paper.arxiv, paper.doi)
    assert found["citation_abstract_html_url"] == paper.url
    (script,) = head.scripts
    graph = parsed(script)
    (article,) = graph.subjects(RDF.type, SCHEMA.ScholarlyArticle)
    names = [str(graph.value(author, SCHEMA.name)) for author in graph.items(graph.value(article, SCHEMA.author))]
    assert names == known_names(paper), method.id
    assert (URIRef(exports.iri(method.id, site_address())), SCHEMA.termCode, Literal(method.id)) in graph


def check_llms(text: str) -> list[str]:
    """The form that llmstxt.org proposes: a title, a summary, text without headings, sections of links. The links."""
    title, summary, *rest = text.split("\n\n")
    assert re.fullmatch(r"# \S.*", title)
    assert re.fullmatch(r"> \S.*", summary)
    before, *sections = "\n\n".join(rest).split("\n## ")
    assert "#" not in before
    links = []
    for section in sections:
        name, lines = section.split("\n\n", 1)
        assert name
        found = [LINK.fullmatch(line) for line in lines.strip().splitlines()]
        assert found
        assert all(found), name
        links += [match[2] for match in found if match]
    return links
