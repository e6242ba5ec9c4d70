"""Predictions from the costs of single calls: every call is seen once, the arithmetic holds, nothing is stale.

No test depends on how long anything took: time is a clock that the test moves, and the stored figures are only read.
"""

from __future__ import annotations

import importlib
import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from accelgen.measuring import bench, costs
from accelgen.measuring.costs import Call, Case, Recorder, Units
from accelgen.measuring.speedup import speedup
from accelgen.project.files import read_json
from accelgen.project.places import RESULTS
from accelgen.site import predictions
from accelgen.site.predictions import compared, problems
from accelgen.taxonomy.loading import load_taxonomy
from reference_impls.baselines import autoregressive
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.tree import Tree
from reference_impls.speculative_decoding import specinfer
from reference_impls.speculative_decoding import speculative_decoding_leviathan as leviathan

SHAPE = {"vocab": 16, "dim": 16, "heads": 2, "kv_heads": 2, "head_dim": 8, "hidden": 16}
TAXONOMY = load_taxonomy()


def model(seed: int, layers: int = 2) -> LanguageModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LanguageModel(Shape(layers=layers, **SHAPE)).eval()


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
    monkeypatch.setattr(bench, "now", made)
    return made


def recorded(module: Any, options: dict[str, Any], temperature: float = 0.8) -> Any:
    recorder = Recorder()
    with recorder.watching(module, options):
        result = module.generate(prompt=[1, 2, 3], limit=20, sampler=Sampler(temperature), **options)
    return result, [call for call, _ in recorder.calls]


def test_every_pass_of_the_trace_is_recorded_once():
    options = {"target": model(0), "drafter": model(1, layers=1), "gamma": 3}
    result, calls = recorded(leviathan, options)
    passes = [call for call in calls if call.name == "forward"]
    assert sum(call.who == "target" for call in passes) == result.passes
    assert sum(call.who == "drafter of 1 layers" for call in passes) == result.draft_passes
    assert {call.part for call in calls} == set(costs.PARTS)
    assert not [call for call in calls if call.name in ("run", "embed", "logits", "accept")], "those are inside others"
    assert sum(call.who == "verify_chain" for call in calls) == len(result.steps)
    assert {call.new for call in calls if call.who == "verify_chain"} == {3}
    assert {call.new for call in passes if call.who == "target"} >= {4}


def test_a_tree_s_pass_is_told_apart_and_models_in_lists_are_seen():
    options = {"target": model(0), "drafters": [model(1, layers=1), model(2, layers=1)], "expansion": (2, 1)}
    result, calls = recorded(specinfer, options)
    target = [call for call in calls if call.who == "target" and call.name == "forward"]
    assert len(target) == result.passes
    assert {call.how for call in target} == {"masked"}
    assert [call.new - 1 for call in target[1:]] == [len(step.drafted) for step in result.steps[1:]]
    assert sum(call.part == "draft" for call in calls) == result.draft_passes
    assert {"Tree", "Cache"} <= {call.who for call in calls}


def test_everything_is_as_before_afterwards_even_after_an_error():
    target = model(0)
    before = dict(vars(target)), dict(vars(Sampler)), dict(vars(Tree)), dict(vars(leviathan))
    recorder = Recorder()

    def fail() -> None:
        with recorder.watching(leviathan, {"target": target}):
            assert "forward" in vars(target)
            assert vars(leviathan)["verify_chain"] is not before[3]["verify_chain"]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (dict(vars(target)), dict(vars(Sampler)), dict(vars(Tree)), dict(vars(leviathan))) == before


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
    assert costs.size(([1, 2, 3], p)) == 3
    assert costs.size((Sampler(), p)) == 5
    assert costs.size((p[0],)) == 1
    assert costs.size((torch.zeros(2, 5, 16),)) == 10
    assert costs.size((torch.zeros(2, 5, dtype=torch.long),)) == 10
    assert costs.size((Sampler(), tree, p)) == 1
    assert costs.size((7,)) == costs.size(()) == costs.size((torch.zeros(()),)) == 1


def test_unit_costs_are_medians_and_straight_lines_between_them():
    def call(new: int) -> Call:
        return Call("target", "target", "forward", "", new)

    timed = [(call(1), s) for s in (1.0, 9.0, 2.0)] + [(call(5), 4.0), (call(9), 5.0)]
    units = Units(timed)
    assert [units.seconds(call(n)) for n in (1, 3, 5, 7, 9)] == [2.0, 3.0, 4.0, 4.5, 5.0]
    assert units.seconds(call(17)) == 2.0 + 16 / 8 * 3.0
    assert [(row["new"], row["calls"], row["microseconds"]) for row in units.rows()[:2]] == [(1, 3, 2e6), (5, 1, 4e6)]
    assert costs.between({4: 2.0, 8: 6.0}, 1) == 2.0, "never below what was seen"
    with pytest.raises(ValueError, match=r"no call like .*drafter.* was timed"):
        units.seconds(Call("draft", "drafter", "forward", "", 1))


def case(options: dict[str, Any], limit: int) -> Case:
    target = options["target"]

    def runs(_: int) -> Any:
        shared: dict[str, Any] = {"prompt": [1], "limit": limit}
        return (
            lambda: autoregressive.generate(target, sampler=Sampler(0), **shared),
            lambda: leviathan.generate(sampler=Sampler(0), **shared, **options),
        )

    return Case("x", "greedy", leviathan, options, (autoregressive, {"target": target}), "greedy", runs)


@pytest.mark.parametrize("gamma", [1, 4])
def test_in_a_world_of_known_costs_the_prediction_is_the_formula(clock: Clock, gamma: int):
    """The target takes 3 + 0.3 (k - 1) for k tokens, the perfect drafter 0.6 k, and nothing else takes time."""
    target = clock.costing(model(0), lambda k: 3 + 0.3 * (k - 1))
    drafter = clock.costing(model(0), lambda k: 0.6 * k)
    made = case({"target": target, "drafter": drafter, "gamma": gamma}, limit=10 * (gamma + 1))
    units = Units([entry for which in (True, False) for entry in made.record(0, baseline=which)[1]])
    row = costs.prediction(made, bench.Plan(1, 1), units, {})
    drafts = gamma + 0.9  # the last guess of a draft is read with the token after it, ten times but the first
    expected = speedup(1.0, gamma, cost_ratio=drafts / gamma / 5, verify_cost=1 + gamma / 10)
    assert row["predicted"] == pytest.approx(expected)
    assert row["tokens_per_pass"] == gamma + 1
    assert (row["target"], row["draft"], row["rest"]) == pytest.approx((1 + gamma / 10, drafts / 5, 0))
    assert row["tokens_per_pass"] / (row["target"] + row["draft"] + row["rest"]) == pytest.approx(row["predicted"])


def test_what_no_call_accounts_for_is_not_predicted(clock: Clock):
    """The method's own time does not enter: a loop that dawdles is predicted like one that does not."""
    target, drafter = clock.costing(model(0), lambda _: 1.0), clock.costing(model(0), lambda _: 0.5)
    made = case({"target": target, "drafter": drafter, "gamma": 2}, limit=12)
    units = Units([entry for which in (True, False) for entry in made.record(0, baseline=which)[1]])
    quick = costs.prediction(made, bench.Plan(1, 1), units, {})

    def dawdling(i: int) -> Any:
        baseline, own = made.runs(i)

        def slow() -> Any:
            clock.seconds += 1000
            return own()

        return baseline, slow

    slow = Case("x", "greedy", made.module, made.options, made.plain, made.way, dawdling)
    assert costs.prediction(slow, bench.Plan(1, 1), units, {}) == quick


def test_no_name_that_is_watched_is_out_of_date():
    modules = [importlib.import_module(m.module) for m in TAXONOMY.methods if m.is_implemented]
    for name in (*costs.RULES, *costs.BY_HAND):
        assert any(name in vars(module) for module in modules), name
    assert "forward" in costs.public_methods(LanguageModel)
    assert not set(costs.public_methods(LanguageModel)) & {"new_cache", "device", "parameters", "_turn_at"}


def test_prompts_for_timing_are_not_the_benchmark_s():
    plan = bench.Plan(prompts=3, limit=1, repeat=2)
    order = costs._order(plan)
    assert order[:6] == [(place, seed) for seed in (0, 1) for place in range(3)]
    assert not {place for place, _ in order[6:]} & {0, 1, 2}
    assert len(order) == 6 + 1 + costs.timed_runs(plan)
    with pytest.raises(ValueError, match="--prompts 60 leaves no held-out prompt to time calls on: take at most 58"):
        costs.timed_runs(bench.Plan(prompts=60, limit=1))


# ---- what the page shows ------------------------------------------------------------------------------------------


def stored(*rows: tuple[str, str, float, float], settings: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Results of rows (method, setting, measured, predicted)."""
    both = {"settings": settings or {"prompts": 1}, "date": "2026-01-01", "command": "x", "units": []}
    measured = [{"id": i, "setting": s, "speedup": m, "tokens_per_pass": 2.0} for i, s, m, _ in rows]
    parts = {"target": 1.0, "draft": 0.25, "rest": 0.05, "tokens_per_pass": 2.0}
    return both | {"rows": measured}, both | {
        "rows": [{"id": i, "setting": s, "predicted": p} | parts for i, s, _, p in rows]
    }


def test_a_deviation_above_a_tenth_is_numbered_and_explained():
    data = stored(
        ("a", "greedy", 1.0, 1.05), ("a", "hot", 1.0, 1.25), ("b", "greedy", 1.2, 1.0), ("c", "greedy", 1.1, 1.0)
    )
    rows = compared(*data)
    assert [row.get("number") for row in rows] == [None, 1, 2, None]
    assert [round(row["deviation"], 3) for row in rows] == [-0.048, -0.2, 0.2, 0.1]
    found = problems(*data, why={})
    assert found == [
        "a deviates and WHY of site/predictions.py does not say why (hot: predicted 1.25, measured 1.00, -20%)",
        "b deviates and WHY of site/predictions.py does not say why (greedy: predicted 1.00, measured 1.20, +20%)",
    ]
    assert not problems(*data, why={"a": "Because.", "b": "Because."})
    assert problems(*data, why={"a": "Because.", "b": " "})[0].startswith("b deviates")
    (stale,) = problems(*data, why={"a": "Because.", "b": "Because.", "c": "Because."})
    assert stale == "WHY of site/predictions.py explains c, which is as predicted to a tenth: remove it"


def test_results_that_do_not_belong_together_are_noticed():
    measured, predicted = stored(("mask-predict", "greedy", 1.0, 2.0))
    assert problems(None, predicted)[0].startswith("measuring/results/bench.json is missing")
    assert "accelgen bench --costs" in problems(measured, None)[0]
    (found,) = problems(measured, predicted | {"rows": []})
    assert found == "costs.json has no row for mask-predict, greedy: make it anew"
    (found,) = problems(measured | {"rows": []}, predicted)
    assert found == "bench.json has no row for mask-predict, greedy: make it anew"
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
        return {"part": "x", "who": who, "call": "forward", "how": how, "new": new, "microseconds": microseconds,
                "calls": calls}  # fmt: skip

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


@pytest.mark.slow
def test_every_row_of_the_benchmark_gets_a_prediction():
    first = [m for m in TAXONOMY.methods if m.is_implemented]
    plan = bench.Plan(prompts=1, limit=6)
    found = costs.measure(SimpleNamespace(methods=first), plan)  # type: ignore[arg-type]
    expected = itertools.chain.from_iterable([m.id] * len(bench.settings_of(m)) for m in first)
    assert [row["id"] for row in found["rows"]] == list(expected)
    assert all(row["predicted"] > 0 and row["runs"] == 1 for row in found["rows"])
    assert len({(row["id"], row["setting"]) for row in found["rows"]}) == len(found["rows"])
    assert {unit["part"] for unit in found["units"]} == set(costs.PARTS)
