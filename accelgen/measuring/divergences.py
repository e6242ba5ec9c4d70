"""What a drafter gains by each way to learn from its target, with equal steps: four divergences, two kinds of text.

`python -m accelgen.measuring.divergences` trains a copy of the plain drafter in each way, works out how often its
guesses are kept on development and on held-out prompts, and stores the figures of the site. The way is chosen on the
former.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from statistics import fmean, stdev
from typing import get_args

from accelgen.measuring.rows import DistilledRow
from accelgen.training.language import next_token_loss
from accelgen.training.parts import learn
from accelgen.training.recipes.distillspec import RECIPE, TEMPERATURES, Distilling, acceptance, learner, train, written
from accelgen.training.shelf import Shelf
from reference_impls.core.distillation import Divergence
from reference_impls.core.model import LanguageModel

BEFORE, TEXT = "not trained further", "next tokens of the text"  # what the divergences are compared with
SHARES = (0.0, 0.5)  # of the steps in which the drafter's own texts are learned from
SIDES = ("development", "test")


def drafters(shelf: Shelf, settings: Distilling) -> Iterator[tuple[str, float, LanguageModel]]:
    """The plain drafter and what becomes of it: the way, the share of its own texts, and the model."""
    plain = shelf.load("drafter")
    yield BEFORE, 0.0, plain
    yield TEXT, 0.0, continued(shelf, settings)
    for kind in get_args(Divergence):
        for share in SHARES:
            yield kind, share, train(shelf, replace(settings, kind=kind, on_policy=share)).module


def continued(shelf: Shelf, settings: Distilling) -> LanguageModel:
    """The control: the plain drafter after as many steps more of what it was trained with."""
    drafter = learner(shelf)
    learn(shelf, settings, drafter, lambda x, _: next_token_loss(drafter, x))
    return drafter


def as_stored(drafter: LanguageModel) -> LanguageModel:
    """The model with the weights that half precision leaves of its own."""
    return drafter.half().float().eval().requires_grad_(requires_grad=False)


def measure(shelf: Shelf, settings: Distilling = RECIPE.settings) -> Iterator[DistilledRow]:
    """A row for each drafter, side and temperature; the first drafter is what the others are compared with."""
    texts = {(side, t): written(shelf, side, t) for side, t in product(SIDES, TEMPERATURES)}
    before: dict[tuple[str, float], list[float]] = {}
    for way, share, drafter in drafters(shelf, settings):
        model = as_stored(drafter)
        for (side, temperature), own in texts.items():
            kept = acceptance(shelf, model, own, temperature)
            first = before.setdefault((side, temperature), kept)
            gains = [now - plain for now, plain in zip(kept, first, strict=True)]
            yield DistilledRow(
                way=way,
                on_policy=share,
                side=side,
                temperature=temperature,
                acceptance=fmean(kept),
                gain=fmean(gains),
                margin=1.96 * stdev(gains) / len(gains) ** 0.5,
            )


def main() -> None:
    """Measure and store."""
    from accelgen.project.files import write_whole
    from accelgen.project.places import RESULTS

    settings = RECIPE.settings
    rows = [row.as_data() for row in measure(Shelf(), settings)]
    data = {"steps": settings.steps, "batch": settings.batch, "length": settings.length, "rows": rows}
    write_whole(RESULTS / "divergences.json", json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
