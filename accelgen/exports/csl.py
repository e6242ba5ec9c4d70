"""CSL-JSON, which Zotero, pandoc and every processor of citation styles read."""

from __future__ import annotations

import json
from typing import Any

from accelgen.exports.papers import Kind, Name, kind, names, references, venue
from accelgen.taxonomy.schema import OTHERS, Paper, Taxonomy

_TYPES = {
    Kind.PREPRINT: "article",
    Kind.JOURNAL: "article-journal",
    Kind.PROCEEDINGS: "paper-conference",
    Kind.CODE: "software",
    Kind.WEB: "post-weblog",
}


def to_csl(taxonomy: Taxonomy) -> str:
    """Every paper, and the survey, as CSL-JSON; the id is the method's."""
    items = [_item(key, paper) for key, paper in references(taxonomy).items()]
    return json.dumps(items, indent=2, ensure_ascii=False) + "\n"


def _item(key: str, paper: Paper) -> dict[str, Any]:
    item: dict[str, Any] = {
        "id": key,
        "type": _TYPES[kind(paper)],
        "title": paper.title,
        "author": [_name(name) for name in names(paper)],
        "issued": {"date-parts": [[paper.year]]},
    }
    if kind(paper) is Kind.PREPRINT:
        item["publisher"] = "arXiv"
    else:
        item["container-title"] = venue(paper)
    if paper.arxiv:
        item |= {"number": f"arXiv:{paper.arxiv}"} if kind(paper) is Kind.PREPRINT else {"archive": "arXiv"}
        item["archive_location"] = paper.arxiv
    if paper.doi:
        item["DOI"] = paper.doi
    if OTHERS in paper.authors:  # the format has no word for them
        item["note"] = "The list of authors is not complete."
    return item | {"URL": paper.url}


def _name(name: Name) -> dict[str, str]:
    return {"family": name.family, "given": name.given} if name.given else {"literal": name.family}
