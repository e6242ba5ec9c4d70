r"""Speculative Sampling: a short draft, scored in parallel, then modified rejection sampling.

Accelerating Large Language Model Decoding with Speculative Sampling. Charlie Chen, Sebastian Borgeaud, Geoffrey Irving,
Jean-Baptiste Lespiau, Laurent Sifre, John Jumper. arXiv 2023. https://arxiv.org/abs/2302.01318

Idea
----
Scoring a few given tokens takes a large model about as long as sampling one, as long as memory traffic sets the pace.
So a small drafter writes `gamma` tokens, the target scores all of them in parallel, and modified rejection sampling
keeps a prefix and repairs the first token that does not survive. It was found at the same time as, and independently
of, the speculative decoding of Leviathan et al.; the acceptance rule is the same.

Algorithm
---------
1. *Draft*: sample $x_1, \dots, x_\gamma$ with the drafter and store the whole laws $q_1, \dots, q_\gamma$ that they
   were drawn from, after temperature, top-k and nucleus filters.
2. *Verify*: the target scores the draft in one pass; the same filters make $p_1, \dots, p_{\gamma+1}$ of its logits.
3. From left to right keep $x_i$ with probability $\min(1, p_i(x_i) / q_i(x_i))$. At the first rejection draw the extra
   token from $\mathrm{norm}(\max(0, p_i - q_i))$, with fresh randomness, and end the step.
4. If all were kept, draw the extra token from $p_{\gamma+1}$.
5. *Commit*: between 1 and $\gamma + 1$ tokens; both caches forget what was rejected.

Guarantee
---------
Exact distribution. Token $x$ leaves a step with probability
$q(x) \min(1, p(x)/q(x)) + (1 - \alpha)\, \max(0, p(x) - q(x)) / (1 - \alpha)
= \min(p(x), q(x)) + \max(0, p(x) - q(x)) = p(x)$,
with $\alpha = \sum_x \min(p(x), q(x))$, because $\sum_x \max(0, p(x) - q(x)) = 1 - \alpha$.
Filters keep this exact: a token outside the target's nucleus has $p = 0$ and is never kept.

Differences from the paper
--------------------------
1. The paper calls the target $q$ and the draft $p$, and the draft length $K$. Here, as everywhere in this project, $p$
   is the target, $q$ the drafter and $\gamma$ (`gamma`) the draft length.
2. The paper trains a drafter for its target: wide and shallow, because it runs on many accelerators. The zoo's drafter
   is shallow too, two layers against twenty-four, and the target was grown from it.
3. The target's first pass reads the prompt together with the first draft.

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.core.sampling import Sampler
>>> from reference_impls.speculative_decoding.speculative_sampling_chen import example, generate
>>> prompt = zoo.encode("def read_lines(path):")
>>> result = generate(prompt=prompt, limit=24, sampler=Sampler(temperature=0.8, top_p=0.9, seed=1), **example())
>>> len(result.tokens), result.passes < 24
(24, True)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from reference_impls.core.arguments import checked
from reference_impls.core.drafting import check_draft, draft_chain, room
from reference_impls.core.generation import Ends, Generation, Step, check_length
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.verify import verify_chain


@torch.inference_mode()
@checked
def generate(
    target: LanguageModel,
    prompt: Sequence[int],
    limit: int,
    *,
    drafter: LanguageModel,
    sampler: Sampler,
    gamma: int = 4,
    eos: Ends | None = None,
) -> Generation:
    """Generate up to `limit` tokens after `prompt`; the target scores `gamma` drafted tokens in each pass.

    Raises ValueError for a gamma below 1 or models of different vocabularies.
    """
    check_draft(gamma, target, drafter)
    check_length(target, prompt, limit)
    result, tokens = Generation(), list(prompt)
    target_cache, draft_cache = target.new_cache(), drafter.new_cache()
    go_on = limit > 0
    # Between turns the target's cache holds all tokens but the last; the drafter's may lack one more.
    while go_on:
        # Draft: tokens, and the laws that they were really drawn from.
        fitting = room(len(tokens), gamma, target, drafter)  # fewer than gamma where a model's positions end
        draft, q = draft_chain(sampler, drafter, tokens, draft_cache, fitting)
        # Verify: score the draft in parallel, then modified rejection sampling.
        unseen = [*tokens[len(target_cache) :], *draft]
        p = sampler.probs(target(unseen, target_cache, last=len(draft) + 1))  # [gamma + 1, vocab]
        kept, extra = verify_chain(sampler, draft, q, p)
        # Commit: the kept tokens and the extra one; both caches forget the rest.
        emitted = [*draft[:kept], extra]
        tokens += emitted
        target_cache.crop(len(tokens) - 1)
        draft_cache.crop(len(tokens) - 1)
        go_on = result.add(Step(emitted, draft, kept=kept, draft_passes=len(draft)), limit, eos)
    return result


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    return {"target": zoo.load("target"), "drafter": zoo.load("drafter"), "gamma": 4}
