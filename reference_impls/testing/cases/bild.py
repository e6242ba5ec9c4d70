"""BiLD: a drafter that knows when to ask; the target takes back only what is far from its own law."""

import math

from reference_impls.testing.case import Case

CASE = Case(
    options=lambda _: {"fallback": 0.2},  # tiny models are seldom surer
    refused={"fallback": (-0.1, math.nan), "rollback": (-0.1, math.nan)},
    checkpoint={"fallback": 0.0, "rollback": 0.0},  # the drafter never asks, and every wrong guess is taken back
    costs={"count_kept": "rest"},
)
