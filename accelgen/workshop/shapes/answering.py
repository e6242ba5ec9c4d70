"""An answer from all layers, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from reference_impls.core.arguments import checked
from reference_impls.core.generation import Step
from reference_impls.core.model import LanguageModel


@torch.inference_mode()
@checked
def predict(
    model: LanguageModel,
    tokens: Sequence[int],
    *,
    threshold: float = 1.0,  # noqa: ARG001 - where the method leaves early
) -> Step:
    """The likeliest label for `tokens`, and the layers that it took; `threshold` says how sure an exit must be.

    Raises ValueError for a model whose logits are not finite.
    """
    p = model(tokens, last=1)[0].softmax(-1)  # [vocab]
    if not p.isfinite().all():
        raise ValueError("the model's logits are not finite (NaN or infinite): check its weights")
    return Step([int(p.argmax())], layers=[model.shape.layers])


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    return {"model": zoo.load("target"), "threshold": 0.9}
