"""`taxonomy.yaml`: what it must hold, that it and the files are one, and that every mistake becomes one sentence."""

import keyword
from pathlib import Path

import pytest

from accelgen.exports.bundle import BASELINES, FAMILIES, method_files, parse
from accelgen.project.places import ROOT
from accelgen.taxonomy import loading
from accelgen.taxonomy.loading import TaxonomyError, load_taxonomy, source_line
from accelgen.taxonomy.schema import Method

SMALL = """\
version: 1.0.0
survey:
  title: A survey
  authors: [Ada Lovelace]
  year: 2024
  venue: arXiv
  arxiv: '2405.13019'
  url: https://arxiv.org/abs/2405.13019
categories:
- id: early-exiting
  name: Early exiting
  summary: Stop early.
  principles: [p]
  advantages: [a]
  limitations: [l]
  advancements: [d]
  open_problems: [o]
  subcategories:
  - {id: confidence, name: Confidence, summary: Ask.}
  - {id: schedule, name: Schedule, summary: Plan.}
methods:
"""


def row(id: str = "calm", **changes: str) -> str:
    """One method as YAML; a change replaces a field's value, or drops the field where it is empty."""
    fields = {
        "id": id,
        "name": "CALM",
        "category": "early-exiting",
        "subcategory": "confidence",
        "in_survey": "true",
        "paper": "{title: T, authors: [A. B], year: 2022, venue: NeurIPS 2022, url: 'https://example.org/'}",
        "guarantee": "lossy",
        "guarantee_reason": "It stops early.",
        "trained": "nothing",
        "needs": "[exits]",
        "implementation": "{status: planned}",
        "call": "continue",
    }
    text = "".join(f"  {name}: {value}\n" for name, value in (fields | changes).items() if value)
    return f"- {text[2:]}"


def message(tmp_path: Path, text: str | bytes) -> str:
    """The sentence that a broken file gets."""
    path = tmp_path / "taxonomy.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(TaxonomyError) as caught:
        load_taxonomy(path)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.startswith("taxonomy.yaml")
    return sentence


PAPER = "{title: T, authors: [A. B], year: %s, venue: V, url: 'https://example.org/'}"
IN_METHOD = {
    "wrong type": (
        dict(paper=PAPER % "'2022'"),
        "27, methods[calm].paper.year: should be a valid integer, found '2022'",
    ),
    "a number out of range": (
        dict(paper=PAPER % "1822"),
        "27, methods[calm].paper.year: should be greater than or equal to 1990, found 1822",
    ),
    "text is a number": (
        dict(name="12.5"),
        "23, methods[calm].name: should be a valid string, found 12.5; put it in quotes",
    ),
    "truth is text": (dict(in_survey="'yes'"), "26, methods[calm].in_survey: should be a valid boolean, found 'yes'"),
    "empty value": (dict(name="''"), "23, methods[calm].name: should have at least 1 character, found ''"),
    "no value": (dict(name="~"), "23, methods[calm].name: should be a valid string, found nothing"),
    "list for a mapping": (dict(paper="[a]"), "27, methods[calm].paper: should be a mapping, found a list"),
    "text for a list": (dict(needs="exits"), "31, methods[calm].needs: should be a valid list, found 'exits'"),
    "empty list": (dict(needs="[]"), "31, methods[calm].needs: should have at least one item, found an empty list"),
    "a number of base 60": (
        dict(paper=PAPER % "33:43"),
        (
            "27, methods[calm].paper.year: is a number in a spelling of YAML alone, found '33:43'; "
            "write plain digits, or quotes if it is text"
        ),
    ),
    "a number of base 16": (
        dict(paper=PAPER % ("0x" + "f" * 6000)),
        (
            f"27, methods[calm].paper.year: is a number in a spelling of YAML alone, found '0x{'f' * 74}…'; "
            "write plain digits, or quotes if it is text"
        ),
    ),
    "a number without end": (
        dict(paper=PAPER % ("9" * 6000)),
        (
            f"27, methods[calm].paper.year: is no value that YAML can read, found '{'9' * 76}…'; "
            "put it in quotes if it is text"
        ),
    ),
    "a name without end": (
        dict(builds_on=f"[{'a' * 6000}]"),
        f"34, methods[calm].builds_on[0]: no method is called '{'a' * 76}…'; there is 'calm'",
    ),
    "text is a date": (
        dict(name="2024-01-31"),
        "23, methods[calm].name: should be a valid string, found 2024-01-31; put it in quotes",
    ),
    "bad choice": (
        dict(implementation="{status: done}"),
        "32, methods[calm].implementation.status: should be 'planned' or 'proved', found 'done'",
    ),
    "bad address": (
        dict(sources="[http://example.org]"),
        "34, methods[calm].sources[0]: should match pattern '^https://\\S+$', found 'http://example.org'",
    ),
    "missing field": (dict(trained=""), "22, methods[calm].trained: is missing"),
    "missing in a part": (dict(implementation="{}"), "32, methods[calm].implementation.status: is missing"),
    "unknown field": (
        dict(advantagse="[a]"),
        "34, methods[calm].advantagse: is not a known field; did you mean 'advantages'?",
    ),
    "unknown field of a part": (
        dict(implementation="{status: planned, stat: x}"),
        "32, methods[calm].implementation.stat: is not a known field; did you mean 'status'?",
    ),
    "given twice": (
        dict(implementation="{status: planned}\n  name: Other"),
        "33, methods[calm].name: is given twice, first in line 23",
    ),
    "alias": (
        dict(needs="&n [exits]", builds_on="*n"),
        "34, methods[calm].builds_on: is a YAML alias; write the value out",
    ),
    "merge key": (
        dict(notes="\n    - {<<: {a: b}}"),
        "35, methods[calm].notes[0].<<: has a name that is not plain text; put it in quotes",
    ),
    "tag": (
        dict(notes="!!python/tuple []"),
        "34, methods[calm].notes: has the YAML tag 'tag:yaml.org,2002:python/tuple'; tags are not allowed",
    ),
    "no such date": (
        dict(trained="2024-13-45"),
        "30, methods[calm].trained: is no value that YAML can read, found '2024-13-45'; put it in quotes if it is text",
    ),
    "id of a category": (
        dict(id="early-exiting"),
        "22, methods[early-exiting].id: 'early-exiting' is the id of a category; give the method another one",
    ),
    "unknown category": (
        dict(category="early-exit"),
        "24, methods[calm].category: no category is called 'early-exit'; did you mean 'early-exiting'?",
    ),
    "unknown subcategory": (
        dict(subcategory="x"),
        "25, methods[calm].subcategory: early-exiting has no subcategory 'x'; there is 'confidence', 'schedule'",
    ),
    "unknown ancestor": (
        dict(builds_on="\n  - calms"),
        "35, methods[calm].builds_on[0]: no method is called 'calms'; did you mean 'calm'?",
    ),
    "its own ancestor": (
        dict(builds_on="[calm]"),
        "34, methods[calm].builds_on: goes round in a circle: calm -> calm",
    ),
}


@pytest.mark.parametrize("case", IN_METHOD)
def test_mistake_in_a_method(case: str, tmp_path: Path) -> None:
    changes, expected = IN_METHOD[case]
    assert message(tmp_path, SMALL + row(**changes)) == f"taxonomy.yaml, line {expected}"


def test_mistakes_between_methods(tmp_path: Path) -> None:
    twice = message(tmp_path, SMALL + row() + row())
    assert twice == "taxonomy.yaml, line 34, methods[calm].id: 'calm' is the id of an earlier one; every id stands once"
    circle = message(
        tmp_path, SMALL + row("a") + row("b", builds_on="[c]") + row("c", builds_on="[d]") + row("d", builds_on="[b]")
    )
    assert circle == "taxonomy.yaml, line 46, methods[b].builds_on: goes round in a circle: b -> c -> d -> b"


def test_an_id_that_stands_twice_is_told_before_what_misses_the_other(tmp_path: Path) -> None:
    """Who writes one id over another's leaves references without aim, even earlier in the file."""
    glossary = "glossary:\n- {id: t, term: T, definition: D, methods: [other]}\n"
    text = SMALL.replace("methods:\n", f"{glossary}methods:\n") + row() + row("calm", builds_on="[other]")
    assert "methods[calm].id: 'calm' is the id of an earlier one; every id stands once" in message(tmp_path, text)
    branches = SMALL.replace("id: schedule", "id: confidence")
    expected = "20, categories[early-exiting].subcategories[confidence].id: 'confidence' is the id of an earlier one"
    assert expected in message(tmp_path, branches + row(subcategory="schedule"))


@pytest.mark.parametrize("quote", ["'", '"'])
def test_an_unclosed_quote_is_told_where_it_opens(quote: str, tmp_path: Path) -> None:
    opened = f"{quote}An open end"
    for text in (
        SMALL.replace("name: Early exiting", f"name: {opened}") + row(trained=f"{quote}x{quote}"),
        SMALL + row(name=opened) + row("other", name=f"{quote}x{quote}"),
        SMALL + row() + row("last", call=opened),
        SMALL + row(principle=f"{quote}Over two\n    lines{quote}", name=opened),
    ):
        line = text[: text.index(opened)].count("\n") + 1
        assert message(tmp_path, text) == f"taxonomy.yaml, line {line}: has a quote that is not closed"


def test_a_quoted_text_of_several_lines_is_not_accused(tmp_path: Path) -> None:
    text = SMALL + row(name="'Over two\n    lines'") + "  trained: [a\n"
    assert "quote" not in message(tmp_path, text)


def test_several_mistakes_give_the_first_and_a_count(tmp_path: Path) -> None:
    one_more = message(tmp_path, SMALL + row(name="~") + row("free", trained=""))
    assert one_more.endswith("methods[calm].name: should be a valid string, found nothing (and 1 more error)")
    many = message(tmp_path, SMALL + row(name="~", x="1", y="2", trained=""))
    assert many == "taxonomy.yaml, line 22, methods[calm].trained: is missing (and 3 more errors)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ", line 1: is empty; a taxonomy has version, survey, categories, methods"),
        ("# nothing\n", ", line 1: is empty; a taxonomy has version, survey, categories, methods"),
        ("- a\n", ", line 1: should be a mapping, found a list"),
        ("version: 1\n a: [\n", ", line 2: is not valid YAML ("),
        ("a: [b\nc: d\n", ", line 2: is not valid YAML ("),
        ("a: b\n---\nc: d\n", ", line 2: is not valid YAML ("),
        ("a: *b\n", ", line 1: is not valid YAML ("),
        ("1: b\n", ", line 1, 1: has a name that is not plain text; put it in quotes"),
        ("a: &b [*b]\n", ", line 1, a[0]: is a YAML alias; write the value out"),
        ("a: b\nc: \x07\n", "is not allowed in YAML"),
        (b"a: b\nc: \xff\n", ", line 2: is not UTF-8 text; save the file as UTF-8"),
        ("[" * 5000 + "]" * 5000, "is nested too deeply"),
    ],
)
def test_mistake_in_the_file_itself(text: str | bytes, expected: str, tmp_path: Path) -> None:
    assert expected in message(tmp_path, text)


def test_unreadable_file_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(TaxonomyError, match=r"missing\.yaml: cannot be read \(no such file or directory\)$"):
        load_taxonomy(tmp_path / "missing.yaml")
    with pytest.raises(TaxonomyError, match=r"cannot be read \(is a directory\)$"):
        load_taxonomy(tmp_path)


def test_source_line(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL + row() + row("free"))
    lines = path.read_text().splitlines()
    assert load_taxonomy(path).method("free").name == "CALM"
    assert lines[source_line(path, "free") - 1] == "- id: free"
    assert lines[source_line(path, "free", "guarantee") - 1] == "  guarantee: lossy"
    assert lines[source_line(path, "early-exiting") - 1] == "- id: early-exiting"
    with pytest.raises(TaxonomyError, match=r"called 'fre'; did you mean 'free'\?"):
        source_line(path, "fre")
    with pytest.raises(TaxonomyError, match=r"methods\[free\]\.notes is not given"):
        source_line(path, "free", "notes")


def test_lines_and_data_come_from_one_composition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading, and asking for the line of every method, reads the YAML once."""
    path = tmp_path / "small.yaml"
    path.write_text(SMALL + "".join(row(f"m{i}") for i in range(40)))
    made = []
    monkeypatch.setattr(loading, "_Loader", lambda text, real=loading._Loader: made.append(0) or real(text))
    for method in load_taxonomy(path).methods:
        source_line(path, method.id)
    assert len(made) == 1


# The real file.


def test_the_survey_s_51_methods_are_there() -> None:
    taxonomy = load_taxonomy()
    assert sum(method.in_survey for method in taxonomy.methods) == 51
    assert tuple(category.id.replace("-", "_") for category in taxonomy.categories) == FAMILIES


def test_every_id_can_be_a_module() -> None:
    for method in load_taxonomy().methods:
        assert not keyword.iskeyword(method.id.replace("-", "_")), method.id


def test_methods_and_files_are_one() -> None:
    """A bijection: every proved row has a file of its name in its family's folder, every file a proved row."""
    proved = {method.id: method for method in load_taxonomy().methods if method.is_implemented}
    files = {id: path for id, path in method_files().items() if path.parent.name != BASELINES}
    assert set(proved) == set(files)
    for name, path in files.items():
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        assert module == proved[name].module
        assert {"generate", "example"} <= parse(path).pieces.keys()


def complete(method: Method) -> bool:
    texts = (method.principle, method.advantages, method.limitations, method.when_to_use, method.when_not)
    return all(texts) and bool(method.sources)


def test_implemented_methods_are_described_completely() -> None:
    lacking = [method.id for method in load_taxonomy().methods if method.is_implemented and not complete(method)]
    assert not lacking
