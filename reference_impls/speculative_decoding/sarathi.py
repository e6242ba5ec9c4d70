r"""SARATHI: prompts are read in chunks, and each chunk shares its pass with the next tokens of other texts.

SARATHI: Efficient LLM Inference by Piggybacking Decodes with Chunked Prefills. Amey Agrawal, Ashish Panwar,
Jayashree Mohan, Nipun Kwatra, Bhargav S. Gulavani, Ramachandran Ramjee. arXiv, 2023. https://arxiv.org/abs/2308.16369

Idea
----
Reading a prompt keeps the arithmetic units busy; writing a token reads all weights for a single place. A server does
both, and if it does them in turn, every long prompt stalls the texts that others are waiting for. So cut the prompt
into chunks, and let the texts that are being written ride along with each chunk: their tokens pass through the linear
layers together with the chunk's, on weights that are read anyway. No draft is made and nothing is verified.

Algorithm
---------
1. *Admit*: at most `rows` texts run at once; the next of the queue takes the place of one that has ended. Memory says
   how many: $B = \lfloor (M_G - M_S) / (L\, m) \rfloor$ (`largest_batch`).
2. *Fill*: a pass reads at most `budget` tokens. First each text that is being written gets its one token. What is left
   goes to prompts, in the order in which they came: $\min(\text{unread}, \text{left})$ tokens each.
3. *Pass*: the tokens of all rows go through the linear layers together. Attention is computed row by row: the tokens of
   a chunk see all chunks before it, whose keys and values are kept, and a triangle among themselves.
4. *Commit*: every text that has now been read to its end draws its next token; for a prompt, that is its first one.

Guarantee
---------
Exact distribution, for any budget: a token's place sees what it would see if the prompt were read at once, so keys,
values and logits are the same up to rounding, and each row is drawn from the target's own law.

Differences from the paper
--------------------------
1. The paper puts one chunk of fixed size beside up to $B - 1$ tokens of others. Its successor Sarathi-Serve
   (arXiv:2403.02310) fills a budget of tokens, the texts being written first; so it is here. A chunk of $C$ tokens
   beside $B - 1$ others is a budget of $C + B - 1$, and a budget that is a multiple of the kernels' tile makes every
   full pass one, which the paper's section 4.4 asks of chunk and riders together.
2. A text that is being written is never left out of a pass, as the budget is at least `rows`.
3. All prompts are there from the start, and come in by order as rows get free. Memory is not paged, and no text is
   preempted.
4. There is one accelerator, so no pipeline whose bubbles even passes could fill.
5. A chunk that does not end its prompt is read out as well (`last=1`): one place of the vocabulary projection in vain.

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.core.sampling import Sampler
>>> from reference_impls.speculative_decoding.sarathi import example, fill, generate, largest_batch
>>> fill(8, [1, 1, 20, 5])  # two texts being written, and two prompts
[1, 1, 6, 0]
>>> fill(8, [1, 1, 4, 5])
[1, 1, 4, 2]
>>> prompts = [zoo.encode(text) for text in ("def read_lines(path):", "import os\n", "class Stack:\n" * 8)]
>>> results = generate(prompts=prompts, limits=[8, 8, 8], sampler=Sampler(temperature=0), **example() | {"budget": 16})
>>> [[step.passes for step in result.steps[:2]] for result in results]  # the last one's prompt took several
[[1, 1], [1, 1], [4, 1]]
>>> largest_batch(memory=48e9, weights=26e9, longest=1024, token=819_200)
26
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from reference_impls.core.arguments import check_range, checked
from reference_impls.core.batch import Batch, check_rows
from reference_impls.core.generation import Ends, Generation, Step
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler


@torch.inference_mode()
@checked
def generate(
    target: LanguageModel,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    *,
    sampler: Sampler,
    budget: int = 256,
    rows: int = 16,
    eos: Ends | None = None,
) -> list[Generation]:
    """Continue every prompt by up to its limit, with up to `budget` tokens in a pass and `rows` texts at once.

    Raises ValueError for fewer than 1 row, a budget below `rows`, and a prompt without token or limit.
    """
    check_budget(budget, rows)
    check_rows(target, prompts, limits)
    every = [Row(list(prompt), limit, Generation()) for prompt, limit in zip(prompts, limits, strict=True)]
    waiting, running = [row for row in every if row.limit > 0], list[Row]()
    batch = Batch(target, max(1, min(rows, len(waiting))))
    # Between turns the batch holds all tokens but the last of a text being written, and some of a prompt's.
    while waiting or running:
        # Admit: the next prompts, where a place is free.
        taken = {row.place for row in running}
        for place in [place for place in range(len(batch)) if place not in taken][: len(waiting)]:
            running.append(waiting.pop(0))
            running[-1].place = place
        # Fill: one token of each text being written, and of prompts what the budget still has room for.
        counts = fill(budget, [len(row.text) - batch.lengths[row.place] for row in running])
        feeds = [list[int]() for _ in range(len(batch))]
        for row, count in zip(running, counts, strict=True):
            held = batch.lengths[row.place]
            feeds[row.place] = row.text[held : held + count]
            row.passes += count > 0
        # Pass: over all that was fed, in one.
        logits = batch(feeds, last=1)
        # Commit: a token for each text that has been read to its end; what has ended leaves its place.
        ready = [row for row in running if batch.lengths[row.place] == len(row.text)]
        if ready:
            tokens = sampler.draw(sampler.probs(torch.cat([logits[row.place] for row in ready]))).tolist()
            ended = [row for row, token in zip(ready, tokens, strict=True) if not row.add(token, eos)]
            gone = {row.place for row in ended}
            batch.crop([0 if place in gone else held for place, held in enumerate(batch.lengths)])
            running = [row for row in running if row not in ended]
    return [row.result for row in every]


@dataclass(eq=False)
class Row:
    """A text: its tokens, prompt included, how many more are asked for, what came of it, and where it runs."""

    text: list[int]
    limit: int
    result: Generation
    place: int = -1  # its row of the batch
    passes: int = 0  # since its last token

    def add(self, token: int, eos: Ends | None) -> bool:
        """Commit a token and the passes that it took; True while there is more to generate."""
        self.text.append(token)
        step, self.passes = Step([token], passes=self.passes), 0
        return self.result.add(step, self.limit, eos)


def fill(budget: int, unread: Sequence[int]) -> list[int]:
    """How many tokens each text feeds to a pass of at most `budget`, by how many it has unread, oldest first.

    A text with one has it read whatever the others have: it is being written, or the one is the last of its prompt,
    which is as cheap. The rest is for prompts, one by one.
    """
    counts = [int(n == 1) for n in unread]
    for i, n in enumerate(unread):
        if n > 1:
            counts[i] = min(n, budget - sum(counts))
    return counts


def check_budget(budget: int, rows: int) -> None:
    """Raise ValueError for a budget in which the texts being written do not fit."""
    if rows < 1:
        raise ValueError(f"rows is {rows}; at least 1 text runs at a time")
    if budget < rows:
        raise ValueError(f"the budget of {budget} tokens a pass is below {rows} rows, which all write in a pass")


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    return {"target": zoo.load("target"), "budget": 64, "rows": 16}


@checked
def largest_batch(memory: float, weights: float, longest: int, token: float) -> int:
    """How many texts fit into the memory beside the weights, all sizes in bytes; 0 where the weights do not fit.

    `longest` is the length of the longest text in tokens, `token` what keys and values of one token take.
    Raises ValueError for sizes that cannot be.
    """
    check_range(0, memory=memory, weights=weights)
    check_range(1, longest=longest, token=token)
    return max(0, int((memory - weights) // (longest * token)))
