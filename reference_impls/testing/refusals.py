"""Suite `options`: what cannot work is refused with one plain sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from reference_impls.core.sampling import Sampler
from reference_impls.testing.accounting import LIMIT, a_scene, run
from reference_impls.testing.checks import Check, Subject, Suite, ending, later, require
from reference_impls.testing.from_signature import DRAFTERS, drafting
from reference_impls.testing.tiny import broken, language_model

REFUSED: dict[str, tuple[Any, ...]] = {
    "gamma": (0, -1),
    "exit_layer": (0, 9),
    "exits": ((0, 1), (2, 1), (1, 3), (1, 1)),
}  # options that mean the same in every method; further values stand in its case


def refuses(call: Callable[[], Any], what: str) -> None:
    """Require a ValueError or a TypeError of one plain sentence."""
    try:
        call()
    except (ValueError, TypeError) as error:
        words = str(error)
        plain = "\n" not in words and len(words.split()) >= 5
        if not plain:
            raise AssertionError(f"{what} gives {words!r}, which is not one clear sentence") from error
    except Exception as error:  # whatever else it raises is what is reported
        raise AssertionError(f"{what} gives {type(error).__name__}: {error}, and not a ValueError") from error
    else:
        raise AssertionError(f"{what} is accepted without a word")


def values(subject: Subject, known: dict[str, tuple[Any, ...]]) -> Iterator[tuple[str, Any]]:
    """The options that the subject has, with each value that it must refuse."""
    for name in known | dict(subject.case.refused):
        if subject.takes(name):
            yield from ((name, value) for value in (*known.get(name, ()), *subject.case.refused.get(name, ())))


def _bad_prompts(subject: Subject) -> None:
    for prompt in ((), (5, 11), (-1, 5)):
        scene = a_scene(subject)
        own = subject.options(scene)
        refuses(
            lambda prompt=prompt, own=own, scene=scene: subject.generate(  # type: ignore[misc]
                scene.target, list(prompt), 3, sampler=Sampler(), **own
            ),
            f"the prompt {list(prompt)} for a vocabulary of 11",
        )


def _bad_logits(subject: Subject) -> None:
    for temperature in (0.0, 1.0):
        scene = a_scene(subject)
        own = subject.options(scene)
        target, sampler = broken(scene.target), Sampler(temperature)
        refuses(
            lambda own=own, target=target, sampler=sampler: subject.generate(  # type: ignore[misc]
                target, [5, 3], 3, sampler=sampler, **own
            ),
            f"a model whose logits are NaN, at temperature {temperature},",
        )


def _too_long(subject: Subject) -> None:
    scene = a_scene(subject)
    own = subject.options(scene)
    with ending(len(scene.prompt) + LIMIT - 2, scene.target) as needed:  # the last token is never read
        refuses(lambda: run(subject, scene, own), "a text one token too long for the target's positions")
    require(not needed, "a text that does not fit was refused only after a pass")


def _bad_option(subject: Subject, name: str, value: Any) -> None:
    scene = a_scene(subject)
    refuses(lambda: run(subject, scene, subject.options(scene, **{name: value})), f"{name} = {value!r}")


def _strange_drafter(subject: Subject, name: str, *, several: bool) -> None:
    scene, stranger = a_scene(subject), language_model(10)
    given = {name: [stranger, stranger] if several else stranger}
    refuses(lambda: run(subject, scene, subject.options(scene, **given)), f"a {name} of another vocabulary")


def option_checks(subject: Subject) -> Iterator[Check]:
    """Wrong input: what every method can meet, and what the options that it has can be given."""
    yield Check("prompt", "A prompt that is empty or not of the vocabulary is refused.", later(_bad_prompts, subject))
    fits = "A text that does not fit into the target's positions is refused before it starts."
    yield Check("too-long", fits, later(_too_long, subject))
    yield Check("logits", "A model that gives NaN is reported.", later(_bad_logits, subject))
    named = {name: several for name, several in DRAFTERS.items() if subject.takes(name)}
    for name, several in (named | drafting(subject.generate)).items():
        sentence = f"A {name} of another vocabulary is refused."
        yield Check(name, sentence, later(_strange_drafter, subject, name, several=several))
    for name, value in values(subject, REFUSED):
        yield Check(f"{name}={value}", f"{name} = {value} is refused.", later(_bad_option, subject, name, value))


OPTIONS = Suite("options", option_checks)
