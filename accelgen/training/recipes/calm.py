"""CALM's probe of the exits, learnt on the frozen target, and the threshold that Learn then Test chooses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from accelgen.training.parts import Windows, learn
from accelgen.training.quality import probe_figures
from accelgen.training.recipe import Part, Recipe
from accelgen.training.shelf import Shelf
from reference_impls.core.generation import Generation
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.early_exiting import calm as method

THRESHOLDS = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)  # from cautious to bold
DELTA, EPSILON = 0.25, 0.1  # the loss that is allowed, and the chance that it is larger
LIMIT = 48


def train(shelf: Shelf, settings: Windows) -> Part:
    """The probe of the target's exits."""
    target, exits = shelf.load("target"), exits_of(shelf)
    part = Part.of(method.ExitClassifier, shape=target.shape)
    learn(shelf, settings, part.module, lambda x, _: method.classifier_loss(target, part.module, x, exits))
    return part


def exits_of(shelf: Shelf) -> tuple[int, ...]:
    """After which layers the target was trained to be read out."""
    return tuple(shelf.facts("target")["recipe"]["exits"])


def measure(shelf: Shelf, _settings: Windows, probe: method.ExitClassifier) -> dict[str, Any]:
    """How well the probe tells places where an exit agrees, and the threshold with what it costs."""
    target, exits = shelf.load("target"), exits_of(shelf)
    found = probe_figures(target, probe, shelf.held_out(), exits)
    return found | {"calibration": calibration(target, shelf.prompts("development"), shelf.prompts("test"), exits)}


def calibration(
    target: LanguageModel, development: Sequence[Sequence[int]], test: Sequence[Sequence[int]], exits: Sequence[int]
) -> dict[str, Any]:
    """CALM's threshold for greedy text, chosen after one set of prompts, and what every threshold does after another.

    The loss of a prompt is one minus ROUGE-L between the early and the full text.
    """

    def texts(prompts: Sequence[Sequence[int]], threshold: float) -> list[Generation]:
        options: dict[str, Any] = {"sampler": Sampler(0), "exits": exits, "threshold": threshold}
        return [method.generate(target, prompt, LIMIT, **options) for prompt in prompts]

    def losses(early: list[Generation], full: list[Generation]) -> list[float]:
        return [method.textual_loss(a.tokens, b.tokens) for a, b in zip(early, full, strict=True)]

    full = texts(development, 2.0)
    chosen = method.calibrate(
        THRESHOLDS, [losses(texts(development, t), full) for t in THRESHOLDS], delta=DELTA, epsilon=EPSILON
    )
    full, loss, layers = texts(test, 2.0), {}, {}
    for threshold in THRESHOLDS:
        early = texts(test, threshold)
        loss[str(threshold)] = round(sum(losses(early, full)) / len(early), 4)
        layers[str(threshold)] = round(sum(run.mean_layers or 0.0 for run in early) / len(early), 2)
    return {
        "measure": "softmax",
        "delta": DELTA,
        "epsilon": EPSILON,
        "prompts": len(development),
        "threshold": chosen,
        "test_prompts": len(test),
        "mean_loss": loss,
        "mean_layers": layers,
    }


RECIPE = Recipe("exit-classifier", Windows(steps=1_000), train, measure, needs=("target",))
