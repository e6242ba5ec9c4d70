"""Every recipe runs from nothing in a small world, and twice the same; parts are trained in order of need."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

from accelgen.cli import app
from accelgen.training import making, sentence_pairs, staleness, storing
from accelgen.training.corpora import Corpus
from accelgen.training.fit import fit, schedule
from accelgen.training.language import Growth, Phase
from accelgen.training.parts import Windows, learn
from accelgen.training.recipe import Part, Recipe, Settings
from accelgen.training.recipes.rest import Storing
from accelgen.training.recipes.self_speculative_decoding import Search
from accelgen.training.shelf import Shelf
from reference_impls import zoo
from reference_impls.core.layers import Shape
from reference_impls.zoo import storage
from reference_impls.zoo.adapters import Adapters
from reference_impls.zoo.tasks import side_of, task

SMALL = Shape(vocab=300, dim=16, layers=2, heads=2, kv_heads=2, head_dim=8, hidden=24)
TEXT = "def double(value):\n    return 2 * value\n\n"


class SmallShelf(Shelf):
    """Little text, and two prompts a side."""

    def __init__(self, folder: Path) -> None:
        held_out = {kind: [TEXT * 60] for kind in ("library", "library_tests", "packages")}
        super().__init__(folder, lambda _: Corpus([TEXT * 60] * 9, [TEXT * 60], held_out, held_out))

    def prompts(self, side: str = "test", count: int | None = None) -> list[list[int]]:
        """Other ones on each side."""
        texts = {"test": "def double(", "development": "return 2"}
        return [list(self.tokenizer.encode(texts[side]).ids)] * min(2, count or 2)


def shortened(settings: Any) -> Any:
    """A recipe of a moment."""
    match settings:
        case Growth():
            depths = (2, 2) if settings.shape else (3, 4)
            phases = tuple(Phase(n, 30 if n == 2 else 2, 6, 32, (6e-3, 1e-2), 0.5, 2, 0, n // 4 / 10) for n in depths)
            return replace(settings, shape=settings.shape and SMALL, phases=phases, exits=settings.exits and (1, 2))
        case Windows():
            own = {"texts": 8} if hasattr(settings, "texts") else {}  # that the target writes to learn from
            return replace(settings, steps=2, batch=2, length=32, **own)
        case sentence_pairs.Pairs():
            return replace(settings, steps=3, pairs=40, batch=4)
        case Search():
            return replace(settings, rounds=2, texts=2, limit=4)
        case Storing():
            return replace(settings, tokens=400)
    return settings


Made = tuple[Shelf, dict[str, Recipe[Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """A shelf on which every recipe was made once, these small recipes, and the manifest entries."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sentence_pairs, "COUNT", 4)
        patch.setattr(sentence_pairs, "TRIALS", 1)
        for module in {sys.modules[recipe.measure.__module__] for recipe in making.recipes().values()}:
            if hasattr(module, "LIMIT"):
                patch.setattr(module, "LIMIT", 8)  # tokens of the texts that figures are counted in
        shelf = SmallShelf(tmp_path_factory.mktemp("shelf"))
        small = {name: replace(each, settings=shortened(each.settings)) for name, each in making.recipes().items()}
        state = torch.get_rng_state()
        entries = {name: making.make(recipe, shelf) for name, recipe in small.items()}
        assert torch.equal(state, torch.get_rng_state())
        yield shelf, small, entries


@pytest.mark.parametrize("name", making.recipes())
def test_a_recipe_makes_its_part(name: str, made: Made) -> None:
    shelf, small, entries = made
    model, entry, recipe = shelf.load(name), entries[name], small[name]
    assert entry == shelf.facts(name)
    assert entry["parameters"] == sum(value.numel() for value in model.state_dict().values())
    assert set(entry["made_from"]) == {"recipe", *recipe.needs}
    assert entry["minutes"] >= 0
    assert staleness.reasons(recipe, shelf.folder) == []
    assert set(entry["recipe"]) >= {"seed"}
    fresh = recipe.measure(shelf, recipe.settings, model)
    assert {key: fresh[key] for key in fresh if key not in ("milliseconds", "sets")} == {
        key: entry["quality"][key] for key in fresh if key not in ("milliseconds", "sets")
    }  # but for what is timed


def test_the_same_seed_makes_the_same_weights_and_another_others(made: Made, tmp_path: Path) -> None:
    _, small, entries = made
    drafter = small["drafter"]
    again = making.make(drafter, SmallShelf(tmp_path))
    assert again["sha256"] == entries["drafter"]["sha256"]
    other = making.make(replace(drafter, settings=replace(drafter.settings, seed=1)), SmallShelf(tmp_path))
    assert other["sha256"] != again["sha256"]
    assert entries["drafter"]["quality"]["held_out"]["library"]["nats_per_token"] < 5.7  # a uniform guess has 5.70


def test_what_is_missing_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(zoo.ZooError, match=r"tokenizer.json is missing|the zoo has no model"):
        making.train("target", folder=tmp_path, steps=1)
    with pytest.raises(zoo.ZooError, match="no model 'nothing' that a recipe makes; recipes make "):
        making.train("nothing", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_recipes_stand_in_order_of_need_and_their_needs_exist() -> None:
    seen: set[str] = set()
    for name, recipe in making.recipes().items():
        assert seen >= set(recipe.needs)
        seen.add(name)


def test_steps_are_refused_where_there_are_none() -> None:
    with pytest.raises(ValueError, match="has no steps: leave out --steps"):
        Settings().shortened(3)
    assert Windows().shortened(3).steps == 3


class Watched(SmallShelf):
    """Notes which sides are read, and by what part of a recipe."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.read_sides: set[str] = set()

    def rows(self, library: int = 6) -> torch.Tensor:
        """Training text."""
        self.read_sides.add("train")
        return super().rows(library)

    def texts(self, side: Any) -> Any:
        """Held-out text."""
        self.read_sides.add(side)
        return super().texts(side)

    def prompts(self, side: str = "test", count: int | None = None) -> list[list[int]]:
        """Prompts."""
        self.read_sides.add(side)
        return super().prompts(side, count)


@pytest.mark.parametrize(
    "name", [name for name, each in making.recipes().items() if isinstance(each.settings, Windows)]
)
def test_a_part_learns_on_the_training_side_and_is_measured_on_the_others(name: str, made: Made) -> None:
    shelf, small, _ = made
    recipe, watched = small[name], Watched(shelf.folder)
    part = recipe.train(watched, recipe.settings).module
    assert watched.read_sides == {"train"}
    watched.read_sides.clear()
    recipe.measure(watched, recipe.settings, part.half().float().eval())
    assert "test" in watched.read_sides
    assert "train" not in watched.read_sides


def test_no_figure_comes_from_what_was_learnt(tmp_path: Path) -> None:
    shelf = SmallShelf(tmp_path)
    with pytest.raises(ValueError, match="no held-out side"):
        shelf.texts("train")
    with pytest.raises(ValueError, match="no figure comes from sentences that were trained on"):
        sentence_pairs.examples(zoo_task(), "train", 1)
    found = {
        side: {each.source for each in sentence_pairs.examples(zoo_task(), side, 40)}
        for side in ("test", "development")
    }
    learnt = {
        zoo_task().decode(source) for source, _ in sentence_pairs.lessons(shelf, sentence_pairs.Pairs(pairs=2_000))
    }
    assert not found["test"] & found["development"]
    assert not (found["test"] | found["development"]) & learnt
    assert {side_of(source) for source in found["test"]} == {"test"}
    assert {side_of(each.source) for each in sentence_pairs.examples(zoo_task(), count=20)} == {"test"}


def zoo_task() -> Any:
    return task("lite")


def test_a_part_learns_from_the_windows_of_the_shelf(made: Made) -> None:
    shelf, _, _ = made
    part, seen = nn.Linear(2, 1), list[tuple[int, ...]]()

    def loss(x: torch.Tensor, step: int) -> torch.Tensor:
        seen.append((step, *x.shape))
        assert set(x.flatten().tolist()) <= set(shelf.rows().tolist())
        return part.weight.square().sum()

    learn(shelf, Windows(steps=3, batch=2, length=5), part, loss)
    assert seen == [(step, 2, 6) for step in range(3)]


# ---- the loop -----------------------------------------------------------------------------------------------------


def test_the_rates_rise_stay_and_fall() -> None:
    course = [schedule(step, 100, decay=0.5, warm_up=10) for step in range(100)]
    assert course[0] == 0.1
    assert course[9:51] == [1.0] * 42
    assert course[99] == pytest.approx(0.02)
    assert schedule(99, 100, decay=0.0) == 1.0


def test_a_loss_that_is_not_finite_stops_the_training() -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    with pytest.raises(FloatingPointError, match="at step 0"):
        fit([weight], lambda _: (weight * float("nan")).sum(), 3)


# ---- what is stale, with made-up recipes ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Constant(Settings):
    """A part that is one number everywhere."""

    value: float = 0.0


def train_constant(_shelf: Shelf, settings: Constant) -> Part:
    """Set all weights."""
    part = Part.of(Adapters, shape=SMALL, rank=1)
    for parameter in part.module.parameters():
        parameter.detach().fill_(settings.value)
    return part


def train_otherwise(_shelf: Shelf, settings: Constant) -> Part:
    """Set all weights to something else."""
    part = Part.of(Adapters, shape=SMALL, rank=1)
    for parameter in part.module.parameters():
        parameter.detach().fill_(settings.value + 1)
    return part


def trial(name: str, value: float = 0.0, *needs: str, train: Callable[..., Part] = train_constant) -> Recipe[Any]:
    return Recipe(name, Constant(value=value), train, lambda *_: {"right": 1.0}, needs)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """Three parts, each standing on the one before, and one that stands alone."""
    shelf = SmallShelf(tmp_path)
    for recipe in (trial("a"), trial("b", 0, "a"), trial("c", 0, "b"), trial("alone")):
        making.make(recipe, shelf)
    return shelf


def record(shelf: Shelf, **minutes: float | None) -> None:
    for name, value in minutes.items():
        storing.update(name, shelf.facts(name) | {"minutes": value}, folder=shelf.folder)


def test_a_part_is_stale_when_its_recipe_or_what_it_stands_on_changed(shelf: Shelf) -> None:
    assert staleness.reasons(trial("b", 0, "a"), shelf.folder) == []
    assert staleness.reasons(trial("b", 1, "a"), shelf.folder) == ["its recipe changed"]
    assert staleness.reasons(trial("b", 0, "a", train=train_otherwise), shelf.folder) == ["its recipe changed"]
    assert staleness.reasons(trial("b", 0, "a", "alone"), shelf.folder) == ["alone changed"]
    making.make(trial("a", 5), shelf)
    assert staleness.reasons(trial("b", 0, "a"), shelf.folder) == ["a changed"]
    assert staleness.reasons(trial("c", 0, "b"), shelf.folder) == []
    assert staleness.reasons(trial("d"), shelf.folder) == ["not trained yet"]
    (shelf.folder / "c.safetensors").unlink()
    assert staleness.reasons(trial("c", 0, "b"), shelf.folder) == ["not trained yet"]


def test_all_that_is_stale_is_trained_in_order_of_need(shelf: Shelf) -> None:
    record(shelf, a=0.1, b=0.1, c=0.1)
    known = making.in_order([trial("c", 0, "b"), trial("b", 0, "a"), trial("alone"), trial("a", 5)])
    said: list[str] = []
    assert making.train_stale(known.values(), shelf, minutes=5, report=said.append) == {}
    assert said == ["a: its recipe changed; it takes 0.1 minutes", "b: a changed; it takes 0.1 minutes"]
    assert shelf.load("a").left[0].eq(5).all()  # b came out the same, so c still stands on it
    assert making.train_stale(known.values(), shelf, minutes=5, report=said.append) == {}
    assert len(said) == 2


def test_nothing_is_begun_that_the_budget_does_not_hold(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    record(shelf, a=3, b=0.1, alone=2)
    known = making.in_order([trial("c", 0, "b"), trial("b", 0, "a"), trial("a", 5), trial("alone", 5)])
    said: list[str] = []
    left = making.train_stale(known.values(), shelf, minutes=2.5, report=said.append)
    assert left == {
        "a": "its recipe changed; it takes 3 minutes, and 2.5 are left",
        "b": "stands on a",
        "c": "stands on b",
    }
    assert said == ["alone: its recipe changed; it takes 2 minutes"]
    record(shelf, a=1, alone=2)
    clock = iter(range(0, 10_000, 40))  # every look at it is 40 seconds later
    monkeypatch.setattr(making.time, "monotonic", lambda: float(next(clock)))
    known = making.in_order([trial("a", 6), trial("alone", 6)])
    left = making.train_stale(known.values(), shelf, 4, report=said.append)
    assert left == {"alone": "its recipe changed; it takes 2 minutes, and 1.3 are left"}


def test_a_part_without_a_recorded_time_is_left(shelf: Shelf) -> None:
    record(shelf, alone=None)
    left = making.train_stale([trial("alone", 5)], shelf, 100, report=lambda _: None)
    assert left == {"alone": "its recipe changed; how long it takes is not recorded, so train it by its name"}


def test_a_part_may_be_kept_when_only_the_form_changed(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = trial("b", 1, "a")
    monkeypatch.setattr(making, "recipes", lambda: {"b": changed})
    before = shelf.facts("b")
    making.keep("b", shelf.folder)
    assert staleness.reasons(changed, shelf.folder) == []
    assert shelf.facts("b") | {"made_from": None} == before | {"made_from": None}
    with pytest.raises(zoo.ZooError, match="no model 'alone' that a recipe makes"):
        making.keep("alone", shelf.folder)


def test_a_docstring_or_a_comment_does_not_make_a_part_stale() -> None:
    def one(a: int) -> int:
        """Says this."""
        return a + 1

    def two(a: int) -> int:
        """Says that."""
        # and that
        return a + 1

    def three(a: int) -> int:
        """Says this."""
        return a + 2

    texts = [staleness.written(each).replace(each.__name__, "f") for each in (one, two, three)]
    assert texts[0] == texts[1] != texts[2]


def test_a_recipe_is_followed_into_the_method_and_the_loop_but_not_into_the_core() -> None:
    found = {f"{each.__module__}.{each.__qualname__}" for each in staleness.reached(making.recipe_of("target").train)}
    assert "accelgen.training.fit.fit" in found
    assert "accelgen.training.language.exit_loss" in found
    assert "reference_impls.early_exiting.layerskip.loss" in found
    assert not [name for name in found if name.startswith(("reference_impls.core", "accelgen.training.shelf"))]


# ---- the command --------------------------------------------------------------------------------------------------


def accelgen(*words: str) -> Result:
    return CliRunner().invoke(app, ["zoo", *words])


def test_the_command_trains_what_is_stale_and_says_what_is_left(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    record(shelf, a=0.1, alone=9)
    known = making.in_order([trial("a", 5), trial("alone", 5), trial("new")])
    monkeypatch.setattr(making, "recipes", lambda: known)
    monkeypatch.setattr("accelgen.training.shelf.Shelf", lambda: shelf)
    result = accelgen("train", "--all", "--budget", "1")
    assert result.exit_code == 0, result.output
    assert result.stderr == "a: its recipe changed; it takes 0.1 minutes\n"
    lines = result.stdout.splitlines()
    assert lines[0] == "left:"
    assert lines[1].startswith("  alone: its recipe changed; it takes 9 minutes, and ")
    assert lines[2] == "  new: not trained yet; how long it takes is not recorded, so train it by its name"
    monkeypatch.setattr(making, "recipes", lambda: {"a": known["a"]})
    assert accelgen("train", "--all", "--budget", "1").stdout == "nothing is stale\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train"], "name one model, or leave the name out and say --all"),
        (["train", "a", "--all", "--budget", "1"], "name one model, or leave the name out and say --all"),
        (["train", "a", "--budget", "1"], "--budget belongs to --all"),
        (["train", "--all"], "--all takes a --budget in minutes"),
        (["train", "--all", "--budget", "1", "--steps", "2"], "neither --steps nor --seed"),
        (["train", "nothing"], "no model 'nothing' that a recipe makes"),
        (["measure", "nothing"], "no model 'nothing' that a recipe makes"),
        (["keep", "target", "nothing"], "no model 'nothing' that a recipe makes"),
    ],
)
def test_what_the_command_cannot_do_is_one_sentence(words: list[str], sentence: str) -> None:
    result = accelgen(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_list_shows_what_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    name, recipe = next(iter(making.recipes().items()))
    changed = replace(recipe, settings=replace(recipe.settings, seed=99))
    monkeypatch.setattr(making, "recipes", lambda: {name: changed, "new": trial("new")})
    rows = {row["name"]: row for row in json.loads(accelgen("list", "--json").stdout)}
    assert rows[name]["stale"] == ["its recipe changed"]
    assert rows["new"]["stale"] == ["not trained yet"]
    assert [row["stale"] for row in rows.values()].count(["no recipe makes it"]) == len(zoo.manifest()) - 1
    assert "stale: its recipe changed" in " ".join(accelgen("list").stdout.split())


@pytest.mark.parametrize("name", making.recipes())
def test_nothing_that_is_shipped_is_stale(name: str) -> None:
    """Train it again; or, where it would learn the same, say `accelgen zoo keep NAME`."""
    assert staleness.reasons(making.recipe_of(name), storage.WEIGHTS) == []
