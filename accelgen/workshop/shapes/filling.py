"""A canvas that is filled from left to right, one place a pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from reference_impls.core.arguments import checked
from reference_impls.core.generation import Generation, Step
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler


@torch.inference_mode()
@checked
def generate(model: LanguageModel, prompt: Sequence[int], length: int, *, steps: int, sampler: Sampler) -> Generation:
    """Fill `length` places after `prompt` in `steps` passes. Raises ValueError for numbers that cannot work."""
    if steps < 1 or length < 0:
        raise ValueError(f"steps is {steps} and length is {length}; at least 1 pass fills a canvas of 0 places or more")
    result, canvas = Generation(), list(prompt)
    go_on = length > 0
    # Between turns `canvas` holds the prompt and the places that are filled.
    while go_on:
        p = sampler.probs(model(canvas, last=1)[0])  # [vocab]
        emitted = [int(sampler.draw(p))]
        canvas += emitted
        go_on = result.add(Step(emitted, canvas=canvas[len(prompt) :]), length)
    return result


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    return {"model": zoo.load("target"), "steps": 8}
