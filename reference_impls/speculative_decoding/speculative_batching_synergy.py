r"""Adaptive speculation length: the larger the batch, the shorter the drafts, by a table measured beforehand.

The Synergy of Speculative Decoding and Batching in Serving Large Language Models. Qidong Su, Christina Giannoula,
Gennady Pekhimenko. arXiv, 2023. https://arxiv.org/abs/2310.18813

Idea
----
A pass reads all weights, whether it is over one token or over twenty. Batching and speculation both live on what is
idle meanwhile, and so compete for it: a draft that costs nothing beside one text costs as much as a text of its own
beside many. The best draft length therefore depends on the batch size. It is measured once, kept in a small table and
looked up before every pass, while texts come to their ends and the batch shrinks.

Algorithm
---------
1. *Profile*, once for a machine and a pair of models: the time $t(b, s)$ of a pass of the target over $b$ rows of $s$
   tokens, the time $d(b)$ of a pass of the drafter over one token of each row, and $l(s)$, the mean number of $s$
   guesses that are kept.
2. *Table*: for each batch size $b$ of the profile the length of least time for a token,
   $$s^*(b) = \arg\min_{s \ge 0} \frac{t(b, s + 1) + s\, d(b)}{l(s) + 1},$$
   where 0 is plain decoding of a batch. Sizes between two of the table lie on the line between them.
3. *Draft*: with $b$ rows still running, each draws $s^*(b)$ guesses from the drafter, all rows in the same passes.
4. *Verify*: one pass of the target over all rows. Each row keeps its guesses by modified rejection sampling: guess $x$
   with probability $\min(1, p(x) / q(x))$, up to its first rejection, and one extra token from what is left of $p$.
5. *Commit*: rows have kept different numbers of guesses, so they grow apart. Each has its own length, its own places
   and its own rows of keys and values. Rows that have ended leave the batch, and the next length is looked up for
   those that stay.

Guarantee
---------
Exact distribution, for any table: every row has the law that the target gives it alone, and no row knows of another.
The length of a draft depends on how many rows run, never on what a drafter or a row wants to say next, and each length
is exact.

Differences from the paper
--------------------------
1. Only its abstract and two readings by others were at hand; the profile and the table are built as those tell.
2. Rows lie side by side without padding (`core.batch`): the linear layers run over exactly the new tokens of all rows,
   and attention is computed with each row's own keys.
3. $l(s)$ is read off the drafts of a run with the longest length (`mean_kept`), place by place, with no curve between.
4. A row drafts no more than it may still emit, and fewer where a model's positions end.
5. The target's first pass reads the prompts together with the first drafts.

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.core.sampling import Sampler
>>> from reference_impls.speculative_decoding.speculative_batching_synergy import (
...     best_lengths, draft_length, example, generate, mean_kept)
>>> prompts = [zoo.encode(text) for text in ("def read_lines(path):", "class Stack:", "import os\n")]
>>> results = generate(prompts=prompts, limits=[24, 6, 12], sampler=Sampler(temperature=0), **example())
>>> [len(result.tokens) for result in results], results[0].passes < 24
([24, 6, 12], True)
>>> [draft_length([(1, 6), (8, 3), (32, 0)], rows) for rows in (1, 4, 8, 20, 64)]
[6, 4, 3, 1, 0]
>>> kept = mean_kept([2, 0, 1, 2], longest=2)  # of 2 guesses each
>>> kept, best_lengths({(1, 1): 4.0, (1, 2): 4.1, (1, 3): 4.3, (9, 1): 5.0, (9, 2): 9.0}, {1: 0.5, 9: 0.5}, kept)
([0.0, 0.75, 1.25], [(1, 2), (9, 0)])
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from reference_impls.core.arguments import check_range, checked
from reference_impls.core.batch import Batch, check_rows
from reference_impls.core.drafting import check_guesses, check_vocabulary, room
from reference_impls.core.generation import Ends, Generation, Step
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.verify import residual

Table = Sequence[Sequence[int]]  # pairs of a batch size and the draft length for it, by size


@torch.inference_mode()
@checked
def generate(
    target: LanguageModel,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    *,
    drafter: LanguageModel,
    sampler: Sampler,
    table: Table,
    eos: Ends | None = None,
) -> list[Generation]:
    """Continue every prompt by up to its limit, with drafts as long as `table` says for the rows that still run.

    Raises ValueError for a table that is none, a prompt without token or limit, and models of different vocabularies.
    """
    check_table(table)
    check_vocabulary(target, drafter)
    check_rows(target, prompts, limits)
    every = [Row(list(prompt), limit, Generation()) for prompt, limit in zip(prompts, limits, strict=True)]
    running = [row for row in every if row.limit > 0]
    batch, draft_batch = (Batch(model, max(1, len(running))) for model in (target, drafter))
    # Between turns the target holds all tokens of a running row but the last; the drafter holds no more than that.
    while running:
        # Draft: all rows as many guesses as the table says for so many rows, none more than it may still emit.
        gamma, texts = draft_length(table, len(running)), [row.text for row in running]
        counts = [min(room(len(row.text), gamma, target, drafter), row.left - 1) for row in running]
        drafts, q = draft_rows(sampler, draft_batch, texts, counts)
        # Verify: one pass over all rows, each with its own unseen tokens and guesses at its own places.
        unseen = [[*text[held:], *draft] for text, held, draft in zip(texts, batch.lengths, drafts, strict=True)]
        logits = [each[-n - 1 :] for each, n in zip(batch(unseen, last=max(counts) + 1), counts, strict=True)]
        p = sampler.probs(pad_sequence(logits, batch_first=True))  # [rows, gamma + 1, vocab]
        verdicts = verify_rows(sampler, drafts, q, p)
        # Commit: each row its kept guesses and its extra token; rows that have ended leave.
        goes_on = [row.add(draft, *verdict, eos) for row, draft, verdict in zip(running, drafts, verdicts, strict=True)]
        stay = staying(goes_on)
        for each in (batch, draft_batch):
            each.crop([len(row.text) - 1 for row in running])
            if stay:
                each.keep(stay)
        running = [running[place] for place in stay]
    return [row.result for row in every]


@dataclass
class Row:
    """One text of the batch: its tokens, prompt included, how many more are asked for, and what came of it."""

    text: list[int]
    limit: int
    result: Generation

    @property
    def left(self) -> int:
        """How many tokens it may still emit."""
        return self.limit - len(self.result.tokens)

    def add(self, draft: list[int], kept: int, extra: int, eos: Ends | None) -> bool:
        """Commit the kept guesses and the extra token; True while there is more to generate."""
        emitted = [*draft[:kept], extra]
        self.text += emitted
        return self.result.add(Step(emitted, draft, kept=kept, draft_passes=len(draft)), self.limit, eos)


def draft_length(table: Table, rows: int) -> int:
    """The draft length for a batch of so many rows: on the line between two sizes of the table, rounded down."""
    place = bisect_left(table, rows, key=lambda pair: pair[0])
    if place in (0, len(table)):
        return table[min(place, len(table) - 1)][1]
    (size, length), (larger, other) = table[place - 1], table[place]
    return length + (other - length) * (rows - size) // (larger - size)


def draft_rows(
    sampler: Sampler, drafter: Batch, texts: Sequence[list[int]], counts: Sequence[int]
) -> tuple[list[list[int]], Tensor]:
    """For each text as many guesses as counted, and their laws q [rows, gamma, vocab]; behind a short draft, zeros.

    Pass i of the drafter is over the rows that have an i-th guess to make; the others feed nothing.
    """
    vocab, gamma = drafter.model.shape.vocab, max(counts)
    drafts, laws = [list[int]() for _ in texts], list[Tensor]()
    for i in range(gamma):
        active = torch.tensor([n > i for n in counts])
        rows = zip(texts, drafts, drafter.lengths, active, strict=True)
        unseen = [[*text, *draft][held:] if on else [] for text, draft, held, on in rows]
        law = sampler.probs(torch.cat(drafter(unseen, last=1)))  # [active, vocab]
        guesses = sampler.draw(law).tolist()
        check_guesses(guesses)
        for row, guess in zip(active.nonzero().flatten().tolist(), guesses, strict=True):
            drafts[row].append(guess)
        everywhere = law.new_zeros(len(texts), vocab)  # zeros where nothing was drafted
        laws.append(everywhere.masked_scatter_(active[:, None].to(law.device), law))
    return drafts, torch.stack(laws, 1) if laws else torch.empty(len(texts), 0, vocab)


def verify_rows(sampler: Sampler, drafts: Sequence[Sequence[int]], q: Tensor, p: Tensor) -> list[tuple[int, int]]:
    """For each row how many of its guesses are kept, and the extra token: `verify_chain`, for all rows at once.

    q [rows, gamma, vocab] are the laws of the guesses, p [rows, gamma + 1, vocab] those of the target; behind the end
    of a short draft q is 0, so that nothing is kept there and the residual is p. The result costs one copy.
    """
    q = q.to(p)
    drawn = torch.zeros(q.shape[:2], dtype=torch.long)
    for row, draft in enumerate(drafts):
        drawn[row, : len(draft)] = torch.tensor(draft, dtype=torch.long)
    drawn = drawn.to(p.device)[..., None]
    q_drawn = q.gather(-1, drawn)
    ratio = torch.where(q_drawn > 0, p[:, :-1].gather(-1, drawn) / q_drawn, 0.0)  # [rows, gamma, 1]
    kept = sampler.accept(ratio.squeeze(-1)).cumprod(1).sum(1)  # [rows]
    rest = residual(p, F.pad(q, (0, 0, 0, 1)))[torch.arange(len(p), device=p.device), kept]  # [rows, vocab]
    return [(count, extra) for count, extra in torch.stack((kept, sampler.draw(rest)), 1).tolist()]


def staying(goes_on: Sequence[bool]) -> list[int]:
    """The rows that go on; the last ones take the places of those that have ended, so that few keys and values move."""
    count = sum(goes_on)
    late = [row for row in range(count, len(goes_on)) if goes_on[row]]
    return [row if goes_on[row] else late.pop() for row in range(count)]


def check_table(table: Table) -> None:
    """Raise ValueError for what is no table of batch sizes and draft lengths."""
    sizes = [pair[0] for pair in table if len(pair) == 2 and pair[0] >= 1 and pair[1] >= 0]
    if not table or len(sizes) < len(table) or sizes != sorted(set(sizes)):
        raise ValueError(
            f"the table {[tuple(pair) for pair in table]} must be pairs of a batch size, at least 1 and rising, and a "
            "draft length, at least 0"
        )


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    table = ((1, 5), (2, 4), (4, 3), (8, 2), (16, 3), (32, 2))  # a profile of these models on a processor core
    return {"target": zoo.load("target"), "drafter": zoo.load("drafter"), "table": table}


@checked
def mean_kept(kept: Sequence[int], longest: int) -> list[float]:
    """l(0), l(1), …, l(longest) of drafts of `longest` guesses, of which so many were `kept`.

    The first s guesses of a longer draft are a draft of s guesses, and of them as many are kept. Raises ValueError
    where no draft was made.
    """
    check_range(0, longest=longest)
    if not kept:
        raise ValueError("kept is empty; without a draft there is no mean")
    return [fmean(min(count, s) for count in kept) for s in range(longest + 1)]


def best_lengths(
    target: Mapping[tuple[int, int], float], drafter: Mapping[int, float], kept: Sequence[float]
) -> list[tuple[int, int]]:
    """The table: for each batch size the draft length of least time for a token.

    `target[b, s]` is the time of a pass over b rows of s tokens, `drafter[b]` that of a drafter's pass over one token
    of each, `kept[s]` how many of s guesses are kept. A size is only asked about the lengths that were timed.
    """

    def cost(b: int, s: int) -> float:
        return (target[b, s + 1] + s * drafter[b]) / (kept[s] + 1)

    every = range(len(kept))
    return [(b, min((s for s in every if (b, s + 1) in target), key=lambda s: cost(b, s))) for b in sorted(drafter)]
