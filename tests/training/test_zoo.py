"""The zoo: what is shipped is complete, small, undamaged and good; and its recipes run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from accelgen.training import boosted, language, max_gram, parts, quality, recipes
from accelgen.training.fit import fit, schedule
from reference_impls import zoo
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel
from reference_impls.zoo import corpus, storage

TINY = Shape(vocab=2048, dim=8, layers=1, heads=2, kv_heads=2, head_dim=4, hidden=12)


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder with one small model in it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        storage.save("drafter", LanguageModel(TINY), folder=tmp_path, recipe={"steps": 0})
    return tmp_path


def test_what_is_saved_comes_back_in_half_precision(shelf: Path) -> None:
    state = storage.load_state("drafter", folder=shelf)
    assert set(state) == set(LanguageModel(TINY).state_dict())
    assert all(torch.equal(value, value.half().float()) for value in state.values())
    assert storage.manifest(shelf)["drafter"]["recipe"] == {"steps": 0}


def test_a_damaged_file_is_one_sentence(shelf: Path) -> None:
    path = shelf / "drafter.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(zoo.ZooError, match="does not match its hash"):
        storage.load_state("drafter", folder=shelf)


def test_a_missing_file_an_unknown_name_and_a_broken_manifest_are_one_sentence(shelf: Path) -> None:
    (shelf / "drafter.safetensors").unlink()
    with pytest.raises(zoo.ZooError, match="is missing: restore it, or train it"):
        storage.load_state("drafter", folder=shelf)
    with pytest.raises(zoo.ZooError, match="no model 'draftr'"):
        storage.load_state("draftr", folder=shelf)
    (shelf / "manifest.json").write_text("{")
    with pytest.raises(zoo.ZooError, match="not valid JSON"):
        storage.load_state("drafter", folder=shelf)


def test_a_file_that_is_no_safetensors_is_one_sentence(shelf: Path) -> None:
    content = b"not weights"
    (shelf / "drafter.safetensors").write_bytes(content)
    entry = storage.manifest(shelf)["drafter"] | {"sha256": storage.hashlib.sha256(content).hexdigest()}
    storage.update_manifest("drafter", entry, folder=shelf)
    with pytest.raises(zoo.ZooError, match="is not a safetensors file"):
        storage.load_state("drafter", folder=shelf)


@pytest.mark.parametrize("name", recipes.MODULES)
def test_every_model_loads_and_states_what_it_is(name: str) -> None:
    model = zoo.load(name)
    assert all(value.isfinite().all() for value in model.state_dict().values())
    entry = zoo.manifest()[name]
    assert entry["parameters"] == sum(value.numel() for value in model.state_dict().values())
    assert entry["recipe"]
    assert entry["quality"]


def test_the_zoo_is_small_and_holds_nothing_else() -> None:
    files = {path.name: path.stat().st_size for path in storage.WEIGHTS.iterdir()}
    assert set(files) == {f"{name}.safetensors" for name in recipes.MODULES} | {"manifest.json", "tokenizer.json"}
    assert sum(files.values()) < 40e6


def test_text_survives_the_tokenizer() -> None:
    for text in [*zoo.prompts(), "ünïcödé → 🎉\n\ttabs"]:
        tokens = zoo.encode(text)
        assert zoo.decode(tokens) == text
        assert "".join(zoo.pieces(tokens)) == text
    with pytest.raises(ValueError, match="the prompt is empty"):
        zoo.encode("")


def test_there_are_prompts_enough_and_none_twice() -> None:
    assert len(set(zoo.prompts())) == len(zoo.prompts()) >= 50


def test_the_target_is_better_than_the_drafter_and_its_exits_improve_with_depth() -> None:
    figures = {name: zoo.manifest()[name]["quality"] for name in ("target", "drafter")}
    loss = {name: found["held_out"]["library"]["nats_per_token"] for name, found in figures.items()}
    assert loss["target"] < loss["drafter"]
    exits = list(figures["target"]["exits_nats_per_token"].values())
    assert exits == sorted(exits, reverse=True)


def test_held_out_files_are_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [(f"module_{i}.py", f"text {i}") for i in range(200)]

    class File:
        def __init__(self, text: str) -> None:
            self.text = text

        def read_text(self, **_: str) -> str:
            return self.text

    monkeypatch.setattr(corpus, "library_files", lambda: ((name, File(text)) for name, text in files))
    monkeypatch.setattr(corpus, "package_files", lambda: iter(()))
    found = corpus.read_corpus(library=3)
    assert found["library"]
    assert not set(found["library"]) & set(found["train"])
    assert len(found["train"]) == 3 * (200 - len(found["library"]))


def test_growing_keeps_the_function() -> None:
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        model = LanguageModel(TINY)
        deep = language.grow(model, 3)
        assert deep.shape.layers == 3
        assert torch.equal(model([1, 2, 3]), deep([1, 2, 3]))


def test_distinct_trigrams_see_a_loop() -> None:
    assert quality.distinct_trigrams([[1, 2, 3, 4, 5]]) == 1
    assert quality.distinct_trigrams([[1, 1, 1, 1, 1]]) == pytest.approx(1 / 3)


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


@pytest.fixture
def small_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes of a few seconds: little text and small models."""
    text = "def double(value):\n    return 2 * value\n\n" * 60
    texts = {"train": [text] * 9, "library": [text], "library_tests": [text], "packages": [text]}
    for module in (language, parts, quality, boosted, max_gram):
        monkeypatch.setattr(module, "read_corpus", lambda *_, **__: {k: list(v) for k, v in texts.items()})
    monkeypatch.setattr(language, "VOCABULARY", 300)
    for module in (parts, quality):
        monkeypatch.setattr(module, "prompts", lambda: ["def double("])
    small = Shape(vocab=300, dim=16, layers=2, heads=2, kv_heads=2, head_dim=8, hidden=24)
    monkeypatch.setattr(language, "DRAFTER", small)
    monkeypatch.setattr(language, "TARGET", language.dataclasses.replace(small, layers=4))
    monkeypatch.setattr(language, "EXITS", (1, 2))
    phases = (language.dataclasses.replace(language.PHASES["target"][0], layers=n, length=32) for n in (3, 4))
    monkeypatch.setitem(language.PHASES, "target", tuple(phases))


@pytest.mark.usefixtures("small_world")
def test_every_recipe_of_the_language_models_runs(tmp_path: Path) -> None:
    first = language.train("drafter", folder=tmp_path, steps=30)
    assert first["quality"]["held_out"]["library"]["nats_per_token"] < 5.7  # a uniform guess has 5.70
    language.train("target", folder=tmp_path, steps=2)
    for name in parts.PARTS:
        entry = parts.train(name, folder=tmp_path, steps=2)
        assert parts.quality(name, folder=tmp_path) == entry["quality"]
    assert set(json.loads((tmp_path / "manifest.json").read_text())) == {"drafter", "target", *parts.PARTS}
    again = tmp_path / "again"
    assert language.train("drafter", folder=again, steps=30)["sha256"] == first["sha256"]  # same seed, same weights


@pytest.mark.usefixtures("small_world")
def test_the_second_drafter_and_the_table_stand_on_what_is_in_the_folder(tmp_path: Path) -> None:
    language.train("drafter", folder=tmp_path, steps=30)
    language.train("target", folder=tmp_path, steps=2)
    entry = boosted.train("drafter-boosted", folder=tmp_path, steps=2)
    assert boosted.quality("drafter-boosted", folder=tmp_path) == entry["quality"]
    covered = entry["quality"]["held_out_coverage"]
    assert covered["one of the two"] >= max(covered["drafter"], covered["drafter-boosted"])
    assert entry["sha256"] != storage.manifest(tmp_path)["drafter"]["sha256"]
    entry = max_gram.train("max-gram", folder=tmp_path, data=torch.tensor([1, 2, 1, 3, 1, 2, 5]))
    assert storage.load_state("max-gram", folder=tmp_path)["successor"][[1, 2, 3]].tolist() == [2, 1, 1]
    entry = max_gram.train("max-gram", folder=tmp_path)
    assert max_gram.quality("max-gram", folder=tmp_path) == entry["quality"]
    found = entry["quality"]["held_out_top_1"]
    assert found["bigram"] < found["max_gram"]  # the text repeats itself


@pytest.mark.usefixtures("small_world")
def test_a_part_learns_from_the_tokens_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    language.train("drafter", folder=tmp_path, steps=2)
    language.train("target", folder=tmp_path, steps=2)
    seen: set[int] = set()

    def loss(_target: LanguageModel, part: torch.nn.Linear, x: torch.Tensor, _step: int) -> torch.Tensor:
        seen.update(x.flatten().tolist())
        return part.weight.square().sum()

    spy = parts.Part(lambda: torch.nn.Linear(2, 1), loss, lambda *_: {}, parts.Recipe(3, batch=2, length=5))
    monkeypatch.setitem(parts.PARTS, "spy", spy)
    entry = parts.train("spy", folder=tmp_path, data=torch.full((40,), 7))
    assert seen == {7}
    assert entry["recipe"]["steps"] == 3
