"""A drafter that is a table, and learns from every text what follows what."""

import torch
from torch.nn.functional import one_hot

from reference_impls.core.drafting import room
from reference_impls.core.generation import Generation, Step, check_length
from reference_impls.core.verify import verify_chain
from reference_impls.testing.case import Case


class Table:
    def __init__(self, vocab):
        self.after = list(range(vocab))


CASE = Case(options=lambda scene: {"table": Table(scene.target.shape.vocab)}, learns=("table",))


@torch.inference_mode()
def generate(target, prompt, limit, *, table, sampler, gamma=2, eos=None):
    if gamma < 1:
        raise ValueError(f"gamma is {gamma}; draft at least 1 token a step")
    target.embed(prompt)  # refuses what is no text
    check_length(target, prompt, limit)
    result, tokens, cache = Generation(), list(prompt), target.new_cache()
    go_on = limit > 0
    while go_on:
        draft, last = [], tokens[-1]
        for _ in range(room(len(tokens), gamma, target)):
            last = table.after[last]
            draft.append(last)
        p = sampler.probs(target([*tokens[len(cache) :], *draft], cache, last=len(draft) + 1))
        guesses = torch.tensor(draft, dtype=torch.long)
        kept, extra = verify_chain(sampler, draft, one_hot(guesses, target.shape.vocab).to(p.dtype), p)
        emitted = [*draft[:kept], extra]
        tokens += emitted
        cache.crop(len(tokens) - 1)
        go_on = result.add(Step(emitted, draft, kept=kept), limit, eos)
        if min(emitted) >= 0:
            table.after[tokens[-len(emitted) - 1]] = emitted[0]
    return result
