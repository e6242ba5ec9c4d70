"""Language models that learn from the corpus, phase by phase, and grow between the phases."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from accelgen.training.corpora import licences, windows
from accelgen.training.fit import fit
from accelgen.training.recipe import Settings
from accelgen.training.shelf import Shelf
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel
from reference_impls.early_exiting import layerskip
from reference_impls.zoo.texts import END_OF_TEXT


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


@dataclasses.dataclass(frozen=True)
class Growth(Settings):
    """The phases of a model. After the layers in `exits` it learns to be read out, with this weight in the loss.

    `shape` is that of a model that begins with nothing; others begin with what they stand on.
    """

    shape: Shape | None = None
    phases: tuple[Phase, ...] = ()
    exits: tuple[int, ...] = ()
    exit_weight: float = 0.0

    def shortened(self, steps: int) -> Self:
        """The same phases with so many steps each."""
        return dataclasses.replace(self, phases=tuple(dataclasses.replace(each, steps=steps) for each in self.phases))


def corpus(_settings: Settings) -> dict[str, Any]:
    """What the manifest says of the text that is learnt from."""
    return {"what": "Python source of the standard library and of installed packages", "licences": licences()}


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    """A byte-level BPE of so many tokens, learnt from every third text of the corpus."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts[::3], trainer)
    return tokenizer


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


def exit_loss(model: LanguageModel, x: Tensor, exit_layer: int, weight: float) -> Tensor:
    """Cross-entropy of the last layer plus `weight` times that of one exit, read with the same head."""
    hidden = model.run(model.embed(x[:, :-1]), layers=range(exit_layer))
    final = model.run(hidden, layers=range(exit_layer, model.shape.layers))
    early, late = (F.cross_entropy(model.logits(h).float().flatten(0, 1), x[:, 1:].flatten()) for h in (hidden, final))
    return late + weight * early


def learn(shelf: Shelf, model: LanguageModel, settings: Growth) -> LanguageModel:
    """The model after all phases, trained in place where it need not grow."""
    for planned in settings.phases:
        if planned.layers > model.shape.layers:
            model = grow(model, planned.layers)
        learn_phase(model, shelf.rows(planned.library), settings, planned)
    return model


def learn_phase(model: LanguageModel, data: Tensor, settings: Growth, phase: Phase) -> list[float]:
    """Train on random windows of data [tokens]; a model with exits trains one of them a step along with its last layer.

    Returns the course of the loss.
    """
    generator = torch.Generator().manual_seed(phase.seed + settings.seed)
    depths = [e for e in settings.exits if e < model.shape.layers]
    model.embedding.is_table = True  # type: ignore[attr-defined]

    def loss(step: int) -> Tensor:
        x = windows(data, phase.batch, phase.length, generator)
        with torch.autocast("cpu", torch.bfloat16):
            if phase.dropout:
                return layerskip.loss(model, x, step, dropout=phase.dropout, generator=generator)
            if depths:
                return exit_loss(model, x, depths[step % len(depths)], settings.exit_weight)
            return next_token_loss(model, x)

    matrix_rate, other_rate = phase.rates
    return fit(
        model.parameters(), loss, phase.steps, matrix_rate=matrix_rate, other_rate=other_rate, decay=phase.decay,
        title=f"{model.shape.layers} layers",
    )  # fmt: skip


def thawed(model: LanguageModel) -> LanguageModel:
    """A stored model, ready to learn again."""
    return model.train().requires_grad_(requires_grad=True)
