"""The benchmark's arithmetic and its honesty, on tiny random models. No test depends on how long anything took."""

from __future__ import annotations

import importlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from speculation import model
from trials import TRIALS, taxonomy, trial
from typer.testing import CliRunner

from accelgen.cli import app
from accelgen.cli import measurements as commands
from accelgen.measuring import bench, machine, pairs
from accelgen.measuring.contests import Contest, Plan, contests, settings_of
from accelgen.measuring.kinds import Continue, Translate
from accelgen.measuring.pairs import Pair, agreement, is_tie, paired, spread
from accelgen.measuring.rows import BenchRow, Spread
from accelgen.site.fragments import fragments
from accelgen.site.pages import pages
from accelgen.site.results import Results
from accelgen.site.views import guide
from accelgen.taxonomy.loading import load_taxonomy
from accelgen.taxonomy.schema import Call, Workload
from reference_impls.core import device as devices
from reference_impls.core.generation import Generation, Step
from reference_impls.core.model import LanguageModel
from reference_impls.zoo.tasks import task

PLAN = Plan(prompts=3, limit=8, repeat=2)


def row_of(**more: Any) -> BenchRow:
    figures = {"id": "x", "setting": "greedy", "tokens_per_pass": 1.0} | vars(spread([1.0]))
    return BenchRow(**figures | more)


def measured(call: Call, plan: Plan = PLAN, **more: Any) -> list[tuple[Contest, list[Pair], BenchRow]]:
    """The rows of a trial method, with what they were made from."""
    found = []
    for contest in contests(trial(call, **more), plan):
        runs = paired([contest.runs(i) for i in range(plan.runs)])
        found.append((contest, runs, bench.row(contest, runs)))
    return found


def test_pairs_alternate_and_exclude_the_warm_up() -> None:
    calls: list[str] = []

    def run(name: str) -> pairs.Run:
        return lambda: calls.append(name) or [Generation([1], [Step([1])])]

    ticks: list[str] = []
    found = paired([(run("a"), run("A")), (run("b"), run("B")), (run("c"), run("C"))], "title", ticks.append)
    assert calls == ["a", "A", "a", "A", "B", "b", "c", "C"]
    assert len(found) == len(ticks) == 3


def test_spread_is_the_median_and_quartiles() -> None:
    assert spread([3.0, 1.0, 2.0, 5.0, 4.0]) == Spread(speedup=3.0, speedup_q1=2.0, speedup_q3=4.0, pairs=5)
    assert spread([2.0]) == Spread(speedup=2.0, speedup_q1=2.0, speedup_q3=2.0, pairs=1)


@pytest.mark.usefixtures("trial_zoo")
def test_figures_are_sums_over_all_prompts() -> None:
    (_, _, greedy), (_, runs, warm) = measured(Call.CONTINUE)
    assert len(runs) == 6
    assert runs[0].own[0].tokens != runs[3].own[0].tokens  # another seed
    tokens = sum(len(pair.own[0].tokens) for pair in runs)
    assert tokens == 6 * PLAN.limit
    assert warm.tokens_per_pass == tokens / sum(pair.own[0].passes for pair in runs)
    drafted = sum(len(step.drafted) for pair in runs for step in pair.own[0].steps)
    assert warm.acceptance == sum(step.kept for pair in runs for step in pair.own[0].steps) / drafted
    assert (warm.setting, warm.pairs, warm.texts) == ("temperature 0.8, gamma 2", 6, None)
    assert (greedy.texts, greedy.identical_texts, greedy.as_promised) == (3, 3, None)  # a lossy one promises nothing


@pytest.mark.usefixtures("trial_zoo")
def test_an_exact_method_agrees_and_a_forger_is_caught() -> None:
    contest, runs, row = measured(Call.CONTINUE, guarantee="exact-distribution")[0]
    assert (row.as_promised, row.identical_tokens, row.rounding_ties) == (True, 1.0, 0)
    forged = runs[:3]
    tokens = forged[1].own[0].tokens
    tokens[5] = (tokens[5] + 1) % 128
    found = agreement(contest.inputs, forged, exact=True, target=contest.own.options["target"])
    assert found == {
        "texts": 3, "identical_texts": 2, "identical_tokens": 23 / 24, "rounding_ties": 0, "as_promised": False,
    }  # fmt: skip
    assert agreement(contest.inputs, forged, exact=True)["as_promised"] is False
    assert "as_promised" not in agreement(contest.inputs, forged, exact=False)


@pytest.mark.usefixtures("trial_zoo")
@pytest.mark.parametrize(("call", "texts"), [(Call.BATCH, 12), (Call.CANVAS, 3), (Call.CLASSIFY, 3)])
def test_greedy_texts_of_every_kind_are_compared_with_the_baseline_s(call: Call, texts: int) -> None:
    contest, runs, row = measured(call)[0]
    both = [each for pair in runs[:3] for each in zip(pair.baseline, pair.own, strict=True)]
    assert row.texts == len(both) == texts
    assert row.identical_texts == sum(a.tokens == b.tokens for a, b in both)
    assert row.id == contest.method.id


@pytest.mark.usefixtures("trial_zoo")
def test_translations_are_judged_by_their_references(monkeypatch: pytest.MonkeyPatch) -> None:
    lite = task("lite")
    known = [(lite.encode(e.source), lite.encode(e.references[0])) for e in Translate().examples(3)]

    def translate(model: Any, source: Any) -> Generation:  # noqa: ARG001 - the first sentence alone is wrong
        place = [asked for asked, _ in known].index(source)
        tokens = known[place][1]
        return Generation(tokens if place else tokens[:-1], [Step(tokens, passes=2)])

    module = importlib.import_module(trial(Call.TRANSLATE).module)
    monkeypatch.setattr(module, "generate", translate)
    monkeypatch.setattr(module, "example", lambda: {"model": None})
    ((_, _, row),) = measured(Call.TRANSLATE)
    assert (row.exact_match, row.passes_per_sentence, row.exact_match_autoregressive) == (pytest.approx(2 / 3), 2, 0)
    assert row.translates


def test_a_tie_of_two_logits_is_told_apart_from_a_mistake() -> None:
    target = model(0)
    with torch.no_grad():
        target.embedding[7] = target.embedding[3]  # tied weights: tokens 3 and 7 always have the same logit

    def tie(ours: list[int], theirs: list[int]) -> bool:
        return is_tie(target, [1], Generation(theirs), Generation(ours))

    assert tie([2, 7, 1], [2, 3, 5])
    assert not tie([2, 4], [2, 3])
    assert not tie([2], [2, 3])
    assert Pair([], [], 1.0, 2.0).speedup == 0.5


@pytest.mark.parametrize("name", ["prompts", "limit", "repeat"])
def test_less_than_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0; it must be at least 1"):
        Plan(**{"prompts": 1, "limit": 1, "repeat": 1} | {name: 0})
    result = CliRunner().invoke(app, ["bench", f"--{name}", "0"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "must be at least 1" in result.stderr


@pytest.mark.usefixtures("trial_zoo")
def test_too_many_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="9 held-out prompts were asked for, but there are 6"):
        Continue().inputs(9)


def test_one_thread_is_only_borrowed() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with machine.one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_environment_names_no_host() -> None:
    found = machine.environment()
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
    return machine.moved(options, torch.device(device)), models


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
    options = machine.moved(importlib.import_module(method.module).example(), torch.device("meta"))
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
    assert device == machine.CPU == Plan(1, 1).device
    assert machine.environment(device) == machine.environment()
    assert machine.environment(torch.device("meta"))["machine"]["device"] == "meta"


def test_a_gpu_s_name_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Fast Card {device.index}")
    assert machine.environment(torch.device("cuda:1"))["machine"]["device"] == "Fast Card 1"


def test_the_clock_waits_for_a_gpu_and_for_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append("wait"))
    machine.timed(lambda: Generation([1]))
    assert not waits
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    machine.timed(lambda: waits.append("run") or Generation([1]))
    assert waits == ["wait", "run", "wait"]


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the site's results lie, in a checkout."""
    monkeypatch.setattr(commands, "RESULTS", tmp_path)
    monkeypatch.setattr(commands, "CHECKOUT", True)
    return tmp_path


@pytest.fixture
def one_row(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """A measurement of one row; the devices that it was asked for."""
    sent: list[torch.device] = []

    def rows(_: Any, plan: Plan) -> list[BenchRow]:
        sent.append(plan.device)
        return [row_of()]

    monkeypatch.setattr(bench, "measure", rows)
    return sent


def test_figures_of_another_device_have_a_file_of_their_own(
    stored: Path, one_row: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "find_device", torch.device)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Fast Card")
    for words, name in (
        (["--device", "cuda"], "bench-cuda.json"),
        ([], "bench.json"),
        (["--device", "cpu"], "bench.json"),
    ):
        result = CliRunner().invoke(app, ["bench", "--prompts", "1", "--store", *words])
        assert result.exit_code == 0, result.output
        report = json.loads((stored / name).read_text(encoding="utf-8"))
        assert report["machine"].get("device") == ("Fast Card" if "cuda" in words else None)
        assert report["command"].endswith("--device cuda") == ("cuda" in words)
    assert [device.type for device in one_row] == ["cuda", "cpu", "cpu"]
    assert sorted(path.name for path in stored.iterdir()) == ["bench-cuda.json", "bench.json"]


@pytest.mark.usefixtures("one_row")
def test_nothing_is_written_unless_asked(stored: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bench", "--prompts", "1"])
    assert result.exit_code == 0, result.output
    assert "Speedup" in result.stdout
    assert list(stored.iterdir()) == []
    asked = tmp_path / "mine.json"
    assert CliRunner().invoke(app, ["bench", "--prompts", "1", "-o", str(asked)]).exit_code == 0
    assert json.loads(asked.read_text(encoding="utf-8"))["rows"] == [row_of().as_data()]
    assert list(stored.iterdir()) == [asked]


@pytest.mark.usefixtures("one_row")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--store", "-o", "x.json"], "--store and -o name two places for the same figures: choose one of them"),
        (["--store", "--synthetic-acceptance", "0.5"], "the site does not show a forced acceptance: leave out --store"),
    ],
)
def test_a_place_that_cannot_be_is_refused_before_anything_is_measured(
    stored: Path, words: list[str], sentence: str
) -> None:
    result = CliRunner().invoke(app, ["bench", *words])
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr
    assert list(stored.iterdir()) == []


def test_rows_of_one_method_take_the_place_of_its_own(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = [method.id for method in load_taxonomy().methods if method.is_implemented][:3]
    asked = list[Sequence[str]]()

    def rows(_: Any, plan: Plan) -> list[BenchRow]:
        asked.append(plan.ids)
        return [row_of(id=id, tokens_per_pass=float(len(asked))) for id in plan.ids or (first, second, third)]

    def run(*words: str) -> Any:
        return CliRunner().invoke(app, ["bench", *words, "--store"])

    def found() -> list[tuple[str, float]]:
        report = json.loads((stored / "bench.json").read_text(encoding="utf-8"))
        assert report["command"] == "accelgen bench --prompts 1 --limit 64 --repeat 1"
        return [(row["id"], row["tokens_per_pass"]) for row in report["rows"]]

    monkeypatch.setattr(bench, "measure", rows)
    assert run("--prompts", "1").exit_code == 0
    assert found() == [(first, 1.0), (second, 1.0), (third, 1.0)]
    assert run(second, "--prompts", "1").exit_code == 0
    assert found() == [(first, 1.0), (second, 2.0), (third, 1.0)]
    for words, sentence in (
        ([second, "--prompts", "2"], "stored figures have settings"),
        ([f"{second}x"], f"did you mean {second!r}"),
        ([second, "--peers"], "do not ask which methods; name none"),
        ([second, "--synthetic-acceptance", "0.5"], "do not ask which methods; name none"),
    ):
        result = run(*words)
        assert (result.exit_code, result.stdout) == (2, "")
        assert sentence in result.stderr
    assert asked == [[], [second]]
    assert found() == [(first, 1.0), (second, 2.0), (third, 1.0)]


@pytest.mark.usefixtures("stored", "one_row")
def test_an_installed_package_stores_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "CHECKOUT", False)
    result = CliRunner().invoke(app, ["bench", "--store"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "this is an installed package: use -o FILE" in result.stderr


def test_a_broken_promise_ends_the_command_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row_of(), row_of(id="y", as_promised=False, texts=1, identical_texts=0)]
    monkeypatch.setattr(bench, "measure", lambda *_: rows)
    result = CliRunner().invoke(app, ["bench", "--prompts", "1"])
    assert result.exit_code == 1
    assert "accelgen: not the promised output: y (greedy)" in result.stderr
    assert "0 of 1; 1 not as promised" in result.stdout


@pytest.mark.parametrize("width", [60, 100, 160])
def test_a_table_breaks_no_word_and_stays_within_the_screen(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    long = row_of(
        id="a-method-with-a-very-long-name", setting="temperature 0.8, rollback 1.0, gamma 8", mean_layers=3.5
    )
    monkeypatch.setattr(bench, "measure", lambda *_: [long, row_of()])
    monkeypatch.setenv("COLUMNS", str(width))
    text = CliRunner().invoke(app, ["bench", "--prompts", "1"]).stdout
    table = text[: text.index("torch")].splitlines()[:-1]
    assert all(len(line) <= width for line in table)
    words = set(" ".join(table).split())
    assert {"a-method-with-a-very-long-name", "temperature", "rollback", "Speedup", "Tokens"} <= words
    wide = "temperature 0.8, rollback 1.0, gamma 8" in text
    assert wide == (width > 60)  # what a row is takes the room that is left


def test_different_measurements_are_not_mixed() -> None:
    for words in (["--peers", "--costs"], ["--costs", "--synthetic-acceptance", "0.5"]):
        result = CliRunner().invoke(app, ["bench", *words])
        assert (result.exit_code, result.stdout) == (2, "")
        assert "are different measurements: choose one of them" in result.stderr


def test_other_devices_have_a_dated_table_and_none_leaves_no_trace() -> None:
    known = load_taxonomy()
    row = row_of(id=known.methods[0].id, tokens_per_pass=2.0, **vars(spread([1.5]))).as_data()
    found = {"command": "accelgen bench --device cuda", "versions": {"torch": "2.0"}, "date": "2026-01-02",
             "machine": {"device": "Fast Card"}, "rows": [row]}  # fmt: skip
    results = Results(devices={"bench-cuda.json": found})
    text = fragments(known, results)["devices"]
    assert "## On Fast Card, 2026-01-02" in text
    assert "1.50" in text
    assert "accelgen bench --device cuda" in text
    assert "downloads/bench-cuda.json" in text
    assert "downloads/bench-cuda.json" in pages(known, results)
    assert fragments(known, Results())["devices"] == "\n"


def test_texts_together_stand_apart_from_a_text_alone() -> None:
    """A batch is compared with its texts one after another, so its gain is no gain of the same kind."""
    known = load_taxonomy()
    alone, together = (
        next(method for method in known.methods if method.call is call) for call in (Call.CONTINUE, Call.BATCH)
    )
    rows = [
        row_of(id=method.id, **vars(spread([gain]))).as_data() for method, gain in ((alone, 1.25), (together, 3.75))
    ]
    found = {"command": "", "versions": {"torch": "2.0"}, "date": "2026-01-02", "machine": {}, "rows": rows}
    _, text, batches, *_ = fragments(known, Results(bench=found))["measured"].split("\n## ")
    assert text.startswith("Continuing a text")
    assert batches.startswith("Several texts at once")
    assert "1.25" in text
    assert "3.75" not in text
    assert "3.75" in batches
    for workload in Workload:
        assert "here" not in guide.figures(together, workload, Results(bench=found))
    assert "1.25" in guide.figures(alone, Workload.ONE_STREAM, Results(bench=found))


# ---- the command, on a trial method of every kind -----------------------------------------------------------------


@pytest.mark.usefixtures("trial_zoo")
def test_every_method_gets_a_row_for_each_of_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = [trial(call) for call in TRIALS]
    planned = trial(Call.CONTINUE, id="never-written", implementation={"status": "planned"})
    monkeypatch.setattr(commands, "load_taxonomy", lambda: taxonomy(*methods, planned))
    output = tmp_path / "bench.json"
    words = ["bench", "--prompts", "2", "--limit", "4", "-o", str(output)]
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(output.read_text(encoding="utf-8"))
    assert report == json.loads(result.stdout)
    assert report["command"] == "accelgen bench --prompts 2 --limit 4 --repeat 1"
    wanted = itertools.chain.from_iterable([method.id] * len(settings_of(method)) for method in methods)
    assert [row["id"] for row in report["rows"]] == list(wanted)
    assert all(row["pairs"] == 2 and row["speedup"] > 0 for row in report["rows"])
    assert bench.pairs_of(taxonomy(*methods), Plan(2, 4)) == sum(row["pairs"] for row in report["rows"])


@pytest.mark.parametrize("method", [m for m in load_taxonomy().methods if m.is_implemented], ids=lambda m: m.id)
def test_every_implemented_method_has_its_stored_rows(method: Any) -> None:
    stored = json.loads((commands.RESULTS / "bench.json").read_text(encoding="utf-8"))
    found = [row for row in stored["rows"] if row["id"] == method.id]
    assert len(found) == len(settings_of(method)), f"{method.id} is not measured: run `accelgen bench --store`"
