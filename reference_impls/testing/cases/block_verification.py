"""Block verification: a drafter, and a rule that judges the draft as a whole."""

from reference_impls.testing.case import Case

CASE = Case(chain=True, costs={"verify_block": "rest"})
