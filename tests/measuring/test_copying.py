"""Answers that quote: the figures are those of the texts, worked out on one small enough to follow by hand."""

import json

import pytest

from accelgen.measuring import copying
from accelgen.measuring.rows import CopyingRow, rows_of
from accelgen.project.places import RESULTS
from accelgen.site.results import Results
from accelgen.site.views import VIEWS
from accelgen.taxonomy.loading import load_taxonomy
from reference_impls.zoo.texts import Quotation, encode, quotations

STORED = json.loads((RESULTS / "copying.json").read_text(encoding="utf-8"))


def test_the_stored_figures_are_those_of_today():
    assert rows_of(CopyingRow, STORED) == list(copying.measure())


def test_the_three_workloads_have_texts_of_their_own_without_doubles():
    found = quotations()
    assert list(found) == ["retrieval", "cached edits", "several turns"]
    answers = [one.answer for texts in found.values() for one in texts]
    assert len(set(answers)) == len(answers) >= 12
    assert all(one.references and one.answer not in one.references for texts in found.values() for one in texts)


@pytest.mark.parametrize("workload", quotations())
def test_the_stored_answers_are_written_whatever_is_copied(workload):
    for text in quotations()[workload]:
        for options in ({"shortest": 1, "gamma": 19}, {"shortest": 3, "gamma": 2}):
            assert copying.recited(text, **options).tokens == encode(text.answer)


def test_the_figures_of_a_text_that_is_followed_by_hand():
    """An answer of seven tokens without doubles; in its reference the fourth is another one."""
    answer, reference = encode("def f(a, b)"), encode("def f(x, b)")
    assert len(set(answer)) == len(answer) == 7
    assert [place for place in range(7) if answer[place] != reference[place]] == [3]
    text = Quotation("Go.", ["def f(x, b)"], "def f(a, b)")
    drafts = [step.drafted for step in copying.recited(text, shortest=1, gamma=4).steps]
    assert drafts == [[], reference[1:5], [], reference[5:]]  # of the first copy two are kept; the fourth finds nothing
    found = copying.row("own", [text], shortest=1, gamma=4)
    assert found == CopyingRow(
        workload="own",
        shortest=1,
        gamma=4,
        texts=1,
        tokens=7,
        match_rate=pytest.approx(2 / 3),
        copied=3.0,
        kept=pytest.approx(4 / 6),
        tokens_per_pass=7 / 4,
    )


def test_a_longer_match_is_rarer_and_right_more_often_and_a_longer_copy_saves_more():
    rows = {(row.workload, row.shortest, row.gamma): row for row in rows_of(CopyingRow, STORED)}
    for (workload, shortest, gamma), row in rows.items():
        if longer := rows.get((workload, shortest + 1, gamma)):
            assert longer.match_rate < row.match_rate
            assert longer.kept > row.kept or longer.kept == pytest.approx(row.kept, abs=0.02)
        assert row.tokens_per_pass >= rows[workload, shortest, 4].tokens_per_pass
        assert row.copied <= gamma


def test_the_page_shows_every_row_and_says_how_it_is_made():
    page = VIEWS["copying"][1](load_taxonomy(), Results(copying=STORED))
    assert all(f"{row['tokens_per_pass']:.2f}" in page for row in STORED["rows"])
    assert page.count("<svg") == 1
    assert "copying.json" in page
    empty = VIEWS["copying"][1](load_taxonomy(), Results())
    assert copying.__name__ in empty
    assert "<svg" not in empty
