"""Every deviation shows in its example, this project's rule has none, and the page tells what was computed."""

import json
import re
from itertools import product

import pytest
import torch

from accelgen.measuring import counterexamples as errata
from accelgen.measuring.published_rules import none_kept, refill_from_target
from accelgen.project.places import RESULTS
from accelgen.site.results import Results
from accelgen.site.views import VIEWS
from accelgen.site.views.mistakes import SECTIONS
from accelgen.taxonomy.loading import load_taxonomy

TAXONOMY = load_taxonomy()
STORED = json.loads((RESULTS / "errata.json").read_text(encoding="utf-8"))
ENTRIES = [erratum for group in SECTIONS.values() for erratum in group]
each_finding = pytest.mark.parametrize("id", errata.DEMONSTRATIONS)


@pytest.fixture(scope="module")
def found():
    return json.loads(json.dumps(errata.figures()))


@each_finding
def test_the_published_rule_deviates_and_ours_does_not(found, id):
    finding = found["findings"][id]
    assert finding["distance"]["published"] > 0.01
    assert finding["distance"]["ours"] < 1e-9
    if finding["law"]:
        for column in range(1, 4):
            assert sum(row[column] for row in finding["rows"]) == pytest.approx(1)


@each_finding
def test_the_stored_example_is_what_the_code_gives_today(found, id):
    today, stored = found["findings"][id], STORED["findings"][id]
    assert today["given"].keys() == stored["given"].keys()
    assert all(today["given"][name] == pytest.approx(value) for name, value in stored["given"].items())
    assert [row[0] for row in today["rows"]] == [row[0] for row in stored["rows"]]
    for now, then in zip(today["rows"], stored["rows"], strict=True):
        assert now[1:] == pytest.approx(then[1:], abs=1e-9)
    assert today["distance"] == pytest.approx(stored["distance"], abs=1e-9)


def test_habits_that_look_wrong_are_harmless(found):
    harmless = found["harmless"]
    assert max(harmless["equality"], harmless["shared"]) < 1e-12
    assert harmless["kept_by_equality"] < harmless["kept_by_rejection"]
    assert harmless == pytest.approx(STORED["harmless"], abs=1e-9)


def test_distances_of_laws_and_of_other_numbers():
    law = errata.Finding(["a", "b"], [0.5, 0.5], [0.5, 0.5], [0.2, 0.8])
    assert law.distance(law.published) == pytest.approx(0.3)
    count = errata.Finding(["one", "two"], [1.0, 2.0], [1.0, 2.0], [1.5, 4.0], law=False)
    assert count.distance(count.published) == 2


def test_laws_as_their_formulas_say():
    """The four closed forms that the page prints."""
    p, q = errata.law_of([0.2, 0.5, 0.3]), errata.law_of([0.7, 0.2, 0.1])
    kept = torch.minimum(p, q)
    wanted = (kept + (1 - kept.sum()) * p).tolist()
    assert list(errata.residual_forgotten().published) == pytest.approx(wanted)
    fooled = errata.two_levels(q, p, p, refill_from_target)
    assert [fooled[token,] for token in range(3)] == pytest.approx(wanted)
    drawn = errata.several_draws()
    missed = (1 - drawn.wanted[0]) ** (drawn.given["paths"] + 1)
    assert drawn.published[0] == pytest.approx(1 - missed)
    assert drawn.given["one_path"] == pytest.approx(0.3 * 0.7)


def test_three_uniform_numbers_against_a_fine_grid():
    w = [1.0, 0.5, 0.7, 0.3]
    grid = ((torch.arange(120) + 0.5) / 120).double()
    one, two, three = grid[:, None, None], grid[:, None], grid
    none = (one > w[1]) & (one * two > w[2]) & (one * two * three > w[3])
    assert none_kept(w) == pytest.approx(float(none.double().mean()), abs=2e-3)
    assert none_kept([1.0, 1.0, 0.2, 0.1]) == 0


def test_no_single_matrix_does_better_than_the_uniform_law():
    """The likelihood is concave, and at the uniform law the counts of words and pairs are those of the answers."""
    answers, texts = [(0, 0, 1), (1, 1, 0)], list(product(range(2), repeat=3))
    for pair in product(range(2), repeat=2):
        counts = [
            sum(text[i : i + 2] == pair for text in group for i in range(2)) / len(group) for group in (answers, texts)
        ]
        assert counts[0] == counts[1]
    for place in range(3):
        assert sum(text[place] for text in answers) / 2 == sum(text[place] for text in texts) / 8
    assert list(errata.same_matrix_everywhere().published) == pytest.approx([0.125] * 8)


def test_the_page_tells_each_finding_once():
    assert [erratum.id for erratum in ENTRIES] == list(errata.DEMONSTRATIONS) == list(STORED["findings"])
    page = VIEWS["errata"][1](TAXONOMY, Results(errata=STORED))
    for erratum in ENTRIES:
        assert page.count(f"{{ #{erratum.id} }}") == 1
        distance = STORED["findings"][erratum.id]["distance"]["published"]
        (block,) = re.findall(rf"{{ #{erratum.id} }}\n(.*?)\n\*\*Instead", page, re.DOTALL)
        assert f"**{distance:.2f}** as published, 0 in this project" in block
        assert not re.search(r"{\w+}", block.split("**Computed.**")[1].split("|")[0])


def test_every_place_is_a_full_commit_and_a_method_of_the_taxonomy():
    for erratum in ENTRIES:
        assert TAXONOMY.method(erratum.method)
        assert erratum.seen
        for seen in erratum.seen:
            assert re.fullmatch(r"[0-9a-f]{40}", seen.commit)
            assert re.fullmatch(r"L\d+-L\d+", seen.lines)
            assert f"{seen.commit}/{seen.path}#{seen.lines}" in seen.link


def test_without_numbers_the_page_says_how_to_get_them():
    assert "python -m accelgen.measuring.counterexamples" in VIEWS["errata"][1](TAXONOMY, Results())
