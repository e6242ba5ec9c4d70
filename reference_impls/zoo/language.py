"""The zoo's language models: a two-layer drafter, and a target grown from it to twelve and then twenty-four layers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn

from reference_impls.autoregressive import generate
from reference_impls.core.generation import Generation
from reference_impls.core.model import LanguageModel, Shape
from reference_impls.core.sampling import Sampler
from reference_impls.early_exiting import calm
from reference_impls.early_exiting.calm import ExitClassifier
from reference_impls.files import write_whole
from reference_impls.speculative_decoding import blockwise_parallel_decoding
from reference_impls.speculative_decoding.blockwise_parallel_decoding import BlockHeads
from reference_impls.zoo.corpus import licences, prompts, read_corpus
from reference_impls.zoo.storage import load_state, save
from reference_impls.zoo.training import fit

VOCABULARY = 2048
END = "<|endoftext|>"  # token 0: stands before every file, so it begins and ends a text
DRAFTER = Shape(vocab=VOCABULARY, dim=128, layers=2, heads=4, kv_heads=4, head_dim=32, hidden=352)
TARGET = dataclasses.replace(DRAFTER, layers=24)
EXITS = (2, 4, 6, 8, 12, 16, 20)  # after these layers the target can be read out
EXIT_WEIGHT = 0.3
BLOCK = 4  # tokens in a block of blockwise parallel decoding


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


PHASES = {
    "drafter": (
        Phase(2, 10_000, 6, 256, (6e-3, 1e-2), 0.5, library=2, seed=0),
        Phase(2, 2_500, 3, 512, (3e-3, 3e-3), 1.0, library=6, seed=3),
    ),
    "target": (
        Phase(12, 2_500, 6, 256, (4e-3, 5e-3), 0.0, library=6, seed=1),
        Phase(24, 2_700, 3, 512, (4e-3, 4e-3), 0.6, library=6, seed=2),
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


def encode(texts: list[str], tokenizer: Tokenizer) -> Tensor:
    """All texts as one row of token ids [tokens], each text led by the end-of-text token."""
    rows: list[Tensor] = []
    for start in range(0, len(texts), 64):
        found = tokenizer.encode_batch(texts[start : start + 64])
        rows += [torch.tensor([0, *each.ids], dtype=torch.int32) for each in found]
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


def distinct_trigrams(texts: Sequence[Sequence[int]]) -> float:
    """Share of different 3-grams among all 3-grams of each text, averaged: near 0 for text that loops."""
    shares = []
    for text in texts:
        grams = list(zip(text, text[1:], text[2:], strict=False))
        shares.append(len(set(grams)) / len(grams))
    return sum(shares) / len(shares)


def quality(model: LanguageModel, tokenizer: Tokenizer, *, tokens: int = 100_000, length: int = 512) -> dict[str, Any]:
    """Held-out figures: loss by split and by exit, and how varied the text is that the model writes."""
    splits = read_corpus()
    del splits["train"]
    found: dict[str, Any] = {"held_out": {}, "windows": length}
    for split, texts in splits.items():
        data = encode(texts, tokenizer)
        per_byte = len(data) / sum(len(text.encode()) for text in texts)
        nats = held_out_loss(model, data[:tokens], length=length)
        bits = nats * per_byte / math.log(2)
        found["held_out"][split] = {"nats_per_token": round(nats, 4), "bits_per_byte": round(bits, 4)}
        if split == "library" and model.shape.layers > max(EXITS):
            exits = {str(e): held_out_loss(model, data[:tokens], length=length, exit_layer=e) for e in EXITS}
            found["exits_nats_per_token"] = {e: round(loss, 4) for e, loss in exits.items()}
    for name, temperature in (("greedy", 0.0), ("temperature_0.8", 0.8)):
        sampler = Sampler(temperature)
        written = [generate(model, tokenizer.encode(p).ids, 128, sampler=sampler).tokens for p in prompts()[:24]]
        found.setdefault("distinct_3_grams", {})[name] = round(distinct_trigrams(written), 3)
    return found


def blank(name: str) -> nn.Module:
    """An untrained model of this family of the zoo."""
    blanks: dict[str, Callable[[], nn.Module]] = {
        "drafter": lambda: LanguageModel(DRAFTER),
        "target": lambda: LanguageModel(TARGET),
        "block-heads": lambda: BlockHeads(TARGET, BLOCK),
        "exit-classifier": lambda: ExitClassifier(TARGET),
    }
    return blanks[name]()


def train(name: str, *, folder: Path, steps: int | None = None, seed: int = 0) -> dict[str, Any]:
    """Train and store one model of this family; what it stands on must be in `folder` already."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name in PHASES:
            return train_stack(name, folder, steps, seed)
        return train_part(name, folder, steps or PART_STEPS[name], seed)


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
    recipe = {
        "phases": [dataclasses.asdict(phase) for phase in PHASES[name]],
        "exits": list(EXITS) if name == "target" else [],
        "exit_weight": EXIT_WEIGHT,
        "seed": seed,
        "shape": dataclasses.asdict(model.shape),
    }
    corpus = {"what": "Python source of the standard library and of installed packages", "licences": licences()}
    return save(name, model, folder=folder, recipe=recipe, corpus=corpus, quality=quality(model.eval(), tokenizer))


def train_language_model(
    model: LanguageModel, data: Tensor, phase: Phase, *, report: Callable[[int], str] | None = None, every: int = 500
) -> list[float]:
    """Train on random windows of data [tokens]; a deep model trains one exit a step along with its last layer."""
    generator = torch.Generator().manual_seed(phase.seed)
    depths = [e for e in EXITS if e < model.shape.layers]
    model.embedding.is_table = True  # type: ignore[attr-defined]

    def loss(step: int) -> Tensor:
        x = windows(data, phase.batch, phase.length, generator)
        with torch.autocast("cpu", torch.bfloat16):
            return exit_loss(model, x, depths[step % len(depths)]) if depths else next_token_loss(model, x)

    matrix_rate, other_rate = phase.rates
    return fit(
        model.parameters(), loss, phase.steps, matrix_rate=matrix_rate, other_rate=other_rate, decay=phase.decay,
        title=f"{model.shape.layers} layers", report=report, every=every,
    )  # fmt: skip


PART_STEPS = {"block-heads": 1_000, "exit-classifier": 300}


def train_part(name: str, folder: Path, steps: int, seed: int) -> dict[str, Any]:
    """Modules trained on the frozen target: the heads of blockwise decoding, the exit classifier of CALM."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    target = LanguageModel(TARGET)
    target.load_state_dict(load_state("target", folder=folder))
    target.requires_grad_(requires_grad=False)
    texts = read_corpus(library=6)
    data, held_out = encode(texts["train"], tokenizer), encode(texts["library"], tokenizer)[:60_000].long()
    generator = torch.Generator().manual_seed(seed)
    part = blank(name)

    def loss(_: int) -> Tensor:
        x = windows(data, 6, 256, generator)
        with torch.autocast("cpu", torch.bfloat16):
            if isinstance(part, BlockHeads):
                return blockwise_parallel_decoding.loss(target, part, x)
            assert isinstance(part, ExitClassifier)
            return calm.classifier_loss(target, part, x, EXITS)

    fit(part.parameters(), loss, steps, title=name, matrix_rate=4e-3, other_rate=4e-3)
    if isinstance(part, BlockHeads):
        found = head_accuracy(target, part, held_out)
    else:
        found = probe_accuracy(target, part, held_out) | {"calibration": calibration(target, tokenizer)}
    recipe = {"steps": steps, "batch": 6, "length": 256, "seed": seed, "on": "target"}
    return save(name, part, folder=folder, recipe=recipe, quality=found)


@torch.inference_mode()
def head_accuracy(target: LanguageModel, heads: nn.Module, data: Tensor, length: int = 256) -> dict[str, Any]:
    """How often each head's argmax is the held-out token that far ahead."""
    rows = data[: len(data) // length * length].view(-1, length)
    hits: dict[str, list[float]] = {}
    for x in rows.split(16):
        for i, ahead in enumerate(heads(target.norm(target.run(target.embed(x))))):
            right = target.project(ahead)[:, : -i - 2].argmax(-1) == x[:, i + 2 :]
            hits.setdefault(f"{i + 2} ahead", []).append(float(right.float().mean()))
    return {"held_out_top_1": {name: round(sum(found) / len(found), 4) for name, found in hits.items()}}


@torch.inference_mode()
def probe_accuracy(target: LanguageModel, probe: nn.Module, data: Tensor, length: int = 256) -> dict[str, Any]:
    """How often the probe is right about whether an exit agrees with the last layer, and how often they agree."""
    rows = data[: len(data) // length * length].view(-1, length)[:64]
    states, x = [], target.embed(rows)
    for start, stop in zip([0, *EXITS], [*EXITS, target.shape.layers], strict=True):
        x = target.run(x, layers=range(start, stop))
        states.append(x)
    final = target.logits(x).argmax(-1)
    found: dict[str, Any] = {"held_out_agreement": {}, "held_out_probe_accuracy": {}}
    for depth, state in zip(EXITS, states, strict=False):
        agrees = target.logits(state).argmax(-1) == final
        right = probe(state).argmax(-1).bool() == agrees
        found["held_out_agreement"][str(depth)] = round(float(agrees.float().mean()), 4)
        found["held_out_probe_accuracy"][str(depth)] = round(float(right.float().mean()), 4)
    return found


THRESHOLDS = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)


def calibration(
    target: LanguageModel, tokenizer: Tokenizer, *, delta: float = 0.25, epsilon: float = 0.1, limit: int = 48
) -> dict[str, Any]:
    """CALM's threshold for greedy text after this project's prompts, chosen by Learn then Test, and what it costs.

    The loss of a prompt is one minus ROUGE-L between the early and the full text.
    """
    sources = [tokenizer.encode(text).ids for text in prompts()]

    def texts(threshold: float) -> list[Generation]:
        sampler = Sampler(0)
        return [calm.generate(target, s, limit, sampler=sampler, exits=EXITS, threshold=threshold) for s in sources]

    full = texts(2.0)
    losses, layers = [], []
    for threshold in THRESHOLDS:
        early = texts(threshold)
        losses.append([calm.textual_loss(a.tokens, b.tokens) for a, b in zip(early, full, strict=True)])
        layers.append(sum(run.mean_layers or 0.0 for run in early) / len(early))
    chosen = calm.calibrate(THRESHOLDS, losses, delta=delta, epsilon=epsilon)
    return {
        "measure": "softmax",
        "delta": delta,
        "epsilon": epsilon,
        "prompts": len(sources),
        "threshold": chosen,
        "mean_loss": {str(t): round(sum(row) / len(row), 4) for t, row in zip(THRESHOLDS, losses, strict=True)},
        "mean_layers": {str(t): round(n, 2) for t, n in zip(THRESHOLDS, layers, strict=True)},
    }
