"""Chains, siblings and one-hot laws: what was drawn, from which law, and what happens at the edges."""

import math
from types import SimpleNamespace

import pytest
import torch

from reference_impls.core.drafting import (
    best_guesses,
    check_draft,
    check_guesses,
    check_part,
    draft_chain,
    one_hot,
    room,
    siblings,
)
from reference_impls.core.generation import Generation
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.tree import Tree
from reference_impls.core.verify import verify_tree
from reference_impls.testing.laws import autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import flat_model, language_model

MUTANTS = [
    ("no-draft-length-is-wrong", "if gamma < 1:", "if gamma < 0:"),
    ("no-vocabulary-is-wrong", "if len(set(sizes)) > 1:", "if len(set(sizes)) > 9:"),
    ("draft-by-argmax-judged-as-sampled", "int(sampler.draw(q[-1]))", "int(q[-1].argmax())"),
    ("draft-from-the-raw-law", "int(sampler.draw(q[-1]))", "int(sampler.draw(q[-1] ** 0.5))"),
    ("chain-that-starts-anew", "drafter(text[len(cache) :]", "drafter(text[len(tokens) - 1 :]"),
    ("broken-drafter-not-named", "token < 0 for token", "token < -1 for token"),
    ("draft-past-the-last-position", "positions + unread - length", "positions + 1 - length"),
    ("drafter-one-position-short", "positions + unread - length", "positions - length"),
    ("room-below-nothing", "max(0, gamma)", "gamma"),
    ("siblings-judged-by-the-whole-law", "scores = rest.where(", "rest.where("),
    ("tokens-run-out-without-notice", "rest.where(rest.amax(-1, keepdim=True) > -torch.inf, scores)", "rest"),
    ("filters-look-anew-at-what-is-left", "if greedy else scores.softmax(-1)", "if greedy else sampler.probs(scores)"),
    ("tokens-outside-the-law", "sampler.probs(logits).log()", "logits / sampler.temperature"),
    ("siblings-always-drawn-again", "if not replacement:", "if replacement:"),
    ("one-hot-with-more-than-one", "tokens[..., None], 1.0", "tokens[..., None], 2.0"),
    ("children-picked-and-judged-as-drawn", "sampler.draw(q[-1]))  # [rows]", "q[-1].argmax(-1))"),
]

Q = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@torch.inference_mode()
def test_a_chain_comes_with_the_laws_that_it_was_drawn_from(temperature):
    drafter, sampler = language_model(11, seed=3), Sampler(temperature, seed=1)
    cache = drafter.new_cache()
    text = [5, 3, 8]
    draft, q = draft_chain(sampler, drafter, text, cache, 4)
    assert text == [5, 3, 8]
    assert len(draft) == len(q) == 4
    assert len(cache) == 3 + 4 - 1
    for i, law in enumerate(q):
        wanted = sampler.probs(drafter([*text, *draft[:i]])[-1])
        torch.testing.assert_close(law, wanted, rtol=1e-9, atol=1e-12)


@torch.inference_mode()
def test_the_law_of_a_chain_is_the_drafters_own_text():
    drafter = flat_model()
    found = exact_law(lambda s: Generation(draft_chain(s, drafter, [0, 1], drafter.new_cache(), 2)[0]))
    assert total_variation(found, autoregressive_law(drafter, [0, 1], 2)) < 1e-12


def test_a_chain_of_nothing_runs_no_drafter():
    assert draft_chain(Sampler(0), pytest.fail, [1, 2], [], 0) == ([], [])


def test_a_broken_drafter_is_named():
    with pytest.raises(ValueError, match="the drafter's logits are not finite"):
        draft_chain(Sampler(), lambda *_, **__: torch.full((1, 3), math.nan), [0], [], 1)


def test_the_best_guesses_come_best_first_and_what_is_not_finite_gives_none():
    logits = torch.tensor([[0.1, 0.7, 0.2], [0.3, math.nan, 0.1], [0.0, 1.0, math.inf], [0.0, -math.inf, -math.inf]])
    assert best_guesses(logits, 2).tolist() == [[1, 2], [-1, 0], [-1, 1], [0, 1]]


def test_it_is_said_whose_guesses_are_broken():
    check_guesses([0, 3], "the heads'")
    with pytest.raises(ValueError, match=r"^the heads' logits are not finite"):
        check_guesses([0, -1], "the heads'")


def test_siblings_are_drawn_without_replacement_and_come_with_their_laws():
    found = exact_law(lambda sampler: Generation(siblings(sampler, Q.log()[None], 2)[0][0].tolist()))
    wanted = {(x, y): float(Q[x] * Q[y] / (1 - Q[x])) for x in range(3) for y in range(3) if x != y}
    assert total_variation(found, wanted) < 1e-12
    guesses, q = siblings(Sampler(1.0, seed=1), Q.log().expand(5, 3), 3)
    assert guesses.sort().values.tolist() == [[0, 1, 2]] * 5
    for row, laws in zip(guesses.tolist(), q, strict=True):
        left = Q.clone()
        for token, law in zip(row, laws, strict=True):
            assert torch.allclose(law, left / left.sum())
            left[token] = 0


def test_siblings_with_replacement_are_independent():
    found = exact_law(lambda sampler: Generation(siblings(sampler, Q.log()[None], 2, replacement=True)[0][0].tolist()))
    assert total_variation(found, {(x, y): float(Q[x] * Q[y]) for x in range(3) for y in range(3)}) < 1e-12
    assert torch.allclose(siblings(Sampler(1.0), Q.log()[None], 2, replacement=True)[1], Q.expand(1, 2, 3))


def test_greedy_siblings_are_the_likeliest_tokens_each_certain_given_its_elders():
    logits = torch.tensor([[0.1, 2.0, 1.0], [3.0, 0.0, 1.0]])
    guesses, q = siblings(Sampler(0), logits, 3)
    assert guesses.tolist() == [[1, 2, 0], [0, 2, 1]]
    assert torch.equal(q, one_hot(guesses, 3))


@pytest.mark.parametrize(
    ("settings", "law"),
    [
        ({"top_k": 2}, [0.625, 0.375, 0]),
        ({"top_p": 0.75}, [0.625, 0.375, 0]),
        ({"top_k": 1}, [1, 0, 0]),
        ({"top_p": 0.85}, [0.5, 0.3, 0.2]),  # of b and c a second look would keep b alone, which has .6 of the two
        ({"top_k": 2, "temperature": 0.5}, [25 / 34, 9 / 34, 0]),
    ],
)
def test_no_sibling_lies_outside_the_law_of_its_place_and_none_of_it_is_left_out(settings, law):
    """The filters rule once, over the whole law: of what elders left each token keeps its share."""
    law, seen = torch.tensor(law, dtype=torch.float64), set()
    for seed in range(40):
        (guesses,), (q,) = siblings(Sampler(seed=seed, **settings), Q.log()[None], 3)
        left, distinct = law.clone(), list(dict.fromkeys(guesses.tolist()))
        assert sorted(distinct) == law.nonzero().flatten().tolist()
        assert guesses.tolist() == distinct + distinct[-1:] * (3 - len(distinct))
        for token, found in zip(distinct, q, strict=False):
            torch.testing.assert_close(found, left / left.sum())
            left[token] = 0
        seen.add(tuple(distinct))
    assert len(seen) == {1: 1, 2: 2, 3: 6}[len(law.nonzero())]


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.0}])
def test_where_the_tokens_run_out_the_last_one_comes_again(settings):
    logits = torch.tensor([[0.5, -math.inf, 1.5], [1.0, 2.0, 3.0]])
    guesses, q = siblings(Sampler(seed=2, **settings), logits, 3)
    first, second = guesses.tolist()
    assert sorted(first[:2]) == [0, 2]
    assert first[2] == first[1]
    assert sorted(second) == [0, 1, 2]
    assert q.sum(-1).allclose(torch.ones(2, 3))
    assert torch.equal(q[0, 2], q[0, 1])


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("possible", [1, 2, 3])
@pytest.mark.parametrize("width", [1, 3, 4])
def test_siblings_in_a_tree_keep_the_law_of_the_target(replacement, possible, width):
    p, logits = torch.tensor([0.2, 0.7, 0.1], dtype=torch.float64), Q.log()
    logits[possible:] = -math.inf

    def run(sampler):
        (guesses,), (q,) = siblings(sampler, logits[None], width, replacement=replacement)
        tree = Tree()
        for token in guesses.tolist():
            tree.add(token)
        path, extra = verify_tree(sampler, tree, p.expand(width + 1, 3), q)
        return Generation([*(tree.tokens[node] for node in path), extra][:1])

    assert total_variation(exact_law(run), {(token,): float(p[token]) for token in range(3)}) < 1e-12


def test_siblings_of_a_broken_drafter_are_the_impossible_token():
    for settings in ({}, {"temperature": 0.0}):
        guesses, _ = siblings(Sampler(**settings), torch.full((1, 3), math.nan), 2)
        assert guesses.tolist() == [[-1, -1]]


def test_a_part_of_another_type_or_device_than_its_target_is_one_sentence():
    target = language_model(3)
    check_part(target, torch.nn.Linear(2, 2).double(), "heads")
    check_part(target, torch.nn.Identity(), "heads")  # nothing to be of another type
    for part, kind in (
        (torch.nn.Linear(2, 2), "float32 on cpu"),
        (torch.nn.Linear(2, 2).double().to("meta"), "float64 on meta"),
    ):
        with pytest.raises(
            ValueError, match=rf"^the heads are torch.{kind}, and the target is torch.float64 on cpu: make"
        ):
            check_part(target, part, "heads")


def test_one_hot_laws():
    assert one_hot(torch.tensor([2, 0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert one_hot(torch.tensor([[1]]), 2, torch.float64).dtype == torch.float64
    assert one_hot(torch.empty(0, dtype=torch.long), 3).shape == (0, 3)


def ending_at(positions):
    """A model that says how many positions it has."""
    model = language_model(3)
    shape = {**vars(model.shape), "positions": positions}
    return LanguageModel(type(model.shape)(**shape))


@pytest.mark.parametrize(
    ("length", "target", "drafter", "wanted"),
    [
        (5, None, None, 4),
        (5, 20, None, 4),
        (5, 9, None, 4),  # the last guess is read at the last position
        (5, 8, None, 3),
        (9, 9, None, 0),
        (12, 9, None, 0),
        (5, None, 8, 4),  # the drafter does not read its last guess
        (5, None, 7, 3),
        (9, 30, 8, 0),
        (5, 7, 6, 2),
    ],
)
def test_a_draft_ends_at_the_last_position_of_either_model(length, target, drafter, wanted):
    assert room(length, 4, ending_at(target), ending_at(drafter)) == wanted


def test_a_model_that_says_nothing_about_positions_has_no_last_one():
    own = SimpleNamespace(shape=SimpleNamespace(vocab=3))
    assert room(10**6, 4, own, own) == 4


def test_drafts_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="gamma is 0"):
        check_draft(0)
    with pytest.raises(ValueError, match="vocabularies of 3 and 4 tokens"):
        check_draft(1, language_model(3), language_model(4))
