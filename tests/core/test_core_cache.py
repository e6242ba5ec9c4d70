"""The key-value cache: growth, rolling back, repair after a tree, layers that lag."""

import pytest
import torch

from reference_impls.core.cache import Cache

MUTANTS = [
    ("cache-rolled-back-one-short", "min(n, length) for", "min(n, length + 1) for"),
    ("crop-lengthens-layers-that-lag", "[min(n, length) for", "[length for"),
    ("keep-the-first-slots", "index_select(3, rows)", "narrow(3, length, len(path)).clone()"),
    ("keep-from-the-start", "dtype=torch.long) + length", "dtype=torch.long)"),
    ("growth-loses-the-past", "new[:, :, :, : old.shape[3]] = old", "pass"),
    ("length-of-the-longest-layer", "return min(self._lengths)", "return max(self._lengths)"),
]


def made(layers=2, tokens=0, first=0):
    """A cache whose keys at place i are all i + first, and whose values are the negatives."""
    cache = Cache(layers, 1, 2, torch.float64, torch.device("cpu"))
    for layer in range(layers):
        extend(cache, layer, range(first, first + tokens))
    return cache


def extend(cache, layer, numbers):
    k = torch.tensor(list(numbers), dtype=torch.float64).view(1, -1, 1).expand(1, -1, 2)
    return cache.append(layer, k, -k)


def held(cache, layer):
    """The numbers that a layer holds, read without changing it."""
    k, v = extend(cache, layer, [])
    assert torch.equal(k, -v)
    return k[0, :, 0].tolist()


def test_append_returns_everything_so_far():
    cache = made(tokens=3)
    k, v = extend(cache, 0, [7, 8])
    assert k[0, :, 0].tolist() == [0, 1, 2, 7, 8]
    assert torch.equal(v, -k)
    assert (cache.length(0), cache.length(1), len(cache)) == (5, 3, 3)


@pytest.mark.parametrize("start", [0, 1, 63, 64, 65])
def test_growth_keeps_what_was_there(start):
    cache = made(tokens=start)
    extend(cache, 1, range(start, start + 300))
    assert held(cache, 1) == list(range(start + 300))
    assert held(cache, 0) == list(range(start))


def test_crop_forgets_from_a_place_on_in_all_layers():
    cache = made(tokens=5)
    cache.crop(3)
    assert held(cache, 0) == held(cache, 1) == [0, 1, 2]
    extend(cache, 0, [9])
    assert held(cache, 0) == [0, 1, 2, 9]


def test_crop_never_makes_a_layer_longer():
    cache = made(tokens=2)
    extend(cache, 0, [2, 3])
    cache.crop(3)
    assert (held(cache, 0), held(cache, 1)) == ([0, 1, 2], [0, 1])
    cache.crop(50)
    assert (held(cache, 0), held(cache, 1)) == ([0, 1, 2], [0, 1])


def test_crop_to_a_negative_length_is_refused():
    with pytest.raises(ValueError, match="cannot crop a cache to a length of -1"):
        made(tokens=2).crop(-1)


@pytest.mark.parametrize("path", [[], [0], [1], [0, 2, 5], [3, 5], [0, 1, 2, 3, 4, 5], [4, 2]])
def test_keep_holds_the_slots_of_the_path_in_its_order(path):
    cache = made(tokens=10)  # four committed tokens, then a tree pass of six
    cache.keep(4, path)
    assert held(cache, 0) == held(cache, 1) == [0, 1, 2, 3, *(4 + slot for slot in path)]


@pytest.mark.parametrize(("length", "path"), [(4, [6]), (4, [0, 99]), (4, [-1]), (11, []), (-1, [0])])
def test_keep_refuses_slots_that_hold_nothing(length, path):
    cache = made(tokens=10)
    with pytest.raises(ValueError, match=rf"cannot keep slots .* from {length} on: the cache holds 10 tokens"):
        cache.keep(length, path)
    assert held(cache, 0) == list(range(10))


def test_keep_then_append_continues_after_the_path():
    cache = made(tokens=10)
    cache.keep(4, [0, 3])
    extend(cache, 0, [99])
    assert held(cache, 0) == [0, 1, 2, 3, 4, 7, 99]


def test_the_length_is_that_of_the_layer_that_lags_most():
    cache = made(layers=3, tokens=4)
    extend(cache, 0, [4, 5])
    extend(cache, 1, [4])
    assert [cache.length(layer) for layer in range(3)] == [6, 5, 4]
    assert len(cache) == 4


def test_room_is_doubled_so_that_appending_one_by_one_moves_little():
    cache, moves = made(layers=1, tokens=64), 0
    for length in range(64, 300):
        before = cache._store.shape[3]
        extend(cache, 0, [length])
        moves += cache._store.shape[3] != before
        assert cache._store.shape[3] >= length + 1
    assert moves == 3  # to 128, 256 and 512
