"""Linked data: the taxonomy in SKOS, its papers and pages in the terms of schema.org, as JSON-LD.

A concept's address must outlive the place where the site happens to be. Its name of last resort is a URN that anyone
can compute from its id; where the site has an address (`site_url` of mkdocs.yml), the concept has one too.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

from accelgen.exports.papers import AUTHORS, TITLE, names
from accelgen.taxonomy.schema import Category, Method, Paper, Subcategory, Taxonomy

ROOT = "https://arxiv.org/abs/2405.13019#"  # what the names of the URNs begin with
FILE = "downloads/taxonomy.jsonld"  # below the site's address; describes every concept
SCHEME = "taxonomy"  # the whole, as no method and no category is called
LICENCE = "https://spdx.org/licenses/MIT"

_SCHEMA = "https://schema.org/"
_SKOS = "http://www.w3.org/2004/02/skos/core#"
_ORDERED = {"@id": f"{_SCHEMA}author", "@container": "@list"}
_ENGLISH = {name: {"@id": f"{_SKOS}{name}", "@language": "en"} for name in ("prefLabel", "definition", "scopeNote")}
_RELATIONS = ("inScheme", "hasTopConcept", "topConceptOf", "broader", "narrower", "related")
CONTEXT: dict[str, Any] = {  # spelled out, so that no reader has to fetch it
    "@vocab": _SCHEMA,
    "skos": _SKOS,
    "owl": "http://www.w3.org/2002/07/owl#",
    **_ENGLISH,
    **{name: {"@id": f"{_SKOS}{name}", "@type": "@id"} for name in _RELATIONS},
    "notation": f"{_SKOS}notation",
    "wasDerivedFrom": {"@id": "http://www.w3.org/ns/prov#wasDerivedFrom", "@type": "@id"},
    "author": _ORDERED,
}
Node = dict[str, Any]


def urn(name: str) -> str:
    """The concept's name that needs no site: a UUID of version 5, from the survey's address and the concept's id.

    A branch is named with its category: `speculative-decoding/independent-drafter`.

    >>> urn("calm")
    'urn:uuid:b7f60f5a-a5a4-5067-ad84-b3f12339ce19'
    """
    return uuid.uuid5(uuid.NAMESPACE_URL, f"{ROOT}{name}").urn


def iri(name: str, site: str = "") -> str:
    """The concept's address if the site has one, otherwise its URN."""
    return f"{site}{FILE}#{name}" if site else urn(name)


def to_jsonld(taxonomy: Taxonomy, site: str = "") -> str:
    """The taxonomy as a SKOS concept scheme, and its papers; `site` is the site's address, if it has one."""
    nodes = [_scheme(taxonomy, site)]
    for category in taxonomy.categories:
        nodes.append(_category(category, site))
        nodes += [_branch(branch, category, taxonomy, site) for branch in category.subcategories]
    nodes += [_method(method, taxonomy, site) for method in taxonomy.methods]
    papers = [taxonomy.survey, *(method.paper for method in taxonomy.methods)]
    nodes += {paper_iri(paper): article(paper) for paper in papers}.values()
    return json.dumps({"@context": CONTEXT, "@graph": nodes}, indent=1, ensure_ascii=False) + "\n"


def page_jsonld(method: Method, description: str, taxonomy: Taxonomy, site: str = "") -> str:
    """What the method's page is about, for search engines: one line, fit for an HTML script."""
    scheme = {"@id": iri(SCHEME, site), "@type": "DefinedTermSet", "name": TITLE, "version": taxonomy.version}
    term = {"@id": iri(method.id, site), "@type": "DefinedTerm", "name": method.name, "termCode": method.id}
    page: Node = {
        "@context": {"@vocab": _SCHEMA, "author": _ORDERED},
        "@type": "WebPage",
        "name": method.name,
        "description": description,
        "version": taxonomy.version,
        "mainEntity": term | {"inDefinedTermSet": scheme},
        "citation": article(method.paper),
    }
    if method.is_implemented:
        code = {"@type": "SoftwareSourceCode", "name": method.module, "programmingLanguage": "Python"}
        page["hasPart"] = code | {"license": LICENCE}
    if site:
        page["url"] = f"{site}methods/{method.id}/"
    return json.dumps(page, ensure_ascii=False).replace("<", r"\u003c")


def paper_iri(paper: Paper) -> str:
    """The paper's most lasting address."""
    if paper.doi:
        return f"https://doi.org/{paper.doi}"
    return f"https://arxiv.org/abs/{paper.arxiv}" if paper.arxiv else paper.url


def article(paper: Paper) -> Node:
    """The paper in the terms of schema.org."""
    same = [f"https://arxiv.org/abs/{paper.arxiv}"] if paper.doi and paper.arxiv else []
    same += [paper.url] if paper.url not in (paper_iri(paper), *same) else []
    node: Node = {
        "@id": paper_iri(paper),
        "@type": "ScholarlyArticle",
        "name": paper.title,
        "author": [_person(*name) for name in names(paper)],
        "datePublished": str(paper.year),
        "isPartOf": {"@type": "CreativeWork", "name": paper.venue},
    }
    return node | ({"sameAs": [{"@id": address} for address in same]} if same else {})


def _person(family: str, given: str) -> Node:
    if not given:
        return {"@type": "Organization", "name": family}
    return {"@type": "Person", "name": f"{given} {family}", "familyName": family, "givenName": given}


def _scheme(taxonomy: Taxonomy, site: str) -> Node:
    return _named(SCHEME, site) | {
        "@type": ["skos:ConceptScheme", "DefinedTermSet"],
        "prefLabel": TITLE,
        "scopeNote": "Definitions are Markdown; formulas stand between dollar signs, in LaTeX.",
        "owl:versionInfo": taxonomy.version,
        "creator": {"@type": "Organization", "name": AUTHORS},
        "license": {"@id": LICENCE},
        "citation": {"@id": paper_iri(taxonomy.survey)},
        "hasTopConcept": [iri(category.id, site) for category in taxonomy.categories],
    }


def _category(category: Category, site: str) -> Node:
    return _concept(category.id, category.name, category.summary, site, f"categories/{category.id}/") | {
        "topConceptOf": iri(SCHEME, site),
        "narrower": [iri(f"{category.id}/{branch.id}", site) for branch in category.subcategories],
    }


def _branch(branch: Subcategory, category: Category, taxonomy: Taxonomy, site: str) -> Node:
    name, page = f"{category.id}/{branch.id}", f"categories/{category.id}/#{branch.id}"
    below = [iri(method.id, site) for method in taxonomy.methods_of(category.id, branch.id)]
    node = _concept(name, branch.name, branch.summary, site, page) | {"broader": iri(category.id, site)}
    return node | ({"narrower": below} if below else {})


def _method(method: Method, taxonomy: Taxonomy, site: str) -> Node:
    """What it builds on is its kin, and in the terms of provenance its origin; `broader` is only its branch."""
    kin = [*method.builds_on, *(other.id for other in taxonomy.methods if method.id in other.builds_on)]
    page = f"methods/{method.id}/"
    node = _concept(method.id, method.name, method.principle or method.guarantee_reason, site, page)
    node["broader"] = iri(f"{method.category}/{method.subcategory}", site)
    node["subjectOf"] = {"@id": paper_iri(method.paper)}
    relations = {"related": kin, "wasDerivedFrom": method.builds_on}
    return node | {key: [iri(id, site) for id in ids] for key, ids in relations.items() if ids}


def _concept(name: str, label: str, definition: str, site: str, page: str) -> Node:
    node = _named(name, site) | {
        "@type": ["skos:Concept", "DefinedTerm"],
        "prefLabel": label,
        "notation": name,
        "definition": " ".join(definition.split()),
        "inScheme": iri(SCHEME, site),
    }
    return node | ({"url": {"@id": f"{site}{page}"}} if site else {})


def _named(name: str, site: str) -> Node:
    """The identity of a node; with a site, the URN stays as its second name."""
    return {"@id": iri(name, site)} | ({"owl:sameAs": {"@id": urn(name)}} if site else {})
