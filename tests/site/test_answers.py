"""Questions that people come with: from the home page the answer is at most three clicks away, by links in the text."""

from __future__ import annotations

import posixpath
import re
from functools import cache

import pytest

from accelgen.project.places import ROOT
from accelgen.site.pages import pages
from accelgen.site.results import read_results
from accelgen.site.views.comparison import training
from accelgen.taxonomy.loading import load_taxonomy

TAXONOMY = load_taxonomy()
RESULTS = read_results(TAXONOMY, ROOT / "taxonomy.yaml")
LINK = re.compile(r"\]\(([^)\s:]*?\.md)?(#[\w-]+)?\)")
INCLUDED = re.compile(r'^--8<-- "(.+)"$', re.MULTILINE)
Place = tuple[str, str]  # page below docs/, and the anchor on it or nothing


@cache
def site() -> dict[str, str]:
    """Every page with what it includes."""
    made = pages(TAXONOMY, RESULTS)
    texts = {path: text for path, text in (dict(RESULTS.written) | made).items() if path.endswith(".md")}
    return {path: INCLUDED.sub(lambda found: made[f"generated/{found[1]}"], text) for path, text in texts.items()}


def leads_to(page: str) -> set[Place]:
    """Where the links in a page's text lead; the navigation around it does not count."""
    found = set[Place]()
    for path, anchor in LINK.findall(site()[page]):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), path)) if path else page
        found |= {(target, ""), (target, anchor)}
    return found


def clicks(wanted: Place) -> int:
    """The least number of links from the home page to a place; 4 for everything that is further away."""
    front, seen = {"index.md"}, {"index.md"}
    for count in range(1, 4):
        reached = set[Place]().union(*map(leads_to, front))
        if wanted in reached:
            return count
        front = {page for page, _ in reached if page in site()} - seen
        seen |= front
    return 4


def section(page: str, anchor: str) -> str:
    """What stands below the heading with this anchor, up to the next heading of its level or above."""
    text = site()[page]
    for found in re.finditer(r"^(#+) (.*?)(?: \{ (#[\w-]+).*\})?$", text, re.MULTILINE):
        slug = "#" + re.sub(r"[^\w]+", "-", found[2].lower()).strip("-")
        if (found[3] or slug) == anchor:
            return re.split(rf"^#{{1,{len(found[1])}}} ", text[found.end() :], maxsplit=1, flags=re.MULTILINE)[0]
    raise LookupError(f"{page} has no heading {anchor}")


def lossless_without_training() -> list[str]:
    exact = ("exact-distribution", "exact-greedy")
    return [f"[{m.name}](" for m in TAXONOMY.methods if m.guarantee in exact and training(m) == "none"]


def acceptance_of_the_drafter() -> list[str]:
    assert RESULTS.acceptance
    return [f"{RESULTS.acceptance[name]:.0%}" for name in ("expected_overlap", "kept_of_drafted")]


@pytest.mark.parametrize(
    ("page", "anchor", "answer"),
    [
        pytest.param("explore/comparison.md", "#lossless-without-training", lossless_without_training(),
                     id="which lossless methods need no training?"),
        pytest.param("methods/eagle.md", "#what-it-adds",
                     ["continues the target's features instead of its tokens",
                      "One fully connected layer and one decoder layer", "Diff to Medusa"],
                     id="what does EAGLE add to Medusa?"),
        pytest.param("explore/engines.md", "#vllm-llma", ["vllm serve TARGET", '{"method": "ngram"'],
                     id="how do I turn n-gram speculation on in vLLM?"),
        pytest.param("explore/acceptance.md", "#five-figures", acceptance_of_the_drafter(),
                     id="what is the measured acceptance of the zoo's drafter?"),
        pytest.param("methods/calm.md", "#cite", ["@inproceedings{calm,", "Confident Adaptive Language Modeling"],
                     id="how do I cite CALM?"),
    ],
)  # fmt: skip
def test_the_answer_stands_within_three_clicks_of_the_home_page(page: str, anchor: str, answer: list[str]) -> None:
    found = section(page, anchor)
    for words in answer:
        assert words in found, f"{page}{anchor} does not say {words!r}"
    assert answer
    assert clicks((page, anchor)) <= 3


def test_every_method_concept_and_comparison_is_within_three_clicks() -> None:
    wanted = [path for path in site() if path.startswith(("methods/", "categories/", "concepts/", "explore/"))]
    assert {path for path in wanted if clicks((path, "")) > 3} == set()


def test_what_is_not_linked_is_far() -> None:
    assert clicks(("methods/eagle.md", "#nowhere")) == 4
    assert clicks(("nowhere.md", "")) == 4


def test_the_home_page_says_what_this_is_and_opens_four_doors() -> None:
    text = site()["index.md"]
    lead = re.search(r'<div class="lead" markdown>\n\n(.*?)\n\n</div>', text, re.DOTALL)
    assert lead
    assert len(lead[1].split()) <= 60
    assert f"{len(TAXONOMY.methods)} techniques" in lead[1]
    doors = re.search(r'<div class="doors" markdown>\n\n(.*?)\n\n</div>', text, re.DOTALL)
    assert doors
    assert re.findall(r"^\*\*\[(\w+)\]", doors[1], re.MULTILINE) == ["Browse", "Copy", "Cite", "Run"]
    assert text.index('class="doors"') < text.index('class="glance"') < text.index("## Three families")
    assert all(f"**[{category.name}](" in text for category in TAXONOMY.categories)
