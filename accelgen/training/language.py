"""The zoo's language models: a two-layer drafter, and a target grown from it to twelve and then twenty-four layers.

The target's last phase follows the recipe of LayerSkip, so that it can be read out after any layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from accelgen.project.files import write_whole
from accelgen.training.fit import fit
from accelgen.training.quality import quality
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel
from reference_impls.early_exiting import layerskip
from reference_impls.zoo.corpus import encode, licences, read_corpus
from reference_impls.zoo.storage import load_state, save

VOCABULARY = 2048
END = "<|endoftext|>"  # token 0: stands before every file, so it begins and ends a text
DRAFTER = Shape(vocab=VOCABULARY, dim=128, layers=2, heads=4, kv_heads=4, head_dim=32, hidden=352)
TARGET = dataclasses.replace(DRAFTER, layers=24)
EXITS = (2, 4, 6, 8, 12, 16, 20)  # after these layers the target can be read out
EXIT_WEIGHT = 0.3


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stretch of training: the model grows to `layers` and sees steps * batch * length tokens."""

    layers: int
    steps: int
    batch: int
    length: int
    rates: tuple[float, float]  # of Muon and of AdamW
    decay: float  # share of the steps in which the rates fall to zero
    library: int  # how often the standard library stands in the corpus
    seed: int
    dropout: float = 0.0  # LayerSkip's, of the last layer; above 0 the whole recipe of LayerSkip applies


PHASES = {
    "drafter": (
        Phase(2, 10_000, 6, 256, (6e-3, 1e-2), 0.5, library=2, seed=0),
        Phase(2, 2_500, 3, 512, (3e-3, 3e-3), 1.0, library=6, seed=3),
    ),
    "target": (
        Phase(12, 2_500, 6, 256, (4e-3, 5e-3), 0.0, library=6, seed=1),
        Phase(24, 2_700, 3, 512, (4e-3, 4e-3), 0.6, library=6, seed=2),
        Phase(24, 1_200, 3, 512, (3e-3, 3e-3), 0.8, library=6, seed=4, dropout=0.1),
    ),
}


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """A byte-level BPE of 2048 tokens, learnt from every third text of the corpus."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts[::3], trainer)
    return tokenizer


def windows(data: Tensor, count: int, length: int, generator: torch.Generator) -> Tensor:
    """`count` random windows of `length` + 1 tokens [count, length + 1]."""
    starts = torch.randint(len(data) - length - 1, (count, 1), generator=generator)
    return data[starts + torch.arange(length + 1)].long()


def grow(model: LanguageModel, layers: int) -> LanguageModel:
    """A deeper model that computes the same function: the new layers add nothing until they learn to."""
    deep = LanguageModel(dataclasses.replace(model.shape, layers=layers))
    deep.load_state_dict(model.state_dict(), strict=False)
    silence(deep, range(model.shape.layers, layers))
    return deep


def silence(model: LanguageModel, layers: range) -> None:
    """Make `layers` the identity by clearing the projections with which they write."""
    with torch.no_grad():
        for layer in layers:
            model.blocks[layer].attention.out.zero_()
            model.blocks[layer].down.zero_()


def next_token_loss(model: LanguageModel, x: Tensor) -> Tensor:
    """Mean cross-entropy in nats of tokens 1… of the windows x [batch, tokens]."""
    logits = model(x[:, :-1])
    return F.cross_entropy(logits.float().flatten(0, 1), x[:, 1:].flatten())


def exit_loss(model: LanguageModel, x: Tensor, exit_layer: int) -> Tensor:
    """Cross-entropy of the last layer plus EXIT_WEIGHT times that of one exit, read with the same head."""
    hidden = model.run(model.embed(x[:, :-1]), layers=range(exit_layer))
    final = model.run(hidden, layers=range(exit_layer, model.shape.layers))
    early, late = (F.cross_entropy(model.logits(h).float().flatten(0, 1), x[:, 1:].flatten()) for h in (hidden, final))
    return late + EXIT_WEIGHT * early


def blank(name: str) -> LanguageModel:
    """An untrained model of this family of the zoo."""
    return LanguageModel({"drafter": DRAFTER, "target": TARGET}[name])


def train(name: str, *, folder: Path, steps: int | None = None, seed: int = 0) -> dict[str, Any]:
    """Train and store one model of this family; what it stands on must be in `folder` already."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return train_stack(name, folder, steps, seed)


def train_stack(name: str, folder: Path, steps: int | None, seed: int) -> dict[str, Any]:
    """The drafter from nothing, or the target grown from the drafter."""
    if name == "drafter":
        tokenizer = train_tokenizer(read_corpus()["train"])
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "tokenizer.json", tokenizer.to_str(pretty=True))
        model = LanguageModel(DRAFTER)
        silence(model, range(DRAFTER.layers))
    else:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        model = LanguageModel(DRAFTER)
        model.load_state_dict(load_state("drafter", folder=folder))
    for planned in PHASES[name]:
        data = encode(read_corpus(planned.library)["train"], tokenizer)
        if planned.layers > model.shape.layers:
            model = grow(model, planned.layers)
        phase = dataclasses.replace(planned, steps=steps or planned.steps, seed=planned.seed + seed)
        train_language_model(model, data, phase)
    exits = EXITS if name == "target" else ()
    recipe = {
        "phases": [dataclasses.asdict(phase) for phase in PHASES[name]],
        **({"exits": list(exits), "exit_weight": EXIT_WEIGHT} if exits else {}),
        "seed": seed,
        "shape": dataclasses.asdict(model.shape),
    }
    corpus = {"what": "Python source of the standard library and of installed packages", "licences": licences()}
    return save(
        name, model, folder=folder, recipe=recipe, corpus=corpus, quality=quality(model.eval(), tokenizer, exits)
    )


def train_language_model(
    model: LanguageModel, data: Tensor, phase: Phase, *, report: Callable[[int], str] | None = None, every: int = 500
) -> list[float]:
    """Train on random windows of data [tokens]; a deep model trains some exits along with its last layer."""
    generator = torch.Generator().manual_seed(phase.seed)
    depths = [e for e in EXITS if e < model.shape.layers]
    model.embedding.is_table = True  # type: ignore[attr-defined]

    def loss(step: int) -> Tensor:
        x = windows(data, phase.batch, phase.length, generator)
        with torch.autocast("cpu", torch.bfloat16):
            if phase.dropout:
                return layerskip.loss(model, x, step, dropout=phase.dropout, generator=generator)
            return exit_loss(model, x, depths[step % len(depths)]) if depths else next_token_loss(model, x)

    matrix_rate, other_rate = phase.rates
    return fit(
        model.parameters(), loss, phase.steps, matrix_rate=matrix_rate, other_rate=other_rate, decay=phase.decay,
        title=f"{model.shape.layers} layers", report=report, every=every,
    )  # fmt: skip
