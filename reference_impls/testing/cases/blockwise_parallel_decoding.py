"""Blockwise parallel decoding: heads that guess the tokens after the next one."""

from reference_impls.testing.case import Case

CASE = Case(
    refused={"top": (0,), "minimum": (0, 99)},
    lacks="heads (BlockHeads)",
    costs={"count_kept": "rest"},
)
