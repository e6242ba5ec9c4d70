"""Any causal language model of transformers behind the interface that decoding methods call."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from numbers import Integral
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from reference_impls.core.layers import Shape, as_tensor, check_last

MASKABLE = ("eager", "sdpa")  # the kinds of attention that take a mask of any form; flash attention takes none
TABLES = ("wpe", "embed_positions", "position_embeddings")  # how families call a table of positions
LAYERED = frozenset({"angles", "blocks", "embed", "embedding", "fill", "head", "logits", "norm", "project", "run"})


class TransformersCache:
    """The keys and values of one sequence in a `DynamicCache` of transformers, with the core's way to roll back.

    Every layer keeps every token, also where the model attends through a sliding window: what lies outside of it is
    then hidden by the mask, and can come back when guesses are taken back.
    """

    def __init__(self) -> None:
        self.store = DynamicCache()

    def __len__(self) -> int:
        return self.store.get_seq_length()

    def length(self, layer: int) -> int:
        """How many tokens `layer` holds."""
        return self.store.get_seq_length(layer)

    def crop(self, length: int) -> None:
        """Forget every token from `length` on."""
        if not isinstance(length, Integral) or length < 0:
            raise ValueError(f"cannot crop a cache to a length of {length!r}")
        if length < len(self):
            self.store.crop(length - len(self))  # transformers wants how many to remove, as a negative number

    def keep(self, length: int, path: Sequence[int]) -> None:
        """After a tree pass that started at `length`: keep only the tree's slots `path`, in this order."""
        end = length + len(path)
        for layer in cast("list[Any]", self.store.layers):
            rows = torch.tensor(path, device=layer.keys.device, dtype=torch.long) + length
            for held in (layer.keys, layer.values):
                held[..., length:end, :] = held.index_select(-2, rows)
        self.crop(end)


class TransformersModel:
    """A `…ForCausalLM` of transformers that decoding methods can call like the core's `LanguageModel`.

    For what `from_transformers` cannot copy: other families, and weights that are quantised, offloaded or spread over
    devices by `device_map` or by tensor parallelism. The model stays as and where it is; tokens go to the device of its
    embedding, and logits come back to `device`, which is the same one unless named. It is slower than a copy, because
    each pass goes through the model's own code, and its cache is copied whenever it grows.

    Whole passes only: methods that run single layers, such as layerskip or eagle, need the copy. `vocab` cuts the
    logits to the tokens that really exist, where checkpoints of one tokenizer are padded to different sizes.

    Under tensor parallelism every process runs the same loop. No process tells the others what it has decided: each
    one gets the same logits from the last all-reduce, and draws with the same seed, so all decide alike. So give every
    process the same prompt, options and seed.

    Dynamic and longrope angles change, also of tokens read before, where a text grows past the model's original length:
    there a pass over several tokens would write another text than one after another. So such a model has no positions
    beyond that length here; up to it, its angles are fixed.

    Raises ValueError for a model in training mode, an encoder-decoder, and one that has more to roll back than keys and
    values, such as the state of a linear-attention layer.
    """

    def __init__(self, model: Any, *, device: torch.device | str | None = None, vocab: int | None = None) -> None:
        config = model.config.get_text_config(decoder=True)
        self.model, self._window = model, _window(model, config)
        self._inputs = _entry(model.get_input_embeddings())
        self.device = torch.device(device) if device is not None else self._inputs
        self._takes = frozenset(inspect.signature(model.forward).parameters)
        heads = config.num_attention_heads
        self.shape = Shape(
            vocab=config.vocab_size if vocab is None else vocab,
            dim=config.hidden_size,
            layers=config.num_hidden_layers,
            heads=heads,
            kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            hidden=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
            positions=_positions(model, config),
        )

    def __getattr__(self, name: str) -> Any:
        if name in LAYERED:
            raise ValueError(
                f"this method needs `{name}` of single layers, and a model behind the adapter runs whole passes only: "
                "copy its weights with from_transformers, which knows the common families"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def new_cache(self) -> TransformersCache:
        """An empty cache for one sequence of this model."""
        return TransformersCache()

    def __call__(
        self,
        tokens: Sequence[int] | Tensor,
        cache: TransformersCache | None = None,
        *,
        last: int | None = None,
        positions: Tensor | None = None,
        visible: Tensor | None = None,
    ) -> Tensor:
        """Next-token logits [tokens, vocab] of one sequence, or [last, vocab] of the `last` tokens alone.

        `positions` [tokens] default to those that follow the cache. `visible` [tokens, tokens] says which new token
        (row) sees which new token (column); the default is the causal triangle; the cache is always visible. Raises
        ValueError where the model's kind of attention or of positions cannot do what they ask.
        """
        check_last(last)
        row = as_tensor(tokens, self.shape.vocab, self._inputs).to(self._inputs)[None]  # [1, tokens]
        past, new = 0 if cache is None else len(cache), row.shape[1]
        end = self.shape.positions
        reach = past + new if positions is None else int(positions.max()) + 1
        if end is not None and reach > end:
            name = type(self.model).__name__
            raise ValueError(f"{name} has {end} positions, and the text is {reach} tokens long: ask for fewer")
        extra: dict[str, Any] = {}
        if positions is not None:
            extra["position_ids"] = self._positions(positions)
        if visible is not None:
            extra["attention_mask"] = self._mask(visible, past)
        if last is not None and "logits_to_keep" in self._takes:
            extra["logits_to_keep"] = last
        store = None if cache is None else cache.store
        logits = self.model(row, past_key_values=store, use_cache=store is not None, **extra).logits[0]
        if cache is not None and len(cache) != past + new:
            raise ValueError(f"{type(self.model).__name__} does not keep its keys and values in the cache it is given")
        wanted = logits if last is None else logits[-last:]
        return wanted[:, : self.shape.vocab].to(self.device)

    def _positions(self, positions: Tensor) -> Tensor:
        config = self.model.config.get_text_config(decoder=True)
        if "position_ids" not in self._takes or getattr(config, "alibi", False):
            raise ValueError(f"{type(self.model).__name__} takes no positions, so it cannot read a tree of guesses")
        return positions.to(self._inputs)[None]

    def _mask(self, visible: Tensor, past: int) -> Tensor:
        """The additive mask [1, 1, new, past + new] that transformers hands to the layers as it is."""
        kind = self.model.config._attn_implementation  # noqa: SLF001 - the only place where transformers says it
        if kind not in MASKABLE:
            raise ValueError(f"{kind} cannot mask a tree of guesses: load the model with attn_implementation='sdpa'")
        new = visible.shape[-1]
        if self._window is not None and past + new > self._window:
            raise ValueError(
                f"{past + new} tokens and guesses do not fit into the model's attention window of {self._window}, "
                "where a tree of guesses cannot be masked: choose a method that drafts a chain"
            )
        mask = torch.zeros(1, 1, new, past + new, dtype=self.model.dtype, device=self._inputs)
        mask[..., past:].masked_fill_(~visible.to(self._inputs), torch.finfo(mask.dtype).min)
        return mask


def _entry(embedding: Any) -> torch.device:
    """Where tokens go: where the embedding is, or where accelerate brings it for a pass."""
    hook = getattr(embedding, "_hf_hook", None)
    place = getattr(hook, "execution_device", None)
    return embedding.weight.device if place is None else torch.device(place)


def _positions(model: Any, config: Any) -> int | None:
    """How many positions a model has; None where no place is the last.

    It has so many as its table, learned or fixed, or as it has angles that do not change with the text's length.
    """
    tables = [name for name, part in model.named_modules() if isinstance(part, nn.Embedding)]
    tables += [name for name, _ in model.named_buffers()]
    looked_up = any(name.rpartition(".")[2] in TABLES for name in tables)
    ropes = getattr(config, "rope_parameters", None) or {}
    every = [rope for rope in (ropes, *ropes.values()) if isinstance(rope, dict)]  # for all layers, or for each kind
    kinds = {rope.get("rope_type"): rope for rope in every}
    ends = [config.max_position_embeddings] if looked_up or "dynamic" in kinds else []
    ends += [kinds["longrope"]["original_max_position_embeddings"]] if "longrope" in kinds else []
    return min(ends, default=None)


def _window(model: Any, config: Any) -> int | None:
    """How many tokens a layer sees at most; None where all see all. Raises ValueError for what has no place here."""
    name = type(model).__name__
    if model.config.is_encoder_decoder:
        raise ValueError(f"{name} is an encoder-decoder; the adapter takes decoders, …ForCausalLM")
    if model.training:
        raise ValueError(f"{name} is in training mode, where dropout would change its law: call its eval() first")
    kinds = {type(layer) for layer in DynamicCache(config=model.config).layers}
    if not kinds <= {DynamicLayer, DynamicSlidingWindowLayer} or getattr(config, "attention_chunk_size", None):
        raise ValueError(f"{name} remembers more than keys and values, or in chunks, and cannot take guesses back")
    return config.sliding_window if DynamicSlidingWindowLayer in kinds else getattr(config, "window_size", None)
