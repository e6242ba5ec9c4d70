"""What all tests share: one thread, and one test for every check that the taxonomy asks of an implemented method."""

import importlib
import os
from pathlib import Path

import pytest
import torch
from sites import built

from accelgen.taxonomy.loading import load_taxonomy
from accelgen.taxonomy.suites import claims_of
from reference_impls.testing import SUITES
from reference_impls.testing.cases import case_of

torch.set_num_threads(1)  # the models are tiny, and results must not depend on the number of cores


def pytest_configure(config):
    config.addinivalue_line("markers", "suite(name): run once for every check of this suite, of every method it is for")


@pytest.fixture(autouse=True)
def _same_everywhere(monkeypatch):
    """A test that draws random numbers draws the same ones every time, and none depends on the width of a screen."""
    torch.manual_seed(0)
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """A folder that all workers of this session have in common."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def built_site(shared) -> Path:
    """The site as `accelgen docs build` makes it."""
    return built("site", shared)


@pytest.fixture(scope="session")
def offline_site(shared) -> Path:
    """The site as `make offline` makes it, without a server in mind."""
    return built("offline", shared)


def implemented():
    """The methods that have a reference implementation."""
    return [method for method in load_taxonomy().methods if method.is_implemented]


def pytest_generate_tests(metafunc):
    """Give `check` every check of the suite that the test is marked with, and `method_id` every method of it."""
    marker = metafunc.definition.get_closest_marker("suite")
    if marker is None:
        return
    suite = SUITES[marker.args[0]]
    methods = [method for method in implemented() if suite.name in {claim.id for claim in claims_of(method)}]
    if "method_id" in metafunc.fixturenames:
        metafunc.parametrize("method_id", [method.id for method in methods])
    if "check" in metafunc.fixturenames:
        metafunc.parametrize("check", [one for method in methods for one in parameters(method, suite)])


def parameters(method, suite):
    """One pytest parameter for each check; those that the taxonomy skips carry its reason."""
    generate = importlib.import_module(method.module).generate
    for check in suite.checks(generate, case_of(method.id)):
        skip = method.implementation.skip
        reason = skip.get(suite.name) or skip.get(f"{suite.name}/{check.name}")
        marks = [pytest.mark.skip(reason=reason)] if reason else []
        yield pytest.param(check, id=f"{method.id}-{check.name}", marks=marks)
