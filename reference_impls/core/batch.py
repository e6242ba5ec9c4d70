"""Several sequences of different lengths in one pass: another way to call a `LanguageModel`, not another model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from reference_impls.core.arguments import checked, fits, shown
from reference_impls.core.generation import check_length
from reference_impls.core.layers import attention_mask, check_last
from reference_impls.core.model import LanguageModel


@dataclass(frozen=True)
class Run:
    """Neighbouring rows of a pass that feed equally many tokens, so that one call of the kernel reads for all."""

    rows: slice
    fed: int  # tokens a row
    end: int  # how far the longest row reaches
    mask: Tensor | None  # [rows, 1, fed, end]

    def read(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """What q [heads, rows * fed, head_dim] reads of its own rows' keys and values: [rows * fed, heads * head_dim].

        `keys` and `values` [rows, kv_heads, capacity, head_dim] are those of the whole batch.
        """
        q = q.unflatten(1, (-1, self.fed)).transpose(0, 1)  # [rows, heads, fed, head_dim]
        k, v = (held[self.rows, :, : self.end] for held in (keys, values))
        causal, grouped = self.mask is None and self.fed == self.end, q.shape[1] != k.shape[1]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask, is_causal=causal, enable_gqa=grouped)
        return y.transpose(1, 2).flatten(2).flatten(0, 1)


class Batch:
    """Sequences that read the weights together, each with rows of keys and values of its own.

    A pass feeds every sequence as many tokens as it likes, also none, and gives the logits that it would get alone. No
    place is padded: the linear layers run over the new tokens of all rows in a row, and attention is computed for each
    row with its own keys. Nothing right of a sequence's length is seen before it is written again, so to take tokens
    back is to lower a number.
    `lengths` says how many tokens of each sequence are held, so `text[lengths[row]:]` is what it has not seen yet.
    """

    @checked
    def __init__(self, model: LanguageModel, rows: int) -> None:
        if rows < 1:
            raise ValueError(f"rows is {rows}; a batch has at least 1 sequence")
        shape = model.shape
        self.model, self.lengths = model, [0] * rows
        # Zeros: what is masked still enters the sums with weight 0, and what lies in fresh memory may be no number.
        self._store = model.embedding.new_zeros(shape.layers, 2, rows, shape.kv_heads, 64, shape.head_dim)

    def __len__(self) -> int:
        return len(self.lengths)

    def __call__(self, tokens: Sequence[Sequence[int]], *, last: int | None = None) -> list[Tensor]:
        """For each sequence the next-token logits [new, vocab] of its new tokens, or of its `last` ones alone.

        Raises ValueError where the rows are not those of the batch, where all are empty, and for an unknown token.
        """
        check_last(last)
        if not fits(tokens, Sequence[Sequence[int]]) or len(tokens) != len(self):
            raise ValueError(
                f"tokens is {shown(tokens)}; give for each of the {len(self)} sequences a list of new ones"
            )
        counts, model = list(map(len, tokens)), self.model
        x = model.embed([token for row in tokens for token in row])  # [new, dim], row after row
        ends = [length + count for length, count in zip(self.lengths, counts, strict=True)]
        self._make_room(max(ends))
        slots = torch.cat([torch.arange(*ends) for ends in zip(self.lengths, ends, strict=True)])  # positions too
        rows = torch.arange(len(self)).repeat_interleave(torch.tensor(counts))
        angles, runs = model.angles(0, 0, slots), self._runs(counts)
        rows, places = rows.to(x.device), slots.to(x.device)
        for layer, block in enumerate(model.blocks):
            store = self._store[layer]
            q, k, v = block.attention.project(block.attention_norm(x), angles)  # [heads or kv_heads, new, head_dim]
            store[0, rows, :, places], store[1, rows, :, places] = k.transpose(0, 1), v.transpose(0, 1)
            parts = q.split([(run.rows.stop - run.rows.start) * run.fed for run in runs], 1)
            y = torch.cat([run.read(part, *store) for run, part in zip(runs, parts, strict=True)])
            x = x + y @ block.attention.out
            x = x + block.feed(x)
        self.lengths = ends
        read = [count if last is None else min(count, last) for count in counts]
        x = torch.cat([states[len(states) - n :] for states, n in zip(x.split(counts), read, strict=True)])
        return list(model.logits(x).split(read))

    def crop(self, lengths: Sequence[int]) -> None:
        """Forget every token of each sequence from its length on. Nothing is copied."""
        if not fits(lengths, Sequence[int]) or len(lengths) != len(self) or min(lengths) < 0:
            raise ValueError(
                f"lengths is {shown(lengths)}; give for each of the {len(self)} sequences 0 tokens or more"
            )
        self.lengths = list(map(min, self.lengths, lengths))

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these sequences alone, in this order: the others have ended.

        Keys and values are copied where a sequence is to stand in another's place, as far as the longest reaches.
        """
        if not fits(rows, Sequence[int]) or not rows or not all(0 <= row < len(self) for row in rows):
            raise ValueError(f"rows is {shown(rows)}; name sequences to keep, from 0 to {len(self) - 1}")
        if len(rows) > len(self):  # one that goes on in several ways
            self._store = self._store[:, :, list(rows)]
        elif moved := {place: row for place, row in enumerate(rows) if place != row}:
            end = max(self.lengths)
            self._store[:, :, [*moved], :, :end] = self._store[:, :, [*moved.values()], :, :end]
        self._store = self._store[:, :, : len(rows)]
        self.lengths = [self.lengths[row] for row in rows]

    def _runs(self, counts: Sequence[int]) -> list[Run]:
        """The rows of a pass that feed something, neighbours with equal counts together."""
        found, first = list[Run](), 0
        for fed, group in groupby(counts):
            rows = slice(first, first := first + len(list(group)))
            if fed:
                found.append(self._run(rows, fed))
        return found

    def _run(self, rows: slice, fed: int) -> Run:
        """Who sees whom: its own row up to itself. None where the bare triangle or the whole is the kernel's own."""
        starts = self.lengths[rows]
        end = max(starts) + fed
        if not any(starts) or (fed == 1 and min(starts) == max(starts)):
            return Run(rows, fed, end, None)
        places = torch.tensor(starts)[:, None] + torch.arange(fed)  # [rows, fed]
        visible = torch.arange(end) <= places[:, None, :, None]  # [rows, 1, fed, end]
        return Run(rows, fed, end, attention_mask(visible, 0, fed, self._store))

    def _make_room(self, end: int) -> None:
        capacity = self._store.shape[-2]
        if end > capacity:
            self._store = F.pad(self._store, (0, 0, 0, max(end, 2 * capacity) - capacity))


def check_rows(target: LanguageModel, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> None:
    """Raise ValueError unless each prompt has a token and a limit of its own, and both fit the target's positions."""
    if len(prompts) != len(limits):
        raise ValueError(f"{len(prompts)} prompts have {len(limits)} limits; give each prompt one")
    for row, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
        if not prompt:
            raise ValueError(f"the prompt of row {row} is empty; give each row at least one token")
        check_length(target, prompt, limit)
