"""Masked filling: in each pass the surest holes are filled, as many as are due."""

import torch

from reference_impls.core.generation import Generation, Step
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.testing.case import Case

CASE = Case()


class Filler(LanguageModel):
    def __init__(self, shape: Shape, mask_id: int) -> None:
        super().__init__(shape)
        self.mask_id = mask_id


@torch.inference_mode()
def generate(model: Filler, prompt, length, *, steps, sampler: Sampler):
    if steps < 1 or length < 0:
        raise ValueError(f"steps is {steps} and length is {length}; at least 1 pass fills a canvas of 0 places or more")
    result, start = Generation(), len(prompt)
    canvas, left = [*prompt, *[model.mask_id] * length], steps
    while left > 0 and length:
        holes = [i for i, token in enumerate(canvas) if i >= start and token == model.mask_id]
        visible = torch.ones(len(canvas), len(canvas), dtype=torch.bool)
        logits = model.logits(model.run(model.embed(canvas), visible=visible))[holes]
        logits[:, model.mask_id] = -torch.inf
        p = sampler.probs(logits)
        drawn = sampler.draw(p)
        if (drawn < 0).any():
            raise ValueError("the model's logits are not finite (NaN or infinite): check its weights")
        sure = p.gather(-1, drawn[:, None]).squeeze(-1)
        due = -(-len(holes) // left)
        for place in sure.topk(due).indices.tolist():
            canvas[holes[place]] = int(drawn[place])
        left -= 1
        emitted = canvas[start:] if not left else []
        result.add(Step(emitted, canvas=canvas[start:], masked=[i - start for i in holes]), length)
    return result
