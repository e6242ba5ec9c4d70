"""Every implemented method is done, as `accelgen status` finds it; the proofs have tests of their own."""

import pytest

from accelgen.taxonomy.loading import load_taxonomy
from accelgen.taxonomy.schema import Method
from accelgen.workshop.status import Workbench, status

TAXONOMY = load_taxonomy()
METHODS = [method for method in TAXONOMY.methods if method.is_implemented]


@pytest.fixture(scope="module")
def bench() -> Workbench:
    return Workbench(TAXONOMY)


@pytest.mark.parametrize("method", METHODS, ids=[method.id for method in METHODS])
def test_nothing_is_lacking(method: Method, bench: Workbench) -> None:
    findings = list(status(method, bench, proofs=False))
    assert [f"{finding.part}: {finding.lacking}" for finding in findings if not finding.is_there] == []
    assert len(findings) >= 13
