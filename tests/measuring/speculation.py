"""A made-up method that goes on with a prompt: a module like a real one, with a rule that its case counts."""

from __future__ import annotations

from typing import Any

import torch

from reference_impls.core.generation import Generation, Step
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.verify import verify_chain

VOCAB = 128
SIZES = {"dim": 16, "heads": 2, "kv_heads": 2, "head_dim": 8, "hidden": 16}


def model(seed: int, layers: int = 2) -> LanguageModel:
    """A random language model, the same for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LanguageModel(Shape(vocab=VOCAB, layers=layers, **SIZES)).eval()


def example() -> dict[str, Any]:
    """Models and options of the example run."""
    return {"target": model(0), "drafter": model(1, layers=1), "gamma": 2}


@torch.inference_mode()
def generate(
    target: LanguageModel, prompt: Any, limit: int, *, sampler: Sampler, drafter: Any, gamma: int = 2, eos: Any = None
) -> Generation:
    """Drafts a chain and checks it in one pass."""
    result, tokens = Generation(), list(prompt)
    cache, own = target.new_cache(), drafter.new_cache()
    go_on = limit > 0
    while go_on:
        draft, laws = list[int](), []
        for _ in range(gamma):
            laws.append(sampler.probs(drafter([*tokens, *draft][len(own) :], own, last=1)[0]))
            draft.append(int(sampler.draw(laws[-1])))
        p = sampler.probs(target([*tokens, *draft][len(cache) :], cache, last=gamma + 1))
        kept, extra = check(sampler, draft, torch.stack(laws), p)
        emitted = [*draft[:kept], extra]
        tokens += emitted
        cache.crop(len(tokens) - 1)
        own.crop(min(len(own), len(tokens) - 1))
        go_on = result.add(Step(emitted, draft, kept=kept, draft_passes=gamma), limit, eos)
    return result


def check(*laws: Any) -> tuple[int, int]:
    """A rule of the method's own, which its case counts among the rest."""
    return verify_chain(*laws)
