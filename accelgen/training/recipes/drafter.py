"""The drafter: two layers that learn from nothing, and the tokens that all language models share."""

from __future__ import annotations

from typing import Any

from accelgen.training.language import Growth, Phase, corpus, learn, silence, train_tokenizer
from accelgen.training.quality import language_figures
from accelgen.training.recipe import Part, Recipe
from accelgen.training.shelf import Shelf
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel


def train(shelf: Shelf, settings: Growth) -> Part:
    """A tokenizer, then a model whose layers add nothing at first."""
    assert settings.shape is not None
    shelf.replace_tokenizer(train_tokenizer(shelf.read(2).train, settings.shape.vocab))
    model = LanguageModel(settings.shape)
    silence(model, range(model.shape.layers))
    return Part(learn(shelf, model, settings), {"shape": settings.shape})


def measure(shelf: Shelf, _settings: Growth, model: LanguageModel) -> dict[str, Any]:
    """Loss by kind of text, and how varied the text is that it writes."""
    return language_figures(shelf, model)


RECIPE = Recipe(
    name="drafter",
    settings=Growth(
        shape=Shape(vocab=2048, dim=128, layers=2, heads=4, kv_heads=4, head_dim=32, hidden=352),
        phases=(
            Phase(2, 10_000, 6, 256, (6e-3, 1e-2), 0.5, library=2, seed=0),
            Phase(2, 2_500, 3, 512, (3e-3, 3e-3), 1.0, library=6, seed=3),
        ),
    ),
    train=train,
    measure=measure,
    corpus=corpus,
)
