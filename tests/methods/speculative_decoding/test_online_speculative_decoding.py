"""What is peculiar to online speculative decoding: which errors are learnt, when, and that no update changes a law."""

from __future__ import annotations

import copy
import importlib
import math
from dataclasses import replace
from itertools import pairwise
from typing import Any, get_args

import pytest
import torch
from defaults import defaults_of
from torch import Tensor

from reference_impls.baselines.autoregressive import generate as autoregressive
from reference_impls.core.distillation import Divergence, divergence
from reference_impls.core.generation import Generation
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding.online_speculative_decoding import Replay, generate, loss
from reference_impls.testing.laws import autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import broken, flat_model, language_model, table_model, varied_model

MUTANTS = [
    ("target-cache-keeps-a-rejected-token", "target_cache.crop(len(tokens) - 1)", "target_cache.crop(len(tokens))"),
    ("draft-cache-keeps-a-rejected-token", "draft_cache.crop(len(tokens) - 1)", "draft_cache.crop(len(tokens))"),
    ("loss-at-the-corrected-token-itself", "rows = [(i, place - 1)", "rows = [(i, place)"),
    ("reads-what-stands-behind-the-last-error", "text[: max(errors)]", "text"),
    ("whole-drafts-learnt-too", "        if kept < len(draft):\n", "        if draft:\n"),
    ("law-of-the-place-after", "logits[kept].clone()", "logits[kept + 1].clone()"),
    ("error-one-place-early", "errors[len(tokens) + kept] =", "errors[len(tokens) + kept - 1] ="),
    ("cut-off-errors-learnt", "in errors.items() if place < len(text)}", "in errors.items()}"),
    ("every-text-updates", "if len(self.texts) < self.interval:", "if not self.texts:"),
    ("buffer-never-emptied", "if errors], []", "if errors], self.texts"),
    ("gradients-add-up", "                self.optimiser.zero_grad()\n", ""),
    ("learns-between-draft-and-verification", "        # Verify: ",
     "        if replay: replay.texts.append((tokens, errors)); replay.learn()\n        # Verify: "),
    ("divergence-the-other-way-round", "divergence(p, q, kind, beta)", "divergence(q, p, kind, beta)"),
    ("mean-over-texts-and-places-mixed", "kind, beta).mean()", "kind, beta).sum() / len(texts)"),
    ("target-may-be-taught", "& {*map(id, target.parameters())}", "& set()"),
    ("decay-beside-the-loss", "weight_decay=0.0", "weight_decay=0.1"),
]  # fmt: skip

KINDS: tuple[Divergence, ...] = get_args(Divergence)
TEXTS = [
    ([0, 1, 2, 0, 1, 1], {2: [0.1, 0.9, -0.4], 4: [1.0, 0.0, 0.5]}),
    ([2, 2], {1: [-1.0, 0.3, 0.2]}),
]


def learner(vocab: int = 3) -> LanguageModel:
    """A drafter that may learn."""
    return language_model(vocab, seed={2: 281, 3: 170, 11: 1001}[vocab], layers=1).requires_grad_()


def served() -> list[tuple[list[int], dict[int, Tensor]]]:
    """Two texts with three errors."""
    return [(text, {t: torch.tensor(p, dtype=torch.float64) for t, p in errors.items()}) for text, errors in TEXTS]


def weights(model: LanguageModel) -> dict[str, Tensor]:
    """A copy of a model's weights."""
    return copy.deepcopy(model.state_dict())


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two copies of weights are equal bit by bit."""
    return all(torch.equal(value, other[key]) for key, value in one.items())


# ---- the loss -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_the_mean_over_all_errors_of_what_each_text_alone_foretells(kind: Divergence) -> None:
    """Each place by a pass of its own over what stands before it: the shift by one, the padding and the mean."""
    drafter = learner()
    terms = [
        divergence(p, drafter(text[:place])[-1], kind, 0.3) for text, errors in served() for place, p in errors.items()
    ]
    found = loss(drafter, served(), kind=kind, beta=0.3)
    assert found.item() == pytest.approx(sum(term.item() for term in terms) / 3, abs=1e-12)


def test_the_gradient_of_the_forward_divergence_is_that_of_the_soft_cross_entropy() -> None:
    drafter = learner()
    terms = [
        -(p.softmax(-1) * drafter(text[:place])[-1].log_softmax(-1)).sum()
        for text, errors in served()
        for place, p in errors.items()
    ]
    wanted = torch.autograd.grad(sum(terms, torch.tensor(0.0)) / 3, list(drafter.parameters()))
    found = torch.autograd.grad(loss(drafter, served()), list(drafter.parameters()))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_the_gradient_is_zero_at_every_other_place() -> None:
    """Also at the error itself, whose logits foretell the token after it."""
    rows = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    read = list[Tensor]()
    drafter: Any = lambda tokens: (read.append(tokens), rows)[1]  # noqa: E731
    loss(drafter, served()).backward()
    assert rows.grad is not None
    assert rows.grad.abs().sum(-1).nonzero().tolist() == [[0, 1], [0, 3], [1, 0]]
    assert read[0].tolist() == [[0, 1, 2, 0], [2, 0, 0, 0]]  # no text is read further than to its last error


# ---- what is remembered -------------------------------------------------------------------------------------------


def remembered(target: LanguageModel, drafter: LanguageModel, **options: Any) -> tuple[Generation, dict[int, Tensor]]:
    """A text after a prompt of two tokens, and its errors as the buffer has them."""
    replay = Replay(drafter, interval=9)
    run = generate(target, [5, 3], drafter=drafter, replay=replay, **options)
    ((text, errors),) = replay.texts
    assert text == [5, 3, *run.tokens]
    return run, dict(errors)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("gamma", [1, 3])
def test_errors_are_the_places_of_rejected_guesses_with_the_targets_logits_there(
    temperature: float, gamma: int
) -> None:
    """Not those behind a draft that was kept whole; the logits are those before any temperature."""
    target, drafter = varied_model(), learner(11)
    run, errors = remembered(target, drafter, limit=30, gamma=gamma, sampler=Sampler(temperature, seed=3))
    text, place, wanted = [5, 3, *run.tokens], 2, list[int]()
    for step in run.steps:
        if step.kept < len(step.drafted) and step.kept < len(step.emitted):
            wanted.append(place + step.kept)
        place += len(step.emitted)
    assert list(errors) == wanted
    assert len(wanted) > 3
    for error, logits in errors.items():
        torch.testing.assert_close(logits, target(text[:error])[-1].detach())


def test_a_drafter_that_is_always_right_has_nothing_to_learn() -> None:
    target = varied_model()
    drafter = copy.deepcopy(target).requires_grad_()
    replay, before = Replay(drafter, interval=1, rate=0.1), weights(drafter)
    run = generate(target, [5, 3], 20, drafter=drafter, sampler=Sampler(0), replay=replay)
    assert run.passes == -(-20 // 6)
    assert replay.texts == [([5, 3, *run.tokens], {})]
    replay.learn()
    assert (replay.updates, replay.texts) == (0, [])
    assert same(before, weights(drafter))


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_what_the_limit_cut_off_is_not_learnt(limit: int) -> None:
    target, drafter = varied_model(), learner(11)
    whole, all_errors = remembered(target, drafter, limit=30, sampler=Sampler(0), gamma=3)
    run, errors = remembered(target, drafter, limit=limit, sampler=Sampler(0), gamma=3)
    assert run.tokens == whole.tokens[:limit]
    assert list(errors) == [place for place in all_errors if place < 2 + limit]


def test_what_stands_behind_the_end_of_the_text_is_not_learnt() -> None:
    """The end comes from a guess that is kept, and a later guess of the same draft fails."""
    target = table_model([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    drafter = table_model([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]).requires_grad_()
    for eos, errors in ((None, [3]), (2, [])):
        replay = Replay(drafter, interval=9)
        run = generate(target, [0], 4, drafter=drafter, sampler=Sampler(0), replay=replay, gamma=3, eos=eos)
        assert run.tokens == ([1, 2, 0, 1] if eos is None else [1, 2])
        assert run.steps[0].drafted == [1, 2, 1]
        assert list(replay.texts[0][1]) == errors


def test_a_text_behind_the_drafters_last_position_is_not_read_again() -> None:
    target, drafter = varied_model(), learner(11)
    drafter.shape = replace(drafter.shape, positions=9)
    run, errors = remembered(target, drafter, limit=20, gamma=4, sampler=Sampler(0))
    assert len(run.tokens) == 20
    assert errors
    assert max(errors) <= 9  # of so many tokens the drafter reads all


# ---- when it learns -----------------------------------------------------------------------------------------------


def test_an_update_is_one_step_of_the_optimiser_on_all_texts_of_the_interval() -> None:
    target, drafter = varied_model(), learner(11)
    by_hand, before = copy.deepcopy(drafter), weights(drafter)
    replay = Replay(drafter, interval=3, rate=0.01)
    optimiser = torch.optim.AdamW(by_hand.parameters(), lr=0.01, weight_decay=0.0)
    for turn in range(2):
        texts = []
        for i in range(3):
            replay.learn()  # not yet
            assert same(before, weights(drafter))
            assert (replay.updates, len(replay.texts)) == (turn, i)
            prompt = [5, 3 + i]
            run = generate(target, prompt, 9, drafter=drafter, sampler=Sampler(1.0, seed=i), replay=replay)
            twin = Replay(by_hand, interval=99)
            generate(target, prompt, 9, drafter=by_hand, sampler=Sampler(1.0, seed=i), replay=twin)
            texts += [(text, errors) for text, errors in twin.texts if errors]
            assert texts[-1][0] == [*prompt, *run.tokens]
        assert same(before, weights(drafter))
        replay.learn()
        optimiser.zero_grad()
        loss(by_hand, texts).backward()
        optimiser.step()
        assert not same(before, weights(drafter))
        for key, value in by_hand.state_dict().items():
            torch.testing.assert_close(drafter.state_dict()[key], value)
        before = weights(drafter)
    assert (replay.updates, replay.texts) == (2, [])


def test_only_the_drafter_learns_and_only_what_is_not_frozen() -> None:
    target, drafter = varied_model(), learner(11)
    drafter.embedding.requires_grad_(requires_grad=False)
    before, own = weights(target), weights(drafter)
    replay = Replay(drafter, interval=1, rate=0.1)
    generate(target, [5, 3], 12, drafter=drafter, sampler=Sampler(0), replay=replay)
    assert same(own, weights(drafter))
    generate(target, [5, 3], 0, drafter=drafter, sampler=Sampler(0), replay=replay)
    assert same(before, weights(target))
    assert all(weight.grad is None for weight in target.parameters())
    changed = {key for key, value in drafter.state_dict().items() if not torch.equal(value, own[key])}
    assert changed == own.keys() - {"embedding"}


def test_without_a_buffer_the_drafter_stays_what_it_is() -> None:
    target, drafter = varied_model(), learner(11)
    before = weights(drafter)
    generate(target, [5, 3], 12, drafter=drafter, sampler=Sampler(0))
    assert same(before, weights(drafter))


def test_texts_without_errors_count_towards_the_interval() -> None:
    drafter = learner()
    replay, before = Replay(drafter, interval=2, rate=0.1), weights(drafter)
    replay.add([0, 1], {})
    replay.add([0, 1, 2], {2: torch.zeros(3, dtype=torch.float64)})
    replay.learn()
    assert (replay.updates, replay.texts) == (1, [])
    assert not same(before, weights(drafter))


def test_a_broken_target_teaches_nothing() -> None:
    target, drafter = broken(varied_model()), learner(11)
    replay = Replay(drafter, interval=1)
    with pytest.raises(ValueError, match="not finite"):
        generate(target, [5, 3], 9, drafter=drafter, sampler=Sampler(), replay=replay)
    assert replay.texts == []


# ---- the law ------------------------------------------------------------------------------------------------------


def test_the_law_is_the_targets_before_between_and_after_updates() -> None:
    """By enumeration, at four moments of a stream."""
    target, drafter = flat_model(2), learner(2)
    replay, wanted = Replay(drafter, interval=2, rate=0.05), autoregressive_law(target, [0, 1], 2)
    states = [weights(drafter)]
    for texts in (0, 1, 1, 12):  # untaught; with one text in the buffer; after an update; after many
        for i in range(texts):
            generate(target, [0, 1], 30, drafter=drafter, sampler=Sampler(seed=i), replay=replay)
        replay.learn()
        law = exact_law(lambda sampler: generate(target, [0, 1], 2, drafter=drafter, sampler=sampler, gamma=2))
        assert total_variation(law, wanted) < 1e-12
        states.append(weights(drafter))
    assert replay.updates > 3  # one for two texts, where they had an error between them
    assert [same(one, other) for one, other in pairwise(states)] == [True, True, False, False]


def test_the_law_of_a_text_is_the_targets_whatever_the_drafter_learnt_from_the_text_before() -> None:
    """The joint law of two texts: the second is drafted by a drafter that depends on what was drawn in the first."""
    target, first = flat_model(2), learner(2)
    drafters = set[tuple[float, ...]]()

    def both(sampler: Sampler) -> Generation:
        drafter = copy.deepcopy(first)
        replay, tokens = Replay(drafter, interval=1, rate=0.1), list[int]()
        for prompt in ([0, 1], [1, 0]):
            tokens += generate(target, prompt, 2, drafter=drafter, sampler=sampler, replay=replay, gamma=1).tokens
            drafters.add(tuple(drafter.norm.weight.tolist()))
        return Generation(tokens)

    one, two = (autoregressive_law(target, prompt, 2) for prompt in ([0, 1], [1, 0]))
    wanted = {a + b: p * q for a, p in one.items() for b, q in two.items()}
    assert total_variation(exact_law(both), wanted) < 1e-12
    assert len(drafters) == 3  # untaught, and taught by the one error or the other


def test_greedy_texts_are_the_targets_for_every_state_of_the_drafter() -> None:
    target, drafter = varied_model(), learner(11)
    replay = Replay(drafter, interval=1, rate=0.03)
    for i in range(12):
        prompt = [i % 11, 3 * i % 11]
        run = generate(target, prompt, 12, drafter=drafter, sampler=Sampler(0), replay=replay, gamma=1 + i % 4)
        assert run.tokens == autoregressive(target, prompt, 12, sampler=Sampler(0)).tokens
    assert replay.updates > 8


def test_acceptance_rises_on_a_steady_stream_and_recovers_after_a_shift() -> None:
    """Two domains are two ends of a vocabulary, each with prompts and a grammar of its own."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.full((8, 8), -20.0, dtype=torch.float64)
    for half in (slice(0, 4), slice(4, 8)):
        rows[half, half] = 2 * torch.randn(4, 4, generator=generator, dtype=torch.float64)
    target, drafter = table_model(rows.softmax(-1).tolist()), language_model(8, seed=5, layers=1).requires_grad_()
    replay, kept = Replay(drafter, interval=4, rate=0.02), list[float]()
    for i in range(240):
        run = generate(target, [i % 4 + 4 * (i >= 120)], 12, drafter=drafter, sampler=Sampler(seed=i), replay=replay)
        kept.append(run.acceptance or 0.0)
    begin, learnt, shifted, recovered = (sum(kept[i : i + 20]) / 20 for i in (0, 100, 120, 220))
    assert learnt > begin + 0.2
    assert shifted < learnt - 0.2
    assert recovered > shifted + 0.2


# ---- options ------------------------------------------------------------------------------------------------------


def test_a_buffer_that_would_teach_another_model_is_one_sentence() -> None:
    target, drafter = varied_model(), learner(11)
    with pytest.raises(ValueError, match="teaches another drafter"):
        generate(target, [5, 3], 3, drafter=drafter, sampler=Sampler(), replay=Replay(copy.deepcopy(drafter)))
    target.requires_grad_()
    with pytest.raises(ValueError, match="shares weights with the target"):
        generate(target, [5, 3], 3, drafter=target, sampler=Sampler(), replay=Replay(target))
    drafter.embedding = target.embedding
    with pytest.raises(ValueError, match="shares weights with the target"):
        generate(target, [5, 3], 3, drafter=drafter, sampler=Sampler(), replay=Replay(drafter))
    assert len(generate(target, [5, 3], 3, drafter=target, sampler=Sampler()).tokens) == 3


@pytest.mark.parametrize(("interval", "rate"), [(0, 0.1), (2, 0.0), (2, -0.1), (2, math.inf)])
def test_numbers_out_of_range_are_one_sentence(interval: int, rate: float) -> None:
    with pytest.raises(ValueError, match=f"interval is {interval} and rate {rate}"):
        Replay(learner(), interval=interval, rate=rate)


def test_a_drafter_that_cannot_learn_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="no weight of the drafter may change"):
        Replay(learner().requires_grad_(requires_grad=False))
    for dtype in (torch.bfloat16, torch.float16):
        with pytest.raises(ValueError, match="half precision, where small steps vanish"):
            Replay(learner().to(dtype))
    assert Replay(learner().float()).updates == 0


@pytest.mark.parametrize(
    "texts", [[], [([0, 1], {})], [([0, 1], {0: torch.zeros(3)})], [([0, 1], {2: torch.zeros(3)})]]
)
def test_texts_that_teach_nothing_are_one_sentence(texts: Any) -> None:
    with pytest.raises(ValueError, match="texts need an error each"):
        loss(learner(), texts)


def test_another_divergence_is_refused_before_it_is_needed() -> None:
    with pytest.raises(ValueError, match="kind is 'kl'"):
        Replay(learner(), kind="kl")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="beta is 1"):
        Replay(learner(), kind="jensen-shannon", beta=1.0)


def test_defaults_are_the_documented_ones() -> None:
    assert defaults_of(importlib.import_module("reference_impls.speculative_decoding.online_speculative_decoding")) == {
        "generate.gamma": 5,
        "Replay.interval": 8,
        "Replay.rate": 1e-4,
        "Replay.kind": "forward-kl",
        "Replay.beta": 0.5,
        "loss.kind": "forward-kl",
        "loss.beta": 0.5,
    }
