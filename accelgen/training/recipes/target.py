"""The target, grown from the drafter to twelve and then twenty-four layers.

Its last phase follows the recipe of LayerSkip, so that it can be read out after any layer.
"""

from __future__ import annotations

from typing import Any

from accelgen.training.language import Growth, Phase, corpus, learn, thawed
from accelgen.training.quality import exit_losses, language_figures
from accelgen.training.recipe import Part, Recipe
from accelgen.training.shelf import Shelf
from reference_impls.core.model import LanguageModel


def train(shelf: Shelf, settings: Growth) -> Part:
    """The drafter, grown phase by phase."""
    model = learn(shelf, thawed(shelf.load("drafter")), settings)
    return Part(model, {"shape": model.shape})


def measure(shelf: Shelf, settings: Growth, model: LanguageModel) -> dict[str, Any]:
    """Loss by kind of text and by exit, and how varied the text is that it writes."""
    return language_figures(shelf, model) | exit_losses(shelf, model, settings.exits)


RECIPE = Recipe(
    name="target",
    needs=("drafter",),
    settings=Growth(
        phases=(
            Phase(12, 2_500, 6, 256, (4e-3, 5e-3), 0.0, library=6, seed=1),
            Phase(24, 2_700, 3, 512, (4e-3, 4e-3), 0.6, library=6, seed=2),
            Phase(24, 1_200, 3, 512, (3e-3, 3e-3), 0.8, library=6, seed=4, dropout=0.1),
        ),
        exits=(2, 4, 6, 8, 12, 16, 20),
        exit_weight=0.3,
    ),
    train=train,
    measure=measure,
    corpus=corpus,
)
