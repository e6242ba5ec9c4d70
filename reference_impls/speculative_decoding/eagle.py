r"""EAGLE: a one-layer drafter continues the target's features instead of its tokens, and drafts a tree.

EAGLE: Speculative Sampling Requires Rethinking Feature Uncertainty. Yuhui Li, Fangyun Wei, Chao Zhang, Hongyang Zhang.
ICML 2024. https://arxiv.org/abs/2401.15077

Idea
----
The vector that the target's head reads, the *feature*, follows a smoother course than the tokens do, so a single layer
can continue it. But which feature comes next depends on which token was drawn. So the drafter reads each feature
together with the token that was drawn from it, one place ahead: that removes the doubt. The target's own embedding and
head serve the drafter, and a small tree of guesses is verified in one pass.

Algorithm
---------
With features $f_t$, read out as the law $p(x_{t+1}) = \mathrm{head}(f_t)$:

1. *Draft*: give the drafter the pairs $(x_{t+1}, f_t)$ of all newly committed tokens; from the last of them it predicts
   $\hat f$, and $q = \mathrm{head}(\hat f)$ is the law of the next token.
2. Draw the children of the root from $q$ without replacement: each child's law is $q$ without its elder siblings,
   renormalised. Each child that has children in the fixed tree `choices` goes through the drafter as the pair
   (child, $\hat f$), a level of the tree in one pass, which gives $\hat f$ and $q$ below it.
3. *Verify*: one pass of the target over the tree gives $p$ and $f$ at every node. The children of a node are tried in
   order: child $x$ is kept with $\min(1, p(x) / q(x))$; after a rejection $p \leftarrow \mathrm{norm}(\max(0, p - q))$.
   When no child is left, draw the extra token from $p$.
4. *Commit*: keep the accepted path. The drafter forgets all pairs with predicted features; their places are filled from
   the target's true ones in the next step, so errors do not outlive a step.

Training (`loss`): predict $f_{t+1}$ from the pairs of a text; minimise the smooth L1 distance of $\hat f_{t+1}$ from
$f_{t+1}$ plus 0.1 times the cross-entropy of the laws that the head reads from both. Noise from $U(-0.1, 0.1)$ on the
features that are read prepares the drafter for its own errors.

Guarantee
---------
Exact distribution: each child is judged by the law it was drawn from, given its elder siblings, which keeps $p$ at
every node. At temperature 0 the children are the drafter's likeliest tokens, and the text is the target's greedy text.

Differences from the paper
--------------------------
1. The paper calls the second-to-top layer's output the feature. Here it is that output after the final norm
   (`target.norm(hidden)`), which is what the head reads and what the published code takes too.
2. Embeddings are brought to the features' size (`F.rms_norm`) before both are joined. The published layer leaves out
   its first norm; here it is an ordinary layer of the target's kind.
3. The paper does not say whether siblings may be equal. Here, as in the published code, they never are (`siblings`).
4. The first pass reads the prompt and emits one token, because nothing can be drafted without `features`.
5. Published code for EAGLE-1 draws the extra token after a fully accepted path from the plain softmax: temperature and
   top-p are forgotten there. At temperature 0.5 this moves the law of three tokens by 0.11 (total variation, on a tiny
   model with a faultless drafter of one token). The code of its successors applies them.

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.core.sampling import Sampler
>>> from reference_impls.speculative_decoding.eagle import example, generate
>>> prompt = zoo.encode("def read_lines(path):")
>>> result = generate(prompt=prompt, limit=24, sampler=Sampler(temperature=0), **example())
>>> len(result.tokens), result.passes < 24
(24, True)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_impls.core.arguments import check_range, check_texts, checked
from reference_impls.core.cache import Cache
from reference_impls.core.drafting import check_part, check_vocabulary, room, siblings
from reference_impls.core.generation import Ends, Generation, Step, check_length
from reference_impls.core.layers import Block, Shape, attention_mask
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.tree import Tree
from reference_impls.core.verify import verify_tree

Ranks = tuple[int, ...]  # where a node stands in the tree: the rank among its siblings of each node on the way down

# The tree of the paper's figure 9: likelier branches are wider and deeper.
FIGURE_9 = "0 1 2 3 00 01 02 10 11 20 21 30 000 001 002 010 011 020 021 100 0000 0001 0002 00000 00001"
CHOICES: tuple[Ranks, ...] = tuple(tuple(map(int, path)) for path in FIGURE_9.split())
# For models whose pass over 26 tokens costs clearly more than a pass over one: a chain with one second choice.
FIVE = "0 1 00 000 0000"
SMALL: tuple[Ranks, ...] = tuple(tuple(map(int, path)) for path in FIVE.split())


@torch.inference_mode()
@checked
def generate(
    target: LanguageModel,
    prompt: Sequence[int],
    limit: int,
    *,
    drafter: EagleDrafter,
    sampler: Sampler,
    choices: Sequence[Ranks] = CHOICES,
    eos: Ends | None = None,
) -> Generation:
    """Generate up to `limit` tokens after `prompt`; the tree of guesses has the nodes `choices`.

    Raises ValueError for choices that are no tree and for models of different vocabularies.
    """
    choices = check_choices(choices, target.shape.vocab)
    check_vocabulary(target, drafter)
    check_part(target, drafter, "drafter's weights")
    check_length(target, prompt, limit)
    result, tokens, cache, draft_cache = Generation(), list(prompt), target.new_cache(), drafter.new_cache()
    features = None  # of the target, at the committed tokens that the drafter has not read
    go_on = limit > 0
    # Between turns the target's cache holds all tokens but the last; the drafter's, true pairs up to the last root.
    while go_on:
        # Draft: the drafter catches up on true features, then continues them by its own, a level of the tree a pass.
        tree, q, draft_passes = Tree(), None, 0
        fitting = [path for path in choices if len(path) <= room(len(tokens), len(choices[-1]), target)]
        if features is not None and fitting:
            ahead = drafter(target, tokens[len(draft_cache) + 1 :], features, draft_cache)
            tree, q = grow(target, drafter, draft_cache, ahead[-1:], sampler=sampler, choices=fitting)
            draft_passes = len(fitting[-1])
        # Verify: the target gives the laws and the features at all nodes in one pass.
        unseen = tokens[len(cache) :]
        depths, visible = tree.layout(len(unseen))
        inputs = target.embed([*unseen, *tree.tokens])
        hidden = target.run(inputs, cache, positions=len(cache) + depths, visible=visible)
        features = target.norm(hidden)  # [unseen + nodes, dim]
        p = sampler.probs(target.project(features[len(unseen) - 1 :]))  # [nodes + 1, vocab]
        path, extra = verify_tree(sampler, tree, p, q)
        # Commit: the accepted path and the extra token, with true features; the drafter forgets its own.
        cache.keep(len(tokens), path)
        draft_cache.crop(len(tokens) - 1)
        features = features[[*range(len(unseen)), *(len(unseen) + node for node in path)]]
        emitted = [*(tree.tokens[node] for node in path), extra]
        tokens += emitted
        step = Step(emitted, tree.tokens, parents=tree.parents, kept=len(path), draft_passes=draft_passes)
        go_on = result.add(step, limit, eos)
    return result


def grow(
    target: LanguageModel,
    drafter: EagleDrafter,
    cache: Cache,
    features: Tensor,
    *,
    sampler: Sampler,
    choices: Sequence[Ranks],
) -> tuple[Tree, Tensor]:
    """The tree below a root with the predicted `features` [1, dim], and the laws q [nodes, vocab] of its nodes.

    A level is made from the level above, of which the nodes with children are the `parents`. Their pairs are left in
    the cache, in the order of `read`.
    """
    tree, q, root, read = Tree(), list[Tensor](), len(cache), list[Ranks]()
    parents, number = list[Ranks]([()]), dict[Ranks, int]({(): -1})  # number: of a node in the tree
    while True:
        # All children of the parents, whose features are [parents, dim].
        level = [path for path in choices if path[:-1] in parents]
        rows, ranks = [parents.index(path[:-1]) for path in level], [path[-1] for path in level]
        guesses, laws = siblings(sampler, target.project(features), max(ranks) + 1)
        for path, token in zip(level, guesses[rows, ranks].tolist(), strict=True):
            number[path] = tree.add(token, number[path[:-1]])
        q.append(laws[rows, ranks])
        # Features of those that have children themselves, in one pass: each sees its ancestors' pairs and its own.
        inner = [path for path in level if (*path, 0) in choices]
        if not inner:
            return tree, torch.cat(q)
        read += inner
        visible = torch.tensor([[path[: len(other)] == other for other in read] for path in inner])
        positions = torch.full((len(inner),), root + len(inner[0]) - 1)
        tokens, above = [tree.tokens[number[path]] for path in inner], [parents.index(path[:-1]) for path in inner]
        features = drafter(target, tokens, features[above], cache, positions=positions, visible=visible)
        parents = inner


def check_choices(choices: Sequence[Ranks], vocab: int) -> list[Ranks]:
    """The nodes of the tree, breadth first. Raises ValueError where a parent or an elder sibling is missing."""
    nodes = sorted({tuple(path) for path in choices}, key=lambda path: (len(path), path))
    if not nodes:
        raise ValueError("choices are empty; the tree needs at least the node (0,), or use autoregressive decoding")
    for path in nodes:
        elder = (*path[:-1], path[-1] - 1) if path and path[-1] else path[:-1]
        if not path or (elder and elder not in nodes) or not 0 <= path[-1] < vocab:
            raise ValueError(
                f"node {path} of choices hangs in the air: each needs its parent and its elder siblings, numbered "
                f"from 0, and no more than the {vocab} tokens of the vocabulary"
            )
    return nodes


class EagleDrafter(nn.Module):
    """One linear map from (embedding, feature) to a feature, and one decoder layer; the target lends the rest."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.join = nn.Parameter(torch.randn(2 * shape.dim, shape.dim) * (2 * shape.dim) ** -0.5)
        self.blocks = nn.ModuleList([Block(shape)])

    def new_cache(self) -> Cache:
        """An empty cache for the pairs of one sequence."""
        shape = self.shape
        return Cache(1, shape.kv_heads, shape.head_dim, self.join.dtype, self.join.device)

    def forward(
        self,
        target: LanguageModel,
        tokens: Sequence[int] | Tensor,
        features: Tensor,
        cache: Cache | None = None,
        *,
        positions: Tensor | None = None,
        visible: Tensor | None = None,
    ) -> Tensor:
        """Features [..., n, dim] at `tokens` [..., n], from the `features` [..., n, dim] one place before each.

        `visible` [n, recent + n] says which of the latest pairs, cached or new, each new pair sees; all older ones are
        always seen. The default is the causal triangle.
        """
        x = torch.cat((F.rms_norm(target.embed(tokens), (self.shape.dim,)), features), -1) @ self.join
        x = x.to(features.dtype)  # in training of mixed precision the matrix product is of the lower one
        known, new = len(cache) if cache is not None else 0, x.shape[-2]
        past = known if visible is None else known + new - visible.shape[-1]
        mask = attention_mask(visible, past, new, x)
        y: Tensor = self.blocks[0](x, target.angles(known, new, positions), mask, cache)
        return y


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    return {"target": zoo.load("target"), "drafter": zoo.load("eagle-drafter"), "choices": SMALL}


@checked
def loss(
    target: LanguageModel,
    drafter: EagleDrafter,
    tokens: Tensor,
    *,
    noise: float = 0.1,
    weight: float = 0.1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The training loss on tokens [batch, n]: the feature one place ahead, and what the head reads from it.

    The target is frozen; the features that the drafter reads are shaken by U(-noise, noise).
    Raises ValueError for texts of less than 2 tokens, another vocabulary, a `noise` or a `weight` below 0.
    """
    check_vocabulary(target, drafter)
    check_texts(target.shape.vocab, 2, tokens=tokens)
    check_range(0, noise=noise, weight=weight)
    with torch.no_grad():
        features = target.norm(target.run(target.embed(tokens)))  # [batch, n, dim]
        wanted, p = features[:, 1:], target.project(features[:, 1:]).float().softmax(-1)
        shake = torch.empty_like(wanted).uniform_(-noise, noise, generator=generator)
    found = drafter(target, tokens[:, 1:], features[:, :-1] + shake)
    surprise = -(p * target.project(found).float().log_softmax(-1)).sum(-1).mean()
    return F.smooth_l1_loss(found.float(), wanted.float()) + weight * surprise
