"""Staged speculative decoding: n-grams prepare the drafter's tree, as wide at each depth as `widths` says."""

from reference_impls.testing.case import Case, tree_widths

CASE = Case(
    options=lambda scene: {"widths": tree_widths(scene)},
    refused={"widths": ((), (0,), (2, 12))},
    lacks="ngrams (Ngrams)",
    costs={"verify_tree": "rest"},
)
