"""SpecInfer: trees of one and of several drafters, the law of whole steps, and the biases of simpler verification."""

import importlib
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from defaults import defaults_of

from reference_impls import zoo
from reference_impls.core.generation import Generation
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.tree import Tree, draft_tree
from reference_impls.core.verify import residual, verify_tree
from reference_impls.speculative_decoding import specinfer, speculative_sampling_chen
from reference_impls.speculative_decoding.specinfer import generate, loss, merge
from reference_impls.testing.laws import autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import flat_model, language_model, seeded, varied_model

MUTANTS = [
    ("paths-not-merged", "if (above, token) not in known:", "if True:"),
    ("votes-judged-at-the-wrong-node", "p[[0, *(node + 1 for node in nodes)]]", "p[: len(nodes) + 1]"),
    ("votes-taken-for-nodes", "return [nodes[vote] for vote in found], extra", "return found, extra"),
    ("target-keeps-the-first-nodes", " cache.keep(len(tokens), path)", " cache.crop(len(tokens) + len(path))"),
    (
        "drafters-keep-the-first-nodes",
        "[slot for slot, node in enumerate(read) if node in path]",
        "range(min(len(read), len(path)))",
    ),
    ("drafters-forget-the-path", "[slot for slot, node in enumerate(read) if node in path]", "[]"),
    ("passes-of-one-drafter", "len(drafters) * len(widths)", "len(widths)"),
    ("boosting-on-what-is-known", "torch.where(known, rest, 1.0)", "torch.where(known, 1.0, rest)"),
    ("boosting-on-the-text", "best = target(tokens).argmax(-1)", "best = tokens.roll(-1, -1)"),
    ("boosting-after-all-missed", ".any(0)", ".all(0)"),
    ("guesses-before-the-prompt-is-read", " if result.steps else ()", ""),
]

PROMPT = [5, 3, 8, 1]
P = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
Q = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)


def drafters_for(vocab, count):
    return [language_model(vocab, seed=170 + i, layers=1) for i in range(count)]


@pytest.fixture
def one_tree(monkeypatch):
    """Every run ends after its first tree, which is that of the second step: the first one reads the prompt."""

    def add(self, step, _limit, _eos=None):
        self.tokens += step.emitted
        self.steps.append(step)
        return not step.drafted

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


@pytest.mark.usefixtures("one_tree")
@pytest.mark.parametrize(
    ("vocab", "count", "expansion"),
    [(3, 1, (2, 1)), (3, 2, (1, 1)), (2, 2, (2, 1)), (2, 3, (1, 1)), (3, 3, (1,)), (2, 1, (1, 2, 1))],
)
def test_a_step_of_one_two_and_three_drafters_has_the_law_of_the_target(vocab, count, expansion):
    target, drafters = flat_model(vocab), drafters_for(vocab, count)
    law = exact_law(lambda s: generate(target, [0, 1], 9, drafters=drafters, sampler=s, expansion=expansion))
    length = len(expansion) + 2
    assert 1 < len({len(text) for text in law}) <= max(map(len, law)) == length
    wanted = autoregressive_law(target, [0, 1], length)
    assert total_variation(completed(law, target, [0, 1], length), wanted) < 1e-12


def test_the_law_of_several_steps_of_two_drafters_is_the_targets():
    target, drafters = flat_model(2), drafters_for(2, 2)
    law = exact_law(lambda s: generate(target, [0, 1], 3, drafters=drafters, sampler=s, expansion=(1,)))
    assert total_variation(law, autoregressive_law(target, [0, 1], 3)) < 1e-12


@pytest.mark.usefixtures("one_tree")
def test_one_drafter_and_one_child_a_node_is_speculative_sampling():
    target, (drafter,) = flat_model(), drafters_for(3, 1)
    found = exact_law(lambda s: with_kept(generate(target, [0, 1], 9, drafters=[drafter], sampler=s, expansion=(1, 1))))
    wanted, own = {}, {"drafter": drafter, "gamma": 2}
    for (token,), chance in autoregressive_law(target, [0, 1], 1).items():
        prompt = [0, 1, token]  # what the first step, which drafts nothing, has left
        law = exact_law(
            lambda s, prompt=prompt: with_kept(speculative_sampling_chen.generate(target, prompt, 9, sampler=s, **own))
        )
        wanted |= {(kept, token, *text): chance * share for (kept, *text), share in law.items()}
    assert total_variation(found, wanted) < 1e-12


def with_kept(result):
    return Generation([result.steps[-1].kept, *result.tokens])


def trees(model, sampler, drafters, expansion):
    return [draft_tree(sampler, drafter, PROMPT, drafter.new_cache(), expansion) for drafter in [model, *drafters]]


def path_tokens(tree, node):
    return [tree.tokens[i] for i in tree.path(node)]


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
    caches, lengths, step_of = {}, [], specinfer.draft_tree

    def watched(sampler, drafter, tokens, cache, widths):
        caches[id(cache)] = (drafter, cache)
        if drafter is target:
            lengths.append((len(cache), len(tokens)))
        return step_of(sampler, drafter, tokens, cache, widths)

    monkeypatch.setattr(specinfer, "draft_tree", watched)
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
        assert [step.kept for step in result.steps] == [0] + [3] * 4
        assert lengths[:2] == [(0, len(PROMPT)), (0, len(PROMPT) + 1)]  # nothing is drafted before the prompt is read
        assert all(tokens - held == 2 for held, tokens in lengths[2:])
        assert all(later[1] - earlier[1] == 4 for earlier, later in pairwise(lengths[1:]))


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


class Narrow(LanguageModel):
    """A drafter that gives no chance to the tokens from 2 on."""

    def logits(self, x):
        found = super().logits(x)
        found[..., 2:] = -torch.inf
        return found


@pytest.mark.usefixtures("one_tree")
def test_the_law_is_the_targets_where_the_drafter_has_fewer_possible_tokens_than_children():
    target = flat_model()
    with seeded(7):
        drafters = [Narrow(target.shape).double(), *drafters_for(3, 1)]
    for own in (drafters[:1], drafters):
        law = exact_law(lambda s, own=own: generate(target, [0, 1], 9, drafters=own, sampler=s, expansion=(3,)))
        assert total_variation(completed(law, target, [0, 1], 3), autoregressive_law(target, [0, 1], 3)) < 1e-12


def test_every_token_is_read_once_by_the_target_and_the_last_one_again_by_each_pass_of_a_drafter():
    read = []

    class Counting(LanguageModel):
        def embed(self, tokens):
            read.append(len(tokens))
            return super().embed(tokens)

    drafter = Counting(language_model(11).shape).double()
    prompt = [5, 3, 8, 1] * 25
    generate(varied_model(), prompt, 2, drafters=[drafter], sampler=Sampler(0), expansion=(1,) * 8)
    assert read == [101, *range(2, 9)]  # the prompt and the first token; then the last one and what was drafted


def test_nobody_to_draft_is_one_sentence():
    with pytest.raises(ValueError, match="drafters are empty"):
        generate(varied_model(), PROMPT, 3, drafters=[], sampler=Sampler(0))


def test_two_drafters_cover_more_than_the_first_alone():
    covered = zoo.manifest()["drafter-boosted"]["quality"]["held_out_coverage"]
    assert covered["one of the two"] > covered["drafter"] + 0.02


def test_a_broken_drafter_is_named():
    target, drafter = varied_model(), language_model(11)
    with torch.no_grad():
        drafter.embedding.fill_(torch.nan)
    with pytest.raises(ValueError, match="the drafter's logits are not finite"):
        generate(target, PROMPT, 3, drafters=[drafter], sampler=Sampler(0))


def test_defaults_are_the_documented_ones() -> None:
    assert defaults_of(importlib.import_module("reference_impls.speculative_decoding.specinfer")) == {
        "generate.expansion": (1, 1, 3, 1, 1, 1, 1, 1),
        "loss.rest": 0.1,
    }
