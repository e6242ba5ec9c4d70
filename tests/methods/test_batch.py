"""Methods that decode several texts together: every row is what it is alone."""

import pytest


@pytest.mark.suite("batch")
def test_batch(check):
    check.run()
