"""What is peculiar to block verification: its law, its optimal length, and how a published rule misses both."""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import product
from math import prod

import pytest
import torch
from defaults import defaults_of
from layer_tokens import layer_tokens
from torch import Tensor

from accelgen.measuring.published_rules import block_by_products
from reference_impls.core.sampling import Sampler
from reference_impls.core.verify import verify_chain
from reference_impls.speculative_decoding.block_verification import generate, prefix_weights, verify_block
from reference_impls.testing.laws import Exhaustive, total_variation
from reference_impls.testing.tiny import language_model, varied_model

MUTANTS = [
    ("weights-not-capped", "(w[-1] * ratio).clamp(max=1)", "w[-1] * ratio"),
    ("weights-of-single-tokens", "(w[-1] * ratio).clamp(max=1)", "w[-1] * ratio.clamp(max=1)"),
    (
        "weights-upside-down",
        "in p[:-1].gather(-1, drawn) / q.gather(-1, drawn)",
        "in q.gather(-1, drawn) / p[:-1].gather(-1, drawn)",
    ),
    ("weights-one-place-late", "p[:-1].gather", "p[1:].gather"),
    ("block-ends-at-the-first-failure", "F.pad(passed, (1, 0)).amax()", "(passed > 0).cumprod(0).sum()"),
    ("all-that-passed-is-counted", "F.pad(passed, (1, 0)).amax()", "(passed > 0).sum()"),
    ("weight-taken-for-its-test", "sampler.accept(h[1:])", "sampler.accept(w[1:])"),
    ("tests-one-place-early", "sampler.accept(h[1:])", "sampler.accept(h[:-1])"),
    ("missing-mass-unweighted", "(weighted - laws).clamp(min=0)", "(p - laws).clamp(min=0)"),
    ("residual-of-single-tokens", "residual(weighted, laws)", "residual(p, laws)"),
    ("equal-laws-divide-by-zero", ".clamp(min=torch.finfo(p.dtype).tiny)", ""),
    (
        "block-target-cache-keeps-a-rejected-token",
        "target_cache.crop(len(tokens) - 1)",
        "target_cache.crop(len(tokens))",
    ),
    ("block-draft-cache-keeps-a-rejected-token", "draft_cache.crop(len(tokens) - 1)", "draft_cache.crop(len(tokens))"),
]

Text = tuple[int, ...]
Table = dict[Text, Tensor]  # a law for every text
Verify = Callable[..., tuple[int, int]]

P = torch.tensor([1, 2], dtype=torch.float64) / 3  # the paper's example; no context changes these laws
Q = torch.tensor([2, 1], dtype=torch.float64) / 3


class Lengths(Exhaustive):
    """Follows the tests of lengths alone; the extra token is not of interest."""

    def draw(self, p: Tensor) -> Tensor:
        return torch.zeros(p.shape[:-1], dtype=torch.long)


def texts(vocab: int, longest: int) -> Iterator[Text]:
    for length in range(longest + 1):
        yield from product(range(vocab), repeat=length)


def table(vocab: int, gamma: int, seed: int, zeros: float = 0.0) -> Table:
    """Random laws, all different; a share of their entries is impossible."""
    dice = torch.Generator().manual_seed(seed)
    found = {}
    for text in texts(vocab, gamma):
        law = torch.rand(vocab, generator=dice, dtype=torch.float64) ** 2
        hole = torch.rand(vocab, generator=dice) < zeros
        hole[int(law.argmax())] = False
        found[text] = law.masked_fill(hole, 0) / law.masked_fill(hole, 0).sum()
    return found


def hot(laws: Table) -> Table:
    return {text: torch.eye(len(law), dtype=law.dtype)[law.argmax()] for text, law in laws.items()}


def constant(law: Tensor, gamma: int) -> Table:
    return dict.fromkeys(texts(len(law), gamma), law)


def drafts(p: Table, q: Table) -> Iterator[tuple[Text, float, Tensor, Tensor]]:
    """Every draft, the chance that it is drawn, and the laws q and p along it."""
    gamma = max(map(len, p))
    for draft in (text for text in p if len(text) == gamma):
        chance = prod(float(q[draft[:i]][token]) for i, token in enumerate(draft))
        if chance > 0:
            rows = [draft[:i] for i in range(gamma + 1)]
            yield draft, chance, torch.stack([q[row] for row in rows[:-1]]), torch.stack([p[row] for row in rows])


def lengths(verify: Verify, draft: Text, q: Tensor, p: Tensor) -> list[float]:
    """The chance of every number of kept tokens."""
    law = [0.0] * (len(draft) + 1)
    scripts: list[list[int]] = [[]]
    while scripts:
        sampler = Lengths(scripts.pop())
        law[verify(sampler, draft, q, p)[0]] += sampler.weight
        scripts += sampler.open
    return law


def outcomes(verify: Verify, draft: Text, q: Tensor, p: Tensor) -> dict[tuple[int, int], float]:
    """The law of (kept, extra)."""
    law: defaultdict[tuple[int, int], float] = defaultdict(float)
    scripts: list[list[int]] = [[]]
    while scripts:
        sampler = Exhaustive(scripts.pop())
        law[verify(sampler, draft, q, p)] += sampler.weight
        scripts += sampler.open
    return dict(law)


def mean_kept(verify: Verify, p: Table, q: Table) -> float:
    return sum(
        chance * kept * share
        for draft, chance, q_rows, p_rows in drafts(p, q)
        for kept, share in enumerate(lengths(verify, draft, q_rows, p_rows))
    )


def common_mass(p: Table, q: Table) -> float:
    """The sum over all prefixes of the lesser of their chances under both: no exact test can keep more on average."""
    joint = [{t: prod(float(laws[t[:i]][x]) for i, x in enumerate(t)) for t in p if t} for laws in (p, q)]
    return sum(min(joint[0][text], joint[1][text]) for text in joint[0])


def step_law(verify: Verify, p: Table, q: Table) -> dict[Text, float]:
    """The law of gamma + 1 tokens: those of one step, then tokens of the target."""
    law: defaultdict[Text, float] = defaultdict(float)
    longest = max(map(len, p)) + 1
    for draft, drawn, q_rows, p_rows in drafts(p, q):
        for (kept, extra), chance in outcomes(verify, draft, q_rows, p_rows).items():
            ahead = {(*draft[:kept], extra): drawn * chance}
            for _ in range(longest - kept - 1):
                ahead = {(*t, x): c * float(p[t][x]) for t, c in ahead.items() for x in range(len(p[t]))}
            for text, mass in ahead.items():
                law[text] += mass
    return dict(law)


def target_law(p: Table) -> dict[Text, float]:
    vocab, longest = len(p[()]), max(map(len, p)) + 1
    return {
        text: prod(float(p[text[:i]][token]) for i, token in enumerate(text))
        for text in product(range(vocab), repeat=longest)
    }


PAIRS = {
    "clearly different": (table(3, 2, seed=21), table(3, 2, seed=22)),
    "long": (table(2, 3, seed=3), table(2, 3, seed=4)),
    "with impossible tokens": (table(3, 2, seed=5, zeros=0.5), table(3, 2, seed=6, zeros=0.5)),
    "draft without chance": (table(2, 3, seed=7), hot(table(2, 3, seed=8))),
    "target without chance": (hot(table(2, 3, seed=9)), table(2, 3, seed=10)),
    "equal": (table(2, 3, seed=11), table(2, 3, seed=11)),
    "equal at first": (constant(P, 3), constant(P, 3) | {text: Q for text in texts(2, 3) if len(text) > 1}),
    "the paper's example": (constant(P, 3), constant(Q, 3)),
}


@pytest.mark.parametrize(("p", "q"), PAIRS.values(), ids=PAIRS)
def test_a_step_and_what_follows_have_the_law_of_the_target(p: Table, q: Table) -> None:
    assert total_variation(step_law(verify_block, p, q), target_law(p)) < 1e-12


@pytest.mark.parametrize(("p", "q"), PAIRS.values(), ids=PAIRS)
def test_a_prefix_is_kept_with_the_chance_of_its_weight(p: Table, q: Table) -> None:
    """The weight of a prefix does not depend on how the draft goes on, and neither may its chance."""
    gamma = max(map(len, p))
    kept: defaultdict[Text, float] = defaultdict(float)
    weight: dict[Text, float] = {}
    drawn: defaultdict[Text, float] = defaultdict(float)
    for draft, chance, q_rows, p_rows in drafts(p, q):
        law, w = lengths(verify_block, draft, q_rows, p_rows), prefix_weights(draft, q_rows, p_rows).tolist()
        for i in range(gamma + 1):
            kept[draft[:i]] += chance * sum(law[i:])
            drawn[draft[:i]] += chance
            weight[draft[:i]] = w[i]
    for prefix, chance in drawn.items():
        assert kept[prefix] / chance == pytest.approx(weight[prefix], abs=1e-12)


def test_the_papers_example_keeps_11_ninths_where_token_verification_keeps_10() -> None:
    """And knowing the joint laws off the drafted path as well would allow 12, the common mass of all prefixes."""
    p, q = constant(P, 2), constant(Q, 2)
    assert mean_kept(verify_block, p, q) == pytest.approx(11 / 9, abs=1e-12)
    assert mean_kept(verify_chain, p, q) == pytest.approx(10 / 9, abs=1e-12)
    assert common_mass(p, q) == pytest.approx(12 / 9, abs=1e-12)


def test_it_never_keeps_fewer_than_token_verification() -> None:
    better = 0
    for vocab, gamma, zeros in ((2, 2, 0.0), (2, 3, 0.0), (3, 2, 0.4), (2, 4, 0.0)):
        for seed in range(8):
            p, q = table(vocab, gamma, seed, zeros), table(vocab, gamma, 100 + seed, zeros)
            block, chain = mean_kept(verify_block, p, q), mean_kept(verify_chain, p, q)
            assert chain - 1e-12 < block < common_mass(p, q) + 1e-12
            better += block > chain + 1e-3
    assert better >= 16


def test_with_one_guess_it_is_token_verification() -> None:
    p, q = table(3, 1, seed=12), table(3, 1, seed=13)
    for draft, _, q_rows, p_rows in drafts(p, q):
        both = [outcomes(verify, draft, q_rows, p_rows) for verify in (verify_block, verify_chain)]
        assert total_variation(*both) < 1e-12


def test_without_chance_it_is_token_verification() -> None:
    p, seen = hot(table(3, 3, seed=14)), set()
    for draft in product(range(3), repeat=3):
        q_rows = torch.eye(3, dtype=torch.float64)[list(draft)]
        p_rows = torch.stack([p[draft[:i]] for i in range(4)])
        found = verify_block(Sampler(0), draft, q_rows, p_rows)
        assert found == verify_chain(Sampler(0), draft, q_rows, p_rows)
        seen.add(found[0])
    assert seen == {0, 1, 2, 3}


def test_a_draft_without_chance_gains_nothing() -> None:
    p, q = PAIRS["draft without chance"]
    assert mean_kept(verify_block, p, q) == pytest.approx(mean_kept(verify_chain, p, q), abs=1e-12)


def test_a_late_good_token_saves_a_poor_one() -> None:
    """Token verification keeps the first token of (0, 1) in one of two cases; the block is kept in all."""
    p, q = P.expand(3, -1), Q.expand(2, -1)
    assert prefix_weights((0, 1), q, p).tolist() == pytest.approx([1, 1 / 2, 1])
    assert lengths(verify_block, (0, 1), q, p) == pytest.approx([0, 0, 1])
    assert lengths(verify_chain, (0, 1), q, p) == pytest.approx([1 / 2, 0, 1 / 2])


def test_a_drafter_that_is_the_target_is_always_believed() -> None:
    target = varied_model()
    result = generate(target, [5, 3, 8, 1], 15, drafter=target, sampler=Sampler(1.0), gamma=4)
    assert [step.kept for step in result.steps] == [4, 4, 4]


def test_a_broken_target_is_reported() -> None:
    target = language_model()
    q = Q.expand(2, -1)
    assert verify_block(Sampler(), (0, 1), q, P.expand(3, -1) * torch.nan) == (0, -1)
    with pytest.raises(ValueError, match="gamma is 0"):
        generate(target, [0], 3, drafter=target, sampler=Sampler(), gamma=0)


def test_the_published_rule_misses_the_law() -> None:
    """vLLM-Ascend before its pull request 7808: products of uniform numbers, and the residual of single tokens."""
    law = block_by_products(P, Q)
    assert sum(law.values()) == pytest.approx(1)
    assert abs(law[0,] - float(P[0])) == pytest.approx(0.26, abs=0.005)


@torch.no_grad()
def test_the_target_reads_every_token_once_and_every_guess_once() -> None:
    target, drafter, prompt = varied_model(), varied_model(5), [5, 3, 8, 1]
    with layer_tokens(target) as ran:
        run = generate(target, prompt, 20, drafter=drafter, sampler=Sampler(seed=1), gamma=3)
    read = len(prompt) + sum(len(step.drafted) + 1 for step in run.steps) - 1
    assert sum(ran) == target.shape.layers * read
    assert 0 < sum(step.kept for step in run.steps) < sum(len(step.drafted) for step in run.steps)


def test_defaults_are_the_documented_ones() -> None:
    assert defaults_of(importlib.import_module("reference_impls.speculative_decoding.block_verification")) == {
        "generate.gamma": 4
    }
