"""What a case says; each method has one in `reference_impls.testing.cases`, under its own name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Guess = Literal["random", "noisy", "perfect"]
Cost = Literal["target", "draft", "rest"]  # what the time of a step is spent on


@dataclass(frozen=True)
class Scene:
    """What a builder may know: the model, the prompt, how many guesses a step makes, and how good they are."""

    target: Any  # a LanguageModel; a model of the method's own where it translates, fills a canvas or classifies
    prompt: Sequence[int]
    guesses: int = 2  # a step
    guess: Guess = "random"  # noisy ones are right now and then, perfect ones always
    drafter: Any = None  # a drafter whose law is this scene's own


def nothing(_: Scene) -> Mapping[str, Any]:
    """No option beyond what the signature tells."""
    return {}


def tree_widths(scene: Scene) -> tuple[int, ...]:
    """Children of a node at each depth, for a drafter's tree: few where laws are found.

    One for a noisy drafter, whose second could be right; one with a single guess a step.
    """
    few = {1: (1,), 2: (2,) if scene.guess == "random" else (1, 1)}
    return few.get(scene.guesses, (1, 1 if scene.guess == "noisy" else 2) + (1,) * (scene.guesses - 2))


def ranks(scene: Scene) -> list[tuple[int, ...]]:
    """Rank paths of a tree as deep as there are guesses, with a second branch; a noisy second-best could be right."""
    chain = [(0,) * depth for depth in range(1, scene.guesses + 1)]
    return chain if scene.guess == "noisy" or scene.guesses == 1 else [*chain, (1,)]


def itself(scene: Scene) -> Scene:
    """The scene as it is."""
    return scene


@dataclass(frozen=True)
class Case:
    """What the kit and the tools must know of one method, and cannot infer from the signature of its `generate`."""

    options: Callable[[Scene], Mapping[str, Any]] = nothing
    """Tiny models and options for a scene. A scene's `guess` says how good the guesses must be, whatever makes them:
    a drafter, heads, skipped layers, a datastore, a table, the text itself."""

    qualities: Sequence[Guess] = ()
    """The qualities of guesses, beside random ones, that `options` and `scene` can make and the signature does not
    tell. Those of a drafter, of heads and of a text to retrieve from are known."""

    scene: Callable[[Scene], Scene] = itself
    """Changes a scene where guesses of its quality need another target or prompt, as those that are copied do."""

    refused: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Values of its own options that must be refused with one sentence."""

    exits: Sequence[Mapping[str, Any]] = ()
    """For methods that skip layers by other options than a `threshold`: options from the earliest exit to the full
    model, which comes last."""

    checkpoint: Mapping[str, Any] = field(default_factory=dict)
    """Options with which it runs on any checkpoint."""

    lacks: str = ""
    """The part without which it runs on no checkpoint, as `accelgen run` names it; empty where it runs."""

    costs: Mapping[str, Cost] = field(default_factory=dict)
    """Functions of its module, beside the models' own calls, that a step's time is spent in, and for which part."""

    passes: int = 1
    """Passes of the target from one draft to the next, where a draft takes one that also gives a token."""

    compared: Sequence[Mapping[str, Any]] = ({},)
    """Options at which the benchmark measures it one after another, in place of those of its example."""

    chain: bool = False
    """Whether one language model drafts a chain that the target alone judges, so that a drafter of any acceptance can
    stand in."""

    learns: Collection[str] = ()
    """Options that it changes while it decodes; everything else stays as it was."""


EMPTY = Case()
