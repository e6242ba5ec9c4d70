"""FREE's training of the target, in low-rank adapters, and the threshold that its estimator comes to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from accelgen.training.parts import Windows, learn
from accelgen.training.quality import held_out_loss
from accelgen.training.recipe import Part, Recipe
from accelgen.training.shelf import Shelf
from reference_impls.core.generation import Generation
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.early_exiting import free as method
from reference_impls.early_exiting.calm import textual_loss
from reference_impls.zoo.adapters import Adapters, merged

DEPTHS = 4  # the exit lies at a quarter of the layers, 6 of 24, as in the authors' runs
LIMIT, PROMPTS, QUANTILE = 48, 24, 0.9


class _Measured(nn.Module):
    """A function of a model as a module, so that the model's weights can be replaced for one call."""

    def __init__(self, target: LanguageModel, function: Callable[[LanguageModel], Tensor]) -> None:
        super().__init__()
        self.target, self.function = target, function

    def forward(self) -> Tensor:
        return self.function(self.target)


def loss(target: LanguageModel, adapters: Adapters, tokens: Tensor) -> Tensor:
    """FREE's loss of the adapted target on tokens [batch, n]; only the adapters learn."""
    adapted = {f"target.{name}": value for name, value in adapters.adapt(target).items()}
    measured = _Measured(target, lambda model: method.loss(model, tokens, target.shape.layers // DEPTHS))
    found: Tensor = torch.func.functional_call(measured, adapted, ())
    return found


def train(shelf: Shelf, settings: Windows) -> Part:
    """Adapters of all matrices of the target."""
    target = shelf.load("target")
    part = Part.of(Adapters, shape=target.shape)
    learn(shelf, settings, part.module, lambda x, _: loss(target, part.module, x))
    return part


def measure(shelf: Shelf, _settings: Windows, adapters: Adapters) -> dict[str, Any]:
    """Held-out loss of both exits before and after, the threshold of the estimator, and what FREE does with it."""
    target, tokens = shelf.load("target"), shelf.held_out()
    model, exit_layer = merged(target, adapters), target.shape.layers // DEPTHS
    found: dict[str, Any] = {"held_out_nats_per_token": {}}
    for name, each in (("target", target), ("adapted", model)):
        exits = {"shallow": exit_layer, "deep": each.shape.layers}
        row = {kind: round(held_out_loss(each, tokens, exit_layer=layer), 4) for kind, layer in exits.items()}
        found["held_out_nats_per_token"][name] = row

    def texts(side: str, threshold: float, estimator: method.ThresholdEstimator | None = None) -> list[Generation]:
        options: dict[str, Any] = {"exit_layer": exit_layer, "threshold": threshold, "estimator": estimator}
        prompts = shelf.prompts(side, PROMPTS)
        return [method.generate(model, prompt, LIMIT, sampler=Sampler(0), **options) for prompt in prompts]

    estimator = method.ThresholdEstimator()
    texts("development", QUANTILE, estimator)
    threshold = estimator.update(QUANTILE)
    early, full = texts("test", threshold), texts("test", 1.0)
    lost = [textual_loss(a.tokens, b.tokens) for a, b in zip(early, full, strict=True)]
    found["estimator"] = {
        "prompts": PROMPTS,
        "pairs": len(estimator.confidences),
        "agreement": round(sum(estimator.agreements) / len(estimator.agreements), 4),
        "threshold": round(threshold, 4),
        "mean_layers": round(sum(run.mean_layers or 0.0 for run in early) / len(early), 2),
        "mean_loss": round(sum(lost) / len(lost), 4),
    }
    kinds = zip(("disagreement", "agreement"), estimator.shapes.tolist(), strict=True)
    found["beta_laws"] = {kind: {"alpha": round(a, 3), "beta": round(b, 3)} for kind, (a, b) in kinds}
    return found


RECIPE = Recipe("free-adapters", Windows(steps=600, batch=3, rates=(2e-3, 2e-3)), train, measure, needs=("target",))
