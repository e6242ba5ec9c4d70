"""Weights on disk: what is stored comes back, from its manifest entry alone, and damage is one sentence."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from accelgen.training import storing
from accelgen.training.recipe import Part
from reference_impls import zoo
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel
from reference_impls.zoo import storage
from reference_impls.zoo.skip_set import SkipSet

TINY = Shape(vocab=2048, dim=8, layers=1, heads=2, kv_heads=2, head_dim=4, hidden=12, rope_theta=500.0)


class Stranger(nn.Module):
    """A module that stands outside reference_impls."""


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder with one small model in it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        storing.save("small", Part.of(LanguageModel, shape=TINY), folder=tmp_path, recipe={"steps": 0})
    return tmp_path


def test_what_is_saved_comes_back_in_half_precision(shelf: Path) -> None:
    state = storage.load_state("small", folder=shelf)
    assert set(state) == set(LanguageModel(TINY).state_dict())
    assert all(torch.equal(value, value.half().float()) for value in state.values())
    assert storage.manifest(shelf)["small"]["recipe"] == {"steps": 0}


def test_a_part_is_built_from_its_entry_alone(shelf: Path) -> None:
    entry = storage.manifest(shelf)["small"]
    assert entry["class"] == "reference_impls.core.model:LanguageModel"
    assert entry["arguments"]["shape"] == {
        "vocab": 2048, "dim": 8, "layers": 1, "heads": 2, "kv_heads": 2, "head_dim": 4, "hidden": 12,
        "rope_theta": 500.0,
    }  # fmt: skip
    model = storage.load("small", folder=shelf)
    assert model.shape == TINY
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model([1, 2, 3]).isfinite().all()
    assert storage.load("small", folder=shelf, dtype=torch.float64).embedding.dtype == torch.float64


def test_stored_tokens_may_be_an_argument_and_stay_whole_numbers(tmp_path: Path) -> None:
    from reference_impls.speculative_decoding.rest import Datastore  # a class whose argument is what it stores

    part = Part(Datastore([40_001, 7]), {"tokens": {"stored": "tokens"}})
    storing.save("texts", part, folder=tmp_path)
    assert storage.load("texts", folder=tmp_path).tokens.tolist() == [40_001, 7]


def test_a_set_of_skipped_halves_keeps_what_was_chosen(tmp_path: Path) -> None:
    part = Part.of(SkipSet, shape=Shape(vocab=2, dim=2, layers=4, heads=1, kv_heads=1, head_dim=2, hidden=2))
    part.module.choose((0, 1), (3,))
    part.module.choose((1, 3), (0,))
    storing.save("skips", part, folder=tmp_path)
    loaded = storage.load("skips", folder=tmp_path)
    assert (loaded.attention, loaded.feed) == ((1, 3), (0,))


@pytest.mark.parametrize(
    "spelt",
    [
        None,
        "",
        "LanguageModel",
        "core.model:LanguageModel",
        "torch.nn:Linear",
        "reference_impls.core.model:nn",
        "reference_impls.core.model:Shape",
        "reference_impls.core.model:Cache",
        "reference_impls.core.model:LanguageModel()",
        "reference_impls.core.seq2seq:Block",  # stands in another module, and is only imported there
        "reference_impls.nowhere:LanguageModel",
        "reference_impls.core.model:Nothing",
        f"{__name__}:Stranger",
        "os:system",
    ],
)
def test_only_modules_of_reference_impls_are_built(shelf: Path, spelt: str | None) -> None:
    entry: dict[str, Any] = storage.manifest(shelf)["small"] | {"class": spelt}
    storing.update("small", entry, folder=shelf)
    with pytest.raises(zoo.ZooError, match=r"has to be an nn\.Module that stands in reference_impls"):
        storage.load("small", folder=shelf)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"shape": {}}, {"shape": {"vocab": 3}}, {"layers": 3}, {"shape": {"stored": "nothing"}}],
)
def test_arguments_that_do_not_fit_are_one_sentence(shelf: Path, arguments: dict[str, Any]) -> None:
    storing.update("small", storage.manifest(shelf)["small"] | {"arguments": arguments}, folder=shelf)
    with pytest.raises(zoo.ZooError, match="the weights of 'small' are not those of the class and arguments"):
        storage.load("small", folder=shelf)


def test_a_damaged_file_is_one_sentence(shelf: Path) -> None:
    path = shelf / "small.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(zoo.ZooError, match="does not match its hash"):
        storage.load("small", folder=shelf)


def test_a_missing_file_an_unknown_name_and_a_broken_manifest_are_one_sentence(shelf: Path) -> None:
    (shelf / "small.safetensors").unlink()
    with pytest.raises(zoo.ZooError, match="is missing: restore it, or train it"):
        storage.load("small", folder=shelf)
    with pytest.raises(zoo.ZooError, match="no model 'smaller'; it has small"):
        storage.load("smaller", folder=shelf)
    (shelf / "manifest.json").write_text("{")
    with pytest.raises(zoo.ZooError, match="not valid JSON"):
        storage.load("small", folder=shelf)


def test_a_file_that_is_no_safetensors_is_one_sentence(shelf: Path) -> None:
    content = b"not weights"
    (shelf / "small.safetensors").write_bytes(content)
    entry = storage.manifest(shelf)["small"] | {"sha256": hashlib.sha256(content).hexdigest()}
    storing.update("small", entry, folder=shelf)
    with pytest.raises(zoo.ZooError, match="is not a safetensors file"):
        storage.load("small", folder=shelf)
