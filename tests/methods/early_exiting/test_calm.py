"""What is peculiar to CALM: its confidence measures, the decaying threshold, its losses and the calibration."""

from __future__ import annotations

import importlib
import math
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from defaults import defaults_of
from layer_tokens import layer_tokens

from reference_impls.core.sampling import Sampler
from reference_impls.early_exiting import calm
from reference_impls.early_exiting.calm import (
    ExitClassifier,
    Measure,
    calibrate,
    classifier_loss,
    confidence,
    generate,
    loss,
    p_value,
    textual_loss,
    threshold_at,
)
from reference_impls.testing.tiny import language_model, randomised, varied_model

MUTANTS = [
    ("threshold-the-wrong-way-round", "classifier) >= least", "classifier) < least"),
    (
        "propagation-of-an-earlier-state",
        "target.fill(x, cache,",
        "target.fill(x if previous is None else previous, cache,",
    ),
    ("propagation-skips-a-layer", "layers=range(done, depth)", "layers=range(done + 1, depth)"),
    ("depth-not-traced", "layers=[done]", "layers=[depth]"),
    ("exit-ignored", "                break\n", "                pass\n"),
    ("classifier-read-for-no", "softmax(-1, wide(x))[1]", "softmax(-1, wide(x))[0]"),
    ("threshold-grows", "math.exp(-decay", "math.exp(decay"),
    (
        "calibration-goes-on-after-a-failure",
        "            break\n        chosen",
        "            continue\n        chosen",
    ),
    ("layers-weighed-alike", "{layer: float(layer)", "{layer: 1.0"),
    ("decay-counts-the-prompt", "threshold_at(threshold, len(result.tokens)", "threshold_at(threshold, len(tokens)"),
    ("decay-by-the-threshold", "+ 0.1 * math.exp(", "+ 0.1 * threshold * math.exp("),
    (
        "saturation-against-the-first-exit",
        "            previous = x\n",
        "            previous = x if previous is None else previous\n",
    ),
    (
        "probe-learns-the-next-exit",
        "zip(states, best[:-1], strict=False):\n        agrees = (early == best[-1])",
        "zip(states, zip(best, best[1:]), strict=False):\n        agrees = (early[0] == early[1])",
    ),
    ("bentkus-rounds-down", "math.ceil(n * mean - 1e-9)", "math.floor(n * mean + 1e-9)"),
]

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
@pytest.mark.parametrize("measure", ["softmax", "saturation"])
def test_a_token_leaves_at_the_first_exit_that_is_confident_enough(measure: Measure) -> None:
    """Saturation compares each exit with the one before it, and cannot be told at the first."""
    target, exits = language_model(5, layers=6), (1, 2, 4)
    prompt, seen = [0, 1, 2], set()
    full = generate(target, prompt, 2, sampler=Sampler(0), exits=exits, threshold=2.0)
    assert [step.layers for step in full.steps] == [[6], [6]]
    cache = target.new_cache()
    target(prompt, cache)
    states, measured = [], []
    for start, stop in pairwise((0, *exits)):
        x = states[-1] if states else target.embed(full.tokens[:1])
        states.append(target.run(x, cache, layers=range(start, stop)))
        best, second = target.logits(states[-1][0]).softmax(-1).sort(descending=True).values[:2].tolist()
        cosine = float(F.cosine_similarity(states[-1], states[-2])) if len(states) > 1 else -math.inf
        measured.append(best - second if measure == "softmax" else cosine)
    for threshold in [*(c - 1e-9 for c in measured), max(measured) + 1e-6]:
        run = generate(target, prompt, 2, sampler=Sampler(0), exits=exits, threshold=threshold, measure=measure)
        expected = next((e for e, c in zip(exits, measured, strict=True) if c >= threshold), 6)
        assert run.steps[1].layers == [expected]
        seen.add(expected)
    assert len(seen) >= 3


@pytest.mark.parametrize("threshold", [-1.0, 0.05, 0.2, 2.0])
def test_the_work_is_what_ran_at_the_model(threshold: float) -> None:
    target, prompt = varied_model(5), [5, 3, 8, 1]
    with layer_tokens(target) as ran:
        run = generate(target, prompt, 12, sampler=Sampler(0), exits=(1, 2, 3), threshold=threshold)
    assert sum(step.work for step in run.steps) == sum(ran) - 5 * (len(prompt) - 1)
    assert run.mean_work == run.mean_layers  # skipped layers never run


def test_the_threshold_decays_as_in_equation_5() -> None:
    course = [threshold_at(0.8, t, 100, decay=4.0) for t in range(100)]
    assert course[0] == pytest.approx(0.82)
    assert course == sorted(course, reverse=True)
    assert course[-1] > 0.72
    assert threshold_at(0.8, 50, 100, decay=4.0) == pytest.approx(0.72 + 0.1 * math.exp(-2))
    assert threshold_at(0.5, 0, 10, decay=4.0) == pytest.approx(0.55)
    assert (threshold_at(1.2, 0, 10, decay=1.0), threshold_at(-0.5, 9, 10, decay=1.0)) == (1.0, 0.0)  # clipped
    assert threshold_at(0.8, 50, 100, decay=None) == 0.8
    assert threshold_at(1.2, 50, 100, decay=None) == 1.2


@pytest.mark.parametrize("prompt", [[0], [0, 1, 2, 3, 4, 0]])
def test_the_decay_counts_new_tokens_of_the_limit_and_not_the_prompt(
    prompt: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def spy(threshold: float, t: int, longest: int, decay: float | None) -> float:
        asked.append((threshold, t, longest, decay))
        return threshold_at(threshold, t, longest, decay)

    monkeypatch.setattr(calm, "threshold_at", spy)
    generate(language_model(5, layers=DEPTH), prompt, 4, sampler=Sampler(0), exits=(1,), threshold=0.3, decay=2.0)
    assert asked == [(0.3, t, 4, 2.0) for t in range(4)]


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


@torch.no_grad()
def test_every_exit_of_the_classifier_is_compared_with_the_last_layer() -> None:
    """And not with the next exit."""
    target, exits = varied_model(5), (1, 2)
    classifier = randomised(ExitClassifier, target.shape)
    tokens = torch.randint(target.shape.vocab, (8, 12), generator=torch.Generator().manual_seed(0))
    states = [target.run(target.embed(tokens), layers=range(stop)) for stop in (*exits, 5)]
    first, second, last = (target.logits(state).argmax(-1) for state in states)
    assert ((first == second) != (first == last)).any()
    expected = 0.0
    for state, early in zip(states, (first, second), strict=False):
        surprise, agrees = -classifier(state).log_softmax(-1), early == last
        expected += float(0.5 * surprise[agrees][:, 1].mean() + 0.5 * surprise[~agrees][:, 0].mean()) / 2
    assert classifier_loss(target, classifier, tokens, exits).item() == pytest.approx(expected, rel=1e-5)


def hoeffding_bentkus(mean: Fraction, n: int, delta: Fraction) -> float:
    """Both bounds in exact arithmetic, as far as they are rational."""
    binomial = sum(math.comb(n, i) * delta**i * (1 - delta) ** (n - i) for i in range(math.ceil(n * mean) + 1))
    odds = (1 - mean) * math.log((1 - mean) / (1 - delta)) + (mean * math.log(mean / delta) if mean else 0)
    return min(math.exp(-n * odds), math.e * float(binomial), 1.0)


@pytest.mark.parametrize(
    ("mean", "n", "delta"),
    [("0", 30, "0.1"), ("0.095", 50, "0.25"), ("0.13", 25, "0.4"), ("0.2", 1500, "0.25"), ("0.01", 9000, "0.02")],
)
def test_the_p_value_is_the_formula_at_any_size(mean: str, n: int, delta: str) -> None:
    """With 4.75 and 3.25 losses among them: Bentkus rounds up."""
    expected = hoeffding_bentkus(Fraction(mean), n, Fraction(delta))
    assert p_value(float(mean), n, float(delta)) == pytest.approx(expected, rel=1e-9)


def test_the_smaller_of_both_bounds_counts() -> None:
    bentkus, hoeffding = p_value(0.095, 50, 0.25), p_value(0.05, 50, 0.1)
    assert bentkus == pytest.approx(math.e * sum(math.comb(50, i) * 0.25**i * 0.75 ** (50 - i) for i in range(6)))
    assert hoeffding == pytest.approx(math.exp(-50 * (0.95 * math.log(0.95 / 0.9) + 0.05 * math.log(0.05 / 0.1))))
    assert p_value(0.3, 50, 0.3) == 1
    assert p_value(0.1, 100_000, 0.9) == 0


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


@pytest.mark.parametrize("row", [[], [0.0, math.nan], [-0.1], [0.0] * 99 + [9.0]])
def test_losses_that_are_none_are_refused_at_whatever_threshold_they_stand(row: list[float]) -> None:
    for losses in ([row, [0.0]], [[1.0], row]):  # the second row would never be reached
        with pytest.raises(
            ValueError, match=r"the losses at threshold 0\.[97] must be numbers from 0 to 1, one or more"
        ):
            calibrate([0.9, 0.7], losses, delta=0.2, epsilon=0.05)


@pytest.mark.parametrize(("mean", "n", "delta"), [(math.nan, 9, 0.1), (1.1, 9, 0.1), (0.1, 0, 0.2), (0.1, 9, 1.0)])
def test_a_p_value_of_nothing_is_one_sentence(mean: float, n: int, delta: float) -> None:
    with pytest.raises(ValueError, match=r"needed are a mean in|mean is not a number"):
        p_value(mean, n, delta)


def test_every_threshold_has_its_losses() -> None:
    with pytest.raises(ValueError, match="there are 1 rows of losses for 2 thresholds; give one for each"):
        calibrate([0.9, 0.7], [[0.0]], delta=0.2, epsilon=0.05)
    with pytest.raises(ValueError, match="thresholds must descend"):
        calibrate([0.9, math.nan], [[0.0], [0.0]], delta=0.2, epsilon=0.05)
    for delta, epsilon in [(0.0, 0.05), (1.0, 0.05), (-0.5, 0.05), (0.2, 0.0), (0.2, 1.0), (0.2, -0.5)]:
        with pytest.raises(ValueError, match="delta and epsilon must lie between 0 and 1"):
            calibrate([0.9], [[0.0]], delta=delta, epsilon=epsilon)


def test_textual_loss_by_hand() -> None:
    assert textual_loss([1, 2, 3], [1, 2, 3]) == 0
    assert textual_loss([1, 2], [3, 4]) == 1
    assert (textual_loss([], []), textual_loss([], [1]), textual_loss([1], [])) == (0, 1, 1)
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


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"threshold": math.nan}, "threshold is not a number"),
        ({"decay": math.nan}, "decay is not a number"),
        ({"decay": -1e4}, r"decay is -10000\.0; it must be 0 or a positive number"),
        ({"decay": math.inf}, "decay is inf"),
    ],
)
def test_thresholds_that_are_no_numbers_are_one_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        generate(language_model(layers=DEPTH), [0], 3, sampler=Sampler(0), exits=(1,), **options)


@torch.no_grad()
@pytest.mark.parametrize("measure", ["softmax", "saturation", "classifier"])
def test_a_confidence_that_is_no_number_is_told_and_whose_it_is(measure: Measure) -> None:
    target = language_model(5, layers=DEPTH)
    classifier = randomised(ExitClassifier, target.shape)
    whose = "classifier" if measure == "classifier" else "target"
    broken = classifier.linear.bias if measure == "classifier" else target.blocks[0].down
    torch.nn.init.constant_(broken, math.nan)
    with pytest.raises(ValueError, match=f"the {measure} confidence at an exit is not a number: check the {whose}'s"):
        confidence(target, *target.run(target.embed([0, 1]), layers=range(1)).split(1), measure, classifier)


@torch.no_grad()
@pytest.mark.parametrize("measure", ["softmax", "saturation", "classifier"])
def test_confidences_of_a_narrow_model_are_computed_wide(measure: Measure) -> None:
    """Three digits would not tell a confidence of 0.999 from one of 1."""
    target = varied_model(5).bfloat16()
    classifier = randomised(ExitClassifier, target.shape).bfloat16()
    for token in range(11):
        previous, x = target.run(target.embed([token, 1]), layers=range(1)).split(1)
        found = confidence(target, x, previous, measure, classifier)
        wanted = {
            "softmax": (pair := target.logits(x[-1]).double().softmax(-1).sort().values)[-1] - pair[-2],
            "saturation": F.cosine_similarity(x[-1].double(), previous[-1].double(), dim=-1),
            "classifier": classifier(x[-1]).double().softmax(-1)[1],
        }[measure]
        assert found == pytest.approx(float(wanted), abs=1e-6)


def test_a_broken_classifier_does_not_pass_for_an_unsure_one() -> None:
    target = language_model(5, layers=DEPTH)
    classifier = randomised(ExitClassifier, target.shape)
    torch.nn.init.constant_(classifier.linear.weight, math.nan)
    options: dict[str, Any] = {"exits": (1, 2), "measure": "classifier", "classifier": classifier}
    with pytest.raises(ValueError, match="check the classifier's weights"):
        generate(target, [0], 3, sampler=Sampler(0), **options)


def test_defaults_are_the_documented_ones() -> None:
    assert defaults_of(importlib.import_module("reference_impls.early_exiting.calm")) == {
        "generate.threshold": 0.9,
        "generate.measure": "softmax",
    }
