"""The benchmark's arithmetic and its honesty, on tiny random models. No test depends on how long anything took."""

import importlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from accelgen.cli import app
from accelgen.cli import measurements as measuring
from accelgen.measuring import bench
from accelgen.site.fragments import fragments
from accelgen.site.pages import pages
from accelgen.site.results import Results
from accelgen.taxonomy.loading import load_taxonomy
from reference_impls.baselines import autoregressive
from reference_impls.core import device as devices
from reference_impls.core.generation import Generation, Step
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel
from reference_impls.speculative_decoding import speculative_decoding_leviathan

PROMPTS = [[1, 2, 3], [4], [5, 6]]
PLAN = bench.Plan(prompts=3, limit=8, repeat=2)


def model(seed: int, layers: int = 2) -> LanguageModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LanguageModel(Shape(vocab=16, dim=16, layers=layers, heads=2, kv_heads=2, head_dim=8, hidden=16)).eval()


@pytest.fixture(scope="module")
def options() -> dict[str, Any]:
    return {"target": model(0), "drafter": model(1, layers=1), "gamma": 3}


def test_pairs_alternate_and_exclude_the_warm_up() -> None:
    calls: list[str] = []

    def run(name: str) -> bench.Run:
        return lambda: calls.append(name) or Generation([1], [Step([1])])

    ticks: list[str] = []
    pairs = bench.paired([(run("a"), run("A")), (run("b"), run("B")), (run("c"), run("C"))], "title", ticks.append)
    assert calls == ["a", "A", "a", "A", "B", "b", "c", "C"]
    assert len(pairs) == len(ticks) == 3


def test_spread_is_the_median_and_quartiles() -> None:
    assert bench.spread([3.0, 1.0, 2.0, 5.0, 4.0]) == {"speedup": 3.0, "speedup_q1": 2.0, "speedup_q3": 4.0, "pairs": 5}
    assert bench.spread([2.0]) == {"speedup": 2.0, "speedup_q1": 2.0, "speedup_q3": 2.0, "pairs": 1}


def test_figures_are_sums_over_all_prompts(options: dict[str, Any]) -> None:
    pairs = bench.language_pairs(speculative_decoding_leviathan.generate, options, PROMPTS, 0.8, plan=PLAN)
    assert len(pairs) == 6
    assert pairs[0].own.tokens != pairs[3].own.tokens  # another seed
    row = bench.language_row("x", 0.8, options, pairs)
    tokens = sum(len(pair.own.tokens) for pair in pairs)
    assert tokens == 6 * PLAN.limit
    assert row["tokens_per_pass"] == tokens / sum(pair.own.passes for pair in pairs)
    assert row["setting"] == "temperature 0.8, gamma 3"
    assert row["pairs"] == 6


def test_an_exact_method_agrees_and_a_forger_is_caught(options: dict[str, Any]) -> None:
    target = options["target"]
    honest = bench.language_pairs(speculative_decoding_leviathan.generate, options, PROMPTS, 0.0, plan=PLAN)[:3]
    row = bench.agreement(target, PROMPTS, honest, exact=True)
    assert row["as_promised"] is True
    assert row["identical_tokens"] == 1.0

    def forger(*, limit: int, prompt: list[int], **rest: Any) -> Generation:
        result = autoregressive.generate(prompt=prompt, limit=limit, **rest)
        if prompt == PROMPTS[1]:
            result.tokens[5] = (result.tokens[5] + 1) % 16
        return result

    forged = bench.language_pairs(forger, {"target": target}, PROMPTS, 0.0, plan=PLAN)[:3]
    row = bench.agreement(target, PROMPTS, forged, exact=True)
    assert row == {
        "texts": 3, "identical_texts": 2, "identical_tokens": 23 / 24, "rounding_ties": 0, "as_promised": False,
    }  # fmt: skip
    assert "as_promised" not in bench.agreement(target, PROMPTS, forged, exact=False)


def test_a_tie_of_two_logits_is_told_apart_from_a_mistake() -> None:
    target = model(0)
    with torch.no_grad():
        target.embedding[7] = target.embedding[3]  # tied weights: tokens 3 and 7 always have the same logit

    def pair(ours: list[int], theirs: list[int]) -> bench.Pair:
        return bench.Pair(Generation(theirs), Generation(ours), 1.0, 2.0)

    assert bench.is_tie(target, [1], pair([2, 7, 1], [2, 3, 5]))
    assert not bench.is_tie(target, [1], pair([2, 4], [2, 3]))
    assert not bench.is_tie(target, [1], pair([2], [2, 3]))
    assert pair([2], [2]).speedup == 0.5


@pytest.mark.parametrize("name", ["prompts", "limit", "repeat"])
def test_less_than_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0; it must be at least 1"):
        bench.Plan(**{"prompts": 1, "limit": 1, "repeat": 1} | {name: 0})
    result = CliRunner().invoke(app, ["bench", f"--{name}", "0"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "must be at least 1" in result.stderr


def test_too_many_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="3 held-out prompts were asked for, but there are 2"):
        bench.take(["a", "b"], 3, "held-out prompts")


def test_one_thread_is_only_borrowed() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with bench.one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_environment_names_no_host() -> None:
    found = bench.environment()
    assert found["versions"]["torch"] == torch.__version__
    assert found["machine"]["cores"] >= 1
    assert set(found["machine"]) == {"processor", "cores", "threads", "system"}


# ---- devices ------------------------------------------------------------------------------------------------------


class Holder:
    """An object of ours in which a model hides, as adapters and wrappers of drafters are."""

    def __init__(self, model: LanguageModel) -> None:
        self.inner = {"models": [model]}


Holder.__module__ = "reference_impls.made_up"


def moved_to(device: str) -> tuple[Any, list[LanguageModel]]:
    models = [model(seed) for seed in range(4)]
    options = {"target": models[0], "drafters": (models[1], models[2]), "wrapped": Holder(models[3]), "gamma": 3}
    return bench.moved(options, torch.device(device)), models


def test_all_models_move_however_deep_they_lie() -> None:
    options, models = moved_to("meta")
    assert [m.device.type for m in models] == ["meta"] * 4
    assert all(buffer.device.type == "meta" for m in models for buffer in m.buffers())
    assert options["target"] is models[0]
    assert options["gamma"] == 3
    _, models = moved_to("cpu")
    assert [m.device.type for m in models] == ["cpu"] * 4


@pytest.mark.parametrize("method", [m for m in load_taxonomy().methods if m.is_implemented], ids=lambda m: m.id)
def test_no_model_of_an_example_stays_behind(method: Any) -> None:
    """Every tensor with gradients or weights that an option holds is where it was sent."""
    options = bench.moved(importlib.import_module(method.module).example(), torch.device("meta"))
    found = [m for value in options.values() for m in (value if isinstance(value, list | tuple) else [value])]
    modules = [m for m in found if isinstance(m, torch.nn.Module)]
    assert modules
    assert {t.device.type for m in modules for t in itertools.chain(m.parameters(), m.buffers())} == {"meta"}
    assert not [m for m in found if isinstance(m, torch.Tensor)], "a tensor among the options would stay behind"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("cuda", "'cuda' cannot be used here"),
        ("meta", "'meta' cannot be used"),
        ("abacus", "no device is called 'abacus'; use cpu"),
    ],
)
def test_a_device_that_is_not_there_is_refused(name: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: Any, **__: Any) -> Any:
        raise AssertionError("Torch not compiled with CUDA enabled.\nMore words.")

    if name == "cuda":  # also where there is one
        monkeypatch.setattr(torch, "zeros", absent)
    with pytest.raises(ValueError, match=sentence) as caught:
        devices.find_device(name)
    assert "\n" not in str(caught.value)
    result = CliRunner().invoke(app, ["bench", "--device", name])
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr


def test_the_processor_is_always_there_and_has_no_other_name() -> None:
    device = devices.find_device("cpu")
    assert device == bench.CPU == bench.Plan(1, 1).device
    assert bench.environment(device) == bench.environment()
    assert bench.environment(torch.device("meta"))["machine"]["device"] == "meta"


def test_a_gpu_s_name_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Fast Card {device.index}")
    assert bench.environment(torch.device("cuda:1"))["machine"]["device"] == "Fast Card 1"


def test_the_clock_waits_for_a_gpu_and_for_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append("wait"))
    bench.timed(lambda: Generation([1]))
    assert not waits
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    bench.timed(lambda: waits.append("run") or Generation([1]))
    assert waits == ["wait", "run", "wait"]


def test_figures_of_another_device_have_a_file_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "RESULTS", tmp_path)
    monkeypatch.setattr(devices, "find_device", torch.device)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Fast Card")
    sent: list[torch.device] = []

    def rows(_: Any, plan: bench.Plan) -> list[dict[str, Any]]:
        sent.append(plan.device)
        return [{"id": "x", "setting": "greedy", "tokens_per_pass": 1.0, **bench.spread([1.0])}]

    monkeypatch.setattr(bench, "measure", rows)
    for words, name in (
        (["--device", "cuda"], "bench-cuda.json"),
        ([], "bench.json"),
        (["--device", "cpu"], "bench.json"),
    ):
        result = CliRunner().invoke(app, ["bench", "--prompts", "1", *words])
        assert result.exit_code == 0, result.output
        report = json.loads((tmp_path / name).read_text(encoding="utf-8"))
        assert report["machine"].get("device") == ("Fast Card" if "cuda" in words else None)
        assert report["command"].endswith("--device cuda") == ("cuda" in words)
    assert [device.type for device in sent] == ["cuda", "cpu", "cpu"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench-cuda.json", "bench.json"]


def test_different_measurements_are_not_mixed() -> None:
    for words in (["--peers", "--costs"], ["--costs", "--synthetic-acceptance", "0.5"]):
        result = CliRunner().invoke(app, ["bench", *words])
        assert (result.exit_code, result.stdout) == (2, "")
        assert "are different measurements: choose one of them" in result.stderr


def test_other_devices_have_a_dated_table_and_none_leaves_no_trace() -> None:
    taxonomy = load_taxonomy()
    row = {"id": taxonomy.methods[0].id, "setting": "greedy", "tokens_per_pass": 2.0, **bench.spread([1.5])}
    found = {"command": "accelgen bench --device cuda", "versions": {"torch": "2.0"}, "date": "2026-01-02",
             "machine": {"device": "Fast Card"}, "rows": [row]}  # fmt: skip
    results = Results(devices={"bench-cuda.json": found})
    text = fragments(taxonomy, results)["devices"]
    assert "## On Fast Card, 2026-01-02" in text
    assert "1.50" in text
    assert "accelgen bench --device cuda" in text
    assert "downloads/bench-cuda.json" in text
    assert "downloads/bench-cuda.json" in pages(taxonomy, results)
    assert fragments(taxonomy, Results())["devices"] == "\n"


@pytest.mark.slow
def test_every_implemented_method_has_its_rows(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    words = ["bench", "--prompts", "2", "--limit", "6", "-o", str(output), "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    report = json.loads(output.read_text(encoding="utf-8"))
    assert report == json.loads(result.stdout)
    assert report["command"] == "accelgen bench --prompts 2 --limit 6 --repeat 1"
    taxonomy = load_taxonomy()
    expected = itertools.chain.from_iterable(
        [method.id] * len(bench.settings_of(method)) for method in taxonomy.methods if method.is_implemented
    )
    assert [row["id"] for row in report["rows"]] == list(expected)
    assert all(row["pairs"] == 2 and row["speedup"] > 0 for row in report["rows"])
    assert bench.pairs_of(taxonomy, bench.Plan(2, 6)) == sum(row["pairs"] for row in report["rows"])
