"""What is peculiar to staged speculative decoding: a tree prepared by n-grams, its passes, and Katz backoff."""

from __future__ import annotations

import importlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from defaults import defaults_of
from torch import Tensor, nn

from accelgen.training.corpora import Corpus
from accelgen.training.recipes.staged_speculative_decoding import RECIPE, Counting, written
from accelgen.training.shelf import Shelf
from reference_impls.core.cache import Cache
from reference_impls.core.generation import Generation, Step
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.tree import Tree
from reference_impls.speculative_decoding import specinfer
from reference_impls.speculative_decoding import staged_speculative_decoding as staged
from reference_impls.speculative_decoding.staged_speculative_decoding import (
    Ngrams,
    bandwidth,
    count_ngrams,
    counts,
    discounts,
    generate,
    grow,
    guess,
    katz,
)
from reference_impls.testing.laws import autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import flat_model, language_model, seeded, table_model, varied_model

MUTANTS = [
    ("guesses-of-the-table-drafted", "zip(dict.fromkeys(guesses),", "zip(known or dict.fromkeys(guesses),"),
    ("known-children-read-again", "if token in known:", "if False:"),
    ("known-children-at-the-wrong-place", "places[child] = known[token]", "places[child] = places[node]"),
    ("law-of-the-node-before", "logits[[places[node] + 1 for", "logits[[places[node] for"),
    ("drafter-sees-its-tree-twice", "        cache.crop(len(tokens) - 1)\n", ""),
    ("leaves-wait-as-well", "elif depth + 1 < len(widths):", "else:"),
    ("leaves-read-as-well", "if len(tree.path(node)) < len(widths):", "if True:"),
    ("table-guesses-leaves", "if len(path) + 1 < len(widths):", "if len(path) < len(widths):"),
    ("table-guesses-one-level-alone", "frontier += [lookahead.add", "frontier + [lookahead.add"),
    ("table-sees-the-text-alone", "ngrams([*tokens[-2:], *path]", "ngrams(tokens[-2:]"),
    ("table-guesses-for-another-depth", "widths[len(path)])", "widths[len(path) - 1])"),
    ("repeated-children", "zip(dict.fromkeys(guesses),", "zip(guesses,"),
    ("judged-as-chosen-without-chance", "torch.stack(laws) if laws else None", "None"),
    ("target-keeps-the-first-nodes", " cache.keep(len(tokens), path)", " cache.crop(len(tokens) + len(path))"),
    ("drafter-forgets-the-path", "lookahead.follow(emitted[:-1])", "[]"),
    ("drafter-keeps-the-first-nodes", "lookahead.follow(emitted[:-1])", "range(len(lookahead.follow(emitted[:-1])))"),
    ("one-pass-a-level-counted", "draft_passes=draft_passes", "draft_passes=len(fitting)"),
    ("guesses-before-the-prompt-is-read", " if result.steps else ()", ""),
    ("pair-the-wrong-way-round", "text[-2] * self.shape.vocab + text[-1]", "text[-1] * self.shape.vocab + text[-2]"),
    ("backs-off-to-the-token-before", "after_one[text[-1]]", "after_one[text[-2 :][0]]"),
    ("backs-off-to-the-first-of-the-pair", "after_token(pairs[part] % vocab)", "after_token(pairs[part] // vocab)"),
    ("rarest-pairs-kept", "argsort(descending=True, stable=True)", "argsort(stable=True)"),
    ("mass-of-the-unseen-lost", "law += (1 - law.sum(-1, keepdim=True))", "law += 0"),
    ("nothing-is-discounted", "seen * d[seen.clamp(max=RELIABLE + 1)]", "seen"),
    ("reliable-counts-are-discounted", "clamp(max=RELIABLE + 1)", "clamp(max=RELIABLE)"),
    ("good-turing-the-wrong-way-round", "(r + 1) * times[2:] / (r *", "r * times[2:] / ((r + 1) *"),
    ("rare-ones-not-made-up-for", "- rare) / (1 - rare)", ")"),
    ("pairs-discounted-as-triples", "every, vocab), d_2, one", "every, vocab), d_3, one"),
    ("discounts-of-the-kept-alone", "katz(table, d_3,", "katz(table, discounts(table.flatten()),"),
    ("drafters-bytes-forgotten", " + result.draft_passes * of_drafter", ""),
]

PROMPT = [5, 3, 8, 1]


class Told(Ngrams):
    """A table that is told what to say after the last token."""

    def __init__(self, vocab: int, tell: Callable[[int, int], list[int]]) -> None:
        super().__init__(shape(vocab))
        self.tell = tell

    def forward(self, text: Sequence[int], count: int) -> list[int]:
        """What it was told."""
        return self.tell(text[-1], count)


def shape(vocab: int) -> Shape:
    return Shape(vocab, dim=0, layers=1, heads=0, kv_heads=0, head_dim=0, hidden=0)


def table(vocab: int, seed: int = 0) -> Ngrams:
    """A table of chance."""
    with seeded(seed):
        return Ngrams(shape(vocab))


def last_token_drafter(vocab: int = 11) -> tuple[LanguageModel, Tensor]:
    """A drafter that looks at the last token only, and its laws."""
    with seeded(3):
        rows = torch.rand(vocab, vocab, dtype=torch.float64).pow(2) + 0.01
    rows /= rows.sum(-1, keepdim=True)
    return table_model(rows.tolist()), rows


# The law


@pytest.fixture
def one_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run ends after its first tree, which is that of the second step: the first one reads the prompt."""

    def add(self: Generation, step: Step, _limit: int, _eos: Any = None) -> bool:
        self.tokens += step.emitted
        self.steps.append(step)
        return not step.drafted

    monkeypatch.setattr(Generation, "add", add)


@pytest.mark.usefixtures("one_tree")
@pytest.mark.parametrize("widths", [(2, 1), (1, 2), (1, 1, 1)])
@pytest.mark.parametrize("tell", [lambda _, count: [0, 1][:count], lambda last, _: [last], lambda *_: []])
def test_the_law_of_a_step_is_the_targets_whatever_the_table_says(
    widths: tuple[int, ...], tell: Callable[[int, int], list[int]]
) -> None:
    target, drafter, length = flat_model(2), language_model(2, seed=171, layers=1), len(widths) + 2
    own: dict[str, Any] = {"drafter": drafter, "ngrams": Told(2, tell), "widths": widths}
    law: Counter[tuple[int, ...]] = Counter()
    for text, chance in exact_law(lambda s: generate(target, [0, 1], 9, sampler=s, **own)).items():
        for more, share in autoregressive_law(target, [0, 1, *text], length - len(text)).items():
            law[*text, *more] += chance * share  # type: ignore[assignment]
    assert total_variation(law, autoregressive_law(target, [0, 1], length)) < 1e-12


def with_kept(result: Generation) -> Generation:
    return Generation([result.steps[-1].kept, *result.tokens])


class Narrow(LanguageModel):
    """A drafter that gives no chance to the tokens from 2 on."""

    def logits(self, x: Tensor) -> Tensor:
        found = super().logits(x)
        found[..., 2:] = -torch.inf
        return found


@pytest.mark.usefixtures("one_tree")
@pytest.mark.parametrize(
    ("kind", "vocab", "widths"), [(LanguageModel, 2, (2, 1)), (LanguageModel, 3, (1, 1)), (Narrow, 3, (3,))]
)
def test_a_step_keeps_what_specinfer_keeps_of_the_same_drafter(
    kind: type[LanguageModel], vocab: int, widths: tuple[int, ...]
) -> None:
    """The joint law of how much is kept and of the text: the table changes neither."""
    target, drafter = flat_model(vocab), kind(flat_model(vocab).shape).double()
    drafter.load_state_dict(language_model(vocab, seed=9).state_dict())
    own: dict[str, Any] = {"drafter": drafter, "ngrams": table(vocab), "widths": widths}
    found = exact_law(lambda s: with_kept(generate(target, [0, 1], 9, sampler=s, **own)))
    other: dict[str, Any] = {"drafters": [drafter], "expansion": widths}
    wanted = exact_law(lambda s: with_kept(specinfer.generate(target, [0, 1], 9, sampler=s, **other)))
    assert total_variation(found, wanted) < 1e-12


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_drafter_with_fewer_possible_tokens_than_children_drafts_those_it_has(temperature: float) -> None:
    with seeded(7):
        drafter = Narrow(language_model(5).shape).double()
    sampler = Sampler(temperature, seed=1)
    tree, laws, _, _ = grow(sampler, drafter, table(5), [0, 1], read(drafter, [0, 1]), (3, 4))
    assert [sorted(tree.tokens[node] for node in tree.children(node)) for node in (-1, 0, 1)] == [[0, 1]] * 3
    assert len(laws) == len(tree) == 6


# The tree


def read(drafter: Any, text: Sequence[int] = PROMPT) -> Cache:
    """A cache that holds all of a text but the last token, as between turns."""
    cache = drafter.new_cache()
    drafter(list(text[:-1]), cache)
    return cache


def tokens_of(tree: Tree, node: int) -> list[int]:
    return [tree.tokens[i] for i in tree.path(node)]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_every_child_is_a_draw_of_the_drafter_over_what_its_elder_siblings_left(temperature: float, seed: int) -> None:
    sampler, drafter = Sampler(temperature, seed=seed), varied_model()
    tree, laws, _, passes = grow(sampler, drafter, table(11, seed), PROMPT, read(drafter), (3, 2, 1, 2))
    depths = Counter(len(tree.path(node)) for node in range(len(tree)))
    assert depths == {1: 3, 2: 6, 3: 6, 4: 12}
    assert 1 < passes <= 4
    for node, parent in enumerate(tree.parents):
        logits = drafter([*PROMPT, *tokens_of(tree, parent)])[-1]
        elders = [tree.tokens[i] for i in tree.children(parent) if i < node]
        logits[elders] = -torch.inf
        torch.testing.assert_close(laws[node], sampler.probs(logits), rtol=1e-9, atol=1e-12)
        assert tree.tokens[node] not in elders
        if temperature == 0:
            assert tree.tokens[node] == int(logits.argmax())


def test_a_table_that_knows_the_drafter_saves_all_passes_but_one_and_one_that_does_not_saves_none() -> None:
    drafter, rows = last_token_drafter()
    best = rows.argsort(descending=True).tolist()
    found = {}
    for name, tell in {
        "knows": lambda last, count: best[last][:count],
        "never": lambda last, count: best[last][::-1][:count],
        "first": lambda last, _: best[last][:1],
    }.items():
        ngrams, widths = Told(11, tell), (2, 2, 1, 1)
        tree, _, lookahead, found[name] = grow(Sampler(0), drafter, ngrams, PROMPT, read(drafter), widths)
        assert Counter(len(tree.path(node)) for node in range(len(tree))) == {1: 2, 2: 4, 3: 4, 4: 4}
        inner = {tuple(tokens_of(tree, node)) for node in range(len(tree)) if len(tree.path(node)) < 4}
        assert inner <= {tuple(tokens_of(lookahead, node)) for node in range(len(lookahead))}
        assert max(len(lookahead.path(node)) for node in range(len(lookahead))) == 3  # nobody reads the leaves
        if name == "knows":
            assert len(lookahead) == len(inner)
    assert found == {"knows": 1, "never": 4, "first": 3}  # a second child waits, at the first and the second depth


@pytest.mark.parametrize("seed", range(6))
def test_a_pass_is_added_where_a_path_leaves_what_the_table_has_guessed(seed: int) -> None:
    drafter, widths = varied_model(), (2, 2, 2, 1)
    with seeded(seed):
        ngrams = Ngrams(shape(11), width=6)
    monkey = Told(11, lambda last, count: ngrams([last], count * 3))  # six guesses of eleven tokens, so some are right
    tree, _, _, passes = grow(Sampler(1.0, seed=seed), drafter, monkey, PROMPT, read(drafter), widths)
    number = {-1: 1}
    for node, parent in enumerate(tree.parents):
        if len(tree.path(node)) < len(widths):
            last = tree.tokens[parent] if parent >= 0 else PROMPT[-1]
            wide = widths[len(tree.path(parent))]
            number[node] = number[parent] + (tree.tokens[node] not in monkey([last], wide))
    assert passes == max(number.values())


def test_the_table_guesses_below_waiting_nodes_from_the_text_and_the_path() -> None:
    seen = []

    class Watched(Ngrams):
        def forward(self, text: Sequence[int], count: int) -> list[int]:
            seen.append((list(text), count))
            return [7, 9][:count]

    tree = Tree()
    for token, parent in ((4, -1), (6, -1), (2, 0)):
        tree.add(token, parent)
    lookahead, places = guess(Watched(shape(11)), PROMPT, tree, [1, 2], (2, 1, 2, 2))
    assert seen == [([8, 1, 6], 1), ([8, 1, 4, 2], 2), ([8, 1, 6, 7], 2)]
    assert places == {1: 1, 2: 2}
    assert lookahead.tokens == [4, 6, 2, 7, 7, 9, 7, 9]
    assert lookahead.parents == [-1, -1, 0, 1, 2, 2, 3, 3]


# Caches and passes


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_both_caches_keep_what_they_have_seen_of_the_accepted_path(
    temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, seen, original = varied_model(), list[tuple[int, int]](), staged.grow
    caches: list[Cache] = []
    make = LanguageModel.new_cache
    monkeypatch.setattr(LanguageModel, "new_cache", lambda self: caches.append(make(self)) or caches[-1])

    def watched(*given: Any) -> Any:
        seen.append((len(given[4]), len(given[3])))
        return original(*given)

    monkeypatch.setattr(staged, "grow", watched)
    own: dict[str, Any] = {"drafter": target, "ngrams": table(11), "widths": (2, 1, 1)}
    result = generate(target, PROMPT, 17, sampler=Sampler(temperature, seed=1), **own)
    text = PROMPT + result.tokens
    assert len(caches) == 2
    for cache in caches:
        n, fresh = min(len(cache), len(text)), make(target)
        target(text[:n], fresh)
        for layer in range(target.shape.layers):
            torch.testing.assert_close(cache._store[layer, :, :, :n], fresh._store[layer, :, :, :n])
    if temperature == 0:  # the target drafts for itself: all is kept, and only the last guess and the extra are unseen
        assert [step.kept for step in result.steps] == [0] + [3] * 4
        assert seen[:2] == [(0, len(PROMPT)), (0, len(PROMPT) + 1)]  # nothing is drafted before the prompt is read
        assert all(tokens - held == 2 for held, tokens in seen[2:])


def test_a_step_counts_the_passes_that_the_drafter_ran() -> None:
    drafter, rows = last_token_drafter()
    best = rows.argsort(descending=True).tolist()
    for tell, passes in ((lambda last, count: best[last][:count], 1), (lambda *_: [], 3)):
        own: dict[str, Any] = {"drafter": drafter, "ngrams": Told(11, tell), "widths": (2, 2, 1)}
        found = generate(varied_model(), PROMPT, 9, sampler=Sampler(0), **own)
        first, second, *others = [step.draft_passes for step in found.steps]
        assert first == 0
        assert second == max(passes, 2), "the drafter reads the prompt alone"
        assert set(others) == {passes}


def test_the_bytes_of_a_token_are_those_of_all_passes_over_those_of_plain_decoding() -> None:
    large, small = nn.Linear(10, 10, bias=False), nn.Linear(5, 4, bias=False).double()
    result = Generation([0] * 8, [Step([0] * 4, draft_passes=3), Step([0] * 4, draft_passes=2)])
    assert bandwidth(result, large, small) == pytest.approx((2 * 400 + 5 * 160) / (8 * 400))
    plain = Generation([0] * 8, [Step([0])] * 8)
    assert bandwidth(plain, large, small) == 1


# The table


def plain_katz(text: Sequence[int], vocab: int, pair: tuple[int, int]) -> list[float]:
    """The trigram law with Katz backoff, by the book."""

    def discounts(grams: Counter[tuple[int, ...]]) -> dict[int, float]:
        times, found = Counter(grams.values()), {}
        rare = 6 * times[6] / times[1]
        for r in range(1, 6):
            d = ((r + 1) * times[r + 1] / (r * times[r]) - rare) / (1 - rare) if times[r] and rare != 1 else math.nan
            found[r] = d if 0 < d < 1 else 0.5
        return found

    def back_off(grams: Counter[tuple[int, ...]], context: tuple[int, ...], shorter: list[float]) -> list[float]:
        d, total = discounts(grams), sum(grams[*context, z] for z in range(vocab))
        seen = [grams[*context, z] for z in range(vocab)]
        law = [d.get(n, 1.0) * n / total if n else 0.0 for n in seen]
        unseen = sum(s for s, n in zip(shorter, seen, strict=True) if not n)
        if not unseen:
            return [p / sum(law) for p in law]
        return [p or (1 - sum(law)) * s / unseen for p, s in zip(law, shorter, strict=True)]

    ones = [(text.count(z) + 1) / (len(text) + vocab) for z in range(vocab)]
    twos = Counter(pairwise(text))
    threes = Counter(zip(text, text[1:], text[2:], strict=False))
    return back_off(threes, pair, back_off(twos, pair[1:], ones))


def zipf_text(vocab: int = 12, length: int = 900) -> list[int]:
    """A text in which much is seen once and little often."""
    with seeded(5):
        rows = (torch.rand(vocab, vocab) ** 8 + 0.003).cumsum(-1)
        draws, text = torch.rand(length), [0]
    for u in draws.tolist():
        row = rows[(3 * text[-1] + (text[-2] if len(text) > 1 else 0)) % vocab]
        text.append(int(torch.searchsorted(row, u * row[-1])))
    return text


def test_guesses_are_the_likeliest_tokens_of_a_trigram_model_with_katz_backoff() -> None:
    text, vocab = zipf_text(), 12
    found, known = count_ngrams(text, vocab, contexts=10**6, width=3), Counter(pairwise(text[:-1]))
    assert sorted(found.pairs.tolist()) == sorted(a * vocab + b for a, b in known)
    for pair in known:
        law = plain_katz(text, vocab, pair)
        guesses = found([4, 4, *pair], 3)
        assert sorted(law, reverse=True)[:3] == pytest.approx([law[token] for token in guesses], rel=1e-4)
        assert len(set(guesses)) == 3
        assert found([*pair], 1) == guesses[:1]


def test_the_laws_of_both_orders_are_those_of_the_book_and_sum_to_one() -> None:
    text, vocab = torch.tensor(zipf_text()), 12
    one = (text.bincount(minlength=vocab) + 1.0).expand(vocab, -1) / (len(text) + vocab)
    seen = counts(text[:-1], text[1:], torch.arange(vocab), vocab)
    two = katz(seen, discounts(seen.flatten()), one)
    torch.testing.assert_close(two.sum(-1), torch.ones(vocab, dtype=torch.float64))
    assert (two > 0).all()
    pair = (int(text[0]), int(text[1]))
    chosen = (text[:-2] == pair[0]) & (text[1:-1] == pair[1])
    pairs, which = (text[:-2] * vocab + text[1:-1]).unique(return_inverse=True)
    table = counts(which, text[2:], torch.arange(len(pairs)), vocab)
    three = katz(table, discounts(table.flatten()), two[pairs % vocab])
    torch.testing.assert_close(three.sum(-1), torch.ones(len(pairs), dtype=torch.float64))
    wanted = plain_katz(text.tolist(), vocab, pair)
    assert three[which[chosen][0]].tolist() == pytest.approx(wanted, rel=1e-4)


def test_the_commonest_pairs_are_kept_and_others_back_off_to_their_last_token() -> None:
    text, vocab = zipf_text(), 12
    whole, few = (count_ngrams(text, vocab, contexts=n, width=2) for n in (10**6, 5))
    pairs = Counter(pairwise(text[:-1]))
    kept = [(int(n) // vocab, int(n) % vocab) for n in few.pairs]
    assert sorted(pairs[pair] for pair in kept) == sorted(sorted(pairs.values())[-5:])
    for pair in pairs:
        wanted = whole(pair, 2) if pair in kept else few([pair[1]], 2)
        assert few(pair, 2) == wanted
    assert few([7], 2) == few.after_one[7].tolist() == whole([7], 2)


def test_a_table_has_no_more_guesses_than_tokens() -> None:
    assert sorted(count_ngrams([0, 1, 1, 0, 1], 2, contexts=9)([0, 1], 9)) == [0, 1]
    assert sorted(table(3)([2], 9)) == [0, 1, 2]


def test_the_recipe_counts_what_the_drafter_writes_at_its_temperature() -> None:
    drafter = last_token_drafter()[0].float()
    settings = Counting(texts=5, length=40, temperature=1.5, contexts=50, width=2)
    text = written(drafter, settings, together=3)
    assert text.shape == (200,)
    assert text.view(5, 40)[:, 0].tolist() == [0] * 5
    assert len({tuple(row) for row in text.view(5, 40).tolist()}) == 5
    hot = written(drafter, Counting(texts=200, length=20, temperature=1.5)).view(200, 20)
    law = torch.log(last_token_drafter()[1]).div(1.5).softmax(-1).float()
    after = hot[:, 1:][hot[:, :-1] == 4].bincount(minlength=11)
    assert 0.5 * (after / after.sum() - law[4]).abs().sum() < 0.12
    shelf = Shelf(read=lambda _: Corpus([], [], {}, {}))
    shelf.load = lambda _: drafter  # type: ignore[method-assign]
    part = RECIPE.train(shelf, settings)
    again = count_ngrams(written(drafter, settings), 11, contexts=50, width=2)
    assert torch.equal(part.module.pairs, again.pairs)
    made = Ngrams(**part.arguments)
    made.load_state_dict(part.module.state_dict())
    assert made([3, 4], 2) == part.module([3, 4], 2)


@pytest.mark.parametrize("widths", [(), (2, 0), (1, 12)])
def test_widths_that_cannot_be_are_one_sentence(widths: tuple[int, ...]) -> None:
    own: dict[str, Any] = {"drafter": language_model(11), "ngrams": table(11), "widths": widths}
    with pytest.raises(ValueError, match=r"^widths are \(.*\); give for each depth a number from 1 to the 11 tokens"):
        generate(varied_model(), PROMPT, 3, sampler=Sampler(0), **own)


def test_a_table_of_another_tokenizer_and_a_broken_drafter_are_named() -> None:
    drafter, target = language_model(11), varied_model()
    with pytest.raises(ValueError, match="vocabularies of 11 and 11 and 10 tokens"):
        generate(target, PROMPT, 3, drafter=drafter, ngrams=table(10), sampler=Sampler(0))
    with torch.no_grad():
        drafter.embedding.fill_(torch.nan)
    with pytest.raises(ValueError, match="the drafter's logits are not finite"):
        generate(target, PROMPT, 3, drafter=drafter, ngrams=table(11), sampler=Sampler(0))


def test_defaults_are_the_documented_ones() -> None:
    module = importlib.import_module("reference_impls.speculative_decoding.staged_speculative_decoding")
    assert defaults_of(module) == {
        "generate.widths": (3, 2, 1, 1),
        "Ngrams.contexts": 0,
        "Ngrams.width": 4,
        "count_ngrams.width": 4,
    }
