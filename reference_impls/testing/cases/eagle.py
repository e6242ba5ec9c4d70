"""EAGLE: a drafter that continues the target's features, in a tree of its best ranks."""

from reference_impls.testing.case import Case, ranks

CASE = Case(
    options=lambda scene: {"choices": ranks(scene)},
    refused={"choices": ((), ((0, 0),))},
    lacks="drafter (EagleDrafter)",
    costs={"verify_tree": "rest"},
)
