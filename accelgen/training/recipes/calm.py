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
NEVER = 2.0  # no confidence reaches it, so all layers run
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
    chosen = calibration(target, shelf.prompts("development"), exits)
    fresh = costs(target, shelf.prompts("test"), exits, [chosen["threshold"] or NEVER])
    return found | {"calibration": chosen, "test": {key: row[0] for key, row in fresh.items() if key != "losses"}}


def calibration(target: LanguageModel, prompts: Sequence[Sequence[int]], exits: Sequence[int]) -> dict[str, Any]:
    """CALM's threshold for greedy text, chosen by Learn then Test, and what each threshold does after these prompts."""
    found = costs(target, prompts, exits, THRESHOLDS)
    return {
        "measure": "softmax",
        "delta": DELTA,
        "epsilon": EPSILON,
        "prompts": len(prompts),
        "threshold": method.calibrate(THRESHOLDS, found["losses"], delta=DELTA, epsilon=EPSILON),
        **{key: dict(zip(map(str, THRESHOLDS), found[key], strict=True)) for key in ("mean_loss", "mean_layers")},
    }


def costs(
    target: LanguageModel, prompts: Sequence[Sequence[int]], exits: Sequence[int], thresholds: Sequence[float]
) -> dict[str, list[Any]]:
    """For each threshold the losses of the prompts, their mean, and the layers that a token takes.

    The loss of a prompt is one minus ROUGE-L between the early and the full text.
    """

    def texts(threshold: float) -> list[Generation]:
        options: dict[str, Any] = {"sampler": Sampler(0), "exits": exits, "threshold": threshold}
        return [method.generate(target, prompt, LIMIT, **options) for prompt in prompts]

    full = texts(NEVER)
    found: dict[str, list[Any]] = {"losses": [], "mean_loss": [], "mean_layers": []}
    for threshold in thresholds:
        early = texts(threshold)
        lost = [method.textual_loss(a.tokens, b.tokens) for a, b in zip(early, full, strict=True)]
        found["losses"].append(lost)
        found["mean_loss"].append(round(sum(lost) / len(lost), 4))
        found["mean_layers"].append(round(sum(run.mean_layers or 0.0 for run in early) / len(early), 2))
    return found


RECIPE = Recipe("exit-classifier", Windows(steps=1_000), train, measure, needs=("target",))
