"""The taxonomy for other programs and for papers: JSON Schema, JSON, BibTeX, CSL-JSON and linked data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import NamedTuple

from accelgen.exports.bibtex import method_bibtex, page_bibtex, to_bibtex
from accelgen.exports.csl import to_csl
from accelgen.exports.linked import iri, page_jsonld, to_jsonld, urn
from accelgen.exports.papers import AUTHORS, PROJECT, YEAR
from accelgen.exports.scholar import scholar_tags
from accelgen.taxonomy.schema import Taxonomy

__all__ = [
    "AUTHORS",
    "EXPORTS",
    "PROJECT",
    "YEAR",
    "Export",
    "iri",
    "json_schema",
    "method_bibtex",
    "page_bibtex",
    "page_jsonld",
    "scholar_tags",
    "to_bibtex",
    "to_csl",
    "to_json",
    "to_jsonld",
    "urn",
]


def json_schema() -> str:
    """The JSON Schema of `taxonomy.yaml`, for editors and validators; kept in `taxonomy.schema.json`."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Taxonomy.model_json_schema()
    schema |= {"title": "Taxonomy of accelerated generation"}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def to_json(taxonomy: Taxonomy) -> str:
    """The whole taxonomy as JSON; `Taxonomy.model_validate_json` reads it back."""
    return taxonomy.model_dump_json(indent=2) + "\n"


class Export(NamedTuple):
    """A file that holds the whole taxonomy, or all of its papers."""

    file: str
    meaning: str
    make: Callable[[Taxonomy, str], str]  # from the taxonomy and the site's address, which may be empty


EXPORTS: Mapping[str, Export] = {  # the format's name on the command line -> the file
    "json": Export("taxonomy.json", "all of it, for programs", lambda taxonomy, _: to_json(taxonomy)),
    "schema": Export(
        "taxonomy.schema.json", "JSON Schema: every field, its type and meaning", lambda *_: json_schema()
    ),
    "jsonld": Export(
        "taxonomy.jsonld",
        "linked data: the concepts in SKOS, the papers in the terms of schema.org",
        to_jsonld,
    ),
    "bibtex": Export(
        "references.bib",
        "every paper, and the survey, as BibTeX; the key is the method's id",
        lambda taxonomy, _: to_bibtex(taxonomy),
    ),
    "csl": Export(
        "references.csl.json",
        "the same as CSL-JSON, for Zotero, pandoc and other processors of citation styles",
        lambda taxonomy, _: to_csl(taxonomy),
    ),
}
