"""What programs read: CSL-JSON, linked data, the tags of a page, llms.txt, and the history of the taxonomy."""

from __future__ import annotations

import doctest
import json
import re
from pathlib import Path

import pytest
from published import SCHEMA, check_llms, known_names, parsed
from rdflib import OWL, RDF, SKOS, Graph, Literal, Namespace, URIRef

from accelgen import exports
from accelgen.exports.papers import Name, split
from accelgen.project.places import ROOT
from accelgen.site.pages import pages
from accelgen.site.results import Results, site_address
from accelgen.taxonomy.loading import TaxonomyError, load_taxonomy
from accelgen.taxonomy.schema import Taxonomy

SITE = "https://example.org/accelerated/"
PROV = Namespace("http://www.w3.org/ns/prov#")


@pytest.fixture(scope="module")
def taxonomy() -> Taxonomy:
    return load_taxonomy()


@pytest.fixture(scope="module")
def graph(taxonomy: Taxonomy) -> Graph:
    return parsed(exports.to_jsonld(taxonomy))


# ---- names and CSL-JSON -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("author", "name"),
    [
        ("Yaniv Leviathan", Name("Leviathan", "Yaniv")),
        ("Vinh Q. Tran", Name("Tran", "Vinh Q.")),
        ("Luciano Del Corro", Name("Del Corro", "Luciano")),
        ("Laurens van der Maaten", Name("van der Maaten", "Laurens")),
        ("Di He", Name("He", "Di")),
        ("DeepSeek-AI", Name("DeepSeek-AI")),
        ("Qwen Team", Name("Qwen Team")),
        ("Research and Development, Ltd", Name("Research and Development, Ltd")),
    ],
)
def test_names_are_split_where_the_family_begins(author: str, name: Name) -> None:
    assert split(author) == name


def test_csl_has_what_its_schema_asks_for(taxonomy: Taxonomy) -> None:
    """`id` and `type` are required, other fields are of the list, a name is split or literal, a date has parts."""
    items = json.loads(exports.to_csl(taxonomy))
    papers = [taxonomy.survey, *(method.paper for method in taxonomy.methods)]
    assert [item["id"] for item in items] == ["accelerated-generation-survey", *(m.id for m in taxonomy.methods)]
    fields = {"id", "type", "title", "author", "issued", "publisher", "container-title", "number", "archive",
              "archive_location", "DOI", "note", "URL"}  # fmt: skip
    for item, paper in zip(items, papers, strict=True):
        assert item.keys() <= fields
        assert item["type"] in {"article", "article-journal", "paper-conference", "post-weblog", "software"}
        assert all(name.keys() in ({"family", "given"}, {"literal"}) for name in item["author"])
        assert [" ".join([*name.values()][::-1]) for name in item["author"]] == known_names(paper)
        assert ("note" in item) == ("others" in paper.authors)
        assert item["issued"] == {"date-parts": [[paper.year]]}
        assert (item["title"], item["URL"], item.get("DOI")) == (paper.title, paper.url, paper.doi)
        assert item.get("container-title", "arXiv") in (paper.venue.removesuffix(f" {paper.year}"), "arXiv")


def test_csl_types_follow_the_venue(taxonomy: Taxonomy) -> None:
    types = {item["id"]: item["type"] for item in json.loads(exports.to_csl(taxonomy))}
    assert types["speculative-sampling-chen"] == "article"  # a preprint
    assert types["calm"] == "paper-conference"
    assert types["bita"] == "article-journal"
    assert types["prompt-lookup-decoding"] == "software"


# ---- linked data --------------------------------------------------------------------------------------------------


def concepts(taxonomy: Taxonomy) -> dict[str, str]:
    """Name of every concept -> its label."""
    found = {category.id: category.name for category in taxonomy.categories}
    found |= {f"{c.id}/{branch.id}": branch.name for c in taxonomy.categories for branch in c.subcategories}
    return found | {method.id: method.name for method in taxonomy.methods}


def test_every_concept_has_label_definition_scheme_and_place(taxonomy: Taxonomy, graph: Graph) -> None:
    scheme = URIRef(exports.urn("taxonomy"))
    expected = concepts(taxonomy)
    assert set(graph.subjects(RDF.type, SKOS.Concept)) == {URIRef(exports.urn(name)) for name in expected}
    assert graph.value(scheme, OWL.versionInfo) == Literal(taxonomy.version)
    for name, label in expected.items():
        concept = URIRef(exports.urn(name))
        assert list(graph.objects(concept, SKOS.prefLabel)) == [Literal(label, lang="en")]
        assert len(str(graph.value(concept, SKOS.definition))) > 20
        assert graph.value(concept, SKOS.notation) == Literal(name)
        assert list(graph.objects(concept, SKOS.inScheme)) == [scheme]
        tops = [c for c in graph.objects(concept, SKOS.broader * "*") if (c, SKOS.topConceptOf, scheme) in graph]
        assert len(tops) == 1
        assert (scheme, SKOS.hasTopConcept, tops[0]) in graph


def test_relations_are_those_of_the_taxonomy(taxonomy: Taxonomy, graph: Graph) -> None:
    assert {(b, a) for a, b in graph.subject_objects(SKOS.broader)} == set(graph.subject_objects(SKOS.narrower))
    related = set(graph.subject_objects(SKOS.related))
    assert related == {(b, a) for a, b in related}, "related goes both ways"
    above = {(a, b) for a in graph.subjects(RDF.type, SKOS.Concept) for b in graph.objects(a, SKOS.broader * "+")}
    assert not related & above, "SKOS keeps related and broader apart"
    for method in taxonomy.methods:
        concept = URIRef(exports.urn(method.id))
        branch = exports.urn(f"{method.category}/{method.subcategory}")
        assert list(graph.objects(concept, SKOS.broader)) == [URIRef(branch)]
        assert set(graph.objects(concept, PROV.wasDerivedFrom)) == {URIRef(exports.urn(i)) for i in method.builds_on}


def test_papers_keep_title_and_the_order_of_authors(taxonomy: Taxonomy, graph: Graph) -> None:
    for method in taxonomy.methods:
        (paper,) = graph.objects(URIRef(exports.urn(method.id)), SCHEMA.subjectOf)
        assert (paper, RDF.type, SCHEMA.ScholarlyArticle) in graph
        assert graph.value(paper, SCHEMA.name) == Literal(method.paper.title)
        authors = graph.items(graph.value(paper, SCHEMA.author))
        assert [str(graph.value(author, SCHEMA.name)) for author in authors] == known_names(method.paper)


def test_with_an_address_concepts_have_it_and_keep_their_urn(taxonomy: Taxonomy, graph: Graph) -> None:
    placed = parsed(exports.to_jsonld(taxonomy, SITE))
    for name in [*concepts(taxonomy), "taxonomy"]:
        concept = URIRef(f"{SITE}downloads/taxonomy.jsonld#{name}")
        assert placed.value(concept, OWL.sameAs) == URIRef(exports.urn(name))
        assert placed.value(concept, SKOS.prefLabel) == graph.value(URIRef(exports.urn(name)), SKOS.prefLabel)
    calm = URIRef(exports.iri("calm", SITE))
    assert placed.value(calm, SCHEMA.url) == URIRef(f"{SITE}methods/calm/")
    assert not {node for node in placed.all_nodes() if str(node).startswith("urn:")} - set(
        placed.objects(None, OWL.sameAs)
    )


def test_the_page_explains_the_urn_that_the_code_makes() -> None:
    text = (ROOT / "docs" / "taxonomy.md").read_text(encoding="utf-8")
    examples = doctest.DocTestParser().get_doctest(text, {}, "taxonomy.md", None, 0)
    assert not doctest.DocTestRunner(verbose=False).run(examples).failed
    assert exports.urn("calm") in text


@pytest.mark.parametrize(
    ("line", "address"),
    [
        ("", ""),
        ('site_url: "" # nowhere yet\n', ""),
        ("site_url: https://example.org/a/ # here\n", "https://example.org/a/"),
        ("site_url: 'https://example.org/a/'\n", "https://example.org/a/"),
    ],
)
def test_the_site_s_address_is_that_of_mkdocs(line: str, address: str, tmp_path: Path) -> None:
    (tmp_path / "mkdocs.yml").write_text(f"site_name: x\n{line}nav: !ENV [X]\n", encoding="utf-8")
    assert site_address(tmp_path) == address


@pytest.mark.parametrize("wrong", ["https://example.org/a", "example.org/", "!ENV [SITE, '']"])
def test_a_wrong_address_is_named(wrong: str, tmp_path: Path) -> None:
    (tmp_path / "mkdocs.yml").write_text(f"site_url: {wrong}\n", encoding="utf-8")
    with pytest.raises(
        TaxonomyError, match=r"^mkdocs\.yml: site_url should be an address that ends in a slash, found "
    ):
        site_address(tmp_path)


# ---- pages --------------------------------------------------------------------------------------------------------


def test_the_json_of_a_page_cannot_end_its_script(taxonomy: Taxonomy) -> None:
    text = exports.page_jsonld(taxonomy.method("calm"), "a </script> <b> & c", taxonomy, SITE)
    assert "<" not in text
    assert "\n" not in text
    data = json.loads(text)
    assert data["description"] == "a </script> <b> & c"
    assert data["url"] == f"{SITE}methods/calm/"
    assert data["mainEntity"]["@id"] == exports.iri("calm", SITE)


def test_the_venue_is_a_journal_or_a_conference_or_neither(taxonomy: Taxonomy) -> None:
    places = {id: [tag for tag, _ in exports.scholar_tags(taxonomy.method(id).paper) if tag.endswith("_title")][1:]
              for id in ("bita", "calm", "speculative-sampling-chen")}  # fmt: skip
    assert places == {"bita": ["citation_journal_title"], "calm": ["citation_conference_title"],
                      "speculative-sampling-chen": []}  # fmt: skip


# ---- llms.txt -----------------------------------------------------------------------------------------------------


def test_llms_txt_has_the_proposed_form_and_every_page(taxonomy: Taxonomy) -> None:
    head = "---\ntitle: T\ndescription: What\n  it is.\n---\n"
    written = dict.fromkeys(["taxonomy.md", "api/index.md", "use.md", "index.md"], head)
    relative = check_llms(pages(taxonomy, Results(written=written))["llms.txt"])
    assert relative[0] == "methods/"
    assert {f"methods/{method.id}/" for method in taxonomy.methods} < set(relative)
    assert {f"categories/{category.id}/" for category in taxonomy.categories} < set(relative)
    assert {f"downloads/{export.file}" for export in exports.EXPORTS.values()} < set(relative)
    assert {"taxonomy/", "use/", "explore/comparison/"} < set(relative)
    assert relative[-1] == "api/"
    assert len(relative) == len(set(relative))
    placed = pages(taxonomy, Results(written=written, site=SITE))["llms.txt"]
    assert check_llms(placed) == [f"{SITE}{address}" for address in relative]


# ---- history ------------------------------------------------------------------------------------------------------


def with_history(tmp_path: Path, history: str) -> Path:
    text = (ROOT / "taxonomy.yaml").read_text(encoding="utf-8")
    start, end = text.index("\nhistory:"), text.index("\nsurvey:")
    path = tmp_path / "taxonomy.yaml"
    path.write_text(text[:start] + history + text[end:], encoding="utf-8")
    return path


def release(version: str, date: str) -> str:
    return f"\n  - {{version: {version}, date: '{date}', changes: [a]}}"


def test_the_first_release_is_the_version_of_the_file(taxonomy: Taxonomy, tmp_path: Path) -> None:
    assert taxonomy.history[0].version == taxonomy.version
    assert [r.version for r in taxonomy.history][-1] == "0.1.0"
    with pytest.raises(
        TaxonomyError, match=rf"history\[0\]\.version: is not the version of this file, {taxonomy.version};"
    ):
        load_taxonomy(with_history(tmp_path, "\nhistory:" + release("0.1.0", "2026-01-01")))


@pytest.mark.parametrize(
    ("version", "date"), [("0.10.0", "2026-01-01"), ("0.2.0", "2026-01-01"), ("0.1.0", "2027-01-01")]
)
def test_releases_stand_newest_first(version: str, date: str, tmp_path: Path) -> None:
    history = "\nhistory:" + release("0.2.0", "2026-11-21") + release(version, date)
    with pytest.raises(TaxonomyError, match=r"history\[1\]\.version: stands below 0\.2\.0 and is not older"):
        load_taxonomy(with_history(tmp_path, history))


def test_the_history_is_shown_with_the_entries_that_are_new(taxonomy: Taxonomy) -> None:
    text = pages(taxonomy, Results())["generated/history.md"]
    assert re.findall(r"^### ([\d.]+), ", text, re.MULTILINE) == [r.version for r in taxonomy.history]
    shown = set(re.findall(r"\(methods/([\w-]+)\.md\)", text))
    assert shown == {method.id for method in taxonomy.methods if not method.in_survey}
