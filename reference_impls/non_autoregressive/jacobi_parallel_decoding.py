r"""Jacobi parallel decoding: guess the whole output, correct every token at once, and repeat until nothing changes.

Accelerating Transformer Inference for Translation via Parallel Decoding. Andrea Santilli, Silvio Severino,
Emilian Postolache, Valentino Maiorca, Michele Mancusi, Riccardo Marin, Emanuele Rodola. ACL 2023.
https://arxiv.org/abs/2305.10427

Idea
----
Greedy decoding solves a triangular system of equations, $y_i = \arg\max p(\cdot \mid y_{<i})$, from the top, one
equation a pass. Jacobi's iteration takes them all at once: write anything in all places, recompute every token from
the last iterate in a single pass, and repeat. When nothing changes any more, all equations hold, and the text is the
greedy one. Nothing is trained and nobody drafts; the model's own wrong guesses converge.

Algorithm
---------
1. *Draft*: a block of $n$ open tokens starts as padding, $y^0$; later the last iterate is the guess.
2. *Verify*: one causal pass gives $y_i^{k+1} = \arg\max p(\cdot \mid y_{<i}^k)$ for all open $i$.
3. The leading tokens with $y_i^{k+1} = y_i^k$ are final, because all that they depend on has stayed. So is the next
   one, which was computed from them alone: each pass finishes at least one token.
4. *Commit*: final tokens leave the block and stay in the cache; the others are the next iterate. A block without open
   tokens is at its fixed point.
5. `jacobi` has one block, of `limit` tokens. `gs-jacobi` (Gauss-Seidel) solves blocks of `block` tokens one after
   another, each given those before it. `hybrid` does so for the first `stretch` tokens, a guess at the length of the
   text, and then goes on with one token a pass until the text ends.

Guarantee
---------
Exact greedy, for every start and every block: by induction a final token is the argmax of the target given final
tokens. There are never more passes than tokens. When sampling, each pass draws its tokens anew; a token is committed
only as a draw from the law after what is committed, and an older guess decides no more than how many such draws a pass
yields, so the law is the target's as well. But draws agree less often than argmaxes.

Differences from the paper
--------------------------
1. The paper translates with encoder-decoders; here a language model continues a prompt, and `jacobi` is told the length
   of the output as `limit`. The paper's hybrid guesses its stretch from the length of the source.
2. The paper's cached loop retires one token a pass and stops when two whole iterates agree. Retiring all that is final
   (`agreement`) gives the same iterates in shorter passes, and saves the last pass of a block if only its last token
   had changed.
3. Drawing (`sampler.draw`) instead of taking the argmax extends the method to sampling.
4. The dependency graph that the paper draws is in the trace: `canvas` holds the whole output after each pass.
5. Published code is given the length of the greedy translation, which an autoregressive run finds for it, and reports
   the index of its last pass, counted from 0, as the number of iterations: one too few.

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.core.sampling import Sampler
>>> from reference_impls.non_autoregressive.jacobi_parallel_decoding import example, generate
>>> prompt = zoo.encode("def read_lines(path):")
>>> result = generate(prompt=prompt, limit=24, sampler=Sampler(temperature=0), **example())
>>> len(result.tokens), result.passes <= 24
(24, True)
>>> len(result.steps[0].canvas)  # after the first pass: a block, of which at least one token is final
16
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any, Literal, get_args

import torch

from reference_impls.core.arguments import check_range, checked
from reference_impls.core.generation import Ends, Generation, Step, check_length
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler

Algorithm = Literal["jacobi", "gs-jacobi", "hybrid"]


@torch.inference_mode()
@checked
def generate(
    target: LanguageModel,
    prompt: Sequence[int],
    limit: int,
    *,
    sampler: Sampler,
    algorithm: Algorithm = "gs-jacobi",
    block: int = 16,
    stretch: int = 64,
    pad: int = 0,
    eos: Ends | None = None,
) -> Generation:
    """Generate up to `limit` tokens after `prompt`; every pass computes all open tokens of a block anew.

    Blocks are as long as `block_length` says and start as `pad`. Raises ValueError for an empty prompt, an unknown
    algorithm, a block below 1 or a negative stretch.
    """
    check_options(prompt, algorithm, block, stretch)
    check_range(0, target.shape.vocab - 1, pad=pad)
    check_length(target, prompt, limit)
    result, tokens, cache = Generation(), list(prompt), target.new_cache()
    y: list[int] = []
    go_on = limit > 0
    # The cache holds all final tokens but the newest; `y` holds the last iterate of what is still open in the block.
    while go_on:
        # Draft: the last iterate is the guess; a new block starts as padding.
        y = y or [pad] * block_length(algorithm, block, stretch, limit, done=len(result.tokens))
        guess = y[:-1]  # the last open token has none to predict
        # Verify: one pass computes every open token from those before it in the iterate.
        unseen = tokens[len(cache) :]
        p = sampler.probs(target([*unseen, *guess], cache, last=len(y)))  # [open, vocab]
        y = sampler.draw(p).tolist()
        if min(y) < 0:
            raise ValueError("the target's logits for an open token are not finite (NaN or infinite): check it")
        # Commit: where two iterates agree they are final, and so is the next token; the cache forgets the others.
        kept = agreement(guess, y)
        emitted, y = y[: kept + 1], y[kept + 1 :]
        tokens += emitted
        cache.crop(len(tokens) - 1)
        step = Step(emitted, guess, kept=kept)
        go_on = result.add(step, limit, eos)
        step.canvas = [*result.tokens, *(y if go_on else [])]
    return result


def block_length(algorithm: Algorithm, block: int, stretch: int, limit: int, done: int) -> int:
    """How many tokens are decoded together once `done` tokens are final."""
    if algorithm == "jacobi":
        block = limit
    elif algorithm == "hybrid":
        block = min(block, stretch - done) if done < stretch else 1
    return min(block, limit - done)


def agreement(one: Sequence[int], other: Sequence[int]) -> int:
    """The length of the common prefix."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def check_options(prompt: Sequence[int], algorithm: str, block: int, stretch: int) -> None:
    """One clear sentence for what cannot work."""
    if not prompt:
        raise ValueError("the prompt is empty: give at least one token, from which the first one is predicted")
    if algorithm not in get_args(Algorithm):
        raise ValueError(f"algorithm is {algorithm!r}; choose one of {', '.join(get_args(Algorithm))}")
    if block < 1 or stretch < 0:
        raise ValueError(f"block is {block} and stretch is {stretch}; needed are block >= 1 and stretch >= 0")


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    return {"target": zoo.load("target"), "algorithm": "gs-jacobi", "block": 16}
