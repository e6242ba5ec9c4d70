"""SpecTr: K-SEQ and its factor in closed form, the optimal transport that bounds it, and which drafts stay alive."""

from __future__ import annotations

import importlib
import re
from dataclasses import replace
from itertools import combinations, pairwise, product
from typing import Any

import pytest
import torch
from defaults import defaults_of
from fresh_caches import watched
from torch import Tensor

from reference_impls.core.generation import Generation, Step
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.verify import residual
from reference_impls.speculative_decoding import spectr, speculative_sampling_chen
from reference_impls.speculative_decoding.spectr import generate, k_seq, share, tries, verify_drafts
from reference_impls.testing.laws import Law, autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import flat_model, language_model, varied_model

MUTANTS = [
    (
        "every-draft-by-the-standard-test",
        "    passing = q.min",
        "    high = torch.ones_like(high)\n    passing = q.min",
    ),
    ("largest-factor", "low, high = torch.where(valid, low, rho), torch.where(valid, rho, high)", "pass"),
    ("bisection-turned-round", "turns) <= rho", "turns) >= rho"),
    ("a-few-halvings", "range(-round(log2(torch.finfo(p.dtype).eps)))", "range(4)"),
    ("residual-of-one-draft", "residual(p, passing * tries(passing, turns))", "residual(p, passing)"),
    ("residual-of-speculative-sampling", "residual(p, passing * tries(passing, turns))", "residual(p, q)"),
    ("tests-without-the-factor", "(rho[above, 0] * q[above, x])", "q[above, x]"),
    ("all-drafts-stay-alive", "if node in nodes[:-1]]", "if len(nodes) > len(path)]"),
    ("only-the-kept-draft-goes-on", "if node in nodes[:-1]]", "if node in nodes[:-1]][:1]"),
    ("all-drafts-counted-everywhere", "[count_at[node] for node in", "[len(paths) * (count_at[node] > 0) for node in"),
    ("equal-beginnings-read-twice", "if (nodes[-1], token) not in known:", "if True:"),
    ("law-of-the-node-before", "*(nodes[place] + 1 for place", "*(nodes[place] for place"),
    ("drafts-cut-across", "grown.tokens[i::drafts]", "grown.tokens[i * fitting : (i + 1) * fitting]"),
    ("drafts-that-differ-by-force", "replacement=True", "replacement=False"),
    ("target-keeps-the-first-nodes", " cache.keep(len(tokens), path)", " cache.crop(len(tokens) + len(path))"),
    ("drafter-keeps-the-first-draft", "[winner + drafts * place for", "[drafts * place for"),
    ("drafter-forgets-the-path", "range(min(len(path), fitting - 1))", "range(0)"),
    ("every-draft-a-pass", "draft_passes=fitting", "draft_passes=fitting * drafts"),
]

PROMPT = [5, 3, 8, 1]


def law(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def random_laws(vocab: int, seed: int, sharpness: float = 2.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    p, q = torch.rand(2, vocab, generator=generator, dtype=torch.float64).pow(sharpness).unbind()
    return p / p.sum(), q / q.sum()


def solved(p: Tensor, q: Tensor, k: int) -> tuple[float, Tensor, Tensor]:
    """The factor, the chances [vocab] that one draft is a token and passes, and the law [vocab] where none does."""
    rho, rest = k_seq(p[None], q[None], [k])
    return float(rho), torch.minimum(q, p / rho[0]), rest[0]


def accepted(p: Tensor, q: Tensor, k: int) -> float:
    """The chance that K-SEQ keeps one of k drafts: 1 - (1 - beta)^k."""
    _, passing, _ = solved(p, q, k)
    return 1 - (1 - float(passing.sum())) ** k


# ---- one place ---------------------------------------------------------------------------------------------------


def test_two_drafts_of_a_certain_drafter_by_hand() -> None:
    """Always a is drafted, and wanted half of the time: beta = 1 / (2 rho), and rho = 2 - beta gives 1 + sqrt(1/2)."""
    rho, passing, rest = solved(law(0.5, 0.5), law(1.0, 0.0), 2)
    assert rho == pytest.approx(1 + 0.5**0.5)
    assert 1 - (1 - float(passing.sum())) ** 2 == pytest.approx(0.5)
    assert rest.tolist() == pytest.approx([0, 1])


def test_independent_standard_tests_give_too_much_of_what_any_draft_supports() -> None:
    """The factor 1 for two drafts: beta = .5 + .1, so a comes with .5 (1 + .4) = .7 and not with .5."""
    p, q = law(0.5, 0.5), law(0.9, 0.1)
    passing = torch.minimum(p, q)
    expected = float(tries(passing[None], torch.ones(1, 2, dtype=torch.bool)))
    assert expected == pytest.approx(1.4)
    assert float(passing[0]) * expected == pytest.approx(0.7)
    assert solved(p, q, 2)[0] > 1.3


@pytest.mark.parametrize("k", [1, 2, 3, 8])
def test_the_factor_solves_its_equation_and_the_output_has_the_law_of_the_target(k: int) -> None:
    for seed in range(20):
        p, q = random_laws(5, seed)
        rho, passing, rest = solved(p, q, k)
        beta = float(passing.sum())
        chance = 1 - (1 - beta) ** k
        assert 1 <= rho <= k
        assert chance == pytest.approx(rho * beta, abs=1e-12)
        missing = p - passing * chance / beta
        assert missing.min() > -1e-12
        assert float(missing.sum()) == pytest.approx(1 - chance, abs=1e-12)
        torch.testing.assert_close(passing * chance / beta + (1 - chance) * rest, p, rtol=0, atol=1e-12)
        assert float(rest[p < rho * q].sum()) < 1e-9 or chance > 1 - 1e-9  # what can be rejected does not come after it


def test_one_draft_is_the_rule_of_speculative_sampling() -> None:
    for seed in range(10):
        p, q = random_laws(5, seed)
        rho, _, rest = solved(p, q, 1)
        assert rho == 1
        assert torch.equal(rest, residual(p, q))


@pytest.mark.parametrize("k", [1, 3])
def test_equal_disjoint_and_certain_laws(k: int) -> None:
    p, _ = random_laws(4, 1)
    rho, passing, rest = solved(p, p, k)
    assert rho == pytest.approx(1)
    assert float(passing.sum()) == pytest.approx(1)
    rho, passing, rest = solved(law(0.3, 0.7, 0, 0), law(0, 0, 0.5, 0.5), k)
    assert (rho, float(passing.sum())) == (pytest.approx(k), 0)
    assert rest.tolist() == pytest.approx([0.3, 0.7, 0, 0])
    rho, _, rest = solved(law(0, 1), law(0, 1), k)
    assert rho == pytest.approx(1)
    assert rest.tolist() == [0, 1]


def test_every_row_has_as_many_drafts_as_are_alive_there() -> None:
    p, q = (torch.stack(rows) for rows in zip(*(random_laws(4, seed) for seed in range(4)), strict=True))
    rho, rest = k_seq(p, q, [3, 0, 1, 2])
    for row, k in enumerate((3, 0, 1, 2)):
        if k:
            alone = solved(p[row], q[row], k)
            assert float(rho[row]) == pytest.approx(alone[0])
            torch.testing.assert_close(rest[row], alone[2], rtol=0, atol=1e-9)
    torch.testing.assert_close(rest[1], p[1])  # nobody drafted: the target's own law


def test_laws_of_single_precision_are_solved_to_their_last_digits() -> None:
    for seed in range(5):
        p, q = random_laws(50, seed)
        wide, _ = k_seq(p[None], q[None], [4])
        rho, rest = k_seq(p[None].float(), q[None].float(), [4])
        assert float(rho) == pytest.approx(float(wide), abs=3e-6)
        assert rest.dtype == torch.float32


# ---- the optimal transport ---------------------------------------------------------------------------------------


def optimum(p: Tensor, q: Tensor, k: int) -> float:
    """The most that any coupling of k draws from q with p can accept: the linear programme, solved as a flow.

    From each tuple of drafts flows at most its chance, to the tokens in it, and into a token at most p. A largest flow
    is found by augmenting along shortest paths.
    """
    tuples, vocab = list(product(range(len(p)), repeat=k)), len(p)
    left = [float(q[list(drafts)].prod()) for drafts in tuples]
    free, flow = p.tolist(), [[0.0] * vocab for _ in tuples]
    while True:
        came: dict[tuple[str, int], tuple[str, int] | None] = {
            ("drafts", i): None for i in range(len(tuples)) if left[i] > 1e-15
        }
        queue, end = list(came), None
        for kind, i in queue:  # grows on the way
            if kind == "token" and free[i] > 1e-15:
                end = (kind, i)
                break
            if kind == "drafts":
                steps = [("token", x) for x in set(tuples[i])]
            else:
                steps = [("drafts", j) for j in range(len(tuples)) if flow[j][i] > 1e-15]
            for step in steps:
                if step not in came:
                    came[step] = (kind, i)
                    queue.append(step)
        if end is None:
            return sum(map(sum, flow))
        path = [end]
        while (before := came[path[-1]]) is not None:
            path.append(before)
        path.reverse()
        pairs = list(pairwise(path))
        backward = [flow[b[1]][a[1]] for a, b in pairs if a[0] == "token"]
        amount = min([left[path[0][1]], free[end[1]], *backward])
        left[path[0][1]] -= amount
        free[end[1]] -= amount
        for a, b in pairs:
            drafts, token, sign = (a[1], b[1], 1) if a[0] == "drafts" else (b[1], a[1], -1)
            flow[drafts][token] += sign * amount


def least_cut(p: Tensor, q: Tensor, k: int) -> float:
    """The dual of the same programme: over all sets of tokens, p(set) and the chance that the drafts leave the set."""
    sets = [list(tokens) for size in range(len(p) + 1) for tokens in combinations(range(len(p)), size)]
    return min(float(p[tokens].sum()) + 1 - float(q[tokens].sum()) ** k for tokens in sets)


@pytest.mark.parametrize(("vocab", "k"), [(2, 1), (3, 2), (4, 2), (3, 3)])
def test_k_seq_accepts_at_least_its_share_of_the_optimal_transport_and_no_more(vocab: int, k: int) -> None:
    for seed in range(12):
        p, q = random_laws(vocab, seed, sharpness=1 + seed % 3)
        best = optimum(p, q, k)
        assert best == pytest.approx(least_cut(p, q, k), abs=1e-9)  # primal and dual meet: it is the optimum
        found = accepted(p, q, k)
        assert (1 - (1 - 1 / k) ** k) * best - 1e-12 <= found <= best + 1e-9
        if k == 1:
            assert found == pytest.approx(best)


def test_the_optimum_by_hand() -> None:
    """Wanted a or b evenly; two drafts of mostly a: both are a with .81, so b is at hand with .19 and a with .99."""
    p, q = law(0.5, 0.5), law(0.9, 0.1)
    assert optimum(p, q, 2) == pytest.approx(0.5 + 0.19)


@pytest.mark.parametrize("k", [2, 4, 8])
def test_on_laws_that_differ_much_it_stays_above_its_bound(k: int) -> None:
    shares = []
    for seed in range(60):
        p, q = random_laws(6, seed, sharpness=1 + seed % 5)
        shares.append(accepted(p, q, k) / least_cut(p, q, k))
    assert 1 - (1 - 1 / k) ** k <= min(shares)
    assert max(shares) <= 1 + 1e-9
    assert sum(shares) / len(shares) > 0.9


def recursive(p: Tensor, q: Tensor, k: int) -> float:
    """What recursive rejection keeps of the same k independent drafts."""
    fails = 1.0
    for _ in range(k):
        fails *= 1 - float(torch.minimum(p, q).sum())
        p = residual(p, q)
    return 1 - fails


def test_more_drafts_accept_more_and_on_the_average_more_than_recursive_rejection_does() -> None:
    found, others = [], []
    for seed in range(60):
        p, q = random_laws(4, seed)
        chances = [accepted(p, q, k) for k in range(1, 7)]
        assert chances == sorted(chances)
        found.append(chances[2])
        others.append(recursive(p, q, 3))
    assert sum(found) > sum(others)


# ---- drafts and places -------------------------------------------------------------------------------------------


def test_equal_beginnings_are_one_path() -> None:
    tree, paths = share([[0, 1, 2], [0, 1, 1], [3, 1, 2], [0, 1, 2]])
    assert tree.tokens == [0, 1, 2, 1, 3, 1, 2]
    assert tree.parents == [-1, 0, 1, 1, -1, 4, 5]
    assert paths == [[0, 1, 2], [0, 1, 3], [4, 5, 6], [0, 1, 2]]
    assert share([[], []])[1] == [[], []]


def test_only_drafts_that_agree_with_what_was_kept_are_tried_further() -> None:
    """The target wants 1, then 0: the first draft fails at once, the second behind 1, and the third goes on."""
    tree, paths = share([[0, 0], [1, 1], [1, 0]])
    wanted = {-1: 1, 0: 0, 1: 0, 2: 0, 3: 1, 4: 1}
    p = torch.zeros(len(tree) + 1, 2, dtype=torch.float64)
    for node, token in wanted.items():
        p[node + 1, token] = 1
    q = torch.full_like(p, 0.5)
    path, extra = verify_drafts(Sampler(0), tree, paths, p, q)
    assert [tree.tokens[node] for node in path] == [1, 0]
    assert extra == 1
    assert tree.path(path[-1]) == path


@pytest.fixture
def one_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run ends after its first drafts, which are those of the second step: the first one reads the prompt."""

    def add(self: Generation, step: Step, _limit: int, _eos: object = None) -> bool:
        self.tokens += step.emitted
        self.steps.append(step)
        return not step.drafted

    monkeypatch.setattr(Generation, "add", add)


def completed(law: Law, target: LanguageModel, prompt: list[int], length: int) -> Law:
    """The law of `length` tokens: what a step gave, and the target's own decoding after it."""
    found: Law = {}
    for text, chance in law.items():
        rest = autoregressive_law(target, [*prompt, *text], max(0, length - len(text)))
        for more, share_of in rest.items():
            key = (*text, *more)[:length]
            found[key] = found.get(key, 0.0) + chance * share_of
    return found


@pytest.mark.usefixtures("one_tree")
@pytest.mark.parametrize(("vocab", "drafts", "gamma"), [(3, 2, 1), (2, 3, 1), (2, 2, 2)])
def test_a_step_has_the_law_of_the_target(vocab: int, drafts: int, gamma: int) -> None:
    target, own = flat_model(vocab), {"drafter": language_model(vocab, seed=170, layers=1), "drafts": drafts}
    law = exact_law(lambda s: generate(target, [0, 1], 9, sampler=s, gamma=gamma, **own))
    length = gamma + 2
    assert min(map(len, law)) < max(map(len, law)) == length
    wanted = autoregressive_law(target, [0, 1], length)
    assert total_variation(completed(law, target, [0, 1], length), wanted) < 1e-12


def chance_table(draft: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor]:
    """Laws p and q of two tokens after a draft, clearly different."""
    generator = torch.Generator().manual_seed(sum(2**i * (token + 1) for i, token in enumerate(draft)) + 100 * seed)
    p, q = torch.rand(2, 2, generator=generator, dtype=torch.float64) + 0.1
    return p / p.sum(), q / q.sum()


@pytest.mark.parametrize("seed", range(2))
def test_the_walk_over_three_drafts_keeps_the_joint_law_with_however_many_alive(seed: int) -> None:
    """All triples of drafts of two tokens, weighed by their chances: three, two, one alive at the second place."""
    found: dict[tuple[int, ...], float] = {}
    texts = list(product(range(2), repeat=2))
    chances = {
        text: float(chance_table((), seed)[1][text[0]] * chance_table(text[:1], seed)[1][text[1]]) for text in texts
    }
    for drafts in product(texts, repeat=3):
        weight = chances[drafts[0]] * chances[drafts[1]] * chances[drafts[2]]
        tree, paths = share(drafts)
        places = [tuple(tree.tokens[i] for i in tree.path(node)) for node in range(-1, len(tree))]
        p, q = (torch.stack(rows) for rows in zip(*(chance_table(place, seed) for place in places), strict=True))

        def run(sampler: Sampler, given: tuple[Any, ...] = (tree, paths, p, q)) -> Generation:
            path, extra = verify_drafts(sampler, *given)
            return Generation([*(given[0].tokens[node] for node in path), extra])

        for text, chance in exact_law(run).items():
            found[text] = found.get(text, 0.0) + weight * chance
    law: dict[tuple[int, ...], float] = {}
    for text, chance in found.items():  # a shorter text goes on with the target's own laws
        for more in product(range(2), repeat=3 - len(text)):
            whole, share_of = (*text, *more), chance
            for i in range(len(text), 3):
                share_of *= float(chance_table(whole[:i], seed)[0][whole[i]])
            law[whole] = law.get(whole, 0.0) + share_of
    for text, chance in law.items():
        wanted = 1.0
        for i in range(3):
            wanted *= float(chance_table(text[:i], seed)[0][text[i]])
        assert chance == pytest.approx(wanted, abs=1e-12)


def with_kept(result: Generation) -> Generation:
    return Generation([result.steps[-1].kept, *result.tokens])


@pytest.mark.usefixtures("one_tree")
def test_one_draft_is_speculative_sampling() -> None:
    target, drafter = flat_model(), language_model(3, seed=170, layers=1)
    own: dict[str, Any] = {"drafter": drafter, "gamma": 2}
    found = exact_law(lambda s: with_kept(generate(target, [0, 1], 9, sampler=s, drafts=1, **own)))
    wanted: Law = {}
    for (token,), chance in autoregressive_law(target, [0, 1], 1).items():

        def single(s: Sampler, prompt: tuple[int, ...] = (0, 1, token)) -> Generation:
            return with_kept(speculative_sampling_chen.generate(target, prompt, 9, sampler=s, **own))

        for (kept, *text), share_of in exact_law(single).items():
            wanted[kept, token, *text] = chance * share_of
    assert total_variation(found, wanted) < 1e-12


@pytest.mark.usefixtures("one_tree")
def test_a_step_accepts_as_often_as_the_closed_form_says() -> None:
    target, drafter = flat_model(), language_model(3, seed=170, layers=1)
    own: dict[str, Any] = {"drafter": drafter, "drafts": 2, "gamma": 1}
    law = exact_law(lambda s: with_kept(generate(target, [0, 1], 9, sampler=s, **own)))
    found, wanted = sum(chance for (kept, *_), chance in law.items() if kept), 0.0
    for (token,), chance in autoregressive_law(target, [0, 1], 1).items():
        p, q = (model([0, 1, token])[-1].softmax(-1).detach() for model in (target, drafter))
        wanted += chance * accepted(p, q, 2)
    assert found == pytest.approx(wanted, abs=1e-12)


def test_greedy_drafts_are_all_the_same_and_the_tree_is_a_chain() -> None:
    target = varied_model()
    own: dict[str, Any] = {"drafter": target, "sampler": Sampler(0), "gamma": 3}
    one, five = (generate(target, PROMPT, 21, drafts=drafts, **own) for drafts in (1, 5))
    assert one.to_dict() == five.to_dict()
    assert [step.kept for step in five.steps] == [0] + [3] * 5
    assert [step.draft_passes for step in five.steps] == [0] + [3] * 5
    assert five.steps[1].parents == [-1, 0, 1]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("guess", ["another", "the target"])
def test_both_caches_keep_the_accepted_path_alone(
    temperature: float, guess: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time the drafts begin, a cache holds what a fresh pass over the text would have made."""
    target = varied_model()
    drafter = target if guess == "the target" else language_model(11, seed=5)
    held = watched(monkeypatch, spectr, target)
    own: dict[str, Any] = {"drafter": drafter, "drafts": 3, "gamma": 3}
    result = generate(target, PROMPT, 25, sampler=Sampler(temperature, seed=2), **own)
    assert {step.kept for step in result.steps} >= ({0, 3} if guess == "the target" else {0})
    assert held[:2] == [(0, 4), (0, 5)]  # nothing is drafted before the prompt is read
    # Of a path the last place was not read; the extra token never is.
    for step, (length, tokens) in zip(result.steps[1:], held[2:], strict=False):
        assert tokens - length == (2 if step.kept == 3 else 1)


def test_the_draft_that_is_kept_need_not_be_the_first() -> None:
    """Several drafts of another model at a high temperature: paths that are no prefix of the tree, of any draft."""
    target, drafter = flat_model(), language_model(3, seed=170, layers=1)
    result = generate(target, [0, 1], 60, drafter=drafter, sampler=Sampler(1.0, seed=3), drafts=4, gamma=3)
    later = [step for step in result.steps if step.kept and step.emitted[0] != step.drafted[0]]
    assert len(later) > 2
    assert all(step.draft_passes == 3 for step in result.steps[1:-1])
    assert max(len(step.drafted) for step in result.steps) > 3


@pytest.mark.parametrize("drafts", [0, -2])
def test_no_drafts_are_one_sentence(drafts: int) -> None:
    with pytest.raises(ValueError, match=re.escape(f"drafts is {drafts}; make at least 1 a step")):
        generate(varied_model(), PROMPT, 3, drafter=language_model(11), sampler=Sampler(0), drafts=drafts)


def test_a_broken_drafter_and_a_broken_target_are_named() -> None:
    target, drafter = varied_model(), language_model(11)
    with torch.no_grad():
        drafter.embedding.fill_(torch.nan)
    with pytest.raises(ValueError, match="the drafter's logits are not finite"):
        generate(target, PROMPT, 3, drafter=drafter, sampler=Sampler(0))
    with pytest.raises(ValueError, match="the target's logits"):
        generate(drafter, PROMPT, 3, drafter=target, sampler=Sampler(0))


def ending_at(model: LanguageModel, positions: int) -> LanguageModel:
    """The model, with a last position."""
    same = LanguageModel(replace(model.shape, positions=positions)).double()
    same.load_state_dict(model.state_dict())
    return same


@pytest.mark.parametrize(("target_end", "drafter_end"), [(23, 99), (99, 15), (23, 22)])
def test_drafts_end_with_the_last_position_of_either_model(target_end: int, drafter_end: int) -> None:
    """The target reads every guess, a drafter all but the last; the text is that of models without an end."""
    free = varied_model()
    target, drafter = ending_at(free, target_end), ending_at(free, drafter_end)
    result = generate(target, PROMPT, 20, drafter=drafter, sampler=Sampler(0), drafts=2, gamma=3)
    assert result.tokens == generate(free, PROMPT, 20, drafter=free, sampler=Sampler(0), drafts=2, gamma=3).tokens
    length = len(PROMPT) + 1
    for step in result.steps[1:]:
        fits = max(0, min(3, target_end - length, drafter_end + 1 - length))
        assert step.draft_passes == fits
        assert (len(step.drafted) > 0) == (fits > 0)
        length += len(step.emitted)
    assert length == len(PROMPT) + 20
    assert {step.draft_passes for step in result.steps[1:]} > {3}


def test_a_text_past_the_last_position_of_the_target_is_refused() -> None:
    target = ending_at(varied_model(), 24)
    with pytest.raises(ValueError, match="the target has 24 positions, and 4 tokens of prompt with 22 more do not fit"):
        generate(target, PROMPT, 22, drafter=language_model(11), sampler=Sampler(0))


def test_defaults_are_the_documented_ones() -> None:
    assert defaults_of(importlib.import_module(spectr.__name__)) == {"generate.drafts": 8, "generate.gamma": 4}
