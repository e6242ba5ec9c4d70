r"""Autoregressive decoding: the baseline that every other method is measured against.

Idea
----
One pass of the model gives the law of one next token. Draw it, append it, run the model on it, and so on. Every pass
reads all weights of the model from memory to produce a single token, which is what the methods of this project avoid.

Algorithm
---------
1. Run the target on the tokens that its cache has not seen: first the whole prompt, later one token.
2. $p = \mathrm{norm}(\exp(\mathrm{logits} / T))$ is the law of the next token; draw one token from it.
3. Append the token; stop at `limit` tokens or after `eos`.

Guarantee
---------
It *is* the law that the exact methods must reproduce: $p(x_{1..n}) = \prod_t p(x_t \mid x_{<t})$.

Differences from the paper
--------------------------
1. There is no paper; this is the textbook loop with a key-value cache.

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.baselines.autoregressive import generate
>>> from reference_impls.core.sampling import Sampler
>>> target = zoo.load("target")
>>> prompt = zoo.encode("def read_lines(path):")
>>> result = generate(target, prompt, 12, sampler=Sampler(temperature=0))
>>> result.passes, len(result.tokens)
(12, 12)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from reference_impls.core.arguments import checked
from reference_impls.core.generation import Ends, Generation, Step, check_length
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler


@torch.inference_mode()
@checked
def generate(
    target: LanguageModel, prompt: Sequence[int], limit: int, *, sampler: Sampler, eos: Ends | None = None
) -> Generation:
    """Generate up to `limit` tokens after `prompt`, one pass of the target for each."""
    check_length(target, prompt, limit)
    result, tokens, cache = Generation(), list(prompt), target.new_cache()
    go_on = limit > 0
    # Between turns the cache holds all tokens but the last.
    while go_on:
        p = sampler.probs(target(tokens[len(cache) :], cache, last=1)[0])  # [vocab]
        emitted = [int(sampler.draw(p))]
        tokens += emitted
        go_on = result.add(Step(emitted), limit, eos)
    return result


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    return {"target": zoo.load("target")}
