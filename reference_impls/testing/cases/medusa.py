"""Medusa: heads that guess the tokens after the next one, in a tree of their best ranks."""

from reference_impls.testing.case import Case, ranks

CASE = Case(
    options=lambda scene: {"choices": ranks(scene)},
    refused={"choices": ((), ((0, 0),)), "acceptance": ("generous",)},
    lacks="heads (MedusaHeads)",
    costs={"verify_tree": "rest", "accept_typical": "rest"},
)
