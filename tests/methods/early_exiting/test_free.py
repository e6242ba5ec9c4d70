"""What is peculiar to FREE: deep states that come late and are true, the rollback, the estimator, and the loss."""

from __future__ import annotations

import importlib
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from defaults import defaults_of
from layer_tokens import layer_tokens

from accelgen.training.recipes.free import loss as adapters_loss
from reference_impls.baselines.autoregressive import generate as autoregressive
from reference_impls.core.generation import Generation
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.early_exiting.free import (
    ThresholdEstimator,
    assigned,
    confidence,
    count_kept,
    deep_step,
    generate,
    loss,
    pairs,
)
from reference_impls.testing.checks import counted, guessed
from reference_impls.testing.early_exits import watched
from reference_impls.testing.laws import autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import flat_model, language_model, varied_model
from reference_impls.zoo.adapters import Adapters, merged

MUTANTS = [
    ("deep-layers-see-only-the-newest-token", "target.run(torch.cat(stack),", "target.run(stack[-1],"),
    ("exit-without-a-state-on-the-stack", "tokens.append(exited[-1])", "tokens.append(exited[-1]), stack.pop()"),
    ("stack-never-emptied", "stack, shallow, exited = [], [], []\n", "shallow, exited = [], []\n"),
    ("unsure-tokens-exit", "confidence(shallow[-1]) > threshold", "confidence(shallow[-1]) <= threshold"),
    ("early-tokens-read-from-the-embedding", "layers=range(exit_layer)))", "layers=range(exit_layer - 1)))"),
    ("rollback-keeps-what-follows", "rollback).cumprod(0).sum()", "rollback).sum()"),
    ("rollback-of-the-cheap", "(costs <= rollback)", "(costs >= rollback)"),
    ("rolled-back-tokens-stay-in-the-cache", "cache.crop(len(tokens) - 1)", "pass"),
    ("token-after-the-rolled-back-one", "sampler.probs(logits[kept])", "sampler.probs(logits[-1])"),
    ("end-of-text-unchecked", " or any(is_end(token, eos) for token in exited)", ""),
    ("early-tokens-withheld-never-counted", "draft_passes=len(withheld), ", ""),
    ("pairs-of-the-last-token-alone", "pairs(torch.stack(shallow), logits)", "pairs(shallow[-1][None], logits[-1:])"),
    ("labels-overwritten-by-half", "trust: float = 1.0", "trust: float = 0.2"),
    ("agreement-and-disagreement-swapped", "torch.stack((~agrees, agrees))", "torch.stack((agrees, ~agrees))"),
    ("threshold-at-the-top-of-the-grid", "likely.int().argmax()", "-1"),
    ("exits-weighed-alike", "{exit_layer: float(exit_layer), depth: float(depth)}", "{exit_layer: 1.0, depth: 1.0}"),
    ("teachers-learn-from-students", "- 1].detach()", "- 1]"),
    ("teachers-one-layer-early", "depth // exit_layer - 1]", "depth // exit_layer - 2]"),
    ("layers-assigned-out-of-order", "row[: max(1, found[-1])] if found", "row if found"),
    ("work-only-of-the-exit", "+ (deep - shallow) * stacked", "+ (deep - shallow)"),
]

PROMPT = [5, 3, 8, 1]
DEPTH, EXIT = 5, 2


def full_pass(target: LanguageModel, tokens: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of all layers, and the logits, of one teacher-forced pass of all layers."""
    cache = target.new_cache()
    with torch.inference_mode():
        logits = target(tokens, cache)
    return cache._store[:, :, :, : len(tokens)], logits


def shallow_logits(target: LanguageModel, tokens: list[int]) -> torch.Tensor:
    """What the exit reads after the last of the tokens."""
    with torch.inference_mode():
        return target.logits(target.run(target.embed(tokens), layers=range(EXIT)))[-1]


def gaps(target: LanguageModel, run: Generation) -> list[float]:
    """The shallow confidence before each token but the first."""
    text = [*PROMPT, *run.tokens]
    return [confidence(shallow_logits(target, text[:place])) for place in range(len(PROMPT) + 1, len(text))]


@pytest.mark.parametrize("rollback", [None, 0.5, 3.0])
@pytest.mark.parametrize("threshold", [0.02, 0.1, 0.2, 1.0])
def test_after_a_deep_pass_all_keys_and_values_are_those_of_a_full_pass(
    threshold: float, rollback: float | None
) -> None:
    """At every length of the text: whatever the deep layers hold is true, and they lag only behind exited tokens."""
    target, lagged = varied_model(DEPTH), set()
    for limit in range(1, 15):
        with watched(target) as (caches, _):
            options: dict[str, Any] = {"exit_layer": EXIT, "threshold": threshold, "rollback": rollback}
            run = generate(target, PROMPT, limit, sampler=Sampler(0), **options)
        text = [*PROMPT, *run.tokens]
        truth, _ = full_pass(target, text)
        exits = [used for step in run.steps for used in step.layers]
        waiting = next((i for i, used in enumerate(reversed(exits)) if used == DEPTH), len(exits))
        lagged.add(waiting)
        assert caches[0].length(0) == len(text) - 1
        for layer in range(DEPTH):
            held = caches[0].length(layer)
            assert held == len(text) - 1 - (waiting if layer >= EXIT else 0)
            found = caches[0]._store[layer, :, :, :held]
            assert torch.allclose(found, truth[layer, :, :, :held], rtol=1e-9, atol=1e-12)
    assert lagged == {0} if rollback is not None or threshold == 1 else len(lagged) > 1


def test_shallow_and_deep_tokens_are_the_greedy_ones_of_their_layers() -> None:
    target, seen = varied_model(DEPTH), set()
    for threshold in (-1.0, 0.02, 0.1, 0.2):
        run = generate(target, PROMPT, 16, sampler=Sampler(0), exit_layer=EXIT, threshold=threshold)
        text, used = [*PROMPT, *run.tokens], [step.layers[0] for step in run.steps]
        _, deep = full_pass(target, text)
        sure = [gap > threshold for gap in gaps(target, run)]
        assert used == [DEPTH, *(EXIT if early else DEPTH for early in sure)]
        for place, depth in enumerate(used, start=len(PROMPT)):
            logits = shallow_logits(target, text[:place]) if depth == EXIT else deep[place - 1]
            assert text[place] == int(logits.argmax())
        seen.add(sum(used))
    assert len(seen) == 4


def test_the_exit_needs_strictly_more_confidence() -> None:
    target = varied_model(DEPTH)
    first = generate(target, PROMPT, 1, sampler=Sampler(0), exit_layer=EXIT)
    gap = confidence(shallow_logits(target, [*PROMPT, *first.tokens]))
    for threshold, used in ((gap - 1e-9, EXIT), (gap + 1e-9, DEPTH)):
        run = generate(target, PROMPT, 2, sampler=Sampler(0), exit_layer=EXIT, threshold=threshold)
        assert run.steps[1].layers == [used]
    logits = torch.tensor([3.0, 1.0, 2.0])
    assert confidence(logits) == pytest.approx(float(logits.softmax(0)[0] - logits.softmax(0)[2]))


def test_every_place_meets_the_deep_layers_once() -> None:
    target, places = varied_model(DEPTH), []
    run_layers = target.run

    def record(x: torch.Tensor, cache: Any = None, **more: Any) -> torch.Tensor:
        if more["layers"] == range(EXIT, DEPTH):
            places.append(len(x))
        return run_layers(x, cache, **more)

    target.run = record  # type: ignore[method-assign]
    run = generate(target, PROMPT, 30, sampler=Sampler(0), exit_layer=EXIT, threshold=0.1)
    del target.run
    used = [step.layers[0] for step in run.steps]
    at_the_end = next(i for i, layers in enumerate(reversed(used)) if layers == DEPTH)
    assert sum(places) == len(PROMPT) + len(run.tokens) - 1 - at_the_end
    assert len(places) == used.count(DEPTH)
    assert {1} < set(places[1:])  # passes with an empty stack, and with a full one


@pytest.mark.parametrize("rollback", [None, 0.0, 0.6, 3.0])
@pytest.mark.parametrize("threshold", [-1.0, 0.1, 1.0])
def test_depth_and_work_are_two_figures(threshold: float, rollback: float | None) -> None:
    """Work is what ran at the model, also in vain; of what left early only the last ones never met the deep layers."""
    target = varied_model(DEPTH)
    for limit in (1, 7, 20):
        options: dict[str, Any] = {"exit_layer": EXIT, "threshold": threshold, "rollback": rollback}
        with layer_tokens(target) as ran:
            run = generate(target, PROMPT, limit, sampler=Sampler(0), **options)
        assert sum(step.work for step in run.steps) == sum(ran) - DEPTH * (len(PROMPT) - 1)
        assert run.mean_work is not None
        assert run.mean_layers is not None
        used = [depth for step in run.steps for depth in step.layers]
        waiting = next((i for i, depth in enumerate(reversed(used)) if depth == DEPTH), len(used))
        if rollback is None:
            assert run.mean_work * limit == pytest.approx(DEPTH * limit - (DEPTH - EXIT) * waiting)
            assert all(step.kept == 0 for step in run.steps)  # nothing was put up for judgement
        else:
            vain = sum(len(step.drafted) - step.kept for step in run.steps)
            assert run.mean_work * limit == pytest.approx(DEPTH * (limit + vain))
        assert set(used) <= {EXIT, DEPTH}
    assert (run.mean_layers == DEPTH) == (threshold == 1 or rollback in {0.0, 0.6})  # too flat a model for 0.6


@pytest.mark.parametrize("threshold", [0.0, 0.1])
def test_a_rollback_below_log_2_gives_the_full_models_greedy_text(threshold: float) -> None:
    target, kept = varied_model(DEPTH), []
    wanted = autoregressive(target, PROMPT, 20, sampler=Sampler(0)).tokens
    for rollback in (0.0, 0.69, 50.0):
        options: dict[str, Any] = {"exit_layer": EXIT, "threshold": threshold, "rollback": rollback}
        with counted(target=target.blocks[0]) as calls:
            run = generate(target, PROMPT, 20, sampler=Sampler(0), **options)
        assert (run.tokens == wanted) == (rollback < math.log(2))
        assert calls["target"] == run.passes + run.draft_passes
        assert all(guessed(step.drafted, [], step.emitted[: step.kept]) for step in run.steps)
        assert len(run.tokens) == 20
        kept.append(sum(step.kept for step in run.steps))
    assert kept[0] == 0
    assert kept[2] > kept[0]


def test_a_rollback_of_0_keeps_the_full_models_law() -> None:
    target = flat_model()

    def law(rollback: float | None) -> dict[tuple[int, ...], float]:
        options: dict[str, Any] = {"exit_layer": 1, "threshold": 0.0, "rollback": rollback}
        return exact_law(lambda sampler: generate(target, [0, 1], 3, sampler=sampler, **options))

    wanted = autoregressive_law(target, [0, 1], 3)
    assert total_variation(law(0.0), wanted) < 1e-6
    assert total_variation(law(None), wanted) > 0.01  # without it the method is lossy, and says so


def test_with_a_rollback_the_end_of_the_text_is_checked_too() -> None:
    target, checked = varied_model(DEPTH), 0
    wanted = autoregressive(target, PROMPT, 20, sampler=Sampler(0)).tokens
    for eos in set(wanted):
        until = wanted[: wanted.index(eos) + 1]
        options: dict[str, Any] = {"exit_layer": EXIT, "threshold": 0.0, "rollback": 0.6}
        run = generate(target, PROMPT, 20, sampler=Sampler(0), eos=eos, **options)
        assert run.tokens == until
        assert all(eos not in step.drafted[:-1] for step in run.steps)  # nothing is guessed behind the end
        checked += len(run.steps[-1].drafted) > 0
    assert checked > 0


def test_cost_of_early_tokens_by_hand() -> None:
    deep = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4], [1.0, 0.0, 0.0]]).log()
    assert count_kept(deep, [0, 1, 2], None) == 3
    assert count_kept(deep, [0, 1, 2], -math.log(0.39)) == 3
    assert count_kept(deep, [0, 2, 2], -math.log(0.39)) == 1
    assert count_kept(deep, [1, 1, 2], -math.log(0.39)) == 0
    assert count_kept(deep[3:], [], 1.0) == 0


def draw_beta(alpha: float, beta: float, n: int, seed: int) -> list[float]:
    """Quantiles of a Beta law in random order: a sample without chance."""
    grid = torch.linspace(1e-4, 1 - 1e-4, 20001, dtype=torch.float64)
    mass = torch.distributions.Beta(torch.tensor(alpha).double(), torch.tensor(beta).double()).log_prob(grid).exp()
    wanted = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    found = grid[torch.searchsorted(mass.cumsum(0) / mass.sum(), wanted)]
    return found[torch.randperm(n, generator=torch.Generator().manual_seed(seed))].tolist()


def estimator_for(trust: float = 1.0) -> ThresholdEstimator:
    """An estimator that has seen two known Beta laws: Beta(2, 5) of disagreement, Beta(5, 3) of agreement."""
    estimator = ThresholdEstimator(trust=trust)
    for (alpha, beta), agrees in (((2.0, 5.0), False), ((5.0, 3.0), True)):
        estimator.learn(draw_beta(alpha, beta, 2000, 0), [agrees] * 2000)
    return estimator


def test_the_fit_recovers_two_beta_laws_and_a_threshold_between_their_means() -> None:
    estimator = estimator_for()
    threshold = estimator.update(0.9)
    assert estimator.shapes.tolist() == [pytest.approx([2.0, 5.0], rel=0.01), pytest.approx([5.0, 3.0], rel=0.01)]
    assert 2 / 7 < threshold < 5 / 8
    grid = torch.linspace(0.3, 0.9, 10, dtype=torch.float64)
    disagree, agree = (grid ** (a - 1) * (1 - grid) ** (b - 1) * n for a, b, n in ((2, 5, 30), (5, 3, 105)))
    assert threshold == pytest.approx(float(grid[agree / (agree + disagree) > 0.4][0]))


def test_labels_alone_move_the_threshold_away_from_what_was_meant() -> None:
    assert estimator_for(trust=1.0).update(0.9) == pytest.approx(0.4333, abs=1e-3)
    assert estimator_for(trust=0.2).update(0.9) == pytest.approx(0.3667, abs=1e-3)


def test_an_estimator_that_knows_too_little_keeps_what_it_has() -> None:
    estimator = ThresholdEstimator()
    assert estimator.update(0.8) == 0.8
    estimator.learn([0.6, 0.7, 0.7], [True, True, False])
    estimator.update(0.8)
    assert estimator.shapes[0].tolist() == [1.0, 2.0]  # one disagreement is no law
    assert float(estimator.shapes[1, 0] / estimator.shapes[1].sum()) == pytest.approx(0.65)
    hopeless = ThresholdEstimator(zeta=1.0)
    hopeless.learn([0.5, 0.6, 0.5, 0.6], [True, True, False, False])
    assert hopeless.update(0.8) == 0.9


def test_the_pairs_are_shallow_confidences_and_agreements_of_a_whole_text() -> None:
    target, estimator = varied_model(DEPTH), ThresholdEstimator()
    options: dict[str, Any] = {"exit_layer": EXIT, "threshold": 0.1, "estimator": estimator}
    run = generate(target, PROMPT, 25, sampler=Sampler(0), **options)
    used = [step.layers[0] for step in run.steps]
    seen = len(used) - next(i for i, layers in enumerate(reversed(used)) if layers == DEPTH)
    text = [*PROMPT, *run.tokens]
    _, deep = full_pass(target, text)
    early = [shallow_logits(target, text[:place]) for place in range(len(PROMPT), len(PROMPT) + seen)]
    agrees = [int(e.argmax()) == int(deep[len(PROMPT) - 1 + i].argmax()) for i, e in enumerate(early)]
    assert estimator.confidences == pytest.approx([confidence(e) for e in early])
    assert estimator.agreements == agrees
    assert len(set(agrees)) == 2
    gaps_again, agrees_again = pairs(torch.stack(early), deep[len(PROMPT) - 1 :][:seen])
    assert gaps_again == pytest.approx(estimator.confidences)
    assert agrees_again == agrees


def test_the_threshold_of_a_text_comes_from_the_texts_before_it() -> None:
    target, estimator = varied_model(DEPTH), ThresholdEstimator()
    options: dict[str, Any] = {"exit_layer": EXIT, "estimator": estimator}
    first = generate(target, PROMPT, 12, sampler=Sampler(0), threshold=0.15, **options)
    assert first == generate(target, PROMPT, 12, sampler=Sampler(0), threshold=0.15, exit_layer=EXIT)
    estimator.confidences, estimator.agreements = [0.1, 0.2, 0.1, 0.2], [False, False, True, True]
    second = generate(target, PROMPT, 12, sampler=Sampler(0), threshold=-1.0, **options)
    assert second == generate(target, PROMPT, 12, sampler=Sampler(0), threshold=estimator.threshold(), exit_layer=EXIT)


def test_layers_are_assigned_from_the_top_in_order() -> None:
    closest = torch.tensor([[1.0, 3.0, 2.0], [3.0, 1.0, 0.0], [2.0, 0.0, 1.0]])
    assert assigned(closest) == [0, 0, 1]  # the middle one may only look below the top one's
    assert assigned(torch.tensor([[5.0, 1.0, 9.0], [1.0, 5.0, 9.0], [1.0, 5.0, 9.0]])) == [0, 0, 0]
    assert assigned(torch.tensor([[0.0, 9.0, 9.0], [9.0, 0.0, 9.0], [9.0, 9.0, 0.0]])) == [0, 1, 2]


def test_the_loss_by_hand() -> None:
    target = language_model(5, layers=6).requires_grad_(requires_grad=False)
    tokens = torch.tensor([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]])
    states = [target.norm(target.run(target.embed(tokens[:, :-1]), layers=range(depth))) for depth in range(1, 7)]
    ce = [F.cross_entropy(target.project(s).flatten(0, 1), tokens[:, 1:].flatten()).item() for s in states]
    teachers = [states[2], states[5]]
    gap = torch.tensor([[float(((s - t) ** 2).mean()) for s in states[:2]] for t in teachers])
    top = int(gap[1].argmin())
    distance = (gap[1, top] + gap[0, 0]) / 2
    expected = (2 * ce[1] + 6 * ce[5]) / 8 + 0.5 * float(distance)
    assert loss(target, tokens, exit_layer=2).item() == pytest.approx(expected, rel=1e-5)
    assert loss(target, tokens, 2, weight=0.0).item() == pytest.approx((2 * ce[1] + 6 * ce[5]) / 8, rel=1e-5)


def test_teachers_do_not_learn_from_students() -> None:
    target = language_model(5, layers=4)
    tokens = torch.tensor([[0, 1, 2, 3, 4]])
    grown = loss(target, tokens, 2, weight=1.0) - loss(target, tokens, 2, weight=0.0)
    above = [target.blocks[3].down, target.blocks[2].attention.out]
    assert all(float(g.abs().max()) < 1e-12 for g in torch.autograd.grad(grown, above, retain_graph=True))
    assert float(torch.autograd.grad(grown, [target.blocks[0].down])[0].abs().max()) > 1e-6


def test_adapters_start_as_nothing_learn_alone_and_can_be_merged() -> None:
    target = language_model(5, layers=4).float().requires_grad_(requires_grad=False)
    tokens = torch.randint(5, (4, 9), generator=torch.Generator().manual_seed(0))
    adapters = Adapters(target.shape, rank=2)
    plain = loss(target, tokens, 1).item()
    assert adapters_loss(target, adapters, tokens).item() == pytest.approx(plain, rel=1e-6)
    optimiser = torch.optim.Adam(adapters.parameters(), lr=0.01)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    for _ in range(20):
        optimiser.zero_grad()
        adapters_loss(target, adapters, tokens).backward()
        optimiser.step()
    model = merged(target, adapters)
    assert loss(model, tokens, 1).item() == pytest.approx(adapters_loss(target, adapters, tokens).item(), rel=1e-5)
    assert loss(model, tokens, 1).item() < plain - 0.01
    assert all(torch.equal(before[name], value) for name, value in target.state_dict().items())


@pytest.mark.parametrize("exit_layer", [0, 3, -1])
def test_an_exit_without_layers_above_or_below_is_one_sentence(exit_layer: int) -> None:
    with pytest.raises(ValueError, match="it must leave deep layers, so choose 1 to 2"):
        generate(language_model(layers=3), [0], 3, sampler=Sampler(0), exit_layer=exit_layer)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"threshold": math.nan}, "threshold is not a number"),
        ({"rollback": math.nan}, "rollback is not a number"),
        ({"rollback": -0.1}, r"rollback is -0\.1; it is a cost in nats"),
    ],
)
def test_options_that_are_no_numbers_are_one_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        generate(language_model(layers=3), [0], 3, sampler=Sampler(0), exit_layer=1, **options)


@pytest.mark.parametrize(("zeta", "trust"), [(math.nan, 1.0), (0.4, math.nan), (1.1, 1.0), (0.4, -0.1)])
def test_an_estimator_of_nothing_is_one_sentence(zeta: float, trust: float) -> None:
    with pytest.raises(ValueError, match=r"both must lie between 0 and 1|(zeta|trust) is not a number"):
        ThresholdEstimator(zeta, trust)


def test_an_estimator_learns_nothing_from_a_broken_model() -> None:
    target, estimator = language_model(layers=3), ThresholdEstimator()
    torch.nn.init.constant_(target.norm.weight, math.nan)
    with pytest.raises(ValueError, match="not finite"):
        generate(target, [0], 3, sampler=Sampler(0), exit_layer=1, estimator=estimator)
    assert not estimator.confidences
    with pytest.raises(ValueError, match="a confidence is not a number from 0 to 1"):
        estimator.learn([0.5, math.nan], [True, False])


def test_an_estimator_takes_both_ends_and_a_value_that_came_twice_is_no_law() -> None:
    estimator = ThresholdEstimator()
    estimator.learn([0.0, 1.0], [False, True])
    assert estimator.confidences == [0.0, 1.0]
    estimator = ThresholdEstimator()
    estimator.learn([0.7, 0.7, 0.4, 0.6], [False, False, True, True])
    before = estimator.shapes[0].tolist()
    estimator.fit()
    assert estimator.shapes[0].tolist() == before
    assert estimator.shapes[1].isfinite().all()


def test_a_deep_step_names_the_depth_of_every_token() -> None:
    step = deep_step([4, 5, 6], 2, 9, (2, 7), stacked=4)
    assert (step.emitted, step.kept, step.layers) == ([4, 5, 9], 2, [2, 2, 7])
    assert deep_step([], 0, 9, (2, 7), stacked=1).layers == [7]


def test_defaults_are_the_documented_ones() -> None:
    assert defaults_of(importlib.import_module("reference_impls.early_exiting.free")) == {
        "generate.threshold": 0.9,
        "loss.weight": 0.5,
        "ThresholdEstimator.zeta": 0.4,
        "ThresholdEstimator.trust": 1.0,
    }
