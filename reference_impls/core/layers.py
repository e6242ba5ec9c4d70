"""What every model here is built of: norm, attention, rotary angles and masks, and the layer made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from operator import index

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_impls.core.cache import KeysAndValues

Angles = tuple[Tensor, Tensor]  # their cosines and signed sines, each [tokens, head_dim]


@dataclass(frozen=True)
class Shape:
    """The numbers that fix a model's weights; the names follow the Llama family (Touvron et al., 2023)."""

    vocab: int
    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    rope_theta: float = 10000.0
    eps: float = 1e-5
    qkv_bias: bool = False
    tied: bool = True
    qk_norm: bool = False  # queries and keys are normalised in each head, as in Qwen3
    rope_rates: tuple[float, ...] = ()  # radians a position for each pair, where they are not powers of rope_theta
    rope_scale: float = 1.0  # of rotated queries and of rotated keys, as YaRN has it
    positions: int | None = None  # how many there are; None where no place is the last, as with most rotations


def as_tensor(tokens: Sequence[int] | Tensor, vocab: int, device: torch.device) -> Tensor:
    """Token ids as a tensor on `device`. Raises ValueError for no token or an id that is not below `vocab`.

    And TypeError for what is no id. Tensors pass as they are: looking at them would cost a copy from the device.
    """
    if isinstance(tokens, Tensor):
        if tokens.is_floating_point():
            raise TypeError(f"tokens are a tensor of {tokens.dtype}; ids are whole numbers, so give torch.long")
        return tokens
    if not tokens:
        raise ValueError("no token to run the model on: the prompt or source is empty; give at least one token")
    try:
        ids = list(map(index, tokens))
    except TypeError:
        raise TypeError(f"{tokens!r:.60} is no list of token ids; give whole numbers") from None
    if min(ids) < 0 or max(ids) >= vocab:
        wrong = next(t for t in ids if not 0 <= t < vocab)
        drawn = "; -1 is what logits that are not finite give: check the weights of the drafter" if wrong == -1 else ""
        raise ValueError(f"token id {wrong} is outside the model's vocabulary of {vocab}{drawn}")
    return torch.tensor(ids, device=device)


def check_last(last: int | None) -> None:
    """Raise ValueError for a number of tokens to read out that is none."""
    if last is not None and not (isinstance(last, Integral) and last >= 1):
        raise ValueError(
            f"last is {last!r}; it is how many of the newest tokens are read out, at least 1, or None for all"
        )


def attention_mask(visible: Tensor | None, past: int, new: int, like: Tensor) -> Tensor | None:
    """Additive mask [..., new, past + new]: the past is always open, `visible` rules among the new tokens.

    `None` where no mask is needed: one new token sees everything, and the bare triangle is the kernel's own.
    """
    if visible is None:
        if new == 1 or past == 0:
            return None
        visible = torch.ones(new, new, dtype=torch.bool, device=like.device).tril()
    closed = torch.zeros(visible.shape, dtype=like.dtype, device=like.device)
    closed.masked_fill_(~visible.to(like.device), float("-inf"))
    return F.pad(closed, (past, 0)) if past else closed


def rotate(x: Tensor, angles: Angles) -> Tensor:
    """Rotary position embedding (Su et al., 2021) of x [..., tokens, head_dim], the two halves forming the pairs."""
    cos, sin = angles
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


class Norm(nn.RMSNorm):
    """Root-mean-square norm (Zhang and Sennrich, 2019) of x [..., dim]: w x / sqrt(mean(x^2) + eps).

    On a processor PyTorch composes its own of ten operations, which take a quarter of a small model's pass.
    """

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__(dim, eps=eps)
        self.root = dim**0.5
        # Without dimensions it joins tensors of any device and dtype.
        self.floor = torch.tensor((dim * eps) ** 0.5, dtype=torch.float64, device="cpu")

    def __call__(self, x: Tensor) -> Tensor:
        """As `nn.RMSNorm`, in half the operations, and past the hooks of nn.Module, which take as long as two."""
        if not x.is_cpu or x.dtype.itemsize < 4:  # one kernel there; and narrow types are summed in a wider one
            return self.forward(x)
        length = torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), self.floor)  # [..., 1]
        return x / length * (self.weight * self.root)


class Attention(nn.Module):
    """Self-attention with fused projections, or cross-attention to a fixed memory; grouped queries allowed."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = shape.heads, shape.kv_heads, shape.head_dim
        wide = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
        self.qkv = nn.Parameter(torch.randn(shape.dim, wide) * shape.dim**-0.5)
        self.bias = nn.Parameter(torch.zeros(wide)) if shape.qkv_bias else None
        self.out = nn.Parameter(torch.randn(shape.heads * shape.head_dim, shape.dim) * shape.dim**-0.5)
        normed = (shape.heads + shape.kv_heads, 1, shape.head_dim)
        self.qk_norm, self.eps = nn.Parameter(torch.ones(normed)) if shape.qk_norm else None, shape.eps

    def project(self, x: Tensor, angles: Angles | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [..., heads, tokens, head_dim] and rotated keys and values [..., kv_heads, tokens, head_dim] of x."""
        qkv = x @ self.qkv if self.bias is None else x @ self.qkv + self.bias
        qkv = qkv.unflatten(-1, (-1, self.head_dim)).transpose(-3, -2)
        qk, v = qkv.split((self.heads + self.kv_heads, self.kv_heads), dim=-3)
        if self.qk_norm is not None:
            qk = F.rms_norm(qk, (self.head_dim,), eps=self.eps) * self.qk_norm
        if angles is not None:
            qk = rotate(qk, angles)
        q, k = qk.split((self.heads, self.kv_heads), dim=-3)
        return q, k, v

    def read(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, causal: bool = False) -> Tensor:
        """What the queries read from keys and values, projected back to [..., tokens, dim]."""
        flat = q.dim() == 3  # one sequence: the fast kernel wants a batch dimension
        if flat:
            q, k, v = q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0)
        if mask is not None and mask.dim() > 2:
            mask = mask.unsqueeze(-3)  # the same for all heads
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=self.heads != self.kv_heads
        )
        y = (y.squeeze(0) if flat else y).transpose(-3, -2).flatten(-2)
        return y @ self.out


class Block(nn.Module):
    """One pre-normalised layer. `attend` and `feed` return what each half adds, so that papers may skip either."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm = Norm(shape.dim, eps=shape.eps)
        self.attention = Attention(shape)
        self.feed_norm = Norm(shape.dim, eps=shape.eps)
        self.gate_up = nn.Parameter(torch.randn(shape.dim, 2 * shape.hidden) * shape.dim**-0.5)
        self.down = nn.Parameter(torch.randn(shape.hidden, shape.dim) * shape.hidden**-0.5)

    def attend(
        self, x: Tensor, angles: Angles | None, mask: Tensor | None, cache: KeysAndValues | None = None, layer: int = 0
    ) -> Tensor:
        """What self-attention adds to x [..., tokens, dim]; new keys and values go to `cache` at `layer`."""
        q, k, v = self.attention.project(self.attention_norm(x), angles)
        if cache is not None:
            k, v = cache.append(layer, k, v)
        causal = mask is None and q.shape[-2] == k.shape[-2]
        return self.attention.read(q, k, v, mask, causal=causal)

    def feed(self, x: Tensor) -> Tensor:
        """What the gated feed-forward half (SwiGLU) adds to x [..., tokens, dim]."""
        gate, up = (self.feed_norm(x) @ self.gate_up).chunk(2, dim=-1)
        return (F.silu(gate) * up) @ self.down

    def forward(
        self, x: Tensor, angles: Angles | None, mask: Tensor | None, cache: KeysAndValues | None = None, layer: int = 0
    ) -> Tensor:
        """The whole layer: x plus what attention adds, plus what the feed-forward half adds to that."""
        x = x + self.attend(x, angles, mask, cache, layer)
        return x + self.feed(x)
