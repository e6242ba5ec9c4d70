"""The zoo's models as plain checkpoints: transformers loads them and computes what this project's decoder does."""

import dataclasses
import json
import socket
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from accelgen.checkpoints import writing as exporting
from accelgen.checkpoints.writing import export, write_checkpoint
from accelgen.cli import app
from reference_impls import zoo
from reference_impls.core.from_transformers import from_transformers
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel

transformers = pytest.importorskip("transformers")

NAMES = ("target", "drafter")
SHAPE = Shape(vocab=2048, dim=16, layers=3, heads=4, kv_heads=2, head_dim=8, hidden=24, tied=False, rope_theta=5000.0)
ODD = ["ünïcödé → 🎉\n\ttabs", " a  b . , 's n't", "<|endoftext|>import os", "\r\n"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    assert export(folder) == [folder / name for name in NAMES]
    return folder


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_):
        raise AssertionError("a checkpoint in a folder needs no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", NAMES)
def test_transformers_computes_the_same_logits(exported, name):
    ours, theirs = zoo.load(name), transformers.AutoModelForCausalLM.from_pretrained(exported / name)
    assert type(theirs).__name__ == "LlamaForCausalLM"
    assert theirs.dtype == torch.float32
    exact = zoo.load(name).double()
    exact.forget_angles()
    apart, rounding = 0.0, 0.0
    with torch.inference_mode():
        for text in zoo.prompts()[:8]:
            tokens = zoo.encode(text)
            own = ours(tokens)
            apart = max(apart, float((own - theirs(torch.tensor([tokens])).logits[0]).abs().max()))
            rounding = max(rounding, float((own - exact(tokens)).abs().max()))
    # float32 moves our own logits by `rounding`, and theirs, summed in another order, by about as much; doubled
    # because both are the worst of a few prompts. Logits reach 20 here; a wrong weight moves them by more than 0.1.
    assert apart <= 4 * rounding < 4e-3


@pytest.mark.parametrize("name", NAMES)
def test_the_way_back_gives_the_same_tensors(exported, name):
    theirs = transformers.AutoModelForCausalLM.from_pretrained(exported / name)
    ours, back = zoo.load(name).state_dict(), from_transformers(theirs).state_dict()
    assert ours.keys() == back.keys()
    assert all(torch.equal(ours[key], back[key]) for key in ours)


def tiny(**more) -> LanguageModel:
    return LanguageModel(dataclasses.replace(SHAPE, **more)).eval().requires_grad_(False)


@pytest.mark.parametrize("tied", [True, False])
def test_grouped_queries_and_a_head_of_its_own_come_through(tmp_path, tied):
    ours = tiny(tied=tied)
    for name, parameter in ours.named_parameters():
        if "norm" in name:  # made as ones, which would hide a mix-up
            torch.nn.init.normal_(parameter, mean=1.0, std=0.2)
    write_checkpoint(tmp_path / "model", ours)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    back = from_transformers(theirs)
    assert all(torch.equal(value, back.state_dict()[key]) for key, value in ours.state_dict().items())
    tokens = list(range(40, 70))
    with torch.inference_mode():
        wanted = ours(tokens)
        torch.testing.assert_close(theirs(torch.tensor([tokens])).logits[0], wanted, rtol=0, atol=1e-5)
        assert wanted.abs().max() > 1  # so that 1e-5 is 50 to 100 times the rounding of float32


@pytest.mark.usefixtures("offline")
def test_its_tokenizer_is_the_zoo_s(exported):
    theirs = transformers.AutoTokenizer.from_pretrained(exported / "target")
    for text in [*zoo.prompts(), *ODD]:
        tokens = zoo.encode(text)
        assert theirs(text)["input_ids"] == tokens
        assert theirs.decode(tokens) == zoo.decode(tokens)
    assert theirs.eos_token_id == theirs.bos_token_id == theirs.pad_token_id == 0


@pytest.fixture
def heard(caplog):
    """What transformers says, which keeps its log to itself by default."""
    transformers.utils.logging.enable_propagation()
    yield caplog
    transformers.utils.logging.disable_propagation()


def test_generate_needs_no_advice(exported, heard):
    theirs = transformers.AutoModelForCausalLM.from_pretrained(exported / "drafter")
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported / "drafter")
    prompt = tokenizer("def read_lines(path):", return_tensors="pt")
    found = theirs.generate(**prompt, max_new_tokens=6)
    assert found.shape == (1, prompt["input_ids"].shape[1] + 6)
    ends = theirs.generation_config
    assert ends.eos_token_id == ends.bos_token_id == ends.pad_token_id == 0  # where a text ends, generate stops
    assert [record.message for record in heard.records if record.name.startswith("transformers")] == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"qkv_bias": True}, "biases in its attention"),
        ({"qk_norm": True}, "normalised queries and keys"),
        ({"rope_rates": (1.0, 0.1, 0.01, 0.002)}, "scaled rotary angles"),
        ({"rope_scale": 1.5}, "scaled queries and keys"),
    ],
)
def test_what_a_llama_does_not_have_is_refused(more, words):
    with pytest.raises(ValueError, match=f"a model with {words} is no plain Llama"):
        exporting.tensors(tiny(**more))


def test_angles_that_are_spelt_out_but_plain_are_no_obstacle(exported):
    back = from_transformers(transformers.AutoModelForCausalLM.from_pretrained(exported / "drafter"))
    assert exporting.tensors(back).keys()


# ---- the command --------------------------------------------------------------------------------------------------


def accelgen(*words):
    return CliRunner().invoke(app, ["zoo", "export", *map(str, words)])


def refused(*words) -> str:
    result = accelgen(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_the_command_writes_target_and_drafter(tmp_path):
    result = accelgen(tmp_path / "made")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["drafter", "target"]
    names = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    for name in NAMES:
        folder = tmp_path / "made" / name
        assert f"wrote {folder}" in result.stderr
        assert sorted(path.name for path in folder.iterdir()) == names
    config = json.loads((tmp_path / "made" / "target" / "config.json").read_text(encoding="utf-8"))
    assert config["num_hidden_layers"] == 24


def test_a_second_export_may_add_a_model_but_replaces_none(tmp_path):
    assert accelgen(tmp_path, "drafter", "drafter").exit_code == 0
    before = (tmp_path / "drafter" / "config.json").stat().st_mtime_ns
    assert f"{tmp_path / 'drafter'} is not empty" in refused(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["drafter"]
    assert (tmp_path / "drafter" / "config.json").stat().st_mtime_ns == before
    (tmp_path / "drafter-boosted").mkdir()  # an empty folder is no obstacle
    assert accelgen(tmp_path, "drafter-boosted").exit_code == 0
    assert (tmp_path / "drafter-boosted" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["drafter", "draftr"], "the zoo has no model 'draftr'"),
        (["drafter", "translation-ar"], "'translation-ar' is no language model of its own"),
        (["rest-datastore"], "these are: target, drafter, drafter-boosted"),
    ],
)
def test_a_name_that_is_no_language_model_leaves_nothing_behind(tmp_path, names, words):
    assert words in refused(tmp_path / "made", *names)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_leaves_nothing_behind(tmp_path):
    (tmp_path / "file").touch()
    assert "is a file; name a directory" in refused(tmp_path / "file")
    assert "does not exist; create it first" in refused(tmp_path / "no" / "where")
    (tmp_path / "drafter").touch()
    assert f"{tmp_path / 'drafter'} is a file" in refused(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drafter", "file"]


@pytest.mark.parametrize("exists", [True, False])
def test_a_failure_half_way_leaves_nothing_behind(tmp_path, monkeypatch, exists):
    folder = tmp_path / "made"
    if exists:
        folder.mkdir()

    def full(path, model):
        write_checkpoint(path, model)
        if path.name == "drafter":
            raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(exporting, "write_checkpoint", full)
    assert "no space left on device" in refused(folder)
    assert folder.exists() == exists
    assert [path for path in tmp_path.rglob("*") if path != folder] == []
