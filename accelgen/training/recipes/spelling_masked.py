"""The masked speller: as the masked translator, on the task of number words and without a teacher."""

from accelgen.training.recipe import Recipe
from accelgen.training.recipes.mask_predict import measure, train
from accelgen.training.sentence_pairs import Pairs, corpus

RECIPE = Recipe("spelling-masked", Pairs(task="frh", batch=64), train, measure, corpus=corpus)
