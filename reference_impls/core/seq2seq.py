"""An encoder-decoder of the same blocks: `visible` decides whether its decoder is causal or fills a canvas at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_impls.core.arguments import check_range, checked
from reference_impls.core.cache import Cache
from reference_impls.core.layers import Attention, Block, Norm, Shape, as_tensor, attention_mask


@dataclass(frozen=True)
class Memory:
    """What the decoder reads: a source's states [..., source, dim] and each layer's keys and values, made once."""

    states: Tensor
    layers: list[tuple[Tensor, Tensor]]  # per decoder layer: two of [..., kv_heads, source, head_dim]
    mask: Tensor | None  # additive, [..., 1, source]; None where every source token is real


class CrossAttention(Attention):
    """Attention whose queries come from the canvas and whose keys and values come from a memory."""

    def queries(self, x: Tensor) -> Tensor:
        """Queries [..., heads, tokens, head_dim] of x [..., tokens, dim]."""
        return self._heads(x, slice(0, self.heads * self.head_dim))

    def remember(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [..., kv_heads, source, head_dim] of encoder states [..., source, dim]."""
        both = self._heads(states, slice(self.heads * self.head_dim, None))
        return both[..., : self.kv_heads, :, :], both[..., self.kv_heads :, :, :]

    def _heads(self, x: Tensor, part: slice) -> Tensor:
        y = x @ self.qkv[:, part] if self.bias is None else x @ self.qkv[:, part] + self.bias[part]
        return y.unflatten(-1, (-1, self.head_dim)).transpose(-3, -2)


class CrossBlock(Block):
    """A decoder layer: self-attention, then attention to the memory, then the feed-forward half."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.cross_norm = Norm(shape.dim, eps=shape.eps)
        self.cross = CrossAttention(shape)

    def consult(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """What attention to the memory adds to x [..., tokens, dim]; one memory serves a whole batch of x."""
        q = self.cross.queries(self.cross_norm(x))
        keys, values = (t.expand(*q.shape[:-3], *t.shape[-3:]) for t in (keys, values))
        return self.cross.read(q, keys, values, mask)


class EncoderDecoder(nn.Module):
    """Reads a source once (`encode`), then runs its decoder on whatever canvas a method puts there (`decode`).

    Positions are learned and absolute: a canvas of identical mask tokens has nothing else to tell its places apart.
    Sources and canvases hold up to `longest` tokens. One table of embeddings serves source, canvas and read-out.
    """

    @checked
    def __init__(self, shape: Shape, longest: int) -> None:
        super().__init__()
        check_range(1, longest=longest)
        self.shape, self.longest = shape, longest
        self.embedding = nn.Parameter(torch.randn(shape.vocab, shape.dim) * shape.dim**-0.5)
        self.positions = nn.Parameter(torch.randn(longest, shape.dim) * shape.dim**-0.5)
        self.encoder = cast("list[Block]", nn.ModuleList(Block(shape) for _ in range(shape.layers)))
        self.encoder_norm = Norm(shape.dim, eps=shape.eps)
        self.decoder = cast("list[CrossBlock]", nn.ModuleList(CrossBlock(shape) for _ in range(shape.layers)))
        self.norm = Norm(shape.dim, eps=shape.eps)

    @property
    def device(self) -> torch.device:
        """Where the weights are, and so where every tensor of a decoding loop is born."""
        return self.embedding.device

    def new_cache(self) -> Cache:
        """An empty cache for causal decoding of one canvas."""
        shape = self.shape
        return Cache(shape.layers, shape.kv_heads, shape.head_dim, self.embedding.dtype, self.device)

    def embed(self, tokens: Sequence[int] | Tensor, start: int = 0) -> Tensor:
        """Input vectors [..., tokens, dim] at positions start, start + 1, … Raises ValueError for tokens it cannot."""
        tokens = as_tensor(tokens, self.shape.vocab, self.device)
        end = start + tokens.shape[-1]
        if end > self.longest:
            raise ValueError(f"{end} tokens are too many: this model knows {self.longest} positions")
        return F.embedding(tokens, self.embedding) + self.positions[start:end]

    def encode(self, source: Sequence[int] | Tensor, real: Tensor | None = None) -> Memory:
        """The memory of `source` [..., source]. `real` [..., source] is False where a token only pads a batch."""
        return self.remember(self.read(self.embed(source), real), real)

    def read(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        """Encoder states [..., source, dim] of input vectors x; every real token sees every real token."""
        seen = torch.ones(1, x.shape[-2], dtype=torch.bool) if real is None else real[..., None, :]
        mask = attention_mask(seen, 0, x.shape[-2], x)
        for block in self.encoder:
            x = block(x, None, mask)
        return self.encoder_norm(x)

    def remember(self, states: Tensor, real: Tensor | None = None) -> Memory:
        """The memory of encoder states [..., source, dim], with the keys and values of all decoder layers."""
        mask = None if real is None else attention_mask(real[..., None, :], 0, states.shape[-2], states)
        return Memory(states, [block.cross.remember(states) for block in self.decoder], mask)

    def decode(
        self,
        canvas: Sequence[int] | Tensor,
        memory: Memory,
        cache: Cache | None = None,
        *,
        visible: Tensor | None = None,
    ) -> Tensor:
        """Hidden states [..., tokens, dim] of the canvas [..., tokens], which follows what `cache` holds.

        `visible`, broadcast to [..., tokens, tokens], says which new token (row) sees which (column); the default is
        the causal triangle, and ones decode in parallel. One memory may serve a batch of canvases.
        """
        past = len(cache) if cache is not None else 0
        x = self.embed(canvas, past)
        mask = attention_mask(visible, past, x.shape[-2], x)
        for layer, (block, (keys, values)) in enumerate(zip(self.decoder, memory.layers, strict=True)):
            x = x + block.attend(x, None, mask, cache, layer)
            x = x + block.consult(x, keys, values, memory.mask)
            x = x + block.feed(x)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """Logits [..., tokens, vocab] read from hidden states x [..., tokens, dim]."""
        return self.norm(x) @ self.embedding.T
