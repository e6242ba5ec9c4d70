"""What is peculiar to REST: suffix array, longest match, weighted trie, and the law that the published code misses."""

from __future__ import annotations

import importlib
from collections import Counter
from dataclasses import replace
from itertools import accumulate, takewhile

import pytest
import torch
from defaults import defaults_of
from torch import Tensor

from accelgen.training.corpora import Corpus
from accelgen.training.recipes.rest import RECIPE, retrieval
from accelgen.training.shelf import Shelf
from reference_impls import zoo
from reference_impls.core.generation import Generation
from reference_impls.core.sampling import Sampler
from reference_impls.core.tree import Tree
from reference_impls.speculative_decoding.rest import Datastore, generate, suffix_array, trie
from reference_impls.testing import Scene, options
from reference_impls.testing.laws import autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import Foresight, flat_model, varied_model

MUTANTS = [
    ("suffixes-sorted-by-two-tokens", "        width *= 2\n", "        break\n"),
    ("shortest-match-first", "range(min(longest, len(context)), 0, -1)", "range(1, min(longest, len(context)) + 1)"),
    ("continuation-begins-with-the-match", "torch.arange(n, n + gamma,", "torch.arange(n - 1, n - 1 + gamma,"),
    ("rarest-continuations", "descending=True, stable=True", "descending=False, stable=True"),
    ("prefixes-told-apart-by-their-last-token", "(rows[1:] != rows[:-1]).cumsum(1) > 0", "rows[1:] != rows[:-1]"),
    ("end-of-the-datastore-guessed", "rows[start, depth] >= 0", "rows[start, depth] >= -1"),
    ("nodes-kept-in-order", "cache.keep(len(tokens), path)", "cache.crop(len(tokens) + len(path))"),
    (
        "nodes-placed-in-a-row",
        "positions = [*unseen, *tree.tokens], len(cache) + depths",
        "positions = [*unseen, *tree.tokens], len(cache) + torch.arange(len(depths))",
    ),
    (
        "draw-again-after-a-mismatch",
        "path, extra = verify_tree(sampler, tree, p)",
        "path, _ = verify_tree(sampler, tree, p); extra = int(sampler.draw(p[path[-1] + 1 if path else 0]))",
    ),
    ("datastore-of-any-tokenizer", "(datastore.tokens >= vocab).any()", "False"),
]


def random_text(seed: int) -> list[int]:
    """Up to 60 tokens of a vocabulary of 1 to 4, so that much repeats."""
    generator = torch.Generator().manual_seed(seed)
    length = int(torch.randint(1, 60, (), generator=generator))
    return torch.randint(1 + seed % 4, (length,), generator=generator).tolist()


def scan(text: list[int], context: list[int], longest: int) -> tuple[int, list[int]]:
    """The longest suffix of the context in the text, and where it occurs, by looking everywhere."""
    for n in range(min(longest, len(context)), 0, -1):
        places = [i for i in range(len(text) - n + 1) if text[i : i + n] == context[-n:]]
        if places:
            return n, places
    return 0, []


def paths(tree: Tree) -> list[tuple[int, ...]]:
    """The tokens from the root to each node."""
    return [tuple(tree.tokens[node] for node in tree.path(end)) for end in range(len(tree))]


@pytest.mark.parametrize("seed", range(40))
def test_the_suffix_array_is_the_sorted_order_of_all_suffixes(seed: int) -> None:
    text = random_text(seed)
    wanted = sorted(range(len(text)), key=lambda start: text[start:])
    for kind in (torch.int16, torch.int64):
        assert suffix_array(torch.tensor(text, dtype=kind)).tolist() == wanted


def test_an_empty_text_has_an_empty_suffix_array() -> None:
    store = Datastore([])
    assert store.order.tolist() == []
    assert store.match([1, 2], 4) == (0, 0, 0)
    assert len(store.draft([1, 2], longest=4, gamma=2, nodes=3)) == 0


@pytest.mark.parametrize("seed", range(40))
def test_the_longest_match_is_that_of_a_scan(seed: int) -> None:
    text, store = random_text(seed), Datastore(random_text(seed))
    for context in (random_text(seed + 100), random_text(seed + 200)[:3], text[:5], [9]):
        n, first, end = store.match(context, 6)
        assert (n, sorted(store.order[first:end].tolist())) == scan(text, context, 6)


@pytest.mark.parametrize("seed", range(40))
def test_the_tree_holds_the_heaviest_prefixes_of_all_continuations(seed: int) -> None:
    text, context, gamma = random_text(seed), random_text(seed + 100)[:8], 3
    n, places = scan(text, context, 5)
    continuations = [text[i + n : i + n + gamma] for i in places]
    weights = Counter(tuple(row[:depth]) for row in continuations for depth in range(1, len(row) + 1))
    for nodes in (1, 4, 99):
        found = paths(Datastore(text).draft(context, longest=5, gamma=gamma, nodes=nodes))
        assert len(set(found)) == len(found) == min(nodes, len(weights))
        assert all(path[:-1] in found for path in found if len(path) > 1)  # a parent is never pruned before its child
        chosen = sorted((weights[path] for path in found), reverse=True)
        assert chosen == sorted(weights.values(), reverse=True)[:nodes]


def test_the_end_of_the_text_is_no_guess() -> None:
    rows = torch.tensor([[1, -1, -1], [1, 2, -1], [1, 2, 2]], dtype=torch.int16)
    assert paths(trie(rows, 9)) == [(1,), (1, 2), (1, 2, 2)]


def test_where_nothing_is_found_a_step_is_an_ordinary_one() -> None:
    target = varied_model()
    run = generate(target, [5, 3], 6, datastore=Datastore([]), sampler=Sampler(0))
    assert [(step.drafted, step.kept, len(step.emitted)) for step in run.steps] == [([], 0, 1)] * 6


@pytest.mark.parametrize("gamma", [1, 3, 10])
def test_a_datastore_with_the_text_itself_gives_the_best_tokens_per_pass(gamma: int) -> None:
    """Also from 16-bit tokens; a single branch stands in each tree, so every guess can be right."""
    scene = Scene(varied_model(), [5, 3, 8, 1], guess="perfect")
    text = Foresight(0, scene).tokens
    store = Datastore(torch.tensor(text, dtype=torch.int16))
    run = generate(scene.target, scene.prompt, 22, datastore=store, sampler=Sampler(0), gamma=gamma)
    assert run.tokens == text[4:26]
    assert [step.kept for step in run.steps[:-1]] == [0] + [gamma] * (len(run.steps) - 2)
    assert run.passes == 1 + -(-21 // (gamma + 1))  # the first one reads the prompt


def test_a_second_branch_can_be_the_one_that_is_kept() -> None:
    """The commoner continuation is wrong, the rarer one right: the cache must keep nodes that are no prefix."""
    scene = Scene(varied_model(), [5, 3, 8, 1], guess="perfect")
    text = Foresight(0, scene).tokens
    wrong = [*text[:5], *((token + 1) % 11 for token in text[5:9])]
    store = Datastore([*wrong, *wrong, *text])
    run = generate(scene.target, scene.prompt, 16, datastore=store, sampler=Sampler(0), gamma=4)
    assert run.tokens == text[4:20]
    assert run.steps[1].kept == 4
    assert len(run.steps[1].drafted) == 8


def published(target: object, prompt: list[int], tree: Tree, sampler: Sampler) -> Generation:
    """Two tokens as the published code samples them: the root, then the tree below it, then the root of the next step.

    Every path from the root to a leaf has draws of its own; the path that agrees furthest is kept; the draw that
    disagreed is thrown away.
    """
    root = int(sampler.draw(sampler.probs(target(prompt)[-1])))  # type: ignore[operator]
    text = [*prompt, root]
    leaves = [node for node in range(len(tree)) if not tree.children(node)]
    best: list[int] = []
    for leaf in leaves:
        guesses = [tree.tokens[node] for node in tree.path(leaf)]
        laws = [sampler.probs(target([*text, *guesses[:i]])[-1]) for i in range(len(guesses))]  # type: ignore[operator]
        agree = [int(sampler.draw(law)) == guess for law, guess in zip(laws, guesses, strict=True)]
        kept = sum(takewhile(bool, accumulate(agree, min)))
        best = max(best, guesses[:kept], key=len)
    again = int(sampler.draw(sampler.probs(target([*text, *best])[-1])))  # type: ignore[operator]
    return Generation([root, *best, again][:2])


@pytest.mark.parametrize("paths_through_x", [1, 2])
@torch.inference_mode()
def test_the_published_way_to_sample_is_biased_by_as_much_as_the_page_says(paths_through_x: int) -> None:
    target, x = flat_model(), 1
    tree = Tree()
    tree.add(x)
    for token in range(paths_through_x if paths_through_x > 1 else 0):
        tree.add(token, 0)
    law = exact_law(lambda sampler: published(target, [0, 1], tree, sampler))
    wanted = autoregressive_law(target, [0, 1], 2)
    bias = 0.0
    for root in range(3):
        p: Tensor = target([0, 1, root])[-1].softmax(-1)
        missed = float(1 - p[x]) ** (paths_through_x + 1)
        reached = sum(law[root, token] for token in range(3))
        assert law[root, x] / reached == pytest.approx(1 - missed, abs=1e-12)
        bias += reached * (1 - missed - float(p[x]))
    assert total_variation(law, wanted) == pytest.approx(bias, abs=1e-12)
    assert bias > 0.07


def test_sampling_keeps_the_law_with_a_tree_of_several_branches() -> None:
    target = flat_model()
    store = Datastore([0, 1, 1, 0, 1, 1, 2, 0, 1, 2])
    law = exact_law(lambda sampler: generate(target, [0, 1], 2, datastore=store, sampler=sampler, gamma=2, nodes=3))
    assert total_variation(law, autoregressive_law(target, [0, 1], 2)) < 1e-12


def test_a_larger_datastore_keeps_more() -> None:
    """The table of the paper that matters most, in small: text of a grammar, drafted from more and more of it."""
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(50, (30, 6), generator=generator)
    text = words[torch.randint(30, (600,), generator=generator)].flatten().tolist()
    held_out, kept = text[:600], []
    for size in (50, 400, 3000):
        found = retrieval(Datastore(text[600 : 600 + size]), held_out, nodes=16)
        assert 0 <= found["matched"] <= 1
        kept.append(found["kept_per_step"])
    assert kept[0] < kept[1] < kept[2]


def test_figures_of_a_text_that_is_known_by_heart() -> None:
    text = list(range(40))
    found = retrieval(Datastore(text), text, gamma=4, nodes=4)
    assert found == {"matched": 1.0, "mean_match": 12.25, "kept_per_step": 4.0}


@pytest.mark.parametrize(("longest", "nodes"), [(0, 4), (4, 0)])
def test_options_out_of_range_are_one_sentence(longest: int, nodes: int) -> None:
    scene = Scene(varied_model(), [5, 3])
    own = options(generate, scene, longest=longest, nodes=nodes)
    with pytest.raises(ValueError, match=f"longest is {longest} and nodes is {nodes}"):
        generate(scene.target, [5, 3], 3, sampler=Sampler(0), **own)


def test_a_datastore_of_another_tokenizer_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="tokens that a vocabulary of 11 lacks"):
        generate(varied_model(), [5, 3], 3, datastore=Datastore([5, 11]), sampler=Sampler(0))


def test_the_recipe_stores_training_files_as_they_are() -> None:
    texts = [f"value = {i}\n" for i in range(40)]
    shelf = Shelf(read=lambda _: Corpus(["never stored"], texts, {}, {"library": ["value = 7\n" * 9]}))
    part = RECIPE.train(shelf, RECIPE.settings)
    stored = part.module.tokens
    assert stored.dtype == torch.int16
    assert sorted(zoo.decode(stored.tolist()).split("<|endoftext|>")) == sorted(["", *texts])
    assert RECIPE.measure(shelf, RECIPE.settings, part.module)["held_out"]["nodes_16"]["kept_per_step"] > 0
    few = RECIPE.train(shelf, replace(RECIPE.settings, tokens=30)).module
    assert few.tokens.tolist() == stored.tolist()[:30]


def test_defaults_are_the_documented_ones() -> None:
    assert defaults_of(importlib.import_module("reference_impls.speculative_decoding.rest")) == {
        "generate.longest": 16,
        "generate.gamma": 10,
        "generate.nodes": 64,
    }
