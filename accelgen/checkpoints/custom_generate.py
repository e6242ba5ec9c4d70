"""A decoding method as a custom generation method of transformers: `model.generate(…, custom_generate=FOLDER)`.

`accelgen export-hf` copies this file as `generate.py` beside a method, which it then imports in place of the baseline.
It only puts the settings of transformers into the method's words: one sequence in, the same sequence with its
continuation out, as `generate` returns it. What the method has no word for is refused, never ignored.
"""

from __future__ import annotations

import inspect
from typing import Any, cast, get_type_hints

import torch
from torch import Tensor

from accelgen.checkpoints.adapter import TransformersModel
from reference_impls.baselines.autoregressive import generate as decode
from reference_impls.core.sampling import Sampler

DEFAULT_LENGTH = 20  # new tokens, as in `generate`
USED = {"max_length", "max_new_tokens", "do_sample", "temperature", "top_k", "top_p", "eos_token_id"}
WITHOUT_EFFECT = {  # on the text of one sequence without a beam
    "bos_token_id", "pad_token_id", "decoder_start_token_id", "use_cache", "early_stopping", "length_penalty",
    "compile_config", "disable_compile", "transformers_version", "_from_model_config",
}  # fmt: skip
NEUTRAL = {"min_p": 0.0, "min_new_tokens": 0, "guidance_scale": 1.0}  # beside the defaults: values that do nothing
HOOKS = (
    "logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn", "streamer", "synced_gpus",
    "negative_prompt_ids", "negative_prompt_attention_mask",
)  # fmt: skip
LOADING = {"cache_dir", "code_revision", "force_download", "local_files_only", "proxies", "revision", "token"}


def generate(
    inputs: Tensor | None = None,
    *,
    model: Any,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    assistant_model: Any = None,
    generation_config: Any = None,
    seed: int | None = None,
    vocab: int | None = None,
    **given: Any,
) -> Tensor:
    """The prompt [1, n] with its continuation [1, n + new]; called by `generate` of transformers.

    `seed` fixes all draws; without it, they follow torch's global random state, which must then be the same in all
    processes that share a model. `vocab` cuts the logits where target and drafter are padded to different sizes.
    Further arguments are settings of transformers, or the method's options. Raises ValueError for what the method
    cannot do.
    """
    for name in HOOKS:
        value = given.pop(name, None)
        if value is not None and (isinstance(value, Tensor) or value):
            raise ValueError(f"this method has no {name}: it writes its text as a whole; leave it out")
    ids = _prompt(inputs if input_ids is None else input_ids)
    settings, options = model._prepare_generation_config(generation_config, **given)  # noqa: SLF001 - the same defaults
    _check(settings)
    _check_padding(ids, attention_mask, settings)
    target, method = TransformersModel(model, vocab=vocab), cast("Any", decode)  # the method that stands here varies
    options = _options({key: value for key, value in options.items() if key not in LOADING})
    options |= _drafters(assistant_model, target, vocab)
    limit = _limit(settings, generation_config, model, given, ids.shape[1])
    eos = _numbers(settings.eos_token_id)
    result = method(target, ids[0].tolist(), limit, sampler=_sampler(settings, seed), eos=eos, **options)
    return torch.cat((ids, ids.new_tensor([result.tokens])), dim=1)


def _prompt(ids: Tensor | None) -> Tensor:
    if ids is None or ids.dim() != 2 or ids.shape[0] != 1 or ids.shape[1] < 1:
        found = "nothing" if ids is None else f"shape {list(ids.shape)}"
        raise ValueError(f"this method continues one sequence at a time: input_ids of shape [1, n], not {found}")
    return ids


def _check_padding(ids: Tensor, attention_mask: Tensor | None, settings: Any) -> None:
    """Refuse padding. Without a mask it is what `generate` takes for it: the pad token, if that does not end a text."""
    pads = set(_numbers(settings.pad_token_id)) - set(_numbers(settings.eos_token_id))
    if attention_mask is None and pads & set(ids[0].tolist()):
        raise ValueError(
            f"the prompt holds the pad token {min(pads)}, and this method takes no padding: leave it out, or give an "
            "attention_mask of ones if it is part of the text"
        )
    if attention_mask is not None and not bool(attention_mask.all()):
        raise ValueError("this method takes no padding: give one sequence without it, or an attention_mask of ones")


def _numbers(found: Any) -> list[int]:
    """Token ids that stand in settings as one number, several, a tensor, or None."""
    return cast("list[int]", torch.as_tensor([] if found is None else found).flatten().tolist())


def _check(settings: Any) -> None:
    """Refuse whatever would change the text and is not one of the settings in use."""
    neutral = settings._get_default_generation_params() | NEUTRAL  # noqa: SLF001
    for name, value in settings.to_dict().items():
        if name in USED | WITHOUT_EFFECT or value is None or value is False or value == neutral.get(name):
            continue
        raise ValueError(f"this method has no {name}, which is {value!r} here: pass {name}=None to go without it")
    if settings.do_sample and settings.temperature is not None and settings.temperature <= 0:
        raise ValueError(f"temperature is {settings.temperature}, and do_sample draws: pass do_sample=False for greedy")


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """The method's own options; a text to retrieve from becomes what the method reads."""
    known = inspect.signature(decode).parameters
    own = [name for name in known if known[name].kind is inspect.Parameter.KEYWORD_ONLY]
    own = [name for name in own if name not in {"sampler", "eos", "drafter", "drafters"}]
    for name in given:
        if name not in own:
            raise ValueError(f"this method has no option {name!r}; it has {', '.join(own) or 'none'}")
    if "datastore" in own:
        if "datastore" not in given:
            raise ValueError("this method retrieves its guesses: give datastore=… the token ids of a text, as a list")
        if isinstance(given["datastore"], list | Tensor):
            given["datastore"] = get_type_hints(decode)["datastore"](given["datastore"])
    return given


def _drafters(assistant_model: Any, target: TransformersModel, vocab: int | None) -> dict[str, Any]:
    """The models that draft, under the name by which the method asks for them."""
    models = assistant_model if isinstance(assistant_model, list | tuple) else [assistant_model]
    models = [TransformersModel(one, device=target.device, vocab=vocab) for one in models if one is not None]
    known = inspect.signature(decode).parameters
    if "drafters" in known and models:
        return {"drafters": models}
    if "drafter" in known and len(models) == 1:
        return {"drafter": models[0]}
    if "drafter" in known or "drafters" in known:
        raise ValueError(f"this method needs assistant_model=… to draft, and has got {len(models)} models")
    if models:
        raise ValueError("this method drafts without a model: leave assistant_model out")
    return {}


def _limit(settings: Any, generation_config: Any, model: Any, given: dict[str, Any], start: int) -> int:
    """How many new tokens are wanted, by the rules of `generate`."""
    if settings.max_new_tokens is not None:
        return int(settings.max_new_tokens)
    places = (
        given.get("max_length"),
        getattr(generation_config, "max_length", None),
        model.generation_config.max_length,
    )
    longest = next((length for length in places if length is not None), start + DEFAULT_LENGTH)
    if longest < start:
        raise ValueError(
            f"the prompt has {start} tokens, and max_length is {longest}: raise it, or give max_new_tokens"
        )
    return int(longest) - start


def _sampler(settings: Any, seed: int | None) -> Sampler:
    if not settings.do_sample:
        return Sampler(0)
    chosen = int(torch.randint(2**62, ())) if seed is None else seed
    temperature = 1.0 if settings.temperature is None else settings.temperature
    return Sampler(temperature, top_k=settings.top_k or None, top_p=settings.top_p, seed=chosen)
