"""What is peculiar to LLMA: which n-gram is looked up, where, what is copied, and that no copy changes the law."""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest
import torch
from defaults import defaults_of

from reference_impls.baselines.autoregressive import generate as autoregressive
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding.llma import Index, generate
from reference_impls.testing import Scene
from reference_impls.testing.laws import autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import Foresight, flat_model, table_model, varied_model

MUTANTS = [
    ("shortest-match-first", "range(longest, shortest - 1, -1)", "range(shortest, longest + 1)"),
    ("shortest-is-never-tried", "range(longest, shortest - 1, -1)", "range(longest, shortest, -1)"),
    (
        "copy-begins-with-the-match",
        "list(self.references[number][place : ",
        "list(self.references[number][place - 1 : ",
    ),
    (
        "last-occurrence",
        "self.behind.setdefault(tuple(text[place - n : place]), (number, place))",
        "self.behind[tuple(text[place - n : place])] = (number, place)",
    ),
    ("always-the-first-reference", "(number, place))", "(0, place))"),
    ("end-of-a-reference-indexed", "range(n, len(text))", "range(n, len(text) + 1)"),
    ("prompt-is-a-key", "index.copy(result.tokens,", "index.copy(tokens,"),
    ("prompt-is-always-the-reference", "[prompt] if references is None else references", "[prompt]"),
    ("cache-keeps-the-copy", "cache.crop(len(tokens) - 1)", "cache.crop(len(tokens) - 1 + len(draft) - kept)"),
    ("soft-law-of-a-copy", "one_hot(copied, target.shape.vocab, p.dtype)", "p[:-1]"),
    ("kept-is-the-copy", "Step(emitted, draft, kept=kept)", "Step(emitted, draft, kept=len(draft))"),
    ("tokens-of-any-tokenizer", "any(not 0 <= token < vocab", "any(not 0 <= token <= vocab"),
]


def looked_up(references: list[list[int]], written: list[int], shortest: int, longest: int, gamma: int) -> list[int]:
    """The copy, by looking at every place of every reference, for one length of the match after the other."""
    for n in range(longest, shortest - 1, -1):
        for text in references:
            for place in range(n, len(text)):
                if len(written) >= n and text[place - n : place] == written[len(written) - n :]:
                    return text[place : place + gamma]
    return []


@pytest.mark.parametrize("seed", range(40))
def test_the_copy_is_that_of_a_scan(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    references = [torch.randint(3, (n,), generator=generator).tolist() for n in (0, 1, 2, 9, 25)]
    hits = 0
    for shortest, longest in ((1, 5), (2, 3), (4, 4)):
        index = Index(references, shortest, longest)
        for length in (0, 1, 3, 12):
            written = torch.randint(3, (length,), generator=generator).tolist()
            for gamma in (0, 1, 6):
                wanted = looked_up(references, written, shortest, longest, gamma)
                assert index.copy(written, gamma) == wanted
                hits += bool(wanted)
    assert hits > 5


def test_the_longest_match_wins_then_the_first_reference_then_the_first_place() -> None:
    index = Index([[1, 2, 7, 7], [5, 1, 2, 8, 1, 2, 9]], shortest=1, longest=3)
    assert index.copy([4, 1, 2], 9) == [7, 7]  # two tokens match in both
    assert index.copy([5, 1, 2], 9) == [8, 1, 2, 9]  # three in the second only
    assert index.copy([3, 8], 2) == [1, 2]
    assert index.copy([8, 3], 9) == []
    assert Index([[1, 2, 7, 7]], shortest=2, longest=3).copy([4, 2], 9) == []  # one token is too few


def test_the_end_of_a_reference_does_not_hide_what_stands_elsewhere() -> None:
    """Published code takes the first occurrence of the longest n-gram, and copies nothing where the text ends there."""
    assert Index([[4, 5, 6], [4, 5, 6, 7]], shortest=1, longest=3).copy([4, 5, 6], 3) == [7]
    assert Index([[4, 5, 6], [6, 1]], shortest=1, longest=3).copy([4, 5, 6], 3) == [1]


def test_copies_cost_as_many_passes_as_they_must() -> None:
    """The first pass knows no generated token; each later one can take gamma copied tokens and one more."""
    scene = Scene(varied_model(), [5, 3, 8, 1], guess="perfect")
    text = Foresight(0, scene).tokens
    for gamma in (1, 3, 6, 30):
        run = generate(
            scene.target, scene.prompt, 21, sampler=Sampler(0), references=[[9], text[4:]], longest=25, gamma=gamma
        )
        assert run.tokens == text[4:25]
        assert run.passes == 1 + -(-20 // (gamma + 1))
        assert run.steps[0].drafted == []
        assert max(len(step.drafted) for step in run.steps) == min(gamma, len(text) - 5)


def test_the_prompt_is_no_key_but_without_references_it_is_copied_from() -> None:
    """A model that counts: the first new token has nothing before it that was generated, the second has."""
    target = table_model([[float(token == (last + 1) % 6) for token in range(6)] for last in range(6)])
    prompt = [0, 1, 2, 3, 4, 5, 0, 1]
    run = generate(target, prompt, 7, sampler=Sampler(0), gamma=3)
    assert run.tokens == [2, 3, 4, 5, 0, 1, 2]
    assert [step.drafted for step in run.steps] == [[], [3, 4, 5], [1]]
    again = generate(target, prompt, 7, sampler=Sampler(0), gamma=3, references=[prompt])
    assert again.steps == run.steps
    none = generate(target, prompt, 7, sampler=Sampler(0), gamma=3, references=[])
    assert none.tokens == run.tokens
    assert [step.drafted for step in none.steps] == [[]] * 7


@pytest.mark.parametrize("references", [[], [[]], [[7]], [[9, 9, 9, 9]]])
def test_without_a_hit_every_step_is_an_ordinary_one(references: list[list[int]]) -> None:
    """`[7]` holds a token, but nothing behind it."""
    target, prompt = varied_model(), [5, 3, 8, 1]
    wanted = autoregressive(target, prompt, 4, sampler=Sampler(0)).tokens
    assert 9 not in wanted
    run = generate(target, prompt, 4, sampler=Sampler(0), references=references)
    assert run.tokens == wanted
    assert [(step.drafted, step.kept, step.passes) for step in run.steps] == [([], 0, 1)] * 4


def test_the_end_of_the_text_inside_a_copy_is_the_last_token() -> None:
    target = table_model([[float(token == (last + 1) % 6) for token in range(6)] for last in range(6)])
    run = generate(target, [0, 1], 9, sampler=Sampler(0), references=[[2, 3, 4, 5, 0]], eos=4)
    assert run.tokens == [2, 3, 4]
    assert run.steps[-1].drafted == [3, 4, 5, 0]
    assert run.steps[-1].kept == 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("references", [[[0, 1, 2, 0]], [[0, 0], [1, 1, 2], [2, 2]], [[2, 1, 0, 1, 2]]])
def test_sampling_keeps_the_law_whatever_is_copied(references: list[list[int]], dtype: torch.dtype) -> None:
    """Our extension: the paper decodes greedily."""
    target = flat_model().to(dtype)
    drafted = 0

    def run(sampler: Sampler):  # type: ignore[no-untyped-def]
        nonlocal drafted
        found = generate(target, [0, 1], 3, sampler=sampler, references=references, gamma=1)
        drafted += sum(len(step.drafted) for step in found.steps)
        return found

    law = exact_law(run)
    assert drafted > 0
    assert total_variation(law, autoregressive_law(target, [0, 1], 3)) < 1e-6


def test_a_pass_reads_what_is_new_and_the_copy_and_no_token_twice() -> None:
    target, read = varied_model(), list[int]()
    embed = target.embed
    target.embed = lambda tokens: (read.append(len(tokens)), embed(tokens))[1]  # type: ignore[method-assign]
    run = generate(target, [5, 3, 8, 1], 9, sampler=Sampler(0), references=[list(range(11))])
    new = [4, *(1 for _ in run.steps[1:])]
    assert read == [n + len(step.drafted) for n, step in zip(new, run.steps, strict=True)]


def test_a_text_up_to_the_targets_last_position_is_written_and_no_longer_one() -> None:
    target = varied_model()
    target.shape = replace(target.shape, positions=8)
    run = generate(target, [5, 3, 8, 1], 5, sampler=Sampler(0), references=[list(range(11)) * 2])
    assert run.tokens == autoregressive(varied_model(), [5, 3, 8, 1], 5, sampler=Sampler(0)).tokens
    with pytest.raises(ValueError, match="the target has 8 positions"):
        generate(target, [5, 3, 8, 1], 6, sampler=Sampler(0))


def test_references_are_neither_changed_nor_kept() -> None:
    references, target = [[5, 3, 8], [1, 2]], varied_model()
    first = generate(target, [5, 3], 6, sampler=Sampler(0), references=references)
    assert references == [[5, 3, 8], [1, 2]]
    assert generate(target, [5, 3], 6, sampler=Sampler(0), references=references).steps == first.steps


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shortest": 0}, "shortest is 0 and longest is 5; needed are 1 <= shortest <= longest"),
        ({"shortest": 3, "longest": 2}, "shortest is 3 and longest is 2"),
        ({"references": [[5], [11]]}, "the references hold tokens that a vocabulary of 11 lacks"),
        ({"references": [[-1]]}, "the references hold tokens"),
        ({"prompt": [5, 11]}, "^the prompt holds tokens that a vocabulary of 11 lacks"),
        ({"prompt": [5, 11], "references": [[5]]}, "token id 11 is outside the model's vocabulary of 11"),
        ({"gamma": 0}, "gamma is 0"),
    ],
)
def test_options_out_of_range_are_one_sentence(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        generate(varied_model(), limit=3, sampler=Sampler(0), **{"prompt": [5, 3]} | options)  # type: ignore[arg-type]


def test_the_smallest_and_the_largest_options_are_allowed() -> None:
    own = {"shortest": 1, "longest": 1, "gamma": 1, "references": [[0, 10]]}
    assert generate(varied_model(), [5, 3], 3, sampler=Sampler(0), **own).tokens  # type: ignore[arg-type]


def test_defaults_are_the_documented_ones() -> None:
    assert defaults_of(importlib.import_module("reference_impls.speculative_decoding.llma")) == {
        "generate.shortest": 1,
        "generate.longest": 5,
        "generate.gamma": 19,
    }
