"""Quality beside speed by the rule that lets guesses pass: the stored figures against a run and against each other."""

import json

import pytest

from accelgen.measuring import relaxations
from accelgen.measuring.rows import RelaxedFigures, read
from accelgen.project.places import RESULTS
from accelgen.site import quality_beside_speed
from accelgen.training.sentence_pairs import COUNT
from reference_impls.zoo.storage import facts


def stored():
    return read(RelaxedFigures, json.loads((RESULTS / "relaxations.json").read_text(encoding="utf-8")))


def test_a_row_counts_sentences_tokens_and_passes():
    """The strict rule is plain decoding in fewer passes; what lets everything pass is not."""
    found = relaxations.figures(count=12, rules=[(1, 0.0), (197, 1e9)])
    strict, all_pass = found.rows
    assert (found.sentences, strict.right, strict.same) == (12, found.right, 1)
    assert all_pass.acceptance == 1
    assert all_pass.same < 1
    assert all_pass.tokens_per_pass > strict.tokens_per_pass > 1


def test_the_stored_figures_belong_together():
    found = stored()
    assert [(row.beta, row.tau) for row in found.rows] == list(relaxations.RULES)
    assert found.sentences == COUNT
    strict, *wider = found.rows
    assert (strict.right, strict.same) == (found.right, 1)
    for before, after in zip(found.rows, wider, strict=False):
        assert before.same > after.same
        assert before.acceptance < after.acceptance
        assert before.tokens_per_pass < after.tokens_per_pass
    assert wider[-1].right < found.right  # which goes too far


def test_the_stored_figures_are_those_of_the_drafter_that_is_shipped():
    """Its recipe measured some of these rules on the same sentences."""
    known = facts("translation-drafter")["quality"]
    for row in stored().rows:
        name = f"beta {row.beta}" if row.beta == 1 else f"beta {row.beta}, tau {row.tau:g}"
        if name in known:
            assert row.right == known[name]["exact_match"]
            assert row.tokens_per_pass == pytest.approx(known[name]["tokens_per_pass"], abs=1e-3)
    assert known["n"] == stored().sentences


def test_its_page_shows_the_figures_and_no_other_page_does():
    text = quality_beside_speed.relaxed(stored().id, stored().as_data())
    assert text.count("<svg") == 3
    assert text.count("100.0%") >= 1
    assert r"$\gamma = 25$" in text
    assert not quality_beside_speed.relaxed("another", stored().as_data())
    assert not quality_beside_speed.relaxed(stored().id, None)
