"""The public kit: what it selects, what it reports, and what it says when it cannot verify something."""
# ruff: noqa: ARG001 - the functions under test have a method's parameters, whatever they do with them

import importlib
import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from accelgen.cli import app
from accelgen.taxonomy.loading import load_taxonomy
from accelgen.taxonomy.suites import CLAIMS
from accelgen.workshop.proving import proof
from reference_impls.core.generation import Generation, Step
from reference_impls.testing import SUITES, KitError, Scene, prove, verify
from reference_impls.testing.cases import Case, case_of
from reference_impls.testing.checks import Subject, guessed, require
from reference_impls.testing.exactness import reach
from reference_impls.testing.laws import total_variation
from reference_impls.testing.refusals import refuses
from reference_impls.testing.tiny import PERIOD, RECITED, foreseeing, varied_model

PORT = '''
from collections.abc import Sequence
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding.speculative_sampling_chen import generate as right


def biased(target, prompt, limit, *, drafter, sampler, gamma=4, eos=None):
    """The trap: draw from the target's law a little sharpened."""
    class Sharp(type(sampler)):
        pass
    probs = sampler.probs
    sampler.probs = lambda logits: probs(logits * 1.1)
    return right(target, prompt, limit, drafter=drafter, sampler=sampler, gamma=gamma, eos=eos)


def strange(target, prompt, limit, *, sampler, oracle, eos=None):
    """Asks for something that nobody can build."""


def other(prompt):
    """Not a method at all."""
'''


@pytest.fixture
def port(tmp_path, monkeypatch):
    (tmp_path / "my_port.py").write_text(PORT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "my_port"


def test_a_right_port_is_proved(port):
    report = verify(f"{port}:right", ["greedy-identity", "options"])
    assert report.passed
    assert {result.suite for result in report.results} == {"greedy-identity", "options"}
    assert json.loads(json.dumps(report.to_dict()))["passed"] is True


def test_a_biased_port_is_found_out_though_its_greedy_text_is_right(port):
    assert verify(f"{port}:biased", ["greedy-identity"]).passed
    first = next(prove(importlib.import_module(port).biased, [SUITES["exact-law"]]))
    assert first.outcome == "failed"
    assert first.message.startswith("the law differs from the target's by")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no_such_module:generate", "there is no module 'no_such_module' here"),
        ("no_such_file.py:generate", "there is no file no_such_file.py"),
        ("my_port:missing", "has no function 'missing'"),
        ("my_port:PORT", "has no function 'PORT'"),
        ("my_port:other", "has no parameter 'limit'"),
        ("my_port:strange", "generate asks for 'oracle', which the kit cannot build"),
        (":", "module '' cannot be imported"),
        ("exits.py:generate", "module 'exits.py' cannot be imported: it raised SystemExit (0)"),
        ("raises.py:generate", "module 'raises.py' cannot be imported: it raised ZeroDivisionError (division by zero)"),
        ("lacks.py:generate", "it raised ModuleNotFoundError (No module named 'nowhere')"),
        ("slips.py:generate", "module 'slips.py' cannot be imported: it raised SyntaxError"),
        ("raises:generate", "module 'raises' cannot be imported: it raised ZeroDivisionError"),
    ],
)
def test_what_cannot_be_verified_gets_one_sentence(port, name, sentence):
    bad = {"exits": "raise SystemExit(0)", "raises": "1 / 0", "lacks": "import nowhere", "slips": "def generate(:"}
    for file, text in bad.items():
        Path(f"{file}.py").write_text(text)
    with pytest.raises(KitError) as error:
        verify(name)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
    result = CliRunner().invoke(app, ["verify", name])
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_a_port_is_named_by_its_file_too(port):
    assert verify(f"./{port}.py:right", ["options"]).passed


BARE = '''
from types import SimpleNamespace
from reference_impls.speculative_decoding.speculative_sampling_chen import generate as whole


def bare(target, prompt, limit, *, drafter, sampler, gamma=4, eos=None):
    """A port with a result of its own, which has tokens and nothing else."""
    found = whole(target, prompt, limit, drafter=drafter, sampler=sampler, gamma=gamma, eos=eos)
    return SimpleNamespace(tokens=found.tokens)


def drawn(target, prompt, limit, *, drafter, sampler, gamma=4, eos=None):
    """Refuses in words of its own, by a TypeError."""
    if gamma < 1:
        raise TypeError("there is nothing to do with such a gamma")
    return bare(target, prompt, limit, drafter=drafter, sampler=sampler, gamma=gamma, eos=eos)
'''


@pytest.mark.parametrize("name", ["bare", "drawn"])
def test_of_a_port_only_the_tokens_are_needed(tmp_path, monkeypatch, name):
    (tmp_path / "bare_port.py").write_text(BARE)
    monkeypatch.chdir(tmp_path)
    report = verify(f"bare_port.py:{name}", ["greedy-identity", "accounting", "options"])
    assert [result for result in report.results if result.outcome == "failed"] == []
    skipped = {result.check: result.message for result in report.results if result.outcome == "skipped"}
    assert skipped.keys() == {"kept-guesses", "noisy-use", "perfect-use", "trace", "passes", "seeds", "end-in-draft"}
    assert set(skipped.values()) == {
        "the result has no `steps`, and only the trace can tell: `core.generation.Step` says what it holds"
    }


def test_a_port_of_a_method_is_proved_in_the_scenes_of_its_case(port):
    """Which method does not matter: here one whose `choices` no signature could tell."""
    method = next(m for m in load_taxonomy().methods if m.is_implemented and "choices" in case_of(m.id).refused)
    report = proof(f"{method.module}:generate", method, ["options"])
    assert report.passed
    assert any(result.check.startswith("choices=") for result in report.results)


def test_every_suite_that_the_taxonomy_can_ask_for_exists():
    assert set(SUITES) == {claim.id for claim in CLAIMS}


def test_what_a_method_learns_with_is_copied_together_and_the_rest_not_at_all():
    """A buffer that knows its drafter knows the copy of the drafter in a copy of both."""
    subject = Subject(lambda: None, Case(learns=("drafter", "buffer", "one-that-it-was-not-given")))
    drafter, table = [1], [2]
    own = {"buffer": {"teaches": drafter}, "drafter": drafter, "table": table}
    fresh = subject.fresh(own)
    assert fresh == own
    assert fresh["table"] is table
    assert fresh["drafter"] is not drafter
    assert fresh["buffer"]["teaches"] is fresh["drafter"]


def test_skipped_checks_are_reported_with_their_reason():
    def generate(target, prompt, limit, *, sampler, eos=None):
        raise AssertionError("it was run")

    results = list(prove(generate, [SUITES["options"]], skip={"options": "it has no weights"}))
    assert {(result.outcome, result.message) for result in results} == {("skipped", "it has no weights")}


def test_what_a_check_raises_is_a_failure_with_a_message():
    def generate(target, prompt, limit, *, sampler, eos=None):
        return 1 / 0

    results = list(prove(generate, [SUITES["greedy-identity"]]))
    assert {(result.outcome, result.message) for result in results} == {
        ("failed", "it raised ZeroDivisionError: division by zero")
    }


def test_a_method_that_hides_its_drafting_is_found_out():
    """All guesses right, none kept: nothing about the text is wrong, and nothing is gained."""

    def generate(target, prompt, limit, *, drafter, sampler, gamma=4, eos=None):
        from reference_impls.baselines.autoregressive import generate as plain

        result = plain(target, prompt, limit, sampler=sampler, eos=eos)
        steps = [Step(step.emitted, drafted=[0] * gamma, draft_passes=gamma) for step in result.steps]
        return Generation(result.tokens, steps)

    found = {result.check: result.outcome for result in prove(generate, [SUITES["greedy-identity"]])}
    failed = {check for check, outcome in found.items() if outcome == "failed"}
    assert failed == {"kept-guesses", "noisy-use", "perfect-use"}


def masks_alone(model, text, places):
    """What two masks say behind each place of a text, each place in a pass of its own."""
    masks = torch.randn(2, model.shape.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    inputs = [torch.cat((model.embed(text[: place + 1]), masks)) for place in places]
    return torch.stack([model.logits(model.run(x))[-2:] for x in inputs])


@pytest.mark.parametrize("guess", ["perfect", "noisy"])
@torch.no_grad()
def test_masks_of_a_target_that_foresees_are_as_good_as_the_scene_asks(guess):
    scene = foreseeing(Scene(varied_model(), [5, 3], 2, guess), masks_alone)
    text, places = torch.tensor(RECITED * 8), torch.arange(12, 30)
    assert list(scene.prompt) == list(RECITED * 2)
    assert scene.target(text)[places].argmax(-1).tolist() == text[places + 1].tolist()
    said = masks_alone(scene.target, text, places).argmax(-1)
    ahead = places[:, None] + torch.tensor([2, 3])
    wrong = (ahead % PERIOD == 0) & (guess == "noisy")
    assert said.tolist() == ((text[ahead] + wrong) % 11).tolist()


def test_random_guesses_need_no_other_target():
    scene = Scene(varied_model(), [5, 3])
    assert foreseeing(scene, masks_alone) is scene


@pytest.mark.parametrize(("passes", "outcome"), [(1, "failed"), (2, "passed")])
def test_only_a_case_can_allow_a_second_pass_for_each_draft(passes, outcome):
    """Perfect guesses, each draft paid with a pass of the target that gives a token too."""

    def generate(target, prompt, limit, *, drafter, sampler, gamma=4, eos=None):
        from reference_impls.speculative_decoding.speculative_sampling_chen import generate as right

        result, tokens = Generation(), list(prompt)
        go_on = limit > 0
        while go_on:
            for own in ({"limit": 1}, {"limit": gamma + 1}):
                if go_on:
                    step = right(target, tokens, drafter=drafter, sampler=sampler, gamma=gamma, **own).steps[0]
                    step.drafted = step.drafted if own["limit"] > 1 else []
                    step.kept = min(step.kept, len(step.drafted))
                    tokens += step.emitted
                    go_on = result.add(step, limit, eos)
        return result

    found = prove(generate, [SUITES["greedy-identity"]], Case(passes=passes))
    assert {result.check: result.outcome for result in found}["perfect-use"] == outcome


def test_the_distance_of_two_laws_counts_what_only_one_of_them_can_give():
    assert total_variation({"a": 1.0}, {"b": 1.0}) == 1
    assert total_variation({"a": 0.5, "b": 0.5}, {"a": 0.75, "c": 0.25}) == 0.5


@pytest.mark.parametrize("words", ["wrong\nin several lines and many words", "too few words"])
def test_a_refusal_is_one_plain_sentence(words):
    def call():
        raise ValueError(words)

    with pytest.raises(AssertionError, match="not one clear sentence"):
        refuses(call, "it")


def test_the_reach_of_a_draft_is_its_longest_path():
    assert reach(Step([1], drafted=[4, 5, 6], parents=[-1, 0, -1])) == 2
    assert reach(Step([1], drafted=[4, 5, 6])) == 3


def test_kept_tokens_of_a_tree_are_a_path_of_it():
    drafted, parents = [4, 5, 6], [-1, 0, -1]
    assert guessed(drafted, parents, [4, 5])
    assert not guessed(drafted, parents, [5])
    assert not guessed(drafted, parents, [6, 5])


def test_a_sentence_in_the_place_of_a_claim_is_no_claim():
    with pytest.raises(AssertionError):
        require("it holds", True)
