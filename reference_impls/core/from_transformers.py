"""Weights of Hugging Face decoders in this project's model, with equal logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from reference_impls.core.arguments import shown
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
ROPES = ("default", "linear", "llama3", "yarn", "dynamic", "longrope")  # the last two change behind the original length

# Our tensors and theirs, which are joined and, but for the embedding, turned from [out, in] to [in, out].
TOP = {"embedding": ("model.embed_tokens.weight",), "norm.weight": ("model.norm.weight",), "head": ("lm_head.weight",)}
LAYER = {
    "attention_norm.weight": ("input_layernorm.weight",),
    "attention.qkv": tuple(f"self_attn.{x}_proj.weight" for x in "qkv"),
    "attention.bias": tuple(f"self_attn.{x}_proj.bias" for x in "qkv"),
    "attention.qk_norm": ("self_attn.q_norm.weight", "self_attn.k_norm.weight"),
    "attention.out": ("self_attn.o_proj.weight",),
    "feed_norm.weight": ("post_attention_layernorm.weight",),
    "gate_up": tuple(f"mlp.{x}_proj.weight" for x in ("gate", "up")),
    "down": ("mlp.down_proj.weight",),
}


def from_transformers(model: Any) -> LanguageModel:
    """Copy a Llama, Mistral, Qwen2 or Qwen3 `…ForCausalLM` into a `LanguageModel` of the same dtype and device.

    SmolLM and other models in the format of these families are among them. Raises ValueError for another family and
    for a setting that this model does not have, such as attention through a window.
    """
    if not hasattr(model, "get_input_embeddings"):
        raise TypeError(f"model is {shown(model)}; it must be a …ForCausalLM of transformers")
    weight = model.get_input_embeddings().weight
    return from_weights(shape_of(model), model.state_dict(), weight.dtype, weight.device)


def shape_of(model: Any) -> Shape:
    """The shape of a model of transformers; its weights may be absent (device meta). Raises ValueError as above."""
    config = model.config
    check_config(config)
    # Made anew from the configuration: a model that was cast has cast these frequencies too.
    with torch.device("cpu"):
        rotary = type(model.model.rotary_emb)(config)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if 2 * len(rotary.inv_freq) != head_dim:
        raise ValueError(f"cannot import a model that rotates {2 * len(rotary.inv_freq)} of {head_dim} numbers a head")
    return Shape(
        vocab=config.vocab_size,
        dim=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=head_dim,
        hidden=config.intermediate_size,
        rope_theta=float(config.rope_parameters["rope_theta"]),
        eps=config.rms_norm_eps,
        qkv_bias=config.model_type == "qwen2",
        tied=config.tie_word_embeddings,
        qk_norm=config.model_type == "qwen3",
        rope_rates=tuple(rotary.inv_freq.tolist()),
        rope_scale=rotary.attention_scaling,
        positions=original_length(config),
    )


def original_length(config: Any) -> int | None:
    """How long a text may be before dynamic or longrope angles change, also of tokens read before; None for others."""
    rope = config.rope_parameters
    ends = {"dynamic": config.max_position_embeddings, "longrope": rope.get("original_max_position_embeddings")}
    return ends.get(rope.get("rope_type"))


def from_weights(
    shape: Shape, state: Mapping[str, Tensor], dtype: torch.dtype, device: torch.device, known: int | None = None
) -> LanguageModel:
    """A model with the weights `state`, which carry transformers' names and are read one at a time.

    `known` leaves out the tokens from there on, which pad the vocabulary. Where the weights have a head that is not the
    embedding, it is used although the shape calls them tied, and where they have a head alone, it is both: so does
    transformers. Raises KeyError for a weight that is missing, ValueError for one of another size.
    """
    (embedding,), (head,) = TOP["embedding"], TOP["head"]
    if shape.tied and {embedding, head} <= state.keys() and not torch.equal(state[embedding], state[head]):
        shape = replace(shape, tied=False)
    with torch.device("meta"):
        model = LanguageModel(replace(shape, vocab=min(shape.vocab, known or shape.vocab))).to(dtype)
    model = model.to_empty(device=device)
    padded = {"embedding": (shape.vocab, shape.dim), "head": (shape.dim, shape.vocab)}
    for name, place in model.state_dict().items():
        found = _found(name, state, shape)
        wanted = padded.get(name, place.shape)
        if found.shape != wanted:
            raise ValueError(f"{name} is {[*found.shape]}, and the configuration wants {[*wanted]}")
        place.copy_(found[tuple(map(slice, place.shape))])
    model.forget_angles()
    return model.eval()


def _found(name: str, state: Mapping[str, Tensor], shape: Shape) -> Tensor:
    """The value of our tensor `name`."""
    if name in TOP:
        alone = name == "embedding" and shape.tied and TOP[name][0] not in state
        value = state[TOP["head" if alone else name][0]]
        return value.t() if name == "head" else value
    layer, _, part = name.removeprefix("blocks.").partition(".")
    found = [state[f"model.layers.{layer}.{own}"] for own in LAYER[part]]
    if part == "attention.qk_norm":  # one weight for all queries and one for all keys
        q, k = found
        return torch.cat((q.expand(shape.heads, 1, -1), k.expand(shape.kv_heads, 1, -1)))
    return torch.cat(found).t()


def check_config(config: Any) -> None:
    """Raise ValueError for a configuration of transformers that the decoder of this project does not have."""
    kind = config.model_type
    if kind not in FAMILIES:
        raise ValueError(f"cannot import a {kind!r} model; supported are {', '.join(FAMILIES)}")
    if getattr(config, "quantization_config", None):
        raise ValueError("cannot import quantised weights; load the checkpoint in its full precision")
    rope = config.rope_parameters.get("rope_type", "default")
    if rope not in ROPES:
        raise ValueError(f"cannot import a model with {rope!r} rotary scaling; supported are {', '.join(ROPES)}")
    if config.hidden_act != "silu":
        raise ValueError(f"cannot import a model with activation {config.hidden_act!r}; only 'silu' is supported")
    window, layers = getattr(config, "sliding_window", None), getattr(config, "layer_types", None) or ["sliding"]
    if window is not None and window < config.max_position_embeddings and set(layers) != {"full_attention"}:
        raise ValueError(
            f"cannot import a model whose attention sees {window} tokens of {config.max_position_embeddings}; "
            "only attention to the whole text is supported"
        )
    if getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False):
        raise ValueError(f"cannot import a {kind} model with biases in its attention or feed-forward projections")
