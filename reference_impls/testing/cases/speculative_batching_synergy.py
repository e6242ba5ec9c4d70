"""Adaptive speculation length: drafts as long as a table says for the rows that still run."""

from reference_impls.testing.case import Case

CASE = Case(
    options=lambda scene: {"table": ((1, scene.guesses), (2, scene.guesses), (3, scene.guesses - 1))},
    refused={"table": ((), ((0, 2),), ((1, -1),), ((2, 1), (1, 2)), ((1, 1), (1, 2)), ((1,),))},
    costs={"verify_rows": "rest"},
)
