"""Mask-Predict: the least certain places are masked and predicted again."""

from reference_impls.testing.case import Case

CASE = Case(
    refused={"iterations": (0, -1), "candidates": (0, 99)},
    lacks="encoder-decoder",
    costs={"least_certain": "rest"},
)
