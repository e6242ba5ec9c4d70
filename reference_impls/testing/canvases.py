"""Suite `canvas`: a text of fixed length is filled in some passes, `generate(model, prompt, length, *, steps, …)`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from torch import nn

from reference_impls.core.sampling import Sampler
from reference_impls.testing.accounting import untouched
from reference_impls.testing.case import Scene
from reference_impls.testing.checks import Check, Subject, Suite, counted, later, require, total, trace
from reference_impls.testing.parallel import own_model
from reference_impls.testing.refusals import refuses, values
from reference_impls.testing.tiny import MASK

PROMPTS = ([5, 3, 8], [4])
LENGTHS = (1, 2, 6)
REFUSED: dict[str, tuple[Any, ...]] = {"length": (-1,), "steps": (0, -1)}


def _fill(subject: Subject, model: Any, prompt: list[int], length: int, seed: int = 0, **given: Any) -> Any:
    """What the subject makes of a canvas of this length, with a sampler of this seed where it takes one."""
    own = subject.options(Scene(model, prompt), **given)
    if subject.takes("sampler"):
        own["sampler"] = Sampler(seed=seed)
    return subject.generate(model, prompt, length, **own)


def _runs(subject: Subject) -> Iterator[tuple[Any, list[int], int, int]]:
    """Model, prompt, length and steps of every run: from one pass to one for each place."""
    for seed in range(2):
        model = own_model(subject, seed)
        for prompt in PROMPTS:
            yield from ((model, prompt, length, steps) for length in LENGTHS for steps in range(1, length + 1))


def _passes(subject: Subject) -> None:
    for model, prompt, length, steps in _runs(subject):
        with counted(model=first_block(model)) as calls:
            result = _fill(subject, model, prompt, length, steps=steps)
        ran = calls["model"]
        require(ran == steps, f"{steps} steps were asked for, for {length} places, and the model ran {ran} passes")
        require(total(result, "passes") == ran, f"the model ran {ran} passes, the trace says {total(result, 'passes')}")


def first_block(model: Any) -> Any:
    """The block whose passes are counted: the first of a decoder, or of the only stack."""
    return (model.decoder if hasattr(model, "decoder") else model.blocks)[0]


def _filled(subject: Subject) -> None:
    for model, prompt, length, steps in _runs(subject):
        tokens = _fill(subject, model, prompt, length, steps=steps).tokens
        require(len(tokens) == length, f"{length} places were asked for, and {len(tokens)} tokens came: {tokens}")
        mask = getattr(model, "mask_id", MASK)
        require(mask not in tokens, f"the mask is left in {tokens}, after {steps} steps for {length} places")
        inside = all(0 <= token < model.shape.vocab for token in tokens)
        require(inside, f"{tokens} holds a token outside the vocabulary")


@contextmanager
def _embedded(model: Any) -> Iterator[list[list[int]]]:
    """The texts that a model is shown while inside."""
    shown: list[list[int]] = []
    embed = model.embed

    def noted(tokens: Any, *rest: Any) -> Any:
        shown.append([int(token) for token in tokens])
        return embed(tokens, *rest)

    model.embed = noted
    try:
        yield shown
    finally:
        del model.embed


def _prompt(subject: Subject) -> None:
    for model, prompt, length, steps in _runs(subject):
        given = list(prompt)
        with _embedded(model) as shown:
            _fill(subject, model, given, length, steps=steps)
        require(given == prompt, f"the prompt {prompt} was changed to {given}")
        require(bool(shown) and shown[0][: len(prompt)] == prompt, f"the model was not shown the prompt {prompt}")
        whole = [text for text in shown if len(text) == len(shown[0])]  # others follow what a cache holds
        kept = all(text[: len(prompt)] == prompt for text in whole)
        require(kept, f"the prompt {prompt} did not stay as it was on the canvas: {shown}")


def _one_by_one(subject: Subject) -> None:
    for model, prompt, length, steps in _runs(subject):
        if steps == length:
            result = _fill(subject, model, prompt, length, steps=steps)
            masked = [step.masked for step in trace(result, "masked", "canvas")]
            left = [len(holes) for holes in masked]
            wanted = list(range(length, 0, -1))
            require(left == wanted, f"{length} steps for {length} places should leave {wanted} holes, and left {left}")
            nested = all(set(after) < set(before) for before, after in pairwise(masked))
            require(nested, f"a place that was filled is a hole again: {masked}")


def _canvas(subject: Subject) -> None:
    for model, prompt, length, steps in _runs(subject):
        result = _fill(subject, model, prompt, length, steps=steps)
        found = trace(result, "canvas", "emitted")
        require(bool(found), f"the trace of {steps} steps is empty")
        require(found[-1].canvas == result.tokens, f"the last canvas {found[-1].canvas} is not {result.tokens}")
        emitted = [token for step in found for token in step.emitted]
        require(emitted == result.tokens, f"the steps emitted {emitted}, the text is {result.tokens}")


def _nothing(subject: Subject) -> None:
    result = _fill(subject, own_model(subject), [5, 3], 0, steps=1)
    require(result.tokens == [], f"a text of no token was asked for, and {result.tokens} came")
    require(not getattr(result, "steps", None), "there are steps although no token was asked for")


def _untouched(subject: Subject) -> None:
    model = own_model(subject)
    own = subject.options(Scene(model, [5, 3]))
    with untouched(model=model, **own):
        first, again = (_fill(subject, model, [5, 3], 6, seed=4, steps=3, **own).tokens for _ in range(2))
    require(first == again, "the same seed gave another text")


def _seeds(subject: Subject) -> None:
    texts = {tuple(_fill(subject, own_model(subject), [5, 3], 6, seed, steps=3).tokens) for seed in range(6)}
    require(len(texts) > 1, "six seeds gave the same text, so the sampler has no say")


def _bad_prompts(subject: Subject) -> None:
    for prompt in ([5, 11], [-1]):
        refuses(lambda prompt=prompt: _fill(subject, own_model(subject), prompt, 3, steps=2), f"the prompt {prompt}")  # type: ignore[misc]


def _bad_weights(subject: Subject) -> None:
    model = own_model(subject)
    nn.init.constant_(model.norm.weight, float("nan"))
    refuses(lambda: _fill(subject, model, [5, 3], 3, steps=2), "a model whose logits are NaN")


def _bad_option(subject: Subject, name: str, value: Any) -> None:
    given = {"length": 3, "steps": 2, name: value}
    refuses(lambda: _fill(subject, own_model(subject), [5, 3], given.pop("length"), **given), f"{name} = {value!r}")


def canvas_checks(subject: Subject) -> Iterator[Check]:
    """What holds for every method that fills a canvas of a fixed length."""
    tests: dict[str, tuple[str, Callable[[Subject], None]]] = {
        "passes": ("The model runs as many passes as there are steps, and as the trace says.", _passes),
        "filled": ("The text is as long as asked for, no mask is left, and every token is of the vocabulary.", _filled),
        "prompt": ("The model sees the prompt in front of the canvas, and nobody changes it.", _prompt),
        "one-by-one": ("As many steps as places fill one place a pass, and no place twice.", _one_by_one),
        "canvas": ("The trace sums up to the text, and its last canvas is the text.", _canvas),
        "no-place": ("A canvas without places is empty, and takes no step.", _nothing),
        "untouched": ("Weights and global random state stay; the same seed gives the same text.", _untouched),
        "bad-prompt": ("A prompt that is not of the vocabulary is refused.", _bad_prompts),
        "logits": ("A model that gives NaN is reported.", _bad_weights),
    }
    if subject.takes("sampler"):
        tests["seeds"] = ("Other seeds give other texts.", _seeds)
    for name, (sentence, test) in tests.items():
        yield Check(name, sentence, later(test, subject))
    for name, value in values(subject, REFUSED):
        yield Check(f"{name}={value}", f"{name} = {value} is refused.", later(_bad_option, subject, name, value))


CANVAS = Suite("canvas", canvas_checks)
