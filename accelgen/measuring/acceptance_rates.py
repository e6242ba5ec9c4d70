"""What people call acceptance rate: five figures of one and the same run, which need not even be close.

`python -m accelgen.measuring.acceptance_rates` decodes with the drafter of the zoo and stores the example on the site.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from accelgen.measuring.rows import AcceptanceFigures
from accelgen.measuring.speedup import expected_tokens
from reference_impls.core.sampling import Sampler

SHOWN = 8  # rounds that the page shows one by one


@dataclass(frozen=True)
class Round:
    """One draft before the target: for each guess its chance min(1, p / q), and whether its own coin said yes."""

    chances: list[float]
    coins: list[bool]

    @property
    def kept(self) -> int:
        """How many guesses were kept: those before the first no."""
        return (*self.coins, False).index(False)


class Recorder(Sampler):
    """A sampler that notes what `verify_chain` asks of it."""

    def __init__(self, temperature: float = 1.0, *, seed: int = 0) -> None:
        super().__init__(temperature, seed=seed)
        self.rounds: list[Round] = []

    def accept(self, probability: Tensor) -> Tensor:
        """As `Sampler.accept`; chances and answers are kept."""
        yes = super().accept(probability)
        self.rounds.append(Round(probability.double().clamp(max=1).tolist(), yes.tolist()))
        return yes


def expected_overlap(rounds: Sequence[Round]) -> float:
    """Alpha: the mean chance of a guess that is reached, an estimate of E[sum_x min(p, q)] (Leviathan et al., 2023)."""
    chances = [chance for round in rounds for chance in round.chances[: round.kept + 1]]
    return sum(chances) / len(chances)


def conditional(rounds: Sequence[Round]) -> list[float]:
    """For each place, how often the guess is kept if all before it were (n-alpha of EAGLE; Li et al., 2024)."""
    places = range(len(rounds[0].coins))
    reached = [sum(round.kept >= i for round in rounds) for i in places]
    return [sum(round.kept > i for round in rounds) / max(1, n) for i, n in zip(places, reached, strict=True)]


def unconditional(rounds: Sequence[Round]) -> list[float]:
    """For each place, how often the guess there is kept at all (the vectors of vLLM and llama.cpp)."""
    return [sum(round.kept > i for round in rounds) / len(rounds) for i in range(len(rounds[0].coins))]


def kept_of_drafted(rounds: Sequence[Round]) -> float:
    """Kept guesses divided by all guesses (the draft acceptance rate of vLLM and llama.cpp)."""
    return sum(round.kept for round in rounds) / sum(len(round.coins) for round in rounds)


def matches_anywhere(rounds: Sequence[Round]) -> float:
    """Coins that said yes divided by all guesses, those after the first no included (vLLM's first engine)."""
    return sum(sum(round.coins) for round in rounds) / sum(len(round.coins) for round in rounds)


def tokens_per_pass(rounds: Sequence[Round], *, bonus: bool = True) -> float:
    """Mean tokens a pass commits; with or without the one that the target adds itself, authors differ."""
    return sum(round.kept + bonus for round in rounds) / len(rounds)


def figures(rounds: Sequence[Round], **setup: Any) -> AcceptanceFigures:
    """All of them; `setup` says how the rounds came about."""
    alpha, gamma = expected_overlap(rounds), len(rounds[0].coins)
    return AcceptanceFigures(
        **setup,
        rounds=len(rounds),
        gamma=gamma,
        expected_overlap=alpha,
        conditional=conditional(rounds),
        unconditional=unconditional(rounds),
        kept_of_drafted=kept_of_drafted(rounds),
        matches_anywhere=matches_anywhere(rounds),
        tokens_per_pass=tokens_per_pass(rounds),
        kept_per_pass=tokens_per_pass(rounds, bonus=False),
        promised_tokens_per_pass=expected_tokens(alpha, gamma),
        first_rounds=[round.coins for round in rounds[:SHOWN]],
    )


def worked_example(prompts: int = 12, limit: int = 96, temperature: float = 0.8, gamma: int = 4) -> AcceptanceFigures:
    """The figures of speculative decoding with the zoo's drafter, over all rounds after its held-out prompts."""
    from reference_impls import zoo
    from reference_impls.speculative_decoding import speculative_decoding_leviathan as method

    models = method.example() | {"gamma": gamma}
    sampler = Recorder(temperature)
    for text in zoo.prompts()[:prompts]:
        method.generate(prompt=zoo.encode(text), limit=limit, sampler=sampler, **models)
    return figures(sampler.rounds, prompts=prompts, limit=limit, temperature=temperature)


def main() -> None:
    """Measure and store."""
    from accelgen.project.files import write_whole
    from accelgen.project.places import RESULTS

    text = json.dumps(worked_example().as_data(), indent=2)
    write_whole(RESULTS / "acceptance.json", text + "\n")


if __name__ == "__main__":
    main()
