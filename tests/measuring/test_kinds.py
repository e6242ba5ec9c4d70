"""How methods of each kind are run, compared, shown and recorded, with a trial method of each."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from speculation import model
from trials import MASK, PROMPTS, TRIALS, label, refine, trial
from typer.testing import CliRunner

from accelgen.cli import app
from accelgen.cli.outcome import Outcome, show
from accelgen.cli.running import on_zoo
from accelgen.measuring import traces
from accelgen.measuring.contests import Contest, Plan, contests
from accelgen.measuring.kinds import KINDS
from accelgen.measuring.sides import Request, Setting
from accelgen.project.places import ROOT
from accelgen.taxonomy.calls import BASELINES
from accelgen.taxonomy.schema import Call
from reference_impls.baselines import autoregressive
from reference_impls.core.generation import Generation, Step
from reference_impls.core.sampling import Sampler
from reference_impls.testing.cases import Case

pytestmark = pytest.mark.usefixtures("trial_zoo")
each_call = pytest.mark.parametrize("call", Call)
PLAN = Plan(prompts=2, limit=6)


def found(call: Call, **more: Any) -> list[Contest]:
    return list(contests(trial(call, **more), PLAN))


def run(call: Call, text: str | None = None, **asked: Any) -> list[Outcome]:
    method, kind = trial(call), KINDS[call]
    side = kind.side(sys.modules[method.module], {})
    return on_zoo(method.id, kind, side, text, {}, asked)


def test_every_kind_is_there_and_needs_no_torch() -> None:
    assert set(KINDS) == set(Call) == set(TRIALS)
    script = "import accelgen.measuring.kinds, accelgen.measuring.rows, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("call", "settings"),
    [
        (Call.CONTINUE, ["greedy, gamma 2", "temperature 0.8, gamma 2"]),
        (Call.TRANSLATE, ["iterations 1", "iterations 4", "iterations 10"]),
        (Call.CANVAS, [f"{law}, steps {n}" for law in ("greedy", "temperature 0.8") for n in (1, 4, 10)]),
        (Call.BATCH, ["greedy", "temperature 0.8"]),
        (Call.CLASSIFY, ["exit_layer 1"]),
    ],
)
def test_what_is_varied_is_said_by_the_kind(call: Call, settings: list[str]) -> None:
    assert [contest.title for contest in found(call)] == settings


@pytest.mark.parametrize(
    ("call", "others"),
    [
        (Call.CONTINUE, ["greedy", "temperature 0.8"]),
        (Call.TRANSLATE, ["iterations 1", "iterations 4", "iterations 10"]),
    ],
)
def test_what_a_case_compares_is_measured_one_after_another(
    monkeypatch: pytest.MonkeyPatch, call: Call, others: list[str]
) -> None:
    case = Case(compared=({"gamma": 1}, {"gamma": 3}))
    monkeypatch.setattr("reference_impls.testing.cases.case_of", lambda _: case)
    assert [contest.title for contest in found(call)] == [f"{other}, gamma {n}" for other in others for n in (1, 3)]


def test_a_method_that_is_exact_when_greedy_is_measured_greedy() -> None:
    assert [c.title for c in found(Call.CONTINUE, guarantee="exact-greedy")] == ["greedy, gamma 2"]


def test_the_baseline_of_a_text_is_its_target_alone() -> None:
    greedy, warm = found(Call.CONTINUE)
    for contest, temperature in ((greedy, 0.0), (warm, 0.8)):
        (wanted,) = (run() for run in contest.runs(1)[:1])
        target, prompt = contest.own.options["target"], list(PROMPTS[1].encode())
        assert wanted == [autoregressive.generate(target, prompt, 6, sampler=Sampler(temperature, seed=0))]
    assert greedy.shared != warm.shared


def test_the_baseline_of_a_translation_writes_word_by_word_to_the_end_or_the_limit() -> None:
    contest, other, _ = found(Call.TRANSLATE)
    (result,) = contest.runs(0)[0]()
    assert result.passes == len(result.tokens) <= 6
    assert contest.shared == other.shared == "translate"


def test_the_baseline_of_a_canvas_fills_one_place_a_pass() -> None:
    contest = found(Call.CANVAS)[0]
    baseline, own = (run()[0] for run in contest.runs(0))
    assert ([len(step.emitted) for step in baseline.steps], own.passes) == ([1] * 6, 1)
    assert contest.shared == ""


def test_the_baseline_of_a_batch_is_one_sequence_after_another() -> None:
    contest = found(Call.BATCH)[0]
    baseline, own = (run() for run in contest.runs(0))
    assert [r.tokens for r in own] == [r.tokens for r in baseline]
    assert len(own) == KINDS[Call.BATCH].ROWS == len(contest.inputs[0])
    assert contest.inputs[0][0] == contest.inputs[1][-1] == list(PROMPTS[0].encode())


def test_the_baseline_of_a_label_runs_all_layers() -> None:
    (contest,) = found(Call.CLASSIFY)
    baseline, own = (run()[0] for run in contest.runs(0))
    assert (baseline.steps[0].layers, own.steps[0].layers) == ([2], [1])
    assert baseline.tokens == label(model(4), PROMPTS[0].encode(), exit_layer=2).emitted


def test_a_label_without_a_full_run_in_its_case_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reference_impls.testing.cases.case_of", lambda _: TRIALS[Call.CANVAS][2])
    with pytest.raises(ValueError, match="trial-classify does not say how all layers are run"):
        found(Call.CLASSIFY)


def test_a_request_is_answered_alike_again() -> None:
    contest = found(Call.CONTINUE)[1]
    own = contest.runs(0)[1]
    assert own() == own()


# ---- accelgen run -------------------------------------------------------------------------------------------------


@each_call
def test_a_run_says_what_it_used(call: Call) -> None:
    outcomes = run(call)
    drawn = {"limit": 64, "temperature": 0.0, "seed": 0} if call in (Call.CONTINUE, Call.CANVAS, Call.BATCH) else {}
    own = {key: value for key, value in TRIALS[call][1]().items() if isinstance(value, int)}
    assert [outcome.options for outcome in outcomes] == [drawn | own] * len(outcomes)
    assert len(outcomes) == (4 if call is Call.BATCH else 1)
    assert all(outcome.pieces for outcome in outcomes)


@pytest.mark.parametrize("name", ["limit", "temperature", "seed"])
@pytest.mark.parametrize("call", [Call.TRANSLATE, Call.CLASSIFY])
def test_an_option_without_a_use_is_refused(call: Call, name: str) -> None:
    with pytest.raises(ValueError, match=f"trial-{call.value} (makes no|finds the).*: leave out --{name}"):
        run(call, **{name: 1})


@pytest.mark.parametrize("call", [Call.CONTINUE, Call.CANVAS, Call.BATCH])
def test_limit_temperature_and_seed_reach_the_method(call: Call) -> None:
    (first,), (again,), (other,) = (run(call, "abc", limit=9, temperature=1.0, seed=s) for s in (1, 1, 2))
    assert len(first.result.tokens) == 9
    assert first == again
    assert first.result.tokens != other.result.tokens
    assert first.prompt == "abc"


def test_the_baselines_run_too() -> None:
    report = json.loads(CliRunner().invoke(app, ["run", "translation", "--limit", "3", "--json"]).stdout)
    assert report["figures"]["passes"] == len(report["tokens"]) == 3
    assert report["options"] == {"limit": 3, "temperature": 0.0, "seed": 0}
    report = json.loads(CliRunner().invoke(app, ["run", "autoregressive", "--limit", "3", "--json"]).stdout)
    assert report["figures"]["passes"] == len(report["tokens"]) == 3


def test_passes_are_shown_where_each_writes_everything(capsys: pytest.CaptureFixture[str]) -> None:
    show(run(Call.CANVAS, "abc", limit=4))
    first, second, text, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("pass  1  ")
    assert first.endswith(chr(MASK) * 2)
    assert second.startswith("pass  2  ")
    assert text.startswith("abc")


def test_what_stands_by_itself_begins_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    for call, apart in ((Call.CLASSIFY, True), (Call.BATCH, False)):
        show(run(call, "abc"))
        assert (capsys.readouterr().out.splitlines()[0] == "abc") is apart
    (outcome,) = run(Call.CLASSIFY, "abc")
    assert outcome.pieces == [str(outcome.result.tokens[0])]


# ---- accelgen trace -----------------------------------------------------------------------------------------------


@each_call
def test_a_recorded_run_is_whole(call: Call) -> None:
    data = json.loads(json.dumps(traces.described(trial(call))))
    assert data["id"] == f"trial-{call.value}"
    for one in data["runs"]:
        assert one["tokens"] == [token for step in one["steps"] for token in step["emitted"]]
        assert {str(token) for token in one["tokens"] + one["prompt"]} <= set(data["pieces"])
        assert one["figures"]["tokens"] == len(one["tokens"]) > 0
    titles = {
        Call.CONTINUE: ["Greedy", "Temperature 0.8"],
        Call.TRANSLATE: ["Held-out sentence, number 1", "Held-out sentence, number 2"],
        Call.CANVAS: ["Greedy", "Temperature 0.8"],
        Call.BATCH: ["Greedy"] * 4 + ["Temperature 0.8"] * 4,
        Call.CLASSIFY: ["Greedy"],
    }
    assert [one["title"] for one in data["runs"]] == titles[call]
    assert data.get("depth") == (2 if call is Call.CONTINUE else None)


def test_a_translation_is_shown_where_a_pass_changed_it() -> None:
    kind = KINDS[Call.TRANSLATE]
    own = kind.side(sys.modules[trial(Call.TRANSLATE).module], TRIALS[Call.TRANSLATE][1]())
    for shown in kind.shown(own, 1):
        (result,) = shown.results
        assert result.steps[0].canvas != result.tokens
        assert result == refine(source=shown.request.given, **own.options)


def test_a_translation_with_guesses_is_shown_where_one_was_refused() -> None:
    """Here of sources with an odd number of words, which the first ones have not."""
    kind = KINDS[Call.TRANSLATE]

    def guess(source: Any, *, limit: int) -> Generation:
        refused = len(source) % 2 == 1
        return Generation([5, 6], [Step([5, 6], [5, 7 if refused else 6], kept=1 if refused else 2)][:limit])

    side = type(kind.side(autoregressive, {}))(autoregressive, guess, {})
    lengths = [len(shown.request.given) for shown in kind.shown(side, 2)]
    every = [len(source) for source in kind.inputs(kind.SEARCHED)]
    assert lengths == [n for n in every if n % 2 == 1][:2] != every[:2]


@pytest.mark.parametrize("id", BASELINES)
def test_baselines_are_recorded(id: str) -> None:
    assert len(traces.record(id)["runs"]) == 2


def test_a_setting_is_named_by_what_is_drawn_and_by_plain_options() -> None:
    assert Setting(0.0).title({"gamma": 2, "target": object()}) == "greedy, gamma 2"
    assert Setting(None, {"iterations": 4}).title({"iterations": 1, "words": "b"}) == "iterations 4, words b"


def test_a_sampler_that_a_method_may_do_without_is_left_to_it() -> None:
    kind, seen = KINDS[Call.TRANSLATE], list[Any]()

    def generate(source: Any, *, sampler: Any = None) -> Any:
        seen.append(sampler)
        return source

    side = type(kind.side(autoregressive, {}))(autoregressive, generate, {})
    kind.perform(side, Request([5], 3))
    assert seen == [None]
    with pytest.raises(ValueError, match="x draws with a sampler of its own: leave out --seed"):
        kind.refuse("x", side, ["seed"])
