"""Multi-candidate speculative decoding: both ways to draw, each with its own law, and caches that keep the path."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from defaults import defaults_of
from fresh_caches import watched
from torch import Tensor

from accelgen.measuring.counterexamples import picked_candidates
from reference_impls.core.drafting import siblings
from reference_impls.core.generation import Generation, Step
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.tree import Tree
from reference_impls.core.verify import residual, verify_tree
from reference_impls.speculative_decoding import multi_candidate_speculative_decoding as multi
from reference_impls.speculative_decoding import speculative_sampling_chen
from reference_impls.speculative_decoding.multi_candidate_speculative_decoding import generate
from reference_impls.testing.laws import Law, autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import flat_model, language_model, varied_model

MUTANTS = [
    ("drawn-the-other-way", "replacement=replacement", "replacement=not replacement"),
    ("always-with-replacement", "replacement=replacement", "replacement=True"),
    ("judged-as-picked", "torch.cat(laws) if laws else None", "None"),
    ("law-of-the-first-candidate", "torch.cat(laws) if", "laws[0][:1].expand(len(tree), -1) if"),
    ("target-keeps-the-first-nodes", " cache.keep(len(tokens), path)", " cache.crop(len(tokens) + len(path))"),
    ("drafter-keeps-the-first-nodes", "[node for node in path if node < read]", "range(min(read, len(path)))"),
    ("drafter-forgets-the-path", "[node for node in path if node < read]", "[]"),
    ("drafter-keeps-its-tree", "[node for node in path if node < read]", "range(read)"),
    ("one-draft-pass-counted", "draft_passes=len(fitting)", "draft_passes=1"),
    ("every-node-a-draft-pass", "draft_passes=len(fitting)", "draft_passes=len(tree)"),
    ("nodes-placed-in-a-row", "len(cache) + depths", "len(cache) + torch.arange(len(depths))"),
    ("branches-see-each-other", ", visible=visible))", "))"),
    ("guesses-before-the-prompt-is-read", " if result.steps else ()", ""),
]

PROMPT = [5, 3, 8, 1]
P = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
Q = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
both_ways = pytest.mark.parametrize("replacement", [False, True])


@pytest.fixture
def one_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run ends after its first tree, which is that of the second step: the first one reads the prompt."""

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
        for more, share in rest.items():
            key = (*text, *more)[:length]
            found[key] = found.get(key, 0.0) + chance * share
    return found


@pytest.mark.usefixtures("one_tree")
@both_ways
@pytest.mark.parametrize(("vocab", "widths"), [(3, (3,)), (3, (2, 1)), (2, (2, 2)), (2, (1, 2)), (2, (2, 1, 1))])
def test_a_step_has_the_law_of_the_target(vocab: int, widths: tuple[int, ...], *, replacement: bool) -> None:
    target, own = flat_model(vocab), {"drafter": language_model(vocab, seed=170, layers=1), "widths": widths}
    law = exact_law(lambda s: generate(target, [0, 1], 9, sampler=s, replacement=replacement, **own))
    length = len(widths) + 2
    assert max(map(len, law)) == length
    assert (min(map(len, law)) < length) == (replacement or set(widths) != {vocab})  # all tokens tried: one is kept
    wanted = autoregressive_law(target, [0, 1], length)
    assert total_variation(completed(law, target, [0, 1], length), wanted) < 1e-12


@both_ways
def test_several_steps_have_the_law_of_the_target(*, replacement: bool) -> None:
    target, own = flat_model(2), {"drafter": language_model(2, seed=170, layers=1), "widths": (2,)}
    law = exact_law(lambda s: generate(target, [0, 1], 4, sampler=s, replacement=replacement, **own))
    assert total_variation(law, autoregressive_law(target, [0, 1], 4)) < 1e-12


def with_kept(result: Generation) -> Generation:
    return Generation([result.steps[-1].kept, *result.tokens])


@pytest.mark.usefixtures("one_tree")
@both_ways
def test_one_candidate_for_each_place_is_speculative_sampling(*, replacement: bool) -> None:
    target, drafter = flat_model(), language_model(3, seed=170, layers=1)
    own: dict[str, Any] = {"drafter": drafter, "widths": (1, 1), "replacement": replacement}
    found = exact_law(lambda s: with_kept(generate(target, [0, 1], 9, sampler=s, **own)))
    wanted: Law = {}
    for (token,), chance in autoregressive_law(target, [0, 1], 1).items():

        def single(s: Sampler, prompt: tuple[int, ...] = (0, 1, token)) -> Generation:
            return with_kept(speculative_sampling_chen.generate(target, prompt, 9, sampler=s, drafter=drafter, gamma=2))

        for (kept, *text), share in exact_law(single).items():
            wanted[kept, token, *text] = chance * share
    assert total_variation(found, wanted) < 1e-12


def drawn(q: Tensor, count: int, *, replacement: bool) -> Iterator[tuple[tuple[int, ...], float, list[Tensor]]]:
    """All draws of `count` candidates with their chances, and the law that each was drawn from, by enumeration."""
    for tokens in product(range(len(q)), repeat=count):
        if replacement:
            yield tokens, float(q[list(tokens)].prod()), [q] * count
        elif len(set(tokens)) == count:
            laws = [q]
            for token in tokens[:-1]:
                left = laws[-1].clone()
                left[token] = 0
                laws.append(left / left.sum())
            yield tokens, float(torch.stack(laws)[range(count), list(tokens)].prod()), laws


def kept_at_a_node(p: Tensor, q: Tensor, count: int, *, replacement: bool) -> float:
    """The chance that one of `count` candidates is kept, in closed form."""
    chance = 0.0
    for tokens, share, laws in drawn(q, count, replacement=replacement):
        rest, fails = p, 1.0
        for token, law in zip(tokens, laws, strict=True):
            fails *= 1 - min(1.0, float(rest[token] / law[token]))
            rest = residual(rest, law)
        chance += share * (1 - fails)
    return chance


def test_the_chance_to_keep_a_candidate_in_small_numbers() -> None:
    """One candidate: sum of min(p, q) = .4 + .3 + .15 + .05.

    A second one is judged against the residual, which is (0, 0, .5, .5). Drawn from q = (.5, .3, .15, .05) again, it is
    kept with chance .15 + .05. Without replacement only a can have been rejected, so it is drawn from (.6, .3, .1) of
    b, c and d: .3 + .1.
    """
    assert kept_at_a_node(P, Q, 1, replacement=True) == pytest.approx(0.9)
    assert kept_at_a_node(P, Q, 2, replacement=True) == pytest.approx(0.9 + 0.1 * 0.2)
    assert kept_at_a_node(P, Q, 2, replacement=False) == pytest.approx(0.9 + 0.1 * 0.4)


@pytest.mark.usefixtures("one_tree")
@both_ways
def test_a_step_keeps_a_candidate_as_often_as_the_closed_form_says(*, replacement: bool) -> None:
    target, drafter = flat_model(), language_model(3, seed=170, layers=1)
    own: dict[str, Any] = {"drafter": drafter, "widths": (2,), "replacement": replacement}
    law = exact_law(lambda s: with_kept(generate(target, [0, 1], 9, sampler=s, **own)))
    found, wanted = sum(chance for (kept, *_), chance in law.items() if kept), 0.0
    for (token,), chance in autoregressive_law(target, [0, 1], 1).items():
        p, q = (model([0, 1, token])[-1].softmax(-1).detach() for model in (target, drafter))
        wanted += chance * kept_at_a_node(p, q, 2, replacement=replacement)
    assert found == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("count", [2, 3])
def test_candidates_that_differ_are_kept_more_often_than_candidates_that_may_repeat(count: int) -> None:
    """On random laws; naive sampling, which draws from p and looks for a candidate that carries it, keeps least."""
    generator = torch.Generator().manual_seed(count)
    for _ in range(20):
        p, q = torch.rand(2, 4, generator=generator, dtype=torch.float64).pow(2).unbind()
        p, q = p / p.sum(), q / q.sum()
        different, repeated = (kept_at_a_node(p, q, count, replacement=way) for way in (False, True))
        assert different >= repeated - 1e-12
        assert repeated >= kept_at_a_node(p, q, 1, replacement=True) - 1e-12
        for way, kept in ((False, different), (True, repeated)):
            naive = sum(share * float(p[[*set(tokens)]].sum()) for tokens, share, _ in drawn(q, count, replacement=way))
            assert naive <= kept + 1e-12


def test_candidates_drawn_without_replacement_and_judged_as_drawn_again_give_another_law() -> None:
    def first_token(sampler: Sampler, *, updated: bool) -> Generation:
        (guesses,), (laws,) = siblings(sampler, Q.log()[None], 2)
        tree = Tree()
        for token in guesses.tolist():
            tree.add(token)
        path, extra = verify_tree(sampler, tree, P.repeat(3, 1), laws if updated else Q.repeat(2, 1))
        return Generation([*(tree.tokens[node] for node in path), extra][:1])

    wanted = {(token,): float(P[token]) for token in range(4)}
    assert total_variation(exact_law(lambda s: first_token(s, updated=True)), wanted) < 1e-12
    # a is rejected with chance .1; then c or d is kept, or b rejected, and (.35, .45) / .8 is left of c and d.
    wrong = exact_law(lambda s: first_token(s, updated=False))
    assert [wrong[token,] for token in range(4)] == pytest.approx(
        [0.4, 0.3, 0.15 + 0.1 * (0.3 + 0.6 * 0.4375), 0.05 + 0.1 * (0.1 + 0.6 * 0.5625)]
    )


def test_picked_candidates_judged_as_drawn_give_the_law_that_the_docstring_says() -> None:
    assert list(picked_candidates().published) == pytest.approx([0.64, 0, 0.24, 0.12])
    assert list(picked_candidates().ours) == pytest.approx(P.tolist())


def test_a_node_has_no_more_children_than_its_law_has_tokens() -> None:
    own: dict[str, Any] = {"drafter": language_model(11, seed=5), "widths": (3,)}
    result = generate(varied_model(), PROMPT, 9, sampler=Sampler(top_k=2), **own)
    assert {len(step.drafted) for step in result.steps[1:]} == {2}


def test_greedy_candidates_are_the_best_tokens_and_with_replacement_all_the_same() -> None:
    target, drafter = varied_model(), language_model(11, seed=5)
    own: dict[str, Any] = {"drafter": drafter, "sampler": Sampler(0), "widths": (3,)}
    first = generate(target, PROMPT, 1, **own).tokens
    best = drafter([*PROMPT, *first])[-1].topk(3).indices.tolist()
    assert generate(target, PROMPT, 4, **own).steps[1].drafted == best
    assert generate(target, PROMPT, 4, replacement=True, **own).steps[1].drafted == best[:1] * 3


@both_ways
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("guess", ["another", "the target"])
def test_both_caches_keep_the_accepted_path_alone(
    temperature: float, guess: str, monkeypatch: pytest.MonkeyPatch, *, replacement: bool
) -> None:
    """Each time the drafter begins, its cache holds what a fresh pass over the text would have made; the target too."""
    target = varied_model()
    drafter = target if guess == "the target" else language_model(11, seed=5)
    held = watched(monkeypatch, multi, target)
    own: dict[str, Any] = {"drafter": drafter, "widths": (2, 2, 1), "replacement": replacement}
    result = generate(target, PROMPT, 21, sampler=Sampler(temperature, seed=1), **own)
    assert {step.kept for step in result.steps} >= ({0, 3} if guess == "the target" else {0})
    assert held[:2] == [(0, 4), (0, 5)]  # nothing is drafted before the prompt is read
    # Of a path the last level was not read; the extra token never is.
    for step, (length, tokens) in zip(result.steps[1:], held[2:], strict=False):
        assert tokens - length == (2 if step.kept == 3 else 1)


def test_a_second_candidate_can_be_the_one_that_is_kept() -> None:
    """The drafter's second choice is the target's first: the path is then no prefix of the tree."""
    target = varied_model()

    class SecondBest(LanguageModel):
        def logits(self, x: Tensor) -> Tensor:
            found = super().logits(x)
            best = found.topk(2).indices
            return found.scatter(-1, best, found.gather(-1, best.flip(-1)))

    drafter = SecondBest(target.shape).double()
    drafter.load_state_dict(target.state_dict())
    own: dict[str, Any] = {"drafter": drafter, "sampler": Sampler(0)}
    wide, narrow = (generate(target, PROMPT, 21, widths=widths, **own) for widths in ((2, 2, 2), (1, 1, 1)))
    assert wide.tokens == narrow.tokens
    assert [step.kept for step in narrow.steps] == [0] * 21
    assert [step.kept for step in wide.steps] == [0] + [3] * 5
    assert [step.draft_passes for step in wide.steps] == [0] + [3] * 5
    assert [len(step.drafted) for step in wide.steps] == [0] + [14] * 5
    assert wide.steps[1].parents == [-1, -1, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


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
    result = generate(target, PROMPT, 20, drafter=drafter, sampler=Sampler(0), widths=(2, 1, 1))
    assert result.tokens == generate(free, PROMPT, 20, drafter=free, sampler=Sampler(0), widths=(2, 1, 1)).tokens
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
    assert defaults_of(importlib.import_module(multi.__name__)) == {
        "generate.widths": (4, 2, 2),
        "generate.replacement": False,
    }
