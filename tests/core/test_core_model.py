"""The decoder: pieces of a computation against the whole."""

import pytest
import torch

from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel
from reference_impls.testing import language_model

MUTANTS = [
    ("mask-computed-and-not-passed", "attention_mask(visible, past, x.", "attention_mask(None, past, x."),
    ("positions-ignored", "slice(start, end) if positions is None else", "slice(start, start + new) if True else"),
    ("every-call-starts-at-position-0", "slice(start, end) if", "slice(0, new) if"),
    ("rotation-the-wrong-way", "torch.cat((-sin, sin), -1)", "torch.cat((sin, -sin), -1)"),
    ("angles-spoil-training", "torch.inference_mode(False)", "torch.inference_mode(True)"),
    ("attention-scaling-lost", "if shape.rope_scale != 1:", "if shape.rope_scale < 0:"),
    ("propagation-without-the-norm", "project(block.attention_norm(x), angles)[1:]", "project(x, angles)[1:]"),
    ("propagation-at-position-0", "self.angles(cache.length(layer), x.", "self.angles(0, x."),
]

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(scope="module", params=[{}, {"qkv_bias": True, "tied": True, "kv_heads": 3, "heads": 3}])
def model(request):
    numbers = {
        "vocab": 11,
        "dim": 12,
        "layers": 4,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 4,
        "hidden": 10,
        "tied": False,
    }
    torch.manual_seed(1)
    made = LanguageModel(Shape(**(numbers | request.param))).double().eval()
    for block in made.blocks:
        if block.attention.bias is not None:
            torch.nn.init.normal_(block.attention.bias)
    return made


@pytest.fixture(scope="module")
def whole(model):
    with torch.inference_mode():
        return model(TOKENS)


@pytest.mark.parametrize("cuts", [(5,), (1, 2), (9,), (3, 4, 8), tuple(range(1, 10))])
def test_chunks_through_the_cache_equal_one_pass(model, whole, cuts):
    cache = model.new_cache()
    pieces = [model(TOKENS[a:b], cache) for a, b in zip((0, *cuts), (*cuts, 10), strict=True)]
    torch.testing.assert_close(torch.cat(pieces), whole, **CLOSE)
    assert len(cache) == 10


@pytest.mark.parametrize("cuts", [(1,), (2,), (1, 3), (1, 2, 3)])
def test_layers_one_after_another_equal_all_layers(model, whole, cuts):
    cache, x = model.new_cache(), model.embed(TOKENS)
    for a, b in zip((0, *cuts), (*cuts, 4), strict=True):
        x = model.run(x, cache, layers=range(a, b))
    torch.testing.assert_close(model.logits(x), whole, **CLOSE)


def test_layers_may_lag_and_catch_up(model, whole):
    cache = model.new_cache()
    first = model.run(model.embed(TOKENS[:6]), cache, layers=range(2))
    second = model.run(model.embed(TOKENS[6:]), cache, layers=range(2))
    assert [cache.length(layer) for layer in range(4)] == [10, 10, 0, 0]
    x = model.run(torch.cat((first, second)), cache, layers=range(2, 4))
    torch.testing.assert_close(model.logits(x), whole, **CLOSE)


def test_layers_of_unequal_length_cannot_run_together(model):
    cache = model.new_cache()
    model.run(model.embed(TOKENS), cache, layers=range(1))
    with pytest.raises(ValueError, match="layer 1 has 0 cached tokens, layer 0 has 10"):
        model.run(model.embed([1]), cache)


def test_the_halves_of_a_layer_make_up_the_layer(model):
    x = model.embed(TOKENS)
    angles, block = model.angles(0, 10), model.blocks[0]
    y = x + block.attend(x, angles, None)
    torch.testing.assert_close(y + block.feed(y), model.run(x, layers=range(1)), **CLOSE)


@pytest.mark.parametrize("past", [0, 3])
def test_last_gives_the_last_rows(model, whole, past):
    cache = model.new_cache()
    if past:
        model(TOKENS[:past], cache)
    torch.testing.assert_close(model(TOKENS[past:], cache, last=2), whole[-2:], **CLOSE)


def test_a_batch_equals_its_rows(model):
    batch = torch.tensor([TOKENS, TOKENS[::-1]])
    torch.testing.assert_close(model(batch), torch.stack([model(row.tolist()) for row in batch]), **CLOSE)


def test_the_default_mask_is_the_triangle(model, whole):
    triangle = torch.ones(10, 10, dtype=torch.bool).tril()
    torch.testing.assert_close(model(TOKENS, visible=triangle), whole, **CLOSE)
    cache = model.new_cache()
    model(TOKENS[:4], cache)
    found = model(TOKENS[4:], cache, visible=triangle[:6, :6], positions=torch.arange(4, 10))
    torch.testing.assert_close(found, whole[4:], **CLOSE)


def test_ones_let_every_token_see_every_other(model, whole):
    both = model(TOKENS, visible=torch.ones(10, 10, dtype=torch.bool))
    assert not torch.allclose(both[0], whole[0])
    torch.testing.assert_close(both[-1:], model(TOKENS, visible=torch.ones(10, 10, dtype=torch.bool), last=1), **CLOSE)


def test_positions_move_a_token(model, whole):
    shifted = model(TOKENS, positions=torch.arange(10) + 5)
    torch.testing.assert_close(shifted, whole, rtol=1e-4, atol=1e-6)  # relative positions; angles are float32
    spread = model(TOKENS, positions=torch.arange(10) * 2)
    assert not torch.allclose(spread, whole)


def test_fill_stores_what_each_skipped_layer_projects_from_the_state(model):
    cache, full = model.new_cache(), model.new_cache()
    model(TOKENS[:6], cache)
    model(TOKENS[:6], full)
    x = model.run(model.embed(TOKENS[6:8]), cache, layers=range(2))
    model.fill(x, cache, layers=range(2, 4))
    assert [cache.length(layer) for layer in range(4)] == [8] * 4
    for layer in range(2, 4):
        attention = model.blocks[layer].attention
        _, k, v = attention.project(model.blocks[layer].attention_norm(x), model.angles(6, 2))
        torch.testing.assert_close(cache._store[layer, 0, :, 6:8], k, **CLOSE)
        torch.testing.assert_close(cache._store[layer, 1, :, 6:8], v, **CLOSE)
        assert torch.equal(cache._store[layer, :, :, :6], full._store[layer, :, :, :6])


def test_fill_with_the_full_model_input_equals_running_the_layer(model):
    cache, full = model.new_cache(), model.new_cache()
    x = model.run(model.embed(TOKENS), full, layers=range(3))
    model.run(model.embed(TOKENS), cache, layers=range(3))
    model.run(x, full, layers=range(3, 4))
    model.fill(x, cache, layers=range(3, 4))
    torch.testing.assert_close(cache._store[:, :, :, :10], full._store[:, :, :, :10], **CLOSE)


def test_angles_are_remade_after_a_move(model, whole):
    model.forget_angles()
    torch.testing.assert_close(model(TOKENS), whole, **CLOSE)


def test_a_model_that_has_generated_can_still_be_trained():
    model = language_model(5)
    with torch.inference_mode():
        model([1, 2, 3])
    model([1, 2, 3]).sum().backward()
    assert model.embedding.grad is not None


def test_long_texts_grow_the_table_of_angles():
    model = language_model(5)
    tokens = [i % 5 for i in range(600)]
    cache = model.new_cache()
    pieces = [model(tokens[a : a + 200], cache) for a in (0, 200, 400)]
    torch.testing.assert_close(torch.cat(pieces), language_model(5)(tokens), **CLOSE)


@pytest.mark.parametrize(
    ("tokens", "words"), [([], "the prompt or source is empty"), ([1, 11], "token id 11"), ([-1], "token id -1")]
)
def test_tokens_that_cannot_be_read_are_refused(model, tokens, words):
    with pytest.raises(ValueError, match=words):
        model(tokens)


def test_a_guess_from_logits_that_are_not_finite_is_told_from_a_wrong_token(model):
    with pytest.raises(ValueError, match=r"token id -1 .*logits that are not finite .*the drafter"):
        model([1, -1])
    with pytest.raises(ValueError, match=r"token id -2 is outside the model's vocabulary of 11$"):
        model([1, -2])


@pytest.mark.parametrize("tokens", ["hello", [1.5], [None], [[1, 2]], ["a"]])
def test_what_is_no_token_is_a_type_error(model, tokens):
    with pytest.raises(TypeError, match="is no list of token ids; give whole numbers"):
        model(tokens)
