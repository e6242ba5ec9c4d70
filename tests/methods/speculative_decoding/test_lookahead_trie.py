"""What is peculiar to the lookahead trie: counts, forgetting, pruning, the budget, and that learning changes no law."""

from __future__ import annotations

import copy
import importlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from defaults import defaults_of

from reference_impls.baselines.autoregressive import generate as autoregressive
from reference_impls.core.sampling import Sampler
from reference_impls.core.tree import Tree
from reference_impls.speculative_decoding.lookahead_trie import Node, Trie, chosen, generate
from reference_impls.testing.laws import autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import flat_model, table_model, varied_model

MUTANTS = [
    ("prompt-counted-as-output", "node.prompt += 1", "node.output += 1"),
    ("prompt-never-forgotten", "            node.prompt = 0\n", "            pass\n"),
    ("branches-learned-twice", "self.learned = start + 1", "pass"),
    ("branches-learned-before-they-are-complete", "(1 if whole else self.gamma + 1)", "1"),
    ("last-branches-lost", "self.learn(written, whole=True)", "self.learn(written)"),
    ("frequencies-swapped", "-(1 - weight) * found[i].prompt - weight *", "-weight * found[i].prompt - (1 - weight) *"),
    ("no-half-for-outputs", "of_outputs[: (nodes + 1) // 2]", "of_outputs[:0]"),
    ("all-for-outputs", "of_outputs[: (nodes + 1) // 2]", "of_outputs"),
    ("forgotten-nodes-drafted", "if child.prompt or child.output}", "}"),
    ("budget-ignored", "*of_both]))[:nodes]", "*of_both]))"),
    (
        "shorter-key-never-tried",
        "in range(min(longest, len(context)), 0, -1):",
        "in [min(longest, len(context))]:",
    ),
    ("shorter-key-always-taken", "if len(tree) + 1 >= depth:", "if False:"),
    (
        "branches-too-short-for-a-long-key",
        "prompt[start : start + self.gamma + 2]",
        "prompt[start : start + self.gamma + 1]",
    ),
    ("root-not-counted", "if len(tree) + 1 >= depth:", "if len(tree) >= depth:"),
    ("nodes-placed-in-a-row", "positions=positions, visible=visible", "visible=visible"),
    ("branches-see-each-other", "positions=positions, visible=visible", "positions=positions"),
    ("pruning-keeps-single-outputs", "if node.output > 1}", "if node.output > 0}"),
    ("pruning-does-not-fade", "node.output /= 2", "pass"),
    ("pruning-stops-at-the-first-level", "        halve(node)\n", ""),
    ("small-tries-pruned", "if len(every) > self.most or", "if True or"),
    ("nodes-kept-in-order", "cache.keep(len(tokens), path)", "cache.crop(len(tokens) + len(path))"),
    (
        "draw-again-after-a-mismatch",
        "path, extra = verify_tree(sampler, tree, p)",
        "path, _ = verify_tree(sampler, tree, p); extra = int(sampler.draw(p[path[-1] + 1 if path else 0]))",
    ),
    ("learns-what-was-cut-off", "trie.learn(result.tokens)", "trie.learn(tokens[len(prompt) :])"),
]

COUNTING = [[float(token == (last + 1) % 6) for token in range(6)] for last in range(6)]


def text(seed: int, length: int = 30, vocab: int = 3) -> list[int]:
    """A random text in which much repeats."""
    return torch.randint(vocab, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def counts(trie: Trie) -> dict[tuple[int, ...], tuple[float, float]]:
    """Every path with its counts in the prompt and in outputs."""

    def walk(node: Node, path: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[float, float]]]:
        for token, child in node.children.items():
            yield (*path, token), (child.prompt, child.output)
            yield from walk(child, (*path, token))

    return dict(walk(trie.root, ()))


def branches(tokens: list[int], gamma: int, starts: range | None = None) -> Counter[tuple[int, ...]]:
    """How often each path occurs: the prefixes of all branches, from each place but the last on."""
    found: Counter[tuple[int, ...]] = Counter()
    for start in range(len(tokens) - 1) if starts is None else starts:
        branch = tokens[start : start + gamma + 2]
        found.update(tuple(branch[:end]) for end in range(1, len(branch) + 1))
    return found


def paths(tree: Tree) -> list[tuple[int, ...]]:
    """The tokens from the root to each node."""
    return [tuple(tree.tokens[node] for node in tree.path(end)) for end in range(len(tree))]


@pytest.mark.parametrize("gamma", [1, 2, 5])
@pytest.mark.parametrize("seed", range(4))
def test_the_counts_are_those_of_a_recount(seed: int, gamma: int) -> None:
    """Two requests, the second still running: prompts count while they last, outputs stay, in whatever pieces."""
    first, answer, second, growing = (text(10 * seed + i, 20 + i) for i in range(4))
    trie = Trie(gamma)
    assert (trie.largest, counts(trie)) == (-1, {})
    trie.begin(first)
    trie.end(answer)
    assert counts(trie).keys() == branches(first, gamma).keys() | branches(answer, gamma).keys()
    trie.begin(second)
    for end in (0, 1, 2, 7, 8, 23):
        trie.learn(growing[:end])
    complete = range(len(growing[:23]) - gamma - 1)  # a branch is inserted once its last token is there
    outputs = branches(answer, gamma) + branches(growing, gamma, complete)
    prompts = branches(second, gamma)
    found = counts(trie)
    assert {path: n for path, (n, _) in found.items() if n} == prompts
    assert {path: n for path, (_, n) in found.items() if n} == outputs
    assert trie.largest == 2


def test_the_end_inserts_the_rest_and_forgets_the_prompt() -> None:
    prompt, answer = text(1), text(2)
    trie = Trie(4)
    trie.begin(prompt)
    for end in range(len(answer) + 1):
        trie.learn(answer[:end])
    trie.end(answer)
    found = counts(trie)
    assert {path: n for path, (_, n) in found.items() if n} == branches(answer, 4)
    assert not any(n for n, _ in found.values())
    again = copy.deepcopy(trie)
    again.begin([])
    again.end([])
    assert counts(again) == found


def test_a_request_that_broke_off_leaves_nothing_to_the_next() -> None:
    trie, answer = Trie(2), [0, 1, 2, 0, 1, 2]
    trie.begin([4, 5, 4])
    trie.learn(answer)
    trie.begin([7, 8])
    trie.end(answer)
    assert counts(trie)[4, 5] == (0, 0)
    assert counts(trie)[0, 1] == (0, 1 + 2)  # one of the first three places has it, and two of all


@pytest.mark.parametrize("seed", range(6))
def test_pruning_halves_what_repeats_and_drops_the_rest(seed: int) -> None:
    """Only in tries that are too large, by either number, and only after enough of them have changed."""
    for limits in ({"most": 20, "most_output": 99}, {"most": 99, "most_output": 16}):
        trie, prompt, answer = Trie(3, patience=3, **limits), text(seed, 12), text(50 + seed, 26, 4)
        trie.begin(prompt)
        trie.end(answer)
        outputs, prompts = branches(answer, 3), branches(prompt, 3)
        wanted: dict[tuple[int, ...], float] = {}
        for path in outputs.keys() | prompts.keys():
            below = [p for p in outputs.keys() | prompts.keys() if p[0] == path[0] and len(p) > 1]
            large = len(below) > limits["most"] or sum(outputs[p] > 0 for p in below) > limits["most_output"]
            if len(path) == 1 or not large:
                wanted[path] = outputs[path]
            elif all(outputs[path[:end]] > 1 for end in range(2, len(path) + 1)):
                wanted[path] = outputs[path] / 2
        assert {path: n for path, (_, n) in counts(trie).items()} == wanted
        assert trie.changed == set()


def test_nothing_is_pruned_before_its_time() -> None:
    trie, answer = Trie(3, patience=3, most=1, most_output=1), [0, 1] * 20
    for requests in range(1, 4):
        trie.end(answer)
        assert counts(trie)[0, 1] == (0, 20 * requests)  # two tries have changed, ever again
    trie.end([2, 2, 2])
    assert counts(trie)[0, 1] == (0, 30)
    assert counts(trie)[2,] == (0, 2)
    assert (2, 2) in counts(trie)  # counted twice, as (2, 2) stands at two places
    assert (2, 2, 2) not in counts(trie)


def test_a_key_that_finds_too_little_is_shortened() -> None:
    trie = Trie(4)
    trie.end([1, 2, 3])
    trie.end([5, 2, 4, 6, 7])
    assert paths(trie.draft([1, 2], longest=2, depth=4, nodes=9)) == [(3,), (4,), (4, 6), (4, 6, 7)]
    assert paths(trie.draft([5, 2], longest=1, depth=2, nodes=9)) == [(3,), (4,), (4, 6)]
    assert paths(trie.draft([9, 1], longest=2, depth=4, nodes=9)) == [(2,), (2, 3)]
    assert paths(trie.draft([9], longest=2, depth=4, nodes=9)) == []
    assert paths(trie.draft([1, 2], longest=2, depth=0, nodes=9)) == []
    full = Trie(2)
    full.end([1, 2, 3])
    full.end([5, 2, 4])
    assert paths(full.draft([1, 2], longest=2, depth=2, nodes=9)) == [(3,)]  # with the root two, which is enough


def test_a_whole_branch_follows_a_key_of_two() -> None:
    """Else the vaguer key of one token would always take over, where texts repeat each other most."""
    trie = Trie(3)
    trie.end([1, 2, 3, 4, 5, 6])
    trie.end([7, 2, 8, 9])
    assert paths(trie.draft([1, 2], longest=2, depth=3, nodes=9)) == [(3,), (3, 4), (3, 4, 5)]


def test_a_shorter_key_that_finds_nothing_leaves_what_was_found() -> None:
    trie = Trie(3)
    trie.root.children[1] = Node(0, 1, {2: Node(0, 1, {3: Node(0, 1)})})
    assert paths(trie.draft([1, 2], longest=2, depth=3, nodes=9)) == [(3,)]


def fan(prompts: int, outputs: int, often: int = 1) -> Trie:
    """Branches of two tokens after token 0, so many of the prompt, each `often`, and so many of outputs."""
    trie = Trie(2)
    for token in range(1, outputs + 1):
        trie.end([0, token])
    trie.begin([token for one in range(outputs + 1, outputs + prompts + 1) for token in (0, one) * often])
    return trie


def test_the_budget_goes_half_to_outputs_and_then_to_the_weightier_prompt() -> None:
    """In later versions of the published trie, so filled, not one node of the prompt is left."""
    found = paths(fan(40, 40).draft([0], longest=2, depth=1, nodes=64))
    assert len(found) == 64
    of_outputs = sum(path[0] <= 40 for path in found)
    assert of_outputs == 32
    assert sum(path[0] <= 40 for path in paths(fan(40, 40).draft([0], longest=2, depth=1, nodes=63))) == 32
    few = paths(fan(10, 40).draft([0], longest=2, depth=1, nodes=64))
    assert len(few) == 50
    assert len(paths(fan(80, 3).draft([0], longest=2, depth=1, nodes=64))) == 64
    assert sum(path[0] <= 3 for path in paths(fan(80, 3).draft([0], longest=2, depth=1, nodes=64))) == 3


def test_the_order_of_weights() -> None:
    nodes = [Node(0, 9), Node(1, 0), Node(0, 5), Node(2, 0), Node(1, 1)]
    assert chosen(nodes, 1, 1e-4) == [0]
    assert chosen(nodes, 2, 1e-4) == [0, 3]
    assert chosen(nodes, 3, 1e-4) == [0, 2, 3]
    assert chosen(nodes, 4, 1e-4) == [0, 2, 3, 4]
    assert chosen(nodes, 9, 1e-4) == [0, 1, 2, 3, 4]
    assert chosen(nodes, 1, 0.9) == [0]
    assert chosen([Node(1, 0)] * 3, 2, 0.5) == [0, 1]
    assert chosen([Node(0, 1), Node(0, 5), Node(3, 0), Node(2, 0)], 2, 1e-4) == [1, 2]  # of outputs the commonest


@pytest.mark.parametrize("seed", range(20))
def test_trees_keep_the_budget_and_hold_every_parent(seed: int) -> None:
    """Also after fading, and with the weight of either side."""
    trie = Trie(4, weight=(0.0, 1e-4, 0.5, 1.0)[seed % 4], patience=2, most_output=20)
    for i in range(3):
        trie.begin(text(100 * seed + i, 25))
        trie.end(text(100 * seed + 50 + i, 25))
    trie.begin(text(100 * seed + 99, 25))
    for nodes in (1, 2, 7, 20, 200):
        for gamma in (1, 4):
            found = paths(trie.draft([0, 1], longest=2, depth=gamma, nodes=nodes))
            assert len(set(found)) == len(found) <= nodes
            assert all(path[:-1] in found for path in found if len(path) > 1)
            assert all(len(path) <= gamma for path in found)
            live = counts(trie)
            assert all(any(live.get((*key, *path), (0, 0)) != (0, 0) for key in ((0, 1), (1,))) for path in found)


def test_cold_the_text_itself_is_learned_and_warm_it_is_known() -> None:
    """A model that counts to six and begins again."""
    target, trie = table_model(COUNTING), Trie(gamma=5)
    wanted = [(i + 1) % 6 for i in range(40)]
    cold = generate(target, [0], 40, sampler=Sampler(0), trie=trie)
    warm = generate(target, [0], 40, sampler=Sampler(0), trie=trie)
    assert cold.tokens == warm.tokens == wanted
    assert [len(step.emitted) for step in cold.steps[:7]] == [1] * 7  # 1, … , 0 and 1, which has been seen before
    assert [step.drafted for step in cold.steps[:8]] == [[]] * 7 + [[2, 3, 4, 5, 0]]
    assert warm.passes == 1 + -(-39 // 6)
    assert warm.passes < cold.passes < 40
    alone = [generate(target, [0], 40, sampler=Sampler(0)).passes for _ in range(2)]
    assert alone[0] == alone[1]


def test_the_prompt_is_drafted_from_before_anything_is_learned() -> None:
    target = table_model(COUNTING)
    run = generate(target, [0, 1, 2, 3, 4, 5, 0], 5, sampler=Sampler(0), trie=Trie(gamma=4))
    assert run.tokens == [1, 2, 3, 4, 5]
    assert [step.drafted for step in run.steps] == [[], [2, 3, 4, 5]]


def test_a_second_branch_can_be_the_one_that_is_kept() -> None:
    target, trie = table_model(COUNTING), Trie(gamma=3)
    for wrong in ([1, 3, 3, 3], [1, 4, 4, 4], [1, 2, 3, 4]):
        trie.end(wrong)
    run = generate(target, [0], 8, sampler=Sampler(0), trie=trie)
    assert run.tokens == [1, 2, 3, 4, 5, 0, 1, 2]
    assert run.steps[1].kept == 3
    assert len(run.steps[1].drafted) == 9


def test_what_the_limit_or_the_end_cut_off_is_not_learned() -> None:
    target, trie = table_model(COUNTING), Trie(gamma=5)
    trie.end([0, 1, 2, 3, 4, 5])
    before = counts(trie)
    run = generate(target, [5], 3, sampler=Sampler(0), trie=trie)
    assert run.tokens == [0, 1, 2]
    assert {path: n - before.get(path, (0, 0))[1] for path, (_, n) in counts(trie).items() if n} == {
        **dict.fromkeys(before, 0),
        **branches([0, 1, 2], 5),
    }
    once = counts(trie)
    assert generate(target, [5], 9, sampler=Sampler(0), trie=trie, eos=1).tokens == [0, 1]
    assert sum(n for _, n in counts(trie).values()) - sum(n for _, n in once.values()) == 2


@pytest.mark.parametrize("nodes", [1, 3])
def test_sampling_keeps_the_law_before_and_after_learning(nodes: int) -> None:
    target, trie, drafted = flat_model(), Trie(gamma=2), 0
    for _ in range(2):

        def run(sampler: Sampler):  # type: ignore[no-untyped-def]
            nonlocal drafted
            found = generate(target, [0, 1, 0], 3, sampler=sampler, trie=copy.deepcopy(trie), nodes=nodes)
            drafted += sum(len(step.drafted) for step in found.steps)
            return found

        law = exact_law(run)
        assert total_variation(law, autoregressive_law(target, [0, 1, 0], 3)) < 1e-12
        assert drafted
        for seed in range(3):
            generate(target, [2, 1], 6, sampler=Sampler(seed=seed), trie=trie)


def test_a_long_stream_stays_exact_when_greedy() -> None:
    """With pruning on the way, and with keys of any length."""
    target, trie = varied_model(), Trie(4, patience=2, most_output=10)
    for i in range(12):
        prompt = text(i, 4, 11)
        run = generate(target, prompt, 12, sampler=Sampler(0), trie=trie, longest=1 + i % 3, nodes=1 + i)
        assert run.tokens == autoregressive(target, prompt, 12, sampler=Sampler(0)).tokens
        assert all(len(step.drafted) <= 1 + i for step in run.steps)


def test_a_pass_reads_what_is_new_and_the_tree_and_no_token_twice() -> None:
    target, read = varied_model(), list[int]()
    embed = target.embed
    target.embed = lambda tokens: (read.append(len(tokens)), embed(tokens))[1]  # type: ignore[method-assign]
    run = generate(target, [5, 3, 8, 5], 12, sampler=Sampler(0), trie=Trie(2))
    new = [4, *(1 for _ in run.steps[1:])]
    assert read == [n + len(step.drafted) for n, step in zip(new, run.steps, strict=True)]


def test_a_text_up_to_the_targets_last_position_is_written_and_no_longer_one() -> None:
    target, trie = varied_model(), Trie(4)
    target.shape = replace(target.shape, positions=8)
    for _ in range(2):  # the second time, drafts would reach further
        run = generate(target, [5, 3, 8, 1], 5, sampler=Sampler(0), trie=trie)
        assert run.tokens == autoregressive(varied_model(), [5, 3, 8, 1], 5, sampler=Sampler(0)).tokens
    with pytest.raises(ValueError, match="the target has 8 positions"):
        generate(target, [5, 3, 8, 1], 6, sampler=Sampler(0), trie=trie)


@pytest.mark.parametrize("prompt", [[5, 11], [-1, 5]])
def test_a_prompt_of_another_tokenizer_is_not_learned(prompt: list[int]) -> None:
    trie = Trie(4)
    with pytest.raises(ValueError, match="the prompt holds tokens that a vocabulary of 11 lacks"):
        generate(varied_model(), prompt, 3, sampler=Sampler(0), trie=trie)
    assert counts(trie) == {}


def test_a_trie_of_another_tokenizer_is_one_sentence() -> None:
    trie = Trie(4)
    trie.end([3, 11])
    with pytest.raises(ValueError, match="the trie holds tokens that a vocabulary of 11 lacks"):
        generate(varied_model(), [5, 3], 3, sampler=Sampler(0), trie=trie)
    trie = Trie(4)
    trie.end([3, 10])
    assert generate(varied_model(), [0, 10], 3, sampler=Sampler(0), trie=trie).tokens


@pytest.mark.parametrize(("longest", "nodes"), [(0, 4), (4, 0)])
def test_options_out_of_range_are_one_sentence(longest: int, nodes: int) -> None:
    with pytest.raises(ValueError, match=f"longest is {longest} and nodes is {nodes}"):
        generate(varied_model(), [5, 3], 3, sampler=Sampler(0), longest=longest, nodes=nodes)


def test_a_trie_that_cannot_work_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="gamma is 0"):
        Trie(0)
    for weight in (-0.1, 1.1):
        with pytest.raises(ValueError, match="the share of outputs in the ranking lies between 0 and 1"):
            Trie(weight=weight)
    for name in ("most", "most_output", "patience"):
        with pytest.raises(ValueError, match=f"{name}( is)? 0.*; each is 1 or more"):
            Trie(**{name: 0})
        assert getattr(Trie(**{name: 1}), name) == 1
    assert Trie(1, weight=0).weight == 0
    assert Trie(1, weight=1).weight == 1


def test_defaults_are_the_documented_ones() -> None:
    found = defaults_of(importlib.import_module("reference_impls.speculative_decoding.lookahead_trie"))
    assert {name: value for name, value in found.items() if name != "Node.children"} == {
        "generate.longest": 2,
        "generate.nodes": 63,
        "Node.prompt": 0,
        "Node.output": 0,
        "Trie.gamma": 12,
        "Trie.weight": 1e-4,
        "Trie.most": 65536,
        "Trie.most_output": 512,
        "Trie.patience": 1024,
    }
