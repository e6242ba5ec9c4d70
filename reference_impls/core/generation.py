"""What a method returns: the tokens, and a trace of every step from which all figures are derived."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence, Sized
from dataclasses import asdict, dataclass, field
from numbers import Integral
from typing import Any

from reference_impls.core.arguments import check_kind

Ends = int | Collection[int]  # the token after which a text ends, or several: models may declare more than one


def is_end(token: int, eos: Ends | None) -> bool:
    """Whether a text ends with this token."""
    return token == eos if isinstance(eos, int | Integral) else eos is not None and token in eos


def positions_of(model: Any) -> int | None:
    """How many positions a model has, as its `shape.positions` says; None where no place is the last."""
    positions: int | None = getattr(model.shape, "positions", None)
    return positions


def check_length(model: Any, prompt: Sized, limit: int, whose: str = "target") -> None:
    """Raise ValueError where `limit` tokens after the prompt go past the last position of a model, the target.

    The last token is not read, so it needs none.
    """
    positions = positions_of(model)
    if positions is not None and limit > 0 and positions < len(prompt) + limit - 1:
        raise ValueError(
            f"the {whose} has {positions} positions, and {len(prompt)} tokens of prompt with {limit} more do not fit: "
            "shorten the prompt or lower the limit"
        )


@dataclass
class Step:
    """One turn of a decoding loop. The same schema serves all three families; what does not apply stays empty."""

    emitted: list[int]  # tokens committed by this step, in order
    drafted: list[int] = field(default_factory=list)  # guesses put before the target; a tree lists parents first
    parents: list[int] = field(default_factory=list)  # parent of each guess in a tree, -1 = root; empty = a chain
    kept: int = 0  # how many of `emitted`, from the left, were guessed
    passes: int = 1  # passes of the target model
    draft_passes: int = 0  # passes of a drafter
    layers: list[int] = field(default_factory=list)  # depth: after how many layers each token was read; empty = all
    work: float = 0  # layers run, each half a half, over all tokens they ran on; of a prompt only the last; 0 = unknown
    canvas: list[int] = field(default_factory=list)  # the whole output after this pass, for parallel decoders
    masked: list[int] = field(default_factory=list)  # places of the canvas, from 0, that were masked before this pass


@dataclass
class Generation:
    """Tokens and their trace. `add` is the one place that knows about length limits and the end of the text."""

    tokens: list[int] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def add(self, step: Step, limit: int, eos: Ends | None = None) -> bool:
        """Commit a step, cut after the first of `eos` or at `limit` tokens; True while there is more to generate.

        Raises ValueError for the impossible token that `Sampler.draw` makes from logits that are not finite, and for a
        limit below 0.
        """
        check_kind("step", step, Step)
        check_kind("emitted", step.emitted, Sequence[int])
        check_kind("limit", limit, int)
        check_kind("eos", eos, Ends | None)
        if limit < 0:
            raise ValueError(f"limit is {limit}; it is how many tokens are asked for, so give 0 or more")
        if any(token < 0 for token in step.emitted):
            place = next(i for i, token in enumerate(step.emitted) if token < 0)
            where = f" after layer {step.layers[place]}" if step.layers else ""
            raise ValueError(
                f"the target's logits for new token {len(self.tokens) + place + 1} are not finite (NaN or infinite)"
                f"{where}: check its weights"
            )
        room = limit - len(self.tokens)
        stop = next((i + 1 for i, token in enumerate(step.emitted) if is_end(token, eos)), room)
        step.emitted, step.layers = step.emitted[: min(stop, room)], step.layers[: min(stop, room)]
        step.kept = min(step.kept, len(step.emitted))
        self.tokens += step.emitted
        self.steps.append(step)
        ended = bool(self.tokens) and is_end(self.tokens[-1], eos)
        return not ended and len(self.tokens) < limit

    @property
    def passes(self) -> int:
        """Passes of the target model."""
        return sum(step.passes for step in self.steps)

    @property
    def draft_passes(self) -> int:
        """Passes of the drafter, if there is one."""
        return sum(step.draft_passes for step in self.steps)

    @property
    def tokens_per_pass(self) -> float:
        """Tokens per pass of the target; 0 where nothing was generated."""
        return len(self.tokens) / self.passes if self.passes else 0.0

    @property
    def acceptance(self) -> float | None:
        """Share of drafted tokens that were kept; None where nothing was drafted."""
        drafted = sum(len(step.drafted) for step in self.steps)
        return sum(step.kept for step in self.steps) / drafted if drafted else None

    @property
    def mean_layers(self) -> float | None:
        """The depth: after how many layers a token was read, on average; None where always after all of them."""
        layers = [n for step in self.steps for n in step.layers]
        return sum(layers) / len(layers) if layers else None

    @property
    def mean_work(self) -> float | None:
        """Layers run for a token, whenever they ran, also in vain; None where the method does not count them.

        Plain decoding runs each layer once for each token. Less depth need not be less work: layers may catch up later.
        """
        work = sum(step.work for step in self.steps)
        return work / len(self.tokens) if work and self.tokens else None

    @property
    def kinds(self) -> list[str]:
        """For each token: `accepted` (guessed and kept), `corrected` (replaced a rejected guess) or `plain`."""
        found = []
        for step in self.steps:
            own = "corrected" if len(step.drafted) > step.kept else "plain"
            found += ["accepted"] * step.kept + [own] * (len(step.emitted) - step.kept)
        return found

    @property
    def kept_histogram(self) -> dict[int, int]:
        """How many steps kept 0, 1, 2, … drafted tokens."""
        return dict(sorted(Counter(step.kept for step in self.steps if step.drafted).items()))

    def to_dict(self) -> dict[str, Any]:
        """The tokens and the trace as plain data, for JSON; `masked` and `work` only where they say something."""
        data = asdict(self)
        for step in data["steps"]:
            for name in ("masked", "work"):
                if not step[name]:
                    del step[name]
        return data
