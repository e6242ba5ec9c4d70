"""What a method's `generate` asks for, read from its signature and built for a scene: people's own ports need no more.

Each parameter that is not the kit's own is built by its annotation, if that takes a `LanguageModel`, or several, to
draft with, or a module class whose first argument is a `Shape`; else by its name from `BUILDERS` where it is known
there. What has a default and is none of these stays at its default, so a lossy option is off unless its method
switches it on.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import nn

from reference_impls.core.model import LanguageModel
from reference_impls.testing.case import EMPTY, Case, Scene
from reference_impls.testing.tiny import FeatureForesight, Foresight, drafter, drafters, randomised, sizes, text

OWN = (
    *("target", "model", "prompt", "prompts", "source", "tokens", "limit", "limits", "length", "steps"),
    *("sampler", "eos"),
)  # parameters that the suites themselves give


class KitError(Exception):
    """Something cannot be verified; the message is one sentence that says what to do."""


Builder = Callable[[Scene], Any]
BUILDERS: dict[str, Builder] = {
    "gamma": lambda scene: scene.guesses,
    "exits": lambda scene: tuple(range(1, scene.target.shape.layers)),
    "exit_layer": lambda _: 1,
}
DRAFTERS = {"drafter": False, "drafters": True}  # where no annotation tells: one model to draft with, or several


def options(generate: Callable[..., Any], scene: Scene, case: Case = EMPTY, **given: Any) -> dict[str, Any]:
    """All that `generate` asks for beside the suites' own parameters: what is given, what its case says, the rest.

    Raises KitError for a parameter that the kit cannot build.
    """
    found = {**case.options(scene), **given}
    kinds, drafts = hints(generate), drafting(generate)
    for name, parameter in inspect.signature(generate).parameters.items():
        if name in OWN or name in found or parameter.kind is parameter.VAR_KEYWORD:
            continue
        kind = module_class(kinds.get(name))
        if name in drafts:
            found[name] = drafters(scene) if drafts[name] else drafter(scene)
        elif name in BUILDERS and kind is None:
            found[name] = BUILDERS[name](scene)
        elif kind is not None:
            found[name] = module(kind, scene)
        elif parameter.default is parameter.empty:
            raise KitError(
                f"generate asks for {name!r}, which the kit cannot build: give it a default, annotate it with a module "
                "class made from a Shape, or add a builder to reference_impls.testing.from_signature.BUILDERS"
            )
    return found


def module(kind: type[nn.Module], scene: Scene) -> nn.Module:
    """A random module of this class, made from the target's shape; no weight is left at zero, as trained ones are not.

    A class with an argument `k` makes guesses (k - 1 of them beside the target's own token) and can be as good as
    `scene.guess` asks; whether it answers with features or with logits is seen from the width of its answer.
    So can a class whose `forward` continues `features` with the `tokens` after them.
    A class made from `tokens` gets a text of that quality to retrieve from.
    """
    if takes(kind, "tokens"):
        return kind(text(scene))
    if takes(kind, "k"):
        made = randomised(kind, scene.target.shape, k=scene.guesses + 1)
        if scene.guess == "random":
            return made
        width = made(scene.target.embedding[0].detach()).shape[-1]
        return Foresight(scene.guesses + 1, scene, logits=width == scene.target.shape.vocab)
    if scene.guess != "random" and takes(kind.forward, "tokens", "features"):
        return FeatureForesight(scene)
    longest = getattr(scene.target, "longest", None)
    return randomised(kind, scene.target.shape, **sizes(kind, longest))


def drafting(generate: Callable[..., Any]) -> dict[str, bool]:
    """The options that take language models to draft with, and whether each takes several.

    Their annotations say so, or where one says nothing the names `drafter` and `drafters`.
    """
    kinds, found = hints(generate), dict[str, bool]()
    for name in inspect.signature(generate).parameters:
        inner = list(mentioned(kinds.get(name)))
        if name not in OWN and LanguageModel in inner:
            origins = (get_origin(kind) for kind in inner)
            found[name] = any(isinstance(origin, type) and issubclass(origin, Iterable) for origin in origins)
        elif name in DRAFTERS and module_class(kinds.get(name)) is None:
            found[name] = DRAFTERS[name]
    return found


def mentioned(kind: Any) -> Iterator[Any]:
    """An annotation, and those that it is made of."""
    yield kind
    for inner in get_args(kind):
        yield from mentioned(inner)


def guessing(generate: Callable[..., Any]) -> bool:
    """Whether the method takes its guesses from models or heads that the kit can make perfect."""
    kinds = [kind for one in hints(generate).values() if (kind := module_class(one))]
    foreseen = any(takes(kind, "k") or takes(kind.forward, "tokens", "features") for kind in kinds)
    return foreseen or bool(drafting(generate))


def takes(call: Callable[..., Any], *names: str) -> bool:
    """Whether it has parameters of these names."""
    return set(names) <= inspect.signature(call).parameters.keys()


def variants(generate: Callable[..., Any]) -> list[dict[str, Any]]:
    """The choices that `generate` offers by a `Literal` annotation, one by one; one empty choice if it offers none."""
    found: list[dict[str, Any]] = [{}]
    for name, kind in hints(generate).items():
        if get_origin(kind) is Literal:
            found = [{**rest, name: value} for rest in found for value in get_args(kind)]
    return found


def hints(generate: Callable[..., Any]) -> Mapping[str, Any]:
    """The annotations of `generate`, resolved."""
    try:
        return get_type_hints(generate)
    except NameError as error:
        raise KitError(f"an annotation of generate cannot be read ({error}); import what it names") from None


def module_class(kind: Any) -> type[nn.Module] | None:
    """The first module class that an annotation allows and that is made from a `Shape` or from `tokens`."""
    kinds = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    for one in kinds:
        if isinstance(one, type) and issubclass(one, nn.Module):
            first = next(iter(inspect.signature(one).parameters), None)
            if first in {"shape", "tokens"}:
                return one
    return None
