r"""FREE: confident tokens leave after a shallow stack, and the deep layers catch up on all of them in one pass.

Fast and Robust Early-Exiting Framework for Autoregressive Language Models with Synchronized Parallel Decoding. Sangmin
Bae, Jongwoo Ko, Hwanjun Song, Se-Young Yun. EMNLP 2023. https://arxiv.org/abs/2310.05424

Idea
----
Early exits suffer from states that are copied to the skipped layers, and from many exits that disturb each other in
training. So there is one exit only. A confident token leaves there, and its state waits on a stack; when a token is not
confident, the deep layers run over the stack and this token in one pass. They get true keys and values, and the deep
model's opinion of the waiting tokens comes for free: it tells how well the threshold is chosen.

Algorithm
---------
1. *Shallow*: run layers $1, \dots, S$ ($S$ is `exit_layer`) over the newest token, put its state on the stack, read it
   out by the shared norm and head. The confidence $c$ is the gap between the two largest probabilities.
2. *Exit*: if $c > \lambda$ (`threshold`), draw the token from the shallow law and go on with 1.
3. *Deep*: otherwise run layers $S + 1, \dots, L$ over the whole stack in one pass, with a causal mask inside, and draw
   the token from the deep law. The stack is empty again.
4. *Roll back* (option): a waiting token that costs more than $b$ nats (`rollback`) under the deep law is taken back
   with all that follow, and drawn from that law instead.
5. *Adapt*: step 3 tells for each confidence whether both read-outs agree. Either kind of confidence follows a Beta law
   with $\alpha = m\,(m (1 - m) / v - 1)$ and $\beta = \alpha (1 - m) / m$ for its mean $m$ and variance $v$. For the
   next text, $\lambda$ is the smallest of ten values from 0.3 to 0.9 at which $f_1 / (f_0 + f_1) > \zeta$ (`zeta`),
   with the densities $f_1$ of agreement and $f_0$ of disagreement.
6. *Training* (`loss`) is of the two exits, $(S\,\mathrm{CE}_S + L\,\mathrm{CE}_L) / (S + L)$, plus a `weight` times the
   mean squared distance between the normalised states of $S$ evenly spread layers, held fixed, and those of the shallow
   layers that are assigned to them: from the top, each gets the closest one below the one taken before.

Guarantee
---------
Lossy: a token that left stays, even where the deep model disagrees. Nothing is approximated, though: the deep layers
get the very states, keys and values that a pass over the finished text would give them. With `threshold` 1 the text is
the full model's. With `rollback` below $\ln 2$ the text at temperature 0 is the full model's greedy text, because a
token that costs less has a probability above one half. What is saved is depth (`mean_layers`), the layers before a
token is read out (with `rollback` it is handed out later), and hardly any work (`mean_work`): only those that wait when
the text ends never meet the deep layers.

Differences from the paper
--------------------------
1. A decoder-only model reads the prompt with all its layers, which give the first token.
2. The zoo trains low-rank adapters of all matrices with this loss, as the authors do for their largest model.
3. With `rollback`, tokens are handed out when the deep model has seen them, so that none is ever withdrawn, and the
   last ones are checked as well. Published code leaves those unchecked that wait when the text ends.
4. Published code means to mix the fitted posterior (0.8) into the labels (0.2) when it fits the Beta laws, but a second
   assignment overwrites the first, and labels alone count. So it is here by default; `trust` = 0.2 is what was meant.
   On overlapping confidences, that moves the threshold from 0.43 to 0.37.
5. Published code takes the law with the higher mean for that of agreement, whatever its labels said; it fits for 300
   texts, and learns nothing from an unsure token that finds the stack empty. Here labels decide, every text counts, and
   every deep pass records the `pairs` of all its tokens.

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.core.sampling import Sampler
>>> from reference_impls.early_exiting.free import example, generate
>>> prompt = zoo.encode("def read_lines(path):")
>>> result = generate(prompt=prompt, limit=24, sampler=Sampler(temperature=0), **example())
>>> round(result.mean_layers, 1), round(result.mean_work, 1)  # of 24
(19.5, 24.0)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from reference_impls.core.arguments import check_range, check_texts, checked
from reference_impls.core.exits import layer_states, layerwise_cross_entropy, top_two_gap
from reference_impls.core.generation import Ends, Generation, Step, check_length, is_end
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler


@torch.inference_mode()
@checked
def generate(
    target: LanguageModel,
    prompt: Sequence[int],
    limit: int,
    *,
    sampler: Sampler,
    exit_layer: int,
    threshold: float = 0.9,
    estimator: ThresholdEstimator | None = None,
    rollback: float | None = None,
    eos: Ends | None = None,
) -> Generation:
    """Generate up to `limit` tokens after `prompt`; confident ones leave after `exit_layer` layers.

    An `estimator` learns from this text, and gives the threshold if it has learnt from one before. `rollback` is the
    largest cost in nats of an early token; None keeps them all. Raises ValueError for options that cannot work.
    """
    check_options(target.shape.layers, exit_layer, rollback)
    check_length(target, prompt, limit)
    threshold = threshold if estimator is None else estimator.update(threshold)
    result, tokens, cache, depth = Generation(), list(prompt), target.new_cache(), target.shape.layers
    stack, shallow, exited = list[Tensor](), list[Tensor](), list[int]()  # what waits: states, their logits, tokens
    go_on = limit > 0
    # The deep layers hold all tokens before the stack, the shallow ones also those on it, and none holds the newest.
    while go_on:
        # Shallow: the first layers run over the newest token; its state waits on the stack.
        stack.append(target.run(target.embed(tokens[cache.length(0) :]), cache, layers=range(exit_layer)))
        shallow.append(target.logits(stack[-1][-1]))  # [vocab]
        must_be_deep = rollback is not None and is_last_chance(exited, limit - len(result.tokens), eos)
        # The prompt takes all layers.
        if result.tokens and not must_be_deep and confidence(shallow[-1]) > threshold:
            # Exit: the shallow law gives the token. Where it may be taken back, it is not handed out yet.
            exited.append(int(sampler.draw(sampler.probs(shallow[-1]))))
            tokens.append(exited[-1])
            if rollback is None:
                go_on = result.add(Step(exited[-1:], layers=[exit_layer], work=exit_layer), limit, eos)
        else:
            # Deep: one pass of the deep layers over the stack, which leaves true keys and values for every token.
            hidden = target.run(torch.cat(stack), cache, layers=range(exit_layer, depth))
            logits = target.logits(hidden[-len(stack) :])  # [exited + 1, vocab]: of the prompt only the last token
            kept = count_kept(logits, exited, rollback)
            token = int(sampler.draw(sampler.probs(logits[kept])))
            if estimator is not None:
                estimator.learn(*pairs(torch.stack(shallow), logits))
            # Commit: the deep token; with a rollback, what the deep model let pass comes before it.
            tokens = [*tokens[: len(tokens) - len(exited) + kept], token]
            cache.crop(len(tokens) - 1)
            # Without a rollback, what exited was handed out at once.
            step = deep_step([] if rollback is None else exited, kept, token, (exit_layer, depth), stacked=len(stack))
            go_on = result.add(step, limit, eos)
            stack, shallow, exited = [], [], []
    return result


def confidence(logits: Tensor) -> float:
    """The gap between the two largest probabilities of logits [vocab]."""
    return float(top_two_gap(logits))


def is_last_chance(exited: Sequence[int], left: int, eos: Ends | None) -> bool:
    """Whether the next token must be the deep model's, because no later pass would check the `exited` ones."""
    return len(exited) + 1 == left or any(is_end(token, eos) for token in exited)


def count_kept(logits: Tensor, exited: Sequence[int], rollback: float | None) -> int:
    """How many exited tokens, from the left, cost at most `rollback` nats by the deep logits [exited + 1, vocab]."""
    if rollback is None:
        return len(exited)
    costs = F.cross_entropy(logits[:-1], torch.tensor(exited, device=logits.device, dtype=torch.long), reduction="none")
    return int((costs <= rollback).cumprod(0).sum())


def deep_step(withheld: list[int], kept: int, token: int, depths: tuple[int, int], *, stacked: int) -> Step:
    """The step of a deep pass over `stacked` tokens: it hands out the first `kept` of the withheld, and its own."""
    shallow, deep = depths
    emitted = [*withheld[:kept], token]
    layers = [shallow] * (len(emitted) - 1) + [deep]
    work = shallow * (len(withheld) + 1) + (deep - shallow) * stacked  # what was handed out has counted its own
    return Step(emitted, withheld, kept=len(emitted) - 1, draft_passes=len(withheld), layers=layers, work=work)


def pairs(shallow: Tensor, deep: Tensor) -> tuple[list[float], list[bool]]:
    """For each place: the shallow confidence, and whether shallow and deep logits [places, vocab] agree on the best."""
    return top_two_gap(shallow).tolist(), (shallow.argmax(-1) == deep.argmax(-1)).tolist()


def check_options(depth: int, exit_layer: int, rollback: float | None) -> None:
    """One clear sentence for options that cannot work."""
    if not 1 <= exit_layer < depth:
        raise ValueError(f"exit_layer is {exit_layer}; it must leave deep layers, so choose 1 to {depth - 1}")
    if rollback is not None and rollback < 0:
        raise ValueError(f"rollback is {rollback}; it is a cost in nats, so give 0 or more, or None for no rollback")


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo
    from reference_impls.zoo.adapters import merged

    # The threshold is what the estimator came to on the zoo's prompts; the zoo's page has the figures.
    figures = zoo.manifest()["free-adapters"]["quality"]
    return {"target": merged(zoo.load("target"), zoo.load("free-adapters")), "exit_layer": 6,
            "threshold": figures["estimator"]["threshold"]}  # fmt: skip


@checked
def loss(target: LanguageModel, tokens: Tensor, exit_layer: int, weight: float = 0.5) -> Tensor:
    """Both exits' cross-entropies on tokens [batch, n], weighted by depth, plus `weight` times the distillation.

    Raises ValueError for texts of less than 2 tokens, a `weight` below 0, and an exit that leaves no deep layers.
    """
    check_options(target.shape.layers, exit_layer, rollback=None)
    check_texts(target.shape.vocab, 2, tokens=tokens)
    check_range(0, weight=weight)
    states, depth = list(layer_states(target, tokens[:, :-1])), target.shape.layers
    by_depth = {exit_layer: float(exit_layer), depth: float(depth)}
    both = layerwise_cross_entropy(target, states, tokens[:, 1:], by_depth)
    features = [target.norm(state) for state in states]
    teachers = [features[(j + 1) * depth // exit_layer - 1].detach() for j in range(exit_layer)]
    gaps = torch.stack([torch.stack([F.mse_loss(s, t) for s in features[:exit_layer]]) for t in teachers])
    chosen = assigned(gaps.detach())
    return both + weight * gaps[range(exit_layer), chosen].mean()


def assigned(gaps: Tensor) -> list[int]:
    """For each teacher layer (row), the student layer (column) that learns from it: from the top, the closest one left.

    Left are the layers below the last one taken; when there is none, that one is taken again.
    """
    found = list[int]()
    for row in gaps.flip(0):
        left = row[: max(1, found[-1])] if found else row
        found.append(int(left.argmin()))
    return found[::-1]


class ThresholdEstimator:
    """Learns from text to text how confident the shallow exit must be: a Beta law for each kind of confidence.

    Row 0 of `shapes` [2, 2] is the law of disagreement, row 1 that of agreement; columns are alpha and beta.
    """

    @checked
    def __init__(self, zeta: float = 0.4, trust: float = 1.0) -> None:
        if not (0 <= zeta <= 1 and 0 <= trust <= 1):
            raise ValueError(f"zeta is {zeta} and trust is {trust}; both must lie between 0 and 1")
        self.zeta, self.trust = zeta, trust
        self.shapes = torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64)
        self.confidences, self.agreements = list[float](), list[bool]()

    def learn(self, confidences: Sequence[float], agreements: Sequence[bool]) -> None:
        """Add pairs from a deep pass. Raises ValueError for a confidence that is none."""
        if not all(0 <= c <= 1 for c in confidences):
            raise ValueError("a confidence is not a number from 0 to 1, so the logits are not finite: check the model")
        self.confidences += confidences
        self.agreements += agreements

    def update(self, before: float) -> float:
        """The threshold for a new text: fitted anew to all pairs, or as it was if there are none."""
        if not self.confidences:
            return before
        self.fit()
        return self.threshold()

    def fit(self) -> None:
        """Moments of both laws, each pair counting by its label; `trust` below 1 mixes in the posterior so far."""
        c = torch.tensor(self.confidences, dtype=torch.float64).clamp(1e-4, 1 - 1e-4)
        agrees = torch.tensor(self.agreements)
        labels = torch.stack((~agrees, agrees)).double()  # [2, pairs]
        weight = self.trust * labels + (1 - self.trust) * self.log_densities(c).softmax(0)
        total = weight.sum(-1)
        mean = (weight * c).sum(-1) / total
        spread = (weight * (c - mean[:, None]) ** 2).sum(-1) / total
        alpha = mean * (mean * (1 - mean) / spread - 1)
        found = torch.stack((alpha, alpha * (1 - mean) / mean), -1)
        known = ((weight > 0).sum(-1) > 1) & (spread > 1e-9)  # a law of fewer than two values keeps its shape
        self.shapes = torch.where(known[:, None], found, self.shapes)

    def log_densities(self, c: Tensor) -> Tensor:
        """Logarithms [2, n] of both Beta densities at confidences c [n]."""
        return torch.distributions.Beta(*self.shapes.T[..., None]).log_prob(c)

    def threshold(self, low: float = 0.3, high: float = 0.9, values: int = 10) -> float:
        """The smallest value at which agreement has a chance above zeta, were both kinds equally frequent."""
        grid = torch.linspace(low, high, values, dtype=torch.float64)
        likely = self.log_densities(grid).softmax(0)[1] > self.zeta  # f_1 / (f_0 + f_1)
        return float(grid[likely.int().argmax()]) if bool(likely.any()) else high
