"""Tiny random models in double precision, and what else a method's `generate` asks for.

The kit reads the signature of `generate` and builds each parameter that is not its own: by name from `BUILDERS` where
it is known there, else by its annotation, if that is a module class whose first argument is a `Shape`. What has a
default and is neither stays at its default, so a lossy option is off unless its method switches it on.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from reference_impls.core.cache import Cache
from reference_impls.core.model import LanguageModel, Shape

Guess = Literal["random", "noisy", "perfect"]
OWN = ("target", "model", "prompt", "source", "limit", "sampler", "eos")  # parameters that the suites themselves give
PERIOD = 3  # a noisy drafter is wrong at every third place of the text, and nowhere else


class KitError(Exception):
    """Something cannot be verified; the message is one sentence that says what to do."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A fixed global random state inside, the old one after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@dataclass(frozen=True)
class Scene:
    """What a builder may know: the target, the prompt, how many guesses a step makes, and how good they are."""

    target: LanguageModel
    prompt: Sequence[int]
    guesses: int = 2
    guess: Guess = "random"


def language_model(vocab: int = 3, *, seed: int = 0, layers: int = 2) -> LanguageModel:
    """A random decoder in double precision; the same seed gives the same weights."""
    shape = Shape(vocab, dim=8, layers=layers, heads=2, kv_heads=1, head_dim=4, hidden=12, tied=False)
    with seeded(seed):
        return LanguageModel(shape).double().eval()


def flat_model(vocab: int = 3) -> LanguageModel:
    """A target for exact laws: flat, different after every context, and clearly different from its drafter's.

    Otherwise a mistake could hide in what is certain, or in what is the same. The seeds were chosen for it.
    """
    return language_model(vocab, seed={2: 53, 3: 2}[vocab])


def varied_model(layers: int = 3) -> LanguageModel:
    """A random decoder of 11 tokens whose greedy texts do not soon repeat one token, as most random ones do."""
    return language_model(11, seed={3: 274, 5: 41}[layers], layers=layers)


class Erring(LanguageModel):
    """A copy of a model whose best guess for every third place of the text is a wrong one."""

    @classmethod
    def of(cls, model: LanguageModel) -> Erring:
        """The erring copy of `model`."""
        copy = cls(model.shape).to(model.embedding.dtype)
        copy.load_state_dict(model.state_dict())
        return copy.eval()

    def forward(
        self,
        tokens: Sequence[int] | Tensor,
        cache: Cache | None = None,
        *,
        last: int | None = None,
        positions: Tensor | None = None,
        visible: Tensor | None = None,
    ) -> Tensor:
        """Logits as those of the model, moved by one token where the next place is to be guessed wrong."""
        past = 0 if cache is None else len(cache)
        logits = super().forward(tokens, cache, positions=positions, visible=visible)
        places = past + torch.arange(len(tokens)) if positions is None else positions
        wrong = ((places + 1) % PERIOD == 0)[:, None]
        logits = torch.where(wrong, logits.roll(1, -1), logits)
        return logits if last is None else logits[-last:]


class Foresight(nn.Module):
    """Heads that know the target's greedy future, and so do what perfectly trained ones would do.

    They recognise the features [dim] of a place of the greedy text and answer with features [k - 1, dim] that the
    target reads out as the tokens two, three, … places ahead; as `noisy` ones they err at every third place.
    """

    def __init__(self, k: int, scene: Scene, horizon: int = 32) -> None:
        super().__init__()
        target, tokens = scene.target, list(scene.prompt)
        with torch.no_grad():
            for _ in range(horizon):
                tokens.append(int(target(tokens)[-1].argmax()))
            self.states = target.norm(target.run(target.embed(tokens)))  # [places, dim]; place i is read out as i + 1
        self.k = k
        self.read = list(range(len(tokens)))  # from which place to read the guess for the place after it
        for i in range(len(scene.prompt) - 1, len(tokens) - 1):
            if scene.guess == "noisy" and (i + 1) % PERIOD == 0:
                others = range(len(scene.prompt) - 1, len(tokens) - 1)
                self.read[i] = next(j for j in others if tokens[j + 1] != tokens[i + 1])

    def forward(self, features: Tensor) -> Tensor:
        """Features [k - 1, dim] for those [dim] of the nearest place of the greedy text."""
        place = int((self.states - features).norm(dim=-1).argmin())
        return self.states[self.read[place + 1 : place + self.k]]


def _drafter(scene: Scene) -> LanguageModel:
    if scene.guess == "perfect":
        return scene.target
    if scene.guess == "noisy":
        return Erring.of(scene.target)
    vocab = scene.target.shape.vocab
    return language_model(vocab, seed={2: 281, 3: 170}.get(vocab, 1001), layers=1)


Builder = Callable[[Scene], Any]
BUILDERS: dict[str, Builder] = {
    "drafter": _drafter,
    "gamma": lambda scene: scene.guesses,
    "exits": lambda scene: tuple(range(1, scene.target.shape.layers)),
    "exit_layer": lambda scene: 1,
}


def module(kind: type[nn.Module], scene: Scene) -> nn.Module:
    """A random module of this class, made from the target's shape; no weight is left at zero, as trained ones are not.

    A class with an argument `k` makes guesses (k - 1 of them beside the target's own token) and can be as good as
    `scene.guess` asks.
    """
    if "k" in inspect.signature(kind).parameters:
        if scene.guess != "random":
            return Foresight(scene.guesses + 1, scene)
        return randomised(kind, scene.target.shape, k=scene.guesses + 1)
    return randomised(kind, scene.target.shape)


def sequence_model(kind: type[nn.Module], *, longest: int = 9, vocab: int = 11, seed: int = 7) -> nn.Module:
    """A random translation model of this class, made from a `Shape` and those of `longest`, `pad`, `mask_id` it takes.

    Padding is token 0 and the mask is token 2.
    """
    shape = Shape(vocab, dim=8, layers=2, heads=2, kv_heads=1, head_dim=4, hidden=12)
    known = {"longest": longest, "pad": 0, "end": 1, "mask_id": 2}
    return randomised(kind, shape, seed, **{n: known[n] for n in known if n in inspect.signature(kind).parameters})


def randomised(kind: type[nn.Module], shape: Shape, seed: int = 7, **options: Any) -> nn.Module:
    """A module of this class in double precision with every matrix drawn anew."""
    with seeded(seed):
        made = kind(shape, **options).double()
        for parameter in made.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=shape.dim**-0.5)
    return made.eval()


def options(generate: Callable[..., Any], scene: Scene, **given: Any) -> dict[str, Any]:
    """Everything that `generate` asks for beside the suites' own parameters.

    Raises KitError for a parameter that the kit cannot build.
    """
    found = dict(given)
    kinds = hints(generate)
    for name, parameter in inspect.signature(generate).parameters.items():
        if name in OWN or name in found or parameter.kind is parameter.VAR_KEYWORD:
            continue
        kind = module_class(kinds.get(name))
        if name in BUILDERS:
            found[name] = BUILDERS[name](scene)
        elif kind is not None:
            found[name] = module(kind, scene)
        elif parameter.default is parameter.empty:
            raise KitError(
                f"generate asks for {name!r}, which the kit cannot build: give it a default, annotate it with a module "
                "class made from a Shape, or add a builder to reference_impls.testing.tiny.BUILDERS"
            )
    return found


def guessing(generate: Callable[..., Any]) -> bool:
    """Whether the method takes its guesses from a drafter or from heads that can be made perfect."""
    kinds = [module_class(kind) for kind in hints(generate).values()]
    heads = any(kind and "k" in inspect.signature(kind).parameters for kind in kinds)
    return heads or "drafter" in inspect.signature(generate).parameters


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
    """The first module class that an annotation allows and that is made from a `Shape`."""
    kinds = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    for one in kinds:
        if isinstance(one, type) and issubclass(one, nn.Module):
            first = next(iter(inspect.signature(one).parameters), None)
            if first == "shape":
                return one
    return None


def broken(model: LanguageModel) -> LanguageModel:
    """A copy of a model whose logits are NaN."""
    copy = LanguageModel(model.shape).to(model.embedding.dtype)
    copy.load_state_dict(model.state_dict())
    nn.init.constant_(copy.norm.weight, float("nan"))
    return copy.eval()
