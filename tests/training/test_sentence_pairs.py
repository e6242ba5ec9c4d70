"""Models that learn from pairs of sentences: how they are judged, and how good the shipped ones are."""

from __future__ import annotations

from typing import Any

import pytest

from accelgen.training import making, sentence_pairs
from accelgen.training.recipes import nart_crf, nat_fertility
from accelgen.training.shelf import Shelf
from reference_impls import zoo
from reference_impls.baselines.translation import generate as translate
from reference_impls.core.sampling import Sampler
from reference_impls.zoo.tasks import END, MASK, Task, task


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a recipe measures of its shipped part, on few sentences."""
    monkeypatch.setattr(sentence_pairs, "COUNT", 50)
    monkeypatch.setattr(sentence_pairs, "TRIALS", 1)
    shelf = Shelf()

    def measured(name: str) -> dict[str, Any]:
        recipe = making.recipe_of(name)
        return recipe.measure(shelf, recipe.settings, shelf.load(name))

    return measured


@pytest.mark.parametrize("name", ["translation-ar", "spelling-ar"])
def test_the_autoregressive_models_are_nearly_always_right(name: str, figures: Any) -> None:
    assert figures(name)["greedy"]["exact_match"] >= 0.96


def test_more_iterations_translate_better(figures: Any) -> None:
    found = figures("translation-masked")
    one, four, ten = (found[f"iterations {n}"]["exact_match"] for n in (1, 4, 10))
    assert one >= 0.7
    assert one < four
    assert four >= 0.9
    assert ten >= 0.96
    assert found["iterations 10"]["right_length"] >= 0.98


def test_a_teacher_that_chooses_among_plans_finds_better_ones(figures: Any) -> None:
    found = figures("translation-fertility")
    right = {key: found[key]["exact_match"] for key in nat_fertility.READINGS}
    assert min(right["likeliest plan"], right["average plan"]) >= 0.75
    assert right["10 plans"] >= right["likeliest plan"]
    assert right["100 plans, temperature 3"] >= max(0.9, right["likeliest plan"] + 0.02)
    assert set(found["development"]) == {"n", *nat_fertility.TRIED}


def test_a_chain_makes_words_agree_that_were_predicted_apart(figures: Any) -> None:
    found = figures("translation-crf")
    right = {key: found[key]["exact_match"] for key in nart_crf.READINGS}
    for lengths in ("length known", "5 lengths"):
        assert right[f"chain, {lengths}"] >= 0.9
        assert right[f"chain, {lengths}"] >= right[f"logits alone, {lengths}"] + 0.1
    assert found["chain, length known"]["right_length"] == 1
    assert right["chain, 1 length"] < right["chain, 5 lengths"]  # most lengths are not the source's and a constant
    assert set(found["development"]) == {"n", *nart_crf.TRIED}


def test_more_iterations_mix_the_spellings_less(figures: Any) -> None:
    found = figures("spelling-masked")
    one, ten = (found[f"iterations {n}"] for n in (1, 10))
    assert one["mixed"] > 0.5
    assert ten["mixed"] < 0.05
    assert ten["exact_match"] > one["exact_match"]


def test_the_batched_translations_are_those_of_translate() -> None:
    model, own = zoo.load("translation-ar"), task("lite")
    sources = [source for source, _ in own.pairs(12, "test")]
    for source, found in zip(sources, sentence_pairs.translate_all(model, sources, own.longest), strict=True):
        assert translate(model, source, own.longest, sampler=Sampler(0), eos=END).tokens == [*found, END]


def test_a_verdict_counts_what_is_right() -> None:
    own: Task = task("frh")
    found = sentence_pairs.examples(own, count=4)
    answers = [own.encode(each.references[0]) for each in found]
    mixed = [*answers[1][:-2], *own.encode(found[1].references[1])[-2:]]
    outputs = [answers[0], mixed, answers[2][:-1], [MASK] * len(answers[3])]
    assert own.is_mixed(mixed, found[1])
    assert sentence_pairs.verdict(own, found, outputs) == {"exact_match": 0.25, "right_length": 0.75, "mixed": 0.25}


def test_without_a_teacher_the_targets_take_every_form_and_with_one_the_teachers() -> None:
    settings, shelf, own = sentence_pairs.Pairs(pairs=30), Shelf(), task("lite")
    raw = sentence_pairs.lessons(shelf, settings)
    taught = sentence_pairs.lessons(shelf, sentence_pairs.Pairs(pairs=30, teacher="translation-ar"))
    assert raw == own.pairs(30, "train")
    assert [source for source, _ in raw] == [source for source, _ in taught]
    teacher = zoo.load("translation-ar")
    assert [target for _, target in taught] == sentence_pairs.translate_all(teacher, [s for s, _ in raw], own.longest)
    assert raw != taught


def test_a_contrast_needs_a_teacher() -> None:
    with pytest.raises(zoo.ZooError, match="spelling-ar learns from no teacher"):
        making.contrast("spelling-ar", Shelf())
