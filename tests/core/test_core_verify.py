"""Acceptance rules against their closed forms."""

import math

import pytest
import torch

from reference_impls.core.generation import Generation
from reference_impls.core.sampling import Sampler
from reference_impls.core.tree import Tree
from reference_impls.core.verify import residual, verify_chain, verify_tree
from reference_impls.testing import exact_law, total_variation

MUTANTS = [
    ("resample-from-p", "rest / mass, p)", "p, p)"),
    ("residual-not-clamped", "(p - q).clamp(min=0)", "(p - q).abs()"),
    ("residual-not-normalised", "rest / mass, p)", "rest, p)"),
    ("residual-of-equal-laws-undefined", "torch.where(mass > 0, rest / mass, p)", "rest / mass"),
    ("accept-after-a-rejection", ".cumprod(0).sum()", ".sum()"),
    ("bonus-token-from-the-wrong-row", "laws)[kept]", "laws)[kept - 1]"),
    ("laws-one-place-late", "laws[:-1], p[:-1])", "laws[:-1], p[1:])"),
    ("lenient-by-default-in-core", "lenience: float = 1.0", "lenience: float = 0.5"),
    ("lenience-multiplies", "lenience * laws[:-1]", "laws[:-1] / lenience"),
    ("siblings-tried-against-the-same-law", "rest[rows] = residual(law, guess)", "pass"),
    ("law-of-the-first-sibling-for-all", "guess = q[now]", "guess = q[now * 0]"),
    ("node-checked-against-its-own-row", "[tree.parents[node] + 1 for", "[node + 1 for"),
    ("extra-token-after-the-root", "rest[node + 1]", "rest[0]"),
    ("extra-token-from-p", "sampler.draw(rest[node + 1])", "sampler.draw(p[node + 1])"),
    ("chosen-nodes-always-kept", "law.gather(-1, x) / guess", "(law > 0).gather(-1, x) / guess"),
]

P = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3], [0.25, 0.25, 0.5]], dtype=torch.float64)
Q = torch.tensor([[0.5, 0.1, 0.4], [0.2, 0.2, 0.6]], dtype=torch.float64)


def test_residual_is_what_the_draft_gave_too_little_of():
    assert residual(P[0], Q[0]).tolist() == pytest.approx([0, 1, 0])
    assert residual(P[1], Q[1]).tolist() == pytest.approx([1, 0, 0])
    wide = residual(torch.tensor([0.4, 0.4, 0.2]), torch.tensor([0.1, 0.2, 0.7]))
    assert wide.tolist() == pytest.approx([0.6, 0.4, 0])


def test_residual_of_several_places_sums_to_one_everywhere():
    rows = residual(P[:2], Q)
    assert rows.sum(-1).tolist() == pytest.approx([1, 1])
    assert torch.equal(rows[1], residual(P[1], Q[1]))


def test_residual_of_equal_laws_is_the_law_itself():
    assert torch.equal(residual(P[0], P[0]), P[0])


def test_residual_of_nothing_drafted_is_the_target_law():
    assert torch.equal(residual(P[0], torch.zeros(3, dtype=torch.float64)), P[0])


def outcomes(draft, **options):
    """The exact law of (kept, extra) for a draft."""
    return exact_law(lambda sampler: Generation(list(verify_chain(sampler, draft, Q, P, **options))))


@pytest.mark.parametrize("draft", [[0, 0], [1, 2], [2, 1], [0, 1]])
def test_chain_has_the_law_of_the_closed_form(draft):
    wanted, reached = {}, 1.0
    for i, token in enumerate(draft):
        chance = min(1.0, float(P[i, token] / Q[i, token]))
        rest = residual(P[i], Q[i]).tolist()
        wanted |= {(i, extra): reached * (1 - chance) * rest[extra] for extra in range(3)}
        reached *= chance
    wanted |= {(2, extra): reached * float(P[2, extra]) for extra in range(3)}
    assert total_variation(outcomes(draft), wanted) < 1e-12


def test_chain_gives_the_first_token_the_law_of_the_target():
    law = [0.0] * 3
    for first in range(3):
        for second in range(3):
            drafted = float(Q[0, first] * Q[1, second])
            for (kept, extra), chance in outcomes([first, second]).items():
                law[first if kept else extra] += drafted * chance
    assert law == pytest.approx(P[0].tolist())


def test_chain_of_equal_laws_is_always_kept():
    same = torch.cat((Q, P[2:]))
    found = exact_law(lambda sampler: Generation(list(verify_chain(sampler, [2, 0], Q, same))))
    assert {kept for kept, _ in found} == {2}


def test_lenience_divides_the_draft_law_and_no_token_exceeds_its_share():
    assert outcomes([0, 0], lenience=0.5) != outcomes([0, 0])
    for lenience in (0.5, 0.1):
        law = [0.0] * 3
        for first in range(3):
            for (kept, extra), chance in outcomes([first, 0], lenience=lenience).items():
                law[first if kept else extra] += float(Q[0, first]) * chance
        assert sum(law) == pytest.approx(1)
        assert all(x <= float(p) / lenience + 1e-12 for x, p in zip(law, P[0], strict=True))


def test_lenience_accepts_with_p_over_lq():
    kept = sum(chance for (kept, _), chance in outcomes([0, 0], lenience=0.5).items() if kept)
    assert kept == pytest.approx(0.2 / (0.5 * 0.5))


def test_greedy_chain_keeps_exactly_the_prefix_that_agrees():
    hot = torch.eye(3, dtype=torch.float64)
    p = hot[[1, 2, 0]]
    for draft, wanted in {(1, 2): (2, 0), (1, 1): (1, 2), (0, 2): (0, 1)}.items():
        q = hot[list(draft)]
        assert verify_chain(Sampler(0), list(draft), q, p) == wanted


def test_an_empty_chain_is_a_draw_from_the_target():
    found = exact_law(lambda sampler: Generation(list(verify_chain(sampler, [], [], P[:1]))))
    assert total_variation(found, {(0, token): float(P[0, token]) for token in range(3)}) < 1e-12


def test_chain_of_a_broken_target_gives_the_impossible_token():
    assert verify_chain(Sampler(), [0, 1], Q, P * math.nan) == (0, -1)


def tree_law(p, grow):
    """The exact law of the first token that `verify_tree` commits for trees that `grow(sampler)` draws."""

    def run(sampler):
        tree, q = grow(sampler)
        rows = p[0].repeat(len(tree) + 1, 1)
        path, extra = verify_tree(sampler, tree, rows, q)
        return Generation([*(tree.tokens[node] for node in path), extra][:1])

    return exact_law(run)


def siblings(laws, *, replace=True):
    """Children of the root, each drawn from its own law; without replacement later laws leave out earlier tokens."""

    def grow(sampler):
        tree, q = Tree(), []
        for law in laws:
            row = law.clone()
            if not replace:
                row[tree.tokens] = 0
            q.append(row / row.sum())
            tree.add(int(sampler.draw(q[-1])))
        return tree, torch.stack(q)

    return grow


def chosen(*tokens):
    """Children of the root that are there without chance."""

    def grow(_):
        tree = Tree()
        for token in tokens:
            tree.add(token)
        return tree, None

    return grow


@pytest.mark.parametrize(
    "grow",
    [
        siblings([Q[0]]),
        siblings([Q[0], Q[0], Q[0]]),
        siblings([Q[0], Q[1]]),
        siblings([Q[0], Q[0]], replace=False),
        siblings([Q[1], Q[1], Q[1]], replace=False),
        chosen(),
        chosen(1),
        chosen(2, 0),
        chosen(0, 0, 2),
        chosen(0, 1, 2),
    ],
)
def test_siblings_give_the_first_token_the_law_of_the_target(grow):
    wanted = {(token,): float(P[0, token]) for token in range(3)}
    assert total_variation(tree_law(P, grow), wanted) < 1e-12


def test_below_a_kept_node_the_law_is_the_one_after_it():
    """Two children of the root and two below the first; every node has a law of its own."""
    p = torch.stack([P[0], P[1], P[2], P[0].flip(0), P[1].flip(0)])

    def run(sampler):
        tree, q = Tree(), []
        for parent, law in ((-1, Q[0]), (-1, Q[1]), (0, Q[1]), (0, Q[1])):
            q.append(law)
            tree.add(int(sampler.draw(law)), parent)
        path, extra = verify_tree(sampler, tree, p, torch.stack(q))
        after = [*(tree.tokens[node] for node in path), extra]
        return Generation([path[0], after[1]] if path else [-1])

    found = exact_law(run)
    first = sum(chance for key, chance in found.items() if key[0] == 0)
    assert 0.1 < first < 0.9
    for token in range(3):
        assert found[0, token] / first == pytest.approx(float(P[1, token]), abs=1e-12)


def test_a_chain_is_a_tree_without_branches():
    tree = Tree()
    tree.add(2, tree.add(1))
    found = exact_law(lambda s: Generation([len((r := verify_tree(s, tree, P, Q))[0]), r[1]]))
    assert total_variation(found, outcomes([1, 2])) < 1e-12
