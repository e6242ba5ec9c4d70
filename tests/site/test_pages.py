"""The pages are a pure function of the taxonomy and the results; here both are made up."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import markdown
import pytest
import yaml

from accelgen.exports.markdown import cell, fence, front_matter
from accelgen.measuring import traces
from accelgen.project.files import read_json
from accelgen.project.places import ROOT, TRACES
from accelgen.site import trace_html
from accelgen.site.docstring import SECTIONS, parse
from accelgen.site.method_page import method_page
from accelgen.site.pages import FOLDERS, navigation, pages
from accelgen.site.publish import write
from accelgen.site.results import Results
from accelgen.taxonomy.calls import BASELINE
from accelgen.taxonomy.loading import load_taxonomy
from accelgen.taxonomy.schema import Taxonomy
from accelgen.taxonomy.suites import CLAIMS, claims_of
from reference_impls import testing

SOURCE = r'''"""Made Up: it guesses, and looks.

A Made-up Paper. Ada Nobody. Nowhere 2020. https://example.org

Idea
----
The idea with $p | q$.

Algorithm
---------
1. *Draft*: guess.

Guarantee
---------
Exact because of `why`.

Differences from the paper
--------------------------
1. None.

Example
-------
>>> 1 + 1
2
"""

fence = "```"
'''


def paper(title: str) -> dict[str, Any]:
    return {"title": title, "authors": ["Ada Nobody"], "year": 2020, "venue": "Nowhere", "url": "https://example.org/x"}


def method(name: str, *, status: str = "planned", **more: Any) -> dict[str, Any]:
    return {
        "id": name, "name": name.title(), "category": "family", "subcategory": "branch", "in_survey": True,
        "paper": paper(f"On {name}"), "guarantee": "exact-distribution", "guarantee_reason": "The reason.",
        "trained": "nothing", "needs": ["drafter"], "call": "continue", "implementation": {"status": status},
    } | more  # fmt: skip


def made_up_taxonomy() -> Taxonomy:
    whole = {
        "principle": "Why it works.", "advantages": ["fast"], "limitations": ["a | bar"], "advancements": ["more"],
        "when_to_use": ["often"], "when_not": ["never"], "notes": ["a note"], "sources": ["https://example.org/s"],
        "code": [{"url": "https://github.com/a/b", "licence": "MIT"}],
        "reported": [
            {"figure": "2x", "setup": "one", "place": "Table 1", "url": "https://example.org/t", "status": "seen"}
        ],
        "production": [{"engine": "E", "switch": "--go", "version": "1", "url": "https://example.org/e"}],
    }  # fmt: skip
    skip = {"status": "proved", "skip": {"options": "it has none"}}
    data = {
        "version": "1.0.0", "survey": paper("A survey"),
        "categories": [{
            "id": "family", "name": "Family", "summary": "What it is.", "principles": ["p"], "advantages": ["a"],
            "limitations": ["l"], "advancements": ["r"], "open_problems": ["o"],
            "subcategories": [{"id": "branch", "name": "Branch", "summary": "One way."},
                              {"id": "empty", "name": "Empty", "summary": "No method yet."}],
        }],
        "methods": [method("whole", **whole, implementation=skip), method("planned", builds_on=["whole"])],
    }  # fmt: skip
    return Taxonomy.model_validate_json(json.dumps(data))


def step(emitted: list[int], **more: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {"drafted": [], "parents": [], "kept": 0, "passes": 1, "draft_passes": 0}
    return {"emitted": emitted, **empty, "layers": [], "canvas": [], **more}


def run(steps: list[dict[str, Any]], kinds: list[str], **figures: Any) -> dict[str, Any]:
    tokens = [token for s in steps for token in s["emitted"]]
    known = {"tokens": len(tokens), "passes": len(steps), "tokens_per_pass": len(tokens) / len(steps)}
    return {"title": "Greedy", "settings": {}, "prompt": [0], "tokens": tokens, "steps": steps, "kinds": kinds,
            "figures": known | figures}  # fmt: skip


def made_up_trace(*runs: dict[str, Any], **facts: Any) -> dict[str, Any]:
    pieces = {"0": "a <b>", "1": "\n", "2": " x", "3": "`y`", "4": " z", "9": "<mask>"}
    return {"id": "whole", "separator": "", "pieces": pieces, "runs": list(runs)} | facts


CHAIN = made_up_trace(
    run([step([2, 3], drafted=[2, 4], kept=1), step([1])], ["accepted", "corrected", "plain"], acceptance=0.5)
)
DEPTH = made_up_trace(
    run([step([2], layers=[24]), step([3], layers=[6])], ["plain", "plain"], mean_layers=15), depth=24
)
CANVAS = made_up_trace(run([step([], canvas=[2, 9]), step([2, 3], canvas=[2, 3])], ["plain", "plain"]), mask=9)
BENCH = {
    "command": "accelgen bench", "date": "2026-01-01", "machine": {"cores": 2},
    "rows": [{"id": "whole", "setting": "greedy", "tokens_per_pass": 2.345, "acceptance": 0.5, "speedup": 1.2,
              "speedup_q1": 1.1, "speedup_q3": 1.3, "pairs": 9, "texts": 4, "identical_texts": 3, "rounding_ties": 1}],
}  # fmt: skip
ZOO = {
    "drafter": {
        "sha256": "ab" * 32,
        "bytes": 1_500_000,
        "parameters": 700_000,
        "recipe": {"phases": [{"layers": 2, "steps": 9000}, {"layers": 12, "steps": 100_000}], "seed": 0},
        "corpus": {"what": "code", "licences": {"Python": "PSF-2.0"}},
        "quality": {"held_out": {"library": {"bits_per_byte": 1.2345}, "tests": {"bits_per_byte": 2.0}}, "ok": None},
    }
}


@pytest.fixture(scope="module")
def taxonomy() -> Taxonomy:
    return made_up_taxonomy()


@pytest.fixture(scope="module")
def results() -> Results:
    return Results(
        taxonomy_file="text: 1\n",
        sources={"whole": SOURCE, BASELINE: "def generate():\n    pass\n"},
        bundles={"whole": "alone = 1\n"},
        traces={"whole": CHAIN},
        tests={"whole": "tests/w.py"},
        proofs={"tests/w.py": "def test_it():\n    pass\n"},
        bench=BENCH,
        zoo=ZOO,
    )


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml; its `!ENV` stands for a value that does not matter here."""


_Loader.add_constructor("!ENV", lambda *_: None)


def headings(page: str) -> list[str]:
    return re.findall(r"^## ([^{\n]+?)(?: \{.*)?$", page, re.MULTILINE)


def test_a_complete_page_has_all_sections_in_order(taxonomy: Taxonomy, results: Results) -> None:
    assert headings(method_page(taxonomy.method("whole"), taxonomy, results)) == [
        "Idea", "Algorithm", "Guarantee", "Why it works", "When to use it, and when not",
        "What it adds to plain decoding", "Source", "Run it", "A real run", "Measured here", "Reported by others",
        "In inference engines", "Differences from the paper", "Lineage", "Notes", "Cite", "Sources",
    ]  # fmt: skip


def test_a_planned_page_says_so_and_has_no_empty_section(taxonomy: Taxonomy, results: Results) -> None:
    page = method_page(taxonomy.method("planned"), taxonomy, results)
    assert "Not implemented yet" in page
    assert headings(page) == ["Guarantee", "Lineage", "Cite"]
    assert "Proved" not in page


def test_a_page_shows_what_the_source_says(taxonomy: Taxonomy, results: Results) -> None:
    page = method_page(taxonomy.method("whole"), taxonomy, results)
    assert '<p class="lead">It guesses, and looks.</p>' in page
    assert "```pycon\n>>> 1 + 1\n2\n```" in page
    assert re.search(r"<span id=.line-code-\d+.>.*```.*</span></code>", page), "a fence in the source is only text"
    assert "alone = 1" in page
    assert "(../downloads/whole.py)" in page
    assert "Does not apply: it has none" in page
    assert "[Planned](planned.md) (2020)" in page
    assert "(1.10–1.30)" in page
    assert "tested in `tests/w.py`" in page
    assert "3 of 4; 1 by a rounding tie" in page


def test_front_matter_is_read_back_as_it_was_meant(taxonomy: Taxonomy, results: Results) -> None:
    for path, text in pages(taxonomy, results).items():
        if path.startswith(("methods/", "categories/")):
            head = yaml.safe_load(text.split("---\n")[1])
            assert isinstance(head["title"], str)
            assert isinstance(head["description"], str)
    assert yaml.safe_load(front_matter(title="a: b # c", tags=["no", "1e-3"]).split("---\n")[1]) == {
        "title": "a: b # c",
        "tags": ["no", "1e-3"],
    }


def test_every_page_is_in_the_navigation_once(taxonomy: Taxonomy, results: Results) -> None:
    found: list[str] = []

    def collect(item: Any) -> None:
        if isinstance(item, str):
            found.append(item)
        else:
            for inner in item if isinstance(item, list) else item.values():
                collect(inner)

    collect(navigation(taxonomy))
    written = {path for path in pages(taxonomy, results) if path.startswith(("methods/", "categories/"))}
    assert written <= set(found)
    assert len(found) == len(set(found))
    assert "Empty" not in json.dumps(navigation(taxonomy)), "a branch without methods is no entry"


def test_what_does_not_exist_yet_is_said(taxonomy: Taxonomy) -> None:
    found = pages(taxonomy, Results())
    assert "Not trained yet" in found["generated/zoo.md"]
    assert "Not measured yet" in found["generated/measured.md"]
    assert "A real run" not in found["methods/whole.md"]


def test_zoo_and_bench_show_their_figures(taxonomy: Taxonomy, results: Results) -> None:
    found = pages(taxonomy, results)
    assert "| `drafter` | 700,000 | 1.5 MB |" in found["generated/zoo.md"]
    assert "| Name | bits per byte |" in found["generated/zoo.md"]
    assert "| library | 1.234 |" in found["generated/zoo.md"]
    assert "| layers | steps |\n| --- | --- |\n| 2 | 9000 |\n| 12 | 100,000 |\n" in found["generated/zoo.md"]
    assert "- ok: –" in found["generated/zoo.md"]
    assert "- licences: Python PSF-2.0" in found["generated/corpus.md"]
    assert "[Whole](methods/whole.md)" in found["generated/measured.md"]
    assert "machine: cores 2" in found["generated/measured.md"]


def test_downloads(taxonomy: Taxonomy, results: Results) -> None:
    found = pages(taxonomy, results)
    assert found["downloads/taxonomy.yaml"] == "text: 1\n"
    assert Taxonomy.model_validate_json(found["downloads/taxonomy.json"]) == taxonomy
    assert json.loads(found["downloads/traces/whole.json"]) == CHAIN
    assert found["downloads/whole.py"] == "alone = 1\n"
    assert found["downloads/references.bib"].count("\n@") + 1 == 3


def test_writing_touches_only_what_changed_and_leaves_nothing_stale(tmp_path: Path) -> None:
    files = {"methods/a.md": "a\n", "generated/b.md": "b\n"}
    assert sorted(write(files, tmp_path)) == sorted(files)
    assert write(files, tmp_path) == []
    (tmp_path / "methods" / "old.md").write_text("x")
    (tmp_path / "index.md").write_text("by hand")
    assert sorted(write(files | {"methods/a.md": "new\n"}, tmp_path)) == ["methods/a.md", "methods/old.md"]
    assert (tmp_path / "index.md").read_text() == "by hand"
    assert not (tmp_path / "methods" / "old.md").exists()


def test_generated_folders_are_ignored_by_git() -> None:
    ignored = (Path(__file__).parents[2] / ".gitignore").read_text().splitlines()
    assert {f"/docs/{folder}/" for folder in FOLDERS} | {"/docs/llms.txt"} <= set(ignored)


def test_docstring_sections() -> None:
    text = parse(SOURCE)
    assert text.summary == "It guesses, and looks."
    assert tuple(text.sections) == SECTIONS
    assert text.sections["Algorithm"] == "1. *Draft*: guess."
    assert parse("x = 1").sections == {}


def test_cells_keep_bars_formulas_and_code() -> None:
    assert cell("a | b\nc") == "a &#124; b c"
    assert cell("$p | q$ and `x | y`") == r"$p \vert  q$ and `x | y`"
    assert fence("````", "text").startswith("`````text\n")


# ---- traces -------------------------------------------------------------------------------------------------------


def html(trace: dict[str, Any]) -> str:
    ((title, text),) = trace_html.render(trace)
    assert title == "Greedy"
    assert "\n" not in text
    assert "`" not in text, "a fence in a token must not become one in the page"
    return text


def test_a_chain_shows_what_became_of_every_guess() -> None:
    text = html(CHAIN)
    assert "3 tokens in 2 passes of the model, 1.50 per pass. 50% of the drafted tokens were kept." in text
    assert text.count('<span class="t t--accepted" title="step 1') == 1
    assert '<del class="t t--rejected"> z</del>' in text
    assert "a &lt;b&gt;" in text
    assert "1 of 2" in text


def test_a_tree_marks_the_path_that_was_kept() -> None:
    tree = step([2, 4, 3], drafted=[3, 2, 2, 4], parents=[-1, -1, 0, 1], kept=2)
    assert trace_html.kept_nodes(tree) == {1, 3}
    assert trace_html.kept_nodes(step([2, 3], drafted=[2, 4], kept=1)) == {0}


def test_early_exit_shows_layers() -> None:
    text = html(DEPTH)
    assert "--share:0.25" in text
    assert "6 of 24 layers" in text
    assert "A token was read after 15.0 layers on average." in text


def test_a_parallel_decoder_shows_one_row_for_each_pass() -> None:
    text = html(CANVAS)
    first, second = re.findall(r"<tr><th>pass \d</th>.*?</tr>", text)
    assert first.count(trace_html.MASK) == 1
    assert trace_html.MASK not in second
    assert "t--same" in second


def test_tokens_come_through_markdown_as_they_are(taxonomy: Taxonomy, results: Results) -> None:
    nasty = [
        "_get_*",
        " *x*",
        "```\n",
        "$a$ \\(b\\)",
        "[l](u)",
        "{: #id }",
        "<b>&amp;",
        "  \n\n",
        "\"q'",
        "~~~",
        "!!! a",
        "# h",
    ]
    pieces = {"0": "p"} | {str(i): text for i, text in enumerate(nasty, 1)}
    everything = [*range(1, len(nasty) + 1)]
    trace = made_up_trace(run([step(everything, drafted=[1])], ["plain"] * len(nasty)), pieces=pieces)
    config = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), _Loader)  # noqa: S506
    names = [name for item in config["markdown_extensions"] for name in ([item] if isinstance(item, str) else item)]
    found = pages(taxonomy, dataclasses.replace(results, traces={"whole": trace}))
    nested = f'<div class="hero" markdown>\n\n{found["generated/glance.md"]}\n\n</div>'
    for text in (found["methods/whole.md"], nested):
        page = markdown.markdown(text, extensions=[name for name in names if name != "pymdownx.snippets"])
        (shown,) = re.findall(r'<div class="trace__text".*?</div>', page, re.DOTALL)
        assert unescape(re.sub(r"<[^>]+>", "", shown)).replace("↵", "") == "p" + "".join(nasty)
        assert "<p><figure" not in page


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = traces.write_json(tmp_path / "deep" / "a.json", CHAIN)
    assert json.loads(path.read_text()) == CHAIN
    with pytest.raises(TypeError):
        traces.write_json(path, {"no json": object()})
    assert json.loads(path.read_text()) == CHAIN


@pytest.mark.parametrize("id", [BASELINE, *(m.id for m in load_taxonomy().methods if m.is_implemented)])
def test_a_page_shows_what_the_code_does_today(id: str) -> None:
    path = TRACES / f"{id}.json"
    assert path.is_file(), f"no run of {id} is recorded: run `accelgen trace {id}`"
    stored, today = read_json(path), traces.record(id)
    assert stored
    for old, new in zip(stored["runs"], today["runs"], strict=True):
        steps = list(zip(old.pop("steps"), new.pop("steps"), strict=True))
        # Two logits may tie for a guess that is rejected anyway, and another processor then guesses the other one.
        names = ("drafted", "canvas")
        guesses = [(x, y) for a, b in steps for name in names for x, y in zip(a.pop(name), b.pop(name), strict=True)]
        assert sum(x != y for x, y in guesses) <= len(guesses) / 100
        assert steps == [(a, a) for a, _ in steps]
    for data in (stored, today):
        del data["pieces"]  # those of the guesses too
    assert stored == today, f"the recorded run of {id} is out of date: run `accelgen trace {id}`"


# ---- proofs -------------------------------------------------------------------------------------------------------


def test_fields_select_the_suites(taxonomy: Taxonomy) -> None:
    whole = taxonomy.method("whole")
    assert [suite.id for suite in claims_of(whole)] == ["exact-law", "greedy-identity", "accounting", "options"]
    lossy = copy.deepcopy(whole.model_dump(mode="json")) | {"guarantee": "lossy", "category": "early-exiting"}
    assert [s.id for s in claims_of(type(whole).model_validate_json(json.dumps(lossy)))] == [
        "early-exit", "accounting", "options",
    ]  # fmt: skip
    assert len({suite.id for suite in CLAIMS}) == len(CLAIMS)


@pytest.mark.parametrize("id", [m.id for m in load_taxonomy().methods])
def test_a_page_names_the_suites_that_are_run(id: str) -> None:
    method = load_taxonomy().method(id)
    assert {claim.id for claim in claims_of(method)} <= testing.SUITES.keys()
