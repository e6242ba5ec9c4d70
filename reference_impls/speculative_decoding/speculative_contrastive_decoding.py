r"""Speculative Contrastive Decoding: the small model drafts, and the text is steered away from what it would say.

Speculative Contrastive Decoding. Hongyi Yuan, Keming Lu, Fei Huang, Zheng Yuan, Chang Zhou. ACL 2024.
https://arxiv.org/abs/2311.08981

Idea
----
Contrastive decoding prefers tokens that a large model, the expert, finds likelier than a small one, the amateur: so the
faults that small models have most are pushed away. It needs both models for every token. Speculative decoding runs a
small model beside a large one as well, to draft. Let one small model do both: its draft is judged by the contrastive
law in place of the expert's, and contrastive text comes with few passes of the expert.

Algorithm
---------
The target is the expert, with law $p$; the drafter is the amateur, with law $q$.

1. *Draft*: draw $x_i \sim q_i$ for $i = 1, \dots, \gamma$ with the drafter, and keep its logits.
2. *Verify*: one pass of the target gives $p_1, \dots, p_{\gamma + 1}$. At each place the score of a token is
   $s(x) = (1 + \beta) \log p(x) - \beta \log q(x)$ where $p(x) \ge \alpha \max_y p(y)$, and $-\infty$ elsewhere: the
   contrast alone would also praise what both models find absurd. The softmax of $s$ is the contrastive law $c$.
3. Keep $x_i$ with probability $\min(1, c_i(x_i) / q_i(x_i))$, from the left, until the first one fails.
4. If guess $i$ failed, draw the extra token from $\mathrm{norm}(\max(0, c_i - q_i))$. If none failed, it comes from
   $c_{\gamma + 1}$, and for that the drafter runs once more: the contrast needs its law at this place too.
5. *Commit*: append the kept guesses and the extra token; roll both caches back to them.

If every guess is kept with probability $\lambda$, independently, a step yields
$(1 - \lambda^{\gamma + 1}) / (1 - \lambda)$ tokens on average for one pass of the target and
$\gamma + \lambda^\gamma$ passes of the drafter.

Guarantee
---------
Lossy on purpose, and exact: the text has the contrastive law of the two models, which is not the target's. A kept guess
$x$ has mass $\min(c, q)$, the residual adds $\max(0, c - q)$, together $c$. At temperature 0 the text is that of greedy
contrastive decoding, token for token. With `beta` 0 nothing is contrasted and only the mask is left; with `alpha` 0 as
well this is ordinary speculative decoding, and the law is the target's. The drafter's extra pass of step 4 runs also
then, although nothing asks for its law.

Differences from the paper
--------------------------
1. Temperature, top-k and top-p act on $c$ as on any law, and on the $q$ that guesses are drawn from. Mask and contrast
   look at the untempered laws, so that $c$ means the same at every temperature, 0 included, where the $q$ of the draws
   is one-hot and has no logarithm.
2. Contrast and mask have the form of algorithm 2 of O'Brien and Lewis (2023, https://arxiv.org/abs/2309.09117), with
   the `alpha` and `beta` that published code of it has as defaults. The older form, $\log p - \log q$ alone, is what
   the order of the scores tends to for a large `beta`.
3. A token that the amateur holds for impossible would have an infinite score. Its logarithm ends at that of the
   smallest normal number of the type, so such a token, where the expert finds it plausible, wins by far.
4. The whole text has to fit into the drafter's positions as well as into the target's: where the amateur cannot read,
   the law is not defined.

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.core.sampling import Sampler
>>> from reference_impls.speculative_decoding.speculative_contrastive_decoding import contrast, example, generate
>>> expert, amateur = torch.tensor([0.5, 0.45, 0.05]).log(), torch.tensor([0.8, 0.1, 0.1]).log()
>>> [round(x, 3) for x in contrast(expert, amateur, alpha=0.2, beta=0.5).softmax(-1).tolist()]
[0.293, 0.707, 0.0]
>>> prompt = zoo.encode("def read_lines(path):")
>>> result = generate(prompt=prompt, limit=24, sampler=Sampler(temperature=0), **example())
>>> len(result.tokens), result.passes < 24
(24, True)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from reference_impls.core.arguments import checked
from reference_impls.core.drafting import check_draft, check_guesses, room
from reference_impls.core.generation import Ends, Generation, Step, check_length
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler, wide
from reference_impls.core.verify import accepted, residual


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
    alpha: float = 0.1,
    beta: float = 0.5,
    eos: Ends | None = None,
) -> Generation:
    """Generate up to `limit` tokens after `prompt` from the contrastive law of `target` against `drafter`.

    A token below the share `alpha` of the target's best one is never chosen; `beta` is the strength of the contrast.
    Raises ValueError for a gamma below 1, an alpha outside [0, 1], a beta that is negative or infinite, or models of
    different vocabularies.
    """
    check_draft(gamma, target, drafter)
    check_contrast(alpha, beta)
    check_length(target, prompt, limit)
    check_length(drafter, prompt, limit, whose="drafter")
    result, tokens = Generation(), list(prompt)
    target_cache, draft_cache = target.new_cache(), drafter.new_cache()
    go_on = limit > 0
    # Between turns both caches hold all tokens but the last.
    while go_on:
        # Draft: the amateur guesses gamma tokens, or fewer where positions end; its logits are needed again.
        draft, guessed = list[int](), list[Tensor]()
        while len(draft) < min(room(len(tokens), gamma, model) for model in (target, drafter)):
            guessed.append(drafter([*tokens, *draft][len(draft_cache) :], draft_cache, last=1))  # [1, vocab]
            draft.append(int(sampler.draw(sampler.probs(guessed[-1]))))
            check_guesses(draft[-1:])
        # Verify: the expert reads all guesses in one pass; they are judged by the contrastive law.
        expert = target([*tokens[len(target_cache) :], *draft], target_cache, last=len(draft) + 1)  # [gamma + 1, vocab]
        amateur = torch.cat([expert[:0], *guessed])  # [gamma, vocab]
        c, q = sampler.probs(contrast(expert[:-1], amateur, alpha, beta)), sampler.probs(amateur)
        kept = int(accepted(sampler, draft, q, c))
        if kept < len(draft):
            law = residual(c[kept], q[kept])  # [vocab]
        else:  # the place behind the draft has no contrast yet
            guessed.append(drafter([*tokens, *draft][len(draft_cache) :], draft_cache, last=1))
            law = sampler.probs(contrast(expert[-1], guessed[-1][0], alpha, beta))  # [vocab]
        # Commit: append the kept guesses and the extra token; both caches forget the rest.
        emitted = [*draft[:kept], int(sampler.draw(law))]
        tokens += emitted
        target_cache.crop(len(tokens) - 1)
        draft_cache.crop(len(tokens) - 1)
        go_on = result.add(Step(emitted, draft, kept=kept, draft_passes=len(guessed)), limit, eos)
    return result


@checked
def contrast(expert: Tensor, amateur: Tensor, alpha: float, beta: float) -> Tensor:
    """The scores [..., vocab], logits of the contrastive law, from both models' logits [..., vocab] at the same places.

    Raises ValueError for an alpha outside [0, 1] or a beta that is negative or infinite.
    """
    check_contrast(alpha, beta)
    log_p, log_q = (logits.log_softmax(-1, wide(logits)) for logits in (expert, amateur))
    least = math.log(torch.finfo(log_q.dtype).tiny)
    scores = (1 + beta) * log_p - beta * log_q.clamp(min=least)
    if alpha == 0:
        return scores  # the mask would ask for the logarithm of 0
    plausible = log_p >= log_p.amax(-1, keepdim=True) + math.log(alpha)
    return scores.where(plausible, -math.inf)


def check_contrast(alpha: float, beta: float) -> None:
    """One clear sentence for a mask or a contrast that cannot be."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; it is a share of the best token's probability and must lie in [0, 1]")
    if not 0 <= beta < math.inf:
        raise ValueError(f"beta is {beta}; the strength of the contrast is a number from 0, which is none, on")


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    return {"target": zoo.load("target"), "drafter": zoo.load("drafter"), "gamma": 3, "alpha": 0.1, "beta": 0.5}
