"""Methods that write the whole text in a few passes."""

import pytest


@pytest.mark.suite("non-autoregressive")
def test_non_autoregressive(check):
    check.run()
