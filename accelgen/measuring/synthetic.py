"""What would I gain at an acceptance of 0.8 on my machine? A drafter that is right as often as one asks for.

Its passes are those of a real drafter, so that they cost what they cost; only the guess is replaced. The target's
greedy text is known beforehand, and at each place of a draft the guess is the right next token with the given chance
and another one else. So it works for greedy decoding alone: there, a guess is kept if it is the target's best token.

>>> places(0.8, gamma=2), places([0.9, 0.5], gamma=4)
((0.8, 0.8), (0.9, 0.5))
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from accelgen.measuring.contests import Plan
from accelgen.measuring.costs import Units
from accelgen.measuring.kinds import KINDS
from accelgen.measuring.machine import moved, one_thread
from accelgen.measuring.pairs import Run, agreement, merged, paired, spread
from accelgen.measuring.recording import Operation, Recorder, roles
from accelgen.measuring.rows import ForcedRow
from accelgen.measuring.sides import Request
from accelgen.measuring.speedup import LARGEST, expected_tokens, speedup
from accelgen.taxonomy.loading import load_taxonomy
from accelgen.taxonomy.schema import Method
from reference_impls.baselines import autoregressive
from reference_impls.core.cache import Cache
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.testing.cases import case_of


class SyntheticDrafter:
    """A drafter whose guess at place i of a draft is right with chance `acceptance[i]`, place by place on its own.

    `text` is the prompt with the target's greedy text after it; where it is over, guesses are the real drafter's. Where
    a draft begins it sees for itself: it is shown something else than its last guess, or more, or a shorter cache.
    """

    def __init__(
        self, drafter: LanguageModel, text: Sequence[int], acceptance: Sequence[float], *, seed: int = 0
    ) -> None:
        self.drafter, self.text, self.acceptance = drafter, list(text), tuple(acceptance)
        self.shape = drafter.shape
        self._chance, self._place = random.Random(seed), 0
        self._last = (0, -1)  # the length of the cache after the last pass, and the guess

    @property
    def device(self) -> torch.device:
        """Where the real drafter is."""
        return self.drafter.device

    def new_cache(self) -> Cache:
        """An empty cache of the real drafter."""
        return self.drafter.new_cache()

    def __call__(self, tokens: Sequence[int], cache: Cache, *, last: int = 1) -> Tensor:
        """Logits [last, vocab] of the real drafter; in the last row the chosen guess is made the best token.

        Raises ValueError for a draft that is longer than the given chances.
        """
        length, guess = self._last
        goes_on = length == len(cache) and list(tokens) == [guess]
        self._place = self._place + 1 if goes_on else 0
        if self._place >= len(self.acceptance):
            raise ValueError(f"guess {self._place + 1} of a draft has no chance: {len(self.acceptance)} were given")
        logits = self.drafter(tokens, cache, last=last).clone()
        right = self._chance.random() < self.acceptance[self._place]
        if len(cache) < len(self.text):
            token = self.text[len(cache)]
            logits[-1, token] = logits[-1].amax() + 1 if right else -torch.inf
        self._last = (len(cache), int(logits[-1].argmax()))
        return logits


def places(acceptance: float | Sequence[float], gamma: int) -> tuple[float, ...]:
    """A chance for each guess of a draft: one number for `gamma` guesses, or a list, whose length is the draft's.

    Raises ValueError for a chance outside [0, 1], for an empty list, and for one of more than 64 places.
    """
    found = (float(acceptance),) * gamma if isinstance(acceptance, int | float) else tuple(acceptance)
    if not 1 <= len(found) <= LARGEST:
        raise ValueError(f"{len(found)} chances of acceptance were given; give 1 to {LARGEST}, one for each guess")
    for chance in found:
        if not 0 <= chance <= 1:
            raise ValueError(f"an acceptance of {chance:g} is no chance: it must lie in [0, 1]")
    return found


def parse(text: str) -> float | list[float]:
    """`0.8` as a number, `0.9,0.8,0.6` as a list. Raises ValueError for anything else."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f"{text!r} is no acceptance: give a chance such as 0.8, or one for each guess such as 0.9,0.8,0.6"
        ) from None
    return found if len(found) > 1 else found[0]


def measure(method: Method, acceptance: float | Sequence[float], plan: Plan) -> ForcedRow:
    """Paired runs of the method with such a drafter against plain greedy decoding, and what the formula promises.

    The formula's costs are measured too, inside the method's loop on the first prompt. Raises ValueError for a method
    that does not draft a chain with one language model.
    """
    check(method, acceptance)
    kind, module = KINDS[method.call], importlib.import_module(method.module)
    options = moved(module.example(), plan.device)
    chances = places(acceptance, options["gamma"])
    gamma, prompts = len(chances), kind.inputs(plan.prompts)
    own = options | {"gamma": gamma}
    with one_thread():
        texts = [known_text(options["target"], prompt, plan.limit + gamma) for prompt in prompts]

        def drafter(i: int, seed: int) -> SyntheticDrafter:
            return SyntheticDrafter(own["drafter"], texts[i], chances, seed=seed * len(prompts) + i)

        def runs(i: int, seed: int) -> tuple[Run, Run]:
            side = kind.side(module, own | {"drafter": drafter(i, seed)})
            request = Request(prompts[i], plan.limit)
            return lambda: kind.perform(kind.rival(method.id, side, plan.limit), request), lambda: kind.perform(
                side, request
            )

        c, v = loop_costs(module, own, *runs(0, 0))
        pairs = paired([runs(i, seed) for i, seed in plan.order()], method.id, plan.tick)
    total = merged(result for pair in pairs for result in pair.own)
    return ForcedRow(
        id=method.id,
        setting=f"greedy, acceptance {', '.join(f'{chance:g}' for chance in chances)}",
        gamma=gamma,
        tokens_per_pass=total.tokens_per_pass,
        expected_tokens=expected_tokens(chances, gamma),
        predicted=speedup(chances, gamma, cost_ratio=c, verify_cost=v),
        cost_ratio=c,
        verify_cost=v,
        **vars(spread([pair.speedup for pair in pairs])),
        **agreement([prompts[i] for i, _ in plan.order()], pairs, exact=True, target=options["target"]),
    )


def check(method: Method, acceptance: float | Sequence[float]) -> None:
    """Raise ValueError for a method that has no such drafter, and for chances that are none."""
    if not case_of(method.id).chain:
        fit = [known.id for known in load_taxonomy().methods if case_of(known.id).chain]
        raise ValueError(
            f"{method.id} does not draft a chain with one language model, so no acceptance can be forced on it; "
            f"choose one of {', '.join(fit)}"
        )
    places(acceptance, gamma=1)


def known_text(target: LanguageModel, prompt: Sequence[int], count: int) -> list[int]:
    """The prompt with `count` tokens of the target's greedy text."""
    return [*prompt, *autoregressive.generate(target, prompt, count, sampler=Sampler(0)).tokens]


def loop_costs(module: Any, options: dict[str, Any], plain: Run, own: Run) -> tuple[float, float]:
    """A drafter's pass, and the target's pass over gamma + 1 tokens, both in the target's passes over one token."""
    recorder = Recorder()
    plain(), own()  # the first runs are slower
    with recorder.watching(module, options, {}):
        plain(), own()
    units = Units(recorder.calls)
    role = dict(roles(options))

    def seconds(name: str, new: int) -> float:
        return units.seconds(Operation(*role[options[name]], "forward", "", new))

    step = seconds("target", 1)
    return seconds("drafter", 1) / step, seconds("target", options["gamma"] + 1) / step
