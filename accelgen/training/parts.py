"""The zoo's trained parts: small modules that learn on the frozen target, such as heads, probes and drafting layers.

To add one, write an entry of `PARTS`: how it is made, its loss on a batch of windows, and its held-out figures.
`recipes.MODULES` lists it as a model of `parts`; `accelgen zoo train NAME` trains it. Constants of `language` are read
as `language.TARGET` when they are needed, so that a test can make the world smaller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from accelgen.training import free_adapters as adapters
from accelgen.training import language
from accelgen.training.fit import fit
from accelgen.training.quality import calibration, feature_accuracy, head_accuracy, probe_accuracy
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.early_exiting import calm
from reference_impls.early_exiting.calm import ExitClassifier
from reference_impls.speculative_decoding import blockwise_parallel_decoding, eagle, medusa
from reference_impls.speculative_decoding.blockwise_parallel_decoding import BlockHeads
from reference_impls.speculative_decoding.eagle import EagleDrafter
from reference_impls.speculative_decoding.medusa import MedusaHeads
from reference_impls.zoo.adapters import Adapters
from reference_impls.zoo.corpus import encode, prompts, read_corpus
from reference_impls.zoo.storage import WEIGHTS, load_state, save

BLOCK = 4  # tokens in a block of blockwise parallel decoding
REACH = 5  # tokens a step of Medusa can yield: four heads


@dataclass(frozen=True)
class Recipe:
    """How long a part learns, and from how much; it sees steps * batch * length tokens."""

    steps: int
    batch: int = 6
    length: int = 256
    rates: tuple[float, float] = (4e-3, 4e-3)  # of Muon and of AdamW


@dataclass(frozen=True)
class HeldOut:
    """What a part is measured on, none of it ever trained on: a row of tokens [n], and the encoded prompts."""

    tokens: Tensor
    prompts: list[list[int]]


@dataclass(frozen=True)
class Part:
    """One entry: what the part is, learns and is good for; `start` copies into it what it takes over from the target.

    `loss` is called with target, part, windows of text [batch, length + 1] and the number of the step.
    """

    blank: Callable[[], nn.Module]
    loss: Callable[[LanguageModel, Any, Tensor, int], Tensor]
    measure: Callable[[LanguageModel, Any, HeldOut], dict[str, Any]]
    recipe: Recipe
    start: Callable[[LanguageModel, Any], None] = lambda _target, _part: None


def _probe_figures(target: LanguageModel, probe: ExitClassifier, held_out: HeldOut) -> dict[str, Any]:
    found = probe_accuracy(target, probe, held_out.tokens, language.EXITS)
    return found | {"calibration": calibration(target, held_out.prompts, language.EXITS)}


def _medusa_figures(target: LanguageModel, heads: MedusaHeads, held_out: HeldOut, length: int = 256) -> dict[str, Any]:
    """How often the first and the first five guesses are the text's, and each rank the target's, which plans trees."""
    rows = held_out.tokens[: len(held_out.tokens) // length * length].view(-1, length).split(16)
    text = torch.stack([medusa.rank_accuracy(target, heads, x[:, :-1], wanted=x[:, 1:]) for x in rows]).mean(0)
    own = torch.stack([medusa.rank_accuracy(target, heads, x) for x in rows]).mean(0)
    found: dict[str, Any] = {
        f"held_out_top_{n}": {f"{i} ahead": round(float(row[:n].sum()), 4) for i, row in enumerate(text, start=2)}
        for n in (1, 5)
    }
    return found | {"accuracy_by_rank": [[round(a, 4) for a in row] for row in own.tolist()]}


def _eagle_figures(target: LanguageModel, drafter: EagleDrafter, held_out: HeldOut, limit: int = 48) -> dict[str, Any]:
    runs = [
        eagle.generate(target, prompt, limit, drafter=drafter, sampler=Sampler(0)) for prompt in held_out.prompts[:24]
    ]
    tokens, passes = (sum(found) for found in zip(*((len(run.tokens), run.passes) for run in runs), strict=True))
    found = feature_accuracy(target, drafter, held_out.tokens)
    return found | {"greedy_tokens_per_pass": round(tokens / passes, 3)}


PARTS: dict[str, Part] = {
    "block-heads": Part(
        blank=lambda: BlockHeads(language.TARGET, BLOCK),
        loss=lambda target, heads, x, _: blockwise_parallel_decoding.loss(target, heads, x),
        measure=lambda target, heads, held_out: head_accuracy(target, heads, held_out.tokens),
        recipe=Recipe(2_500),
    ),
    "exit-classifier": Part(
        blank=lambda: ExitClassifier(language.TARGET),
        loss=lambda target, probe, x, _: calm.classifier_loss(target, probe, x, language.EXITS),
        measure=_probe_figures,
        recipe=Recipe(1_000),
    ),
    "free-adapters": Part(
        blank=lambda: Adapters(language.TARGET),
        loss=lambda target, own, x, _: adapters.loss(target, own, x),
        measure=lambda target, own, held_out: adapters.measure(target, own, held_out.tokens, held_out.prompts),
        recipe=Recipe(600, batch=3, rates=(2e-3, 2e-3)),
    ),
    "medusa-heads": Part(
        blank=lambda: MedusaHeads(language.TARGET, REACH),
        start=lambda target, heads: heads.start_from(target),
        loss=lambda target, heads, x, _: medusa.loss(target, heads, x, distil=True),
        measure=_medusa_figures,
        recipe=Recipe(2_000, rates=(4e-3, 2e-3)),
    ),
    "eagle-drafter": Part(
        blank=lambda: EagleDrafter(language.TARGET),
        loss=lambda target, drafter, x, _: eagle.loss(target, drafter, x),
        measure=_eagle_figures,
        recipe=Recipe(2_000),
    ),
}


def blank(name: str) -> nn.Module:
    """An untrained part."""
    return PARTS[name].blank()


def train(
    name: str, *, folder: Path = WEIGHTS, steps: int | None = None, seed: int = 0, data: Tensor | None = None
) -> dict[str, Any]:
    """Train a part on the target in `folder`, store it there with its facts, and return the manifest entry.

    `data` is a row of encoded training tokens [n], where it is at hand; else the corpus is read and encoded, which
    takes minutes.
    """
    entry = PARTS[name]
    recipe = replace(entry.recipe, steps=steps or entry.recipe.steps)
    target, tokenizer = _target(folder)
    rows = encode(read_corpus(library=6)["train"], tokenizer) if data is None else data
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        part = entry.blank()
        entry.start(target, part)

        def loss(step: int) -> Tensor:
            x = language.windows(rows, recipe.batch, recipe.length, generator)
            with torch.autocast("cpu", torch.bfloat16):
                return entry.loss(target, part, x, step)

        matrix_rate, other_rate = recipe.rates
        fit(part.parameters(), loss, recipe.steps, title=name, matrix_rate=matrix_rate, other_rate=other_rate)
        part.half().float().eval()  # as it will be stored
        found = entry.measure(target, part, _held_out(tokenizer))
    facts = {"recipe": {**asdict(recipe), "seed": seed, "on": "target"}, "quality": found}
    return save(name, part, folder=folder, **facts)


def quality(name: str, *, folder: Path = WEIGHTS) -> dict[str, Any]:
    """The held-out figures of a stored part, measured anew."""
    target, tokenizer = _target(folder)
    part = blank(name)
    part.load_state_dict(load_state(name, folder=folder))
    return PARTS[name].measure(target, part.eval(), _held_out(tokenizer))


def _target(folder: Path) -> tuple[LanguageModel, Tokenizer]:
    """The frozen target in `folder`, and its tokenizer."""
    target = LanguageModel(language.TARGET)
    target.load_state_dict(load_state("target", folder=folder))
    return target.eval().requires_grad_(requires_grad=False), Tokenizer.from_file(str(folder / "tokenizer.json"))


def _held_out(tokenizer: Tokenizer) -> HeldOut:
    tokens = encode(read_corpus()["library"], tokenizer)[:60_000].long()
    return HeldOut(tokens, [list(tokenizer.encode(text).ids) for text in prompts()])
