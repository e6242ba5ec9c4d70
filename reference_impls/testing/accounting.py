"""Suites `accounting` and `options`: the trace tells the truth, nothing is touched, wrong input gives a sentence."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from reference_impls.core.generation import Generation
from reference_impls.core.sampling import Sampler
from reference_impls.testing.checks import Check, Generate, Suite, counted, guessed, later, require, takes
from reference_impls.testing.tiny import Guess, Scene, broken, guessing, language_model, options, varied_model

LIMIT = 9
QUALITIES: tuple[Guess, ...] = ("random", "noisy", "perfect")


def _scene(guess: Guess = "random", prompt: tuple[int, ...] = (5, 3, 8, 1), guesses: int = 3) -> Scene:
    return Scene(varied_model(), list(prompt), guesses, guess)


def _run(
    generate: Generate, scene: Scene, limit: int = LIMIT, temperature: float = 0.0, seed: int = 0, **more: Any
) -> Generation:
    own = options(generate, scene, **more)
    return generate(scene.target, list(scene.prompt), limit, sampler=Sampler(temperature, seed=seed), **own)


def _trace(generate: Generate) -> None:
    for guess in QUALITIES:
        for temperature in (0.0, 1.0):
            result = _run(generate, _scene(guess), temperature=temperature)
            emitted = [token for step in result.steps for token in step.emitted]
            require(emitted == result.tokens, f"the steps emitted {emitted}, the text is {result.tokens}")
            for number, step in enumerate(result.steps, start=1):
                kept = step.emitted[: step.kept]
                require(len(kept) == step.kept, f"step {number} kept more tokens than it emitted: {step}")
                found = guessed(step.drafted, step.parents, kept)
                require(found, f"step {number} says that {kept} were guessed, but it guessed {step.drafted}")
            text = json.dumps(result.to_dict())
            require("NaN" not in text, "the trace holds a number that is no number")


def _passes(generate: Generate) -> None:
    for limit in (1, 2, LIMIT):
        scene = _scene()
        own = options(generate, scene)
        drafters = own.get("drafters", [own.get("drafter")])
        blocks = {f"drafter {i}": d.blocks[0] for i, d in enumerate(drafters) if hasattr(d, "blocks")}
        blocks["target"] = scene.target.blocks[0]
        with counted(**blocks) as calls:
            result = generate(scene.target, list(scene.prompt), limit, sampler=Sampler(seed=1), **own)
        own_drafts = calls["target"] - result.passes  # where the target drafts for itself, or for its full cache
        require(own_drafts >= 0, f"the target ran {calls['target']} passes, the trace says {result.passes}")
        ran, said = sum(calls.values()) - result.passes, result.draft_passes
        require(ran == said, f"{ran} passes were run for drafts, the trace says {said}")


def _limits(generate: Generate) -> None:
    for guess in QUALITIES:
        for prompt in ((5, 3, 8, 1), (2,)):
            scene = _scene(guess, prompt)
            own = options(generate, scene)
            wanted = _run(generate, scene, **own).tokens
            for limit in range(LIMIT + 1):
                result = _run(generate, scene, limit, **own)
                tokens = result.tokens
                require(limit > 0 or not result.steps, "there are steps although no token was asked for")
                require(len(tokens) == limit, f"asked for {limit} tokens after {len(prompt)}, it gave {len(tokens)}")
                if not takes(generate, "decay"):  # an option that looks at the limit changes the text with it
                    require(tokens == wanted[:limit], f"with limit {limit} the text is another: {tokens}")


def _end(generate: Generate) -> None:
    inside = 0
    for guess in QUALITIES:
        scene = _scene(guess)
        own = options(generate, scene)
        free = _run(generate, scene, **own)
        for place, eos in enumerate(free.tokens):
            if eos in free.tokens[:place]:
                continue
            result = _run(generate, scene, eos=eos, **own)
            wanted = free.tokens[: place + 1]
            require(result.tokens == wanted, f"with end token {eos} the text is {result.tokens} and not {wanted}")
            last = result.steps[-1]
            require(last.kept <= len(last.emitted), f"the last step kept more than it emitted: {last}")
            inside += last.kept == len(last.emitted) and eos in last.drafted[: len(last.drafted) - 1]
    if guessing(generate):
        require(inside > 0, "no end token fell inside a draft, so the check has seen nothing: draft more")


def _untouched(generate: Generate) -> None:
    scene, prompt = _scene(), [5, 3, 8, 1]
    own = options(generate, scene)
    values = [one for value in own.values() for one in (value if isinstance(value, list) else [value])]
    modules = [scene.target, *(value for value in values if isinstance(value, nn.Module))]
    before = [{key: value.clone() for key, value in module.state_dict().items()} for module in modules]
    states = torch.get_rng_state(), random.getstate()
    generate(scene.target, prompt, LIMIT, sampler=Sampler(), **own)
    require(torch.equal(states[0], torch.get_rng_state()), "torch's global random state was used")
    require(states[1] == random.getstate(), "Python's global random state was used")
    require(prompt == [5, 3, 8, 1], f"the prompt was changed to {prompt}")
    for module, old in zip(modules, before, strict=True):
        same = all(torch.equal(old[key], value) for key, value in module.state_dict().items())
        require(same, f"the weights of the {type(module).__name__} were changed")


def _seeds(generate: Generate) -> None:
    scene = _scene()
    runs = [_run(generate, scene, temperature=1.0, seed=seed) for seed in range(4)]
    again = _run(generate, scene, temperature=1.0, seed=2)
    require(runs[2] == again, "the same seed gave another text or another trace")
    different = {tuple(run.tokens) for run in runs}
    require(len(different) > 1, "four seeds gave the same text, so the sampler has no say")


def accounting_checks(generate: Generate) -> Iterator[Check]:
    """What holds for every method."""
    tests: dict[str, tuple[str, Callable[[Generate], None]]] = {
        "trace": ("The trace sums up to the text, and every kept token was drafted.", _trace),
        "passes": ("The passes counted at the models are those of the trace.", _passes),
        "limits": ("Every limit from 0 on is met exactly, also after a prompt of one token.", _limits),
        "end-of-text": ("The text ends with the first end token, also inside a draft.", _end),
        "untouched": ("Weights, prompt and the global random state stay as they were.", _untouched),
        "seeds": ("The same seed gives the same text and trace, other seeds give others.", _seeds),
    }
    for name, (sentence, test) in tests.items():
        yield Check(name, sentence, later(test, generate))


def refuses(run: Callable[[], Any], what: str) -> None:
    """Require a ValueError of one sentence."""
    try:
        run()
    except ValueError as error:
        words = str(error)
        plain = "\n" not in words and len(words.split()) >= 5
        require(plain, f"{what} gives {words!r}, which is not one clear sentence")
    except Exception as error:  # whatever else it raises is what is reported
        raise AssertionError(f"{what} gives {type(error).__name__}: {error}, and not a ValueError") from error
    else:
        raise AssertionError(f"{what} is accepted without a word")


def _bad_prompts(generate: Generate) -> None:
    for prompt in ((), (5, 11), (-1, 5)):
        scene = _scene()
        own = options(generate, scene)
        refuses(
            lambda prompt=prompt, own=own, scene=scene: generate(  # type: ignore[misc]
                scene.target, list(prompt), 3, sampler=Sampler(), **own
            ),
            f"the prompt {list(prompt)} for a vocabulary of 11",
        )


def _bad_logits(generate: Generate) -> None:
    for temperature in (0.0, 1.0):
        scene = _scene()
        own = options(generate, scene)
        target, sampler = broken(scene.target), Sampler(temperature)
        refuses(
            lambda own=own, target=target, sampler=sampler: generate(  # type: ignore[misc]
                target, [5, 3], 3, sampler=sampler, **own
            ),
            f"a model whose logits are NaN, at temperature {temperature},",
        )


def _bad_option(generate: Generate, name: str, value: Any) -> None:
    refuses(lambda: _run(generate, _scene(), **{name: value}), f"{name} = {value!r}")


def _strange_drafter(generate: Generate) -> None:
    stranger = language_model(10)
    given = {"drafter": stranger} if takes(generate, "drafter") else {"drafters": [stranger, stranger]}
    refuses(lambda: _run(generate, _scene(), **given), "a drafter of another vocabulary")


BAD_OPTIONS: dict[str, tuple[Any, ...]] = {
    "gamma": (0, -1),
    "lenience": (0.0, 1.5, math.nan),
    "top": (0,),
    "minimum": (0, 99),
    "exit_layer": (0, 9),
    "rollback": (-0.1, math.nan),
    "skip_attention": ((-1,), (0, 3)),
    "skip_feed": ((-1,), (0, 3)),
    "choices": ((), ((0, 0),)),
    "expansion": ((), (0,), (2, 12)),
    "k_matrix": (((1,),), ((0, 0, 0), (0, 1, 1), (0, 0, 1)), ((1, 0, 0), (0, -1, 2), (0, 0, 1))),
    "longest": (0,),
    "nodes": (0,),
    "gamma_2": (0,),
    "exits": ((0, 1), (2, 1), (1, 3), (1, 1)),
    "measure": ("guesswork",),
    "fallback": (-0.1, math.nan),
    "acceptance": ("generous",),
    "algorithm": ("newton",),
    "block": (0,),
    "stretch": (-1,),
}


def option_checks(generate: Generate) -> Iterator[Check]:
    """Wrong input: what every method can meet, and what the options that it has can be given."""
    yield Check("prompt", "A prompt that is empty or not of the vocabulary is refused.", later(_bad_prompts, generate))
    yield Check("logits", "A model that gives NaN is reported.", later(_bad_logits, generate))
    if takes(generate, "drafter") or takes(generate, "drafters"):
        sentence = "A drafter of another vocabulary is refused."
        yield Check("drafter", sentence, later(_strange_drafter, generate))
    for name, values in BAD_OPTIONS.items():
        if takes(generate, name):
            for value in values:
                yield Check(
                    f"{name}={value}", f"{name} = {value} is refused.", later(_bad_option, generate, name, value)
                )


ACCOUNTING = Suite("accounting", accounting_checks)
OPTIONS = Suite("options", option_checks)
