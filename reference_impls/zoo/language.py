"""The zoo's language models: a two-layer drafter, and a target grown from it to twelve and then twenty-four layers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from reference_impls.core.model import LanguageModel, Shape
from reference_impls.zoo.corpus import read_corpus
from reference_impls.zoo.training import fit

VOCABULARY = 2048
END = "<|endoftext|>"  # token 0: stands before every file, so it begins and ends a text
DRAFTER = Shape(vocab=VOCABULARY, dim=128, layers=2, heads=4, kv_heads=4, head_dim=32, hidden=352)
EXITS = (2, 4, 6, 8, 12, 16, 20)  # after these layers the target can be read out
EXIT_WEIGHT = 0.3


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


def encode(texts: list[str], tokenizer: Tokenizer) -> Tensor:
    """All texts as one row of token ids [tokens], each text led by the end-of-text token."""
    rows = []
    for start in range(0, len(texts), 64):
        for found in tokenizer.encode_batch(texts[start : start + 64]):
            rows.append(torch.tensor([0, *found.ids], dtype=torch.int32))
    return torch.cat(rows)


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


def train_language_model(
    model: LanguageModel,
    data: Tensor,
    steps: int,
    *,
    batch: int = 6,
    length: int = 256,
    seed: int = 0,
    title: str = "language model",
    exits: bool = False,
    report: Callable[[int], str] | None = None,
    every: int = 500,
    rates: tuple[float, float] = (6e-3, 1e-2),
) -> list[float]:
    """Train on random windows; with `exits`, one exit a step is trained along with the last layer."""
    generator = torch.Generator().manual_seed(seed)
    depths = [e for e in EXITS if e < model.shape.layers]
    model.embedding.is_table = True  # type: ignore[attr-defined]

    def loss(step: int) -> Tensor:
        x = windows(data, batch, length, generator)
        with torch.autocast("cpu", torch.bfloat16):
            return exit_loss(model, x, depths[step % len(depths)]) if exits else next_token_loss(model, x)

    return fit(
        model.parameters(), loss, steps, title=title, report=report, every=every,
        matrix_rate=rates[0], other_rate=rates[1],
    )  # fmt: skip


@torch.inference_mode()
def held_out_loss(model: LanguageModel, data: Tensor, *, length: int = 256, exit_layer: int | None = None) -> float:
    """Mean cross-entropy in nats a token over consecutive windows; every window starts without context."""
    rows = data[: len(data) // length * length].view(-1, length).long()
    layers = range(model.shape.layers if exit_layer is None else exit_layer)
    total, count = 0.0, 0
    for x in rows.split(32):
        logits = model.logits(model.run(model.embed(x[:, :-1]), layers=layers))
        total += float(F.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten(), reduction="sum"))
        count += x[:, 1:].numel()
    return total / count


def bits_per_byte(nats: float, texts: list[str], tokens: int) -> float:
    """Nats a token as bits a byte of the same texts."""
    return nats * tokens / (math.log(2) * sum(len(t.encode()) for t in texts))
