r"""Speculative Decoding: a small model guesses, the large one checks all guesses in a single pass.

Fast Inference from Transformers via Speculative Decoding. Yaniv Leviathan, Matan Kalman, Yossi Matias. ICML 2023.
https://arxiv.org/abs/2211.17192

Idea
----
A pass over several tokens costs a large model hardly more than a pass over one, because reading its weights dominates.
So let a cheap drafter guess `gamma` tokens and let the target judge them together. A guess is kept with a probability
that makes up exactly for the drafter's bias, so the text has the law of the target alone.

Algorithm
---------
1. *Draft*: draw $x_i \sim q_i = q(\cdot \mid x_{<i})$ for $i = 1, \dots, \gamma$ with the drafter.
2. *Verify*: one pass of the target gives $p_1, \dots, p_{\gamma+1}$. Keep $x_i$ with probability
   $\min(1, p_i(x_i) / q_i(x_i))$, from the left, until the first one fails.
3. If guess $i$ failed, draw the extra token from the residual $\mathrm{norm}(\max(0, p_i - q_i))$; if none failed,
   from $p_{\gamma+1}$.
4. *Commit*: append the kept guesses and the extra token; roll both caches back to them.
5. With the acceptance rate $\alpha = E[\sum_x \min(p(x), q(x))]$ a step yields
   $(1 - \alpha^{\gamma+1}) / (1 - \alpha)$ tokens on average; `best_gamma` picks $\gamma$ from $\alpha$ and the
   cost ratio $c$ of a drafter pass to a target pass.

Guarantee
---------
Exact distribution: a kept guess $x$ has mass $\min(p, q)$, the residual adds $\max(0, p - q)$, together $p$.
With `lenience` $l < 1$ the method is lossy: guesses are kept with $\min(1, p / (l q))$, and no token becomes more
likely than $p / l$.

Differences from the paper
--------------------------
1. Any model of the same vocabulary can draft; beside a small language model, `Bigram` shows the cheapest kind.
2. `lenience` at temperature 0 follows from the general rule on one-hot laws, where it changes nothing; the paper's
   appendix compares $p(x)$ with $l \max p$ of the soft law instead.
3. The target's first pass reads the prompt together with the first guesses, so a run has no separate prefill pass.

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.core.sampling import Sampler
>>> from reference_impls.speculative_decoding.speculative_decoding_leviathan import (
...     best_gamma, example, expected_tokens, generate)
>>> prompt = zoo.encode("def read_lines(path):")
>>> result = generate(prompt=prompt, limit=24, sampler=Sampler(temperature=0), **example())
>>> len(result.tokens), result.passes < 24
(24, True)
>>> round(expected_tokens(alpha=0.8, gamma=4), 3), best_gamma(alpha=0.8, c=0.1)
(3.362, 6)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from reference_impls.core.arguments import checked
from reference_impls.core.cache import Cache
from reference_impls.core.drafting import check_draft, draft_chain, room
from reference_impls.core.generation import Ends, Generation, Step, check_length
from reference_impls.core.layers import Shape, as_tensor
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
    drafter: LanguageModel | Bigram,
    sampler: Sampler,
    gamma: int = 4,
    lenience: float = 1.0,
    eos: Ends | None = None,
) -> Generation:
    """Generate up to `limit` tokens after `prompt`; `gamma` guesses are checked in each pass of the target.

    Raises ValueError for a gamma below 1, a lenience outside (0, 1], or models of different vocabularies.
    """
    check_draft(gamma, target, drafter)
    if not 0 < lenience <= 1:
        raise ValueError(f"lenience is {lenience}; it must lie in (0, 1], where 1 is exact")
    check_length(target, prompt, limit)
    result, tokens = Generation(), list(prompt)
    target_cache, draft_cache = target.new_cache(), drafter.new_cache()
    go_on = limit > 0
    # Between turns the target's cache holds all tokens but the last; the drafter's may lack one more.
    while go_on:
        # Draft: the drafter guesses gamma tokens, one after another, or fewer where a model's positions end.
        fitting = room(len(tokens), gamma, target, drafter)
        draft, q = draft_chain(sampler, drafter, tokens, draft_cache, fitting)
        # Verify: the target gives the laws of all guesses, and of one token more, in one pass.
        unseen = [*tokens[len(target_cache) :], *draft]
        p = sampler.probs(target(unseen, target_cache, last=len(draft) + 1))  # [gamma + 1, vocab]
        kept, extra = verify_chain(sampler, draft, q, p, lenience)
        # Commit: append the kept guesses and the extra token; both caches forget the rest.
        emitted = [*draft[:kept], extra]
        tokens += emitted
        target_cache.crop(len(tokens) - 1)
        draft_cache.crop(len(tokens) - 1)
        go_on = result.add(Step(emitted, draft, kept=kept, draft_passes=len(draft)), limit, eos)
    return result


@checked
def expected_tokens(alpha: float, gamma: int) -> float:
    """Tokens per target pass if each guess is kept with probability alpha independently (equation 1).

    Raises ValueError for an alpha outside [0, 1] and for a gamma below 0.
    """
    if not 0 <= alpha <= 1 or gamma < 0:
        raise ValueError(f"alpha is {alpha} and gamma is {gamma}; alpha is a chance, from 0 to 1, and gamma at least 0")
    return gamma + 1.0 if alpha == 1 else (1 - alpha ** (gamma + 1)) / (1 - alpha)


@checked
def speedup(alpha: float, gamma: int, c: float) -> float:
    """Expected ratio of wall time to autoregressive decoding (theorem 3.8); c = drafter pass / target pass."""
    if not 0 <= c < math.inf:
        raise ValueError(f"c is {c}; it is the time of a drafter's pass over that of the target's, so at least 0")
    return expected_tokens(alpha, gamma) / (gamma * c + 1)


@checked
def best_gamma(alpha: float, c: float, largest: int = 64) -> int:
    """The number of guesses with the greatest expected speedup (section 3.5); 0 if drafting cannot pay."""
    if largest < 0:
        raise ValueError(f"largest is {largest}; the most guesses to think of are at least 0")
    return max(range(largest + 1), key=lambda gamma: speedup(alpha, gamma, c))


class Bigram(nn.Module):
    """A drafter of negligible cost: a table [vocab, vocab] of next-token logits by the last token (section 3.6)."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table, requires_grad=False)
        self.shape = Shape(vocab=len(table), dim=0, layers=1, heads=0, kv_heads=0, head_dim=0, hidden=0)

    @classmethod
    @checked
    def count(cls, tokens: Sequence[int], vocab: int) -> Bigram:
        """Counts of neighbouring `tokens`, each pair seen one time more than it was, so that none is impossible."""
        row = as_tensor(tokens, vocab, torch.device("cpu"))
        pairs = row[:-1] * vocab + row[1:]
        return cls((torch.bincount(pairs, minlength=vocab**2).view(vocab, vocab) + 1.0).log())

    def new_cache(self) -> Cache:
        """A cache that holds nothing and only counts the tokens seen."""
        return Cache(1, 0, 0, self.table.dtype, self.table.device)

    def forward(self, tokens: Sequence[int], cache: Cache, *, last: int) -> Tensor:
        """Logits [last, vocab] after each of the `last` tokens."""
        cache.append(0, *self.table.new_empty(2, 0, len(tokens), 0))
        return self.table[list(tokens[-last:])]


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    return {"target": zoo.load("target"), "drafter": zoo.load("drafter"), "gamma": 4}
