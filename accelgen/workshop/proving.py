"""From a method to its proof: the suites that its entry selects, in the scenes of its case."""

from __future__ import annotations

import importlib

from accelgen.measuring.kinds import KINDS
from accelgen.taxonomy.schema import Method
from accelgen.taxonomy.suites import claims_of
from reference_impls import testing
from reference_impls.testing import Report
from reference_impls.testing.cases import case_of


def proof(subject: str, method: Method | None, suites: list[str] | None = None) -> Report:
    """The proof of a function by its name, or of the method itself where the name is its id.

    With a `method` it owes what the method's fields in the taxonomy select, in the scenes of its case.
    """
    if method is None:
        return testing.verify(subject, suites)
    case, chosen = case_of(method.id), suites or [claim.id for claim in claims_of(method)]
    if subject != method.id:
        return testing.verify(subject, chosen, case)
    function = getattr(importlib.import_module(method.module), KINDS[method.call].function)
    suites_of_it, skip = testing.named_suites(chosen), method.implementation.skip
    return testing.Report(subject, list(testing.prove(function, suites_of_it, case, skip)))
