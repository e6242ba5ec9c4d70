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
from dataclasses import replace
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from reference_impls.core.cache import Cache
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel
from reference_impls.testing.case import EMPTY, Case, Scene

OWN = (
    *("target", "model", "prompt", "prompts", "source", "tokens", "limit", "limits", "length", "steps"),
    *("sampler", "eos"),
)  # parameters that the suites themselves give
END, MASK = 1, 2  # the tokens that end a text of an encoder-decoder, and that stand for a hole
PERIOD = 3  # a noisy drafter is wrong at every third place of the text, and nowhere else


class KitError(Exception):
    """Something cannot be verified; the message is one sentence that says what to do."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A fixed global random state inside, the old one after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def language_model(vocab: int = 3, *, seed: int = 0, layers: int = 2, dim: int = 8) -> LanguageModel:
    """A random decoder in double precision; the same seed gives the same weights."""
    shape = Shape(vocab, dim=dim, layers=layers, heads=2, kv_heads=1, head_dim=4, hidden=12, tied=False)
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


def table_model(rows: Sequence[Sequence[float]]) -> LanguageModel:
    """A decoder whose law of the next token is the row of the last one, whatever came before it.

    Its blocks add nothing, so every layer, every head and every mask reads the same.
    """
    vocab = len(rows)
    model = language_model(vocab, dim=max(8, vocab + vocab % 2))  # a number that two heads can share
    assert model.head is not None
    with torch.no_grad():
        for block in model.blocks:
            block.attention.out.zero_()
            block.down.zero_()
        model.embedding.copy_(torch.eye(vocab, model.shape.dim))
        scores = torch.tensor(rows, dtype=torch.float64).log().clamp(min=-1e4)  # of -inf nothing can be a sum
        model.head[:vocab] = scores / model.norm(model.embedding).max()
    return model


def settled(model: LanguageModel, layer: int = 1) -> LanguageModel:
    """A copy of a model whose layers after the first `layer` add nothing: there it knows already what it will say."""
    copy = LanguageModel(model.shape).to(model.embedding.dtype)
    copy.load_state_dict(model.state_dict())
    for block in copy.blocks[layer:]:
        nn.init.zeros_(block.attention.out)
        nn.init.zeros_(block.down)
    return copy.eval()


def reciting_model(text: Sequence[int], vocab: int) -> LanguageModel:
    """A random decoder whose read-out is fitted, by least squares, so that at temperature 0 it says this text."""
    model = language_model(vocab, dim=32)
    assert model.head is not None
    with torch.no_grad():
        features = model.norm(model.run(model.embed(text[:-1])))  # [tokens - 1, dim]
        wanted = torch.eye(vocab, dtype=features.dtype)[list(text[1:])]  # [tokens - 1, vocab]
        model.head.copy_(10 * torch.linalg.lstsq(features, wanted).solution)
    return model


RECITED = (3, 7, 1, 3, 5, 9)  # over and over; what follows the 3 is told by what stood before it


def recited(scene: Scene) -> Scene:
    """The scene, where guesses have to be perfect with a target that repeats what the prompt says."""
    if scene.guess != "perfect":
        return scene
    target = reciting_model(RECITED * 8, scene.target.shape.vocab)
    return replace(scene, target=target, prompt=RECITED * 2)


def foreseeing(scene: Scene, ahead: Callable[[LanguageModel, Tensor, Tensor], Tensor]) -> Scene:
    """The scene, where guesses have to be good, with a target that reads them out of its own masks.

    A random decoder that recites; its read-out is fitted to the next token behind every place of the text and, by the
    masks behind it, to the tokens after that: `ahead(model, text, places)` gives their logits [places, masks, vocab].
    """
    if scene.guess == "random":
        return scene
    vocab, text = scene.target.shape.vocab, torch.tensor(RECITED * 8)
    model = language_model(vocab, layers=6, dim=128)
    model.head = nn.Parameter(torch.eye(model.shape.dim, dtype=torch.float64))  # logits are features until it is fitted
    places = torch.arange(len(text) - scene.guesses - 1)
    with torch.no_grad():
        features = model(text[: len(places)]), ahead(model, text, places)[:, : scene.guesses].flatten(0, 1)
        guessed = places[:, None] + torch.arange(2, scene.guesses + 2)  # [places, guesses]
        wrong = (guessed % PERIOD == 0) & (scene.guess == "noisy")
        said = torch.cat((text[places + 1], ((text[guessed] + wrong) % vocab).flatten()))
        wanted = torch.eye(vocab, dtype=torch.float64)[said]
        model.head = nn.Parameter(10 * torch.linalg.lstsq(torch.cat(features), wanted).solution)
    return replace(scene, target=model, prompt=RECITED * 2)


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
    target reads out as the tokens two, three, … places ahead, or with those `logits` [k - 1, vocab] themselves; as
    `noisy` ones they err at every third place, where the right token is their last choice.
    """

    def __init__(self, k: int, scene: Scene, horizon: int = 32, *, logits: bool = False) -> None:
        super().__init__()
        target, tokens = scene.target, list(scene.prompt)
        with torch.no_grad():
            for _ in range(horizon):
                tokens.append(int(target(tokens)[-1].argmax()))
            self.tokens = tokens
            self.states = target.norm(target.run(target.embed(tokens)))  # [places, dim]; place i is read out as i + 1
        self.k = k
        self.answers = target.project(self.states).detach() if logits else self.states
        self.read = list(range(len(tokens)))  # from which place to read the guess for the place after it
        for i in range(len(scene.prompt) - 1, len(tokens) - 1):
            if scene.guess == "noisy" and (i + 1) % PERIOD == 0:
                others = range(len(scene.prompt) - 1, len(tokens) - 1)
                self.read[i] = next(j for j in others if tokens[j + 1] != tokens[i + 1])
        self.answers = self.answers[self.read]
        if logits and scene.guess == "noisy":
            wrong = [i for i in range(len(tokens) - 1) if self.read[i] != i]
            self.answers[wrong, [tokens[i + 1] for i in wrong]] = -torch.inf

    def forward(self, features: Tensor) -> Tensor:
        """Features [k - 1, dim] or logits [k - 1, vocab] for those features [dim] of the nearest place of the text."""
        place = int((self.states - features).norm(dim=-1).argmin())
        return self.answers[place + 1 : place + self.k]


class FeatureForesight(Foresight):
    """A drafter of features that knows the greedy future, if it is shown each feature with the token that follows it.

    It answers with the feature of the next place; where feature and token do not belong together, with a wrong one.
    """

    def __init__(self, scene: Scene) -> None:
        super().__init__(0, scene)
        self.shape = scene.target.shape
        self.next = {(place, token): place + 1 for place, token in enumerate(self.tokens[1:])}

    def new_cache(self) -> Cache:
        """A cache that holds nothing and only counts the tokens seen."""
        return Cache(1, 0, 0, self.states.dtype, self.states.device)

    def forward(  # type: ignore[override]
        self, _: LanguageModel, tokens: Sequence[int], features: Tensor, cache: Cache, **_masks: Tensor | None
    ) -> Tensor:
        """Features [n, dim] at `tokens`, from the `features` [n, dim] one place before each."""
        cache.append(0, *features.new_empty(2, 0, len(tokens), 0))
        places = (self.states - features[:, None]).norm(dim=-1).argmin(-1).tolist()
        return self.answers[[self.next.get(pair, 0) for pair in zip(places, tokens, strict=True)]]


def _drafter(scene: Scene) -> Any:
    if scene.drafter is not None:
        return scene.drafter
    if scene.guess == "perfect":
        return scene.target
    if scene.guess == "noisy":
        return Erring.of(scene.target)
    vocab = scene.target.shape.vocab
    return language_model(vocab, seed={2: 281, 3: 170}.get(vocab, 1001), layers=1)


def _drafters(scene: Scene) -> list[LanguageModel]:
    """Drafters, best first; a single one where a step makes few guesses, which is where laws are counted."""
    vocab, few = scene.target.shape.vocab, scene.guesses <= 2
    return [_drafter(scene), *([] if few else [language_model(vocab, seed=1002, layers=1)])]


def _text(scene: Scene) -> list[int]:
    """A text to retrieve from: a short random one, or the greedy text, as a `noisy` one wrong at every third place."""
    vocab = scene.target.shape.vocab
    if scene.guess == "random":
        with seeded(7):
            return torch.randint(vocab, (4 * vocab,)).tolist()
    wrong = range(0, 99, PERIOD) if scene.guess == "noisy" else range(0)
    return [(token + (place in wrong)) % vocab for place, token in enumerate(Foresight(0, scene).tokens)]


def ranks(scene: Scene) -> list[tuple[int, ...]]:
    """Rank paths of a tree as deep as there are guesses, with a second branch; a noisy second-best could be right."""
    chain = [(0,) * depth for depth in range(1, scene.guesses + 1)]
    return chain if scene.guess == "noisy" or scene.guesses == 1 else [*chain, (1,)]


Builder = Callable[[Scene], Any]
BUILDERS: dict[str, Builder] = {
    "drafter": _drafter,
    "gamma": lambda scene: scene.guesses,
    "exits": lambda scene: tuple(range(1, scene.target.shape.layers)),
    "exit_layer": lambda _: 1,
    "drafters": _drafters,
}


def module(kind: type[nn.Module], scene: Scene) -> nn.Module:
    """A random module of this class, made from the target's shape; no weight is left at zero, as trained ones are not.

    A class with an argument `k` makes guesses (k - 1 of them beside the target's own token) and can be as good as
    `scene.guess` asks; whether it answers with features or with logits is seen from the width of its answer.
    So can a class whose `forward` continues `features` with the `tokens` after them.
    A class made from `tokens` gets a text of that quality to retrieve from.
    """
    if "tokens" in inspect.signature(kind).parameters:
        return kind(_text(scene))
    if "k" in inspect.signature(kind).parameters:
        made = randomised(kind, scene.target.shape, k=scene.guesses + 1)
        if scene.guess == "random":
            return made
        width = made(scene.target.embedding[0].detach()).shape[-1]
        return Foresight(scene.guesses + 1, scene, logits=width == scene.target.shape.vocab)
    if scene.guess != "random" and {"tokens", "features"} <= inspect.signature(kind.forward).parameters.keys():
        return FeatureForesight(scene)
    longest = getattr(scene.target, "longest", None)
    return randomised(kind, scene.target.shape, **sizes(kind, longest))


def sequence_model(kind: type[nn.Module], *, longest: int = 9, vocab: int = 11, seed: int = 7) -> nn.Module:
    """A random model of this class, made from a `Shape` and those of `longest`, `pad`, `end`, `mask_id` it takes.

    Padding is token 0, the end token 1, and the mask token 2.
    """
    shape = Shape(vocab, dim=8, layers=2, heads=2, kv_heads=1, head_dim=4, hidden=12)
    return randomised(kind, shape, seed, **sizes(kind, longest))


def sizes(kind: type[nn.Module], longest: int | None) -> dict[str, Any]:
    """What this class asks for beside its shape: the places of a text, and the tokens with a meaning of their own."""
    known = {"longest": longest, "pad": 0, "end": END, "mask_id": MASK}
    return {name: value for name, value in known.items() if name in inspect.signature(kind).parameters}


def randomised(kind: type[nn.Module], shape: Shape, seed: int = 7, **options: Any) -> nn.Module:
    """A module of this class in double precision with every matrix drawn anew."""
    with seeded(seed):
        made = kind(shape, **options).double()
        for parameter in made.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=shape.dim**-0.5)
    return made.eval()


def options(generate: Callable[..., Any], scene: Scene, case: Case = EMPTY, **given: Any) -> dict[str, Any]:
    """All that `generate` asks for beside the suites' own parameters: what is given, what its case says, the rest.

    Raises KitError for a parameter that the kit cannot build.
    """
    found = {**case.options(scene), **given}
    kinds = hints(generate)
    for name, parameter in inspect.signature(generate).parameters.items():
        if name in OWN or name in found or parameter.kind is parameter.VAR_KEYWORD:
            continue
        kind = module_class(kinds.get(name))
        if name in BUILDERS and kind in (None, LanguageModel):
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
    return heads or not {"drafter", "drafters"}.isdisjoint(inspect.signature(generate).parameters)


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


def broken(model: LanguageModel) -> LanguageModel:
    """A copy of a model whose logits are NaN."""
    copy = LanguageModel(model.shape).to(model.embedding.dtype)
    copy.load_state_dict(model.state_dict())
    nn.init.constant_(copy.norm.weight, float("nan"))
    return copy.eval()
