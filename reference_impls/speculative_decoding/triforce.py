r"""TriForce: the target drafts for itself with a small part of its cache, and a small model drafts for that.

TriForce: Lossless Acceleration of Long Sequence Generation with Hierarchical Speculative Decoding. Hanshi Sun, Zhuoming
Chen, Xinyu Yang, Yuandong Tian, Beidi Chen. COLM 2024. https://arxiv.org/abs/2404.11912

Idea
----
A token after a long context costs two things: the target's weights are read, and all its keys and values. A small
drafter avoids the first but loses sight of the context. So put a level between: the target's own weights with a few
thousand keys and values, those that matter now. It reads little and agrees with the target closely; and because its
weights are still large, a small model with a sliding window drafts for it in turn.

Algorithm
---------
1. *Draft*, lowest level: the drafter, whose cache holds only the first `sinks` and the newest `recent` tokens, draws
   $\gamma_1$ (`gamma`) guesses from its laws $q$.
2. *Draft*, middle level: the target with its partial cache gives $\hat p$ in one pass over them. A guess $x$ is kept
   with probability $\min(1, \hat p(x) / q(x))$; the first that fails is replaced by a draw from
   $\mathrm{norm}(\max(0, \hat p - q))$. Go back to 1 until at least $\gamma_2$ tokens stand there.
3. *Verify*: the target with its full cache gives $p$ in one pass over them all. A token is kept with probability
   $\min(1, p(x) / \hat p(x))$, and the extra token comes from $\mathrm{norm}(\max(0, p - \hat p))$, or from $p$ if all
   were kept.
4. *Commit*: all caches go back to what was kept.
5. *Retrieve*, at the start, after every `stride` tokens, and when the rolling acceptance falls below `threshold`: in
   each layer and for each head of keys, score chunks of `chunk` tokens by the dot product of the newest query with the
   chunk's mean key, and fill the partial cache with the best, up to `budget` tokens. The first chunk always stays.
6. The partial cache takes the tokens behind those that were scored, with their true keys and values, in place of its
   least important ones.

Guarantee
---------
Exact distribution. Each token of the middle level has exactly the law $\hat p$ given those before it, for that is what
speculative sampling guarantees at its level; whether a further token is drafted depends on earlier ones alone. So the
top level may judge it as a draw from $\hat p$, whatever the partial cache holds, and the text has the law of $p$.

Differences from the paper
--------------------------
1. A head of grouped queries scores chunks by the sum of the group's queries (`choose`); the paper's models have no
   groups.
2. The tokens behind the last whole chunk, fewer than `chunk`, stay as well as the first chunk.
3. The drafter reads of a long prompt only what its window holds. Tokens are placed by their place in the window, as in
   StreamingLLM. Since rotary attention sees only distances, it is enough to turn the sinks' keys on (`slide`) by as
   many places as were dropped behind them.
4. Rolling acceptance (`rate`) is the mean of the last step's and of its own value before. Retrieving again after a
   stride or at a poor acceptance is the paper's (section 4.3); the values of `stride` and `threshold` are ours. The
   published code fills the partial cache once, and is measured on 256 tokens.
5. The full cache is not kept in another memory and streamed in, though that is where the method gains most.
6. Published code replaces a guess that the middle level rejects by a draw from $\hat p$, not from the residual, and
   still calls it a draw from $\hat p$. The top level is then fooled: even where $\hat p = p$, a token comes out with
   probability $\min(p, q) + (1 - \alpha)\, p$ for $\alpha = \sum_x \min(p(x), q(x))$.

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.core.sampling import Sampler
>>> from reference_impls.speculative_decoding.triforce import example, generate
>>> prompt = zoo.encode("def read_lines(path):")
>>> result = generate(prompt=prompt, limit=24, sampler=Sampler(temperature=0), **example())
>>> len(result.tokens), result.passes < 24
(24, True)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from reference_impls.core.arguments import check_range, checked
from reference_impls.core.cache import Cache
from reference_impls.core.drafting import check_draft, check_guesses, draft_chain, room
from reference_impls.core.generation import Ends, Generation, Step, check_length
from reference_impls.core.layers import attention_mask, rotate
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
    gamma: int = 2,
    gamma_2: int = 6,
    budget: int = 4096,
    chunk: int = 8,
    sinks: int = 16,
    recent: int = 496,
    stride: int = 128,
    threshold: float = 0.5,
    eos: Ends | None = None,
) -> Generation:
    """Generate up to `limit` tokens after `prompt`; each pass with the full cache checks `gamma_2` tokens or more.

    The defaults are the paper's sizes, but for `stride` and `threshold`. Raises ValueError for sizes that cannot work
    or models of other vocabularies.
    """
    check_draft(gamma, target, drafter)
    check_sizes(budget, chunk, stride, (gamma_2, sinks, recent))
    check_length(target, prompt, limit)
    # `middle` and `window` are a model with a partial cache; their `len` and `crop` count in the text, gaps included.
    # The window's sinks count as standing right before its recent tokens.
    result, tokens, full, middle = Generation(), list(prompt), target.new_cache(), ShortCache(target)
    window = ShortCache(drafter, dropped=max(0, len(prompt) - sinks - recent))
    # `scored` says up to where chunks were scored, at first -stride so that the first turn retrieves.
    scored, rate, go_on = -stride, 1.0, limit > 0
    # Between turns `full` holds all tokens but the last; `middle` the best of the first `scored`, best first, then all
    # after them; `window` the sinks and the newest, and may lack one at the end.
    while go_on:
        # Draft: the two lower levels; but first the drafter reads of the prompt what its window holds.
        if result.steps:
            draft, laws, draft_passes = speculate(sampler, tokens, middle, window, gamma=gamma, gamma_2=gamma_2)
        else:
            window([*prompt[:sinks], *prompt[sinks + window.dropped :]])
            draft, laws, draft_passes = [], [], 1
        # Verify: one pass of the target with its full cache.
        logits, queries = run_with_queries(target, [*tokens[len(full) :], *draft], full, len(draft) + 1)
        kept, extra = verify_chain(sampler, draft, laws, sampler.probs(logits))
        # Commit: the kept tokens and the extra one; the smaller caches follow the full one.
        tokens += (emitted := [*draft[:kept], extra])
        full.crop(len(tokens) - 1)
        slide(window, len(tokens) - 1, sinks, recent)
        # Retrieve: after a stride, or where the middle level is too often wrong.
        rate = (rate + kept / len(draft)) / 2 if draft else rate
        if len(full) - scored >= stride or rate < threshold:
            # The kept-th query is that of the newest token in the full cache.
            scored, rate = retrieve(middle, full, queries[:, :, kept], budget, chunk), 1.0
        append_newest(middle, full, scored, budget)  # the true keys and values, over what the middle level had guessed
        go_on = result.add(Step(emitted, draft, kept=kept, draft_passes=draft_passes), limit, eos)
    return result


def speculate(
    sampler: Sampler, tokens: Sequence[int], middle: ShortCache, window: ShortCache, *, gamma: int, gamma_2: int
) -> tuple[list[int], list[Tensor], int]:
    """At least `gamma_2` tokens of the middle level, its laws of them, each [vocab], and the passes of both levels.

    Each round is speculative decoding with the middle level as its target. Fewer where its positions come to an end.
    """
    draft, laws, passes = list[int](), list[Tensor](), 0
    while len(draft) < room(len(tokens), gamma_2, middle.model):
        text = [*tokens, *draft]
        fitting = room(len(text) + 1, gamma, middle.model)
        guesses, q = draft_chain(sampler, window, text, window, fitting)  # drafter and cache in one
        p_hat = sampler.probs(middle([*text[len(middle) :], *guesses], last=fitting + 1))  # [fitting + 1, vocab]
        kept, extra = verify_chain(sampler, guesses, q, p_hat)
        check_guesses([extra], "the target's")
        draft += [*guesses[:kept], extra]
        laws += p_hat[: kept + 1]  # row by row
        passes += fitting + 1
        for level in (middle, window):
            level.crop(len(tokens) + len(draft) - 1)
    return draft, laws, passes


def run_with_queries(target: LanguageModel, tokens: Sequence[int], cache: Cache, last: int) -> tuple[Tensor, Tensor]:
    """Logits [last, vocab] of the `last` tokens, and their queries [layers, heads, last, head_dim].

    The pass is that of `LanguageModel.run`, but it hands out the queries.
    """
    x, past, queries = target.embed(tokens), len(cache), []
    angles, mask = target.angles(past, len(tokens)), attention_mask(None, past, len(tokens), x)
    for layer, block in enumerate(target.blocks):
        q, k, v = block.attention.project(block.attention_norm(x), angles)
        x = x + block.attention.read(q, *cache.append(layer, k, v), mask, causal=past == 0)
        x = x + block.feed(x)
        queries.append(q[:, -last:])
    return target.logits(x[-last:]), torch.stack(queries)


def retrieve(middle: ShortCache, full: Cache, queries: Tensor, budget: int, chunk: int) -> int:
    """Fill the partial cache with the best chunks, up to `budget` tokens; return how many tokens were scored.

    `queries` [layers, heads, head_dim] are those of the newest token. Only whole chunks are scored.
    """
    scored = len(full) // chunk * chunk
    refill(middle, full, 0, choose(full, queries, scored, chunk)[..., :budget])
    return scored


def append_newest(middle: ShortCache, full: Cache, scored: int, budget: int) -> None:
    """Let the tokens after the first `scored` stand at the partial cache's end, for its least important ones."""
    newest = torch.arange(scored, len(full), device=middle.model.device)
    refill(middle, full, min(scored, budget - len(newest)), newest.expand(middle.model.shape.layers, 1, -1))


def choose(full: Cache, queries: Tensor, length: int, chunk: int) -> Tensor:
    """The first `length` places [layers, kv_heads, length], most important first, by queries [layers, heads, head_dim].

    They come chunk by chunk: the first chunk, then by the score of the mean key.
    """
    keys = torch.stack([full.entries(layer)[0][:, :length] for layer in range(len(queries))])
    means = keys.unflatten(2, (length // chunk, chunk)).mean(3)  # [layers, kv_heads, chunks, head_dim]
    query = queries.unflatten(1, (keys.shape[1], -1)).sum(2)  # [layers, kv_heads, head_dim]
    score = (means * query[:, :, None]).sum(-1)
    score[..., :1] = torch.inf
    return torch.arange(length, device=score.device).view(-1, chunk)[score.argsort(descending=True)].flatten(2)


def refill(middle: ShortCache, full: Cache, keep: int, places: Tensor) -> None:
    """Let the partial cache hold its first `keep` entries, and those at `places` [layers, kv_heads or 1, n] of `full`.

    So its last entries, the least important ones, make room for new ones.
    """
    middle.cache.crop(keep)
    for layer, chosen in enumerate(places):
        k, v = full.entries(layer)  # [kv_heads, n, head_dim]
        rows = chosen[..., None].expand(len(k), -1, k.shape[-1])
        middle.cache.append(layer, k.gather(1, rows), v.gather(1, rows))
    middle.dropped = len(full) - len(middle.cache)


def slide(window: ShortCache, length: int, sinks: int, recent: int) -> None:
    """Crop to `length`, drop what is neither sink nor recent, and turn the sinks' keys on, to right before the rest."""
    window.crop(length)
    surplus = len(window.cache) - sinks - recent
    if surplus > 0:
        angles = window.model.angles(surplus, 1)  # as many places on
        for layer in range(window.model.shape.layers):
            k, _ = window.cache.entries(layer)
            k[:, :sinks] = rotate(k[:, :sinks], angles) / window.model.shape.rope_scale  # they are scaled already
        window.cache.keep(0, [*range(sinks), *range(sinks + surplus, len(window.cache))])
        window.dropped += surplus


def check_sizes(budget: int, chunk: int, stride: int, others: tuple[int, int, int]) -> None:
    """Raise ValueError for sizes below 1, and for a budget in which the first chunk could not always stay."""
    if min(chunk, stride, *others) < 1:
        found = f"chunk, stride, gamma_2, sinks, recent are {(chunk, stride, *others)}"
        raise ValueError(f"{found}; all must be at least 1")
    needed = chunk + max(chunk, stride - 1)  # a stride adds so many tokens before the next retrieval
    if budget < needed:
        beside = f"another one or the {stride - 1} tokens between two retrievals"
        raise ValueError(
            f"budget is {budget}; it must be at least {needed}: the first chunk of {chunk} and, beside it, {beside}"
        )


class ShortCache:
    """A model whose cache has dropped part of the text; `len` counts the tokens read, as if none were missing."""

    @checked
    def __init__(self, model: LanguageModel, dropped: int = 0) -> None:
        check_range(0, dropped=dropped)
        self.model, self.cache, self.dropped = model, model.new_cache(), dropped

    def __len__(self) -> int:
        return len(self.cache) + self.dropped

    def __call__(self, tokens: Sequence[int], _own: ShortCache | None = None, *, last: int = 1) -> Tensor:
        """Logits [last, vocab] after `tokens`, placed from `len(self)` on; called like a model with itself as cache."""
        return self.model(tokens, self.cache, last=last, positions=len(self) + torch.arange(len(tokens)))

    def crop(self, length: int) -> None:
        """Forget every token from `length` on, counted in the text."""
        self.cache.crop(length - self.dropped)


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark; sizes for texts of 100 tokens."""
    from reference_impls import zoo

    sizes = {"gamma": 2, "gamma_2": 6, "budget": 64, "chunk": 8, "sinks": 4, "recent": 60, "stride": 32}
    return {"target": zoo.load("target"), "drafter": zoo.load("drafter"), **sizes}
