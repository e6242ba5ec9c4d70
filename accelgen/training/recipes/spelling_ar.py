"""The autoregressive speller: as the translator, on the task of number words."""

from accelgen.training.recipe import Recipe
from accelgen.training.recipes.translation_ar import measure, train
from accelgen.training.sentence_pairs import Pairs, corpus

RECIPE = Recipe("spelling-ar", Pairs(task="frh", steps=2_500), train, measure, corpus=corpus)
