"""Tiny random models in double precision, and guesses of the quality that a scene asks for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from reference_impls.core.cache import Cache
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel
from reference_impls.testing.case import Scene

END, MASK = 1, 2  # the tokens that end a text of an encoder-decoder, and that stand for a hole
PERIOD = 3  # a noisy drafter is wrong at every third place of the text, and nowhere else


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


def broken(model: LanguageModel) -> LanguageModel:
    """A copy of a model whose logits are NaN."""
    copy = LanguageModel(model.shape).to(model.embedding.dtype)
    copy.load_state_dict(model.state_dict())
    nn.init.constant_(copy.norm.weight, float("nan"))
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


def drafter(scene: Scene) -> Any:
    """A drafter as good as the scene asks; its own one where it has one."""
    if scene.drafter is not None:
        return scene.drafter
    if scene.guess == "perfect":
        return scene.target
    if scene.guess == "noisy":
        return Erring.of(scene.target)
    vocab = scene.target.shape.vocab
    return language_model(vocab, seed={2: 281, 3: 170}.get(vocab, 1001), layers=1)


def drafters(scene: Scene) -> list[LanguageModel]:
    """Drafters, best first; a single one where a step makes few guesses, which is where laws are counted."""
    vocab, few = scene.target.shape.vocab, scene.guesses <= 2
    return [drafter(scene), *([] if few else [language_model(vocab, seed=1002, layers=1)])]


def text(scene: Scene) -> list[int]:
    """A text to retrieve from: a short random one, or the greedy text, as a `noisy` one wrong at every third place."""
    vocab = scene.target.shape.vocab
    if scene.guess == "random":
        with seeded(7):
            return torch.randint(vocab, (4 * vocab,)).tolist()
    wrong = range(0, 99, PERIOD) if scene.guess == "noisy" else range(0)
    return [(token + (place in wrong)) % vocab for place, token in enumerate(Foresight(0, scene).tokens)]


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
