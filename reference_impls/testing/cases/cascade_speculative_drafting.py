"""Cascade speculative drafting: drafters that draft for each other, down to one that copies from the text."""

import math

from reference_impls.testing.case import Case, Scene


def _k_matrix(scene: Scene) -> tuple[tuple[int, ...], ...]:
    """How many tokens each drafter adds on behalf of each model: both cascades, small where laws are found."""
    few = {1: ((1, 0), (0, 0)), 2: ((1, 1), (0, 1))}
    return few.get(scene.guesses, ((scene.guesses, 0, 0), (0, 1, 1), (0, 0, 1)))


CASE = Case(
    options=lambda scene: {"k_matrix": _k_matrix(scene)},
    refused={
        "k_matrix": (((1,),), ((0, 0, 0), (0, 1, 1), (0, 0, 1)), ((1, 0, 0), (0, -1, 2), (0, 0, 1))),
        "lenience": (0.0, 1.5, math.nan),
    },
    lacks="max_gram (MaxGram)",
    costs={"verify_chain": "rest"},
)
