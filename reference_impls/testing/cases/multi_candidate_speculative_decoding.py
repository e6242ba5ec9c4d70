"""Multi-candidate speculative decoding: a drafter grows a tree, as wide at each depth as `widths` says."""

from reference_impls.testing.case import Case, tree_widths

CASE = Case(
    options=lambda scene: {"widths": tree_widths(scene)},
    refused={"widths": ((), (0,), (2, 12))},
    checkpoint={"widths": (2, 1)},
    costs={"verify_tree": "rest"},
)
