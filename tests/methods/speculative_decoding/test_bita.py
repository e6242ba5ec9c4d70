"""What is peculiar to BiTA: masks and keys that nothing else sees, groups behind every node, the tree of guesses."""

from __future__ import annotations

import importlib
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from defaults import defaults_of
from torch import Tensor

from accelgen.training.corpora import Corpus
from accelgen.training.recipes.bita import RECIPE, greedy_texts
from accelgen.training.shelf import Shelf
from reference_impls import zoo
from reference_impls.baselines.autoregressive import generate as autoregressive
from reference_impls.core.generation import Generation
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.tree import Tree
from reference_impls.speculative_decoding.bita import (
    BidirectionalTuning,
    Prompted,
    generate,
    half_tree,
    look_ahead,
    loss,
)
from reference_impls.testing.laws import autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import flat_model, language_model, randomised, varied_model

MUTANTS = [
    ("prompt-seen-by-the-text", "is_mask[:, None].expand", "torch.ones_like(is_mask)[:, None].expand"),
    ("prompt-seen-by-nobody", "is_mask[:, None].expand", "torch.zeros_like(is_mask)[:, None].expand"),
    ("one-mask-for-all-places", "tuning.masks[:size].repeat", "tuning.masks[:1].expand(size, -1).repeat"),
    ("masks-in-turn", "[:size].repeat(len(places), 1)", "[:size].repeat_interleave(len(places), 0)"),
    ("last-masks-first", "tuning.masks[:size]", "tuning.masks[-size:]"),
    ("group-of-the-node-before", "[path[-1] + 1 if path else 0]", "[path[-1] if path else 0]"),
    ("group-of-the-root-always", "[path[-1] + 1 if path else 0]", "[0]"),
    ("group-of-the-last-node-always", "[path[-1] + 1 if path else 0]", "[-1]"),
    ("nodes-kept-in-order", "cache.keep(len(tokens), path)", "cache.crop(len(tokens) + len(path))"),
    ("masks-left-in-the-cache", "cache.keep(len(tokens), path)", "cache.keep(len(tokens), [*path, len(tree)])"),
    ("positions-from-0", "positions=prompted.length(0) + depths", "positions=depths"),
    ("keys-for-values", "zip((k, v), own, strict=True)", "zip((k, v), own.flip(0), strict=True)"),
    ("second-best-continued", "parent, *_ = [", "*_, parent = ["),
    ("chain-hung-below-the-root", "tree.add(token, parent)", "tree.add(token)"),
    ("widest-level-everywhere", "row[:width]", "row"),
    ("masks-learn-the-next-token", "torch.arange(2, size + 2)", "torch.arange(1, size + 1)"),
    ("places-in-the-prompt-too", "torch.randint(first, end", "torch.randint(end"),
    ("masks-begin-anywhere", "self.masks.copy_(target.embedding.mean(0))", "pass"),
    ("prompts-begin-alike", "torch.linspace(0, target.shape.vocab - 1,", "torch.linspace(0, 0,"),
    ("more-widths-than-masks", "0 < len(widths) <= masks", "0 < len(widths)"),
]  # fmt: skip

PROMPT = [5, 3, 8, 1]


def tuning_of(target: LanguageModel, masks: int = 3, prompts: int = 2) -> BidirectionalTuning:
    made = randomised(BidirectionalTuning, target.shape, masks=masks, prompts=prompts)
    assert isinstance(made, BidirectionalTuning)
    return made


def alone(target: LanguageModel, tuning: BidirectionalTuning, text: list[int], size: int) -> Tensor:
    """Logits [size, vocab] of masks behind a text, in a pass of their own over a cache of text and prompt."""
    cache = target.new_cache()
    target(text, cache)
    for layer, (keys, values) in enumerate(tuning.prompts):
        cache.append(layer, keys, values)
    positions = torch.arange(len(text), len(text) + size)
    return target.logits(target.run(tuning.masks[:size], cache, positions=positions))


def test_nodes_and_masks_end_where_the_positions_of_the_target_end() -> None:
    target = varied_model()
    target.shape, places = replace(target.shape, positions=14), list[int]()
    run_layers = target.run

    def run(x: Tensor, cache: object = None, **more: Any) -> Tensor:
        places.extend(more["positions"].tolist() if "positions" in more else range(len(x)))
        return run_layers(x, cache, **more)  # type: ignore[arg-type]

    target.run = run  # type: ignore[method-assign, assignment]
    plain = autoregressive(varied_model(), PROMPT, 11, sampler=Sampler(0)).tokens
    found = generate(target, PROMPT, 11, tuning=tuning_of(target), sampler=Sampler(0), widths=(3, 2, 2))
    assert found.tokens == plain
    assert max(places) == 13


# One pass


@torch.no_grad()
@pytest.mark.parametrize("cached", [False, True])
def test_ordinary_tokens_do_not_see_masks_or_prompt(cached: bool) -> None:  # noqa: FBT001
    target = varied_model()
    tuning, tree = tuning_of(target), half_tree([[4, 7, 2], [9, 0]], [3, 2])
    cache = target.new_cache() if cached else None
    if cached:
        target(PROMPT[:-1], cache)
    hidden = look_ahead(target, tuning, [1, *tree.tokens], tree.layout(), torch.arange(6), size=3, cache=cache)
    before = PROMPT if cached else PROMPT[-1:]
    for node in range(-1, len(tree)):
        path = [tree.tokens[i] for i in tree.path(node)]
        assert torch.allclose(target.logits(hidden[node + 1]), target([*before, *path])[-1], atol=1e-12)


@torch.no_grad()
def test_every_group_says_what_masks_say_in_a_pass_of_their_own() -> None:
    target = varied_model()
    tuning, tree, cache = tuning_of(target), half_tree([[4, 7, 2], [9, 0]], [3, 2]), target.new_cache()
    target(PROMPT[:-1], cache)
    hidden = look_ahead(target, tuning, [1, *tree.tokens], tree.layout(), torch.arange(6), size=3, cache=cache)
    for node, found in enumerate(target.logits(hidden[6:]).unflatten(0, (6, 3)), start=-1):
        path = [tree.tokens[i] for i in tree.path(node)]
        assert torch.allclose(found, alone(target, tuning, [*PROMPT, *path], 3), atol=1e-12)


@torch.no_grad()
def test_masks_differ_and_so_do_answers_with_and_without_a_prompt() -> None:
    target = varied_model()
    tuning, bare = tuning_of(target), tuning_of(target)
    bare.prompts.zero_()  # keys and values of nothing still take part
    said = alone(target, tuning, PROMPT, 3)
    assert not torch.allclose(said[0], said[1])
    assert not torch.allclose(said, alone(target, bare, PROMPT, 3))


@torch.no_grad()
def test_the_learned_keys_lie_behind_the_new_ones_and_are_forgotten_with_them() -> None:
    target = varied_model()
    tuning, cache, plain = tuning_of(target), target.new_cache(), target.new_cache()
    target(PROMPT, cache)
    target(PROMPT, plain)
    k, v = torch.randn(2, 1, 3, 4, dtype=torch.float64)
    keys, values = Prompted(tuning.prompts, cache).append(1, k, v)
    assert torch.equal(keys[:, 4:7], k)
    assert torch.equal(values[:, 4:7], v)
    assert torch.equal(torch.stack((keys, values))[:, :, 7:], tuning.prompts[1])
    cache.crop(4)
    assert all(torch.equal(a, b) for a, b in zip(cache.entries(1), plain.entries(1), strict=True))


# Decoding


def test_a_tree_continues_the_best_guess_of_each_mask() -> None:
    tree = half_tree([[4, 7, 2], [9, 0, 1], [6, 3, 5]], [3, 2, 1])
    assert (tree.tokens, tree.parents) == ([4, 7, 2, 9, 0, 6], [-1, -1, -1, 0, 0, 3])
    assert half_tree([], [3, 2]) == Tree()


@torch.no_grad()
def test_the_tree_of_a_step_holds_the_guesses_behind_the_last_token_kept() -> None:
    """Wherever acceptance ended: behind the root, and behind nodes of every depth."""
    target = varied_model()
    tuning, widths, ends, text = tuning_of(target), (11, 3), set(), [5]
    run = generate(target, text, 16, tuning=tuning, sampler=Sampler(0), widths=widths)
    for number, (step, following) in enumerate(zip(run.steps, run.steps[1:], strict=False)):
        text = [*text, *step.emitted]
        ends.add(step.kept)
        if number:
            best = alone(target, tuning, text[:-1], 2).topk(11).indices.tolist()
            wanted = half_tree(best, widths)
            assert (following.drafted, following.parents) == (wanted.tokens, wanted.parents)
    assert {0, 1} <= ends
    assert [step.drafted for step in run.steps[:2]] == [[], []]  # the prompt, and the first look ahead


def test_every_guess_of_a_mask_saves_a_pass() -> None:
    """All 11 tokens are guessed for the next place: each pass but the first two gives two tokens."""
    target = varied_model()
    run = generate(target, PROMPT, 12, tuning=tuning_of(target), sampler=Sampler(0), widths=(11,))
    assert [len(step.emitted) for step in run.steps] == [1, 1, 2, 2, 2, 2, 2]
    assert run.tokens == autoregressive(target, PROMPT, 12, sampler=Sampler(0)).tokens


def test_one_pass_a_step_over_one_token_a_tree_and_a_group_for_each() -> None:
    target, sizes = varied_model(), list[int]()
    run_layers = target.run

    def run(x: Tensor, *more: object, **others: object) -> Tensor:
        sizes.append(len(x))
        return run_layers(x, *more, **others)  # type: ignore[arg-type]

    target.run = run  # type: ignore[method-assign, assignment]
    found = generate(target, PROMPT, 9, tuning=tuning_of(target), sampler=Sampler(0), widths=(3, 2, 1))
    assert sizes == [4, 1 + 3, *[7 + 7 * 3] * (found.passes - 2)]
    assert all(step.passes == 1 for step in found.steps)


@pytest.mark.parametrize("widths", [(2,), (1, 1), (2, 1)])
def test_sampling_too_keeps_the_law(widths: tuple[int, ...]) -> None:
    """Beyond the paper: the tree is made without chance, so the greedy method is exact at every temperature."""
    target = flat_model()
    tuning = tuning_of(target, 2)
    law = exact_law(lambda sampler: generate(target, [0, 1], 4, tuning=tuning, sampler=sampler, widths=widths))
    assert total_variation(law, autoregressive_law(target, [0, 1], 4)) < 1e-9


@pytest.mark.parametrize("widths", [(), (0,), (1, 1, 1, 1), (12,), (1, -1)])
def test_widths_that_no_masks_can_fill_are_one_sentence(widths: tuple[int, ...]) -> None:
    target = varied_model()
    with pytest.raises(ValueError, match="widths are"):
        generate(target, [5, 3], 3, tuning=tuning_of(target), sampler=Sampler(0), widths=widths)


def test_broken_masks_and_prompts_are_one_sentence() -> None:
    target = varied_model()
    for name in ("masks", "prompts"):
        tuning = tuning_of(target)
        torch.nn.init.constant_(getattr(tuning, name), math.nan)
        with pytest.raises(ValueError, match="not finite"):
            generate(target, [5, 3], 4, tuning=tuning, sampler=Sampler(0))


@pytest.mark.parametrize(("masks", "prompts"), [(0, 2), (2, 0)])
def test_there_is_at_least_one_of_each(masks: int, prompts: int) -> None:
    with pytest.raises(ValueError, match=f"masks is {masks} and prompts is {prompts}"):
        BidirectionalTuning(language_model().shape, masks, prompts)
    assert BidirectionalTuning(language_model().shape, 1, 1).masks.shape == (1, 8)


# Published code


def published(p: Tensor, q: Tensor, sampler: Sampler) -> Generation:
    """One token as the chain mode of the published code samples it, when a guess from q is there."""
    guess = int(sampler.draw(q))
    kept = bool(sampler.accept(p[guess] / q[guess]))
    return Generation([guess if kept else int(sampler.draw(p))])


def test_the_published_chain_draws_from_p_where_the_residual_belongs() -> None:
    p, q = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64)
    law = exact_law(lambda sampler: published(p, q, sampler))
    shared = torch.minimum(p, q)
    wanted = shared + (1 - shared.sum()) * p
    assert [law[token,] for token in range(3)] == pytest.approx(wanted.tolist(), abs=1e-12)
    assert wanted.tolist() == pytest.approx([0.4, 0.32, 0.28])  # 0.1 away from p


# Training


@torch.no_grad()
def test_the_loss_is_the_mean_surprise_at_the_token_so_far_ahead() -> None:
    target = language_model(5)
    tuning, tokens = tuning_of(target, 2), torch.randint(5, (2, 7))
    places = torch.randint(1, 4, (50,), generator=torch.Generator().manual_seed(4)).tolist()
    assert set(places) == {1, 2, 3}  # behind place 3 the second mask learns the last token
    total = 0.0
    for text in tokens.tolist():
        for place in places:
            wanted = torch.tensor(text[place + 2 : place + 4])
            total += float(F.cross_entropy(alone(target, tuning, text[: place + 1], 2), wanted))
    own = loss(target, tuning, tokens, first=1, groups=50, generator=torch.Generator().manual_seed(4))
    assert own.item() == pytest.approx(total / 100, rel=1e-5)


def test_only_prompt_and_masks_learn_and_they_learn_to_guess() -> None:
    target = varied_model()
    before = {name: weight.clone() for name, weight in target.state_dict().items()}
    texts = torch.tensor([[t, *autoregressive(target, [t], 20, sampler=Sampler(0)).tokens] for t in range(11)])
    tuning = BidirectionalTuning(target.shape, 2, 4).double()
    tuning.start_from(target)
    target.requires_grad_(requires_grad=False)
    generator, course = torch.Generator().manual_seed(0), []
    optimiser = torch.optim.Adam(tuning.parameters(), lr=0.1)
    for _ in range(40):
        optimiser.zero_grad()
        value = loss(target, tuning, texts, generator=generator)
        value.backward()
        optimiser.step()
        course.append(value.item())
    assert sum(course[-5:]) < 0.7 * sum(course[:5])
    assert all(torch.equal(before[name], weight) for name, weight in target.state_dict().items())
    assert all(parameter.grad is None for parameter in target.parameters())


def test_what_is_trained_is_prompt_and_masks_alone() -> None:
    shape = language_model().shape
    count = sum(parameter.numel() for parameter in BidirectionalTuning(shape, masks=3, prompts=16).parameters())
    assert count == 3 * shape.dim + 16 * shape.layers * 2 * shape.kv_heads * shape.head_dim


@torch.no_grad()
def test_training_begins_with_keys_and_values_of_real_tokens() -> None:
    target = varied_model()
    tuning = BidirectionalTuning(target.shape, 2, 6).double()
    tuning.start_from(target)
    assert torch.equal(tuning.masks, target.embedding.mean(0).expand(2, -1))
    cache = target.new_cache()
    target([0, 2, 4, 6, 8, 10], cache)
    assert all(torch.equal(tuning.prompts[layer, 1], cache.entries(layer)[1]) for layer in range(3))
    assert tuning.prompts.requires_grad


def test_texts_to_learn_from_are_the_targets_greedy_ones() -> None:
    target = varied_model()
    begun = torch.tensor([[5, 3], [8, 1], [7, 7]])
    texts = greedy_texts(target, begun, 9, rows=2)
    for row, text in zip(begun.tolist(), texts.tolist(), strict=True):
        assert text == [*row, *autoregressive(target, row, 7, sampler=Sampler(0)).tokens]


@torch.no_grad()
def test_trained_masks_know_more_of_a_text_of_the_target_than_those_that_training_begins_with() -> None:
    target = zoo.load("target")
    begun, prompt = BidirectionalTuning(target.shape), zoo.encode("import os\n\n\ndef read_lines(path):\n    ")
    begun.start_from(target)
    text = greedy_texts(target, torch.tensor([prompt]), 80)
    before, after = (
        loss(target, tuning, text, first=len(prompt), groups=64, generator=torch.Generator().manual_seed(0)).item()
        for tuning in (begun, zoo.load("bita-tuning"))
    )
    assert after < before - 0.3


def test_the_recipe_trains_prompt_and_masks_on_texts_of_the_target() -> None:
    text = "def add(a, b):\n    return a + b\n" * 60
    shelf = Shelf(read=lambda _: Corpus([text], [], {"library": [text]}, {"library": [text]}))
    settings = replace(RECIPE.settings, steps=2, batch=2, length=24, texts=2)
    part = RECIPE.train(shelf, settings)
    begun = BidirectionalTuning(shelf.load("target").shape)
    begun.start_from(shelf.load("target"))
    assert (part.module.masks - begun.masks).abs().max() > 1e-3
    assert (part.module.prompts - begun.prompts).abs().max() > 1e-3


def test_defaults_are_the_documented_ones() -> None:
    assert defaults_of(importlib.import_module("reference_impls.speculative_decoding.bita")) == {
        "generate.widths": (3, 2, 1),
        "BidirectionalTuning.masks": 3,
        "BidirectionalTuning.prompts": 16,
        "loss.first": 0,
        "loss.groups": 16,
    }
