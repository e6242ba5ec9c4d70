"""From a method to its proof: the function of its call is what is proved, and what is shown of it."""

from __future__ import annotations

import sys

import pytest

from accelgen.cli import catalogue
from accelgen.taxonomy.loading import load_taxonomy
from accelgen.taxonomy.schema import Call, Method
from accelgen.workshop.proving import proof
from accelgen.workshop.shapes import answering


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch) -> Method:
    """A method that classifies, as `accelgen new` begins it."""
    listed = next(method for method in load_taxonomy().methods if method.call is Call.CLASSIFY)
    method = listed.model_copy(update={"id": "trial-answering"})
    monkeypatch.setitem(sys.modules, method.module, answering)
    monkeypatch.setattr(catalogue, "_source", lambda _: "def predict(model, tokens, *, threshold=1.0): ...")
    return method


def test_a_method_that_classifies_is_proved_by_its_predict(trial: Method) -> None:
    outcomes = {result.check: result.outcome for result in proof(trial.id, trial, ["classify"]).results}
    assert outcomes["logits"] == outcomes["untouched"] == "passed"
    assert outcomes["leaves-early"] == "failed"  # which is what its author has still to write


def test_it_is_shown_how_predict_is_called(trial: Method) -> None:
    assert catalogue._signature(trial) == "predict(model, tokens, *, threshold=1.0)"
