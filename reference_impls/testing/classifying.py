"""Suite `classify`: an answer that may come from an early layer, `predict(model, tokens, *, …) -> Step`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from reference_impls.testing.accounting import untouched
from reference_impls.testing.case import Scene
from reference_impls.testing.checks import Check, Subject, Suite, counted, later, require
from reference_impls.testing.early_exits import exits_of
from reference_impls.testing.parallel import own_model
from reference_impls.testing.refusals import REFUSED, refuses, values

TEXTS = ([5, 3, 8, 1], [2], [7, 7, 0, 4, 9, 6, 2], [10, 1, 1], [6, 9])


def _blocks(model: Any) -> Any:
    return model.encoder if hasattr(model, "encoder") else model.blocks


def _predict(subject: Subject, model: Any, text: list[int], exit_: Mapping[str, Any]) -> tuple[Any, list[int]]:
    """The answer, and which layers were run for it, by how often attention began in each."""
    blocks = {str(layer): block for layer, block in enumerate(_blocks(model))}
    with counted(**blocks) as calls:
        found = subject.generate(model, list(text), **subject.options(Scene(model, text), **exit_))
    return found, [calls[name] for name in blocks]


def _runs(subject: Subject) -> Iterator[tuple[Any, list[int], int, Any, list[int]]]:
    """Model, text, number of the exit setting, answer and layers run, from the earliest exit to the last."""
    for seed in range(3):
        model = own_model(subject, seed)
        for number, exit_ in enumerate(exits_of(subject)):
            for text in TEXTS:
                yield model, text, number, *_predict(subject, model, text, exit_)


@torch.inference_mode()
def _whole(subject: Subject) -> None:
    last = len(exits_of(subject)) - 1
    for model, text, number, found, _ in _runs(subject):
        if number == last:
            wanted, depth = [int(model(text).flatten(end_dim=-2)[-1].argmax())], len(_blocks(model))
            require(found.emitted == wanted, f"the answer is {found.emitted}, the whole model's is {wanted} for {text}")
            require(found.layers == [depth], f"{found.layers} layers were used for {text}, and not all {depth}")


def _layers(subject: Subject) -> None:
    for _, text, _, found, ran in _runs(subject):
        require(len(found.layers) == 1, f"one number of layers is due for one answer, and the trace has {found.layers}")
        wanted = [int(layer < found.layers[0]) for layer in range(len(ran))]
        require(ran == wanted, f"the layers ran {ran} times, and the trace says {found.layers[0]} for {text}")


def _early(subject: Subject) -> None:
    used: dict[int, int] = {}
    for _, _, number, found, _ in _runs(subject):
        used[number] = used.get(number, 0) + found.layers[0]
    first, last = used[0], used[len(used) - 1]
    require(first < last, f"the earliest exit uses {first} layers, the last one {last}")


def _untouched(subject: Subject) -> None:
    model, text = own_model(subject), [5, 3, 8]
    own = subject.options(Scene(model, text))
    with untouched(model=model, **own):
        first, again = (subject.generate(model, text, **own) for _ in range(2))
    require(first.emitted == again.emitted and first.layers == again.layers, "two calls gave different answers")
    require(text == [5, 3, 8], f"the text was changed to {text}")


def _bad_texts(subject: Subject) -> None:
    for text in ([], [5, 11], [-1]):
        model = own_model(subject)
        own = subject.options(Scene(model, [5]))
        refuses(lambda m=model, t=text, o=own: subject.generate(m, t, **o), f"the text {text}")  # type: ignore[misc]


def _bad_weights(subject: Subject) -> None:
    for exit_ in exits_of(subject):
        model = own_model(subject)
        for parameter in model.parameters():
            nn.init.constant_(parameter, float("nan"))
        own = subject.options(Scene(model, [5]), **exit_)
        refuses(lambda m=model, o=own: subject.generate(m, [5, 3], **o), f"a model whose logits are NaN, at {exit_},")  # type: ignore[misc]


def _bad_option(subject: Subject, name: str, value: Any) -> None:
    model = own_model(subject)
    own = subject.options(Scene(model, [5]), **{name: value})
    refuses(lambda: subject.generate(model, [5, 3], **own), f"{name} = {value!r}")


def classify_checks(subject: Subject) -> Iterator[Check]:
    """What holds for every method that answers from a layer of its choice."""
    tests: dict[str, tuple[str, Callable[[Subject], None]]] = {
        "whole-model": ("Where nothing leaves early, the answer is the whole model's, from all layers.", _whole),
        "layers": ("The layers in the trace are those that were run, each once.", _layers),
        "leaves-early": ("The earliest exit uses fewer layers than the last.", _early),
        "untouched": ("Weights, text and the global random state stay; a second call gives the same.", _untouched),
        "text": ("A text that is empty or not of the vocabulary is refused.", _bad_texts),
        "logits": ("A model that gives NaN is reported.", _bad_weights),
    }
    for name, (sentence, test) in tests.items():
        yield Check(name, sentence, later(test, subject))
    for name, value in values(subject, REFUSED):
        yield Check(f"{name}={value}", f"{name} = {value} is refused.", later(_bad_option, subject, name, value))


CLASSIFY = Suite("classify", classify_checks)
