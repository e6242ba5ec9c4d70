"""The settings of transformers, as an exported method takes them: what they mean there, or one sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch

transformers = pytest.importorskip("transformers")

from accelgen.checkpoints import custom_generate  # noqa: E402
from reference_impls.core.arguments import checked  # noqa: E402
from reference_impls.core.generation import Ends, Generation  # noqa: E402

PROMPT, LIMIT = [5, 9, 33, 2, 17, 8, 40, 3], 12
SIZES = {
    "vocab_size": 61, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
    "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(2)
    made = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).double().eval()
    for parameter in made.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.8)
    return made


def call(model: Any, **given: Any) -> list[int]:
    """New tokens of the baseline, called as `generate` of transformers calls it."""
    given = {"input_ids": torch.tensor([PROMPT]), "max_new_tokens": LIMIT} | given
    found: list[int] = custom_generate.generate(model=model, **given)[0].tolist()
    return found[len(PROMPT) :]


def theirs(model: Any, **given: Any) -> list[int]:
    prompt = torch.tensor([PROMPT])
    found: list[int] = model.generate(prompt, **({"max_new_tokens": LIMIT} | given))[0].tolist()
    return found[len(PROMPT) :]


# ---- padding ------------------------------------------------------------------------------------------------------

ONES = torch.ones(1, len(PROMPT), dtype=torch.long)


def test_pads_without_a_mask_are_refused_where_generate_would_hide_them(model: Any) -> None:
    hidden = theirs(model, do_sample=False, pad_token_id=33)
    assert hidden != theirs(model, do_sample=False, pad_token_id=33, attention_mask=ONES), "this proves nothing"
    with pytest.raises(ValueError, match=r"holds the pad token 33, .* of ones if it is part of the text"):
        call(model, pad_token_id=33)
    with pytest.raises(ValueError, match="holds the pad token 33"):
        call(model, pad_token_id=33, eos_token_id=[60, 59])


@pytest.mark.parametrize(
    "given",
    [
        {"pad_token_id": 33, "attention_mask": ONES},
        {"pad_token_id": 33, "eos_token_id": 33},
        {"pad_token_id": 33, "eos_token_id": [60, 33]},
        {"pad_token_id": 50},
        {"eos_token_id": 33},
    ],
)
def test_a_pad_token_that_is_text_is_read_as_generate_reads_it(model: Any, given: dict[str, Any]) -> None:
    assert call(model, **given) == theirs(model, do_sample=False, **given)


# ---- settings that do nothing -------------------------------------------------------------------------------------

DRAWN = {"do_sample": True, "top_k": None, "top_p": None}


@pytest.mark.parametrize(
    "given",
    [
        {"min_p": 0.0},
        {"min_new_tokens": 0},
        {"guidance_scale": 1.0},
        {"repetition_penalty": 1.0},
        {"no_repeat_ngram_size": 0},
        {"epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "typical_p": 1.0},
        {"num_beams": 1, "num_return_sequences": 1, "min_length": 0},
    ],
)
def test_a_neutral_value_is_as_good_as_none(model: Any, given: dict[str, Any]) -> None:
    assert call(model, **given) == call(model) == theirs(model, do_sample=False, **given)
    assert call(model, **given, **DRAWN, seed=3) == call(model, **DRAWN, seed=3)


@pytest.mark.parametrize(
    "given", [{"min_p": 0.1}, {"min_new_tokens": 1}, {"guidance_scale": 1.5}, {"epsilon_cutoff": 0.01}]
)
def test_any_other_value_is_refused(model: Any, given: dict[str, Any]) -> None:
    name = next(iter(given))
    with pytest.raises(ValueError, match=f"no {name}, which is .* here: pass {name}=None"):
        call(model, **given)


def test_a_temperature_of_none_is_that_of_one(model: Any) -> None:
    assert call(model, **DRAWN, temperature=None, seed=3) == call(model, **DRAWN, temperature=1.0, seed=3)
    assert call(model, temperature=None) == call(model)


@pytest.mark.parametrize("temperature", [0, 0.0, -1.0])
def test_drawing_at_temperature_zero_is_refused_as_generate_does(model: Any, temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        theirs(model, do_sample=True, temperature=temperature)
    with pytest.raises(ValueError, match=f"temperature is {temperature}, and do_sample draws: pass do_sample=False"):
        call(model, do_sample=True, temperature=temperature)
    assert call(model, do_sample=False, temperature=temperature) == call(model)


# ---- what reaches the method --------------------------------------------------------------------------------------


@checked
def trial(*_: Any, gamma: int = 4, eos: Ends | None = None, **__: Any) -> Generation:
    """A method that writes its option and then the ends that it was given."""
    return Generation([gamma, *(eos or [])])  # type: ignore[misc]


def test_every_end_reaches_the_method(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(custom_generate, "decode", trial)
    assert call(model) == [4]
    assert call(model, gamma=7, eos_token_id=9) == [7, 9]
    assert call(model, eos_token_id=[9, 11]) == [4, 9, 11]
    assert call(model, eos_token_id=torch.tensor([9, 11])) == [4, 9, 11]


def test_an_option_of_the_wrong_kind_is_one_sentence(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(custom_generate, "decode", trial)
    with pytest.raises(TypeError, match=r"^gamma is 'x'; it must be a whole number$"):
        call(model, gamma="x")


def test_angles_that_grow_are_refused_where_they_would_before_a_token_is_written() -> None:
    rope, most = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}, len(PROMPT) + LIMIT - 1
    config = transformers.LlamaConfig(**SIZES | {"max_position_embeddings": most, "rope_parameters": rope})
    made = transformers.LlamaForCausalLM(config).eval()
    assert call(made) == theirs(made, do_sample=False)
    with pytest.raises(ValueError, match=f"the target has {most} positions"):
        call(made, max_new_tokens=LIMIT + 1)
