"""Several rows in one pass: padded on the right, where no causal row looks."""

import torch

from reference_impls.core.generation import Generation, Step, check_length
from reference_impls.testing.case import Case

CASE = Case()


@torch.inference_mode()
def generate(target, prompts, limits, *, sampler, eos=None):
    if len(prompts) != len(limits):
        raise ValueError(f"{len(prompts)} prompts have {len(limits)} limits; give each prompt one")
    for prompt, limit in zip(prompts, limits, strict=False):
        target.embed(prompt)  # refuses what is no text
        check_length(target, prompt, limit)
    results, texts = [Generation() for _ in prompts], [list(prompt) for prompt in prompts]
    open_ = [i for i, limit in enumerate(limits) if limit > 0]
    while open_:
        widest = max(len(texts[i]) for i in open_)
        rows = torch.tensor([texts[i] + [0] * (widest - len(texts[i])) for i in open_])
        logits = target(rows)
        ends = torch.tensor([len(texts[i]) - 1 for i in open_])
        drawn = sampler.draw(sampler.probs(logits[torch.arange(len(open_)), ends])).tolist()
        going = []
        for i, token in zip(open_, drawn, strict=True):
            texts[i].append(token)
            if results[i].add(Step([token]), limits[i], eos):
                going.append(i)
        open_ = going
    return results
