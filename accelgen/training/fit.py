"""One training loop for the whole zoo: Muon for matrices, AdamW for the rest, a warm-up, a plateau, a linear end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn


def schedule(step: int, steps: int, decay: float, warm_up: int = 50) -> float:
    """Factor of the learning rate: linear warm-up, plateau, then linear to zero over the last `decay` of the steps."""
    return min(1.0, (step + 1) / warm_up, (steps - step) / (decay * steps) if decay else 1.0)


def optimisers(
    parameters: Iterable[nn.Parameter], matrix_rate: float, other_rate: float
) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al., 2024) for the inner matrices, AdamW for embeddings, norms and biases.

    Embeddings are told apart by a mark that their owner sets: `parameter.is_table = True`.
    """
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for p in parameters:
        if p.requires_grad:
            groups[p.dim() == 2 and not getattr(p, "is_table", False)].append(p)
    found: list[torch.optim.Optimizer] = []
    if groups[True]:
        found.append(torch.optim.Muon(groups[True], lr=matrix_rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"))
    if groups[False]:
        found.append(torch.optim.AdamW(groups[False], lr=other_rate, betas=(0.9, 0.95), weight_decay=0.0))
    return found


def fit(
    parameters: Iterable[nn.Parameter],
    loss: Callable[[int], Tensor],
    steps: int,
    *,
    matrix_rate: float = 6e-3,
    other_rate: float = 1e-2,
    decay: float = 0.5,
    title: str = "training",
) -> list[float]:
    """Minimise `loss(step)` and return its course. A progress bar shows the running mean.

    Raises FloatingPointError when the loss stops being finite, before the weights are spoiled further.
    """
    groups = optimisers(list(parameters), matrix_rate, other_rate)
    rates = [[g["lr"] for g in o.param_groups] for o in groups]
    course: list[float] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task(title, total=steps)
        for step in range(steps):
            factor = schedule(step, steps, decay)
            for optimiser, base in zip(groups, rates, strict=True):
                for group, rate in zip(optimiser.param_groups, base, strict=True):
                    group["lr"] = rate * factor
                optimiser.zero_grad()
            value = loss(step)
            if not math.isfinite(value.item()):
                raise FloatingPointError(f"the loss of {title} is {value.item()} at step {step}: lower the rates")
            value.backward()
            for optimiser in groups:
                optimiser.step()
            course.append(value.item())
            recent = course[-100:]
            bar.update(task, advance=1, description=f"{title}: loss {sum(recent) / len(recent):.3f}")
    return course
