"""Suite `accounting`: the trace tells the truth, limits and ends are met, nothing else is touched."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.testing.case import Guess, Scene
from reference_impls.testing.checks import Check, Subject, Suite, counted, ending, guessed, later, require, total, trace
from reference_impls.testing.tiny import varied_model

LIMIT = 9


def a_scene(subject: Subject, guess: Guess = "random", prompt: Sequence[int] = (5, 3, 8, 1), guesses: int = 3) -> Scene:
    """The scene of these suites: a varied target of three layers."""
    return subject.case.scene(Scene(varied_model(), list(prompt), guesses, guess))


def run(
    subject: Subject,
    scene: Scene,
    own: dict[str, Any],
    limit: int = LIMIT,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    **more: Any,
) -> Any:
    """What the subject gives in this scene, with its own options as they were at first."""
    sampler = Sampler(temperature, seed=seed)
    return subject.generate(scene.target, list(scene.prompt), limit, sampler=sampler, **subject.fresh(own), **more)


def _trace(subject: Subject) -> None:
    for guess in subject.qualities:
        scene = a_scene(subject, guess)
        own = subject.options(scene)
        for temperature in (0.0, 1.0):
            result = run(subject, scene, own, temperature=temperature)
            steps = trace(result, "emitted", "drafted", "parents", "kept")
            emitted = [token for step in steps for token in step.emitted]
            require(emitted == result.tokens, f"the steps emitted {emitted}, the text is {result.tokens}")
            for number, step in enumerate(steps, start=1):
                kept = step.emitted[: step.kept]
                require(len(kept) == step.kept, f"step {number} kept more tokens than it emitted: {step}")
                found = guessed(step.drafted, step.parents, kept)
                require(found, f"step {number} says that {kept} were guessed, but it guessed {step.drafted}")
            text = json.dumps(result.to_dict())
            require("NaN" not in text, "the trace holds a number that is no number")


def _passes(subject: Subject) -> None:
    for limit in (1, 2, LIMIT):
        scene = a_scene(subject)
        own = subject.options(scene)
        models = [one for value in own.values() for one in (value if isinstance(value, list) else [value])]
        blocks = {f"drafter {i}": one.blocks[0] for i, one in enumerate(models) if hasattr(one, "blocks")}
        blocks["target"] = scene.target.blocks[0]
        with counted(**blocks) as calls:
            result = run(subject, scene, own, limit, temperature=1.0, seed=1)
        passes, draft_passes = total(result, "passes"), total(result, "draft_passes")
        own_drafts = calls["target"] - passes  # where the target drafts for itself, or for its full cache
        require(own_drafts >= 0, f"the target ran {calls['target']} passes, the trace says {passes}")
        ran = sum(calls.values()) - passes
        require(ran == draft_passes, f"{ran} passes were run for drafts, the trace says {draft_passes}")


def _limits(subject: Subject) -> None:
    for guess in subject.qualities:
        for prompt in ((5, 3, 8, 1), (2,)):
            scene = a_scene(subject, guess, prompt)
            own = subject.options(scene)
            wanted = run(subject, scene, own).tokens
            for limit in range(LIMIT + 1):
                result = run(subject, scene, own, limit)
                tokens = result.tokens
                idle = limit > 0 or not getattr(result, "steps", None)
                require(idle, "there are steps although no token was asked for")
                require(len(tokens) == limit, f"asked for {limit} tokens after {len(prompt)}, it gave {len(tokens)}")
                if not subject.takes("decay"):  # an option that looks at the limit changes the text with it
                    require(tokens == wanted[:limit], f"with limit {limit} the text is another: {tokens}")


def _positions(subject: Subject) -> None:
    for guess in subject.qualities:
        for temperature in (0.0, 1.0):
            scene = a_scene(subject, guess)
            own, last = subject.options(scene), len(scene.prompt) + LIMIT - 1  # the last token is never read
            models = [one for one in each(own.values()) if isinstance(one, LanguageModel)]
            with ending(last, scene.target, *models) as needed:
                tokens = run(subject, scene, own, temperature=temperature).tokens
            require(len(tokens) == LIMIT, f"{LIMIT} tokens fit into {last} positions, it gave {len(tokens)}")
            most = max(needed, default=0)
            require(most <= last, f"a pass needs {most} positions, and its model has {last}")


def _end(subject: Subject) -> None:
    for guess in subject.qualities:
        scene = a_scene(subject, guess)
        own = subject.options(scene)
        free = run(subject, scene, own).tokens
        for place, eos in enumerate(free):
            if eos in free[:place]:
                continue
            tokens = run(subject, scene, own, eos=eos).tokens
            wanted = free[: place + 1]
            require(tokens == wanted, f"with end token {eos} the text is {tokens} and not {wanted}")


def _several_ends(subject: Subject) -> None:
    for guess in subject.qualities:
        scene = a_scene(subject, guess)
        own = subject.options(scene)
        free = run(subject, scene, own).tokens
        new = list(dict.fromkeys(free))  # the tokens in the order in which they first come
        for place, first in enumerate(new):
            wanted = free[: free.index(first) + 1]
            for ends in (new[place:], new[place:][::-1], frozenset(new[place:])):
                tokens = run(subject, scene, own, eos=ends).tokens
                require(tokens == wanted, f"with the end tokens {[*ends]} the text is {tokens} and not {wanted}")


def _end_inside(subject: Subject) -> None:
    inside = 0
    for guess in subject.qualities:
        scene = a_scene(subject, guess)
        own = subject.options(scene)
        for eos in set(run(subject, scene, own).tokens):
            last = trace(run(subject, scene, own, eos=eos), "drafted", "kept")[-1]
            require(last.kept <= len(last.emitted), f"the last step kept more than it emitted: {last}")
            inside += last.kept == len(last.emitted) and eos in last.drafted[: len(last.drafted) - 1]
    require(inside > 0, "no end token fell inside a draft, so the check has seen nothing: draft more")


def each(values: Iterable[Any]) -> Iterator[Any]:
    """The values, and of lists what they hold."""
    for value in values:
        yield from value if isinstance(value, list | tuple) else [value]


@contextmanager
def untouched(**values: Any) -> Iterator[None]:
    """Require that the weights of the modules among these values, and the global random states, stay as they are."""
    modules = [one for one in each(values.values()) if isinstance(one, nn.Module)]
    before = [{key: value.clone() for key, value in module.state_dict().items()} for module in modules]
    states = torch.get_rng_state(), random.getstate()
    yield
    require(torch.equal(states[0], torch.get_rng_state()), "torch's global random state was used")
    require(states[1] == random.getstate(), "Python's global random state was used")
    for module, old in zip(modules, before, strict=True):
        same = all(torch.equal(old[key], value) for key, value in module.state_dict().items())
        require(same, f"the weights of the {type(module).__name__} were changed")


def _untouched(subject: Subject) -> None:
    scene, prompt = a_scene(subject), [5, 3, 8, 1]
    own = subject.options(scene)
    fixed = {name: value for name, value in own.items() if name not in subject.case.learns}
    with untouched(target=scene.target, **fixed):
        subject.generate(scene.target, prompt, LIMIT, sampler=Sampler(), **own)
    require(prompt == [5, 3, 8, 1], f"the prompt was changed to {prompt}")


def _seeds(subject: Subject) -> None:
    scene = a_scene(subject)
    own = subject.options(scene)
    runs = [run(subject, scene, own, temperature=1.0, seed=seed) for seed in range(4)]
    again = run(subject, scene, own, temperature=1.0, seed=2)
    require(runs[2].tokens == again.tokens, "the same seed gave another text")
    require(trace(runs[2]) == trace(again), "the same seed gave another trace")
    different = {tuple(one.tokens) for one in runs}
    require(len(different) > 1, "four seeds gave the same text, so the sampler has no say")


def accounting_checks(subject: Subject) -> Iterator[Check]:
    """What holds for every method that continues a prompt."""
    tests: dict[str, tuple[str, Callable[[Subject], None]]] = {
        "trace": ("The trace sums up to the text, and every kept token was drafted.", _trace),
        "passes": ("The passes counted at the models are those of the trace.", _passes),
        "limits": ("Every limit from 0 on is met exactly, also after a prompt of one token.", _limits),
        "positions": (
            "A text that just fits is written, and no model reads past its last position.",
            _positions,
        ),
        "end-of-text": ("The text ends with the first end token.", _end),
        "several-ends": ("The text ends with the first of several end tokens.", _several_ends),
        "untouched": ("Weights, prompt and the global random state stay as they were.", _untouched),
        "seeds": ("The same seed gives the same text and trace, other seeds give others.", _seeds),
    }
    if "perfect" in subject.qualities:
        tests["end-in-draft"] = ("The text ends with an end token inside a draft, and no guess after it.", _end_inside)
    for name, (sentence, test) in tests.items():
        yield Check(name, sentence, later(test, subject))


ACCOUNTING = Suite("accounting", accounting_checks)
