"""Speculative contrastive decoding: a drafter that is also the contrast, so the law is no longer the target's."""

import math

from reference_impls.testing.case import Case

CASE = Case(
    refused={"alpha": (-0.1, 1.1, math.nan), "beta": (-0.1, math.inf, math.nan)},
    checkpoint={"alpha": 0.0, "beta": 0.0},  # without contrast, which is the law of the target
    costs={"contrast": "rest", "accepted": "rest"},
)
