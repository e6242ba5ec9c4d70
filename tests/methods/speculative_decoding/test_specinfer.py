"""SpecInfer: trees of one and of several drafters, the law of whole steps, and the biases of simpler verification."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from reference_impls import zoo
from reference_impls.core.generation import Generation
from reference_impls.core.sampling import Sampler
from reference_impls.core.tree import Tree
from reference_impls.core.verify import residual, verify_tree
from reference_impls.speculative_decoding import specinfer, speculative_sampling_chen
from reference_impls.speculative_decoding.specinfer import generate, grow, loss, merge
from reference_impls.testing.laws import autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import flat_model, language_model, varied_model

MUTANTS = [
    ("children-picked-and-judged-as-drawn", "sampler.draw(laws[-1])", "laws[-1].argmax(-1)"),
    ("siblings-may-repeat", "logits = logits.scatter(-1, drawn[-1].clamp(min=0)[:, None], -torch.inf)", "pass"),
    ("drafter-sees-its-tree-twice", "        cache.crop(start)\n", ""),
    ("paths-not-merged", "if (above, token) not in node_of:", "if True:"),
    ("votes-judged-at-the-wrong-node", "p[rows]", "p[: len(rows)]"),
    ("votes-taken-for-nodes", "path = [node_of[vote] for vote in found]", "path = found"),
    (
        "target-keeps-the-first-nodes",
        "target_cache.keep(len(tokens), path)",
        "target_cache.crop(len(tokens) + len(path))",
    ),
    (
        "drafters-keep-the-first-nodes",
        "[i for i, node in enumerate(seen) if node in path]",
        "range(min(len(seen), len(path)))",
    ),
    ("drafters-forget-the-path", "[i for i, node in enumerate(seen) if node in path]", "[]"),
    ("passes-of-one-drafter", "len(drafters) * len(expansion)", "len(expansion)"),
    ("boosting-on-what-is-known", "torch.where(known, rest, 1.0)", "torch.where(known, 1.0, rest)"),
    ("boosting-on-the-text", "best = target(tokens).argmax(-1)", "best = tokens.roll(-1, -1)"),
    ("boosting-after-all-missed", ".any(0)", ".all(0)"),
]

PROMPT = [5, 3, 8, 1]
P = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
Q = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)


def drafters_for(vocab, count):
    return [language_model(vocab, seed=170 + i, layers=1) for i in range(count)]


@pytest.fixture
def one_step(monkeypatch):
    """Every run ends after its first step."""

    def add(self, step, _limit, _eos=None):
        self.tokens += step.emitted
        self.steps.append(step)
        return False

    monkeypatch.setattr(Generation, "add", add)


def completed(law, target, prompt, length):
    """The law of `length` tokens: what a step gave, and the target's own decoding after it."""
    found = {}
    for text, chance in law.items():
        rest = autoregressive_law(target, [*prompt, *text], max(0, length - len(text)))
        for more, share in rest.items():
            key = (*text, *more)[:length]
            found[key] = found.get(key, 0.0) + chance * share
    return found


@pytest.mark.usefixtures("one_step")
@pytest.mark.parametrize(
    ("vocab", "count", "expansion"),
    [(3, 1, (2, 1)), (3, 2, (1, 1)), (2, 2, (2, 1)), (2, 3, (1, 1)), (3, 3, (1,)), (2, 1, (1, 2, 1))],
)
def test_a_step_of_one_two_and_three_drafters_has_the_law_of_the_target(vocab, count, expansion):
    target, drafters = flat_model(vocab), drafters_for(vocab, count)
    law = exact_law(lambda s: generate(target, [0, 1], 9, drafters=drafters, sampler=s, expansion=expansion))
    length = len(expansion) + 1
    assert 1 < len({len(text) for text in law}) <= max(map(len, law)) == length
    wanted = autoregressive_law(target, [0, 1], length)
    assert total_variation(completed(law, target, [0, 1], length), wanted) < 1e-12


def test_the_law_of_several_steps_of_two_drafters_is_the_targets():
    target, drafters = flat_model(2), drafters_for(2, 2)
    law = exact_law(lambda s: generate(target, [0, 1], 3, drafters=drafters, sampler=s, expansion=(1,)))
    assert total_variation(law, autoregressive_law(target, [0, 1], 3)) < 1e-12


@pytest.mark.usefixtures("one_step")
def test_one_drafter_and_one_child_a_node_is_speculative_sampling():
    target, (drafter,) = flat_model(), drafters_for(3, 1)
    chain = {"drafter": drafter, "gamma": 2}

    def kept_first(result):
        return Generation([result.steps[0].kept, *result.tokens])

    laws = [
        exact_law(lambda s: kept_first(generate(target, [0, 1], 9, drafters=[drafter], sampler=s, expansion=(1, 1)))),
        exact_law(lambda s: kept_first(speculative_sampling_chen.generate(target, [0, 1], 9, sampler=s, **chain))),
    ]
    assert total_variation(*laws) < 1e-12


def trees(model, sampler, drafters, expansion):
    return [grow(drafter, PROMPT, drafter.new_cache(), expansion, sampler) for drafter in [model, *drafters]]


def path_tokens(tree, node):
    return [tree.tokens[i] for i in tree.path(node)]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_drafter_draws_each_child_from_its_law_over_what_the_elder_siblings_left(temperature):
    sampler, drafter = Sampler(temperature, seed=3), varied_model()
    tree, q = grow(drafter, PROMPT, drafter.new_cache(), (2, 1, 3), sampler)
    depths = [len(tree.path(node)) for node in range(len(tree))]
    assert [depths.count(depth) for depth in (1, 2, 3)] == [2, 2, 6]
    for node, parent in enumerate(tree.parents):
        logits = drafter([*PROMPT, *path_tokens(tree, parent)])[-1]
        elders = [tree.tokens[i] for i in tree.children(parent) if i < node]
        logits[elders] = -torch.inf
        torch.testing.assert_close(q[node], sampler.probs(logits), rtol=1e-9, atol=1e-12)
        assert tree.tokens[node] not in elders
        if temperature == 0:
            assert tree.tokens[node] == int(logits.argmax())


def test_merging_keeps_every_path_once_and_every_vote():
    model = varied_model()
    given = [tree for tree, _ in trees(model, Sampler(0), [language_model(11, seed=5), model], (2, 2, 1))]
    merged, votes, places = merge(given)
    wanted = {tuple(path_tokens(tree, node)) for tree in given for node in range(len(tree))}
    found = [tuple(path_tokens(merged, node)) for node in range(len(merged))]
    assert len(found) == len(set(found)) < len(votes) == 3 * len(given[0])
    assert set(found) == wanted
    flat = [place for own in places for place in own]
    for vote, node in enumerate(flat):
        assert path_tokens(votes, vote) == list(found[node])
        parent = votes.parents[vote]
        assert parent < 0 or flat.index(flat[parent]) == parent  # below the first vote for that path
    for tree, own in zip(given, places, strict=True):
        assert [tuple(path_tokens(tree, node)) for node in range(len(tree))] == [found[place] for place in own]


def test_one_pass_over_the_merged_tree_equals_a_pass_over_every_branch():
    target, cache = varied_model(), varied_model().new_cache()
    given = trees(language_model(11, seed=4), Sampler(1.0), [language_model(11, seed=5)], (2, 1, 2))
    merged, _, _ = merge([tree for tree, _ in given])
    depths, visible = merged.layout(len(PROMPT))
    logits = target([*PROMPT, *merged.tokens], cache, last=len(merged) + 1, positions=depths, visible=visible)
    for node in range(-1, len(merged)):
        alone = target([*PROMPT, *path_tokens(merged, node)])[-1]
        torch.testing.assert_close(logits[node + 1], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_cache_keeps_what_it_has_seen_of_the_accepted_path(temperature, monkeypatch):
    target, other = varied_model(), language_model(11, seed=5)
    caches, lengths, step_of = {}, [], specinfer.grow

    def watched(drafter, tokens, cache, expansion, sampler):
        caches[id(cache)] = (drafter, cache)
        if drafter is target:
            lengths.append((len(cache), len(tokens)))
        return step_of(drafter, tokens, cache, expansion, sampler)

    monkeypatch.setattr(specinfer, "grow", watched)
    options = {"drafters": [other, target], "expansion": (2, 1, 1)}
    result = generate(target, PROMPT, 17, sampler=Sampler(temperature, seed=1), **options)
    text = PROMPT + result.tokens
    assert len(caches) == 2
    for drafter, cache in caches.values():
        n = min(len(cache), len(text))
        fresh = drafter.new_cache()
        drafter(text[:n], fresh)
        for layer in range(drafter.shape.layers):
            torch.testing.assert_close(cache._store[layer, :, :, :n], fresh._store[layer, :, :, :n])
    if temperature == 0:  # the target drafts for itself: all is kept, and only the last guess and the extra are unseen
        assert [step.kept for step in result.steps] == [3] * 4 + [1]
        assert all(tokens - held == 2 for held, tokens in lengths[1:])
        assert all(later[1] - earlier[1] == 4 for earlier, later in pairwise(lengths))


def first_token(p, tree, q):
    """The law of the token that a step over children of the root commits first."""

    def run(sampler):
        path, extra = verify_tree(sampler, tree, p.repeat(len(tree) + 1, 1), q)
        return Generation([*(tree.tokens[node] for node in path), extra][:1])

    return exact_law(run)


def test_top_tokens_judged_as_if_they_had_been_drawn_give_another_law():
    tree = Tree()
    for token in (0, 1):  # the two best tokens of Q
        tree.add(token)
    found = first_token(P, tree, Q.repeat(2, 1))
    assert [found.get((token,), 0.0) for token in range(4)] == pytest.approx([0.8, 0.0, 0.0875, 0.1125])
    right = first_token(P, tree, None)
    assert [right[token,] for token in range(4)] == pytest.approx(P.tolist())


@pytest.mark.parametrize("drop", [False, True])
def test_dropping_a_repeated_vote_gives_another_law(drop):
    """Two drafters of one law vote for the first token; the second's vote for the same token may be dropped."""
    law = torch.tensor([0.7, 0.1, 0.1, 0.1], dtype=torch.float64)

    def run(sampler):
        tree = Tree()
        for token in [int(sampler.draw(law)) for _ in range(2)]:
            if not (drop and token in tree.tokens):
                tree.add(token)
        path, extra = verify_tree(sampler, tree, P.repeat(len(tree) + 1, 1), law.repeat(len(tree), 1))
        return Generation([*(tree.tokens[node] for node in path), extra][:1])

    distance = total_variation(exact_law(run), {(token,): float(P[token]) for token in range(4)})
    assert distance > 0.008 if drop else distance < 1e-12


@pytest.mark.parametrize("children", [1, 2, 3])
def test_more_is_accepted_than_by_looking_whether_a_draw_of_the_target_is_in_the_tree(children):
    """Theorem 4.3, for children drawn independently and for children drawn without replacement."""
    generator = torch.Generator().manual_seed(children)
    for replace in (True, False):
        for _ in range(5):
            p, q = torch.rand(2, 4, generator=generator, dtype=torch.float64).pow(2).unbind()
            p, q = p / p.sum(), q / q.sum()
            tried, naive = 0.0, 0.0
            drawn = [([], 1.0, [])]
            for _ in range(children):
                drawn = [
                    ([*tokens, token], chance * float(law[token]), [*laws, law])
                    for tokens, chance, laws in drawn
                    for law in [q if replace else masked(q, tokens)]
                    for token in range(4)
                    if law[token] > 0
                ]
            for tokens, chance, laws in drawn:
                naive += chance * float(p[sorted(set(tokens))].sum())
                rest, fails = p, 1.0
                for token, law in zip(tokens, laws, strict=True):
                    fails *= 1 - min(1.0, float(rest[token] / law[token]))
                    rest = residual(rest, law)
                tried += chance * (1 - fails)
            assert tried >= naive - 1e-12
            assert children == 4 or tried > naive


def masked(law, tokens):
    left = law.clone()
    left[tokens] = 0
    return left / left.sum()


def test_boosting_weighs_what_the_earlier_drafters_miss():
    target, earlier, drafter = varied_model(), drafters_for(11, 2), language_model(11, seed=9)
    tokens = torch.tensor([[5, 3, 8, 1, 0], [2, 7, 7, 4, 9]])
    found = loss(target, earlier, drafter, tokens, rest=0.1)
    found.backward()
    weights, total = [], 0.0
    for row in tokens.tolist():
        for end in range(1, 6):
            best = target(row[:end])[-1].argmax()
            known = any(model(row[:end])[-1].argmax() == best for model in earlier)
            weights.append(0.1 if known else 1.0)
            total += weights[-1] * float(F.cross_entropy(drafter(row[:end])[-1].detach(), best))
    assert set(weights) == {0.1, 1.0}
    assert found.item() == pytest.approx(total / sum(weights), rel=1e-5)
    assert drafter.embedding.grad is not None
    assert all(model.embedding.grad is None for model in (target, *earlier))


def test_nobody_to_draft_is_one_sentence():
    with pytest.raises(ValueError, match="drafters are empty"):
        generate(varied_model(), PROMPT, 3, drafters=[], sampler=Sampler(0))


def test_two_drafters_cover_more_than_the_first_alone():
    covered = zoo.manifest()["drafter-boosted"]["quality"]["held_out_coverage"]
    assert covered["one of the two"] > covered["drafter"] + 0.02
