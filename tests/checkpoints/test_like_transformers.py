"""Folders as people have them: read as transformers reads them, text for text, or refused in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from accelgen.checkpoints.adapter import TransformersModel  # noqa: E402
from accelgen.checkpoints.reading import INDEX, SINGLE, load  # noqa: E402
from reference_impls import zoo  # noqa: E402
from reference_impls.baselines.autoregressive import generate  # noqa: E402
from reference_impls.core.from_transformers import from_transformers  # noqa: E402
from reference_impls.core.sampling import Sampler  # noqa: E402
from reference_impls.speculative_decoding import llma  # noqa: E402

PROMPT, LIMIT = [5, 9, 33, 2, 17, 8, 40, 3], 16
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
SIZES = {
    "vocab_size": 2048, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.5,
}  # fmt: skip
ENDS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def made(folder: Path, seed: int = 0, **more: Any) -> Path:
    """A tiny random Llama with the zoo's tokens."""
    torch.manual_seed(seed)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**(SIZES | ENDS | more)))
    model.save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(tokenizer_object=zoo.tokenizer()).save_pretrained(folder)
    return folder


def theirs(folder: Path) -> list[int]:
    """The greedy text of transformers."""
    model, given = transformers.AutoModelForCausalLM.from_pretrained(folder), torch.tensor([PROMPT])
    text = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=LIMIT, do_sample=False)
    found: list[int] = text[0, len(PROMPT) :].tolist()
    return found


def ours(folder: Path, **options: Any) -> list[int]:
    """The greedy text of the plain loop on the checkpoint."""
    found = load(folder, **options)
    return generate(found.model, PROMPT, LIMIT, sampler=Sampler(0), eos=found.eos).tokens


def edit(path: Path, **changes: Any) -> None:
    data = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(data | changes), encoding="utf-8")


def weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    found = load_file(folder / SINGLE)
    change(found)
    save_file(found, folder / SINGLE, metadata={"format": "pt"})


@pytest.fixture(params=[{}, {"keep": True}], ids=["copy", "adapter"])
def options(request: pytest.FixtureRequest) -> dict[str, bool]:
    found: dict[str, bool] = request.param
    return found


# ---- the head and the embedding -----------------------------------------------------------------------------------


def test_a_separate_head_counts_although_the_configuration_ties_it(tmp_path: Path, options: dict[str, bool]) -> None:
    folder = made(tmp_path / "model", tie_word_embeddings=True)
    plain = ours(folder, **options)
    assert plain == theirs(folder)
    weights(folder, lambda found: found.update({HEAD: torch.randn(2048, 16)}))
    assert ours(folder, **options) == theirs(folder) != plain
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert generate(from_transformers(model), PROMPT, LIMIT, sampler=Sampler(0)).tokens == theirs(folder)


def test_a_head_that_equals_the_embedding_is_tied(tmp_path: Path) -> None:
    folder = made(tmp_path / "model", tie_word_embeddings=True)
    weights(folder, lambda found: found.update({HEAD: found[EMBEDDING].clone()}))
    assert load(folder).model.head is None
    assert ours(folder) == theirs(folder)


def test_a_head_alone_is_the_embedding_too(tmp_path: Path, options: dict[str, bool]) -> None:
    folder = made(tmp_path / "model", tie_word_embeddings=True)
    weights(folder, lambda found: found.update({HEAD: found.pop(EMBEDDING)}))
    assert ours(folder, **options) == theirs(folder)


def test_a_head_that_is_wanted_and_not_there_is_named(tmp_path: Path) -> None:
    folder = made(tmp_path / "model", tie_word_embeddings=False)
    weights(folder, lambda found: found.pop(HEAD))
    with pytest.raises(ValueError, match=f"has no weight '{HEAD}', which its config.json asks for"):
        load(folder)


# ---- which files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", ["there", "missing"])
def test_a_single_file_goes_before_an_index_that_was_left(
    tmp_path: Path, options: dict[str, bool], shards: str
) -> None:
    folder, old = made(tmp_path / "model"), made(tmp_path / "old", seed=1)
    name = "model-00001-of-00001.safetensors"
    edit(folder / INDEX, metadata={}, weight_map=dict.fromkeys(load_file(old / SINGLE), name))
    if shards == "there":
        (old / SINGLE).rename(folder / name)
    assert ours(folder, **options) == theirs(folder)


# ---- the end of a text --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
def test_every_declared_end_ends_the_text(tmp_path: Path, options: dict[str, bool], file: str) -> None:
    folder = made(tmp_path / "model")
    text = ours(folder, **options)
    assert len(text) == LIMIT
    later = next(i for i in range(6, LIMIT) if text[i] not in text[:i])
    ends = [2000, text[later]]
    if file == "config.json":
        (folder / "generation_config.json").unlink()
    edit(folder / file, eos_token_id=ends)
    assert load(folder, **options).eos == tuple(ends)
    assert ours(folder, **options) == theirs(folder) == text[: later + 1]


def test_the_generation_config_goes_before_the_config(tmp_path: Path) -> None:
    folder = made(tmp_path / "model")
    edit(folder / "config.json", eos_token_id=4)
    edit(folder / "generation_config.json", eos_token_id=[6, 7])
    assert load(folder).eos == (6, 7)
    assert transformers.AutoModelForCausalLM.from_pretrained(folder).generation_config.eos_token_id == [6, 7]


# ---- angles that change with the length ---------------------------------------------------------------------------

HALF = [1.0] * 2
GROWING = {
    "dynamic": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4},
    "longrope": {
        "rope_type": "longrope", "factor": 4.0, "rope_theta": 1e4, "short_factor": HALF, "long_factor": [4.0] * 2,
        "original_max_position_embeddings": 16,
    },
}  # fmt: skip
ORIGINAL = {"dynamic": 20, "longrope": 16}


@pytest.mark.parametrize("kind", GROWING)
def test_angles_that_grow_are_fixed_up_to_the_original_length(
    tmp_path: Path, options: dict[str, bool], kind: str
) -> None:
    """There the text is that of transformers, also where several tokens are read at once; beyond it none is begun."""
    folder = made(tmp_path / "model", rope_parameters=GROWING[kind], max_position_embeddings=20)
    model, fits = load(folder, **options).model, ORIGINAL[kind] - len(PROMPT) + 1
    text = theirs(folder)[:fits]
    assert model.shape.positions == ORIGINAL[kind]
    assert generate(model, PROMPT, fits, sampler=Sampler(0)).tokens == text
    copied = llma.generate(model, PROMPT, fits, sampler=Sampler(0), references=[text])
    assert (copied.tokens, copied.passes < fits) == (text, True)
    with pytest.raises(ValueError, match=f"the target has {ORIGINAL[kind]} positions, and 8 tokens of prompt with"):
        generate(model, PROMPT, fits + 1, sampler=Sampler(0))


def test_angles_that_grow_in_some_layers_end_the_positions_too() -> None:
    ropes = {"sliding_attention": {"rope_type": "default", "rope_theta": 1e4}, "full_attention": GROWING["dynamic"]}
    names = ["sliding_attention", "full_attention"]
    sizes = SIZES | ENDS | {"head_dim": 4, "layer_types": names, "rope_parameters": ropes}
    model = transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**sizes)).eval()
    assert TransformersModel(model).shape.positions == SIZES["max_position_embeddings"]
    with pytest.raises(ValueError, match="has 128 positions, and the text is 129 tokens long"):
        TransformersModel(model)([0], positions=torch.tensor([128]))


# ---- what is damaged ----------------------------------------------------------------------------------------------


def tokenizer(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "tokenizer.json", **changes)


def without_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "model": tokenizer(model={"type": "Nonsense", "vocab": {}}),
    "vocabulary": tokenizer(model={"type": "BPE", "vocab": ["a", "b"], "merges": []}),
    "empty": tokenizer(model={"type": "BPE", "vocab": {}, "merges": []}, added_tokens=[]),
    "pre-tokenizer": tokenizer(pre_tokenizer={"type": "Nonsense"}),
    "decoder": tokenizer(decoder={"type": "Nonsense"}),
    "normalizer": tokenizer(normalizer={"type": "Nonsense"}),
    "list": lambda folder: (folder / "tokenizer.json").write_text("[]", encoding="utf-8"),
    "config-list": lambda folder: (folder / "tokenizer_config.json").write_text("[]", encoding="utf-8"),
    "missing": without_tokenizer,
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_tokenizer_that_cannot_be_read_is_one_sentence(tmp_path: Path, options: dict[str, bool], kind: str) -> None:
    folder = made(tmp_path / "model")
    DAMAGES[kind](folder)
    with pytest.raises(ValueError, match="has no tokenizer that can be read") as found:
        load(folder, **options)
    assert "\n" not in str(found.value)
    assert str(folder) in str(found.value)


@pytest.mark.parametrize("change", [{"intermediate_size": 20}, {"vocab_size": 1000}, {"num_attention_heads": 8}])
def test_sizes_that_do_not_fit_are_one_sentence(
    tmp_path: Path, options: dict[str, bool], change: dict[str, int]
) -> None:
    folder = made(tmp_path / "model")
    edit(folder / "config.json", **change)
    with pytest.raises(ValueError, match=r"and the configuration wants|transformers cannot load it") as found:
        load(folder, **options)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("name", ["num_attention_heads", "num_hidden_layers", "num_key_value_heads", "vocab_size"])
@pytest.mark.parametrize("size", [0, -1])
def test_a_size_below_one_is_named(tmp_path: Path, options: dict[str, bool], name: str, size: int) -> None:
    folder = made(tmp_path / "model")
    edit(folder / "config.json", **{name: size})
    with pytest.raises(ValueError, match=f"config.json says that {name} is {size}; it must be at least 1"):
        load(folder, **options)
