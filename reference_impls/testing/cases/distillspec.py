"""DistillSpec: a drafter of any training, and the shared acceptance rule."""

from reference_impls.testing.case import Case

CASE = Case(chain=True, costs={"verify_chain": "rest"})
