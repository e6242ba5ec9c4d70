"""The zoo's second drafter: tuned, as in SpecInfer, on the places where the first one misses what the target says."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from accelgen.training import language
from accelgen.training.fit import fit
from accelgen.training.parts import Recipe
from reference_impls.core.model import LanguageModel
from reference_impls.speculative_decoding import specinfer
from reference_impls.zoo.corpus import encode, read_corpus
from reference_impls.zoo.storage import WEIGHTS, load_state, save

RECIPE = Recipe(steps=300, batch=4, length=256, rates=(3e-3, 3e-3))
REST = 0.1  # what a place that the first drafter gets right weighs beside one that it misses


def blank(_name: str) -> LanguageModel:
    """An untrained model of the first drafter's shape."""
    return LanguageModel(language.DRAFTER)


def train(
    name: str, *, folder: Path = WEIGHTS, steps: int | None = None, seed: int = 0, data: Tensor | None = None
) -> dict[str, Any]:
    """Tune a copy of the first drafter in `folder`, store it there with its facts, and return the manifest entry.

    `data` is a row of encoded training tokens [n], where it is at hand; else the corpus is read and encoded.
    """
    recipe = replace(RECIPE, steps=steps or RECIPE.steps)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    target, first, boosted = (_load(other, folder) for other in ("target", "drafter", "drafter"))
    boosted.train().requires_grad_(requires_grad=True)
    boosted.embedding.is_table = True  # type: ignore[attr-defined]
    rows = encode(read_corpus(library=6)["train"], tokenizer) if data is None else data
    generator = torch.Generator().manual_seed(seed)

    def loss(_: int) -> Tensor:
        x = language.windows(rows, recipe.batch, recipe.length, generator)
        with torch.autocast("cpu", torch.bfloat16):
            return specinfer.loss(target, [first], boosted, x, rest=REST)

    matrix_rate, other_rate = recipe.rates
    fit(
        boosted.parameters(), loss, recipe.steps, title=name,
        matrix_rate=matrix_rate, other_rate=other_rate, decay=1.0,
    )  # fmt: skip
    boosted.half().float().eval()  # as it will be stored
    facts = asdict(recipe) | {"rest": REST, "seed": seed, "from": "drafter", "on": "target"}
    return save(name, boosted, folder=folder, recipe=facts, quality=coverage(target, first, boosted, tokenizer))


def quality(name: str, *, folder: Path = WEIGHTS) -> dict[str, Any]:
    """The held-out figures of the stored model, measured anew."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    target, first, boosted = (_load(other, folder) for other in ("target", "drafter", name))
    return coverage(target, first, boosted, tokenizer)


@torch.inference_mode()
def coverage(
    target: LanguageModel, first: LanguageModel, boosted: LanguageModel, tokenizer: Tokenizer, length: int = 256
) -> dict[str, Any]:
    """Shares of held-out places where the target's best token is guessed, by each drafter and by one of the two."""
    data = encode(read_corpus()["library"], tokenizer)[:60_000].long()
    rows = data[: len(data) // length * length].view(-1, length)
    hits: dict[str, list[Tensor]] = {}
    for x in rows.split(16):
        best = target(x).argmax(-1, keepdim=True)
        one, two = (model(x).topk(2).indices for model in (first, boosted))
        found = {
            "drafter": one[..., :1] == best,
            "drafter-boosted": two[..., :1] == best,
            "one of the two": (one[..., :1] == best) | (two[..., :1] == best),
            "drafter, top 2": one == best,
        }
        for key, hit in found.items():
            hits.setdefault(key, []).append(hit.any(-1).float().flatten())
    return {"held_out_coverage": {key: round(float(torch.cat(each).mean()), 4) for key, each in hits.items()}}


def _load(name: str, folder: Path) -> LanguageModel:
    """A frozen model of the family."""
    model = blank(name) if name != "target" else LanguageModel(language.TARGET)
    model.load_state_dict(load_state(name, folder=folder))
    return model.eval().requires_grad_(requires_grad=False)
