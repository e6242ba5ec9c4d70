"""How good the zoo's language models are: held-out loss, variety of text, heads, probe, and a calibrated threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from reference_impls.baselines.autoregressive import generate
from reference_impls.core.generation import Generation
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.early_exiting import calm
from reference_impls.zoo.corpus import encode, prompts, read_corpus

THRESHOLDS = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)  # of early exiting, from cautious to bold


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


def quality(
    model: LanguageModel, tokenizer: Tokenizer, exits: Sequence[int], *, tokens: int = 100_000, length: int = 512
) -> dict[str, Any]:
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
        if split == "library" and exits:
            early = {str(e): held_out_loss(model, data[:tokens], length=length, exit_layer=e) for e in exits}
            found["exits_nats_per_token"] = {e: round(loss, 4) for e, loss in early.items()}
    for name, temperature in (("greedy", 0.0), ("temperature_0.8", 0.8)):
        sampler = Sampler(temperature)
        written = [generate(model, tokenizer.encode(p).ids, 128, sampler=sampler).tokens for p in prompts()[:24]]
        found.setdefault("distinct_3_grams", {})[name] = round(distinct_trigrams(written), 3)
    return found


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
def feature_accuracy(
    target: LanguageModel, drafter: nn.Module, data: Tensor, *, depths: int = 4, length: int = 256, count: int = 64
) -> dict[str, Any]:
    """How often a feature drafter's best token is the target's, at each depth of a draft along the held-out text.

    At depth 1 it has read true features only; at depth d its last d - 1 are its own, as in drafting.
    """
    rows = data[: len(data) // length * length].view(-1, length)[:count]
    places = length - depths
    hits = torch.zeros(depths)
    before, own = torch.ones(places, places, dtype=torch.bool).tril(), torch.eye(places, dtype=torch.bool)
    for x in rows.split(8):
        true = target.norm(target.run(target.embed(x)))
        best, read = target.project(true).argmax(-1), [true[:, :places]]
        for depth in range(1, depths + 1):
            tokens = torch.cat([x[:, i : i + places] for i in range(1, depth + 1)], 1)
            positions = torch.cat([torch.arange(places) + i for i in range(depth)])
            sees = [[before, *[own if j <= i else ~own & own for j in range(1, depth)]] for i in range(depth)]
            visible = torch.cat([torch.cat(row, 1) for row in sees])
            ahead = drafter(target, tokens, torch.cat(read, 1), positions=positions, visible=visible)[:, -places:]
            hits[depth - 1] += (target.project(ahead).argmax(-1) == best[:, depth : depth + places]).float().sum()
            read.append(ahead)
    shares = (hits / (len(rows) * places)).tolist()
    return {"held_out_agreement": {f"depth {i}": round(share, 4) for i, share in enumerate(shares, start=1)}}


@torch.inference_mode()
def probe_accuracy(
    target: LanguageModel, probe: nn.Module, data: Tensor, exits: Sequence[int], length: int = 256
) -> dict[str, Any]:
    """How often the probe is right about whether an exit agrees with the last layer, and how often they agree."""
    rows = data[: len(data) // length * length].view(-1, length)[:64]
    states, x = [], target.embed(rows)
    for start, stop in zip([0, *exits], [*exits, target.shape.layers], strict=True):
        x = target.run(x, layers=range(start, stop))
        states.append(x)
    final = target.logits(x).argmax(-1)
    found: dict[str, Any] = {"held_out_agreement": {}, "held_out_probe_accuracy": {}}
    for depth, state in zip(exits, states, strict=False):
        agrees = target.logits(state).argmax(-1) == final
        right = probe(state).argmax(-1).bool() == agrees
        found["held_out_agreement"][str(depth)] = round(float(agrees.float().mean()), 4)
        found["held_out_probe_accuracy"][str(depth)] = round(float(right.float().mean()), 4)
    return found


def calibration(
    target: LanguageModel,
    sources: Sequence[Sequence[int]],
    exits: Sequence[int],
    *,
    delta: float = 0.25,
    epsilon: float = 0.1,
    limit: int = 48,
) -> dict[str, Any]:
    """CALM's threshold for greedy text after these prompts, chosen by Learn then Test, and what it costs.

    The loss of a prompt is one minus ROUGE-L between the early and the full text.
    """

    def texts(threshold: float) -> list[Generation]:
        sampler = Sampler(0)
        return [calm.generate(target, s, limit, sampler=sampler, exits=exits, threshold=threshold) for s in sources]

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
