"""What the trace player is given: the recorded run, whole and safely written, and a text for readers without script."""

from __future__ import annotations

import dataclasses
import gzip
import json
import re
from dataclasses import asdict
from html.parser import HTMLParser
from string import ascii_lowercase
from typing import Any

import markdown
import pytest

from accelgen.project.files import read_json
from accelgen.project.places import ROOT, TRACES
from accelgen.site import trace_html
from accelgen.site.results import Results
from accelgen.site.views import replay
from accelgen.taxonomy.calls import BASELINE
from accelgen.taxonomy.loading import load_taxonomy
from reference_impls.core.generation import Step

SCRIPT = ROOT / "docs" / "assets" / "player.js"
RECORDED = {path.stem: read_json(path) or {} for path in sorted(TRACES.glob("*.json"))}
NASTY = ["</script>", "</template>", "<!--", "]]>", "\"'", "&amp;", "\\u003c", "`", "```\n", "\n\n", "\u2028", "\t"]
NASTY += ["$x$", "\\(y\\)", "*a*", "_b_", "[l](u)", "{: #id }", "~~~", "!!! c", "\\", "\x02", "--8<-- ", "d\x1b"]
TAXONOMY = load_taxonomy()


class Page(HTMLParser):
    """The text in every <template>, the other text, and the elements that were left open."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.templates: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, _attrs: Any) -> None:
        self.open.append(tag)
        if tag == "template":
            self.templates.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "template" in self.open:
            assert self.open[-1] == "template", "the data must be text alone"
            self.templates[-1] += data
        else:
            self.text += data


def steps(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compact steps with all fields."""
    return [asdict(Step(**{"emitted": [], **step})) for step in found]


def whole(run: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"masked": [], "work": 0, **step} for step in run["steps"]]


@pytest.mark.parametrize("id", RECORDED)
def test_the_data_on_the_page_are_those_of_the_recorded_run(id: str) -> None:
    trace = RECORDED[id]
    for run, (title, html) in zip(trace["runs"], trace_html.render(trace), strict=True):
        page = Page(html)
        assert (title, page.open) == (run["title"], [])
        (found,) = map(json.loads, page.templates)
        assert steps(found["steps"]) == whole(run)
        assert found["prompt"] == run["prompt"]
        assert {key: found.get(key) for key in trace_html.FACTS} == {key: trace.get(key) for key in trace_html.FACTS}
        used = {*run["prompt"], *run["tokens"]}
        used |= {token for step in run["steps"] for token in (*step["drafted"], *step["canvas"])}
        assert found["pieces"] == {str(token): trace["pieces"][str(token)] for token in used}


@pytest.mark.parametrize("id", RECORDED)
def test_without_a_script_the_run_is_there_as_text(id: str) -> None:
    trace = RECORDED[id]
    for run, (_, html) in zip(trace["runs"], trace_html.render(trace), strict=True):
        text = Page(html).text.replace("↵", "")
        assert trace["separator"].join(trace["pieces"][str(token)] for token in run["prompt"]).replace("\n", "") in (
            text.replace("\n", "")
        )
        assert all(trace["pieces"][str(token)].replace("\n", "") in text for token in run["tokens"])


def tricky() -> dict[str, Any]:
    tokens = [*range(len(NASTY))]
    step = asdict(Step(emitted=tokens, drafted=tokens, kept=1))
    figures = {"tokens": len(tokens), "passes": 1, "tokens_per_pass": len(tokens)}
    run = {"title": "Greedy", "settings": {}, "prompt": [0], "tokens": tokens, "steps": [step], "figures": figures}
    return {
        "id": BASELINE, "separator": "", "pieces": {str(i): piece for i, piece in enumerate(NASTY)},
        "runs": [run | {"kinds": ["accepted"] + ["corrected"] * (len(tokens) - 1)}],
    }  # fmt: skip


def test_no_token_can_end_the_data_or_the_block() -> None:
    ((_, html),) = trace_html.render(tricky())
    assert "\n" not in html
    assert not re.search(r"</script|<!--|`", html)
    (data,) = re.findall("<template>(.*)</template>", html)
    assert not re.search("[<>&]", data)
    assert list(json.loads(data)["pieces"].values()) == NASTY
    assert Page(html).open == []


def test_words_stand_apart_where_the_vocabulary_has_no_spaces_of_its_own() -> None:
    letters = ascii_lowercase[: len(NASTY)]
    for separator in ("", " "):
        pieces = {str(i): letter for i, letter in enumerate(letters)}
        ((_, html),) = trace_html.render(tricky() | {"separator": separator, "pieces": pieces})
        plain = re.sub("<[^>]*>", "", re.sub("<template>.*?</template>", "", html))
        words = separator.join(letters)
        assert separator.join(["a", words]) in plain  # the prompt, and what was written
        assert plain.count(words) == 2  # and its draft, in the table


@pytest.mark.parametrize(
    "around", ["{}", '<div class="hero" markdown>\n\n<div markdown>\n\nx\n\n{}\n\n</div>\n\n</div>']
)
def test_markdown_leaves_the_data_as_they_are(around: str) -> None:
    names = ["abbr", "attr_list", "def_list", "footnotes", "md_in_html", "tables", "pymdownx.arithmatex"]
    names += ["pymdownx.details", "pymdownx.highlight", "pymdownx.inlinehilite", "pymdownx.superfences"]
    ((_, html),) = trace_html.render(tricky())
    page = Page(markdown.markdown(around.replace("{}", html), extensions=names))
    assert page.open == []
    assert list(json.loads(page.templates[0])["pieces"].values()) == NASTY


REFILLED = [id for id, trace in RECORDED.items() if any(whole(run)[0]["masked"] for run in trace["runs"])]


@pytest.mark.parametrize("id", REFILLED)
def test_a_pass_that_fills_masks_tells_which_places(id: str) -> None:
    for run, (_, html) in zip(RECORDED[id]["runs"], trace_html.render(RECORDED[id]), strict=True):
        before: list[int] = []
        again = 0
        for step in run["steps"]:
            same = {i for i, token in enumerate(step["canvas"]) if before[i : i + 1] == [token]}
            assert {*range(len(step["canvas"]))} - same <= set(step["masked"])
            again += len(same & set(step["masked"]))
            before = step["canvas"]
        assert again > 0
        assert html.count('class="t t--again"') == 1 + again, "words that came back have a mark, which the legend shows"


# ---- side by side -------------------------------------------------------------------------------------------------


def test_only_runs_of_the_same_task_stand_side_by_side() -> None:
    found = replay.comparable(RECORDED)
    continuing = {BASELINE, *(method.id for method in TAXONOMY.methods if method.call == "continue")} & set(RECORDED)
    assert next(iter(found)) == BASELINE
    assert set(found) == continuing, "all methods that continue a text share prompt, settings and model"
    assert replay.comparable({id: trace for id, trace in RECORDED.items() if id != BASELINE}) == {}
    assert set(found) < set(RECORDED)
    other = json.loads(json.dumps(RECORDED[BASELINE]))
    other["runs"][1]["settings"]["seed"] = 1
    assert list(replay.comparable({BASELINE: RECORDED[BASELINE], "other": other})) == [BASELINE]


def test_the_page_holds_every_run_and_shows_two_without_a_script() -> None:
    text = replay.page(TAXONOMY, Results(traces=RECORDED))
    (figure,) = re.findall("^<figure.*</figure>$", text, re.MULTILINE)
    page = Page(figure)
    assert page.open == []
    (data,) = map(json.loads, page.templates)
    for id, method in data["methods"].items():
        for number, run in enumerate(RECORDED[id]["runs"]):
            assert data["runs"][number] == run["title"]
            assert steps(method["steps"][number]) == whole(run)
            assert data["prompt"] == run["prompt"]
    assert len(data["shown"]) == len(set(data["shown"])) == 2
    for id in data["shown"]:
        (words, *_) = re.findall(r'<div class="trace__text".*?</div>', trace_html.render(RECORDED[id])[0][1])
        assert words in figure
        assert data["methods"][id]["href"] in figure
    linked = set(re.findall(r"methods/([a-z0-9-]+)(?:\.md|/)#a-real-run", text))
    assert linked == set(data["methods"]) - {BASELINE}


def test_links_fit_a_site_of_files_too() -> None:
    text = replay.page(TAXONOMY, Results(traces=RECORDED, directories=False))
    for id in set(replay.comparable(RECORDED)) - {BASELINE}:
        assert f'"href":"../methods/{id}.html#a-real-run"' in text
    assert "../../methods/" not in text


def test_without_recorded_runs_the_page_says_so() -> None:
    assert "Not recorded yet" in replay.page(TAXONOMY, Results())


# ---- the script ---------------------------------------------------------------------------------------------------


def test_the_script_knows_the_schema_and_stays_small() -> None:
    source = SCRIPT.read_text(encoding="utf-8")
    (defaults,) = re.findall(r"const STEP = \{(.*)\}", source)
    known = json.loads("{" + re.sub(r"(\w+):", r'"\1":', defaults) + "}")
    assert known == asdict(Step(emitted=[]))
    assert len(gzip.compress(source.encode())) <= 8 * 1024
    assert not re.search(r"https?:|\bfetch\(|\bimport\b", source), "one file, and nothing is requested"


def test_fields_of_a_step_are_those_of_the_schema() -> None:
    names = {field.name for field in dataclasses.fields(Step)}
    assert all(set(step) <= names for trace in RECORDED.values() for run in trace["runs"] for step in run["steps"])
