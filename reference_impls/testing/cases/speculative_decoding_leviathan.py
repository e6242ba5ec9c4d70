"""Speculative decoding: a drafter, the shared acceptance rule, and a lenience that is off."""

import math

from reference_impls.testing.case import Case

CASE = Case(chain=True, refused={"lenience": (0.0, 1.5, math.nan)}, costs={"verify_chain": "rest"})
