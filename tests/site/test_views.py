"""The pages that look across all methods: nobody is missing, links lead somewhere, numbers add up."""

import re

import pytest

from accelgen.site.results import Results
from accelgen.site.views import VIEWS, comparison, gaps, lineage, timeline
from accelgen.site.views.drawing import address
from accelgen.taxonomy.loading import load_taxonomy

TAXONOMY = load_taxonomy()
IDS = [method.id for method in TAXONOMY.methods]


@pytest.mark.parametrize("view", ["comparison", "lineage", "timeline"])
def test_every_method_has_its_link(view):
    page = VIEWS[view][1](TAXONOMY, Results()).partition("## Lossless")[0]  # below the table some come again
    links = re.findall(r"methods/([a-z0-9-]+)(?:\.md|/)", page)
    assert set(links) == set(IDS)
    repeated = {id for id in links if links.count(id) > 1}
    assert not repeated or view == "lineage", repeated  # a foreign ancestor stands in two trees


@pytest.mark.parametrize(
    ("there", "here", "wanted", "as_files"),
    [
        ("methods/eagle.md", "explore/lineage.md", "../../methods/eagle/", "../methods/eagle.html"),
        ("explore/gaps.md", "explore/lineage.md", "../gaps/", "gaps.html"),
        ("categories/x/index.md", "index.md", "categories/x/", "categories/x/index.html"),
        ("methods/eagle.md", "index.md", "methods/eagle/", "methods/eagle.html"),
    ],
)
def test_addresses_of_pages_as_folders_and_as_files(there, here, wanted, as_files):
    assert address(there, here) == wanted
    assert address(there, here, directories=False) == as_files


def test_the_comparison_names_only_columns_that_it_has():
    assert set(comparison.FILTERS) < set(comparison.COLUMNS)
    assert all(len(comparison.row(method, TAXONOMY)) == len(comparison.COLUMNS) for method in TAXONOMY.methods)


def test_lossless_without_training_lists_what_the_columns_say_and_what_needs_least_first():
    listed = comparison.page(TAXONOMY, Results()).split("## Lossless without training")[1]
    rows = {method.id: comparison.row(method, TAXONOMY) for method in TAXONOMY.methods}
    wanted = {id for id, row in rows.items() if ">Exact " in row[2] and row[4] == "none"}
    for half, kind in zip(listed.split("**Exact greedy**"), ("Exact distribution", "Exact greedy"), strict=True):
        ids = re.findall(r"^- \[.*\]\(\.\./methods/(.*)\.md\): ", half, re.MULTILINE)
        assert ids
        assert set(ids) == {id for id in wanted if f">{kind}<" in rows[id][2]}
        alone = [rows[id][3] == "the target only" for id in ids]
        assert alone == sorted(alone, reverse=True)


def test_engines_that_dropped_a_method_do_not_run_it():
    for method in TAXONOMY.methods:
        found = comparison.engines(method)
        gone = {p.engine for p in method.production if p.switch.startswith(("absent", "removed"))}
        runs = {p.engine for p in method.production} - gone
        assert set(found) >= runs
        assert len(found) == len(set(found))


def test_a_tree_lists_a_family_once_and_parents_first():
    for category in TAXONOMY.categories:
        rows = list(lineage.forest(category, TAXONOMY))
        found = [method.id for method, _ in rows]
        assert len(found) == len(set(found))
        assert {m.id for m in TAXONOMY.methods_of(category.id)} <= set(found)
        for method, depth in rows:
            if depth:
                parent = method.builds_on[0]
                assert found.index(parent) < found.index(method.id)
                assert {m.id: d for m, d in rows}[parent] == depth - 1


def test_a_preprint_s_number_tells_its_month():
    assert timeline.first_shown(TAXONOMY.method("speculative-decoding-leviathan")) == (2022, 11)


def test_the_gap_map_counts_every_method_once_per_promise():
    page = gaps.page(TAXONOMY, Results())
    promise = page.split("## What they promise")[1].split("## ")[0]
    totals = [int(line.rsplit("|", 2)[1]) for line in promise.strip().splitlines()[2:]]
    assert sum(totals) == len(IDS)
