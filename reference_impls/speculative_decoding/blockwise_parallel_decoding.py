r"""Blockwise Parallel Decoding: extra heads propose a block, the model's own head checks it in the same pass.

Blockwise Parallel Decoding for Deep Autoregressive Models. Mitchell Stern, Noam Shazeer, Jakob Uszkoreit. NeurIPS 2018.
https://arxiv.org/abs/1811.03115

Idea
----
Train $k - 1$ cheap heads beside the model's own: from one position they predict the tokens two, three, … places ahead.
Their guesses are checked by the model's own head, which scores all of them in one pass. Checking and proposing share
the network, so the pass that checks one block also holds the features from which the heads propose the next.

Algorithm
---------
1. *Verify*: run the target once over the newest token and the proposal $x_1, \dots, x_{k-1}$; its own head gives
   $p_1, \dots, p_k$. Draw $y_i \sim p_i$; at temperature 0 this is $y_i = \arg\max p_i$.
2. Keep the longest prefix with $x_i = y_i$. The token $y$ after it is the model's own and is emitted in any case, so
   every pass yields between 1 and $k$ tokens.
3. *Draft*: at the position that gave this last token, head $i$ turns the decoder's output $h$ into
   $h + \mathrm{FFN}_i(h)$, read out by the shared vocabulary projection; the argmax of each head is the next proposal.
4. *Commit*: append the tokens; the cache forgets the rejected part of the proposal.

Guarantee
---------
Exact greedy: at temperature 0 each token is the argmax of the frozen target given the tokens before it. Because a guess
is only ever kept when it equals the model's own draw, sampling keeps the target's law as well.
The approximate rules are lossy on purpose: `top` $> 1$ keeps a guess among the `top` likeliest tokens, and
`minimum` $> 1$ emits at least that many tokens a step, right or not.

Differences from the paper
--------------------------
1. The model is frozen and its own head is head 1, before those of `BlockHeads`, so the reference is the original model.
   The paper also passes head 1 through the new layer and reports its best block sizes with a fine-tuned model and
   distilled data.
2. The paper decodes greedily; drawing $y_i$ (`drawn`) extends the same rule to sampling.
3. Rejected tokens are cropped from a key-value cache (`cache.crop`); the paper's decoder is a Transformer, its checks
   are the same.
4. The distance-based acceptance for ordinal outputs such as pixel intensities has no meaning for text and is left out.

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.core.sampling import Sampler
>>> from reference_impls.speculative_decoding.blockwise_parallel_decoding import example, generate
>>> prompt = zoo.encode("def read_lines(path):")
>>> result = generate(prompt=prompt, limit=24, sampler=Sampler(temperature=0), **example())
>>> len(result.tokens), result.passes < 24
(24, True)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_impls.core.arguments import check_range, check_texts, checked
from reference_impls.core.drafting import best_guesses, check_guesses, check_part, room
from reference_impls.core.generation import Ends, Generation, Step, check_length
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler


@torch.inference_mode()
@checked
def generate(
    target: LanguageModel,
    prompt: Sequence[int],
    limit: int,
    *,
    heads: BlockHeads,
    sampler: Sampler,
    top: int = 1,
    minimum: int = 1,
    eos: Ends | None = None,
) -> Generation:
    """Generate up to `limit` tokens after `prompt`, up to `heads.k` in each pass of the target.

    `top` and `minimum` relax the acceptance; their defaults of 1 are exact. Raises ValueError below 1 and
    for a `minimum` above k.
    """
    if top < 1 or not 1 <= minimum <= heads.k:
        raise ValueError(
            f"top is {top} and minimum is {minimum}; needed are top >= 1 and 1 <= minimum <= k = {heads.k}"
        )
    check_part(target, heads, "heads")
    check_length(target, prompt, limit)
    result, tokens, cache = Generation(), list(prompt), target.new_cache()
    proposal: list[int] = []
    go_on = limit > 0
    # Between turns the cache holds all tokens but the last, and `proposal` the guesses after it.
    while go_on:
        # Verify: one pass over the newest token and the proposal; the model draws its own token at each place.
        unseen = tokens[len(cache) :]
        hidden = target.run(target.embed([*unseen, *proposal]), cache)[-len(proposal) - 1 :]  # [proposal + 1, dim]
        features = target.norm(hidden)
        p = sampler.probs(target.project(features))  # [proposal + 1, vocab]
        drawn = sampler.draw(p)
        kept = count_kept(proposal, drawn, p, top, minimum)
        # Draft: the heads look ahead from the place of the last token kept. One copy brings all results to the host.
        ahead = best_guesses(target.project(heads(features[kept])), 1)[:, 0]  # [k - 1]
        count, extra, *guesses = torch.cat((kept[None], drawn[kept][None], ahead)).tolist()
        # Commit: the kept part of the proposal and the model's own token after it; guesses end where positions do.
        emitted = [*proposal[:count], extra]
        tokens += emitted
        cache.crop(len(tokens) - 1)
        go_on = result.add(Step(emitted, proposal, kept=count), limit, eos)
        check_guesses(guesses, "the heads'")
        proposal = guesses[: room(len(tokens), len(guesses), target)]
    return result


def count_kept(proposal: Sequence[int], drawn: Tensor, p: Tensor, top: int, minimum: int) -> Tensor:
    """How many proposed tokens are kept, a number on the device: the longest prefix that passes the acceptance rule."""
    guess = torch.tensor(proposal, device=drawn.device, dtype=torch.long)
    passes = guess == drawn[:-1]
    if top > 1 and proposal:
        passes |= (p[:-1].topk(min(top, p.shape[-1])).indices == guess[:, None]).any(-1)
    passes[: minimum - 1] = True
    return passes.cumprod(0).sum()


class BlockHeads(nn.Module):
    """Heads 2 to k: slices of one wide feed-forward layer, each added to the decoder's normalised output."""

    @checked
    def __init__(self, shape: Shape, k: int = 4, hidden: int | None = None) -> None:
        super().__init__()
        if k < 2:
            raise ValueError(f"k is {k}; a block needs the model's own head and at least one more, so k >= 2")
        hidden = 4 * shape.dim if hidden is None else hidden
        check_range(1, hidden=hidden)
        self.k = k
        self.up = nn.Parameter(torch.randn(shape.dim, (k - 1) * hidden) * shape.dim**-0.5)
        self.down = nn.Parameter(torch.zeros((k - 1) * hidden, shape.dim))

    def forward(self, features: Tensor) -> Tensor:
        """Features [k - 1, ..., dim] of all heads for the decoder's features [..., dim]; the target projects them."""
        inner = F.relu(features @ self.up).unflatten(-1, (self.k - 1, -1))  # [..., k - 1, hidden]
        down = self.down.unflatten(0, (self.k - 1, -1))  # [k - 1, hidden, dim]
        return torch.stack([features + inner[..., i, :] @ down[i] for i in range(self.k - 1)])


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    return {"target": zoo.load("target"), "heads": zoo.load("block-heads")}


@checked
def loss(target: LanguageModel, heads: BlockHeads, tokens: Tensor, only: int | None = None) -> Tensor:
    """Cross-entropy of head i against the token i + 2 places ahead, for tokens [batch, n]; the target is frozen.

    The mean over all heads i = 0, …, k - 2, or head `only`: the paper saves memory by drawing one for each batch.
    Raises ValueError for texts that end before the last head's token, and for a head that is not there.
    """
    check_texts(target.shape.vocab, heads.k + 1, tokens=tokens)
    if only is not None:
        check_range(0, heads.k - 2, only=only)
    with torch.no_grad():
        features = target.norm(target.run(target.embed(tokens[:, :-2])))
    losses = []
    for i, ahead in enumerate(heads(features)):
        if only in (None, i):
            logits = target.project(ahead[:, : tokens.shape[1] - i - 2])
            losses.append(F.cross_entropy(logits.float().flatten(0, 1), tokens[:, i + 2 :].flatten()))
    return torch.stack(losses).mean()
