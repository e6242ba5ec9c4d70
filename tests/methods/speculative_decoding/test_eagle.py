"""EAGLE: pairs of token and feature, a tree drawn without replacement, a drafter that forgets its own features."""

import importlib
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from defaults import defaults_of
from torch import nn

from accelgen.measuring.published_rules import cold_path_warm_leaf
from accelgen.training.quality import feature_accuracy
from reference_impls.core.cache import Cache
from reference_impls.core.layers import Shape
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding import eagle
from reference_impls.speculative_decoding.eagle import (
    CHOICES,
    EagleDrafter,
    check_choices,
    generate,
    grow,
    loss,
)
from reference_impls.testing import autoregressive_law, exact_law, flat_model, total_variation
from reference_impls.testing.tiny import randomised, varied_model

MUTANTS = [
    ("token-and-feature-of-one-place", "tokens[len(draft_cache) + 1 :]", "tokens[len(draft_cache) : -1]"),
    (
        "features-of-the-first-nodes",
        "len(unseen) + node for node in path",
        "len(unseen) + i for i, _ in enumerate(path)",
    ),
    ("root-feature-of-an-older-token", "draft_cache, ahead[-1:]", "draft_cache, ahead[:1]"),
    ("drafted-features-not-forgotten", "draft_cache.crop(len(tokens) - 1)", "pass"),
    ("target-cache-keeps-the-first-nodes", "cache.keep(len(tokens), path)", "cache.crop(len(tokens) + len(path))"),
    ("siblings-judged-by-the-law-of-the-eldest", "laws[rows, ranks]", "laws[rows, 0]"),
    ("cousins-seen", "path[: len(other)] == other for other", "len(other) > 0 for other"),
    ("only-oneself-seen", "path[: len(other)] == other for other", "path == other for other"),
    ("guesses-one-place-late", "root + len(inner[0]) - 1)", "root + len(inner[0]))"),
    ("feature-of-an-aunt", "features[above]", "features[[0 for _ in above]]"),
    ("parents-mixed-up", "guesses[rows, ranks].tolist()", "guesses[rows[::-1], ranks].tolist()"),
    (
        "predicted-features-normalised-again",
        "siblings(sampler, target.project(features)",
        "siblings(sampler, target.logits(features)",
    ),
    ("one-draft-pass-counted-per-node", "draft_passes = len(fitting[-1])", "draft_passes = len(fitting)"),
    ("nodes-past-the-last-position", "room(len(tokens), len(choices[-1]), target)", "len(choices[-1])"),
    ("level-less-than-fits", "room(len(tokens), len", "room(len(tokens) + 1, len"),
    ("tree-without-its-elder-siblings", "elder not in nodes", "elder[:-1] and elder not in nodes"),
    ("trained-without-noise", "features[:, :-1] + shake", "features[:, :-1]"),
    ("noise-on-one-side", "uniform_(-noise, noise", "uniform_(0, noise"),
    (
        "trained-on-the-same-place",
        "drafter(target, tokens[:, 1:], features",
        "drafter(target, tokens[:, :-1], features",
    ),
    ("regression-alone", "+ weight * surprise", "+ 0 * weight * surprise"),
]

PROMPT = [5, 3, 8, 1]


@pytest.fixture
def models():
    target = varied_model()
    return target, randomised(EagleDrafter, target.shape)


def features_of(target, tokens):
    return target.norm(target.run(target.embed(tokens)))


def laws(target, drafter, limit, choices, **settings):
    """The exact law of the texts after [0, 1], and the target's."""

    def run(sampler):
        return generate(target, [0, 1], limit, drafter=drafter, sampler=sampler, choices=choices)

    return exact_law(run, **settings), autoregressive_law(target, [0, 1], limit, **settings)


def test_the_papers_tree():
    assert [sum(len(path) == depth for path in CHOICES) for depth in range(1, 7)] == [4, 8, 8, 3, 2, 0]
    assert check_choices(CHOICES[::-1], vocab=4) == list(CHOICES)


@pytest.mark.parametrize(
    ("vocab", "choices", "settings"),
    [
        (3, [(0,), (1,), (1, 0)], {}),
        (2, [(0,), (1,), (0, 0), (1, 0), (1, 1), (1, 0, 0)], {"temperature": 0.7}),
        (3, [(0,), (1,), (2,), (0, 0)], {"top_k": 1}),  # more children than the law has tokens
        (3, [(0,), (1,), (2,), (2, 0)], {"temperature": 0.5, "top_k": 2}),
    ],
)
def test_the_law_of_wide_trees_is_the_targets(vocab, choices, settings):
    target = flat_model(vocab)
    drafter = randomised(EagleDrafter, target.shape)
    assert total_variation(*laws(target, drafter, 5 - vocab, choices, **settings)) < 1e-6


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@torch.no_grad()
def test_every_node_is_drafted_as_its_path_alone_would_be(models, temperature):
    """Mask, positions, and which feature goes with which guess: against chains without a cache or a mask."""
    target, drafter = models
    known = features_of(target, PROMPT)[:-1]
    cache = drafter.new_cache()
    ahead = drafter(target, PROMPT[1:], known, cache)
    sampler = Sampler(temperature, seed=3)
    tree, q = grow(target, drafter, cache, ahead[-1:], sampler=sampler, choices=CHOICES)
    assert len(tree) == len(q) == len(CHOICES)
    for node in range(-1, len(tree)):
        tokens, read = PROMPT[1:], known
        for step in tree.path(node):
            read = torch.cat((read, drafter(target, tokens, read)[-1:]))
            tokens = [*tokens, tree.tokens[step]]
        logits = target.project(drafter(target, tokens, read)[-1])
        below = tree.children(node)
        if temperature == 0:
            assert [tree.tokens[child] for child in below] == logits.topk(len(below)).indices.tolist()
        left = logits.softmax(-1)
        for child in below:
            hot = F.one_hot(torch.tensor(tree.tokens[child]), 11).double()
            torch.testing.assert_close(q[child], hot if temperature == 0 else left / left.sum())
            left = left * (1 - hot)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@torch.no_grad()
def test_the_drafters_cache_holds_true_features_only(models, temperature, monkeypatch):
    target, drafter = models
    caches: list[Cache] = []
    monkeypatch.setattr(drafter, "new_cache", lambda: caches.append(EagleDrafter.new_cache(drafter)) or caches[-1])
    kept = 0
    for limit in range(2, 12):
        run = generate(target, PROMPT, limit, drafter=drafter, sampler=Sampler(temperature, seed=limit))
        kept += sum(step.kept for step in run.steps)
        text = [*PROMPT, *(token for step in run.steps[:-1] for token in step.emitted)]
        fresh = EagleDrafter.new_cache(drafter)
        drafter(target, text[1:], features_of(target, text)[:-1], fresh)
        assert len(caches[-1]) == len(fresh) == len(text) - 1
        found, wanted = (cache._store[:, :, :, : len(fresh)] for cache in (caches[-1], fresh))
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    assert kept > 3  # otherwise nothing but the newest token was ever read


class Oracle(EagleDrafter):
    """Knows the feature of every text of two tokens; finds the text by the feature one place before, and the token."""

    def __init__(self, target, longest):
        super().__init__(target.shape)
        texts = [[0, 1, *map(int, f"{i:b}"[1:])] for i in range(1, 2**longest)]
        self.texts, self.numbers = texts, {tuple(text): i for i, text in enumerate(texts)}
        self.states = torch.stack([features_of(target, text)[-1] for text in texts])
        self.double()

    def forward(self, target, tokens, features, cache=None, **masks):
        super().forward(target, tokens, features, cache, **masks)
        if len(cache) == len(tokens) == 1:
            return self.states[:1]
        near = (self.states - features[:, None]).norm(dim=-1).argmin(-1).tolist()
        paired = [self.numbers.get((*self.texts[i], token)) for i, token in zip(near, tokens, strict=True)]
        return self.states[[0 if i is None else i for i in paired]]


@torch.no_grad()
def test_a_drafter_that_knows_the_features_is_never_rejected():
    target = flat_model(2)
    drafter, choices = Oracle(target, 9), [(0,), (1,), (0, 0), (0, 0, 0)]
    for seed in range(20):
        run = generate(target, [0, 1], 5, drafter=drafter, sampler=Sampler(1.0, seed=seed), choices=choices)
        assert [step.kept for step in run.steps] == [0, 3]
        step = run.steps[1]
        assert step.emitted[:3] == [step.drafted[node] for node in (0, 2, 3)]


def test_published_code_forgets_the_temperature_after_a_fully_accepted_path(monkeypatch):
    """Its extra token comes from the plain softmax where no child is left to reject: the docstring says how much."""
    target, temperature = flat_model(2), 0.5

    monkeypatch.setattr(eagle, "verify_tree", cold_path_warm_leaf)
    with torch.no_grad():
        drafter = Oracle(target, 6)
    bias = total_variation(*laws(target, drafter, 3, [(0,)], temperature=temperature))
    assert f"by {bias:.2f} (total" in " ".join(eagle.__doc__.split())


def test_the_first_pass_reads_the_prompt_and_every_later_one_verifies_a_tree(models):
    target, drafter = models
    run = generate(target, PROMPT, 12, drafter=drafter, sampler=Sampler(0))
    later = len(run.steps) - 1
    assert [len(step.drafted) for step in run.steps] == [0] + [25] * later
    assert [step.draft_passes for step in run.steps] == [0] + [5] * later


@pytest.mark.parametrize(("limit", "wanted"), [(12, {5, 3, 1}), (11, {5, 4, 2, 0})])
def test_the_tree_has_as_many_levels_as_the_target_has_positions(models, limit, wanted):
    """The text is that of a target without an end, whose trees also propose what is past it."""
    target, drafter = models
    last = len(PROMPT) + limit - 1  # the newest token is never read
    free = generate(target, PROMPT, limit, drafter=drafter, sampler=Sampler(0))
    target.shape = replace(target.shape, positions=last)
    run, length, levels = generate(target, PROMPT, limit, drafter=drafter, sampler=Sampler(0)), len(PROMPT), set()
    for step, following in pairwise(run.steps):
        length += len(step.emitted)
        levels.add(min(5, last - length))
        assert len(following.drafted) == sum(len(path) <= min(levels) for path in CHOICES)
        assert following.draft_passes == min(levels)
    assert run.tokens == free.tokens
    assert levels == wanted


@torch.no_grad()
def test_the_loss_compares_the_feature_one_place_ahead(models):
    target, drafter = models
    tokens = torch.tensor([[0, 1, 2, 3, 4, 0, 2], [7, 7, 1, 9, 10, 3, 3]])
    distance, surprise = [], []
    for text in tokens:
        features = features_of(target, text)
        for t in range(len(text) - 1):
            found = drafter(target, text[1 : t + 2], features[: t + 1])[-1]
            distance.append(F.smooth_l1_loss(found, features[t + 1]))
            p, q = (target.project(f).softmax(-1) for f in (features[t + 1], found))
            surprise.append(-(p * q.log()).sum())
    wanted = torch.stack(distance).mean() + 0.1 * torch.stack(surprise).mean()
    assert float(loss(target, drafter, tokens, noise=0)) == pytest.approx(float(wanted), rel=1e-5)


class Spy(nn.Module):
    """Answers with given features, and remembers which it was shown."""

    def __init__(self, answer, shape):
        super().__init__()
        self.answer, self.shape = answer, shape

    def forward(self, _target, tokens, features):
        self.tokens, self.features = tokens, features
        return self.answer


@torch.no_grad()
def test_the_noise_is_on_what_is_read_and_not_on_what_is_wanted(models):
    target, _ = models
    tokens = torch.randint(11, (4, 60), generator=torch.Generator().manual_seed(0))
    features = features_of(target, tokens)
    spy = Spy(features[:, 1:], target.shape)
    found = loss(target, spy, tokens, generator=torch.Generator().manual_seed(0))
    entropy = torch.special.entr(target.project(features[:, 1:]).softmax(-1)).sum(-1).mean()
    assert float(found) == pytest.approx(0.1 * float(entropy), rel=1e-5)
    noise = spy.features - features[:, :-1]
    assert 0.099 < float(noise.abs().max()) <= 0.1
    assert abs(float(noise.mean())) < 0.005
    assert float(noise.std()) == pytest.approx(0.2 / 12**0.5, rel=0.05)
    assert torch.equal(spy.tokens, tokens[:, 1:])


def test_only_the_drafter_learns_and_it_learns(models):
    target, drafter = models
    target.requires_grad_(requires_grad=False)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(11, (8, 20), generator=generator)
    rates = torch.optim.Adam(drafter.parameters(), 1e-2)
    course = []
    for _ in range(30):
        found = loss(target, drafter, tokens, generator=generator)
        rates.zero_grad()
        found.backward()
        rates.step()
        course.append(float(found.detach()))
    assert all(parameter.grad is not None for parameter in drafter.parameters())
    assert course[-1] < 0.7 * course[0]


@torch.no_grad()
def test_agreement_at_each_depth_is_that_of_drafts_along_the_text(models):
    target, drafter = models
    data = torch.randint(11, (12,), generator=torch.Generator().manual_seed(1))
    found = feature_accuracy(target, drafter, data, depths=3, length=12)["held_out_agreement"]
    features = features_of(target, data)
    hits = [0, 0, 0]
    for place in range(9):
        read = features[: place + 1]
        for depth in range(3):
            ahead = drafter(target, data[1 : place + depth + 2], read)[-1:]
            hits[depth] += int(target.project(ahead).argmax() == target.project(features[place + depth + 1]).argmax())
            read = torch.cat((read, ahead))
    assert sum(hits) > 0
    assert list(found.values()) == [pytest.approx(hit / 9, abs=1e-4) for hit in hits]


@pytest.mark.parametrize(
    "choices", [[], [()], [(1,)], [(0,), (1, 0)], [(0,), (0, 1)], [(-1,)], [(i,) for i in range(12)]]
)
def test_choices_that_are_no_tree_are_one_sentence(models, choices):
    target, drafter = models
    with pytest.raises(ValueError, match="choices"):
        generate(target, PROMPT, 3, drafter=drafter, sampler=Sampler(0), choices=choices)


def test_a_drafter_of_another_type_than_the_target_is_one_sentence(models):
    target, drafter = models
    with pytest.raises(
        ValueError, match=r"the drafter's weights are torch.float32 on cpu, and the target is torch.float64"
    ):
        generate(target, PROMPT, 3, drafter=drafter.float(), sampler=Sampler(0))


def test_a_fresh_join_keeps_the_size_of_what_it_reads() -> None:
    shape = Shape(vocab=9, dim=64, layers=1, heads=4, kv_heads=2, head_dim=16, hidden=96)
    join = EagleDrafter(shape).join
    assert float(join.detach().std() * len(join) ** 0.5) == pytest.approx(1, rel=0.1)


def test_defaults_are_the_documented_ones() -> None:
    assert defaults_of(importlib.import_module("reference_impls.speculative_decoding.eagle")) == {
        "generate.choices": (
            (0,),
            (1,),
            (2,),
            (3,),
            (0, 0),
            (0, 1),
            (0, 2),
            (1, 0),
            (1, 1),
            (2, 0),
            (2, 1),
            (3, 0),
            (0, 0, 0),
            (0, 0, 1),
            (0, 0, 2),
            (0, 1, 0),
            (0, 1, 1),
            (0, 2, 0),
            (0, 2, 1),
            (1, 0, 0),
            (0, 0, 0, 0),
            (0, 0, 0, 1),
            (0, 0, 0, 2),
            (0, 0, 0, 0, 0),
            (0, 0, 0, 0, 1),
        ),
        "loss.noise": 0.1,
        "loss.weight": 0.1,
    }
