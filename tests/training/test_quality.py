"""How parts are judged: the measures themselves, and what is shipped by them."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import pytest
import torch

from accelgen.training import making, quality
from accelgen.training.corpora import Corpus
from accelgen.training.language import grow
from accelgen.training.quality import area, distinct_trigrams, held_out_loss
from accelgen.training.shelf import Shelf
from reference_impls import zoo
from reference_impls.core.generation import Generation
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel
from reference_impls.zoo import storage

TINY = Shape(vocab=50, dim=8, layers=2, heads=2, kv_heads=2, head_dim=4, hidden=12)


def tiny() -> LanguageModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LanguageModel(TINY).eval()


def test_growing_keeps_the_function() -> None:
    with torch.inference_mode():
        model = tiny()
        deep = grow(model, 3)
        assert deep.shape.layers == 3
        assert torch.equal(model([1, 2, 3]), deep([1, 2, 3]))


def test_the_loss_is_that_of_every_token_after_the_first_of_its_window() -> None:
    model, data = tiny(), torch.arange(25) % 7
    with torch.inference_mode():
        wanted = [
            -model(data[start : start + 7].tolist()).log_softmax(-1)[i, data[start + i + 1]].item()
            for start in range(0, 24, 8)
            for i in range(7)
        ]
    assert held_out_loss(model, data, length=8) == pytest.approx(sum(wanted) / len(wanted), rel=1e-5)
    assert held_out_loss(model, data, length=8, exit_layer=1) != pytest.approx(sum(wanted) / len(wanted), rel=1e-3)


def test_figures_of_a_language_model_come_from_the_test_side(monkeypatch: pytest.MonkeyPatch) -> None:
    test, development = "def f(x):\n    return x\n" * 300, "import os\n" * 300
    shelf = Shelf(read=lambda _: Corpus([], [], {"library": [development]}, {"library": [test]}))
    with torch.random.fork_rng(devices=[]):
        model = LanguageModel(replace(TINY, vocab=2048)).eval()
    monkeypatch.setattr(quality, "generate", lambda *_, **__: Generation([1, 2, 3]))
    tokens = shelf.held_out(10**6, side="test")
    nats = held_out_loss(model, tokens, length=quality.LENGTH)
    bits = nats * len(tokens) / len(test.encode()) / math.log(2)
    found = quality.language_figures(shelf, model)["held_out"]
    assert found == {"library": {"nats_per_token": round(nats, 4), "bits_per_byte": round(bits, 4)}}


def test_distinct_trigrams_see_a_loop() -> None:
    assert distinct_trigrams([[1, 2, 3, 4, 5]]) == 1
    assert distinct_trigrams([[1, 1, 1, 1, 1]]) == pytest.approx(1 / 3)


def test_the_area_is_the_chance_to_put_a_wanted_place_first() -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        score = torch.randint(6, (15,), generator=generator) / 5
        wanted = torch.rand(15, generator=generator) < 0.4
        if 0 < wanted.sum() < 15:
            pairs = [(a, b) for a in score[wanted] for b in score[~wanted]]
            right = sum(float(a > b) + float(a == b) / 2 for a, b in pairs) / len(pairs)
            assert area(score, wanted) == pytest.approx(right)
    assert area(torch.zeros(4), torch.tensor([True, True, True, False])) == 0.5  # always "yes" is no knowledge


@pytest.mark.parametrize("name", making.recipes())
def test_every_part_that_is_shipped_loads_and_states_what_it_is(name: str) -> None:
    model, entry = zoo.load(name), zoo.manifest()[name]
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert entry["parameters"] == sum(value.numel() for value in model.state_dict().values())
    assert entry["quality"]


def test_the_zoo_is_small_and_holds_nothing_else() -> None:
    files = {path.name: path.stat().st_size for path in storage.WEIGHTS.iterdir()}
    assert set(files) == {f"{name}.safetensors" for name in making.recipes()} | {"manifest.json", "tokenizer.json"}
    assert sum(files.values()) < 40e6


def test_what_is_shipped_is_what_its_recipe_says() -> None:
    """The numbers of a recipe are those that the manifest states."""
    for name, recipe in making.recipes().items():
        stated = zoo.manifest()[name]["recipe"]
        settings = json.loads(json.dumps(asdict(recipe.settings)))
        common = settings.keys() & stated.keys()
        assert {key: settings[key] for key in common - {"phases", "tokens"}} == {
            key: stated[key] for key in common - {"phases", "tokens"}
        }


def test_the_target_is_better_than_the_drafter_and_its_exits_improve_with_depth() -> None:
    figures = {name: zoo.manifest()[name]["quality"] for name in ("target", "drafter")}
    loss = {name: found["held_out"]["library"]["nats_per_token"] for name, found in figures.items()}
    assert loss["target"] < loss["drafter"]
    exits = list(figures["target"]["exits_nats_per_token"].values())
    assert exits == sorted(exits, reverse=True)
