"""The encoder-decoder: one function, however it is cut into steps, batches and padding."""

import pytest
import torch
from torch import Tensor

from reference_impls.baselines.translation import generate as translate
from reference_impls.core.layers import Shape
from reference_impls.core.sampling import Sampler
from reference_impls.core.seq2seq import EncoderDecoder
from reference_impls.testing.checks import counted

MUTANTS = [
    ("every-chunk-at-position-0", "x = self.embed(canvas, past)", "x = self.embed(canvas, 0)"),
    ("source-padding-visible", "mask = None if real is None else", "mask = None if True else"),
]

SOURCE, CANVAS = [3, 4, 5, 6], [1, 5, 6, 7, 8]
PARALLEL = torch.ones(1, 5, dtype=torch.bool)


@pytest.fixture(params=[2, 1], ids=["as many kv_heads", "grouped queries"])
def model(request: pytest.FixtureRequest) -> EncoderDecoder:
    shape = Shape(vocab=12, dim=16, layers=2, heads=2, kv_heads=request.param, head_dim=8, hidden=24)
    return EncoderDecoder(shape, longest=8).double().requires_grad_(False)


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-12, rtol=0)


def test_one_token_at_a_time_equals_one_causal_pass(model: EncoderDecoder) -> None:
    memory, cache = model.encode(SOURCE), model.new_cache()
    steps = torch.cat([model.decode([token], memory, cache) for token in CANVAS])
    assert close(steps, model.decode(CANVAS, memory))
    assert len(cache) == len(CANVAS)


def test_several_tokens_may_follow_the_cache(model: EncoderDecoder) -> None:
    memory, cache = model.encode(SOURCE), model.new_cache()
    parts = torch.cat((model.decode(CANVAS[:2], memory, cache), model.decode(CANVAS[2:], memory, cache)))
    assert close(parts, model.decode(CANVAS, memory))


def test_causal_decoding_hides_later_tokens_and_parallel_decoding_shows_them(model: EncoderDecoder) -> None:
    memory = model.encode(SOURCE)
    other = [*CANVAS[:4], 9]
    causal = model.decode(CANVAS, memory)[0], model.decode(other, memory)[0]
    assert close(*causal)
    parallel = model.decode(CANVAS, memory, visible=PARALLEL)[0], model.decode(other, memory, visible=PARALLEL)[0]
    assert not close(*parallel)


def test_every_source_token_sees_later_ones_and_reaches_the_decoder(model: EncoderDecoder) -> None:
    changed = [*SOURCE[:3], 9]
    assert not close(model.encode(SOURCE).states[0], model.encode(changed).states[0])
    assert not close(model.decode(CANVAS, model.encode(SOURCE)), model.decode(CANVAS, model.encode(changed)))


def test_a_token_enters_as_its_vector_and_that_of_its_place(model: EncoderDecoder) -> None:
    wanted = torch.stack([model.embedding[token] + model.positions[2 + i] for i, token in enumerate(SOURCE)])
    assert close(model.embed(SOURCE, start=2), wanted)


def test_equal_tokens_at_different_places_differ(model: EncoderDecoder) -> None:
    hidden = model.decode([2, 2, 2, 2, 2], model.encode(SOURCE), visible=PARALLEL)
    assert not close(hidden[0], hidden[1])


def test_a_padded_batch_equals_each_alone(model: EncoderDecoder) -> None:
    sources = torch.tensor([[*SOURCE, 0, 0], [7, 8, 9, 3, 4, 5]])
    memory = model.encode(sources, torch.tensor([[True] * 4 + [False] * 2, [True] * 6]))
    canvases = torch.tensor([[*CANVAS, 0], [*CANVAS, 9]])
    visible = (canvases != 0)[:, None, :]
    for options, alone in (({}, {}), ({"visible": visible}, {"visible": PARALLEL})):
        hidden = model.decode(canvases, memory, **options)
        assert close(hidden[0, :5], model.decode(CANVAS, model.encode(SOURCE), **alone))


def test_one_memory_serves_a_batch_of_canvases(model: EncoderDecoder) -> None:
    memory = model.encode(SOURCE)
    hidden = model.decode(torch.tensor([CANVAS, CANVAS[::-1]]), memory)
    assert close(hidden[1], model.decode(CANVAS[::-1], memory))
    assert close(hidden[0], model.decode(CANVAS, memory))


def test_the_keys_of_the_memory_are_made_once(model: EncoderDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    kind = type(model.decoder[0].cross)
    original = kind.remember
    monkeypatch.setattr(kind, "remember", lambda self, states: calls.append(1) or original(self, states))
    translate(model, SOURCE, 6, sampler=Sampler(0), eos=11)
    assert len(calls) == model.shape.layers


def test_translate_is_the_greedy_loop_without_a_cache(model: EncoderDecoder) -> None:
    result = translate(model, SOURCE, 6, sampler=Sampler(0), eos=1)
    memory, tokens = model.encode(SOURCE), [1]
    while len(tokens) < 7 and (len(tokens) == 1 or tokens[-1] != 1):
        tokens.append(int(model.logits(model.decode(tokens, memory))[-1].argmax()))
    assert result.tokens == tokens[1:]
    assert result.passes == len(result.tokens)


def test_translate_counts_its_passes_and_stops_at_the_end_and_at_the_limit(model: EncoderDecoder) -> None:
    with counted(decoder=model.decoder[0]) as calls:
        result = translate(model, SOURCE, 5, sampler=Sampler(1, seed=3), eos=0)
    assert calls["decoder"] == result.passes
    first = result.tokens[0]
    assert translate(model, SOURCE, 1, sampler=Sampler(1, seed=3), eos=0).tokens == [first]
    assert translate(model, SOURCE, 0, sampler=Sampler(0), eos=0).tokens == []
    model.norm.weight.zero_()  # all logits alike: the greedy token is 0
    assert translate(model, SOURCE, 5, sampler=Sampler(0), eos=0).tokens == [0]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ([], "give at least one token"),
        ([3, 12], "token id 12 is outside the model's vocabulary of 12"),
        ([-1], "token id -1 is outside"),
        ([3] * 9, "9 tokens are too many: this model knows 8 positions"),
    ],
)
def test_a_bad_source_gets_one_clear_sentence(model: EncoderDecoder, source: list[int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        model.encode(source)


def test_a_canvas_beyond_the_known_positions_is_refused(model: EncoderDecoder) -> None:
    memory, cache = model.encode(SOURCE), model.new_cache()
    model.decode([3] * 8, memory, cache)
    with pytest.raises(ValueError, match="9 tokens are too many"):
        model.decode([3], memory, cache)


def test_a_translation_longer_than_the_positions_is_refused_before_it_starts(model: EncoderDecoder) -> None:
    greedy = Sampler(0)
    assert len(translate(model, SOURCE, 8, sampler=greedy, eos=11).tokens) <= 8
    with counted(encoder=model.encoder[0]) as calls, pytest.raises(ValueError, match=r"^limit is 9; .* 8 positions"):
        translate(model, SOURCE, 9, sampler=greedy, eos=11)
    assert not calls["encoder"]


def test_a_fresh_model_has_its_layers_twice_and_vectors_of_length_one() -> None:
    shape = Shape(vocab=64, dim=256, layers=3, heads=2, kv_heads=2, head_dim=8, hidden=24)
    model = EncoderDecoder(shape, longest=32)
    assert len(model.encoder) == len(model.decoder) == 3
    for table in (model.embedding, model.positions):
        assert float(table.detach().norm(dim=1).mean()) == pytest.approx(1, rel=0.05)
