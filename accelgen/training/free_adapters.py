"""FREE's training of the target, in low-rank adapters, and how its shallow exit was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from accelgen.training.quality import held_out_loss
from reference_impls.core.generation import Generation
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.early_exiting import free
from reference_impls.early_exiting.calm import textual_loss
from reference_impls.zoo.adapters import Adapters, merged

DEPTHS = 4  # the exit lies at a quarter of the layers, 6 of 24, as in the authors' runs


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
    measured = _Measured(target, lambda model: free.loss(model, tokens, target.shape.layers // DEPTHS))
    found: Tensor = torch.func.functional_call(measured, adapted, ())
    return found


def measure(
    target: LanguageModel,
    adapters: Adapters,
    tokens: Tensor,
    sources: Sequence[Sequence[int]],
    *,
    count: int = 24,
    limit: int = 48,
) -> dict[str, Any]:
    """Held-out loss of both exits before and after, and what FREE does with the adapted model on `count` prompts."""
    model, exit_layer, sources = merged(target, adapters), target.shape.layers // DEPTHS, sources[:count]
    found: dict[str, Any] = {"held_out_nats_per_token": {}}
    for name, each in (("target", target), ("adapted", model)):
        exits = {"shallow": exit_layer, "deep": each.shape.layers}
        row = {kind: round(held_out_loss(each, tokens, exit_layer=layer), 4) for kind, layer in exits.items()}
        found["held_out_nats_per_token"][name] = row

    def texts(threshold: float, estimator: free.ThresholdEstimator | None = None) -> list[Generation]:
        options: dict[str, Any] = {"exit_layer": exit_layer, "threshold": threshold, "estimator": estimator}
        return [free.generate(model, source, limit, sampler=Sampler(0), **options) for source in sources]

    full, estimator = texts(1.0), free.ThresholdEstimator()
    texts(0.9, estimator)
    threshold = estimator.update(0.9)
    early = texts(threshold)
    lost = [textual_loss(a.tokens, b.tokens) for a, b in zip(early, full, strict=True)]
    found["estimator"] = {
        "prompts": len(sources),
        "pairs": len(estimator.confidences),
        "agreement": round(sum(estimator.agreements) / len(estimator.agreements), 4),
        "threshold": round(threshold, 4),
        "mean_layers": round(sum(run.mean_layers or 0.0 for run in early) / len(early), 2),
        "mean_loss": round(sum(lost) / len(lost), 4),
    }
    kinds = zip(("disagreement", "agreement"), estimator.shapes.tolist(), strict=True)
    found["beta_laws"] = {kind: {"alpha": round(a, 3), "beta": round(b, 3)} for kind, (a, b) in kinds}
    return found
