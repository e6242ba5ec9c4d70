r"""Medusa: extra heads propose a tree of continuations, which one pass with tree attention verifies.

Medusa: Simple LLM Inference Acceleration Framework with Multiple Decoding Heads. Tianle Cai, Yuhong Li, Zhengyang Geng,
Hongwu Peng, Jason D. Lee, Deming Chen, Tri Dao. ICML 2024. https://arxiv.org/abs/2401.10774

Idea
----
Heads on the target's last features guess the tokens two, three, … places ahead. One guess a place is seldom right all
the way, so the best few of each head are combined to a tree, and a mask that shows each node only its ancestors lets
the target check all branches in one pass. Which branches are worth a node is decided beforehand, from how often each
rank of each head was right. The same pass yields the features for the next tree.

Algorithm
---------
1. *Draft*: from the features $h$ of the last committed place, head $i = 1, \dots, k - 1$ gives
   $\mathrm{softmax}(W_2^{(i)} (\mathrm{SiLU}(W_1^{(i)} h) + h))$, its guess for the place $i$ after the next token. A
   node at depth $i$ with rank path $(r_1, \dots, r_i)$ takes the $r_i$-th best token of head $i$.
2. The rank paths are fixed. In the full Cartesian product every node of depth $i - 1$ has $s_i$ children. The sparse
   tree (`sparse_tree`) adds, one by one, the node with the largest $\prod_j a_j^{(r_j)}$, where $a_j^{(r)}$ is the
   measured accuracy of rank $r$ of head $j$; the sum of these products is the expected number of kept guesses.
3. *Verify*: one pass over the newest token, which is the root, and the tree; positions follow the depth. It gives the
   target's law $p$ after every node.
4. *Accept*, `exact`: rejection sampling down the tree; then the extra token, from what is left of $p$. Or `typical`:
   a node $x$ is plausible if $p(x) > \min(\epsilon, \delta\, e^{-H(p)})$, with the entropy $H$; the longest path of
   plausible nodes is kept (of equally long ones the likeliest) and the extra token is $\arg\max p$ after it.
5. *Commit*: the path's keys and values move together in the cache; the extra token is the next root, accepted in any
   case.
6. *Train* (`loss`): $\sum_{i} 0.8^i \mathcal{L}_i$ on the frozen target, where $\mathcal{L}_i$ is the cross-entropy of
   head $i$ against the text, or, for self-distillation, its divergence from the target's own law at that place.

Guarantee
---------
`acceptance="exact"`, the default: exact distribution. The tree is chosen without chance, and `verify_tree` keeps
the target's law for such guesses; at temperature 0 the kept path is the greedy text.
`acceptance="typical"` is lossy on purpose: its law is not the target's, and since every choice in it is a maximum, the
text does not depend on the seed. At temperature 0, with $\epsilon, \delta \le 1$, it is the greedy text again.

Differences from the paper
--------------------------
1. Typical acceptance is the paper's way to sample; it names rejection sampling as the other one. Here the exact rule is
   the default, as tree-wise rejection sampling (`verify_tree`; Miao et al., 2024).
2. Medusa-1: the target is frozen, so "exact" refers to the given model. Medusa-2, which also trains the target, is left
   out.
3. For self-distillation the paper trains the heads on text that the target wrote, and takes its law as the label only
   for the target that Medusa-2 changes. With `distil` the heads learn that law on any text, and nothing is generated.
4. $k$ counts the target's own head, as in blockwise parallel decoding: $k - 1$ `MedusaHeads`.
5. Accuracies (`rank_accuracy`) are measured against the target's best token after held-out text, not after text of its
   own.
6. Published code has two more sampling modes, which draw a token for each root-to-leaf path on its own and compare. A
   node that several paths share is drawn several times, and a rejected draw is thrown away and drawn anew, so guesses
   are favoured: for one guess of probability 0.3 on four paths, the total variation from $p$ is 0.53.
7. Published code shares one residual block among all layers of a head where a head has several; here it has one
   (`self.inner`).

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.core.sampling import Sampler
>>> from reference_impls.speculative_decoding.medusa import example, generate, sparse_tree
>>> prompt = zoo.encode("def read_lines(path):")
>>> result = generate(prompt=prompt, limit=24, sampler=Sampler(temperature=0), **example())
>>> len(result.tokens), result.passes < 24
(24, True)
>>> sparse_tree([[0.6, 0.2], [0.5, 0.1]], nodes=4)
[(0,), (0, 0), (1,), (1, 0)]
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import product
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_impls.core.arguments import check_range, check_texts, checked
from reference_impls.core.drafting import best_guesses, check_guesses, check_part, room
from reference_impls.core.generation import Ends, Generation, Step, check_length
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.tree import Tree
from reference_impls.core.verify import verify_tree

Acceptance = Literal["exact", "typical"]


@torch.inference_mode()
@checked
def generate(
    target: LanguageModel,
    prompt: Sequence[int],
    limit: int,
    *,
    heads: MedusaHeads,
    sampler: Sampler,
    choices: Sequence[Sequence[int]] | None = None,
    acceptance: Acceptance = "exact",
    epsilon: float = 0.09,
    delta: float = 0.3,
    eos: Ends | None = None,
) -> Generation:
    """Generate up to `limit` tokens after `prompt`, up to `heads.k` in each pass of the target.

    `choices` are the rank paths of the tree, parents first; by default the product of the two best of each head.
    `epsilon` and `delta` are those of typical acceptance. Raises ValueError for a tree or a setting that cannot be.
    """
    choices = cartesian([2] * (heads.k - 1)) if choices is None else choices
    check_options(choices, acceptance, epsilon, delta)
    check_part(target, heads, "heads")
    check_length(target, prompt, limit)
    ranks, deepest = max(plan(choices, heads.k, target.shape.vocab).tokens) + 1, heads.k
    result, tokens, cache, go_on = Generation(), list(prompt), target.new_cache(), limit > 0
    tree, (depths, visible) = Tree(), Tree().layout(len(tokens))  # the pass over the prompt has no guesses yet
    # Between turns the cache holds all tokens but the last, and `tree` the guesses below that one.
    while go_on:
        # Verify: one pass over the newest token and the tree below it.
        x = target.embed([*tokens[len(cache) :], *tree.tokens])
        hidden = target.run(x, cache, positions=len(cache) + depths, visible=visible)
        features = target.norm(hidden[-len(tree) - 1 :])  # [nodes + 1, dim]
        p = sampler.probs(target.project(features))  # [nodes + 1, vocab]
        typical = acceptance == "typical"
        path, extra = accept_typical(tree, p, epsilon, delta) if typical else verify_tree(sampler, tree, p)
        # Commit: the accepted path and the token after it; the cache keeps the path.
        emitted = [*(tree.tokens[node] for node in path), extra]
        cache.keep(len(tokens), path)
        tokens += emitted
        go_on = result.add(Step(emitted, tree.tokens, parents=tree.parents, kept=len(path)), limit, eos)
        # Draft: the best tokens of the heads take their places in the tree, whose form stays until positions end.
        best = best_guesses(heads(features[path[-1] + 1 if path else 0]), ranks)  # [k - 1, ranks]
        if (fitting := room(len(tokens), heads.k - 1, target)) < deepest:  # at first, and where a level is cut off
            deepest, choices = fitting, [path for path in choices if len(path) <= fitting]
            layout = (planned := plan(choices, heads.k, target.shape.vocab)).layout()
            places = [(len(path) - 1) * ranks + path[-1] for path in choices]
            slots = torch.tensor(places, dtype=torch.long, device=target.device)
        tree, (depths, visible) = Tree(best.flatten()[slots].tolist(), list(planned.parents)), layout
        check_guesses(tree.tokens, "the heads'")
    return result


def accept_typical(tree: Tree, p: Tensor, epsilon: float, delta: float) -> tuple[list[int], int]:
    """The longest path of plausible nodes, of equally long ones the likeliest, and the target's best token after it."""
    floor = (delta * (-torch.special.entr(p).sum(-1)).exp()).clamp(max=epsilon)  # [nodes + 1]
    parents = torch.tensor(tree.parents, device=p.device, dtype=torch.long) + 1
    chance = p[parents, torch.tensor(tree.tokens, device=p.device, dtype=torch.long)]  # [nodes]
    log_p = chance.log().where(chance > floor[parents], -torch.inf).tolist()
    reached = {-1: (0, 0.0)}  # plausible node -> length and log-likelihood of its path
    for node, parent in enumerate(tree.parents):
        if parent in reached and log_p[node] > -torch.inf:
            length, before = reached[parent]
            reached[node] = (length + 1, before + log_p[node])
    last = max(reached, key=lambda node: reached[node])
    best = p[last + 1].argmax().where(p[last + 1].isfinite().all(), -1)  # -1 keeps a broken model visible
    return tree.path(last), int(best)


def plan(choices: Sequence[Sequence[int]], k: int, vocab: int) -> Tree:
    """The tree of these rank paths; each node holds its rank where the token will be. Raises ValueError if it is none.

    It is made once, and anew where positions end: every step's tree has its form.
    """
    tree, numbers = Tree(), {tuple[int, ...](): -1}
    for path in map(tuple, choices):
        if not 0 < len(path) < k or not 0 <= path[-1] < vocab or path in numbers or path[:-1] not in numbers:
            raise ValueError(f"choices hold {path}; a path has 1 to {k - 1} ranks, once, and after its parent")
        numbers[path] = tree.add(path[-1], numbers[path[:-1]])
    return tree


@checked
def cartesian(widths: Sequence[int]) -> list[tuple[int, ...]]:
    """The rank paths of the full product: below each node of depth i - 1 the widths[i - 1] best of head i."""
    depths = range(1, len(widths) + 1)
    return [path for depth in depths for path in product(*(range(width) for width in widths[:depth]))]


def check_options(choices: Sequence[Sequence[int]], acceptance: Acceptance, epsilon: float, delta: float) -> None:
    """One clear sentence for no tree, a rule that is not known and thresholds that mean nothing."""
    if not choices:
        raise ValueError("choices are empty; give the tree at least one rank path, such as (0,)")
    if acceptance not in ("exact", "typical"):
        raise ValueError(f"acceptance is {acceptance!r}; it must be 'exact' or 'typical'")
    if not (epsilon > 0 and delta > 0):
        raise ValueError(f"epsilon is {epsilon} and delta is {delta}; both must be above 0")


class MedusaHeads(nn.Module):
    """k - 1 heads, each a residual SiLU layer and a vocabulary projection of its own."""

    @checked
    def __init__(self, shape: Shape, k: int = 5) -> None:
        super().__init__()
        if k < 2:
            raise ValueError(f"k is {k}; Medusa needs the model's own head and at least one more, so k >= 2")
        self.k = k
        self.inner = nn.Parameter(torch.zeros(shape.dim, (k - 1) * shape.dim))
        self.out = nn.Parameter(torch.randn(k - 1, shape.dim, shape.vocab) * shape.dim**-0.5)

    def start_from(self, target: LanguageModel) -> None:
        """Make every head the target's own: what training begins with."""
        with torch.no_grad():
            self.inner.zero_()
            self.out.copy_(target.project(torch.eye(target.shape.dim).to(target.embedding)))

    def forward(self, features: Tensor) -> Tensor:
        """Logits [k - 1, ..., vocab] of all heads for the target's normalised features [..., dim]."""
        inner = F.silu(features @ self.inner).unflatten(-1, (self.k - 1, -1))  # [..., k - 1, dim]
        return torch.einsum("...kd,kdv->k...v", features[..., None, :] + inner, self.out)


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    accuracy = zoo.manifest()["medusa-heads"]["quality"]["accuracy_by_rank"]
    choices = sparse_tree(accuracy, nodes=24)
    return {"target": zoo.load("target"), "heads": zoo.load("medusa-heads"), "choices": choices}


@checked
def sparse_tree(accuracy: Sequence[Sequence[float]], nodes: int) -> list[tuple[int, ...]]:
    """The `nodes` rank paths that are likeliest to be right, given the accuracy of each rank of each head.

    The chance of a path is the product of its accuracies; a parent is at least as likely, so it comes first.
    """
    found, front = list[tuple[int, ...]](), [(-1.0, tuple[int, ...]())]
    while front and len(found) <= nodes:
        chance, path = heapq.heappop(front)
        found.append(path)
        for rank, own in enumerate(accuracy[len(path)] if len(path) < len(accuracy) else ()):
            heapq.heappush(front, (chance * own, (*path, rank)))
    return found[1:]


@checked
def loss(
    target: LanguageModel, heads: MedusaHeads, tokens: Tensor, *, distil: bool = False, base: float = 0.8
) -> Tensor:
    """The sum of base^i times the loss of head i, for tokens [batch, n]; the target is frozen.

    Head i at place t learns the token at t + i + 1, or with `distil` the target's law of it, KL(p || head). Raises
    ValueError for texts that end before the last head's token, and for a `base` below 0.
    """
    check_texts(target.shape.vocab, heads.k + 1, tokens=tokens)
    check_range(0, base=base)
    with torch.no_grad():
        features = target.norm(target.run(target.embed(tokens[:, :-1])))  # [batch, n - 1, dim]
        own = target.project(features).float().log_softmax(-1) if distil else features
    total = features.new_zeros(())
    for i, ahead in enumerate(heads(features), start=1):
        logits = ahead[:, :-i].float().flatten(0, 1)
        if distil:
            log_q, log_p = logits.log_softmax(-1), own[:, i:].flatten(0, 1)
            each = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
        else:
            each = F.cross_entropy(logits, tokens[:, i + 1 :].flatten())
        total = total + base**i * each
    return total


@torch.inference_mode()
@checked
def rank_accuracy(
    target: LanguageModel, heads: MedusaHeads, tokens: Tensor, ranks: int = 10, wanted: Tensor | None = None
) -> Tensor:
    """How often rank r of head i is right about the token i places after the next: [k - 1, ranks].

    For texts `tokens` [batch, n]; `wanted` [batch, n] is what follows each place, by default the target's best token.
    """
    features = target.norm(target.run(target.embed(tokens)))
    wanted = target.project(features).argmax(-1) if wanted is None else wanted
    best = [ahead.topk(ranks).indices for ahead in heads(features)]  # each [batch, n, ranks]
    right = [guess[:, :-i] == wanted[:, i:, None] for i, guess in enumerate(best, start=1)]
    return torch.stack([each.double().mean((0, 1)) for each in right])
