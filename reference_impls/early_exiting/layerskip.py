r"""LayerSkip: the lower layers of one model draft, the upper layers verify, and nothing is computed twice.

LayerSkip: Enabling Early Exit Inference and Self-Speculative Decoding. Mostafa Elhoushi, Akshat Shrivastava,
Diana Liskovich, Basil Hosmer, Bram Wasti, Liangzhen Lai, Anas Mahmoud, Bilge Acun, Saurabh Agarwal, Ahmed Roman,
Ahmed A Aly, Beidi Chen, Carole-Jean Wu. ACL 2024. https://arxiv.org/abs/2404.16710

Idea
----
Train a model so that its lower layers can already be read out by its own head: drop layers at random, the deeper the
more often, and let the loss look at several layers. Then the first $E$ layers draft a few tokens, and the other layers
verify them in one pass. That pass starts from the states at which the draft left off, and both halves share one cache,
so a token costs every layer once at most.

Algorithm
---------
1. *Draft*: run layers $1, \dots, E$ over the newest token, read them out by the shared norm and head, draw
   $x_i \sim q_i$; `gamma` times. Keep the states after layer $E$.
2. *Verify*: run layers $1, \dots, E$ over the last drafted token, then layers $E + 1, \dots, L$ over all states kept,
   in one pass: this gives $p_1, \dots, p_{\gamma + 1}$.
3. Keep $x_i$ with probability $\min(1, p_i(x_i) / q_i(x_i))$; after the first rejection draw from
   $\mathrm{norm}(\max(0, p - q))$, after none from $p_{\gamma + 1}$.
4. *Commit*: append the tokens; all layers forget the rejected ones.
5. *Training* (`loss`): layer $l = 0, \dots, L - 1$ is skipped, for each sample on its own, with probability
   $p_{\max} (e^{l \ln 2 / (L - 1)} - 1)$: never the first layer, the last with $p_{\max}$. The loss is a weighted mean
   of the cross-entropies after the last layer and after every $R$-th layer, shifted by one layer each step.

Guarantee
---------
Exact distribution: the acceptance is that of speculative sampling, the draft law is the one that was drawn from, and
the verifying pass gives the full model's laws. At temperature 0 the text is the full model's greedy text. The
reference is the model as trained with this recipe; what the recipe does to its quality is another matter. Work is not
saved but spent: every guess runs through all layers (`mean_work`), also if it is rejected.

Differences from the paper
--------------------------
1. The paper promises equality for greedy decoding only; its sampling rule keeps the law as well (`verify_chain`), and
   is proved here.
2. Of the weights that the authors' recipe in torchtune offers, `loss` has the uniform ones: 1 for the last layer,
   `scale` for every other. Weights that grow with depth would leave the exits after 2 to 4 layers, where drafting is
   cheapest on a small model, almost untrained.
3. The zoo's target is trained on from a model with early exits, as in the paper's continual pre-training: so the
   dropout (`dropout_rates`) is the same in all steps.

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.core.sampling import Sampler
>>> from reference_impls.early_exiting.layerskip import example, generate
>>> prompt = zoo.encode("def read_lines(path):")
>>> result = generate(prompt=prompt, limit=24, sampler=Sampler(temperature=0), **example())
>>> result.passes, round(result.mean_work, 1)  # of 24 passes and of 24 layers a token
(4, 28.0)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from reference_impls.core.arguments import check_range, check_texts, checked
from reference_impls.core.drafting import check_draft, room
from reference_impls.core.exits import layerwise_cross_entropy
from reference_impls.core.generation import Ends, Generation, Step, check_length
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.verify import verify_chain


@torch.inference_mode()
@checked
def generate(
    target: LanguageModel,
    prompt: Sequence[int],
    limit: int,
    *,
    sampler: Sampler,
    exit_layer: int,
    gamma: int = 4,
    eos: Ends | None = None,
) -> Generation:
    """Generate up to `limit` tokens after `prompt`; the first `exit_layer` layers draft `gamma` tokens a step.

    Raises ValueError for a `gamma` below 1 and for an `exit_layer` that leaves no layer below or above it.
    """
    check_draft(gamma, target)
    check_exit(exit_layer, target.shape.layers)
    lower, upper = range(exit_layer), range(exit_layer, target.shape.layers)
    check_length(target, prompt, limit)
    result, tokens, cache = Generation(), list(prompt), target.new_cache()
    go_on = limit > 0
    # In every layer the cache holds all tokens but the newest; while drafting, the lower layers are ahead of the upper.
    while go_on:
        # Draft: the lower layers, read out by the common head; their states wait for the upper ones.
        draft, laws, states = list[int](), list[Tensor](), list[Tensor]()
        unseen = tokens[len(cache) :]
        for _ in range(room(len(tokens), gamma, target)):
            states.append(target.run(target.embed(unseen), cache, layers=lower))  # [unseen, dim]
            laws.append(sampler.probs(target.logits(states[-1][-1])))  # [vocab]
            draft.append(int(sampler.draw(laws[-1])))
            unseen = draft[-1:]
        # Verify: the last guess goes through the lower layers too, then one pass of the upper ones over all states.
        states.append(target.run(target.embed(unseen), cache, layers=lower))
        hidden = target.run(torch.cat(states), cache, layers=upper)
        p = sampler.probs(target.logits(hidden[-len(draft) - 1 :]))  # [gamma + 1, vocab]
        kept, extra = verify_chain(sampler, draft, laws, p)
        # Commit: the kept guesses and the token after them.
        emitted = [*draft[:kept], extra]
        tokens += emitted
        cache.crop(len(tokens) - 1)
        step = Step(emitted, draft, kept=kept, draft_passes=len(draft), work=(len(draft) + 1) * target.shape.layers)
        go_on = result.add(step, limit, eos)
    return result


def check_exit(exit_layer: int, layers: int) -> None:
    """Raise ValueError for an exit that leaves no layer to draft, or none to verify."""
    if not 1 <= exit_layer < layers:
        raise ValueError(f"exit_layer is {exit_layer}; it must leave layers that verify, so choose 1 to {layers - 1}")


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    return {"target": zoo.load("target"), "exit_layer": 4, "gamma": 6}


@checked
def dropout_rates(layers: int, highest: float) -> list[float]:
    """How often each layer is skipped in training: 0 for the first, exponentially growing, `highest` for the last."""
    return [highest * (math.exp(layer * math.log(2) / max(1, layers - 1)) - 1) for layer in range(layers)]


@checked
def trained_exits(layers: int, every: int, step: int) -> list[int]:
    """The exits that the loss of this step looks at: every `every`-th, rotating with the step, and the last."""
    if every < 1:
        raise ValueError(f"every is {every}; the loss looks at every layer of so many, so give at least 1")
    return sorted({layer for layer in range(1, layers) if layer % every == step % every} | {layers})


def states_with_dropout(
    target: LanguageModel, tokens: Tensor, dropout: float, generator: torch.Generator | None
) -> Iterator[Tensor]:
    """The states [batch, n, dim] after each layer of tokens [batch, n], where each sample skips layers on its own."""
    x = target.embed(tokens)
    for layer, rate in enumerate(dropout_rates(target.shape.layers, dropout)):
        rows = (torch.rand(len(x), generator=generator) >= rate).nonzero().squeeze(1).to(x.device)
        if len(rows) == len(x):
            x = target.run(x, layers=range(layer, layer + 1))
        elif len(rows):
            x = x.index_copy(0, rows, target.run(x[rows], layers=range(layer, layer + 1)))
        yield x


@checked
def loss(
    target: LanguageModel,
    tokens: Tensor,
    step: int,
    *,
    dropout: float = 0.1,
    every: int = 8,
    scale: float = 0.5,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The training loss on tokens [batch, n]: cross-entropy of the last layer and, weighted by `scale`, of some exits.

    Each layer is skipped for each sample with its rate of `dropout_rates`. The weights are divided by their sum.
    Raises ValueError for texts of less than 2 tokens, and for options out of range.
    """
    check_texts(target.shape.vocab, 2, tokens=tokens)
    check_range(0, 1, dropout=dropout)
    check_range(0, scale=scale)
    layers = target.shape.layers
    weights = dict.fromkeys(trained_exits(layers, every, step), scale) | {layers: 1.0}
    states = states_with_dropout(target, tokens[:, :-1], dropout, generator)
    return layerwise_cross_entropy(target, states, tokens[:, 1:], weights)
