"""SpecInfer: one or several drafters grow a tree, as wide at each depth as `expansion` says."""

from reference_impls.testing.case import Case, tree_widths

CASE = Case(
    options=lambda scene: {"expansion": tree_widths(scene)},
    refused={"expansion": ((), (0,), (2, 12)), "drafters": ((),)},
    checkpoint={"expansion": (2, 1)},
    costs={"verify_tree": "rest"},
)
