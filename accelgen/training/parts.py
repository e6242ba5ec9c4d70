"""Small modules that learn on the frozen target from windows of text, such as heads, probes and drafting layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from accelgen.training.corpora import windows
from accelgen.training.fit import fit
from accelgen.training.recipe import Settings
from accelgen.training.shelf import Shelf


@dataclass(frozen=True)
class Windows(Settings):
    """How long a part learns, and from how much; it sees steps * batch * length tokens."""

    steps: int = 1_000
    batch: int = 6
    length: int = 256
    rates: tuple[float, float] = (4e-3, 4e-3)  # of Muon and of AdamW
    decay: float = 0.5  # share of the steps in which the rates fall to zero


def learn(shelf: Shelf, settings: Windows, part: nn.Module, loss: Callable[[Tensor, int], Tensor]) -> None:
    """Train a part in place. `loss` is called with windows of text [batch, length + 1] and the number of the step."""
    generator = torch.Generator().manual_seed(settings.seed)
    rows = shelf.rows()

    def measured(step: int) -> Tensor:
        x = windows(rows, settings.batch, settings.length, generator)
        with torch.autocast("cpu", torch.bfloat16):
            return loss(x, step)

    matrix_rate, other_rate = settings.rates
    fit(
        part.parameters(), measured, settings.steps, title=type(part).__name__,
        matrix_rate=matrix_rate, other_rate=other_rate, decay=settings.decay,
    )  # fmt: skip
