"""Weights of Hugging Face decoders in this project's model, with equal logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reference_impls.core.model import LanguageModel, Shape

FAMILIES = ("llama", "qwen2")


def from_transformers(model: Any) -> LanguageModel:
    """Copy a `LlamaForCausalLM` or `Qwen2ForCausalLM` (any size) into a `LanguageModel` of the same dtype and device.

    Raises ValueError for another family and for a setting that this model does not have, such as scaled rotary angles.
    """
    config = model.config
    _check(config)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    state: dict[str, Tensor] = model.state_dict()
    shape = Shape(
        vocab=config.vocab_size,
        dim=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=head_dim,
        hidden=config.intermediate_size,
        rope_theta=float(config.rope_parameters["rope_theta"]),
        eps=config.rms_norm_eps,
        qkv_bias="model.layers.0.self_attn.q_proj.bias" in state,
        tied=config.tie_word_embeddings,
    )
    found = {"embedding": state["model.embed_tokens.weight"], "norm.weight": state["model.norm.weight"]}
    if not shape.tied:
        found["head"] = state["lm_head.weight"].T
    for layer in range(shape.layers):
        found |= _block(state, f"model.layers.{layer}.", f"blocks.{layer}.", with_bias=shape.qkv_bias)
    weight = found["embedding"]
    with torch.device("meta"):
        copy = LanguageModel(shape)
    copy = copy.to_empty(device=weight.device).to(weight.dtype)
    copy.load_state_dict({key: value.detach().clone().contiguous() for key, value in found.items()})
    copy.forget_angles()
    return copy.eval()


def _block(state: dict[str, Tensor], old: str, new: str, *, with_bias: bool) -> dict[str, Tensor]:
    """One layer, its projections fused and transposed to [in, out]."""
    qkv = [f"{old}self_attn.{x}_proj." for x in "qkv"]
    found = {
        f"{new}attention_norm.weight": state[f"{old}input_layernorm.weight"],
        f"{new}attention.qkv": torch.cat([state[f"{x}weight"] for x in qkv]).T,
        f"{new}attention.out": state[f"{old}self_attn.o_proj.weight"].T,
        f"{new}feed_norm.weight": state[f"{old}post_attention_layernorm.weight"],
        f"{new}gate_up": torch.cat([state[f"{old}mlp.{x}_proj.weight"] for x in ("gate", "up")]).T,
        f"{new}down": state[f"{old}mlp.down_proj.weight"].T,
    }
    if with_bias:
        found[f"{new}attention.bias"] = torch.cat([state[f"{x}bias"] for x in qkv])
    return found


def _check(config: Any) -> None:
    if config.model_type not in FAMILIES:
        raise ValueError(f"cannot import a {config.model_type!r} model; supported are {', '.join(FAMILIES)}")
    if config.rope_parameters.get("rope_type", "default") != "default":
        kind = config.rope_parameters["rope_type"]
        raise ValueError(f"cannot import a model with {kind!r} rotary scaling; only the default is supported")
    if getattr(config, "hidden_act", "silu") != "silu":
        raise ValueError(f"cannot import a model with activation {config.hidden_act!r}; only 'silu' is supported")
    if getattr(config, "use_sliding_window", False):
        raise ValueError("cannot import a model with sliding-window attention")
    if getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False):
        raise ValueError("cannot import a Llama model with biases in its projections")
