"""Results and traces: cutting at the limit and at the end of the text, and the figures derived from the steps."""

import json
from dataclasses import replace

import pytest

from reference_impls.core.generation import Generation, Step, check_length
from reference_impls.testing.tiny import language_model

MUTANTS = [
    (
        "end-inside-a-draft-ignored",
        "if is_end(token, eos)), room",
        "if is_end(token, eos) and i + 1 == len(step.emitted)), room",
    ),
    ("end-token-dropped", "next((i + 1 for", "next((i for"),
    ("limit-overrun", "room = limit - len(self.tokens)", "room = limit"),
    ("kept-not-cut", "min(step.kept, len(step.emitted))", "step.kept"),
    ("layers-not-cut", "step.layers[: min(stop, room)]", "step.layers"),
    ("last-token-read", "len(prompt) + limit - 1", "len(prompt) + limit"),
    ("nothing-asked-for-too-long", "and limit > 0 and", "and"),
    ("impossible-token-added", "if any(token < 0 for", "if any(token < -1 for"),
]


def test_add_says_whether_there_is_more_to_generate():
    result = Generation()
    assert result.add(Step([1, 2]), limit=4)
    assert not result.add(Step([3, 4]), limit=4)
    assert result.tokens == [1, 2, 3, 4]


@pytest.mark.parametrize(("limit", "kept"), [(1, 1), (2, 2), (3, 2)])
def test_a_step_is_cut_at_the_limit(limit, kept):
    result = Generation()
    assert not result.add(Step([1, 2, 3], drafted=[1, 2, 9], kept=2, layers=[4, 5, 6]), limit)
    assert result.tokens == [1, 2, 3][:limit]
    step = result.steps[0]
    assert (step.emitted, step.layers, step.kept) == ([1, 2, 3][:limit], [4, 5, 6][:limit], kept)
    assert step.drafted == [1, 2, 9]  # what was guessed stays on record


def test_the_limit_counts_the_tokens_of_all_steps():
    result = Generation()
    result.add(Step([1, 2]), limit=3)
    assert not result.add(Step([3, 4, 5]), limit=3)
    assert result.tokens == [1, 2, 3]


@pytest.mark.parametrize(
    ("emitted", "tokens"), [([7], [7]), ([1, 7, 2], [1, 7]), ([1, 2, 7], [1, 2, 7]), ([7, 7], [7])]
)
def test_a_step_is_cut_after_the_first_end_token(emitted, tokens):
    result = Generation()
    assert not result.add(Step(emitted, drafted=emitted, kept=len(emitted)), limit=9, eos=7)
    assert result.tokens == tokens
    assert result.steps[0].kept == len(tokens)


def test_the_limit_wins_over_an_end_token_behind_it():
    result = Generation()
    assert not result.add(Step([1, 2, 7]), limit=2, eos=7)
    assert result.tokens == [1, 2]


@pytest.mark.parametrize("eos", [[7, 2], (2, 7), {7, 2}, frozenset({2, 7})])
@pytest.mark.parametrize(("emitted", "tokens"), [([1, 2, 7], [1, 2]), ([1, 7, 2], [1, 7]), ([2], [2])])
def test_the_first_of_several_end_tokens_ends_the_text(eos, emitted, tokens):
    result = Generation()
    assert not result.add(Step(emitted, drafted=emitted, kept=len(emitted)), limit=9, eos=eos)
    assert result.tokens == tokens
    assert Generation().add(Step([1, 3]), limit=9, eos=eos)


def test_of_no_end_tokens_none_ends_the_text():
    assert Generation().add(Step([0, 7]), limit=9, eos=[])


def test_without_an_end_token_no_token_ends_the_text():
    assert Generation().add(Step([7]), limit=2)
    assert Generation().add(Step([6]), limit=2, eos=7)


def test_an_impossible_token_is_an_error_and_nothing_is_added():
    result = Generation()
    result.add(Step([4]), limit=9)
    with pytest.raises(ValueError, match=r"the target's logits for new token 3 are not finite .* infinite.: check"):
        result.add(Step([3, -1]), limit=9)
    with pytest.raises(ValueError, match=r"new token 2 are not finite .* after layer 6: check"):
        result.add(Step([-1, -1], layers=[6, 9]), limit=9)
    assert result.tokens == [4]


def test_figures_of_a_worked_example():
    result = Generation()
    result.add(Step([1, 2, 3], drafted=[1, 2, 9], kept=2, draft_passes=3), limit=9)
    result.add(Step([4], drafted=[8, 8, 8], draft_passes=3), limit=9)
    result.add(Step([5, 6, 7, 8], drafted=[5, 6, 7], kept=3, passes=2, draft_passes=3), limit=9)
    assert (result.passes, result.draft_passes) == (4, 9)
    assert result.tokens_per_pass == 2
    assert result.acceptance == pytest.approx(5 / 9)
    assert result.kept_histogram == {0: 1, 2: 1, 3: 1}
    assert result.kinds == [*["accepted"] * 2, "corrected", "corrected", *["accepted"] * 3, "plain"]
    assert result.mean_layers is None


def test_figures_without_a_draft():
    result = Generation()
    result.add(Step([1], layers=[4]), limit=9)
    result.add(Step([2], layers=[1]), limit=9)
    assert (result.acceptance, result.mean_layers, result.kinds, result.kept_histogram) == (
        None,
        2.5,
        ["plain"] * 2,
        {},
    )


def test_depth_and_work_are_two_figures():
    """Two tokens left after one layer of four; later the other layers caught up on both, with the third token."""
    result = Generation()
    result.add(Step([1], layers=[1], work=1), limit=2)
    result.add(Step([2], layers=[1], work=1), limit=2)
    result.add(Step([3, 9], layers=[4, 4], work=4 + 2 * 3), limit=3)  # what is cut off was computed nevertheless
    assert result.mean_layers == 2
    assert result.mean_work == 4
    assert [step.get("work") for step in result.to_dict()["steps"]] == [1, 1, 10]


def test_work_that_no_step_counts_is_unknown():
    result = Generation()
    result.add(Step([1]), limit=1)
    assert result.mean_work is None
    assert "work" not in result.to_dict()["steps"][0]
    assert Generation([], [Step([], work=3)]).mean_work is None


def test_figures_of_nothing():
    assert Generation().tokens_per_pass == 0
    assert Generation().acceptance is None


def test_the_trace_is_plain_data():
    result = Generation()
    result.add(Step([1, 2], drafted=[1], kept=1), limit=9)
    found = json.loads(json.dumps(result.to_dict()))
    assert found["tokens"] == [1, 2]
    assert found["steps"][0]["drafted"] == [1]
    assert "masked" not in found["steps"][0]


def test_places_that_were_masked_are_told_where_there_are_any():
    result = Generation()
    result.add(Step([1, 2], canvas=[1, 2], masked=[0, 1]), limit=2)
    assert result.to_dict()["steps"][0]["masked"] == [0, 1]


@pytest.mark.parametrize(("prompt", "limit"), [(4, 5), (8, 1), (9, 0), (1, 8)])
def test_a_text_that_ends_at_the_last_position_fits(prompt, limit):
    """Eight positions: the last token of a text is not read."""
    check_length(with_positions(8), [0] * prompt, limit)


@pytest.mark.parametrize(("prompt", "limit"), [(4, 6), (9, 1), (1, 9)])
def test_a_text_that_goes_past_the_last_position_is_refused(prompt, limit):
    said = f"^the target has 8 positions, and {prompt} tokens of prompt with {limit} more do not fit: "
    with pytest.raises(ValueError, match=said):
        check_length(with_positions(8), [0] * prompt, limit)
    with pytest.raises(ValueError, match=said.replace("target", "drafter")):
        check_length(with_positions(8), [0] * prompt, limit, whose="drafter")


def test_where_no_place_is_the_last_every_text_fits():
    check_length(with_positions(None), [0], 10**9)


def with_positions(positions):
    model = language_model()
    model.shape = replace(model.shape, positions=positions)
    return model
