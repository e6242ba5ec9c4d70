"""Several sequences in one pass: each gets the logits that it would get alone, whatever the others do."""

from __future__ import annotations

import itertools

import pytest
import torch

from reference_impls.core.batch import Batch
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel

CLOSE = {"rtol": 1e-10, "atol": 1e-10}
TEXTS = [[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8], [1, 6, 1, 8, 0, 3, 3, 9], [5]]


@pytest.fixture(scope="module", params=[{}, {"qkv_bias": True, "kv_heads": 2, "tied": False}, {"qk_norm": True}])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    torch.manual_seed(2)
    numbers = {"vocab": 11, "dim": 12, "layers": 3, "heads": 4, "kv_heads": 4, "head_dim": 4, "hidden": 10}
    return LanguageModel(Shape(**(numbers | request.param))).double().requires_grad_(False)


class Alone:
    """The same calls, one sequence after another, each with a cache of its own: what a batch must equal."""

    def __init__(self, model: LanguageModel, rows: int) -> None:
        self.model, self.caches = model, [model.new_cache() for _ in range(rows)]

    def __call__(self, tokens: list[list[int]], last: int | None = None) -> list[torch.Tensor]:
        some = zip(tokens, self.caches, strict=True)
        found = [self.model(row, cache) if row else torch.empty(0, 11).double() for row, cache in some]
        return found if last is None else [logits[-last:] for logits in found]

    def crop(self, lengths: list[int]) -> None:
        for cache, length in zip(self.caches, lengths, strict=True):
            cache.crop(length)

    def keep(self, rows: list[int]) -> None:
        self.caches = [self.caches[row] for row in rows]


def agree(batch: Batch, alone: Alone, tokens: list[list[int]], last: int | None = None) -> None:
    found, wanted = batch(tokens, last=last), alone(tokens, last)
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)
    assert batch.lengths == [len(cache) for cache in alone.caches]


@pytest.mark.parametrize("counts", [*filter(any, itertools.product([0, 1, 3], repeat=3))])
@pytest.mark.parametrize("begun", [(0, 0, 0), (1, 4, 2), (3, 3, 3), (0, 5, 0)])
def test_any_mixture_of_lengths_and_feeds(model, begun, counts):
    batch, alone = Batch(model, 3), Alone(model, 3)
    if any(begun):
        agree(batch, alone, [text[:n] for text, n in zip(TEXTS, begun, strict=False)])
    feeds = [text[start : start + n] for text, start, n in zip(TEXTS, begun, counts, strict=False)]
    agree(batch, alone, feeds)
    agree(batch, alone, [[7], [], [2, 4]])


@pytest.mark.parametrize("lengths", [*itertools.product([0, 2, 9], repeat=3)])
def test_rows_are_taken_back_each_for_itself(model, lengths):
    batch, alone = Batch(model, 3), Alone(model, 3)
    agree(batch, alone, TEXTS[:3])
    batch.crop(lengths)
    alone.crop(lengths)
    assert batch.lengths == [min(n, len(text)) for n, text in zip(lengths, TEXTS, strict=False)]
    agree(batch, alone, [[5, 5, 5], [6], [7, 7]])
    agree(batch, alone, [[1], [1], [1]])


@pytest.mark.parametrize("rows", [[0], [3, 1], [0, 2, 3], [3, 0, 1, 2], [1, 2, 3], [2, 2]])
def test_rows_that_have_ended_leave_the_others_as_they_are(model, rows):
    batch, alone = Batch(model, 4), Alone(model, 4)
    agree(batch, alone, TEXTS)
    batch.keep(rows)
    assert len(batch) == len(rows)
    if len(set(rows)) == len(rows):
        alone.keep(rows)
        agree(batch, alone, [[row, 3] for row in rows])
    else:  # one text that goes on in two ways
        one, other = batch([[4], [9]])
        alone.keep(rows[:1])
        torch.testing.assert_close(one, alone([[4]])[0], **CLOSE)
        alone.crop([len(TEXTS[rows[0]])])
        torch.testing.assert_close(other, alone([[9]])[0], **CLOSE)


def test_one_sequence_may_go_on_in_more_ways_than_there_are_rows(model):
    batch, alone = Batch(model, 1), Alone(model, 1)
    agree(batch, alone, TEXTS[:1])
    batch.keep([0, 0, 0])
    for row, logits in enumerate(batch([[4], [5], [6]])):
        alone.crop([len(TEXTS[0])])
        torch.testing.assert_close(logits, alone([[4 + row]])[0], **CLOSE)
    batch.crop([2, 2, 2])
    alone.crop([2])
    wanted = alone([[7]])[0]
    for logits in batch([[7]] * 3):
        torch.testing.assert_close(logits, wanted, **CLOSE)


def test_rows_that_stay_where_they_are_are_not_copied(model):
    batch, where = Batch(model, 4), None
    batch(TEXTS)
    where = batch._store.data_ptr()
    batch.keep([0, 3, 2])
    assert batch._store.data_ptr() == where
    batch.keep([0, 1])
    assert batch._store.data_ptr() == where


@pytest.mark.parametrize("last", [1, 2, 5])
def test_last_reads_out_the_last_tokens_alone(model, last):
    batch, alone = Batch(model, 4), Alone(model, 4)
    agree(batch, alone, TEXTS, last=last)
    agree(batch, alone, [[1, 2, 3], [], [4], [5, 6]], last=last)


def test_a_batch_grows_only_where_it_has_to(model):
    batch = Batch(model, 2)
    capacity = batch._store.shape[-2]
    batch([[1, 2], [3]])
    assert batch._store.shape[-2] == capacity
    batch([[1] * capacity, [2]])
    assert batch._store.shape[-2] == 2 * capacity


def test_growth_keeps_what_was_there(model):
    batch, alone = Batch(model, 2), Alone(model, 2)
    long = [i % 11 for i in range(200)]
    for feeds in ([long[:63], [1]], [long[63:65], [2]], [long[65:], [3, 4]], [[], long[:150]]):
        agree(batch, alone, feeds)


def test_what_lies_beyond_a_sequence_is_not_seen_even_where_it_is_huge(model):
    batch, alone = Batch(model, 2), Alone(model, 2)
    agree(batch, alone, [TEXTS[0], TEXTS[1]])
    batch.crop([2, 6])
    alone.crop([2, 6])
    batch._store[:, :, 0, :, 2:] = 1e30
    agree(batch, alone, [[4], [4, 4, 4]])


def test_a_first_pass_builds_no_mask(model, monkeypatch):
    monkeypatch.setattr("reference_impls.core.batch.attention_mask", lambda *_: pytest.fail("a mask was built"))
    Batch(model, 3)(TEXTS[:3])


def test_the_weights_are_read_once_for_all(model, monkeypatch):
    calls = []
    block, feed = model.blocks[0], model.blocks[0].feed
    monkeypatch.setattr(block, "feed", lambda x: calls.append(x.shape[:2]) or feed(x))
    Batch(model, 4)(TEXTS)
    assert calls == [(8 + 6 + 8 + 1, 12)]  # and for no place that is padded


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda batch: batch([[1]]), r"tokens is \[\[1\]\]; give for each of the 2 sequences a list of new ones"),
        (lambda batch: batch([[], []]), "no token to run the model on"),
        (lambda batch: batch([[1], [11]]), "token id 11 is outside the model's vocabulary of 11"),
        (lambda batch: batch.crop([1]), r"lengths is \[1\]; give for each of the 2 sequences 0 tokens or more"),
        (lambda batch: batch.crop([1, -1]), r"lengths is \[1, -1\]; give for each of the 2 sequences"),
        (lambda batch: batch.keep([]), r"rows is \[\]; name sequences to keep, from 0 to 1"),
        (lambda batch: batch.keep([0, 2]), r"rows is \[0, 2\]; name sequences to keep, from 0 to 1"),
        (lambda batch: Batch(batch.model, 0), "rows is 0; a batch has at least 1 sequence"),
    ],
)
def test_what_is_no_batch_is_refused_and_changes_nothing(model, call, sentence):
    batch, alone = Batch(model, 2), Alone(model, 2)
    agree(batch, alone, [[1, 2], [3]])
    with pytest.raises(ValueError, match=sentence):
        call(batch)
    agree(batch, alone, [[4], [5, 6]])
