"""A static exit schedule: the i-th new token runs through as many layers as its turn says."""

import torch

from reference_impls.core.generation import Generation, Step, check_length
from reference_impls.testing.case import Case

CASE = Case(
    options=lambda scene: {"schedule": (scene.target.shape.layers,)},
    exits=({"schedule": (1,)}, {"schedule": (2, 4)}, {"schedule": (5,)}),
    refused={"schedule": ((), (0,), (9,))},
)


@torch.inference_mode()
def generate(target, prompt, limit, *, schedule, sampler, eos=None):
    depth = target.shape.layers
    if not schedule or not all(1 <= layers <= depth for layers in schedule):
        raise ValueError(f"schedule is {tuple(schedule)}; give numbers of layers from 1 to {depth}, at least one")
    check_length(target, prompt, limit)
    result, tokens, cache = Generation(), list(prompt), target.new_cache()
    go_on = limit > 0
    while go_on:
        stop = schedule[len(result.tokens) % len(schedule)] if result.tokens else depth
        x = target.run(target.embed(tokens[len(cache) :]), cache, layers=range(stop))
        target.fill(x, cache, layers=range(stop, depth))
        tokens.append(int(sampler.draw(sampler.probs(target.logits(x[-1])))))
        go_on = result.add(Step(tokens[-1:], layers=[stop]), limit, eos)
    return result
