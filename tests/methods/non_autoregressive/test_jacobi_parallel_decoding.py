"""What is peculiar to Jacobi parallel decoding: its iterates, its fixed point, and the three ways to cut blocks."""

from __future__ import annotations

import importlib
from itertools import pairwise
from typing import Any

import pytest
import torch
from defaults import defaults_of

from accelgen.measuring.published_rules import jacobi_by_index
from reference_impls.baselines.autoregressive import generate as autoregressive
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.non_autoregressive.jacobi_parallel_decoding import block_length, generate
from reference_impls.testing.laws import autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import flat_model, language_model, varied_model

MUTANTS = [
    ("token-after-the-agreement-not-final", "kept = agreement(guess, y)", "kept = max(0, agreement(guess, y) - 1)"),
    ("one-token-retired-a-pass", "kept = agreement(guess, y)", "kept = 0"),
    ("last-iterate-committed", "emitted, y = y[: kept + 1], y[kept + 1 :]", "emitted, y = y, []"),
    (
        "wrong-tokens-that-agree-later",
        "sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(",
        "sum(one == other for one, other in (zip(",
    ),
    ("iterate-forgotten", "y = y or [pad] *", "y = [pad] *"),
    ("open-tokens-left-in-the-cache", "cache.crop(len(tokens) - 1)", "pass"),
    ("cache-holds-the-newest-token", "cache.crop(len(tokens) - 1)", "cache.crop(len(tokens))"),
    ("everything-computed-again", "cache.crop(len(tokens) - 1)", "cache.crop(0)"),
    ("block-beyond-the-limit", "return min(block, limit - done)", "return block"),
    ("hybrid-never-ends-its-blocks", "if done < stretch else 1", "if done < stretch else block"),
    ("canvas-without-the-open-tokens", "[*result.tokens, *(y if go_on else [])]", "[*result.tokens]"),
    ("canvas-beyond-the-end", "*(y if go_on else [])]", "*y]"),
]

PROMPT = [5, 3, 8, 1]
LIMIT = 14
WAYS: list[dict[str, Any]] = [
    {"algorithm": "jacobi"},
    *({"algorithm": "gs-jacobi", "block": block} for block in (1, 2, 5, 99)),
    *({"algorithm": "hybrid", "block": 3, "stretch": stretch} for stretch in (0, 4, 7, 99)),
]
each_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))


def greedy(target: LanguageModel, prompt: list[int], limit: int = LIMIT) -> list[int]:
    return autoregressive(target, prompt, limit, sampler=Sampler(0)).tokens


@torch.no_grad()
def iterate(target: LanguageModel, text: list[int], y: list[int]) -> list[int]:
    """One Jacobi iteration of a whole block after `text`, without a cache."""
    return target([*text, *y])[len(text) - 1 : -1].argmax(-1).tolist()


@each_way
@pytest.mark.parametrize("prompt", [PROMPT, [2]])
def test_from_every_start_the_fixed_point_is_the_greedy_text(way: dict[str, Any], prompt: list[int]) -> None:
    target = varied_model()
    wanted = greedy(target, prompt)
    for pad in range(target.shape.vocab):
        result = generate(target, prompt, LIMIT, sampler=Sampler(0), pad=pad, **way)
        assert result.tokens == wanted
        assert result.passes <= LIMIT


@each_way
def test_the_canvases_are_the_iterates_of_whole_blocks(way: dict[str, Any]) -> None:
    """Recomputed without a cache and without retiring a token, block after block until nothing changes."""
    target = varied_model()
    steps = iter(generate(target, PROMPT, LIMIT, sampler=Sampler(0), **way).steps)
    options = {"algorithm": "gs-jacobi", "block": 16, "stretch": 64, "limit": LIMIT} | way
    done: list[int] = []
    while len(done) < LIMIT:
        y = [0] * block_length(**options, done=len(done))
        final = 0
        while final < len(y):
            y, before = iterate(target, [*PROMPT, *done], y), y
            step = next(steps)
            assert step.canvas == done + y
            same = next((i for i, (a, b) in enumerate(zip(before, y, strict=True)) if a != b), len(y))
            assert len(step.emitted) == min(same + 1, len(y)) - final
            final += len(step.emitted)
        assert iterate(target, [*PROMPT, *done], y) == y
        done += y
    assert next(steps, None) is None


def test_after_k_passes_at_least_k_tokens_are_final() -> None:
    target = varied_model()
    wanted = greedy(target, PROMPT)
    result = generate(target, PROMPT, LIMIT, sampler=Sampler(0), algorithm="jacobi")
    final = 0
    for number, step in enumerate(result.steps, start=1):
        final += len(step.emitted)
        assert final >= number
        assert step.canvas[:final] == wanted[:final]
        assert len(step.canvas) == LIMIT


@each_way
def test_final_tokens_are_not_computed_again(way: dict[str, Any]) -> None:
    target = varied_model()
    entered = []
    run = target.run

    def count(x: torch.Tensor, *given: Any, **more: Any) -> torch.Tensor:
        entered.append(len(x))
        return run(x, *given, **more)

    target.run = count  # type: ignore[method-assign]
    result = generate(target, PROMPT, LIMIT, sampler=Sampler(0), **way)
    opened = [len(step.drafted) for step in result.steps]  # all open tokens but the last are read
    assert entered == [len(PROMPT) + opened[0], *(1 + n for n in opened[1:])]
    for step, after in pairwise(result.steps):
        left = 1 + len(step.drafted) - len(step.emitted)
        assert left == 0 or len(after.drafted) == left - 1


def test_blocks_of_one_token_are_autoregressive_and_one_block_for_all_is_jacobi() -> None:
    target = varied_model()

    def run(**way: Any) -> Any:
        return generate(target, PROMPT, LIMIT, sampler=Sampler(0), **way)

    single = run(algorithm="gs-jacobi", block=1)
    assert [(step.emitted, step.drafted) for step in single.steps] == [([token], []) for token in single.tokens]
    assert run(algorithm="gs-jacobi", block=LIMIT) == run(algorithm="jacobi")
    assert run(algorithm="hybrid", block=4, stretch=LIMIT) == run(algorithm="gs-jacobi", block=4)
    assert run(algorithm="hybrid", block=4, stretch=0) == single


def test_the_hybrid_decodes_blocks_up_to_its_stretch_and_single_tokens_after_it() -> None:
    sizes, done = [], 0
    while done < 11:
        sizes.append(block_length("hybrid", block=3, stretch=8, limit=11, done=done))
        done += sizes[-1]
    assert sizes == [3, 3, 2, 1, 1, 1]


def test_a_start_that_is_right_is_confirmed_in_one_pass() -> None:
    """Most random models soon repeat one token; padding with it makes every later block right from the start."""
    target = language_model(5, seed=3)
    text = greedy(target, [0, 1], 30)
    assert len(set(text[10:])) == 1
    result = generate(target, [0, 1, *text[:10]], 20, sampler=Sampler(0), pad=text[-1], block=5)
    assert [len(step.emitted) for step in result.steps] == [5, 5, 5, 5]
    assert [step.kept for step in result.steps] == [4, 4, 4, 4]


@each_way
def test_the_end_of_the_text_closes_the_canvas(way: dict[str, Any]) -> None:
    target = varied_model()
    wanted = greedy(target, PROMPT)
    for eos in set(wanted):
        result = generate(target, PROMPT, LIMIT, sampler=Sampler(0), eos=eos, **way)
        assert result.tokens == wanted[: wanted.index(eos) + 1]
        assert result.steps[-1].canvas == result.tokens


@pytest.mark.parametrize(
    "way",
    [
        {"algorithm": "jacobi"},
        {"algorithm": "gs-jacobi", "block": 2},
        {"algorithm": "hybrid", "block": 2, "stretch": 2},
    ],
    ids=lambda way: way["algorithm"],
)
def test_sampling_keeps_the_law_of_the_target(way: dict[str, Any]) -> None:
    target = flat_model()
    for limit, settings in ((3, {}), (2, {"temperature": 1.3, "top_p": 0.85})):
        law = exact_law(lambda sampler, n=limit: generate(target, [0, 1], n, sampler=sampler, **way), **settings)
        wanted = autoregressive_law(target, [0, 1], limit, **settings)
        assert total_variation(law, wanted) < 1e-9


def test_the_published_decoder_makes_one_pass_more_than_it_reports() -> None:
    for target in (varied_model(), varied_model(5), language_model(5)):
        for length in (1, 4, 9, LIMIT):
            text, reported, passes = jacobi_by_index(target, [0, 1], length)
            own = generate(target, [0, 1], length, sampler=Sampler(0), algorithm="jacobi")
            assert own.tokens == text
            assert passes == reported + 1
            assert own.passes in (passes, passes - 1)


@pytest.mark.parametrize(
    ("way", "sentence"),
    [
        ({"algorithm": "newton"}, "algorithm is 'newton'; choose one of jacobi, gs-jacobi, hybrid"),
        ({"block": 0}, "block is 0"),
        ({"stretch": -1}, "stretch is -1"),
        ({"pad": 11}, "pad is 11; give a number from 0 to 10"),
    ],
)
def test_wrong_options_are_one_sentence(way: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        generate(varied_model(), PROMPT, 4, sampler=Sampler(0), **way)


def test_what_is_left_out_is_gauss_seidel_in_blocks_of_16() -> None:
    target, given = varied_model(), {"block": 16, "stretch": 64, "pad": 0}
    for limit in (20, 70):
        options: dict[str, Any] = {"sampler": Sampler(0)}
        assert generate(target, PROMPT, limit, **options) == generate(
            target, PROMPT, limit, algorithm="gs-jacobi", **given, **options
        )
        hybrid = generate(target, PROMPT, limit, algorithm="hybrid", **given, **options)
        assert hybrid == generate(target, PROMPT, limit, algorithm="hybrid", **options)
        assert len(hybrid.tokens) == limit


def test_logits_that_are_no_numbers_behind_the_final_tokens_are_told() -> None:
    """The first open token is well; a later one would enter the next pass as token -1."""
    target = varied_model()
    project = target.project

    def broken(features: torch.Tensor) -> torch.Tensor:
        logits = project(features)
        logits[3:] = float("nan")
        return logits

    target.project = broken  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="the target's logits for an open token are not finite"):
        generate(target, PROMPT, 8, sampler=Sampler(0), algorithm="jacobi")


def test_defaults_are_the_documented_ones() -> None:
    assert defaults_of(importlib.import_module("reference_impls.non_autoregressive.jacobi_parallel_decoding")) == {
        "generate.algorithm": "gs-jacobi",
        "generate.block": 16,
        "generate.stretch": 64,
        "generate.pad": 0,
    }
