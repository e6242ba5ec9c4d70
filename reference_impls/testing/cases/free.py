"""FREE: a token leaves after a shallow stack; an estimator learns from text to text how sure it must be."""

import math

from reference_impls.early_exiting.free import ThresholdEstimator
from reference_impls.testing.case import Case

CASE = Case(
    options=lambda _: {"estimator": ThresholdEstimator()},
    refused={"rollback": (-0.1, math.nan)},
    checkpoint={"exit_layer": 2, "threshold": 1.0},
    costs={"count_kept": "rest", "confidence": "target"},
    learns=("estimator",),
)
