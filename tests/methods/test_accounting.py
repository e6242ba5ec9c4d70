"""The trace tells what happened, nothing else is touched, and wrong input gives one sentence."""

import importlib
from dataclasses import replace

import pytest

from accelgen.taxonomy.loading import load_taxonomy
from reference_impls.baselines.autoregressive import generate as autoregressive
from reference_impls.testing import SUITES
from reference_impls.testing.accounting import a_scene, run
from reference_impls.testing.cases import case_of
from reference_impls.testing.checks import Subject, counted


@pytest.mark.suite("accounting")
def test_accounting(check):
    check.run()


@pytest.mark.suite("options")
def test_options(check):
    check.run()


@pytest.mark.suite("accounting")
def test_a_text_too_long_for_the_positions_of_the_target_is_refused_before_it_starts(method_id):
    method = Subject(importlib.import_module(load_taxonomy().method(method_id).module).generate, case_of(method_id))
    scene = a_scene(method)
    own = method.options(scene)
    scene.target.shape = replace(scene.target.shape, positions=len(scene.prompt) + 5)
    with counted(target=scene.target.blocks[0]) as calls, pytest.raises(ValueError, match="with 7 more do not fit"):
        run(method, scene, own, 7)
    assert not calls["target"]


@pytest.mark.parametrize("suite", ["exact-law", "greedy-identity", "accounting", "options"])
def test_the_baseline_itself(suite):
    for check in SUITES[suite].checks(autoregressive):
        check.run()
