"""What a method returns: the tokens, and a trace of every step from which all figures are derived."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Step:
    """One turn of a decoding loop. The same schema serves all three families; what does not apply stays empty."""

    emitted: list[int]  # tokens committed by this step, in order
    drafted: list[int] = field(default_factory=list)  # guesses put before the target; a tree lists parents first
    parents: list[int] = field(default_factory=list)  # parent of each guess in a tree, -1 = root; empty = a chain
    kept: int = 0  # how many of `emitted`, from the left, were guessed
    passes: int = 1  # passes of the target model
    draft_passes: int = 0  # passes of a drafter
    layers: list[int] = field(default_factory=list)  # layers computed for each emitted token; empty = all
    canvas: list[int] = field(default_factory=list)  # the whole output after this pass, for parallel decoders
    masked: list[int] = field(default_factory=list)  # places of the canvas, from 0, that were masked before this pass


@dataclass
class Generation:
    """Tokens and their trace. `add` is the one place that knows about length limits and the end of the text."""

    tokens: list[int] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def add(self, step: Step, limit: int, eos: int | None = None) -> bool:
        """Commit a step, cut at `eos` or at `limit` tokens; True while there is more to generate.

        Raises ValueError for the impossible token that `Sampler.draw` makes from logits that are not finite.
        """
        if any(token < 0 for token in step.emitted):
            place = len(self.tokens) + 1
            raise ValueError(f"the model's logits for new token {place} are not finite (NaN or infinite): check it")
        room = limit - len(self.tokens)
        if eos in step.emitted:
            room = min(room, step.emitted.index(eos) + 1)
        step.emitted, step.layers = step.emitted[:room], step.layers[:room]
        step.kept = min(step.kept, len(step.emitted))
        self.tokens += step.emitted
        self.steps.append(step)
        ended = eos is not None and bool(self.tokens) and self.tokens[-1] == eos
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
        """Layers computed per token; None where the method always computes all of them."""
        layers = [n for step in self.steps for n in step.layers]
        return sum(layers) / len(layers) if layers else None

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
        """The tokens and the trace as plain data, for JSON; `masked` only where it is not empty."""
        data = asdict(self)
        for step in data["steps"]:
            if not step["masked"]:
                del step["masked"]
        return data
