"""What leaves the project: schema, JSON, BibTeX and the citation file."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import bibtexparser
import pytest
import yaml
from bibtexparser.middlewares import LatexDecodingMiddleware

from accelgen import exports
from accelgen.project.places import ROOT
from accelgen.taxonomy.calls import BASELINES
from accelgen.taxonomy.loading import TaxonomyError, load_taxonomy
from accelgen.taxonomy.schema import Method, Paper, Taxonomy


@pytest.fixture(scope="module")
def taxonomy() -> Taxonomy:
    return load_taxonomy()


def paper(**fields: Any) -> Paper:
    basis = dict(title="T", authors=["A. B"], year=2020, venue="ICML 2020", url="https://example.org/paper")
    return Paper(**(basis | fields))


def method(**fields: Any) -> Method:
    """A planned method whose paper has these fields."""
    basis = dict(
        id="some-method",
        name="Some Method",
        category="c",
        subcategory="s",
        call="continue",
        in_survey=True,
        trained="nothing",
    )
    claims = dict(guarantee="lossy", guarantee_reason="r", needs=["target-only"], implementation={"status": "planned"})
    return Method.model_validate(basis | claims | {"paper": paper(**fields)})


def parsed(text: str) -> Any:
    """The library of a BibTeX text without failed blocks, LaTeX turned back into Unicode."""
    library = bibtexparser.parse_string(text, append_middleware=[LatexDecodingMiddleware()])
    assert not library.failed_blocks, [block.error for block in library.failed_blocks]
    return library


def check_jsonschema(*arguments: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_committed_schema_is_current() -> None:
    assert (ROOT / "taxonomy.schema.json").read_text(encoding="utf-8") == exports.json_schema()


def test_taxonomy_satisfies_the_schema() -> None:
    check_jsonschema("--schemafile", "taxonomy.schema.json", "taxonomy.yaml")


def test_schema_rejects_what_the_model_rejects(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("version: 1.0.0\nsurvey: 3\n")
    with pytest.raises(AssertionError, match=r"survey.*is not of type 'object'"):
        check_jsonschema("--schemafile", "taxonomy.schema.json", str(tmp_path / "wrong.yaml"))


def test_json_reads_back(taxonomy: Taxonomy) -> None:
    assert Taxonomy.model_validate_json(exports.to_json(taxonomy)) == taxonomy


def test_every_method_and_the_survey_have_a_complete_entry(taxonomy: Taxonomy) -> None:
    entries = parsed(exports.to_bibtex(taxonomy)).entries
    keys = [entry.key for entry in entries]
    assert keys == ["accelerated-generation-survey", *(m.id for m in taxonomy.methods)]
    papers = [taxonomy.survey, *(m.paper for m in taxonomy.methods)]
    for entry, source in zip(entries, papers, strict=True):
        fields = {field.key: field.value for field in entry.fields}
        place = {"inproceedings": {"booktitle"}, "article": {"journal"}, "misc": set()}[entry.entry_type]
        assert fields.keys() >= {"title", "author", "year", "url"} | place, entry.key
        assert plain(fields["title"]) == plain(source.title)
        assert [upright(name) for name in fields["author"].split(" and ")] == source.authors
        assert fields["year"] == str(source.year)
        assert fields["url"] == source.url
        assert fields.get("doi") == source.doi
        assert (fields.get("eprint"), fields.get("archivePrefix")) == (source.arxiv, source.arxiv and "arXiv")
        if place:
            venue = plain(fields[place.pop()])
            assert venue == plain(source.venue).removesuffix(f" {source.year}")
            assert str(source.year) not in venue.split()


def upright(name: str) -> str:
    """Given name first."""
    return " ".join(reversed(name.split(", ")))


def plain(text: str) -> str:
    """Without protecting braces, and with one spelling of dashes and quotes."""
    for char, ascii_ in {"{": "", "}": "", "–": "--", "’": "'", "“": '"', "”": '"'}.items():
        text = text.replace(char, ascii_)
    return text


@pytest.mark.parametrize(
    ("venue", "kind"),
    [
        ("NeurIPS 2022", "inproceedings"),
        ("Findings of ACL 2024", "inproceedings"),
        ("ES-FoMo workshop at ICML 2023", "inproceedings"),
        ("TMLR 2024", "article"),
        ("Expert Systems with Applications 279", "article"),
        ("Transactions of the ACL", "article"),
        ("arXiv", "misc"),
        ("arXiv preprint", "misc"),
        ("GitHub", "misc"),
        ("Google Developers Blog", "misc"),
    ],
)
def test_entry_type_follows_the_venue(venue: str, kind: str) -> None:
    (entry,) = parsed(exports.method_bibtex(method(venue=venue))).entries
    assert entry.entry_type == kind


@pytest.mark.parametrize(
    "name",
    ["Łukasz Kaiser", "Jean-François Kagy", "Jörg Müller", "İ. Şahin", "Søren Ægir Åström", "Weiß Żółć", "Jiří Ñandú"],
)
def test_accents_survive(name: str) -> None:
    text = exports.method_bibtex(method(authors=[name, "Q. V. Le"]))
    assert text.isascii()
    (entry,) = parsed(text).entries
    assert entry["author"] == f"{name} and Q. V. Le"


def test_specials_are_escaped_and_capitals_protected() -> None:
    title = "EAGLE & DistillSpec: 100% of $k$ C# to_do {x} ~ ^ \\ with LLMs"
    text = exports.method_bibtex(method(title=title))
    for expected in (r"{EAGLE} \& {DistillSpec}: 100\% of \$k\$ C\# to\_do", r"\{x\}", r"with {LLMs}"):
        assert expected in text
    (entry,) = parsed(text).entries
    assert entry["title"] == title.replace("^", "ˆ")  # the decoder's own circumflex


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Mask-Predict: Parallel Decoding", "{Mask-Predict}: Parallel Decoding"),
        ("Hydra: Heads for Medusa Decoding", "{Hydra}: Heads for {Medusa} Decoding"),
        (
            "Skipping with Markov Policies and Jacobi Iteration",
            "Skipping with {Markov} Policies and {Jacobi} Iteration",
        ),
        ("DeepSeek-V3 and Seq2seq", "{DeepSeek}-{V3} and {Seq2seq}"),
        ("Speculative Decoding: Guess First", "Speculative Decoding: Guess First"),
        ("SpecDec++: Lengths", "{SpecDec++}: Lengths"),
    ],
)
def test_names_keep_their_capitals(title: str, expected: str) -> None:
    text = exports.method_bibtex(method(title=title))
    assert f"= {{{expected}}}," in text
    assert parsed(text).entries[0]["title"] == title


def test_the_name_of_a_method_is_a_name_in_every_title(taxonomy: Taxonomy) -> None:
    names = {m.name for m in taxonomy.methods if m.name[:1].isupper() and m.name.isalpha()}
    for entry in bibtexparser.parse_string(exports.to_bibtex(taxonomy)).entries:
        unprotected = set(re.findall(r"[A-Za-z]+", re.sub(r"\{[^{}]*\}", "", entry["title"])[1:]))
        assert not unprotected & names, entry.key


def test_the_year_stands_once(taxonomy: Taxonomy) -> None:
    (entry,) = parsed(exports.method_bibtex(method(venue="COLM 2020"))).entries
    assert (entry["booktitle"], entry["year"]) == ("COLM", "2020")
    (kept,) = parsed(exports.method_bibtex(method(venue="Expert Systems with Applications 279 (2019)"))).entries
    assert kept["journal"] == "Expert Systems with Applications 279 (2019)"
    venues = {item["id"]: item.get("container-title", "") for item in json.loads(exports.to_csl(taxonomy))}
    years = {m.id: str(m.paper.year) for m in taxonomy.methods}
    assert not [id for id, year in years.items() if year in venues[id].split()]


def test_a_group_is_one_author() -> None:
    assert "{{Research and Development, Ltd} and A. B}" in exports.method_bibtex(
        method(authors=["Research and Development, Ltd", "A. B"])
    )


def test_authors_that_are_not_named_are_et_al() -> None:
    unfinished = method(authors=["Ada Nobody", "others"])
    assert "= {Ada Nobody and others}" in exports.method_bibtex(unfinished)
    assert unfinished.paper.byline == "Ada Nobody et al."


def test_a_family_name_of_two_words_is_told_to_bibtex() -> None:
    assert "= {Del Corro, Luciano and Chris Re}" in exports.method_bibtex(
        method(authors=["Luciano Del Corro", "Chris Re"])
    )


def test_letters_of_another_script_are_named() -> None:
    with pytest.raises(TaxonomyError, match=r"'я' \(CYRILLIC SMALL LETTER YA\); transliterate it"):
        exports.method_bibtex(method(authors=["Ilya я"]))


def test_selection_by_method_and_category(taxonomy: Taxonomy) -> None:
    category = taxonomy.categories[0].id
    inside = [m.id for m in taxonomy.methods if m.category == category]
    other = next(m.id for m in taxonomy.methods if m.category != category)
    assert [e.key for e in parsed(exports.to_bibtex(taxonomy, [other])).entries] == [other]
    assert {e.key for e in parsed(exports.to_bibtex(taxonomy, [category, other])).entries} == {*inside, other}
    with pytest.raises(TaxonomyError, match=rf"{other}x'; did you mean '{other}'"):
        exports.to_bibtex(taxonomy, [f"{other}x"])


def test_page_entry_cites_this_project_and_its_version(taxonomy: Taxonomy) -> None:
    first = taxonomy.methods[0]
    (entry,) = parsed(exports.page_bibtex(first, taxonomy, "https://example.org/x_y/")).entries
    assert (entry.entry_type, entry.key) == ("misc", f"accelerated-generation-{first.id}")
    assert entry["author"] == exports.AUTHORS
    assert f"version {taxonomy.version}" in entry["howpublished"]
    assert entry["url"] == "https://example.org/x_y/"
    (whole,) = parsed(exports.page_bibtex(None, taxonomy)).entries
    assert whole.key == "accelerated-generation"


def test_a_page_entry_names_an_implementation_only_where_there_is_one(taxonomy: Taxonomy) -> None:
    planned = method()
    proved = Method.model_validate(method().model_dump() | {"implementation": {"status": "proved"}})
    assert parsed(exports.page_bibtex(planned, taxonomy)).entries[0]["title"] == "Some Method: notes"
    title = parsed(exports.page_bibtex(proved, taxonomy)).entries[0]["title"]
    assert title == "Some Method: reference implementation and notes"


def test_a_baseline_is_cited_by_its_implementation(taxonomy: Taxonomy) -> None:
    first, *_ = BASELINES.values()
    (entry,) = parsed(exports.page_bibtex(first, taxonomy)).entries
    assert entry.key == f"accelerated-generation-{first.id}"
    assert entry["title"] == f"{first.name}: reference implementation"


def test_citation_file_is_valid() -> None:
    check_jsonschema("--builtin-schema", "vendor.citation-file-format", "CITATION.cff")


def test_citation_file_agrees_with_the_rest(taxonomy: Taxonomy) -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert citation["version"] == project["version"] == taxonomy.version == taxonomy.history[0].version
    assert str(citation["date-released"]) == taxonomy.history[0].date
    assert citation["license"] == project["license"] == "MIT"
    assert citation["authors"] == [{"name": exports.AUTHORS}]
    assert re.search(rf"Copyright \(c\) {exports.YEAR} {exports.AUTHORS}", licence)
    survey = citation["preferred-citation"]
    assert survey["title"] == taxonomy.survey.title
    assert [f"{a['given-names']} {a['family-names']}" for a in survey["authors"]] == taxonomy.survey.authors
    assert (survey["year"], survey["url"]) == (taxonomy.survey.year, taxonomy.survey.url)
    assert survey["identifiers"][0]["value"] == f"arXiv:{taxonomy.survey.arxiv}"
