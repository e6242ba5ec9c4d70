"""Methods that leave the stack of layers early."""

import pytest


@pytest.mark.suite("early-exit")
def test_early_exit(check):
    check.run()
