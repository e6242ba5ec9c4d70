"""Trees of drafted tokens: their shape, and a pass over a tree against a pass over each of its paths."""

import pytest
import torch

from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.tree import Tree, attach, check_widths, draft_tree
from reference_impls.testing import language_model
from reference_impls.testing.tiny import seeded

MUTANTS = [
    ("tree-positions-by-index", "depths.append(depths[parent + roots] + 1)", "depths.append(i)"),
    ("siblings-see-each-other", "visible[i] |= visible[parent + roots]", "visible[i, :i] = True"),
    ("only-the-parent-is-seen", "visible[i] |= visible[parent + roots]", "visible[i, parent + roots] = True"),
    ("unseen-tokens-at-one-position", "depths = list(range(roots))", "depths = [0] * roots"),
    ("path-from-below", "return found[::-1]", "return found"),
    ("chains-side-by-side-at-one-place", "torch.arange(1, size + 1)", "torch.ones(size, dtype=torch.long)"),
    ("chains-at-the-depth-of-their-place", "torch.arange(1, size + 1)", "torch.arange(size)"),
    ("chains-that-see-each-other", "torch.eye(len(places))", "torch.ones(len(places), len(places))"),
    ("chains-that-see-their-future", "torch.ones(size, size).tril()", "torch.ones(size, size)"),
    ("chains-seen-by-the-text", "F.pad(visible, (0, len(ahead)))", "F.pad(visible, (0, len(ahead)), value=True)"),
    ("chains-that-see-everything", "visible[places].repeat_interleave(size, 0)", "visible[-1:].expand(len(ahead), -1)"),
    ("chains-in-turn", "visible[places].repeat_interleave(size, 0)", "visible[places].repeat(size, 1)"),
    ("prompt-under-a-mask", "if not self.tokens:", "if not roots:"),
    ("drafter-sees-its-tree-twice", "        cache.crop(len(tokens) - 1)\n", ""),
    ("children-of-the-node-before", "logits[[leaf + 1 for leaf", "logits[[leaf for leaf"),
    ("repeated-children", "drawn if replacement else [*dict.fromkeys(drawn)]", "drawn"),
    ("draws-that-are-dropped", "drawn if replacement else [*dict.fromkeys(drawn)]", "[*dict.fromkeys(drawn)]"),
    ("drawn-the-other-way", "width, replacement=replacement", "width, replacement=not replacement"),
    ("all-below-the-root", "tree.add(token, parent) for", "tree.add(token) for"),
    ("no-widths-are-widths", "if not widths or not all", "if not all"),
    ("more-children-than-tokens", "1 <= width <= vocab for", "1 <= width for"),
]

PROMPT, ROOT = [1, 4, 2], 6


@pytest.fixture
def tree():
    """Two branches, the first of which divides, with nodes added breadth first as drafters do.

    Below the root 3 and 5; below 3: 0 and 2; below 5: 2; below the last: 7.
    """
    made = Tree()
    first, second = made.add(3), made.add(5)
    made.add(0, first)
    made.add(2, first)
    third = made.add(2, second)
    made.add(7, third)
    return made


def test_children_and_paths(tree):
    assert len(tree) == 6
    assert tree.children() == [0, 1]
    assert tree.children(0) == [2, 3]
    assert tree.children(5) == []
    assert tree.path(5) == [1, 4, 5]
    assert tree.path(-1) == []


def test_the_path_of_a_text_ends_where_the_tree_does() -> None:
    tree = Tree([4, 6, 2, 7], [-1, -1, 1, 2])
    assert tree.follow([6, 2, 7, 1]) == [1, 2, 3]
    assert tree.follow([6, 7]) == [1]
    assert tree.follow([5]) == tree.follow([]) == []


def test_a_node_needs_a_parent_in_the_tree(tree):
    for parent in (-2, 6):
        with pytest.raises(ValueError, match=f"parent {parent} is not in the tree of 6 nodes"):
            tree.add(1, parent)


def test_layout_of_the_example(tree):
    depths, visible = tree.layout()
    assert depths.tolist() == [0, 1, 1, 2, 2, 2, 3]
    assert visible.int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 0, 1, 0, 0, 0, 0],
        [1, 1, 0, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0],
        [1, 0, 1, 0, 0, 1, 0],
        [1, 0, 1, 0, 0, 1, 1],
    ]


def test_the_empty_tree_is_the_chain_of_unseen_tokens_which_needs_no_mask():
    for roots in (1, 3):
        depths, visible = Tree().layout(roots)
        assert depths.tolist() == list(range(roots))
        assert visible is None


def test_every_tree_has_lists_of_its_own():
    first, second = Tree(), Tree()
    first.add(3)
    assert (second.tokens, second.parents) == ([], [])


def test_a_guess_that_a_broken_drafter_made_is_no_node():
    tree = Tree()
    with pytest.raises(ValueError, match="the drafter's logits are not finite"):
        tree.add(-1)
    assert len(tree) == 0


def tree_pass(model, tree):
    """A cache that holds the prompt and the whole tree, and the logits at its nodes [nodes + 1, vocab]."""
    cache = model.new_cache()
    model(PROMPT, cache)
    depths, visible = tree.layout()
    return cache, model([ROOT, *tree.tokens], cache, positions=len(PROMPT) + depths, visible=visible)


def test_a_tree_pass_equals_a_pass_over_each_path(tree):
    model = language_model(11, layers=3)
    _, logits = tree_pass(model, tree)
    for node in range(-1, len(tree)):
        path = tree.path(node)
        alone = model([*PROMPT, ROOT, *(tree.tokens[i] for i in path)])
        torch.testing.assert_close(logits[node + 1], alone[-1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("node", range(-1, 6))
def test_the_cache_repaired_after_a_tree_goes_on_as_if_only_the_path_had_been_read(tree, node):
    model = language_model(11, layers=3)
    cache, _ = tree_pass(model, tree)
    path = tree.path(node)
    cache.keep(len(PROMPT), [0, *(i + 1 for i in path)])
    text = [*PROMPT, ROOT, *(tree.tokens[i] for i in path)]
    assert len(cache) == len(text)
    torch.testing.assert_close(model([8, 9], cache), model([*text, 8, 9])[-2:], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("roots", [1, 2, 4])
def test_a_tree_pass_may_bring_the_unseen_tokens_along(tree, roots):
    model, text = language_model(11, layers=3), [*PROMPT, ROOT]
    cache = model.new_cache()
    held = len(text) - roots
    if held:
        model(text[:held], cache)
    depths, visible = tree.layout(roots)
    logits = model([*text[held:], *tree.tokens], cache, positions=held + depths, visible=visible)
    for node in range(-1, len(tree)):
        alone = model([*text, *(tree.tokens[i] for i in tree.path(node))])
        torch.testing.assert_close(logits[roots + node], alone[-1], rtol=1e-10, atol=1e-10)
    cache.keep(len(text), tree.path(5))
    text += [tree.tokens[i] for i in tree.path(5)]
    torch.testing.assert_close(model([8, 9], cache), model([*text, 8, 9])[-2:], rtol=1e-10, atol=1e-10)


def test_chains_behind_two_nodes_of_the_example(tree):
    depths, visible = attach(*tree.layout(), torch.tensor([0, 3]), 2)
    assert depths.tolist() == [0, 1, 1, 2, 2, 2, 3, 1, 2, 3, 4]
    assert torch.equal(visible[:7, :7], tree.layout()[1])
    assert not visible[:7, 7:].any()
    assert visible[7:].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0],
        [1, 1, 0, 1, 0, 0, 0, 0, 0, 1, 0],
        [1, 1, 0, 1, 0, 0, 0, 0, 0, 1, 1],
    ]


def test_chains_behind_a_text_that_has_no_mask():
    depths, visible = attach(*Tree().layout(3), torch.tensor([2, 0]), 1)
    assert depths.tolist() == [0, 1, 2, 3, 1]
    assert visible.int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 0, 0, 0, 1],
    ]


@torch.no_grad()
def test_a_chain_in_a_pass_over_a_tree_is_that_behind_its_path(tree):
    model, chain = language_model(8), [2, 5]
    depths, visible = attach(*tree.layout(), torch.arange(7), 2)
    cache = model.new_cache()
    model(PROMPT, cache)
    inputs = [ROOT, *tree.tokens, *chain * 7]
    logits = model(inputs, cache, positions=len(PROMPT) + depths, visible=visible)[7:].view(7, 2, 8)
    for node, found in enumerate(logits, start=-1):
        path = [tree.tokens[i] for i in tree.path(node)]
        assert torch.allclose(found, model([*PROMPT, ROOT, *path, *chain])[-2:], atol=1e-10)


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_drafter_draws_each_child_from_its_law_given_the_elder_siblings(temperature, replacement):
    sampler, drafter = Sampler(temperature, seed=5), language_model(11)
    tree, laws = draft_tree(sampler, drafter, PROMPT, drafter.new_cache(), (3, 1, 4), replacement=replacement)
    q = torch.cat(laws)
    depths = [len(tree.path(node)) for node in range(len(tree))]
    assert [depths.count(depth) for depth in (1, 2, 3)] == [3, 3, 12]
    repeated = 0
    for node, parent in enumerate(tree.parents):
        logits = drafter([*PROMPT, *(tree.tokens[i] for i in tree.path(parent))])[-1]
        elders = [tree.tokens[i] for i in tree.children(parent) if i < node]
        repeated += tree.tokens[node] in elders
        if not replacement:
            logits[elders] = -torch.inf
        torch.testing.assert_close(q[node], sampler.probs(logits), rtol=1e-9, atol=1e-12)
        if temperature == 0:
            assert tree.tokens[node] == int(logits.argmax())
    assert repeated > 0 if replacement else repeated == 0


class Narrow(LanguageModel):
    """A drafter that gives no chance to the tokens from 2 on."""

    def logits(self, x):
        found = super().logits(x)
        found[..., 2:] = -torch.inf
        return found


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_drafter_with_fewer_possible_tokens_than_children_drafts_those_it_has(temperature):
    with seeded(7):
        drafter = Narrow(language_model(5).shape).double()
    tree, laws = draft_tree(Sampler(temperature, seed=1), drafter, [0, 1], drafter.new_cache(), (3, 4))
    assert [sorted(tree.tokens[node] for node in tree.children(node)) for node in (-1, 0, 1)] == [[0, 1]] * 3
    assert [len(law) for law in laws] == [2, 2, 2]
    _, laws = draft_tree(Sampler(temperature, seed=1), drafter, [0, 1], drafter.new_cache(), (3, 4), replacement=True)
    assert [len(law) for law in laws] == [3, 4, 4, 4]


@pytest.mark.parametrize("held", [0, 2, 3])
def test_a_drafter_reads_what_is_new_once_and_its_tree_but_for_the_last_level(held):
    read = []

    class Counting(LanguageModel):
        def embed(self, tokens):
            read.append(len(tokens))
            return super().embed(tokens)

    drafter = Counting(language_model(11).shape).double()
    cache = drafter.new_cache()
    if held:
        drafter(PROMPT[:held], cache)
        read.clear()
    tree, _ = draft_tree(Sampler(1.0, seed=1), drafter, PROMPT, cache, (2, 2, 1))
    assert read == [max(1, len(PROMPT) - held), 1 + 2, 1 + 2 + 4]
    assert len(cache) == len(PROMPT) + 6
    cache.keep(len(PROMPT), tree.path(5))
    text = [*PROMPT, *(tree.tokens[i] for i in tree.path(5))]
    torch.testing.assert_close(drafter([8], cache), drafter([*text, 8])[-1:], rtol=1e-10, atol=1e-10)


def test_no_widths_draft_nothing():
    tree, laws = draft_tree(Sampler(0), pytest.fail, PROMPT, language_model().new_cache(), ())
    assert (len(tree), laws) == (0, [])


def test_widths_are_from_one_to_the_vocabulary():
    check_widths((1, 4), 4)
    for widths in ((), (0,), (2, 5)):
        with pytest.raises(
            ValueError, match=r"^widths are \(.*\); give for each depth a number from 1 to the 4 tokens$"
        ):
            check_widths(widths, 4)
