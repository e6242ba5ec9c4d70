"""The shipped translation models: how good they are on held-out sentences, and that their recipes run."""

import dataclasses
from pathlib import Path

import pytest
import torch

from accelgen.training import translation
from reference_impls import zoo
from reference_impls.baselines.translation import generate as translate
from reference_impls.core.sampling import Sampler
from reference_impls.zoo.tasks import END, task

COUNT = 50


@pytest.mark.parametrize("name", ["translation-ar", "spelling-ar"])
def test_the_autoregressive_models_are_nearly_always_right(name: str) -> None:
    assert translation.measure(name, zoo.load(name), COUNT)["greedy"]["exact_match"] >= 0.98


def test_more_iterations_translate_better() -> None:
    found = translation.measure("translation-masked", zoo.load("translation-masked"), COUNT)
    one, four, ten = (found[f"iterations {n}"]["exact_match"] for n in (1, 4, 10))
    assert one >= 0.7
    assert one < four
    assert four >= 0.9
    assert ten >= 0.96
    assert found["iterations 10"]["right_length"] >= 0.98


def test_a_teacher_that_chooses_among_plans_finds_better_ones() -> None:
    model, teacher = zoo.load("translation-fertility"), zoo.load("translation-ar")
    found = translation.measure("translation-fertility", model, COUNT, teacher)
    right = {key: found[key]["exact_match"] for key in translation.PLAN_READINGS}
    assert min(right["likeliest plan"], right["average plan"]) >= 0.75
    assert right["10 plans"] >= right["likeliest plan"]
    assert right["100 plans, temperature 3"] >= max(0.9, right["likeliest plan"] + 0.02)


def test_a_chain_makes_words_agree_that_were_predicted_apart() -> None:
    model, teacher = zoo.load("translation-crf"), zoo.load("translation-ar")
    found = translation.measure("translation-crf", model, COUNT, teacher)
    right = {key: found[key]["exact_match"] for key in translation.CHAIN_READINGS}
    for lengths in ("length known", "5 lengths"):
        assert right[f"chain, {lengths}"] >= 0.9
        assert right[f"chain, {lengths}"] >= right[f"logits alone, {lengths}"] + 0.1
    assert found["chain, length known"]["right_length"] == 1
    assert right["chain, 1 length"] < right["chain, 5 lengths"]  # most lengths are not the source's and a constant


def test_more_iterations_mix_the_spellings_less() -> None:
    found = translation.measure("spelling-masked", zoo.load("spelling-masked"), COUNT)
    one, ten = (found[f"iterations {n}"] for n in (1, 10))
    assert one["mixed"] > 0.5
    assert ten["mixed"] < 0.05
    assert ten["exact_match"] > one["exact_match"]


@pytest.mark.parametrize("name", translation.RECIPES)
def test_the_manifest_says_how_good_a_model_is_and_from_what(name: str) -> None:
    entry = zoo.manifest()[name]
    assert entry["quality"]["n"] >= 1000
    assert set(entry["recipe"]) == {field.name for field in dataclasses.fields(translation.Recipe)}
    assert "num2words" in entry["corpus"]["number words"]


def test_the_batched_translations_are_those_of_translate() -> None:
    model, own = zoo.load("translation-ar"), task("lite")
    sources = [source for source, _ in own.pairs(12, held_out=True)]
    for source, found in zip(sources, translation.translate_all(model, sources, own.longest), strict=True):
        assert translate(model, source, own.longest, sampler=Sampler(0), eos=END).tokens == [*found, END]


def test_a_recipe_runs_from_nothing_and_twice_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, recipe in translation.RECIPES.items():
        monkeypatch.setitem(translation.RECIPES, name, dataclasses.replace(recipe, pairs=40, batch=4))
    monkeypatch.setattr(translation, "COUNT", 4)
    state = torch.get_rng_state()
    for name in ("translation-ar", "translation-fertility", "translation-masked"):
        first, second = (translation.train(name, folder=tmp_path, steps=3) for _ in range(2))
        assert first == second
    assert "translation-ar, SHA-256" in first["corpus"]["teacher"]
    assert torch.equal(state, torch.get_rng_state())
    assert translation.quality("translation-masked", folder=tmp_path) == second["quality"]
    with pytest.raises(zoo.ZooError, match="translation-ar"):
        translation.train("translation-masked", folder=tmp_path / "empty", steps=3)
