"""Prompt lookup: what followed the longest earlier occurrence of the text's end is the guess."""

import torch
from torch.nn.functional import one_hot

from reference_impls.core.drafting import room
from reference_impls.core.generation import Generation, Step, check_length
from reference_impls.core.sampling import Sampler
from reference_impls.core.verify import verify_chain
from reference_impls.testing.case import Case
from reference_impls.testing.tiny import recited

CASE = Case(qualities=("perfect",), scene=recited, refused={"longest": (0,)})


@torch.inference_mode()
def generate(target, prompt, limit, *, sampler: Sampler, gamma: int = 4, longest: int = 3, eos=None):
    if gamma < 1 or longest < 1:
        raise ValueError("gamma and longest must be at least 1, for a guess and for what is looked up")
    check_length(target, prompt, limit)
    result, tokens, cache = Generation(), list(prompt), target.new_cache()
    go_on = limit > 0
    while go_on:
        draft = followers(tokens, room(len(tokens), gamma, target), longest)
        p = sampler.probs(target([*tokens[len(cache) :], *draft], cache, last=len(draft) + 1))
        q = one_hot(torch.tensor(draft, dtype=torch.long), target.shape.vocab).to(p.dtype)
        kept, extra = verify_chain(sampler, draft, q, p)
        emitted = [*draft[:kept], extra]
        tokens += emitted
        cache.crop(len(tokens) - 1)
        go_on = result.add(Step(emitted, draft, kept=kept), limit, eos)
    return result


def followers(text, gamma, longest):
    for size in range(longest, 0, -1):
        for start in range(len(text) - size - 1, -1, -1):
            if text[start : start + size] == text[-size:]:
                end = start + size
                return text[end : end + gamma]
    return []
