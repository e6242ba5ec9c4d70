"""Quality beside speed: on scores made by hand, and the stored figures against a run and against each other."""

import json

import pytest
import torch

from accelgen.measuring import contrasts
from accelgen.measuring.rows import ContrastFigures, read
from accelgen.project.places import RESULTS
from accelgen.site import quality_beside_speed


def stored():
    return read(ContrastFigures, json.loads((RESULTS / "contrasts.json").read_text(encoding="utf-8")))


def test_a_token_is_right_that_has_the_best_score_at_the_place_before():
    scores = [torch.eye(3)[[1, 0, 2]], torch.eye(3)[[2, 2]]]
    assert contrasts.right(scores, [[0, 1, 2], [1, 2]]) == pytest.approx(2 / 3)
    assert contrasts.right(scores, [[0, 1, 0], [1, 2]]) == 1


def test_the_stored_figures_are_those_of_the_code_today():
    """What is read is the same whatever is written, so one short text tells."""
    found, (first, *_) = contrasts.figures(prompts=1, limit=3, strengths=[(0.1, 0.5)]), stored().rows
    same = [row for row in stored().rows if (row.alpha, row.beta) == (0.1, 0.5)]
    assert [row.right for row in found.rows] == pytest.approx([row.right for row in same], abs=0.002)
    assert (found.id, found.read, found.gamma) == (stored().id, stored().read, stored().gamma)
    assert found.drafter_right == pytest.approx(stored().drafter_right, abs=0.002)
    assert (first.alpha, first.beta) == (0, 0)  # the target's own law


def test_the_stored_figures_belong_together():
    found = stored()
    assert [(row.alpha, row.beta, row.temperature) for row in found.rows] == [
        (*strength, temperature) for strength in contrasts.STRENGTHS for temperature in (0.0, 0.8)
    ]
    plain, masked = found.rows[0], found.rows[2]
    assert masked.right == plain.right > found.drafter_right  # the mask takes no best token away
    assert masked.varied == plain.varied
    for row in found.rows:
        assert 1 <= row.tokens_per_pass <= found.gamma + 1
        passes = 1 / row.tokens_per_pass
        assert found.gamma * passes <= row.draft_passes <= (found.gamma + 1) * passes


def test_its_page_shows_the_figures_and_no_other_page_does():
    text = quality_beside_speed.figures(stored().id, stored().as_data())
    assert text.count("| 0.1 |") == 8
    assert text.count("<svg") == 2
    assert not quality_beside_speed.figures("another", stored().as_data())
    assert not quality_beside_speed.figures(stored().id, None)
