"""Predictions from the costs of single calls: every call is seen once, the arithmetic holds, nothing is stale.

No test depends on how long anything took: time is a clock that the test moves, and the stored figures are only read.
"""

from __future__ import annotations

import functools
import itertools
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from speculation import generate as speculate
from speculation import model as tiny
from trials import TRIALS, taxonomy, translator, trial

from accelgen.measuring import costs, machine
from accelgen.measuring.contests import Contest, Plan, contests, settings_of
from accelgen.measuring.costs import Units
from accelgen.measuring.pairs import spread
from accelgen.measuring.recording import PARTS, SHARED, Operation, Recorder, public_methods, roles, size
from accelgen.measuring.rows import BenchRow, Prediction, Unit
from accelgen.measuring.speedup import speedup
from accelgen.project.files import read_json
from accelgen.project.places import RESULTS
from accelgen.site import predictions
from accelgen.site.predictions import WHY, compared, losses, problems
from accelgen.taxonomy.loading import load_taxonomy
from accelgen.taxonomy.schema import Call
from reference_impls.core.batch import Batch
from reference_impls.core.cache import Cache
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.tree import Tree
from reference_impls.testing.case import Case

TAXONOMY = load_taxonomy()


class Clock:
    """A clock that only `spend` moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def costing(self, model: LanguageModel, cost: Any) -> LanguageModel:
        """The model, whose passes over k new tokens take cost(k) seconds."""
        forward = model.forward

        def spending(tokens: Any, *args: Any, **kwargs: Any) -> Any:
            self.seconds += cost(len(tokens))
            return forward(tokens, *args, **kwargs)

        model.forward = spending  # type: ignore[method-assign]
        return model


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(machine, "now", made)
    return made


def recorded(contest: Contest, *, baseline: bool = False) -> tuple[Any, list[Operation]]:
    results, calls = costs.record(contest, 0, baseline=baseline)
    return results, [call for call, _ in calls]


def contest(call: Call, place: int = 0, limit: int = 20) -> Contest:
    return list(contests(trial(call), Plan(prompts=1, limit=limit)))[place]


def test_a_second_model_that_translates_is_a_target_unless_it_drafts():
    first, second, third = (translator(seed) for seed in range(3))
    found = roles({"model": first, "teacher": second, "drafter": third, "gamma": 4}, "model")
    assert [part for _, (part, _) in found] == ["target", "target", "draft"]
    assert {who for _, (_, who) in found} == {"EncoderDecoder"}


@pytest.mark.usefixtures("trial_zoo")
def test_every_pass_of_the_trace_is_recorded_once():
    (result,), calls = recorded(contest(Call.CONTINUE, 1))
    passes = [call for call in calls if call.name == "forward"]
    assert sum(call.who == "target" for call in passes) == result.passes
    assert sum(call.who == "drafter of 1 layers" for call in passes) == result.draft_passes
    assert {call.part for call in calls} == set(PARTS)
    assert not [call for call in calls if call.name in ("run", "embed", "logits", "accept")], "those are inside others"
    own = [call for call in calls if call.who.endswith("check")]
    assert len(own) == len(result.steps)
    assert {(call.part, call.new) for call in own} == {("rest", 2)}
    assert {call.new for call in passes if call.who == "target"} >= {3}


def test_a_masked_pass_is_told_apart_and_models_in_lists_are_seen():
    target, drafters = tiny(0), [tiny(1, layers=1), tiny(2, layers=1)]
    recorder, mask = Recorder(), torch.ones(3, 3, dtype=torch.bool)
    with recorder.watching(machine, {"target": target, "drafters": drafters}, {}), torch.inference_mode():
        target([1, 2, 3], visible=mask)
        target.run(target.embed([1, 2]), layers=range(1))
        for drafter in drafters:
            drafter([4])
        Tree().layout(1)
    found = [(call.part, call.who, call.name, call.how, call.new) for call, _ in recorder.calls]
    assert found[0] == ("target", "target", "forward", "masked", 3)
    assert ("target", "target", "run", "1 layers", 2) in found
    assert found.count(("draft", "drafter of 1 layers", "forward", "", 1)) == 2
    assert found[-1][:3] == ("rest", "Tree", "layout")


def test_a_pass_over_a_batch_is_one_call_of_the_model_that_runs_it():
    """What it costs depends on the tokens that it reads, and on how many rows read some."""
    target, drafter, recorder = tiny(0), tiny(1, layers=1), Recorder()
    ours, theirs = Batch(target, 3), Batch(drafter, 3)
    with recorder.watching(machine, {"target": target, "drafter": drafter}, {}), torch.inference_mode():
        ours([[1, 2], [], [3]])
        theirs([[1], [2], [3]], last=1)
        ours([[4], [], []])
    assert [(call.part, call.who, call.name, call.how, call.new) for call, _ in recorder.calls] == [
        ("target", "target", "forward", "batch of 2", 3),
        ("draft", "drafter of 1 layers", "forward", "batch of 3", 3),
        ("target", "target", "forward", "batch of 1", 1),
    ]
    with torch.inference_mode():
        ours([[5], [6], [7]])
    assert len(recorder.calls) == 3


@pytest.mark.usefixtures("trial_zoo")
def test_everything_is_as_before_afterwards_even_after_an_error():
    target, module = tiny(0), sys.modules[trial(Call.CONTINUE).module]
    before = dict(vars(target)), dict(vars(Sampler)), dict(vars(Tree)), dict(vars(module))
    recorder = Recorder()

    def fail() -> None:
        with recorder.watching(module, {"target": target}, {"check": "rest"}):
            assert "forward" in vars(target)
            assert vars(module)["check"] is not before[3]["check"]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (dict(vars(target)), dict(vars(Sampler)), dict(vars(Tree)), dict(vars(module))) == before


@pytest.mark.usefixtures("trial_zoo")
def test_a_cost_that_the_module_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        sys.modules["reference_impls.testing.cases.trial_continue"], "CASE", Case(costs={"gone": "rest"})
    )
    with pytest.raises(ValueError, match=r"the case of speculation names gone among its costs, which is not there"):
        recorded(contest(Call.CONTINUE))


@pytest.mark.usefixtures("trial_zoo")
def test_a_method_without_a_case_is_not_taken_as_free(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "reference_impls.testing.cases.trial_continue")
    with pytest.raises(
        ValueError, match=r"trial-continue has no case.*: write reference_impls/testing/cases/trial_cont"
    ):
        recorded(contest(Call.CONTINUE))


@pytest.mark.usefixtures("trial_zoo")
@pytest.mark.parametrize("call", Call)
@pytest.mark.parametrize("baseline", [True, False])
def test_the_passes_of_every_kind_are_counted(call: Call, *, baseline: bool):
    results, calls = recorded(contest(call, limit=4), baseline=baseline)
    passes = [c for c in calls if c.part == "target" and c.name in ("forward", "decode", "run")]
    assert len(passes) == sum(result.passes for result in results)


def test_a_call_that_fails_does_not_hide_those_after_it():
    recorder = Recorder()

    def broken() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        recorder.wrap("rest", "broken", "", broken)()
    recorder.wrap("rest", "whole", "", lambda: None)()
    assert [call.who for call, _ in recorder.calls] == ["broken", "whole"]


def test_the_size_of_a_call_is_that_of_its_first_list_or_tensor():
    p, tree = torch.zeros(5, 16), Tree()
    tree.add(3)
    assert size(([1, 2, 3], p)) == 3
    assert size((Sampler(), p)) == 5
    assert size((p[0],)) == 1
    assert size((torch.zeros(2, 5, 16),)) == 10
    assert size((torch.zeros(2, 5, dtype=torch.long),)) == 10
    assert size((Sampler(), tree, p)) == 1
    assert size((7,)) == size(()) == size((torch.zeros(()),)) == 1


def test_unit_costs_are_medians_and_straight_lines_between_them():
    def call(new: int) -> Operation:
        return Operation("target", "target", "forward", "", new)

    timed = [(call(1), s) for s in (1.0, 9.0, 2.0)] + [(call(5), 4.0), (call(9), 5.0)]
    units = Units(timed)
    assert [units.seconds(call(n)) for n in (1, 3, 5, 7, 9)] == [2.0, 3.0, 4.0, 4.5, 5.0]
    assert units.seconds(call(17)) == 2.0 + 16 / 8 * 3.0
    assert [(row.new, row.calls, row.microseconds) for row in units.rows()[:2]] == [(1, 3, 2e6), (5, 1, 4e6)]
    assert costs.between({4: 2.0, 8: 6.0}, 1) == 2.0, "never below what was seen"
    with pytest.raises(ValueError, match=r"no call like .*drafter.* was timed"):
        units.seconds(Operation("draft", "drafter", "forward", "", 1))


def test_a_depth_that_was_never_timed_lies_between_those_that_were():
    def call(how: str, new: int = 1) -> Operation:
        return Operation("target", "target", "fill", how, new)

    units = Units(
        [(call("2 layers"), 2.0), (call("6 layers"), 4.0), (call("6 layers, mask"), 9.0), (call("mask"), 7.0)]
    )
    assert units.seconds(call("4 layers")) == 3.0
    assert units.seconds(call("6 layers")) == 4.0
    assert units.seconds(call("4 layers, mask")) == 9.0
    for other in (call("", 1), Operation("target", "drafter", "fill", "4 layers", 1)):
        with pytest.raises(ValueError, match="was timed"):
            units.seconds(other)


def test_calls_timed_at_another_pace_come_to_that_of_the_stored_ones():
    def call(new: int) -> Operation:
        return Operation("target", "target", "forward", "", new)

    stored = Units([(call(1), 1.0), (call(2), 2.0), (call(4), 5.0)]).rows()
    units = Units([(call(1), 2.0), (call(2), 4.0), (call(3), 5.0), (call(4), 90.0)], stored)  # one of them stumbled
    assert [units.seconds(call(new)) for new in (1, 2, 3, 4)] == [1.0, 2.0, 2.5, 5.0]


def world(clock: Clock, costs_of: tuple[Any, Any], gamma: int, limit: int, wait: float = 0.0) -> Contest:
    """A greedy contest of target and drafter with known costs; the method dawdles for `wait` seconds."""
    made = contest(Call.CONTINUE, limit=limit)
    target, drafter = (clock.costing(tiny(0), cost) for cost in costs_of)
    own = made.kind.side(made.own.module, {"target": target, "drafter": drafter, "gamma": gamma})

    @functools.wraps(speculate)
    def dawdling(**given: Any) -> Any:
        clock.seconds += wait
        return speculate(**given)

    own = replace(own, function=dawdling)
    return replace(made, own=own, baseline=made.kind.rival("", own, limit))


def predicted(made: Contest) -> Prediction:
    units = Units([entry for which in (True, False) for entry in costs.record(made, 0, baseline=which)[1]])
    return costs.prediction(made, Plan(1, 1), units, {})


@pytest.mark.usefixtures("trial_zoo")
@pytest.mark.parametrize("gamma", [1, 4])
def test_in_a_world_of_known_costs_the_prediction_is_the_formula(clock: Clock, gamma: int):
    """The target takes 3 + 0.3 (k - 1) for k tokens, the perfect drafter 0.6 k, and nothing else takes time.

    Beyond that the prompt is read: the first pass of both has its tokens more.
    """
    known = lambda k: 3 + 0.3 * (min(k, gamma + 1) - 1), lambda k: 0.6 * min(k, 2)
    made = world(clock, known, gamma, 10 * (gamma + 1))
    row = predicted(made)
    drafts = gamma + 1  # the last guess of a draft is read with the token after it, and the prompt counts as two
    plain = 3 + 0.3 * gamma / (10 * (gamma + 1))  # the baseline's first pass reads the prompt
    target = 3 + 0.3 * gamma
    assert row.tokens_per_pass == gamma + 1
    assert (row.target, row.draft, row.rest) == pytest.approx((target / plain, 0.6 * drafts / plain, 0))
    assert row.predicted == pytest.approx((gamma + 1) / (row.target + row.draft))
    assert speedup(1.0, gamma, 0.6 * drafts / gamma / plain, target / plain) == pytest.approx(row.predicted)


@pytest.mark.usefixtures("trial_zoo")
def test_what_no_call_accounts_for_is_not_predicted(clock: Clock):
    """The method's own time does not enter: a loop that dawdles is predicted like one that does not."""
    known = lambda _: 1.0, lambda _: 0.5
    assert predicted(world(clock, known, 2, 12, wait=1000)) == predicted(world(clock, known, 2, 12))


def test_what_is_watched_everywhere_is_there():
    assert all(callable(getattr(owner, name)) for owner, name in SHARED)
    assert Cache in {owner for owner, _ in SHARED}
    assert "forward" in public_methods(LanguageModel)
    assert not set(public_methods(LanguageModel)) & {"new_cache", "device", "parameters", "_turn_at"}


def test_prompts_for_timing_are_not_the_benchmark_s():
    plan = Plan(prompts=3, limit=1, repeat=2)
    order = plan.order(1 + costs.timed_runs(plan))
    assert order[:6] == [(place, seed) for seed in (0, 1) for place in range(3)]
    assert not {place for place, _ in order[6:]} & {0, 1, 2}
    assert len(order) == 6 + 1 + costs.timed_runs(plan)


@pytest.mark.usefixtures("trial_zoo")
def test_a_benchmark_that_leaves_no_prompt_to_time_on_is_refused():
    with pytest.raises(ValueError, match="--prompts 6 leaves no held-out prompt to time calls on: take at most 4"):
        costs.timed_runs(Plan(prompts=6, limit=1))


@pytest.mark.usefixtures("trial_zoo")
def test_every_row_of_the_benchmark_gets_a_prediction():
    methods, ticks = [trial(call) for call in TRIALS], list[str]()
    plan = Plan(prompts=1, limit=4, tick=ticks.append)
    units, rows = costs.measure(taxonomy(*methods), plan)
    wanted = itertools.chain.from_iterable([m.id] * len(settings_of(m)) for m in methods)
    assert [row.id for row in rows] == list(wanted)
    assert all(row.predicted > 0 and row.runs == 1 for row in rows)
    assert len({row.key for row in rows}) == len(rows)
    assert {unit.part for unit in units} == set(PARTS)
    assert costs.runs_of(taxonomy(*methods), plan) == len(ticks)


@pytest.mark.usefixtures("trial_zoo")
def test_one_method_alone_is_predicted_from_the_costs_that_are_stored():
    methods = [trial(call) for call in TRIALS]
    plan = Plan(prompts=1, limit=4, ids=[methods[0].id])
    units, rows = costs.measure(taxonomy(*methods), plan)
    assert {row.id for row in rows} == {methods[0].id}
    slow = [replace(unit, microseconds=1e9 if unit.part == "rest" else 1e6, calls=7) for unit in units]
    again, predicted = costs.measure(taxonomy(*methods), plan, slow)
    assert again == slow
    assert all(row.rest > 100 * row.target for row in predicted)


# ---- what the page shows ------------------------------------------------------------------------------------------


def stored(*rows: tuple[str, str, float, float], settings: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Results of rows (method, setting, measured, predicted)."""
    both = {"settings": settings or {"prompts": 1}, "date": "2026-01-01", "command": "x", "units": []}
    measured = [BenchRow(id=i, setting=s, tokens_per_pass=2.0, **vars(spread([m]))) for i, s, m, _ in rows]
    parts = {"target": 1.0, "draft": 0.25, "rest": 0.05, "tokens_per_pass": 2.0, "runs": 1}
    promised = [Prediction(id=i, setting=s, predicted=p, **parts) for i, s, _, p in rows]
    return both | {"rows": [row.as_data() for row in measured]}, both | {"rows": [row.as_data() for row in promised]}


def test_a_deviation_above_a_tenth_is_numbered_and_explained():
    data = stored(
        ("a", "greedy", 1.0, 1.05), ("a", "hot", 1.0, 1.25), ("b", "greedy", 1.2, 1.0), ("c", "greedy", 1.1, 1.0)
    )
    rows = compared(*data)
    assert [row.number for row in rows] == [None, 1, 2, None]
    assert [round(row.deviation, 3) for row in rows] == [-0.048, -0.2, 0.2, 0.1]
    found = problems(*data, why={})
    assert found == [
        "a deviates and WHY of site/predictions.py does not say why (hot: predicted 1.25, measured 1.00, -20%)",
        "b deviates and WHY of site/predictions.py does not say why (greedy: predicted 1.00, measured 1.20, +20%)",
    ]
    assert not problems(*data, why={"a": "Because.", "b": "Because."})
    assert problems(*data, why={"a": "Because.", "b": " "})[0].startswith("b deviates")
    (stale,) = problems(*data, why={"a": "Because.", "b": "Because.", "c": "Because."})
    assert stale == "WHY of site/predictions.py explains c, which is as predicted to a tenth: remove it"


def test_where_a_method_loses_its_page_says_what_a_pass_brings_and_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    data = stored(
        ("a", "greedy", 0.9, 1.0), ("a", "hot", 1.1, 1.1), ("b", "greedy", 1.0, 1.0), ("c", "greedy", 0.5, 1.0)
    )
    text = losses("a", *data)
    assert "| greedy | 2.00 | 1.30 | 1.00 | 0.25 | 0.05 |" in text
    assert "hot" not in text
    assert losses("b", *data) == losses("x", *data) == losses("a", None, data[1]) == ""
    monkeypatch.setitem(WHY, "c", "Because of its tree.")
    assert "Because of its tree." in losses("c", *data)


def test_results_that_do_not_belong_together_are_noticed():
    measured, predicted = stored(("trial", "greedy", 1.0, 2.0))
    assert problems(None, predicted)[0].startswith("measuring/results/bench.json is missing")
    assert "accelgen bench --costs" in problems(measured, None)[0]
    (found,) = problems(measured, predicted | {"rows": []})
    assert found == "costs.json has no row for trial, greedy: make it anew"
    (found,) = problems(measured | {"rows": []}, predicted)
    assert found == "bench.json has no row for trial, greedy: make it anew"
    (found,) = problems(measured, predicted | {"settings": {"prompts": 2}})
    assert found.startswith("the settings differ: make both with the same --prompts")
    other = [predicted["rows"][0] | {"tokens_per_pass": 2.5}]
    (found,) = problems(measured, predicted | {"rows": other})
    assert "tokens per pass differ" in found


def test_the_page_shows_every_row_and_reason(monkeypatch: pytest.MonkeyPatch):
    ids = [m.id for m in TAXONOMY.methods[:2]]
    data = stored((ids[0], "greedy", 1.5, 1.0), (ids[1], "greedy", 0.999, 1.0), (ids[1], "hot", 0.9, 1.0))
    monkeypatch.setitem(predictions.WHY, ids[0], "Its masks are made anew in every step.")
    page = predictions.predicted(TAXONOMY, *data)
    assert "| greedy | 1.00 | 1.50 | +50% (1) | 2.00 | 1.00 | 0.25 | 0.05 |" in page
    assert "| greedy | 1.00 | 1.00 | +0% | 2.00 | 1.00 | 0.25 | 0.05 |" in page
    assert "| hot | 1.00 | 0.90 | −10% | 2.00 |" in page
    assert "Its masks are made anew in every step." in page
    assert "downloads/costs.json" in page
    assert page.count("chart__mark") >= 2
    assert predictions.predicted(TAXONOMY, data[0], None) == "\n"


def test_the_page_shows_what_passes_cost():
    measured, predicted = stored(("a", "greedy", 1.0, 1.0))

    def unit(who: str, how: str, new: int, microseconds: float, calls: int) -> dict[str, Any]:
        found = Unit(part="x", who=who, call="forward", how=how, new=new, microseconds=microseconds, calls=calls)
        return found.as_data()

    units = [unit("target", "", 1, 2000.0, 9), unit("target", "", 5, 2500.0, 9), unit("target", "masked", 5, 2600.0, 9)]
    units += [unit("drafter", "", 1, 100.0, 9), unit("drafter", "", 2, 150.0, 30)]
    page = predictions.predicted(TAXONOMY, measured, predicted | {"units": units})
    assert "takes 2.00 ms" in page
    assert "| New tokens $k$ | as a chain | as a tree |" in page
    assert "| 1 | 1.00 | – |" in page
    assert "| 5 | 1.25 | 1.30 |" in page
    assert "| drafter | forward |  | 2 | 150 | 0.075 | 30 |" in page
    assert "| drafter | forward |  | 1 |" not in page


def test_the_stored_predictions_fit_the_measurement_and_are_explained():
    """Reads what is stored: `accelgen bench` and `accelgen bench --costs` make it, `WHY` explains what deviates."""
    found = problems(read_json(RESULTS / "bench.json"), read_json(RESULTS / "costs.json"))
    assert not found, "\n" + "\n".join(found)
