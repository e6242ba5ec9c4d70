"""Several sequences, continued one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from reference_impls.core.arguments import checked
from reference_impls.core.generation import Ends, Generation, Step
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler


@torch.inference_mode()
@checked
def generate(
    target: LanguageModel,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    *,
    sampler: Sampler,
    eos: Ends | None = None,
) -> list[Generation]:
    """Continue every prompt by up to its limit. Raises ValueError where there are not as many limits as prompts."""
    if len(prompts) != len(limits):
        raise ValueError(f"{len(prompts)} prompts have {len(limits)} limits; give each prompt one")
    pairs = zip(prompts, limits, strict=True)
    return [continued(target, prompt, limit, sampler, eos) for prompt, limit in pairs]


def continued(
    target: LanguageModel, prompt: Sequence[int], limit: int, sampler: Sampler, eos: Ends | None
) -> Generation:
    """One sequence, one pass of the target for each token."""
    result, tokens, cache = Generation(), list(prompt), target.new_cache()
    go_on = limit > 0
    # Between turns the cache holds all tokens but the last.
    while go_on:
        p = sampler.probs(target(tokens[len(cache) :], cache, last=1)[0])  # [vocab]
        emitted = [int(sampler.draw(p))]
        tokens += emitted
        go_on = result.add(Step(emitted), limit, eos)
    return result


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    return {"target": zoo.load("target")}
