"""Hugging Face models in this project's decoder: the same logits, and a sentence where that cannot be."""

import pytest
import torch

transformers = pytest.importorskip("transformers")

from reference_impls.core.from_transformers import from_transformers  # noqa: E402

SIZES = {
    "vocab_size": 31, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "attn_implementation": "eager",
}  # fmt: skip
TOKENS = [1, 5, 30, 7, 7, 2, 19]


def made(family, **more):
    torch.manual_seed(3)
    config = getattr(transformers, f"{family}Config")(**(SIZES | more))
    model = getattr(transformers, f"{family}ForCausalLM")(config).double().eval()
    for name, parameter in model.named_parameters():
        if "norm" in name or "bias" in name:  # made as ones and zeros, which would hide a mix-up
            torch.nn.init.normal_(parameter, mean=1.0, std=0.2)
        elif "embed" not in name:
            torch.nn.init.normal_(parameter, std=0.25)
    return model


@pytest.mark.parametrize("family", ["Llama", "Qwen2"])
@pytest.mark.parametrize("tied", [True, False])
def test_logits_equal_those_of_transformers(family, tied):
    theirs = made(family, tie_word_embeddings=tied)
    ours = from_transformers(theirs)
    with torch.inference_mode():
        wanted = theirs(torch.tensor([TOKENS])).logits[0]
        torch.testing.assert_close(ours(TOKENS), wanted, rtol=1e-6, atol=1e-6)
        cache = ours.new_cache()
        pieces = [ours(TOKENS[:3], cache), ours(TOKENS[3:], cache)]
    torch.testing.assert_close(torch.cat(pieces), wanted, rtol=1e-6, atol=1e-6)


def test_the_copy_owns_its_weights():
    theirs = made("Llama")
    ours = from_transformers(theirs)
    wanted = ours(TOKENS)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.zero_()
    assert torch.equal(ours(TOKENS), wanted)


def test_the_copy_has_the_dtype_of_the_original():
    assert from_transformers(made("Llama").float()).embedding.dtype == torch.float32


@pytest.mark.parametrize(
    ("family", "more", "words"),
    [
        ("Llama", {"hidden_act": "gelu"}, "gelu"),
        ("Llama", {"attention_bias": True}, "biases"),
        ("Mistral", {}, "mistral"),
    ],
)
def test_what_the_decoder_does_not_have_is_refused(family, more, words):
    with pytest.raises(ValueError, match=words):
        from_transformers(made(family, **more))
