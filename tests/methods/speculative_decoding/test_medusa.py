"""What is peculiar to Medusa: heads, trees, calibration and loss, typical acceptance, and a bias of published code."""

from __future__ import annotations

import importlib
import math
from dataclasses import replace
from itertools import combinations
from math import prod

import pytest
import torch
import torch.nn.functional as F
from defaults import defaults_of

from accelgen.measuring.published_rules import draw_per_path
from reference_impls.baselines.autoregressive import generate as autoregressive
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.tree import Tree
from reference_impls.speculative_decoding.medusa import (
    Acceptance,
    MedusaHeads,
    accept_typical,
    cartesian,
    generate,
    loss,
    plan,
    rank_accuracy,
    sparse_tree,
)
from reference_impls.testing.laws import autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import broken, flat_model, language_model, randomised, varied_model

MUTANTS = [
    (
        "heads-read-at-the-parent-of-the-last-node",
        "features[path[-1] + 1 if path else 0]",
        "features[path[-1] if path else 0]",
    ),
    ("heads-read-at-the-last-row", "features[path[-1] + 1 if path else 0]", "features[-1]"),
    ("keys-of-the-first-nodes", "cache.keep(len(tokens), path)", "cache.crop(len(tokens) + len(path))"),
    ("tree-of-siblings-in-a-row", "positions=len(cache) + depths, ", ""),
    ("branches-see-each-other", "visible=visible)\n", "visible=None)\n"),
    ("always-the-best-rank", "ranks + path[-1] for path", "ranks for path"),
    ("ranks-of-the-head-before", "(len(path) - 1) * ranks", "max(0, len(path) - 2) * ranks"),
    ("nodes-past-the-last-position", "room(len(tokens), heads.k - 1, target)", "heads.k - 1"),
    ("level-less-than-fits", "room(len(tokens), heads.k - 1, target)", "room(len(tokens) + 1, heads.k - 1, target)"),
    ("rank-too-few", ".tokens) + 1, heads.k", ".tokens) or 1, heads.k"),
    ("accuracies-added", "(chance * own, (*path, rank))", "(chance - own, (*path, rank))"),
    ("accuracy-of-the-last-rank-alone", "(chance * own, (*path, rank))", "(-own, (*path, rank))"),
    ("typical-by-default", 'acceptance: Acceptance = "exact"', 'acceptance: Acceptance = "typical"'),
    ("floor-is-the-larger", ".clamp(max=epsilon)", ".clamp(min=epsilon)"),
    ("entropy-the-wrong-way-round", "(-torch.special.entr(p)", "(torch.special.entr(p)"),
    ("plausible-by-its-own-law", "chance > floor[parents]", "chance > floor[1:]"),
    (
        "orphans-accepted",
        "if parent in reached and log_p[node] > -torch.inf:",
        "if log_p[node] > -torch.inf:\n            reached.setdefault(parent, (9, 0.0))",
    ),
    ("shortest-path-wins", "key=lambda node: reached[node]", "key=lambda node: -reached[node][0]"),
    ("likelihood-ignored", "before + log_p[node]", "-float(node)"),
    ("likelihood-of-the-last-token", "before + log_p[node]", "log_p[node]"),
    ("broken-model-hidden-by-a-maximum", ".where(p[last + 1].isfinite().all(), -1)", ""),
    ("head-trained-one-token-early", "tokens[:, i + 1 :]", "tokens[:, i:-1]"),
    ("law-of-another-place", "own[:, i:].flatten", "own[:, :-i].flatten"),
    ("divergence-the-wrong-way-round", "F.kl_div(log_q, log_p,", "F.kl_div(log_p, log_q,"),
    ("heads-weighed-alike", "base**i * each", "each"),
    ("heads-counted-from-0", "base**i * each", "base ** (i - 1) * each"),
    ("residual-left-out", "features[..., None, :] + inner", "inner"),
    (
        "accuracy-one-place-early",
        "guess[:, :-i] == wanted[:, i:, None]",
        "guess[:, : guess.shape[1] - i + 1] == wanted[:, i - 1 :, None]",
    ),
]

ACCURACY = [[0.5, 0.2, 0.15], [0.3, 0.25, 0.05], [0.2, 0.1, 0.02]]
Path = tuple[int, ...]


def heads_of(target: LanguageModel, k: int) -> MedusaHeads:
    heads = randomised(MedusaHeads, target.shape, k=k)
    assert isinstance(heads, MedusaHeads)
    return heads


# Heads


def test_every_head_starts_as_the_models_own() -> None:
    for tied in (False, True):
        target = language_model(5)
        if tied:
            target.head = None
        heads = heads_of(target, 4)
        heads.start_from(target)
        features = torch.randn(7, target.shape.dim, dtype=torch.float64)
        assert torch.allclose(heads(features), target.project(features).expand(3, -1, -1), atol=1e-12)


def test_a_head_is_the_papers_formula() -> None:
    heads = heads_of(language_model(5), 3)
    h = torch.randn(8, dtype=torch.float64)
    for i, logits in enumerate(heads(h)):
        first = heads.inner[:, i * 8 : (i + 1) * 8]
        assert torch.allclose(logits, (F.silu(h @ first) + h) @ heads.out[i], atol=1e-12)


# Trees


def test_the_cartesian_product_of_the_papers_figure() -> None:
    paths = cartesian([2, 3])
    assert len(paths) == 2 + 2 * 3
    assert paths[:3] == [(0,), (1,), (0, 0)]
    assert len(set(paths)) == len(paths)


def chance(path: Path) -> float:
    return prod(ACCURACY[depth][rank] for depth, rank in enumerate(path))


@pytest.mark.parametrize("nodes", [1, 2, 4, 5])
def test_no_tree_of_as_many_nodes_expects_to_keep_more(nodes: int) -> None:
    every = [path for path in cartesian([3, 3, 3]) if len(path) < 3 or path[-1] < 2]
    grown = sparse_tree([row[: 2 if depth == 2 else 3] for depth, row in enumerate(ACCURACY)], nodes)
    closed = (set(some) for some in combinations(every, nodes) if all(path[:-1] in {(), *some} for path in some))
    assert sum(map(chance, grown)) == pytest.approx(max(sum(map(chance, some)) for some in closed), abs=1e-12)
    assert all(path[:-1] in {(), *grown[:i]} for i, path in enumerate(grown))  # parents first


def test_a_tree_larger_than_the_product_is_the_product() -> None:
    assert set(sparse_tree(ACCURACY, 1000)) == set(cartesian([3, 3, 3]))


@pytest.mark.parametrize("positions", [99, 15])
def test_the_tree_of_a_step_holds_the_best_tokens_of_each_head(positions: int) -> None:
    """As many levels of it as the target has positions for."""
    target, choices = varied_model(), [(0,), (2,), (2, 1), (0, 0), (2, 1, 0)]
    target.shape = replace(target.shape, positions=positions)
    heads, prompt, levels = heads_of(target, 4), [5, 3, 8, 1], set[int]()
    run = generate(target, prompt, 12, heads=heads, sampler=Sampler(0), choices=choices)
    text = list(prompt)
    for step, following in zip(run.steps, run.steps[1:], strict=False):
        text += step.emitted
        features = target.norm(target.run(target.embed(text[:-1])))[-1]
        best = heads(features).argsort(dim=-1, descending=True)
        levels.add(min(3, positions - len(text)))
        fitting = [path for path in choices if len(path) <= min(levels)]
        assert following.drafted == [int(best[len(path) - 1, path[-1]]) for path in fitting]
        assert following.parents == [-1, -1, 1, 0, 2][: len(fitting)]
    assert levels == ({3} if positions == 99 else {3, 2, 1, 0})
    assert len(run.tokens) == 12


def test_a_wider_tree_saves_passes() -> None:
    target = varied_model()
    heads = heads_of(target, 2)
    passes = []
    for width in (1, 6):
        own = {"heads": heads, "choices": cartesian([width])}
        runs = [generate(target, [first], 12, sampler=Sampler(0), **own) for first in range(11)]  # type: ignore[arg-type]
        passes.append(sum(run.passes for run in runs))
    assert passes[1] < 0.9 * passes[0]


@pytest.mark.parametrize("choices", [[], [(0, 0)], [(0,), (0,)], [(11,)], [(-1,)], [(0,), (0, 0), (0, 0, 0)], [()]])
def test_a_tree_that_cannot_be_is_one_sentence(choices: list[Path]) -> None:
    target = varied_model()
    with pytest.raises(ValueError, match="choices"):
        generate(target, [0], 3, heads=heads_of(target, 3), sampler=Sampler(0), choices=choices)


def test_a_tree_needs_a_head() -> None:
    with pytest.raises(ValueError, match="k >= 2"):
        MedusaHeads(language_model().shape, k=1)


# Training and calibration


@torch.no_grad()
def test_the_loss_is_the_weighted_sum_over_heads_and_places() -> None:
    target = language_model(5)
    heads, tokens = heads_of(target, 4), torch.tensor([[0, 1, 2, 3, 4, 0, 2]])
    hard, soft = 0.0, 0.0
    for i in (1, 2, 3):
        each, places = [0.0, 0.0], tokens.shape[1] - i - 1
        for t in range(places):
            features = target.norm(target.run(target.embed(tokens[0, : t + 1]))[-1])
            log_q = heads(features)[i - 1].log_softmax(-1)
            log_p = target(tokens[0, : t + i + 1])[-1].log_softmax(-1)
            each[0] -= float(log_q[tokens[0, t + i + 1]])
            each[1] += float((log_p.exp() * (log_p - log_q)).sum())
        hard += 0.8**i * each[0] / places
        soft += 0.8**i * each[1] / places
    assert loss(target, heads, tokens).item() == pytest.approx(hard, rel=1e-5)
    assert loss(target, heads, tokens, distil=True).item() == pytest.approx(soft, rel=1e-5)


@pytest.mark.parametrize("distil", [False, True])
def test_only_the_heads_learn_and_they_learn_to_guess(distil: bool) -> None:  # noqa: FBT001
    target = varied_model()
    texts = [[t, *autoregressive(target, [t], 15, sampler=Sampler(0)).tokens] for t in range(11)]
    tokens, heads = torch.tensor(texts), heads_of(target, 3)
    heads.start_from(target)
    before, first = rank_accuracy(target, heads, tokens), loss(target, heads, tokens, distil=distil).item()
    optimiser = torch.optim.Adam(heads.parameters(), lr=0.03)
    for _ in range(30):
        optimiser.zero_grad()
        loss(target, heads, tokens, distil=distil).backward()
        optimiser.step()
    assert loss(target, heads, tokens, distil=distil).item() < 0.6 * first
    assert (rank_accuracy(target, heads, tokens)[:, 0] > before[:, 0] + 0.03).all()
    assert all(parameter.grad is None for parameter in target.parameters())


def test_rank_accuracy_counts_hits_of_each_rank() -> None:
    target = varied_model()
    heads, tokens = heads_of(target, 3), torch.randint(11, (2, 9))
    found = rank_accuracy(target, heads, tokens, ranks=4)
    against = rank_accuracy(target, heads, tokens[:, :-1], ranks=4, wanted=tokens[:, 1:])
    for i in (1, 2):
        hits, texts = torch.zeros(4), torch.zeros(4)
        for text in tokens:
            for t in range(9 - i):
                best = heads(target.norm(target.run(target.embed(text[: t + 1]))[-1]))[i - 1].topk(4).indices
                hits += best == target(text[: t + i + 1])[-1].argmax()
                if t + i + 1 < 9:
                    texts += best == text[t + i + 1]
        assert found[i - 1].tolist() == pytest.approx((hits / (2 * (9 - i))).tolist())
        assert against[i - 1].tolist() == pytest.approx((texts / (2 * (8 - i))).tolist())


# Typical acceptance


def tree_of(*nodes: tuple[int, int]) -> Tree:
    tree = Tree()
    for token, parent in nodes:
        tree.add(token, parent)
    return tree


P = torch.tensor(
    [[0.5, 0.4, 0.1], [0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7], [0.3, 0.3, 0.4]], dtype=torch.float64
)


def test_the_longest_plausible_path_wins_and_of_two_the_likelier() -> None:
    one = tree_of((0, -1), (1, -1), (0, 0), (0, 1))  # two paths of two: 0.5 * 0.8 and 0.4 * 0.6
    assert accept_typical(one, P, 0.25, 9.0) == ([0, 2], 2)
    other = tree_of((0, -1), (1, -1), (1, 0), (1, 1))  # 0.5 * 0.1 and 0.4 * 0.3: only the second is plausible
    assert accept_typical(other, P, 0.25, 9.0) == ([1, 3], 2)
    near = tree_of((0, -1), (1, -1), (2, 0), (1, 1))
    assert accept_typical(near, P, 0.05, 9.0) == ([1, 3], 2)  # 0.05 against 0.12
    assert accept_typical(one, P, 0.9, 9.0) == ([], 0)  # nothing is plausible: the target's best token comes alone


def test_the_likelihood_is_that_of_the_whole_path() -> None:
    p = torch.tensor([[0.7, 0.3], [0.6, 0.4], [0.9, 0.1], [0.5, 0.5], [0.5, 0.5]], dtype=torch.float64)
    path, _ = accept_typical(tree_of((0, -1), (1, -1), (0, 0), (0, 1)), p, 0.2, 9.0)
    assert path == [0, 2]  # 0.7 * 0.6 is more than 0.3 * 0.9


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_broken_model_is_reported_by_the_typical_rule_too(temperature: float) -> None:
    target = broken(varied_model())
    heads = heads_of(target, 3)
    with pytest.raises(ValueError, match="not finite"):
        generate(target, [5, 3], 3, heads=heads, sampler=Sampler(temperature), acceptance="typical")


def test_a_plausible_child_of_an_implausible_node_is_not_reached() -> None:
    tree = tree_of((2, -1), (0, 0))
    assert accept_typical(tree, P, 0.25, 9.0) == ([], 0)


def test_the_floor_is_the_smaller_of_epsilon_and_delta_by_the_entropy() -> None:
    law = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    entropy = -float((law * law.log()).sum())
    p, tree = law.repeat(2, 1), tree_of((1, -1))
    at = 0.2 * 2.718281828459045**entropy  # with this delta the floor is 0.2
    assert accept_typical(tree, p, 1.0, at * 0.99) == ([0], 0)
    assert accept_typical(tree, p, 1.0, at * 1.01) == ([], 0)
    assert accept_typical(tree, p, 0.19, at * 1.01) == ([0], 0)


@pytest.mark.parametrize("temperature", [0.7, 1.3])
@torch.no_grad()
def test_every_kept_token_is_plausible_and_every_other_is_the_best(temperature: float) -> None:
    target, sampler = varied_model(), Sampler(temperature)
    for first in range(5):
        run = generate(target, [first], 14, heads=heads_of(target, 4), sampler=sampler, acceptance="typical")
        text = [first]
        for step in run.steps:
            for i, token in enumerate(step.emitted):
                p = sampler.probs(target(text)[-1])
                floor = min(0.09, 0.3 * float((p * p.log()).sum().exp()))
                assert p[token] > floor if i < step.kept else token == int(p.argmax())
                text.append(token)
    assert run.passes < 14


def test_typical_acceptance_at_temperature_0_is_greedy_decoding() -> None:
    target = varied_model()
    for first in range(5):
        wanted = autoregressive(target, [first], 14, sampler=Sampler(0)).tokens
        for epsilon in (0.09, 1.0):
            own = {"heads": heads_of(target, 4), "epsilon": epsilon, "acceptance": "typical"}
            assert generate(target, [first], 14, sampler=Sampler(0), **own).tokens == wanted  # type: ignore[arg-type]


def test_typical_acceptance_is_lossy_and_deaf_to_the_seed() -> None:
    target = flat_model()
    heads = heads_of(target, 3)

    def law(rule: Acceptance) -> dict[Path, float]:
        return exact_law(lambda chance: generate(target, [0, 1], 2, heads=heads, sampler=chance, acceptance=rule))

    wanted = autoregressive_law(target, [0, 1], 2)
    assert total_variation(law("exact"), wanted) < 1e-9
    assert list(law("typical").values()) == [1.0]
    assert total_variation(law("typical"), wanted) > 0.2


def test_stricter_thresholds_keep_less() -> None:
    target = varied_model()
    heads = heads_of(target, 4)
    kept = []
    for epsilon in (0.02, 0.1, 0.25):
        runs = [
            generate(target, [t], 12, heads=heads, sampler=Sampler(1.0), acceptance="typical", epsilon=epsilon, delta=1)
            for t in range(6)
        ]
        kept.append(sum(run.tokens_per_pass for run in runs))
    assert kept[0] > kept[1] > kept[2]


@pytest.mark.parametrize("wrong", [{"acceptance": "lenient"}, {"epsilon": 0.0}, {"delta": -1.0}])
def test_a_rule_that_is_none_is_one_sentence(wrong: dict[str, object]) -> None:
    target = language_model()
    with pytest.raises(ValueError, match="must be"):
        generate(target, [0], 3, heads=heads_of(target, 3), sampler=Sampler(0), **wrong)  # type: ignore[arg-type]


def test_heads_of_another_type_than_the_target_are_one_sentence() -> None:
    target = language_model()
    with pytest.raises(ValueError, match=r"the heads are torch.float32 on cpu, and the target is torch.float64 on cpu"):
        generate(target, [0], 3, heads=heads_of(target, 3).float(), sampler=Sampler(0))


def test_broken_heads_are_named_when_they_guess() -> None:
    target = language_model()
    heads = heads_of(target, 3)
    torch.nn.init.constant_(heads.out, math.nan)
    with pytest.raises(ValueError, match="the heads' logits are not finite"):
        generate(target, [0], 3, heads=heads, sampler=Sampler(0))


# Published code


def test_drawing_once_for_each_path_favours_what_was_guessed() -> None:
    """The guess 0 begins four paths. One draw a path, and a new draw after a mismatch: TV 0.53; our rule: none."""
    p = torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64)
    law = {text[0]: chance for text, chance in exact_law(lambda chance: draw_per_path(chance, p, 4)).items()}
    assert total_variation(law, dict(enumerate(p.tolist()))) == pytest.approx(0.532, abs=1e-3)


def test_planning_gives_ranks_and_parents() -> None:
    tree = plan([(0,), (3,), (3, 1)], 3, 5)
    assert (tree.tokens, tree.parents) == ([0, 3, 1], [-1, -1, 1])


def test_every_step_has_lists_of_its_own() -> None:
    target = varied_model()
    steps = generate(target, [5], 9, heads=heads_of(target, 3), sampler=Sampler(0)).steps
    before = steps[2].parents[:]
    steps[1].parents.append(99)
    assert steps[2].parents == before


def test_defaults_are_the_documented_ones() -> None:
    assert defaults_of(importlib.import_module("reference_impls.speculative_decoding.medusa")) == {
        "generate.acceptance": "exact",
        "generate.epsilon": 0.09,
        "generate.delta": 0.3,
        "MedusaHeads.k": 5,
        "loss.distil": False,
        "loss.base": 0.8,
        "rank_accuracy.ranks": 10,
    }
