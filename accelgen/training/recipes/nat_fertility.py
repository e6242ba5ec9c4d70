"""The translator that plans fertilities, taught by the autoregressive one, with the plans of a word aligner."""

from __future__ import annotations

from functools import partial
from typing import Any

from accelgen.training.alignment import fertilities
from accelgen.training.recipe import Part, Recipe
from accelgen.training.sentence_pairs import Pairs, compared, corpus, learn, lessons, shape_for
from accelgen.training.shelf import Shelf
from reference_impls.core.sampling import Sampler
from reference_impls.non_autoregressive import nat_fertility as method
from reference_impls.zoo.tasks import END, PAD, Example, task

READINGS: dict[str, dict[str, Any]] = {
    "likeliest plan": {"decoding": "argmax"},
    "average plan": {"decoding": "average"},
    "10 plans": {"decoding": "noisy", "samples": 10},
    "100 plans": {"decoding": "noisy", "samples": 100},
    "100 plans, temperature 3": {"decoding": "noisy", "samples": 100, "temperature": 3},
}
TRIED: dict[str, dict[str, Any]] = {
    f"{samples} plans, temperature {temperature}": {
        "decoding": "noisy", "samples": samples, "temperature": temperature,
    }
    for samples in (10, 100) for temperature in (1, 2, 3, 4)
}  # fmt: skip


def train(shelf: Shelf, settings: Pairs) -> Part:
    """A model that learns words and plans together."""
    own, pairs = task(settings.task), lessons(shelf, settings)
    part = Part.of(method.FertilityModel, shape=shape_for(own), longest=own.longest, pad=PAD, end=END)
    plans = fertilities(pairs, part.module.shape.vocab)
    rows = [(*pair, plan) for pair, plan in zip(pairs, plans, strict=True)]
    learn(settings, part.module, rows, partial(method.loss, part.module))
    return part


def measure(shelf: Shelf, settings: Pairs, model: method.FertilityModel) -> dict[str, Any]:
    """Shares of held-out sentences that are right for some ways to plan; the teacher chooses among translations."""
    own, teacher = task(settings.task), shelf.load("translation-ar")
    readings = READINGS | TRIED

    def write(reading: str, example: Example) -> list[int]:
        options = {"temperature": 1.0} | readings[reading]
        sampler, source = Sampler(options.pop("temperature")), own.encode(example.source)
        return method.generate(model, source, teacher=teacher, sampler=sampler, **options).tokens

    return compared(own, READINGS, TRIED, write)


RECIPE = Recipe(
    name="translation-fertility",
    needs=("translation-ar",),
    settings=Pairs(pairs=24_000, batch=64, teacher="translation-ar"),
    train=train,
    measure=measure,
    corpus=corpus,
)
