"""NART-CRF: one pass, and a chain of neighbouring tokens decoded by dynamic programming."""

from reference_impls.testing.case import Case

CASE = Case(
    options=lambda scene: {"candidates": scene.guesses},
    refused={"beam": (0, -1), "candidates": (0, 99)},
    lacks="encoder-decoder",
    costs={"viterbi": "rest"},
)
