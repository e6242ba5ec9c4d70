r"""Autoregressive translation: the baseline of the methods that fill a canvas from a source.

Idea
----
An encoder reads the source once. The decoder then writes the translation word by word, each in a pass of its own, and
reads what it wrote before each.

Algorithm
---------
1. Encode the source into a memory.
2. Run the decoder on the last token; the first follows `eos`. $p(y_t \mid y_{<t}, x)$ is the law of the next token.
3. Draw one token from it and append it; stop at `limit` tokens or after `eos`.

Guarantee
---------
It *is* the law that its parallel rivals only approach: $p(y_{1..n} \mid x) = \prod_t p(y_t \mid y_{<t}, x)$.

Differences from the paper
--------------------------
1. There is no paper; this is the textbook loop with a key-value cache.

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.baselines.translation import example, generate
>>> from reference_impls.core.sampling import Sampler
>>> from reference_impls.zoo.tasks import END, task
>>> lite = task("lite")
>>> source = lite.encode("Emma paid Tom forty- five euros for ten keys on the twenty- sixth of June .")
>>> result = generate(source=source, limit=24, sampler=Sampler(temperature=0), eos=END, **example())
>>> " ".join(lite.pieces(result.tokens[:6])), result.passes
('am sechs@@ und@@ zwanzig@@ sten Juni', 18)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from reference_impls.core.arguments import check_range, checked
from reference_impls.core.generation import Generation, Step
from reference_impls.core.sampling import Sampler
from reference_impls.core.seq2seq import EncoderDecoder


@torch.inference_mode()
@checked
def generate(model: EncoderDecoder, source: Sequence[int], limit: int, *, sampler: Sampler, eos: int) -> Generation:
    """Translate `source` into up to `limit` tokens, one pass of the decoder for each, the first after `eos`."""
    check_range(0, model.shape.vocab - 1, eos=eos)
    if limit > model.longest:
        raise ValueError(f"limit is {limit}; the model has {model.longest} positions, so ask for no more tokens")
    result, memory, cache, last = Generation(), model.encode(source), model.new_cache(), eos
    go_on = limit > 0
    # The cache holds the symbol that begins a text and all words but the newest.
    while go_on:
        p = sampler.probs(model.logits(model.decode([last], memory, cache))[0])  # [vocab]
        last = int(sampler.draw(p))
        go_on = result.add(Step([last]), limit, eos)
    return result


def example() -> dict[str, Any]:
    """The model of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    return {"model": zoo.load("translation-ar")}
