"""An answer from the first layer that is sure enough of it."""

import math

import torch

from reference_impls.core.generation import Step
from reference_impls.core.model import LanguageModel
from reference_impls.testing.case import Case

CASE = Case(refused={"threshold": (math.nan,)})


@torch.inference_mode()
def predict(model: LanguageModel, tokens, *, threshold: float = 0.5):
    if math.isnan(threshold):
        raise ValueError(f"threshold is {threshold}; give a number: above 1 the text runs through all layers")
    x, depth = model.embed(tokens), model.shape.layers
    for layer in range(depth):
        x = model.run(x, layers=range(layer, layer + 1))
        p = model.logits(x[-1]).softmax(-1)
        if not p.isfinite().all():
            raise ValueError("the model's logits are not finite (NaN or infinite): check its weights")
        best = float(p.max())
        if best >= threshold:
            break
    return Step([int(p.argmax())], layers=[layer + 1])


generate = predict
