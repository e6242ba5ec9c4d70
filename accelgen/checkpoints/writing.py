"""The zoo's language models as plain Hugging Face checkpoints, for transformers and everything that reads its folders.

The inverse of `core.from_transformers`: the same numbers, in the names and layout of `LlamaForCausalLM`. Writing needs
no transformers; that it loads there, with equal logits, is tested.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from accelgen.project.files import write_whole
from reference_impls import zoo
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel
from reference_impls.zoo.errors import ZooError
from reference_impls.zoo.storage import class_of
from reference_impls.zoo.texts import END_OF_TEXT

DEFAULT = ("target", "drafter")
ENDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}  # token 0 stands between two texts


def export(folder: Path, names: Sequence[str] = DEFAULT) -> list[Path]:
    """Write each language model to `folder`/name and return these folders; everything is written, or nothing.

    Raises ZooError for an unknown or damaged model and for a part that is no language model, ValueError for a folder
    that cannot be made or is not empty.
    """
    chosen = list(dict.fromkeys(names)) or list(DEFAULT)
    models = {name: language_model(name) for name in chosen}
    check_places(folder, chosen)
    is_new = not folder.exists()
    folder.mkdir(exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as stage:
            for name, model in models.items():
                write_checkpoint(Path(stage) / name, model)
            return [_move(Path(stage) / name, folder / name) for name in chosen]
    except BaseException:
        if is_new and not any(folder.iterdir()):
            folder.rmdir()
        raise


def language_model(name: str) -> LanguageModel:
    """A model of the zoo that continues a text by itself. Raises ZooError for any other part."""
    model = zoo.load(name)
    if not isinstance(model, LanguageModel):
        whole = ", ".join(known for known, entry in zoo.manifest().items() if class_of(known, entry) is LanguageModel)
        raise ZooError(f"{name!r} is no language model of its own, so it has no such checkpoint; these are: {whole}")
    return model


def context() -> int:
    """Tokens of the longest text that a language model of the zoo was trained on."""
    recipes = (entry["recipe"] for entry in zoo.manifest().values())
    return max(int(phase["length"]) for recipe in recipes for phase in recipe.get("phases", ()))


def check_places(folder: Path, names: Sequence[str]) -> None:
    """Raise ValueError for a place where the checkpoints cannot stand, before anything is written."""
    if not folder.resolve().parent.is_dir():
        raise ValueError(f"the directory {folder.parent} does not exist; create it first")
    for place in (folder, *(folder / name for name in names)):
        if place.exists() and not place.is_dir():
            raise ValueError(f"{place} is a file; name a directory for the checkpoints")
        if place != folder and place.is_dir() and any(place.iterdir()):
            raise ValueError(f"{place} is not empty; remove it, or name another directory")


def write_checkpoint(folder: Path, model: LanguageModel) -> None:
    """Make `folder` with a model of the zoo's vocabulary: weights, configuration, tokenizer, ends of a text."""
    folder.mkdir()
    write_whole(folder / "model.safetensors", save(tensors(model), metadata={"format": "pt"}))
    described = {
        "config.json": config(model),
        "generation_config.json": ENDS,
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **dict.fromkeys(("bos_token", "eos_token", "pad_token"), END_OF_TEXT),
            "model_max_length": context(),
            "clean_up_tokenization_spaces": False,
        },
    }
    for name, data in described.items():
        write_whole(folder / name, json.dumps(data, indent=2) + "\n")
    write_whole(folder / "tokenizer.json", zoo.tokenizer().to_str(pretty=True))


def config(model: LanguageModel) -> dict[str, Any]:
    """The content of `config.json`. The angle of the rotary embedding stands where versions 4 and 5 look for it."""
    shape, dtype = model.shape, str(model.embedding.dtype).removeprefix("torch.")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab,
        "hidden_size": shape.dim,
        "intermediate_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "rms_norm_eps": shape.eps,
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "max_position_embeddings": context(),
        "tie_word_embeddings": shape.tied,
        "dtype": dtype,
        "torch_dtype": dtype,
        **ENDS,
    }


def tensors(model: LanguageModel) -> dict[str, Tensor]:
    """The weights under the names of `LlamaForCausalLM`, its projections apart and [out, in]. Raises ValueError."""
    shape, state = model.shape, {name: value.detach() for name, value in model.state_dict().items()}
    check_shape(shape)
    found = {"model.embed_tokens.weight": state["embedding"], "model.norm.weight": state["norm.weight"]}
    if not shape.tied:
        found["lm_head.weight"] = state["head"].T
    for layer in range(shape.layers):
        found |= _block(state, shape, f"blocks.{layer}.", f"model.layers.{layer}.")
    return {name: value.contiguous() for name, value in found.items()}


def check_shape(shape: Shape) -> None:
    """Raise ValueError for a model that `LlamaForCausalLM` does not have."""
    plain = [shape.rope_theta ** (-2 * i / shape.head_dim) for i in range(shape.head_dim // 2)]
    extras = {
        "biases in its attention": shape.qkv_bias,
        "normalised queries and keys": shape.qk_norm,
        "scaled rotary angles": any(
            not math.isclose(a, b, rel_tol=1e-6) for a, b in zip(shape.rope_rates, plain, strict=False)
        ),
        "scaled queries and keys": shape.rope_scale != 1,
    }
    if found := [what for what, has in extras.items() if has]:
        raise ValueError(f"a model with {' and '.join(found)} is no plain Llama, so it has no such checkpoint")


def _block(state: dict[str, Tensor], shape: Shape, ours: str, theirs: str) -> dict[str, Tensor]:
    """One layer, its fused projections taken apart again."""
    kv = shape.kv_heads * shape.head_dim
    q, k, v = state[f"{ours}attention.qkv"].T.split([shape.heads * shape.head_dim, kv, kv])
    gate, up = state[f"{ours}gate_up"].T.chunk(2)
    return {
        f"{theirs}input_layernorm.weight": state[f"{ours}attention_norm.weight"],
        f"{theirs}self_attn.q_proj.weight": q,
        f"{theirs}self_attn.k_proj.weight": k,
        f"{theirs}self_attn.v_proj.weight": v,
        f"{theirs}self_attn.o_proj.weight": state[f"{ours}attention.out"].T,
        f"{theirs}post_attention_layernorm.weight": state[f"{ours}feed_norm.weight"],
        f"{theirs}mlp.gate_proj.weight": gate,
        f"{theirs}mlp.up_proj.weight": up,
        f"{theirs}mlp.down_proj.weight": state[f"{ours}down"].T,
    }


def _move(stage: Path, place: Path) -> Path:
    """Put a finished folder where it belongs; an empty one may stand there."""
    if place.is_dir():
        place.rmdir()
    return stage.rename(place)
