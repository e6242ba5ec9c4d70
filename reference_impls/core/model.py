"""A Llama-shaped decoder whose layers, halves of layers and masks a decoding method can address directly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_impls.core.arguments import checked
from reference_impls.core.cache import Cache, Past
from reference_impls.core.layers import Angles, Block, Norm, Shape, as_tensor, attention_mask, check_last


class LanguageModel(nn.Module):
    """A decoder-only model, run in one call (`model(tokens, cache)`) or layer by layer (`embed`, `run`, `logits`)."""

    @checked
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Parameter(torch.randn(shape.vocab, shape.dim) * shape.dim**-0.5)
        self.blocks = cast("list[Block]", nn.ModuleList(Block(shape) for _ in range(shape.layers)))
        self.norm = Norm(shape.dim, eps=shape.eps)
        self.head = None if shape.tied else nn.Parameter(torch.randn(shape.dim, shape.vocab) * shape.dim**-0.5)
        self.register_buffer("_angles", torch.empty(2, 0, shape.head_dim), persistent=False)
        self._angles: Tensor

    @property
    def device(self) -> torch.device:
        """Where the weights are, and so where every tensor of a decoding loop is born."""
        return self.embedding.device

    def new_cache(self) -> Cache:
        """An empty cache for one sequence of this model."""
        shape = self.shape
        return Cache(shape.layers, shape.kv_heads, shape.head_dim, self.embedding.dtype, self.device)

    def forget_angles(self) -> None:
        """Drop the table of rotary angles; it is made again, on the weights' device, when it is next needed."""
        self._angles = torch.empty(2, 0, self.shape.head_dim, device=self.device)

    def angles(self, start: int, new: int, positions: Tensor | None = None) -> Angles:
        """Cosines and signed sines [new, head_dim] for positions start, start + 1, … or for explicit `positions` >= 0.

        Explicit ones are best kept on the processor: looking for the largest is a wait for any other device.
        """
        end = start + new if positions is None else int(positions.max()) + 1
        if end > self._angles.shape[1]:
            with torch.inference_mode(False):  # the table outlives this call, and training may need it later
                self._angles = torch.stack(self._angles_at(torch.arange(max(2 * end, 256), device=self.device)))
        cos, sin = self._angles[:, slice(start, end) if positions is None else positions.to(self.device)]
        return cos, sin

    def _angles_at(self, positions: Tensor) -> Angles:
        shape = self.shape
        if shape.rope_rates:
            rates = torch.tensor(shape.rope_rates, device=self.device, dtype=torch.float32)
        else:
            half = torch.arange(0, shape.head_dim, 2, device=self.device, dtype=torch.float32)
            rates = shape.rope_theta ** (-half / shape.head_dim)
        angle = positions[..., None].float() * rates  # [..., tokens, head_dim / 2]
        cos, sin = angle.cos(), angle.sin()
        if shape.rope_scale != 1:
            cos, sin = cos * shape.rope_scale, sin * shape.rope_scale
        dtype = self.embedding.dtype
        return torch.cat((cos, cos), -1).to(dtype), torch.cat((-sin, sin), -1).to(dtype)

    def embed(self, tokens: Sequence[int] | Tensor) -> Tensor:
        """Input vectors [..., tokens, dim]. Raises ValueError for no token or an id outside the vocabulary."""
        return F.embedding(as_tensor(tokens, self.shape.vocab, self.device), self.embedding)

    def run(
        self,
        x: Tensor,
        cache: Past | None = None,
        *,
        layers: range | None = None,
        positions: Tensor | None = None,
        visible: Tensor | None = None,
    ) -> Tensor:
        """Hidden states [..., tokens, dim] after `layers` (all by default) of hidden states x.

        `positions` [tokens] default to those that follow the cache. `visible` [tokens, tokens] says which new
        token (row) sees which new token (column); the default is the causal triangle; the cache is always visible.
        """
        layers = range(self.shape.layers) if layers is None else layers
        past = cache.length(layers[0]) if cache is not None and len(layers) else 0
        angles = self.angles(past, x.shape[-2], positions)
        mask = attention_mask(visible, past, x.shape[-2], x)
        blocks = list(self.blocks)  # a ModuleList looks for a string at each index
        for layer in layers:
            if cache is not None and cache.length(layer) != past:
                raise ValueError(f"layer {layer} has {cache.length(layer)} cached tokens, layer {layers[0]} has {past}")
            x = x + blocks[layer].attend(x, angles, mask, cache, layer)
            x = x + blocks[layer].feed(x)
        return x

    def fill(self, x: Tensor, cache: Cache, *, layers: range) -> None:
        """Append keys and values for x [tokens, dim] to skipped `layers`, as if x had reached each unchanged.

        This is the state propagation of early-exit decoding (Schuster et al., 2022).
        """
        for layer in layers:
            block = self.blocks[layer]
            angles = self.angles(cache.length(layer), x.shape[-2])
            cache.append(layer, *block.attention.project(block.attention_norm(x), angles)[1:])

    def logits(self, x: Tensor) -> Tensor:
        """Next-token logits [..., tokens, vocab] read from the hidden states of any layer."""
        return self.project(self.norm(x))

    def project(self, features: Tensor) -> Tensor:
        """Logits [..., vocab] of features [..., dim] that are normalised already: the vocabulary projection alone."""
        return features @ (self.embedding.T if self.head is None else self.head)

    def forward(
        self,
        tokens: Sequence[int] | Tensor,
        cache: Cache | None = None,
        *,
        last: int | None = None,
        positions: Tensor | None = None,
        visible: Tensor | None = None,
    ) -> Tensor:
        """Next-token logits [..., tokens, vocab], or of the `last` tokens alone. Other arguments as in `run`."""
        check_last(last)
        x = self.run(self.embed(tokens), cache, positions=positions, visible=visible)
        return self.logits(x if last is None else x[..., -last:, :])
