"""Mask-Predict against the same algorithm in plain Python, and its loss against the formula written out."""

import importlib
import math
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
import torch
from defaults import defaults_of
from torch import Tensor, nn

from reference_impls.core.seq2seq import Memory
from reference_impls.non_autoregressive import mask_predict
from reference_impls.non_autoregressive.mask_predict import (
    ConditionalMaskedModel,
    generate,
    least_certain,
    loss,
    mask_counts,
    random_mask,
)  # fmt: skip
from reference_impls.testing.tiny import sequence_model

MUTANTS = [
    ("fully-masked-never-trained", "(share * real.sum(-1)).long() + 1", "(share * (real.sum(-1) - 1)).long() + 1"),
    (
        "mask-count-by-float-truncation",
        "lengths * (iterations - t) // iterations",
        "(lengths * (1 - t / iterations)).long()",
    ),
    ("observed-tokens-overwritten", "torch.where(masked, tokens, canvas)", "tokens"),
    (
        "observed-probabilities-refreshed",
        "torch.where(masked, certainty, log_p)",
        "certainty.where(canvas != model.pad, 0.0)",
    ),
    (
        "the-surest-are-masked",
        "log_p.argsort(stable=True, dim=-1)",
        "log_p.argsort(stable=True, dim=-1, descending=True)",
    ),
    ("one-pass-too-few", "for t in range(iterations):", "for t in range(max(1, iterations - 1)):"),
    ("no-token-masked-again", ".clamp(min=1)", ".clamp(min=0)"),
    ("mask-predicted", "[model.pad, model.mask_id]]", "[model.pad]]"),
    ("the-worst-candidate", "* length_scores).argmax()", "* length_scores).argmin()"),
    ("long-candidates-at-a-loss", "log_p.sum(-1) / lengths", "log_p.sum(-1)"),
    ("masks-of-another-candidate", "torch.stack(holes)[:, best, real[best]]", "torch.stack(holes)[:, 0, real[best]]"),
    ("causal-canvas", "visible=(canvas != self.pad)[..., None, :]", "visible=None"),
    ("padding-visible", "(canvas != self.pad)[..., None, :]", "(canvas >= 0)[..., None, :]"),
    ("trained-on-observed-tokens", "target.masked_fill(masked, model.mask_id)", "target"),
]

PAD, MASK = 0, 2
SOURCES = [5, 3, 8], [4], [7, 7, 10, 9, 6]
Pass = tuple[list[int], list[int]]  # the canvas after it, and the places that it filled
Course = tuple[list[Pass], list[float]]  # and the last log-probabilities
PASSES = 1, 2, 3, 7, 20
each_source = pytest.mark.parametrize("source", SOURCES)


def model_of(seed: int, longest: int = 12) -> ConditionalMaskedModel:
    return sequence_model(ConditionalMaskedModel, longest=longest, seed=seed).requires_grad_(False)


def log_probabilities(model: ConditionalMaskedModel, canvas: list[int], memory: Memory) -> list[list[float]]:
    """Plain lists [place][token], of a canvas that stands alone and has no padding."""
    ones = torch.ones(len(canvas), len(canvas), dtype=torch.bool)
    logits = model.logits(model.decode(canvas, memory, visible=ones))
    logits[:, [PAD, MASK]] = -math.inf
    return logits.log_softmax(-1).tolist()


def by_hand(model: ConditionalMaskedModel, source: list[int], length: int, iterations: int) -> Course:
    """The paper's algorithm for one length, one place at a time."""
    memory, _ = model.encode_with_length(source)
    canvas, scores, course = [MASK] * length, [-math.inf] * length, []
    for t in range(iterations):
        count = max(1, math.floor(Fraction(length * (iterations - t), iterations)))
        worst = sorted(range(length), key=lambda i: scores[i])[:count]
        for i in worst:
            canvas[i] = MASK
        rows = log_probabilities(model, canvas, memory)
        for i in worst:
            canvas[i] = max(range(len(rows[i])), key=rows[i].__getitem__)
            scores[i] = rows[i][canvas[i]]
        course.append((list(canvas), sorted(worst)))
    return course, scores


def likeliest_lengths(model: ConditionalMaskedModel, source: list[int], count: int) -> tuple[list[int], list[float]]:
    length_log_p = model.encode_with_length(source)[1].tolist()
    assert length_log_p[0] == -math.inf
    assert math.isclose(sum(map(math.exp, length_log_p)), 1)
    return sorted(range(len(length_log_p)), key=lambda n: -length_log_p[n])[:count], length_log_p


@each_source
@pytest.mark.parametrize("iterations", PASSES)
def test_every_canvas_is_that_of_the_algorithm_by_hand(source: list[int], iterations: int) -> None:
    changes = 0
    for seed in range(6):
        model = model_of(seed)
        (length,), _ = likeliest_lengths(model, source, 1)
        course, _ = by_hand(model, source, length, iterations)
        result = generate(model, source, iterations=iterations, candidates=1)
        assert [(step.canvas, step.masked) for step in result.steps] == course
        assert result.tokens == course[-1][0]
        changes += any(a != b for (a, _), (b, _) in pairwise(course))
    assert iterations == 1 or changes  # else the comparison shows little


@each_source
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_batch_of_lengths_equals_each_alone_and_the_surest_wins(source: list[int], weight: float) -> None:
    winners = set()
    for seed in range(6):
        model = model_of(seed)
        lengths, length_log_p = likeliest_lengths(model, source, 5)
        alone = {n: by_hand(model, source, n, 4) for n in lengths}
        best = max(lengths, key=lambda n: sum(alone[n][1]) / n + weight * length_log_p[n])
        result = generate(model, source, iterations=4, candidates=5, length_weight=weight)
        assert [(step.canvas, step.masked) for step in result.steps] == alone[best][0]
        winners.add(lengths.index(best))
    assert weight or len(winners) > 1  # by the paper's rule, not always the likeliest length


@each_source
def test_the_length_token_is_read_and_then_removed_from_the_memory(source: list[int]) -> None:
    model = model_of(0)
    memory, length_log_p = model.encode_with_length(source)
    states = model.read(torch.cat((model.lengths.table[:1], model.embed(source))))
    assert torch.equal(memory.states, states[1:])
    assert torch.allclose(length_log_p[1:], (model.lengths.table[1:] @ states[0]).log_softmax(-1))
    assert length_log_p[0] == -math.inf


@each_source
def test_one_iteration_is_one_plain_parallel_pass(source: list[int]) -> None:
    model = model_of(1)
    (length,), _ = likeliest_lengths(model, source, 1)
    rows = log_probabilities(model, [MASK] * length, model.encode_with_length(source)[0])
    result = generate(model, source, iterations=1, candidates=1)
    assert result.tokens == [max(range(len(row)), key=row.__getitem__) for row in rows]
    assert result.passes == 1


def test_the_schedule_of_the_paper() -> None:
    counts = [int(mask_counts(torch.tensor([20]), t, 10)) for t in range(10)]
    assert counts == [20, 18, 16, 14, 12, 10, 8, 6, 4, 2]


def test_the_schedule_is_rounded_down_exactly_and_masks_at_least_one() -> None:
    lengths = torch.arange(1, 60)
    for iterations in range(1, 25):
        for t in range(iterations):
            exact = [max(1, math.floor(n * (1 - Fraction(t, iterations)))) for n in lengths.tolist()]
            assert mask_counts(lengths, t, iterations).tolist() == exact


def test_observed_tokens_and_their_probabilities_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = model_of(3), []
    original = mask_predict.predict

    def spy(model: ConditionalMaskedModel, canvas: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        tokens, log_p = original(model, canvas, memory)
        seen.append((canvas, tokens))
        return tokens, log_p

    monkeypatch.setattr(mask_predict, "predict", spy)
    generate(model, SOURCES[2], iterations=5, candidates=6)
    lengths = (seen[0][0] != PAD).sum(-1)
    assert len(set(lengths.tolist())) == 6
    before = seen[0][0]
    for t, (canvas, tokens) in enumerate(seen):
        masked = canvas == MASK
        assert masked.sum(-1).tolist() == mask_counts(lengths, t, 5).tolist()
        assert torch.equal(canvas[~masked], before[~masked])
        assert torch.equal(canvas == PAD, seen[0][0] == PAD)
        before = torch.where(masked, tokens, canvas)


def test_certain_tokens_are_masked_before_padding() -> None:
    log_p = torch.tensor([[0.0, 0.0, 0.0, 0.0], [-1.0, -2.0, 0.0, -0.5]])  # the first row: two tokens, two of padding
    assert least_certain(log_p, torch.tensor([2, 2])).tolist() == 2 * [[True, True, False, False]]


class Oracle(ConditionalMaskedModel):
    """Sure of one translation and of its length, whatever the canvas shows."""

    reference = (5, 6, 7, 8, 9)

    def encode_with_length(self, source: list[int], real: Tensor | None = None) -> tuple[Memory, Tensor]:
        memory, length_log_p = super().encode_with_length(source, real)
        return memory, torch.full_like(length_log_p, -30).index_fill(-1, torch.tensor([5]), 0)

    def logits(self, x: Tensor) -> Tensor:
        wanted = torch.tensor(self.reference + (3,) * (self.longest - 5))[: x.shape[-2]]
        return nn.functional.one_hot(wanted, self.shape.vocab).double().expand(*x.shape[:-1], -1) * 1e3


def test_an_oracle_keeps_the_reference_in_every_pass() -> None:
    model = sequence_model(Oracle, longest=12)
    result = generate(model, [5, 3], iterations=6, candidates=4, length_weight=1.0)
    assert all(step.canvas == list(Oracle.reference) for step in result.steps)
    assert result.passes == 6
    assert [len(step.emitted) for step in result.steps] == [0, 0, 0, 0, 0, 5]


def test_more_iterations_than_tokens_go_on_with_one_mask() -> None:
    result = generate(model_of(2), [5, 3], iterations=30, candidates=1)
    assert result.passes == len(result.steps) == 30
    assert MASK not in result.tokens


def test_the_loss_is_the_formula_on_masked_tokens_alone() -> None:
    model, smoothing = model_of(4), 0.1
    rows = [([5, 3, 8], [6, 7, 8, 9, 10]), ([4], [3]), ([7, 7, 10, 9, 6], [9, 8, 7])]
    source = torch.tensor([s + [PAD] * (5 - len(s)) for s, _ in rows])
    target = torch.tensor([t + [PAD] * (5 - len(t)) for _, t in rows])
    for seed in range(5):
        masked = random_mask(target != PAD, torch.Generator().manual_seed(seed)).tolist()
        total, count = 0.0, 0
        for (one_source, one_target), places in zip(rows, masked, strict=True):
            memory, length_log_p = model.encode_with_length(one_source)
            canvas = [MASK if hidden else token for token, hidden in zip(one_target, places, strict=False)]
            ones = torch.ones(len(canvas), len(canvas), dtype=torch.bool)
            log_p = model.logits(model.decode(canvas, memory, visible=ones)).log_softmax(-1)
            for i, token in enumerate(one_target):
                if places[i]:
                    total -= (1 - smoothing) * float(log_p[i, token]) + smoothing * float(log_p[i].mean())
                    count += 1
            total -= float(length_log_p[len(one_target)])
        found = loss(model, source, target, generator=torch.Generator().manual_seed(seed), smoothing=smoothing)
        assert math.isclose(float(found), total / count, rel_tol=1e-9)


def test_the_number_of_masks_is_uniform_and_includes_all_tokens() -> None:
    real = torch.ones(8000, 6, dtype=torch.bool)
    real[:, 4:] = False
    masked = random_mask(real, torch.Generator().manual_seed(0))
    assert not masked[:, 4:].any()
    shares = torch.bincount(masked.sum(-1), minlength=5) / 8000
    assert shares[0] == 0
    assert torch.allclose(shares[1:], torch.tensor(0.25), atol=0.02)
    assert torch.allclose(masked[:, :4].float().mean(0), torch.tensor(5 / 8), atol=0.02)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"iterations": 0}, "iterations is 0; at least 1 pass must fill the canvas"),
        ({"candidates": 0}, "candidates is 0; the model tells the lengths 1 to 12 apart"),
        ({"candidates": 13}, "candidates is 13"),
        ({"length_weight": math.nan}, "length_weight is not a number"),
        ({"length_weight": -math.inf}, "length_weight is -inf; give a number"),
        ({"source": []}, "give at least one token"),
        ({"source": [11]}, "token id 11 is outside the model's vocabulary of 11"),
        ({"source": [3] * 13}, "13 tokens are too many: this model knows 12 positions"),
    ],
)
def test_bad_input_gets_one_clear_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        generate(**{"model": model_of(0), "source": [5, 3], **options})


def test_broken_weights_are_reported_and_whose_they_are() -> None:
    model = model_of(0)
    nn.init.constant_(model.lengths.table[3], math.nan)  # row 0, the LENGTH token, which all others see, is whole
    with pytest.raises(ValueError, match="the length predictor's scores are not finite"):
        generate(model, [5, 3])
    model = model_of(0)
    nn.init.constant_(model.norm.weight, math.nan)
    with pytest.raises(ValueError, match="the model's logits are not finite"):
        generate(model, [5, 3])


def test_what_is_left_out_is_ten_passes_over_three_lengths_by_the_papers_rule() -> None:
    model = model_of(0)
    given = generate(model, SOURCES[2], iterations=10, candidates=3, length_weight=0.0)
    assert generate(model, SOURCES[2]) == given
    source, target = torch.tensor([SOURCES[0]]), torch.tensor([[6, 7, 8, 9, 10]])
    seeded = [torch.Generator().manual_seed(0) for _ in range(3)]
    found, wanted = (
        loss(model, source, target, generator=seeded[0]),
        loss(model, source, target, generator=seeded[1], smoothing=0.1),
    )
    assert torch.equal(found, wanted)
    assert not torch.isclose(found, loss(model, source, target, generator=seeded[2], smoothing=0.0))


@torch.no_grad()
def test_certainties_of_a_narrow_model_are_computed_wide() -> None:
    """In three digits, tokens of different certainty would tie, and the leftmost be masked."""
    model = sequence_model(mask_predict.ConditionalMaskedModel).bfloat16()
    memory, _ = model.encode_with_length([5, 3, 8])
    canvas = torch.full((1, 4), model.mask_id)
    tokens, certainty = mask_predict.predict(model, canvas, memory)
    logits = model.logits(model.fill(canvas, memory)).double()
    logits[..., [model.pad, model.mask_id]] = float("-inf")
    assert torch.allclose(certainty.double(), logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0], atol=1e-6)


def test_defaults_are_the_documented_ones() -> None:
    assert defaults_of(importlib.import_module("reference_impls.non_autoregressive.mask_predict")) == {
        "generate.iterations": 10,
        "generate.candidates": 3,
        "generate.length_weight": 0.0,
        "loss.smoothing": 0.1,
    }
