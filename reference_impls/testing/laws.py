"""Output laws by enumeration: every outcome of every random choice is followed, so nothing is left to statistics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from reference_impls.core.generation import Ends, Generation, is_end
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler

Law = dict[tuple[int, ...], float]
IMPOSSIBLE = 1e-13  # below this probability an outcome is rounding, not a choice


class Exhaustive(Sampler):
    """A sampler that follows `script`, then takes the first possible outcome of each choice and notes the others.

    `weight` is the probability of the outcomes taken; `open` holds the scripts that lead to the outcomes noted. Each
    element of a vector of laws or of probabilities is a choice of its own, because a method may use it on its own.
    Further settings are those of `Sampler`.
    """

    def __init__(self, script: Sequence[int] = (), **settings: Any) -> None:
        super().__init__(**settings)
        self.script, self.taken = list(script), list[int]()
        self.open: list[list[int]] = []
        self.weight = 1.0

    def draw(self, p: Tensor) -> Tensor:
        """One token [...] from each law p [..., vocab], by script."""
        laws = p.double().reshape(-1, p.shape[-1]).tolist()
        return torch.tensor([self._choose(law) for law in laws], device=p.device).reshape(p.shape[:-1])

    def accept(self, probability: Tensor) -> Tensor:
        """Yes or no [...] for each probability [...], by script."""
        yes = probability.double().clamp(0, 1).flatten().tolist()
        taken = [self._choose((1 - chance, chance)) == 1 for chance in yes]
        return torch.tensor(taken, dtype=torch.bool, device=probability.device).reshape(probability.shape)

    def _choose(self, law: Sequence[float]) -> int:
        turn = len(self.taken)
        if turn < len(self.script):
            choice = self.script[turn]
        else:
            possible = [i for i, chance in enumerate(law) if chance > IMPOSSIBLE]
            if not possible:
                raise ValueError(f"there is nothing to choose from: the law is {list(law)}")
            choice = possible[0]
            self.open += [[*self.taken, other] for other in possible[1:]]
        self.taken.append(choice)
        self.weight *= law[choice]
        return choice


def exact_law(run: Callable[[Exhaustive], Generation], **settings: Any) -> Law:
    """The probability of each sequence of tokens that `run(sampler)` can return, found depth first.

    `settings` are those of `Sampler`: temperature, top_k, top_p.
    """
    law: defaultdict[tuple[int, ...], float] = defaultdict(float)
    scripts: list[list[int]] = [[]]
    while scripts:
        sampler = Exhaustive(scripts.pop(), **settings)
        law[tuple(run(sampler).tokens)] += sampler.weight
        scripts += sampler.open
    return dict(law)


@torch.inference_mode()
def autoregressive_law(
    target: LanguageModel, prompt: Sequence[int], limit: int, *, eos: Ends | None = None, **settings: Any
) -> Law:
    """The law of up to `limit` tokens after `prompt`, as the product of the target's next-token laws.

    Every context is read in one pass of its own without a cache: slow, and free of what a decoding loop can get wrong.
    """
    sampler, law = Sampler(**settings), Law()
    texts: Law = {(): 1.0}
    for _ in range(limit):
        longer = Law()
        for text, chance in texts.items():
            p = sampler.probs(target([*prompt, *text])[-1]).tolist()
            longer |= {(*text, token): chance * p[token] for token in range(len(p)) if p[token] > 0}
        law |= {text: chance for text, chance in longer.items() if is_end(text[-1], eos)}
        texts = {text: chance for text, chance in longer.items() if not is_end(text[-1], eos)}
    return law | texts


def total_variation(one: Mapping[Any, float], other: Mapping[Any, float]) -> float:
    """Half the sum of the differences of two laws: 0 for equal laws, 1 for laws without a common outcome."""
    return sum(abs(one.get(key, 0.0) - other.get(key, 0.0)) for key in one.keys() | other.keys()) / 2
