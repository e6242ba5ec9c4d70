"""SpecDec: a parallel drafter fills a block of masks, and the translation model checks it."""

import math

from reference_impls.testing.case import Case

CASE = Case(
    refused={"beta": (0, -1), "tau": (-0.1, math.nan)},
    lacks="encoder-decoder",
    costs={"count_kept": "rest"},
    compared=({"beta": 1}, {"beta": 3}),
)
