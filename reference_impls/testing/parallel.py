"""Suite `non-autoregressive`: passes as asked for, a canvas without holes, an honest trace."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from reference_impls.core.generation import Generation
from reference_impls.testing.accounting import refuses
from reference_impls.testing.checks import Check, Generate, Suite, counted, later, require, takes
from reference_impls.testing.tiny import KitError, hints, module_class, sequence_model, variants

SOURCES = ([5, 3, 8], [4], [7, 7, 10, 9, 6, 3, 5])
PASSES = (1, 2, 3, 5, 10)


def _model(generate: Generate, seed: int = 7) -> Any:
    kind = module_class(hints(generate).get("model"))
    if kind is None:
        raise KitError("generate has no `model` annotated with a class made from a Shape: annotate it")
    return sequence_model(kind, seed=seed)


def _given(generate: Generate) -> dict[str, Any]:
    """What else a method needs: an autoregressive `teacher`, random as the model is."""
    kind = module_class(hints(generate).get("teacher"))
    return {} if kind is None else {"teacher": sequence_model(kind, seed=11)}


def _runs(generate: Generate) -> Iterator[tuple[Any, Generation, int, int]]:
    """Model, result, number of decoder passes counted, and number asked for (0: the method has no such option)."""
    for choice in variants(generate):
        own = _given(generate) | choice
        for seed in range(3):
            model = _model(generate, seed)
            models = {"model": model, **own}.items()
            decoders = {name: one.decoder[0] for name, one in models if hasattr(one, "decoder")}
            for source in SOURCES:
                for asked in PASSES if takes(generate, "iterations") else (0,):
                    more = {"iterations": asked} if asked else {}
                    with counted(**decoders) as calls:
                        result = generate(model, list(source), **own, **more)
                    yield model, result, sum(calls.values()), asked


def _passes(generate: Generate) -> None:
    for _, result, ran, asked in _runs(generate):
        require(ran == result.passes, f"the decoder ran {ran} passes, the trace says {result.passes}")
        require(not asked or ran == asked, f"{asked} iterations were asked for, the decoder ran {ran} passes")


def _no_hole(generate: Generate) -> None:
    for model, result, _, _ in _runs(generate):
        special = {getattr(model, name) for name in ("pad", "mask_id") if hasattr(model, name)}
        left = special.intersection(result.tokens)
        require(not left, f"the special tokens {sorted(left)} are left in {result.tokens}")
        inside = all(0 <= token < model.shape.vocab for token in result.tokens)
        require(inside, f"{result.tokens} holds a token outside the vocabulary")
        require(1 <= len(result.tokens) <= model.longest, f"the text has {len(result.tokens)} tokens")


def _trace(generate: Generate) -> None:
    for _, result, _, _ in _runs(generate):
        emitted = [token for step in result.steps for token in step.emitted]
        require(emitted == result.tokens, f"the steps emitted {emitted}, the text is {result.tokens}")
        canvases = [step.canvas for step in result.steps if step.canvas]
        if canvases:
            require(canvases[-1] == result.tokens, f"the last canvas {canvases[-1]} is not the text {result.tokens}")
        json.dumps(result.to_dict())


def _more_passes(generate: Generate) -> None:
    """Some run must change a token after the first pass, else the further passes are idle."""
    changed = 0
    for _, result, _, _ in _runs(generate):
        canvases = [step.canvas for step in result.steps]
        changed += any(a != b for a, b in pairwise(canvases))
    require(changed > 0, "no pass after the first has changed a token in any run")


def _untouched(generate: Generate) -> None:
    model, source = _model(generate), [5, 3, 8]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    states = torch.get_rng_state(), random.getstate()
    for choice in variants(generate):
        results = [generate(model, source, **_given(generate), **choice) for _ in range(2)]
        require(results[0] == results[1], "two runs gave different texts or traces")
    require(torch.equal(states[0], torch.get_rng_state()), "torch's global random state was used")
    require(states[1] == random.getstate(), "Python's global random state was used")
    require(source == [5, 3, 8], f"the source was changed to {source}")
    same = all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    require(same, "the weights were changed")


def _bad_sources(generate: Generate) -> None:
    for source in ([], [5, 11], [-1], [3] * 10):
        model = _model(generate)
        refuses(lambda model=model, source=source: generate(model, source), f"the source {source}")  # type: ignore[misc]


def _bad_weights(generate: Generate) -> None:
    model = _model(generate)
    nn.init.constant_(model.norm.weight, float("nan"))
    for choice in variants(generate):
        own = _given(generate) | choice
        refuses(lambda own=own: generate(model, [5, 3, 8], **own), "a model whose logits are NaN")  # type: ignore[misc]


def _bad_option(generate: Generate, name: str, value: Any) -> None:
    own = _given(generate) | {name: value}
    refuses(lambda: generate(_model(generate), [5, 3, 8], **own), f"{name} = {value!r}")


def _strange_teacher(generate: Generate) -> None:
    kind = module_class(hints(generate).get("teacher"))
    assert kind is not None
    for choice in variants(generate):
        own = {"teacher": sequence_model(kind, vocab=10)} | choice
        refuses(lambda own=own: generate(_model(generate), [5, 3, 8], **own), "a teacher of another vocabulary")  # type: ignore[misc]


def parallel_checks(generate: Generate) -> Iterator[Check]:
    """What holds for every method that fills a canvas."""
    tests: dict[str, tuple[str, Callable[[Generate], None]]] = {
        "passes": ("The decoder runs as many passes as asked for, and as the trace says.", _passes),
        "no-hole": ("No mask and no padding is left, and every token is of the vocabulary.", _no_hole),
        "trace": ("The trace sums up to the text, and the last canvas is the text.", _trace),
        "untouched": ("Weights, source and global random state stay; a second run gives the same.", _untouched),
        "sources": ("A source that is empty, too long or not of the vocabulary is refused.", _bad_sources),
        "logits": ("A model that gives NaN is reported.", _bad_weights),
    }
    if takes(generate, "iterations"):
        tests["refinement"] = ("Passes after the first change tokens.", _more_passes)
    if takes(generate, "teacher"):
        tests["teacher"] = ("A teacher of another vocabulary is refused.", _strange_teacher)
    for name, (sentence, test) in tests.items():
        yield Check(name, sentence, later(test, generate))
    for name, values in {"iterations": (0, -1), "candidates": (0, 99), "beam": (0, -1), "samples": (0,)}.items():
        if takes(generate, name):
            for value in values:
                yield Check(
                    f"{name}={value}", f"{name} = {value} is refused.", later(_bad_option, generate, name, value)
                )


NON_AUTOREGRESSIVE = Suite("non-autoregressive", parallel_checks)
