r"""CALM: each token leaves the stack of layers as soon as the model is confident enough.

Confident Adaptive Language Modeling. Tal Schuster, Adam Fisch, Jai Gupta, Mostafa Dehghani, Dara Bahri, Vinh Q. Tran,
Yi Tay, Donald Metzler. NeurIPS 2022. https://arxiv.org/abs/2207.07061

Idea
----
Most tokens are easy. If every layer can be read out by the shared head, a token may exit at the first layer whose
confidence reaches a threshold $\lambda$, and the layers above are saved. How low $\lambda$ may be is not guessed but
calibrated, so that the quality of whole sequences is guaranteed with high probability.

Algorithm
---------
1. *Layers*: for a new token run the layers up to the next exit; its hidden state is $h$.
2. *Exit*: leave at the first exit with confidence $c \ge \lambda_t$, which is either the softmax response (the gap
   between the two largest probabilities), the hidden state's saturation (its cosine with the previous exit's state), or
   a trained classifier's probability that this layer already agrees with the last.
3. Early mistakes spread furthest, so the threshold may decay (`decay` is $\tau$): for token $t = 0, 1, \dots$ of at
   most $N$, $\lambda_t = \min(1, \max(0, 0.9\,\lambda + 0.1\,e^{-\tau t / N}))$.
4. *Commit*: draw the token from the law read at the exit. Skipped layers get keys and values computed from $h$, as if
   it had passed them unchanged, so that later tokens can attend there.
5. *Calibrate* (Learn then Test): for thresholds $\lambda_1 > \lambda_2 > \dots$ test on $n$ prompts whether the mean
   loss is above $\delta$; walk down while the p-value is at most $\varepsilon$; the last threshold that passed is used.

Guarantee
---------
Lossy for a single token; exact when no exit is confident enough, as with `threshold` above 1 and no decay. With a
calibrated threshold, $P(E[\mathrm{loss}] \le \delta) \ge 1 - \varepsilon$ over the draw of the calibration prompts, for
any loss in $[0, 1]$, as long as new prompts come from the same source. Testing in a fixed order needs no correction
for many thresholds, because the walk stops at the first failure.

Differences from the paper
--------------------------
1. A decoder-only model reads the prompt with all its layers, which give the first token (`stops`).
2. Exits stand at chosen layers (`exits`), not at every one; saturation compares neighbouring exits.
3. The threshold decays by equation 5; published code (T5X) has $0.1\,\lambda\,e^{-\tau t / N}$ in it, and no clipping.
4. The p-value is that of Hoeffding and Bentkus, which the authors used (footnote 3), not that of equation 9.
5. The classifier has two outputs, as in published code, and a norm of its own, and learns from both classes alike.
6. Published code propagates the state of the first segment to the skipped layers; the paper, and `target.fill`, that
   of the exit.
7. The zoo's target learnt from the last layer and, in turn, one exit a step, then by LayerSkip's recipe; not by `loss`.

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.core.sampling import Sampler
>>> from reference_impls.early_exiting.calm import calibrate, example, generate
>>> prompt = zoo.encode("def read_lines(path):")
>>> result = generate(prompt=prompt, limit=24, sampler=Sampler(temperature=0), **example())
>>> len(result.tokens), result.mean_layers < 24, result.mean_work == result.mean_layers
(24, True, True)
>>> calibrate([0.9, 0.7, 0.5], [[0.0] * 40, [0.1] * 40, [0.4] * 40], delta=0.3, epsilon=0.05)
0.7
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_impls.core.arguments import check_texts, checked
from reference_impls.core.exits import layer_states, layerwise_cross_entropy, top_two_gap
from reference_impls.core.generation import Ends, Generation, Step, check_length
from reference_impls.core.layers import Norm, Shape
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler, wide

Measure = Literal["softmax", "saturation", "classifier"]


@torch.inference_mode()
@checked
def generate(
    target: LanguageModel,
    prompt: Sequence[int],
    limit: int,
    *,
    sampler: Sampler,
    exits: Sequence[int],
    threshold: float = 0.9,
    measure: Measure = "softmax",
    classifier: ExitClassifier | None = None,
    decay: float | None = None,
    eos: Ends | None = None,
) -> Generation:
    """Generate up to `limit` tokens after `prompt`; a token may leave after any of the layers `exits`.

    `decay` is tau of the decaying threshold; None keeps it constant. Raises ValueError for options that cannot work,
    and for a confidence that is not a number.
    """
    check_options(target, exits, measure, classifier, decay)
    check_length(target, prompt, limit)
    result, tokens, cache = Generation(), list(prompt), target.new_cache()
    depth = target.shape.layers
    go_on = limit > 0
    # In every layer the cache holds all tokens but the newest, whichever layers they passed.
    while go_on:
        x = target.embed(tokens[len(cache) :])
        least = threshold_at(threshold, len(result.tokens), limit, decay)
        # Layers: the prompt runs through all; a new token climbs from exit to exit.
        stops = [depth] if not result.tokens else [*exits, depth]
        done, previous = 0, None
        for stop in stops:
            x = target.run(x, cache, layers=range(done, stop))
            done = stop
            # Exit: at the first state that is confident enough; asking costs one copy from the device.
            if stop < depth and confidence(target, x, previous, measure, classifier) >= least:
                break
            previous = x
        # Commit: read the token off the exit; the layers above get their keys and values from the exit's state.
        target.fill(x, cache, layers=range(done, depth))
        emitted = [int(sampler.draw(sampler.probs(target.logits(x[-1]))))]
        tokens += emitted
        go_on = result.add(Step(emitted, layers=[done], work=done), limit, eos)
    return result


def threshold_at(threshold: float, t: int, longest: int, decay: float | None) -> float:
    """The threshold of token t (from 0) of at most `longest`, which decays with the rate `decay` (equation 5)."""
    if decay is None:
        return threshold
    return min(1.0, max(0.0, 0.9 * threshold + 0.1 * math.exp(-decay * t / longest)))


def confidence(
    target: LanguageModel, x: Tensor, previous: Tensor | None, measure: Measure, classifier: ExitClassifier | None
) -> float:
    """How sure the state x [1, dim] is of its token, in [0, 1] (for saturation in [-1, 1])."""
    if measure == "softmax":
        sure = float(top_two_gap(target.logits(x[-1])))
    elif measure == "saturation":  # undefined at the first exit
        state = x[-1].to(wide(x))
        sure = -math.inf if previous is None else float(F.cosine_similarity(state, previous[-1].to(wide(x)), dim=-1))
    else:
        assert classifier is not None
        sure = float(classifier(x[-1]).softmax(-1, wide(x))[1])
    if math.isnan(sure):
        whose = "classifier" if measure == "classifier" else "target"
        raise ValueError(f"the {measure} confidence at an exit is not a number: check the {whose}'s weights")
    return sure


def check_options(
    target: LanguageModel,
    exits: Sequence[int],
    measure: Measure,
    classifier: ExitClassifier | None,
    decay: float | None,
) -> None:
    """One clear sentence for options that cannot work."""
    check_exits(exits, target.shape.layers)
    if measure not in ("softmax", "saturation", "classifier"):
        raise ValueError(f"measure is {measure!r}; it must be 'softmax', 'saturation' or 'classifier'")
    if measure == "classifier" and classifier is None:
        raise ValueError("measure is 'classifier' but no classifier is given: pass classifier=ExitClassifier(...)")
    if decay is not None and not 0 <= decay < math.inf:
        raise ValueError(f"decay is {decay}; it must be 0 or a positive number, or None for a constant threshold")


def check_exits(exits: Sequence[int], layers: int) -> None:
    """Raise ValueError for exits that are not increasing layers below the last."""
    if list(exits) != sorted(set(exits)) or any(not 0 < layer < layers for layer in exits):
        raise ValueError(f"exits are {list(exits)}; they must be increasing layers between 1 and {layers - 1}")


class ExitClassifier(nn.Module):
    """A linear probe: does the state of this layer already give the token that the last layer will give?"""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.norm = Norm(shape.dim, eps=shape.eps)
        self.linear = nn.Linear(shape.dim, 2)

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits [..., 2] of (no, yes) for hidden states [..., dim]."""
        logits: Tensor = self.linear(self.norm(hidden))
        return logits


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    # The threshold is what `calibrate` chose for greedy text after the zoo's prompts; the zoo's page has the figures.
    chosen = zoo.manifest()["exit-classifier"]["quality"]["calibration"]["threshold"]
    return {"target": zoo.load("target"), "exits": (2, 4, 6, 8, 12, 16, 20), "threshold": chosen}


@checked
def loss(target: LanguageModel, tokens: Tensor) -> Tensor:
    """Next-token cross-entropy of every layer of tokens [batch, n], weighted by the layer's number (equation 6).

    Raises ValueError for texts of less than 2 tokens.
    """
    check_texts(target.shape.vocab, 2, tokens=tokens)
    weights = {layer: float(layer) for layer in range(1, target.shape.layers + 1)}
    return layerwise_cross_entropy(target, layer_states(target, tokens[:, :-1]), tokens[:, 1:], weights)


@checked
def classifier_loss(target: LanguageModel, classifier: ExitClassifier, tokens: Tensor, exits: Sequence[int]) -> Tensor:
    """Class-balanced cross-entropy of "this exit's argmax equals the last layer's", averaged over the exits.

    Raises ValueError for texts [batch, n] without a token, and for exits that cannot be.
    """
    check_texts(target.shape.vocab, 1, tokens=tokens)
    check_exits(exits, target.shape.layers)
    if not exits:
        raise ValueError("exits are empty; the classifier learns at exits, so name at least one")
    with torch.no_grad():
        x, states = target.embed(tokens), []
        for start, stop in zip([0, *exits], [*exits, target.shape.layers], strict=True):
            x = target.run(x, layers=range(start, stop))
            states.append(x)
        best = [target.logits(state).argmax(-1).flatten() for state in states]
    losses = []
    for state, early in zip(states, best[:-1], strict=False):
        agrees = (early == best[-1]).long()
        share = torch.bincount(agrees, minlength=2).clamp(min=1) / agrees.numel()
        losses.append(F.cross_entropy(classifier(state).float().flatten(0, 1), agrees, weight=0.5 / share))
    return torch.stack(losses).mean()


@checked
def textual_loss(early: Sequence[int], full: Sequence[int]) -> float:
    """How far the early text is from the full one, in [0, 1]: 1 - F of their longest common subsequence.

    This is one minus ROUGE-L on tokens; the calibration works with any loss in [0, 1]. Two empty texts are equal.
    """
    row = [0] * (len(full) + 1)
    for token in early:
        left = 0
        for j, other in enumerate(full, start=1):
            left, row[j] = row[j], left + 1 if token == other else max(row[j], row[j - 1])
    both = len(early) + len(full)
    return 1 - 2 * row[-1] / both if both else 0.0


@checked
def p_value(mean: float, n: int, delta: float) -> float:
    """Chance of a mean loss this low over n prompts if the true mean were delta (Hoeffding-Bentkus bound).

    Raises ValueError for a mean outside [0, 1], for no prompt, and for a delta outside (0, 1).
    """
    if not (0 <= mean <= 1 and n >= 1 and 0 < delta < 1):
        raise ValueError(f"mean is {mean}, n {n}, delta {delta}; needed are a mean in [0, 1], n >= 1, delta in (0, 1)")
    if mean >= delta:
        return 1.0
    divergence = (1 - mean) * math.log((1 - mean) / (1 - delta)) + (mean * math.log(mean / delta) if mean else 0.0)
    counts = torch.arange(math.ceil(n * mean - 1e-9) + 1, dtype=torch.float64)
    binomial = torch.distributions.Binomial(n, torch.tensor(delta, dtype=torch.float64)).log_prob(counts).logsumexp(0)
    return math.exp(min(-n * divergence, 1 + float(binomial), 0.0))


@checked
def calibrate(
    thresholds: Sequence[float], losses: Sequence[Sequence[float]], *, delta: float, epsilon: float
) -> float | None:
    """The lowest threshold that fixed-sequence testing allows, or None if not even the first passes.

    `thresholds` descend; `losses[j]` holds the losses in [0, 1] of n prompts at threshold j. Raises ValueError for
    anything else.
    """
    descend = all(a >= b for a, b in pairwise(thresholds))
    if not descend or any(map(math.isnan, thresholds)) or not 0 < delta < 1 or not 0 < epsilon < 1:
        raise ValueError("thresholds must descend, and delta and epsilon must lie between 0 and 1")
    if len(losses) != len(thresholds):
        raise ValueError(f"there are {len(losses)} rows of losses for {len(thresholds)} thresholds; give one for each")
    for threshold, row in zip(thresholds, losses, strict=True):
        if not row or not all(0 <= value <= 1 for value in row):
            raise ValueError(f"the losses at threshold {threshold} must be numbers from 0 to 1, one or more")
    chosen = None
    for threshold, row in zip(thresholds, losses, strict=True):
        if p_value(sum(row) / len(row), len(row), delta) > epsilon:
            break
        chosen = threshold
    return chosen
