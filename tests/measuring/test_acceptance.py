"""The five acceptance rates: on rounds made by hand, and the stored worked example against a run."""

import json

import pytest
import torch

from accelgen.measuring import acceptance_rates as acceptance
from accelgen.measuring.acceptance_rates import Recorder, Round
from accelgen.measuring.rows import AcceptanceFigures, read
from accelgen.measuring.speedup import expected_tokens
from accelgen.project.places import RESULTS
from reference_impls.core.verify import verify_chain

ROUNDS = [
    Round([1.0, 0.5, 0.25], [True, False, True]),
    Round([0.5, 1.0, 0.75], [True, True, True]),
    Round([0.1, 0.9, 0.9], [False, True, False]),
    Round([0.8, 0.6, 0.4], [True, True, False]),
]


def test_each_figure_of_rounds_made_by_hand():
    assert [round.kept for round in ROUNDS] == [1, 3, 0, 2]
    assert acceptance.kept_of_drafted(ROUNDS) == pytest.approx(6 / 12)
    assert acceptance.matches_anywhere(ROUNDS) == pytest.approx(8 / 12)
    assert acceptance.conditional(ROUNDS) == pytest.approx([3 / 4, 2 / 3, 1 / 2])
    assert acceptance.unconditional(ROUNDS) == pytest.approx([3 / 4, 2 / 4, 1 / 4])
    reached = [1.0, 0.5, 0.5, 1.0, 0.75, 0.1, 0.8, 0.6, 0.4]
    assert acceptance.expected_overlap(ROUNDS) == pytest.approx(sum(reached) / 9)
    assert acceptance.tokens_per_pass(ROUNDS) == pytest.approx(2.5)
    assert acceptance.tokens_per_pass(ROUNDS, bonus=False) == pytest.approx(1.5)


def test_a_place_s_rate_is_the_product_of_the_conditional_ones():
    product = 1.0
    for conditional, unconditional in zip(
        *(f(ROUNDS) for f in (acceptance.conditional, acceptance.unconditional)), strict=True
    ):
        product *= conditional
        assert unconditional == pytest.approx(product)


def test_the_chances_by_place_give_back_the_length_and_one_chance_need_not():
    chances = acceptance.conditional(ROUNDS)
    assert expected_tokens(chances, 3) == pytest.approx(acceptance.tokens_per_pass(ROUNDS))
    assert acceptance.figures(ROUNDS, prompts=1, limit=1, temperature=1.0).promised_tokens_per_pass != pytest.approx(
        acceptance.tokens_per_pass(ROUNDS)
    )


def test_the_recorder_notes_what_the_verification_saw():
    sampler = Recorder(seed=3)
    q = torch.tensor([[0.5, 0.5], [0.9, 0.1]])
    p = torch.tensor([[0.25, 0.75], [0.2, 0.8], [0.5, 0.5]])
    kept, _ = verify_chain(sampler, [0, 1], q, p)
    (round,) = sampler.rounds
    assert round.chances == pytest.approx([0.5, 1.0])
    assert round.kept == kept


def stored():
    return read(AcceptanceFigures, json.loads((RESULTS / "acceptance.json").read_text(encoding="utf-8")))


def test_the_stored_example_begins_as_the_code_does_today():
    """The first rounds of a run are those of its first prompt, so one prompt tells."""
    found = acceptance.worked_example(prompts=1, limit=48)
    assert len(found.first_rounds) == len(stored().first_rounds) == acceptance.SHOWN
    assert found.first_rounds == stored().first_rounds
    assert (found.gamma, found.temperature) == (stored().gamma, stored().temperature)


def test_the_stored_figures_belong_together():
    found, product = stored(), 1.0
    for conditional, unconditional in zip(found.conditional, found.unconditional, strict=True):
        product *= conditional
        assert unconditional == pytest.approx(product)
    assert found.kept_per_pass == pytest.approx(sum(found.unconditional))
    assert found.kept_of_drafted == pytest.approx(found.kept_per_pass / found.gamma)
    assert found.tokens_per_pass == pytest.approx(found.kept_per_pass + 1)
    assert found.promised_tokens_per_pass == pytest.approx(expected_tokens(found.expected_overlap, found.gamma))
    assert found.rounds * found.tokens_per_pass == pytest.approx(found.prompts * found.limit, rel=0.05)
