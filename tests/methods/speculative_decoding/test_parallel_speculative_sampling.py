"""What is peculiar to PaSS: look-ahead tokens that change nothing, two passes a turn, and what the rows learn from."""

from __future__ import annotations

import importlib
import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from defaults import defaults_of

from accelgen.training.corpora import Corpus
from accelgen.training.recipes.parallel_speculative_sampling import RECIPE
from accelgen.training.shelf import Shelf
from reference_impls import zoo
from reference_impls.baselines.autoregressive import generate as autoregressive
from reference_impls.core.cache import Cache
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.verify import residual
from reference_impls.speculative_decoding.parallel_speculative_sampling import LookAhead, generate, loss, read_ahead
from reference_impls.testing import Scene
from reference_impls.testing.cases import case_of
from reference_impls.testing.laws import Law, autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import flat_model, language_model, randomised, varied_model

MUTANTS = [
    ("look-ahead-tokens-left-in-the-cache", "        cache.crop(len(tokens))\n", ""),
    ("newest-token-forgotten-with-them", "cache.crop(len(tokens))\n", "cache.crop(len(tokens) - 1)\n"),
    ("law-of-the-place-before", "[-len(rows) - 1 :]", "[-len(rows) - 2 : -1]"),
    ("guesses-taken-for-draws-of-the-law-before", "draft, laws[1:], p)", "draft, laws[:-1], p)"),
    ("guesses-judged-by-unfiltered-laws", "draft, laws[1:], p)", "draft, laws[1:].sqrt(), p)"),
    ("first-token-is-a-guess", "first, *draft = sampler.draw(laws)", "*draft, first = sampler.draw(laws)"),
    ("second-pass-without-the-first-token", "target([first, *draft], cache)", "target([draft[0], *draft], cache)"),
    ("second-pass-after-the-end", "result.add(Step([first]), limit, eos)", "result.add(Step([first]), limit)"),
    ("no-more-look-ahead-tokens-than-there-are", "gamma > len(look_ahead.rows)", "False"),
    ("all-rows-whatever-gamma", "room(len(tokens) + 1, gamma, target)", "len(look_ahead.rows)"),
    ("guesses-past-the-last-position", "room(len(tokens) + 1, gamma, target)", "room(len(tokens), gamma, target)"),
    ("rows-learn-the-next-token", "torch.arange(2, length + 2)", "torch.arange(1, length + 1)"),
    ("last-place-without-a-label", "tokens.shape[1] - length - 1, (groups,)", "tokens.shape[1] - length, (groups,)"),
    ("rows-begin-anywhere", "self.rows.copy_(target.embedding.mean(0))", "pass"),
    ("one-pass-counted-for-both", "Step(emitted, draft, kept=kept)", "Step(emitted, draft, kept=kept, passes=0)"),
]  # fmt: skip


def rows_of(target: LanguageModel, length: int = 4) -> LookAhead:
    made = randomised(LookAhead, target.shape, length=length)
    assert isinstance(made, LookAhead)
    return made


def alone(target: LanguageModel, look_ahead: LookAhead, text: list[int], gamma: int) -> torch.Tensor:
    """Logits [1 + gamma, vocab] after a text with look-ahead tokens behind it: one plain causal pass."""
    x = torch.cat((target.embed(text), look_ahead.rows[:gamma]))
    return target.logits(target.run(x))[-gamma - 1 :]


# Decoding


@torch.no_grad()
def test_look_ahead_tokens_change_no_law_before_them() -> None:
    target = varied_model()
    look_ahead, text = rows_of(target), [5, 3, 8, 1, 9]
    x = torch.cat((target.embed(text), look_ahead.rows))
    assert torch.allclose(target.logits(target.run(x))[:5], target(text), atol=1e-12)


@torch.no_grad()
def test_the_first_token_is_the_targets_and_guess_i_is_read_at_look_ahead_token_i() -> None:
    target = varied_model()
    look_ahead, text = rows_of(target), [5, 3, 8, 1]
    run = generate(target, text, 14, look_ahead=look_ahead, sampler=Sampler(0), gamma=3)
    for first, second in zip(run.steps[::2], run.steps[1::2], strict=False):
        best = alone(target, look_ahead, text, 3).argmax(-1).tolist()
        assert first.emitted == best[:1]
        assert second.drafted == best[1:]
        text = [*text, *first.emitted, *second.emitted]
    assert len(run.steps) > 4


def test_two_passes_give_at_least_two_tokens() -> None:
    """So there are never more passes than tokens, whatever the look-ahead tokens are worth."""
    target = varied_model()
    for prompt in ([5], [5, 3, 8, 1]):
        for limit in range(1, 12):
            run = generate(target, prompt, limit, look_ahead=rows_of(target), sampler=Sampler(1.0), gamma=2)
            assert run.passes == sum(step.passes for step in run.steps) <= limit
            turns = list(zip(run.steps[::2], run.steps[1::2], strict=False))
            assert all(not first.drafted and len(first.emitted) == 1 for first, _ in turns)
            assert all(len(second.drafted) == 2 and second.emitted for _, second in turns)


def test_where_the_text_ends_with_the_first_token_the_second_pass_is_saved() -> None:
    target = varied_model()
    wanted = autoregressive(target, [5, 3], 9, sampler=Sampler(0)).tokens
    run = generate(target, [5, 3], 9, look_ahead=rows_of(target), sampler=Sampler(0), eos=wanted[0])
    assert (run.tokens, run.passes) == (wanted[:1], 1)
    assert generate(target, [5, 3], 1, look_ahead=rows_of(target), sampler=Sampler(0)).passes == 1


def test_perfect_look_ahead_tokens_give_gamma_plus_two_tokens_in_two_passes() -> None:
    case = case_of("parallel-speculative-sampling")
    for gamma in (1, 2, 4):
        scene = case.scene(Scene(varied_model(), [0], gamma, "perfect"))
        own = {"look_ahead": randomised(LookAhead, scene.target.shape), "gamma": gamma}
        run = generate(scene.target, list(scene.prompt), 3 * (gamma + 2), sampler=Sampler(0), **own)  # type: ignore[arg-type]
        assert run.passes == 6
        assert run.tokens == autoregressive(scene.target, scene.prompt, 3 * (gamma + 2), sampler=Sampler(0)).tokens


def test_guesses_do_not_depend_on_how_many_there_are() -> None:
    """Row i sees only the rows before it: the first of many trained rows serve as well as if there were no more."""
    target = varied_model()
    look_ahead = rows_of(target)
    few, more = (
        generate(target, [5, 3, 8], 2, look_ahead=look_ahead, sampler=Sampler(0), gamma=gamma).steps[1].drafted
        for gamma in (2, 4)
    )
    assert more[:2] == few


@pytest.mark.parametrize("filters", [{}, {"temperature": 0.7, "top_p": 0.8}, {"top_k": 2}])
def test_the_law_is_the_targets_also_under_filters(filters: dict[str, float]) -> None:
    """Two turns of the loop: the first token of the second one follows what the acceptance rule left."""
    target = flat_model()
    look_ahead = rows_of(target)
    q = Sampler(**filters).probs(alone(target, look_ahead, [0, 1], 1)[1])  # type: ignore[arg-type]
    p = Sampler(**filters).probs(target([0, 1, 2])[-1])  # type: ignore[arg-type]
    assert (q - p).abs().sum() / 2 > 0.05  # a rule that took p for q would show
    law = exact_law(
        lambda sampler: generate(target, [0, 1], 4, look_ahead=look_ahead, sampler=sampler, gamma=1), **filters
    )
    assert total_variation(law, autoregressive_law(target, [0, 1], 4, **filters)) < 1e-9


@torch.no_grad()
def test_in_bfloat16_too_a_guess_is_judged_by_the_law_it_was_drawn_from() -> None:
    """Against the same passes, branch by branch: their widths round otherwise than plain decoding would."""
    target, look_ahead, probs = flat_model().bfloat16(), rows_of(flat_model()).bfloat16(), Sampler().probs
    law = exact_law(lambda sampler: generate(target, [0, 1], 3, look_ahead=look_ahead, sampler=sampler, gamma=1))

    def ahead(text: list[int], cache: Cache) -> torch.Tensor:
        """The laws [2, vocab] of the next token and of the guess."""
        x = torch.cat((target.embed(text[len(cache) :]), look_ahead.rows[:1]))
        laws = probs(target.logits(target.run(x, cache)[-2:]))
        cache.crop(len(text))
        return laws

    wanted: Law = dict.fromkeys(product(range(3), repeat=3), 0.0)
    for first, guess in product(range(3), repeat=2):
        cache = target.new_cache()
        p0, q = ahead([0, 1], cache)
        p1, p2 = probs(target([first, guess], cache))
        cache.crop(3)
        chance, keep = float(p0[first] * q[guess]), min(1.0, float(p1[guess] / q[guess]))
        for third in range(3):
            wanted[first, guess, third] += chance * keep * float(p2[third])
        for extra, share in enumerate(residual(p1, q).tolist()):
            for third, then in enumerate(ahead([0, 1, first, extra], cache)[0].tolist()):
                wanted[first, extra, third] += chance * (1 - keep) * share * then
            cache.crop(3)
    assert total_variation(law, wanted) < 1e-6


def test_guesses_end_where_the_positions_of_the_target_end() -> None:
    target = varied_model()
    target.shape = replace(target.shape, positions=12)
    widths = []
    run_layers = target.run

    def run(x: torch.Tensor, cache: object = None, **more: object) -> torch.Tensor:
        widths.append(len(cache) + len(x))  # type: ignore[arg-type]
        return run_layers(x, cache, **more)  # type: ignore[arg-type]

    target.run = run  # type: ignore[method-assign, assignment]
    found = generate(target, [5, 3, 8], 10, look_ahead=rows_of(target), sampler=Sampler(0))
    assert len(found.tokens) == 10
    assert max(widths) == 12


@pytest.mark.parametrize("gamma", [5, 0])
def test_a_gamma_without_look_ahead_tokens_is_one_sentence(gamma: int) -> None:
    target = varied_model()
    with pytest.raises(ValueError, match=f"gamma is {gamma}"):
        generate(target, [5, 3], 3, look_ahead=rows_of(target), sampler=Sampler(0), gamma=gamma)


def test_as_many_guesses_as_there_are_look_ahead_tokens() -> None:
    run = generate(varied_model(), [5], 9, look_ahead=rows_of(varied_model()), sampler=Sampler(0), gamma=4)
    assert len(run.steps[1].drafted) == 4


def test_broken_rows_are_one_sentence() -> None:
    target = varied_model()
    look_ahead = rows_of(target)
    torch.nn.init.constant_(look_ahead.rows, math.nan)
    with pytest.raises(ValueError, match="not finite"):
        generate(target, [5, 3], 3, look_ahead=look_ahead, sampler=Sampler(0))


def test_rows_of_another_type_than_the_target_are_one_sentence() -> None:
    target = varied_model()
    with pytest.raises(
        ValueError, match=r"the look-ahead tokens are torch.float32 on cpu, and the target is torch.float64"
    ):
        generate(target, [5, 3], 3, look_ahead=rows_of(target).float(), sampler=Sampler(0))


def test_there_is_at_least_one_look_ahead_token() -> None:
    with pytest.raises(ValueError, match="length is 0"):
        LookAhead(language_model().shape, length=0)
    assert len(LookAhead(language_model().shape, length=1).rows) == 1


# Training


@torch.no_grad()
def test_many_groups_in_one_pass_read_what_each_would_read_alone() -> None:
    target = varied_model()
    look_ahead, tokens = rows_of(target, 3), torch.randint(11, (2, 9))
    found = read_ahead(target, look_ahead, tokens, torch.tensor([4, 0, 8, 4]))
    for row, text in enumerate(tokens.tolist()):
        for group, place in enumerate((4, 0, 8, 4)):
            wanted = alone(target, look_ahead, text[: place + 1], 3)[1:]
            assert torch.allclose(found[row, group], wanted, atol=1e-12)


@torch.no_grad()
def test_the_loss_is_the_mean_surprise_at_the_token_so_far_ahead() -> None:
    target = language_model(5)
    look_ahead, tokens = rows_of(target, 2), torch.randint(5, (2, 6))
    places = torch.randint(3, (50,), generator=torch.Generator().manual_seed(4)).tolist()
    assert set(places) == {0, 1, 2}  # behind place 2 the second look-ahead token learns the last token
    total = 0.0
    for text in tokens.tolist():
        for place in places:
            wanted = torch.tensor(text[place + 2 : place + 4])
            total += float(F.cross_entropy(alone(target, look_ahead, text[: place + 1], 2)[1:], wanted))
    own = loss(target, look_ahead, tokens, groups=50, generator=torch.Generator().manual_seed(4))
    assert own.item() == pytest.approx(total / 100, rel=1e-5)


def test_only_the_rows_learn_and_they_learn_to_guess() -> None:
    target = varied_model()
    before = {name: weight.clone() for name, weight in target.state_dict().items()}
    texts = torch.tensor([[t, *autoregressive(target, [t], 20, sampler=Sampler(0)).tokens] for t in range(11)])
    look_ahead = LookAhead(target.shape, 3).double()
    look_ahead.start_from(target)
    target.requires_grad_(requires_grad=False)
    generator, course = torch.Generator().manual_seed(0), []
    optimiser = torch.optim.Adam(look_ahead.parameters(), lr=0.1)
    for _ in range(40):
        optimiser.zero_grad()
        value = loss(target, look_ahead, texts, generator=generator)
        value.backward()
        optimiser.step()
        course.append(value.item())
    assert sum(course[-5:]) < 0.85 * sum(course[:5])
    assert all(torch.equal(before[name], weight) for name, weight in target.state_dict().items())
    assert all(parameter.grad is None for parameter in target.parameters())
    assert sum(parameter.numel() for parameter in look_ahead.parameters()) == 3 * target.shape.dim


def test_training_begins_with_the_mean_embedding() -> None:
    target = language_model(5)
    look_ahead = LookAhead(target.shape, 3).double()
    look_ahead.start_from(target)
    assert torch.equal(look_ahead.rows, target.embedding.mean(0).expand(3, -1))
    assert look_ahead.rows.requires_grad


@torch.no_grad()
def test_trained_rows_know_more_of_a_text_than_those_that_training_begins_with() -> None:
    target, text = zoo.load("target"), torch.tensor([zoo.encode(Path(__file__).read_text(encoding="utf-8"))[:400]])
    begun = LookAhead(target.shape, 6)
    begun.start_from(target)
    before, after = (
        loss(target, look_ahead, text, groups=64, generator=torch.Generator().manual_seed(0)).item()
        for look_ahead in (begun, zoo.load("look-ahead"))
    )
    assert after < before - 0.3


def test_the_recipe_trains_rows_alone_and_measures_every_number_of_them() -> None:
    text = "def add(a, b):\n    return a + b\n" * 60
    shelf = Shelf(read=lambda _: Corpus([text], [], {"library": [text]}, {"library": [text]}))
    part = RECIPE.train(shelf, replace(RECIPE.settings, steps=2, batch=2, length=40))
    assert part.module.rows.shape == (6, 128)
    assert (part.module.rows - shelf.load("target").embedding.mean(0)).abs().max() > 1e-3


def test_defaults_are_the_documented_ones() -> None:
    assert defaults_of(
        importlib.import_module("reference_impls.speculative_decoding.parallel_speculative_sampling")
    ) == {
        "generate.gamma": 4,
        "LookAhead.length": 8,
        "loss.groups": 16,
    }
