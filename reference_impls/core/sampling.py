"""From logits to laws to tokens. The only place in the project where chance enters."""

from __future__ import annotations

import torch
from torch import Tensor

from reference_impls.core.arguments import checked

COLDEST = 1e-30  # what logits are divided by must leave them finite in float32


def wide(logits: Tensor) -> torch.dtype:
    """The type in which laws are made: float32, or that of the logits where it is wider.

    Whatever the model computes in: bfloat16 has three digits, in which p and q of exact methods would miss each other
    by a thousandth, and float16 ends at 65,504.
    """
    return torch.promote_types(logits.dtype, torch.float32)


class Sampler:
    """Turns logits into next-token laws and draws from them, with a random state of its own.

    `temperature` 0 is greedy decoding: its law is one-hot, so no method needs a second code path. `top_k` and `top_p`
    (nucleus; Holtzman et al., 2020) apply to the tempered law. Raises ValueError for a setting out of range.
    """

    @checked
    def __init__(
        self, temperature: float = 1.0, *, top_k: int | None = None, top_p: float | None = None, seed: int = 0
    ) -> None:
        if temperature != 0 and not COLDEST <= temperature < float("inf"):
            raise ValueError(f"temperature is {temperature}; it must be 0 (greedy) or a number of at least {COLDEST}")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k is {top_k}; it must be at least 1")
        if top_p is not None and not 0 < top_p <= 1:
            raise ValueError(f"top_p is {top_p}; it must lie in (0, 1]")
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed is {seed}; it must lie between 0 and 2**64 - 1")
        self.temperature, self.top_k, self.top_p, self.seed = temperature, top_k, top_p, seed
        self._generators: dict[torch.device, torch.Generator] = {}

    def probs(self, logits: Tensor) -> Tensor:
        """The law [..., vocab] that logits [..., vocab] stand for under this sampler's settings."""
        dtype = wide(logits)
        if self.temperature == 0:
            best, token = logits.max(-1, keepdim=True)
            one = (best * 0 + 1).to(dtype)  # or NaN, which keeps a broken model visible
            return torch.zeros_like(logits, dtype=dtype).scatter_(-1, token, one)
        p = logits.softmax(-1, dtype) if self.temperature == 1 else (logits.to(dtype) / self.temperature).softmax(-1)
        if self.top_k is not None and self.top_k < p.shape[-1]:
            p = p.where(p >= p.topk(self.top_k).values[..., -1:], 0.0)
        if self.top_p is not None and self.top_p < 1:
            best_first, order = p.sort(descending=True)
            before = best_first.cumsum(-1) - best_first  # mass of all better tokens
            p = torch.zeros_like(p).scatter_(-1, order, best_first.where(before < self.top_p * p.sum(-1, True), 0.0))
        return p / p.sum(-1, keepdim=True)

    def draw(self, p: Tensor) -> Tensor:
        """One token [...] from each law p [..., vocab], by inverting its distribution function.

        A law that is not finite yields the impossible token -1, which the next use of it reports.
        """
        cumulated = p.cumsum(-1, dtype=torch.float64)  # float32 would lose the rare tokens of a large vocabulary
        total = cumulated[..., -1:]
        token = torch.searchsorted(cumulated, self._uniform(total) * total, right=True)
        return torch.where(total > 0, token, -1).squeeze(-1)

    def accept(self, probability: Tensor) -> Tensor:
        """Independent yes or no [...] for each probability [...]; values above 1 count as 1."""
        return self._uniform(probability.double()) < probability

    def _uniform(self, like: Tensor) -> Tensor:
        generator = self._generators.get(like.device)
        if generator is None:
            generator = torch.Generator(like.device).manual_seed(self.seed)
            self._generators[like.device] = generator
        return torch.rand(like.shape, generator=generator, device=like.device, dtype=like.dtype)
