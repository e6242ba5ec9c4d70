"""What is peculiar to CALM: its confidence measures, the decaying threshold, its losses and the calibration."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from reference_impls.core.sampling import Sampler
from reference_impls.early_exiting.calm import (
    ExitClassifier,
    calibrate,
    classifier_loss,
    confidence,
    generate,
    loss,
    p_value,
    textual_loss,
    threshold_at,
)
from reference_impls.testing.tiny import language_model, randomised

DEPTH = 4


@torch.no_grad()
def test_the_three_measures_by_hand() -> None:
    target = language_model(5, layers=DEPTH)
    classifier = randomised(ExitClassifier, target.shape)
    x, previous = torch.randn(2, 1, target.shape.dim, dtype=torch.float64)
    best, second = target.logits(x[0]).softmax(-1).sort(descending=True).values[:2]
    assert confidence(target, x, previous, "softmax", None) == pytest.approx(float(best - second))
    cosine = float(x[0] @ previous[0] / (x[0].norm() * previous[0].norm()))
    assert confidence(target, x, previous, "saturation", None) == pytest.approx(cosine)
    assert confidence(target, x, None, "saturation", None) == -math.inf
    yes = float(classifier(x[0]).softmax(-1)[1])
    assert confidence(target, x, previous, "classifier", classifier) == pytest.approx(yes)


@torch.no_grad()
def test_a_token_leaves_at_the_first_exit_that_is_confident_enough() -> None:
    target = language_model(5, layers=DEPTH)
    prompt = [0, 1, 2]
    full = generate(target, prompt, 2, sampler=Sampler(0), exits=(1, 2, 3), threshold=2.0)
    assert [step.layers for step in full.steps] == [[DEPTH], [DEPTH]]
    cache = target.new_cache()
    target(prompt, cache)
    x, previous, measured = target.embed(full.tokens[:1]), None, []
    for stop in (1, 2, 3):
        x = target.run(x, cache, layers=range(stop - 1, stop))
        measured.append(confidence(target, x, previous, "softmax", None))
        previous = x
    for threshold in [*measured, max(measured) + 1e-6]:
        run = generate(target, prompt, 2, sampler=Sampler(0), exits=(1, 2, 3), threshold=threshold)
        expected = next((i + 1 for i, c in enumerate(measured) if c >= threshold), DEPTH)
        assert run.steps[1].layers == [expected]


def test_the_threshold_decays_by_a_tenth_and_not_below() -> None:
    course = [threshold_at(0.8, t, 100, decay=4.0) for t in range(100)]
    assert course[0] == pytest.approx(0.8)
    assert course == sorted(course, reverse=True)
    assert course[-1] > 0.72
    assert threshold_at(0.8, 50, 100, decay=4.0) == pytest.approx(0.72 + 0.08 * math.exp(-2))
    assert threshold_at(0.8, 50, 100, decay=None) == 0.8


def test_the_loss_weighs_each_layer_by_its_number() -> None:
    target = language_model(5, layers=3)
    tokens = torch.tensor([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]])
    each = []
    for depth in (1, 2, 3):
        logits = target.logits(target.run(target.embed(tokens[:, :-1]), layers=range(depth)))
        each.append(F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).item())
    assert loss(target, tokens).item() == pytest.approx((each[0] + 2 * each[1] + 3 * each[2]) / 6, rel=1e-5)


def test_the_classifier_learns_where_an_exit_agrees_and_classes_weigh_the_same() -> None:
    target = language_model(5, layers=2)
    classifier = randomised(ExitClassifier, target.shape)
    tokens = torch.randint(5, (8, 12), generator=torch.Generator().manual_seed(0))
    state = target.run(target.embed(tokens), layers=range(1))
    agrees = target.logits(state).argmax(-1) == target(tokens).argmax(-1)
    assert 0 < int(agrees.sum()) < agrees.numel()
    surprise = -classifier(state).log_softmax(-1)
    expected = 0.5 * surprise[agrees][:, 1].mean() + 0.5 * surprise[~agrees][:, 0].mean()
    assert classifier_loss(target, classifier, tokens, (1,)).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(("n", "delta"), [(30, 0.1), (50, 0.1), (50, 0.3), (100, 0.05)])
def test_the_p_value_is_valid_for_losses_of_0_and_1(n: int, delta: float) -> None:
    """If the true risk is delta, a p-value of at most u comes with a chance of at most u: the whole binomial law."""
    chances = [math.comb(n, k) * delta**k * (1 - delta) ** (n - k) for k in range(n + 1)]
    values = [p_value(k / n, n, delta) for k in range(n + 1)]
    assert min(values) < 0.05  # it can reject
    for u in set(values):
        assert sum(chance for chance, value in zip(chances, values, strict=True) if value <= u) <= u + 1e-9


def test_calibration_bounds_the_risk() -> None:
    """Two thresholds, the second too risky: the chance of choosing it, over all calibration sets, is below epsilon."""
    n, delta, epsilon, risk = 40, 0.2, 0.1, 0.21
    chosen = 0.0
    for k in range(n + 1):
        losses = [[0.0] * n, [1.0] * k + [0.0] * (n - k)]
        if calibrate([0.9, 0.5], losses, delta=delta, epsilon=epsilon) == 0.5:
            chosen += math.comb(n, k) * risk**k * (1 - risk) ** (n - k)
    assert 0 < chosen <= epsilon


def test_calibration_stops_at_the_first_failure() -> None:
    good, bad = [0.0] * 50, [0.5] * 50
    assert calibrate([0.9, 0.8, 0.7], [good, bad, good], delta=0.2, epsilon=0.05) == 0.9
    assert calibrate([0.9, 0.8], [bad, good], delta=0.2, epsilon=0.05) is None
    with pytest.raises(ValueError, match="thresholds must descend"):
        calibrate([0.8, 0.9], [good, good], delta=0.2, epsilon=0.05)


def test_textual_loss_by_hand() -> None:
    assert textual_loss([1, 2, 3], [1, 2, 3]) == 0
    assert textual_loss([1, 2], [3, 4]) == 1
    assert textual_loss([1, 9, 3], [1, 2, 3]) == pytest.approx(1 / 3)
    assert textual_loss([3, 1, 2, 4], [1, 2, 3, 4]) == pytest.approx(1 / 4)


@pytest.mark.parametrize("exits", [(0, 1), (2, 1), (1, 1), (DEPTH,)])
def test_exits_outside_the_model_are_one_sentence(exits: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="they must be increasing layers between 1 and 3"):
        generate(language_model(layers=DEPTH), [0], 3, sampler=Sampler(0), exits=exits)


def test_a_missing_classifier_and_an_unknown_measure_are_one_sentence() -> None:
    target = language_model(layers=DEPTH)
    with pytest.raises(ValueError, match="no classifier is given"):
        generate(target, [0], 3, sampler=Sampler(0), exits=(1,), measure="classifier")
    with pytest.raises(ValueError, match="measure is 'entropy'"):
        generate(target, [0], 3, sampler=Sampler(0), exits=(1,), measure="entropy")  # type: ignore[arg-type]
