"""SARATHI: prompts in chunks under a budget of tokens."""

from reference_impls.testing.case import Case

CASE = Case(
    options=lambda _: {"budget": 3, "rows": 2},
    refused={"budget": (0, 1, -1), "rows": (0, -1, 4)},
)
