"""The trace tells what happened, nothing else is touched, and wrong input gives one sentence."""

import pytest

from reference_impls.baselines.autoregressive import generate as autoregressive
from reference_impls.testing import SUITES


@pytest.mark.suite("accounting")
def test_accounting(check):
    check.run()


@pytest.mark.suite("options")
def test_options(check):
    check.run()


@pytest.mark.parametrize("suite", ["exact-law", "greedy-identity", "accounting", "options"])
def test_the_baseline_itself(suite):
    for check in SUITES[suite].checks(autoregressive):
        check.run()
