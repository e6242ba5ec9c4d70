"""The zoo's translation models: an autoregressive one for each of the two toy tasks, and those that learn from it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import random
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from accelgen.training.alignment import fertilities
from accelgen.training.fit import fit
from reference_impls.core.cache import Cache
from reference_impls.core.layers import Shape
from reference_impls.core.sampling import Sampler
from reference_impls.core.seq2seq import EncoderDecoder
from reference_impls.non_autoregressive import mask_predict, nart_crf, nat_fertility
from reference_impls.non_autoregressive.mask_predict import ConditionalMaskedModel
from reference_impls.non_autoregressive.nart_crf import StructuredModel
from reference_impls.non_autoregressive.nat_fertility import FertilityModel
from reference_impls.zoo.errors import ZooError
from reference_impls.zoo.storage import WEIGHTS, load_state, manifest, save, update_manifest
from reference_impls.zoo.tasks import END, HELD_OUT, MASK, PAD, Example, Frh, Task, clean, task

Pair = tuple[list[int], list[int]]
Kind = Literal["autoregressive", "masked", "fertility", "chain"]
TABLES = {"embedding", "positions", "lengths.table", "transitions.before", "transitions.after"}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a model is trained. With a `teacher` its targets are the teacher's greedy translations (distillation)."""

    task: str
    kind: Kind
    steps: int
    pairs: int
    batch: int = 32
    teacher: str | None = None
    matrix_rate: float = 6e-3
    other_rate: float = 1e-2
    seed: int = 0


RECIPES = {
    "translation-ar": Recipe("lite", "autoregressive", steps=1500, pairs=60_000),
    "translation-masked": Recipe("lite", "masked", steps=3000, pairs=24_000, batch=64, teacher="translation-ar"),
    "translation-fertility": Recipe("lite", "fertility", steps=2000, pairs=24_000, batch=64, teacher="translation-ar"),
    "translation-crf": Recipe("lite", "chain", steps=2000, pairs=24_000, batch=64, teacher="translation-ar"),
    "spelling-ar": Recipe("frh", "autoregressive", steps=2500, pairs=60_000),
    "spelling-masked": Recipe("frh", "masked", steps=2000, pairs=60_000, batch=64),
}

COUNT = 1000  # held-out sentences that a model is measured on
READINGS: dict[str, dict[str, Any]] = {  # the ways in which a masked model is measured
    "iterations 1": {"iterations": 1, "candidates": 1},
    "iterations 4": {"iterations": 4, "candidates": 1},
    "iterations 10": {"iterations": 10, "candidates": 1},
    "iterations 10, 3 lengths": {"iterations": 10, "candidates": 3},
    "iterations 10, 3 lengths, length_weight 1": {"iterations": 10, "candidates": 3, "length_weight": 1.0},
}
PLAN_READINGS: dict[str, dict[str, Any]] = {  # the ways in which one that plans fertilities is
    "likeliest plan": {"decoding": "argmax"},
    "average plan": {"decoding": "average"},
    "10 plans": {"decoding": "noisy", "samples": 10},
    "100 plans": {"decoding": "noisy", "samples": 100},
    "100 plans, temperature 3": {"decoding": "noisy", "samples": 100, "temperature": 3},
}
BEAM = 16  # candidates for each place in a chain
CHAIN_READINGS: dict[str, dict[str, Any]] = {  # the ways in which one with a chain is; without `bias` told the length
    "logits alone, length known": {"beam": 1},
    "chain, length known": {"beam": BEAM},
    "logits alone, 5 lengths": {"beam": 1, "bias": -1, "candidates": 5},
    "chain, 5 lengths": {"beam": BEAM, "bias": -1, "candidates": 5},
    "chain, 1 length": {"beam": BEAM, "bias": -1},
}


def blank(name: str) -> EncoderDecoder:
    """An untrained model of the right shape."""
    recipe = RECIPES[name]
    own = task(recipe.task)
    shape = Shape(vocab=len(own.vocabulary), dim=128, layers=2, heads=4, kv_heads=4, head_dim=32, hidden=352)
    if recipe.kind == "masked":
        return ConditionalMaskedModel(shape, own.longest, pad=PAD, mask_id=MASK)
    if recipe.kind == "fertility":
        return FertilityModel(shape, own.longest, pad=PAD, end=END)
    if recipe.kind == "chain":
        return StructuredModel(shape, own.longest, pad=PAD, end=END)
    return EncoderDecoder(shape, own.longest)


def padded(rows: list[list[int]]) -> Tensor:
    """Rows of token ids as one tensor [batch, longest of them]."""
    width = max(map(len, rows))
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])


def batches(rows: Sequence[tuple[list[int], ...]], size: int, seed: int = 0) -> Iterator[tuple[Tensor, ...]]:
    """Random batches of sources, targets and what else a row holds; rows of about the same length come together."""
    chance = random.Random(seed)
    while True:
        rows = chance.sample(rows, len(rows))
        for start in range(0, len(rows), 50 * size):
            near = sorted(rows[start : start + 50 * size], key=lambda row: (len(row[1]), len(row[0])))
            groups = [near[i : i + size] for i in range(0, len(near), size)]
            for group in chance.sample(groups, len(groups)):
                yield tuple(padded(list(column)) for column in zip(*group, strict=True))


def autoregressive_loss(model: EncoderDecoder, source: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy in nats of each target token and the end, given the ones before it."""
    shifted = F.pad(target, (1, 0), value=END)  # the decoder starts from END
    wanted = F.pad(target, (0, 1), value=PAD)
    wanted[torch.arange(len(target)), (target != PAD).sum(-1)] = END
    logits = model.logits(model.decode(shifted, model.encode(source, source != PAD)))
    return F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=PAD)


class BatchCache(Cache):
    """A cache for many canvases of equal length: the batch hides among the heads."""

    def __init__(self, model: EncoderDecoder, batch: int) -> None:
        shape = model.shape
        super().__init__(shape.layers, batch * shape.kv_heads, shape.head_dim, model.embedding.dtype, model.device)
        self.batch = batch

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values [batch, kv_heads, new, head_dim]; return all of the layer's."""
        k, v = super().append(layer, k.flatten(0, 1), v.flatten(0, 1))
        return k.unflatten(0, (self.batch, -1)), v.unflatten(0, (self.batch, -1))


@torch.inference_mode()
def translate_all(model: EncoderDecoder, sources: list[list[int]], limit: int, batch: int = 256) -> list[list[int]]:
    """Greedy autoregressive translations of many sources; those of about the same length go together."""
    found: dict[int, list[int]] = {}
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        source = padded([sources[i] for i in rows])
        memory, cache = model.encode(source, source != PAD), BatchCache(model, len(rows))
        token = torch.full((len(rows), 1), END)
        tokens = token[:, :0]
        while tokens.shape[1] < limit and not (tokens == END).any(1).all():
            token = model.logits(model.decode(token, memory, cache)).argmax(-1)
            tokens = torch.cat((tokens, token), 1)
        found.update(zip(rows, map(clean, tokens.tolist()), strict=True))
    return [found[i] for i in range(len(sources))]


def training_pairs(recipe: Recipe, teacher: EncoderDecoder | None = None) -> list[Pair]:
    """The pairs that a recipe learns from: raw ones, or the sources with the teacher's translations."""
    own = task(recipe.task)
    pairs = own.pairs(recipe.pairs, seed=recipe.seed)
    if teacher is None:
        return pairs
    sources = [source for source, _ in pairs]
    return list(zip(sources, translate_all(teacher, sources, own.longest), strict=True))


def learn(name: str, recipe: Recipe, pairs: list[Pair]) -> EncoderDecoder:
    """Train the model `name` on `pairs`, with a progress bar; round its weights as they will be stored."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = blank(name)
    for key, parameter in model.named_parameters():
        parameter.is_table = key in TABLES  # type: ignore[attr-defined]
    rows: Sequence[tuple[list[int], ...]] = pairs
    if isinstance(model, FertilityModel):
        plans = fertilities(pairs, model.shape.vocab)
        rows = [(*pair, plan) for pair, plan in zip(pairs, plans, strict=True)]
    data = batches(rows, recipe.batch, recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)

    def loss(_: int) -> Tensor:
        source, target, *more = next(data)
        if isinstance(model, ConditionalMaskedModel):
            return mask_predict.loss(model, source, target, generator=generator)
        if isinstance(model, FertilityModel):
            return nat_fertility.loss(model, source, target, *more)
        if isinstance(model, StructuredModel):
            return nart_crf.loss(model, source, target, beam=BEAM)
        return autoregressive_loss(model, source, target)

    fit(
        model.parameters(), loss, recipe.steps, title=name,
        matrix_rate=recipe.matrix_rate, other_rate=recipe.other_rate,
    )  # fmt: skip
    return model.half().float().eval()


def train(name: str, *, folder: Path = WEIGHTS, steps: int | None = None, seed: int = 0) -> dict[str, Any]:
    """Train a model, store it with its facts in `folder`, and return the manifest entry.

    Raises ZooError where the recipe needs a teacher that is not in `folder`.
    """
    recipe = RECIPES[name]
    recipe = dataclasses.replace(recipe, steps=steps or recipe.steps, seed=seed)
    teacher = load(recipe.teacher, folder=folder) if recipe.teacher else None
    model = learn(name, recipe, training_pairs(recipe, teacher))
    corpus = {
        "task": recipe.task,
        "split": f"a source is held out if its SHA-256 says so, one in {HELD_OUT}",
        "number words": f"num2words {importlib.metadata.version('num2words')} (LGPL, a dependency, not included)",
    }
    if recipe.teacher:
        corpus["teacher"] = f"{recipe.teacher}, SHA-256 {manifest(folder)[recipe.teacher]['sha256']}"
    facts = {"recipe": dataclasses.asdict(recipe), "quality": measure(name, model, COUNT, teacher), "corpus": corpus}
    return save(name, model, folder=folder, **facts)


def load(name: str, *, folder: Path = WEIGHTS) -> EncoderDecoder:
    """A trained model from `folder`."""
    state = load_state(name, folder=folder)
    with torch.device("meta"):
        model = blank(name)
    model.load_state_dict(state, assign=True)
    return model.eval()


def quality(name: str, *, folder: Path = WEIGHTS) -> dict[str, Any]:
    """The held-out figures of a stored model, measured anew."""
    teacher = RECIPES[name].teacher
    return measure(name, load(name, folder=folder), COUNT, load(teacher, folder=folder) if teacher else None)


def contrast(name: str = "translation-masked", *, folder: Path = WEIGHTS) -> dict[str, Any]:
    """What distillation is worth: train a model with a teacher on raw pairs and note the figures beside its own."""
    recipe = RECIPES[name]
    if recipe.teacher is None:
        raise ZooError(f"{name} learns from no teacher, so there is nothing to compare: name a model that does")
    teacher, recipe = load(recipe.teacher, folder=folder), dataclasses.replace(recipe, teacher=None)
    found = measure(name, learn(name, recipe, training_pairs(recipe)), COUNT, teacher)
    update_manifest(name, {**manifest(folder)[name], "quality_without_distillation": found}, folder=folder)
    return found


@torch.inference_mode()
def measure(name: str, model: EncoderDecoder, count: int, teacher: EncoderDecoder | None = None) -> dict[str, Any]:
    """Shares of `count` held-out sources, none of them ever trained on; a translation is right or it is not.

    The `teacher` chooses among translations where a method lets it.
    """
    own = task(RECIPES[name].task)
    found = list(islice(own.examples(held_out=True, seed=1), count))
    sources = [own.encode(example.source) for example in found]
    if isinstance(model, FertilityModel):
        return {"n": count, **plan_figures(model, own, found, teacher)}
    if isinstance(model, StructuredModel):
        return {"n": count, **chain_figures(model, own, found, teacher)}
    if not isinstance(model, ConditionalMaskedModel):
        return {"n": count, "greedy": verdict(own, found, translate_all(model, sources, own.longest))}
    report: dict[str, Any] = {"n": count}
    for label, options in READINGS.items():
        outputs = [mask_predict.generate(model, source, **options).tokens for source in sources]
        report[label] = verdict(own, found, outputs)
    return report


def plan_figures(
    model: FertilityModel, own: Task, examples: Sequence[Example], teacher: EncoderDecoder | None
) -> dict[str, dict[str, float]]:
    """The verdict on every reading of a model that plans fertilities."""
    report = {}
    for label, reading in PLAN_READINGS.items():
        outputs = []
        for example in examples:
            options = {"temperature": 1.0} | reading
            sampler = Sampler(options.pop("temperature"))
            source = own.encode(example.source)
            result = nat_fertility.generate(model, source, teacher=teacher, sampler=sampler, **options)
            outputs.append(result.tokens)
        report[label] = verdict(own, examples, outputs)
    return report


def chain_figures(
    model: StructuredModel, own: Task, examples: Sequence[Example], teacher: EncoderDecoder | None
) -> dict[str, dict[str, float]]:
    """The verdict on every reading of a model with a chain."""
    report = {}
    for label, options in CHAIN_READINGS.items():
        outputs = []
        for example in examples:
            source, reference = own.encode(example.source), own.encode(example.references[0])
            known = {"bias": len(reference) - len(source), "candidates": 1} | options
            judge = teacher if known["candidates"] > 1 else None
            outputs.append(nart_crf.generate(model, source, teacher=judge, **known).tokens)
        report[label] = verdict(own, examples, outputs)
    return report


def verdict(own: Task, examples: Sequence[Example], outputs: Sequence[Sequence[int]]) -> dict[str, float]:
    """Shares of outputs that match a reference, that have a reference's length, and (frh) that mix two spellings."""
    both = list(zip(outputs, examples, strict=True))
    counts = {
        "exact_match": sum(own.is_correct(output, example) for output, example in both),
        "right_length": sum(len(clean(output)) == len(own.encode(example.references[0])) for output, example in both),
    }
    if isinstance(own, Frh):
        counts["mixed"] = sum(own.is_mixed(output, example) for output, example in both)
    return {key: count / len(both) for key, count in counts.items()}
