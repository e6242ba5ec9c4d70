"""How good language models and what stands on them are: held-out loss, variety of text, heads, features, a probe."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from accelgen.training.shelf import Shelf
from reference_impls.baselines.autoregressive import generate
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler

TOKENS, LENGTH = 100_000, 512  # of each kind of text, and of each window, that the loss is measured on


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


def language_figures(shelf: Shelf, model: LanguageModel) -> dict[str, Any]:
    """Loss by kind of text that nothing is trained on, and how varied the text is that the model writes."""
    found: dict[str, Any] = {"held_out": {}, "windows": LENGTH}
    for kind, texts in shelf.texts("test").items():
        per_byte = len(shelf.held_out(kind=kind, count=sys.maxsize)) / sum(len(text.encode()) for text in texts)
        nats = held_out_loss(model, shelf.held_out(TOKENS, kind=kind), length=LENGTH)
        bits = nats * per_byte / math.log(2)
        found["held_out"][kind] = {"nats_per_token": round(nats, 4), "bits_per_byte": round(bits, 4)}
    prompts = shelf.prompts(count=24)
    for name, temperature in (("greedy", 0.0), ("temperature_0.8", 0.8)):
        sampler = Sampler(temperature)
        written = [generate(model, prompt, 128, sampler=sampler).tokens for prompt in prompts]
        found.setdefault("distinct_3_grams", {})[name] = round(distinct_trigrams(written), 3)
    return found


def exit_losses(shelf: Shelf, model: LanguageModel, exits: Sequence[int]) -> dict[str, Any]:
    """Loss of a model that is read out after each of these layers."""
    data = shelf.held_out(TOKENS)
    losses = {str(e): held_out_loss(model, data, length=LENGTH, exit_layer=e) for e in exits if e < model.shape.layers}
    return {"exits_nats_per_token": {e: round(loss, 4) for e, loss in losses.items()}}


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
def probe_figures(
    target: LanguageModel, probe: nn.Module, data: Tensor, exits: Sequence[int], length: int = 256
) -> dict[str, Any]:
    """How often an exit agrees with the last layer, and how well the probe tells such places from the others."""
    rows = data[: len(data) // length * length].view(-1, length)[:64]
    states, x = [], target.embed(rows)
    for start, stop in zip([0, *exits], [*exits, target.shape.layers], strict=True):
        x = target.run(x, layers=range(start, stop))
        states.append(x)
    final = target.logits(x).argmax(-1)
    found: dict[str, Any] = {"held_out_agreement": {}, "held_out_probe_auc": {}}
    for depth, state in zip(exits, states, strict=False):
        agrees = target.logits(state).argmax(-1) == final
        believed = probe(state).softmax(-1)[..., 1]
        found["held_out_agreement"][str(depth)] = round(float(agrees.float().mean()), 4)
        found["held_out_probe_auc"][str(depth)] = round(area(believed.flatten(), agrees.flatten()), 4)
    return found


def area(score: Tensor, wanted: Tensor) -> float:
    """Area under the ROC curve: the chance that a wanted place [n] scores above another one; equal scores count half.

    1/2 is a guess, however rare the wanted places are, which plain accuracy hides (Fawcett, 2006, section 7).
    """
    _, inverse, counts = score.double().unique(return_inverse=True, return_counts=True)
    rank = counts.cumsum(0) - (counts - 1) / 2  # the mean rank of equal scores, from 1 on
    positive, negative = int(wanted.sum()), int((~wanted).sum())
    if not positive or not negative:
        return float("nan")
    return float((rank[inverse][wanted].sum() - positive * (positive + 1) / 2) / (positive * negative))
