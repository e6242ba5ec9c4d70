"""CALM: a token leaves at the first exit that is confident enough."""

from reference_impls.testing.case import Case

CASE = Case(
    refused={"measure": ("guesswork",)},
    checkpoint={"exits": (2,), "threshold": 1.0},
    costs={"confidence": "target"},
)
