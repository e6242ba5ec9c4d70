"""Length prediction: the LENGTH token's table, the candidates, and the canvases that they span."""

from __future__ import annotations

import math

import pytest
import torch

from reference_impls.core.lengths import LengthPredictor, lengths_around, likeliest_lengths, real_places

MUTANTS = [
    ("lengths-to-one-side", "middle - count // 2", "middle"),
    ("length-beyond-the-model", ".clamp(1, longest)", ".clamp(min=1)"),
]

CPU = torch.device("cpu")


@torch.no_grad()
def test_lengths_are_scored_by_the_table_and_0_is_forbidden() -> None:
    predictor, state = LengthPredictor(8, longest=5), torch.randn(3, 8)
    log_p = predictor(state)
    assert log_p.shape == (3, 6)
    assert (log_p[:, 0] == -math.inf).all()
    assert torch.allclose(log_p[:, 1:], (state @ predictor.table[1:].T).log_softmax(-1))


@torch.no_grad()
def test_lengths_of_a_narrow_model_are_scored_wide() -> None:
    predictor, state = LengthPredictor(8, longest=5).bfloat16(), torch.randn(3, 8, dtype=torch.bfloat16)
    logits = (state @ predictor.table[1:].T).float()
    assert torch.equal(predictor(state)[:, 1:], logits.log_softmax(-1))


@torch.no_grad()
def test_the_length_token_stands_before_the_source() -> None:
    predictor = LengthPredictor(8, longest=5)
    for shape in ((4, 8), (2, 4, 8)):
        x = torch.randn(shape)
        found = predictor.prepend(x)
        assert torch.equal(found[..., 1:, :], x)
        assert torch.equal(found[..., 0, :], predictor.table[0].expand(found[..., 0, :].shape))


def test_the_likeliest_lengths_come_best_first_with_their_chances() -> None:
    log_p = torch.tensor([-math.inf, 0.1, 0.5, 0.15, 0.25]).log_softmax(-1)
    lengths, values = likeliest_lengths(log_p, 3)
    assert lengths.tolist() == [2, 4, 3]
    assert values.tolist() == log_p[[2, 4, 3]].tolist()


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_broken_predictor_is_reported(wrong: float) -> None:
    with pytest.raises(ValueError, match="the length predictor's scores are not finite"):
        likeliest_lengths(torch.tensor([-math.inf, -1.0, wrong]), 2)


@pytest.mark.parametrize(
    ("middle", "count", "longest", "expected"),
    [
        (5, 1, 9, [5]),
        (5, 3, 9, [4, 5, 6]),
        (5, 4, 9, [3, 4, 5, 6]),
        (1, 5, 9, [1, 1, 1, 2, 3]),
        (9, 3, 9, [8, 9, 9]),
        (-4, 2, 9, [1, 1]),
    ],
)
def test_lengths_lie_around_the_middle_and_within_the_model(
    middle: int, count: int, longest: int, expected: list[int]
) -> None:
    assert lengths_around(middle, count, longest, CPU).tolist() == expected


def test_a_canvas_is_as_wide_as_the_longest_and_the_rest_is_padding() -> None:
    assert real_places(torch.tensor([1, 3, 2])).int().tolist() == [[1, 0, 0], [1, 1, 1], [1, 1, 0]]


def test_a_fresh_table_scores_with_about_the_size_of_the_state() -> None:
    assert float(LengthPredictor(256, longest=40).table.detach().std()) == pytest.approx(1 / 16, rel=0.1)
