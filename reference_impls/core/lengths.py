"""How long a text will be, for decoders that must know it before they write the first word."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_impls.core.arguments import checked
from reference_impls.core.sampling import wide


class LengthPredictor(nn.Module):
    """One table [longest + 1, dim]: row 0 is a LENGTH token that stands before the source, row n is the length n.

    Ghazvininejad et al. (2019), section 2.3.
    """

    @checked
    def __init__(self, dim: int, longest: int) -> None:
        super().__init__()
        if longest < 1:
            raise ValueError(f"longest is {longest}; a text has at least 1 token")
        self.table = nn.Parameter(torch.randn(longest + 1, dim) * dim**-0.5)

    def prepend(self, x: Tensor) -> Tensor:
        """Input vectors [..., 1 + source, dim]: the LENGTH token, then x."""
        return torch.cat((self.table[0].expand(*x.shape[:-2], 1, -1), x), dim=-2)

    def forward(self, state: Tensor) -> Tensor:
        """Log-probabilities [..., longest + 1] of the lengths, from the LENGTH token's state; length 0 is forbidden."""
        scores = state @ self.table.T
        return F.pad(scores[..., 1:], (1, 0), value=float("-inf")).log_softmax(-1, wide(scores))


def likeliest_lengths(log_p: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` likeliest lengths, best first, and their log-probabilities, both [count], of log_p [lengths].

    Raises ValueError for log-probabilities that are not finite.
    """
    best = log_p.topk(count)
    if not best.values.isfinite().all():
        raise ValueError("the length predictor's scores are not finite (NaN or infinite): check its weights")
    return best.indices, best.values


def lengths_around(middle: int, count: int, longest: int, device: torch.device) -> Tensor:
    """The `count` lengths [count] in a row about `middle`, each brought into 1, …, `longest`."""
    first = middle - count // 2
    return torch.arange(first, first + count, device=device).clamp(1, longest)


def real_places(lengths: Tensor) -> Tensor:
    """True [rows, longest of them] at the places of canvases of these lengths [rows]; the others only pad the batch."""
    return torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]
