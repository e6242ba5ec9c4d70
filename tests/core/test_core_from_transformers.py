"""Hugging Face models in this project's decoder: the same logits, and a sentence where that cannot be."""

import dataclasses

import pytest
import torch

transformers = pytest.importorskip("transformers")

from reference_impls.core.from_transformers import from_transformers, from_weights, shape_of  # noqa: E402
from reference_impls.core.tree import Tree  # noqa: E402

MUTANTS = [
    ("gate-and-up-swapped", '("gate", "up")', '("up", "gate")'),
    ("query-and-key-norms-swapped", "q.expand(shape.heads, 1, -1), k.expand", "k.expand(shape.heads, 1, -1), q.expand"),
    ("padding-kept", "known or shape.vocab", "shape.vocab"),
]

SIZES = {
    "vocab_size": 31, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
}  # fmt: skip
FULL = {"sliding_window": None}
FAMILIES = {
    "Llama": {},
    "SmolLM": {"rms_norm_eps": 1e-3, "num_key_value_heads": 1},  # Llama's format, with tied embeddings
    "Mistral": FULL | {"head_dim": 6},
    "Qwen2": {},
    "Qwen3": {"head_dim": 10},
}
SCALING = {"factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 100.0}
ROPES = {
    "default": {"rope_theta": 100.0},
    "linear": {"factor": 4.0, "rope_theta": 100.0},
    "llama3": SCALING | {"low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "yarn": SCALING,
    "yarn-factor": SCALING | {"attention_factor": 0.7, "beta_fast": 8.0, "beta_slow": 2.0},
    "yarn-mscale": SCALING | {"mscale": 0.5, "mscale_all_dim": 1.5},
}
TOKENS = [1, 5, 30, 7, 7, 2, 19, 4, 4, 11, 23, 8]
EXACT = {"rtol": 1e-10, "atol": 1e-10}
ROUNDED = {"rtol": 1e-5, "atol": 1e-5}  # the norms of transformers compute in float32, whatever the weights are


def made(family, **more):
    torch.manual_seed(3)
    name = "Llama" if family == "SmolLM" else family
    config = getattr(transformers, f"{name}Config")(**(SIZES | FAMILIES.get(family, {}) | more))
    model = getattr(transformers, f"{name}ForCausalLM")(config).double().eval()
    for name, parameter in model.named_parameters():
        if "norm" in name or "bias" in name:  # made as ones and zeros, which would hide a mix-up
            torch.nn.init.normal_(parameter, mean=1.0, std=0.2)
        elif "embed" not in name:
            torch.nn.init.normal_(parameter, std=0.25)
    return model


def in_double(model):
    """The same model, with norms that compute in the precision of their weights."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child).__name__.endswith("RMSNorm"):
                norm = torch.nn.RMSNorm(child.weight.shape, eps=child.variance_epsilon, dtype=torch.float64)
                norm.weight = child.weight
                setattr(module, name, norm)
    return model


def agree_everywhere(theirs, *, tokens=TOKENS, **close):
    """In one pass, in chunks through the cache, and in a tree."""
    ours = from_transformers(theirs)
    with torch.inference_mode():
        wanted = theirs(torch.tensor([tokens])).logits[0]
        torch.testing.assert_close(ours(tokens), wanted, **close)
        cache = ours.new_cache()
        pieces = [ours(tokens[a:b], cache) for a, b in ((0, 5), (5, 6), (6, 9), (9, None))]
        torch.testing.assert_close(torch.cat(pieces), wanted, **close)
        tree, cache = Tree(), ours.new_cache()
        for token, parent in ((3, -1), (9, -1), (28, 0), (6, 1), (6, 0)):
            tree.add(token, parent)
        depths, visible = tree.layout(1)
        ours(tokens[:-1], cache)
        positions = len(cache) + depths
        found = ours([tokens[-1], *tree.tokens], cache, positions=positions, visible=visible)
        for node in range(len(tree)):
            path = [tree.tokens[i] for i in tree.path(node)]
            wanted = theirs(torch.tensor([[*tokens, *path]])).logits[0, -1]
            torch.testing.assert_close(found[1 + node], wanted, **close)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_logits_equal_those_of_transformers(family, tied):
    agree_everywhere(made(family, tie_word_embeddings=tied), **ROUNDED)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_norms_of_transformers_round(family):
    agree_everywhere(in_double(made(family)), **EXACT)


def test_the_last_tokens_are_left_out_where_fewer_are_known():
    theirs = in_double(made("Llama", tie_word_embeddings=False))
    ours = from_weights(shape_of(theirs), theirs.state_dict(), torch.float64, torch.device("cpu"), known=25)
    whole = from_transformers(theirs)
    torch.testing.assert_close(ours(TOKENS[:2]), whole(TOKENS[:2])[:, :25])


@pytest.mark.parametrize("family", ["Llama", "Qwen3"])
@pytest.mark.parametrize("rope", ROPES)
def test_scaled_angles_are_those_of_transformers(family, rope):
    """Also past the length that the model was first trained on, where all scalings differ."""
    parameters = {"rope_type": rope.partition("-")[0]} | ROPES[rope]
    theirs = in_double(made(family, rope_parameters=parameters))
    agree_everywhere(theirs, tokens=TOKENS * 4, **EXACT)
    plain = from_transformers(in_double(made(family, rope_parameters={"rope_type": "default", "rope_theta": 100.0})))
    gap = (from_transformers(theirs)(TOKENS * 4) - plain(TOKENS * 4)).abs().max()
    assert (gap == 0) == (rope == "default")


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 100.0},
        {"rope_type": "longrope", **SCALING, "short_factor": [1.0, 1.5, 2.0, 3.0], "long_factor": [4.0] * 4},
    ],
)
def test_angles_that_grow_are_those_of_transformers_up_to_the_original_length(rope):
    theirs = in_double(made("Llama", rope_parameters=rope, max_position_embeddings=16))
    ours = from_transformers(theirs)
    assert ours.shape.positions == 16
    agree_everywhere(theirs, tokens=(TOKENS * 2)[:14], **EXACT)  # and a tree of depth 2 behind them
    text = torch.tensor([(TOKENS * 2)[:17]])
    assert (theirs(text).logits[0] - ours(text[0])).abs().max() > 1e-3  # and no further


def test_angles_are_those_of_the_configuration_whatever_the_model_was_cast_to():
    theirs = made("Llama", rope_parameters={"rope_type": "linear", **ROPES["linear"]})
    exact = from_transformers(theirs).shape.rope_rates
    assert from_transformers(theirs.bfloat16()).shape.rope_rates == exact


def test_a_window_that_hides_nothing_is_no_window():
    agree_everywhere(made("Mistral", sliding_window=64), **ROUNDED)
    agree_everywhere(made("Qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=3), **ROUNDED)


def test_the_copy_owns_its_weights():
    theirs = made("Llama")
    ours = from_transformers(theirs)
    wanted = ours(TOKENS)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.zero_()
    assert torch.equal(ours(TOKENS), wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_copy_has_the_dtype_of_the_original(dtype):
    theirs = made("Qwen3").to(dtype)
    assert {weight.dtype for weight in from_transformers(theirs).state_dict().values()} == {dtype}


@pytest.mark.parametrize(
    ("family", "more", "words"),
    [
        ("Llama", {"hidden_act": "gelu"}, "gelu"),
        ("Llama", {"attention_bias": True}, "biases"),
        ("Llama", {"mlp_bias": True}, "biases"),
        ("Qwen3", {"attention_bias": True}, "biases"),
        ("Mistral", {"sliding_window": 16}, "sees 16 tokens of 64"),
        ("Qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, "sees 8 tokens of 64"),
        ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4,
                                       "partial_rotary_factor": 0.5}}, "rotates 4 of 8"),
        ("Gemma", {}, "gemma"),
        ("SmolLM3", {"pad_token_id": 0}, "smollm3"),
    ],
)  # fmt: skip
def test_what_the_decoder_does_not_have_is_refused(family, more, words):
    with pytest.raises(ValueError, match=words):
        from_transformers(made(family, **more))


def test_a_head_of_its_own_is_used_although_the_configuration_calls_it_the_embedding():
    theirs = in_double(made("Llama", tie_word_embeddings=False))
    shape = dataclasses.replace(shape_of(theirs), tied=True)
    ours = from_weights(shape, theirs.state_dict(), torch.float64, torch.device("cpu"))
    assert not ours.shape.tied
    torch.testing.assert_close(ours(TOKENS[:3]), from_transformers(theirs)(TOKENS[:3]))
