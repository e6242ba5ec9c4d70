r"""BiTA: masks behind every guess draft the next guesses in the pass that verifies these.

BiTA: Bi-Directional Tuning for Lossless Acceleration in Large Language Models. Feng Lin, Hanling Yi, Hongbin Li,
Yifan Yang, Xiaotian Yu, Guangming Lu, Rong Xiao. Expert Systems with Applications 279 (2025).
https://arxiv.org/abs/2401.12522

Idea
----
Mask tokens behind a text make the model guess what comes at their places. Two small things are learnt for it, while
every weight of the model is frozen: embeddings of the masks, and learned keys with their values in every layer (the
paper's prompt), which only the masks see and which tell the model what to do there. A pass that verifies guesses
can draft as well: it holds a group of masks behind each of them, so wherever acceptance ends, the next guesses are
there already.

Algorithm
---------
1. *Layout* of a pass: the newest token, which is the root; the tree of guesses below it; a group of $m$ masks behind
   the root and behind each node. A node sees its ancestors. A mask sees what the node before its group sees, the
   earlier masks of its group, and the learned keys; its position is one further than theirs. Nothing but masks sees a
   mask or a learned key, so the target's laws are those of the frozen model.
2. *Verify*: the pass gives the law $p$ after the root and after each node. From the root on, a child $x$ is kept with
   probability $p(x)$, at temperature 0 if it is $\arg\max p$; the token after the last kept node comes from what is
   left of $p$.
3. *Draft*: the group behind the last kept node, at depth $d$, saw the text up to there. The token after that node is
   known now; mask $i$ of the group guesses the token $i$ places after it.
4. *Tree* (`half_tree`): the `widths[i - 1]` best tokens of mask $i$ stand below the best token of mask $i - 1$. So only
   best guesses are continued, and a path that takes another one ends there.
5. *Commit*: the cache keeps the accepted path and forgets nodes, masks and learned keys.
6. *Train* (`loss`): the model writes texts at temperature 0. Many groups of masks stand behind places $t$ of such a
   text in one pass, none of which sees another; mask $i$ behind $t$ learns the token at $t + 1 + i$ by cross-entropy.

Guarantee
---------
Exact distribution, for any masks and learned keys. The tree is made without chance, and `verify_tree` keeps the
target's law for such guesses; at temperature 0 the text is the greedy one, which is what the paper claims. The masks
cannot change a law, because no other token sees them.

Differences from the paper
--------------------------
1. The paper decodes greedily, and the tree modes of the published code refuse to sample. Here `verify_tree` makes the
   same tree exact at every temperature. The chain mode of the code does sample, and is biased: after a rejection it
   draws from $p$ and not from the residual, so $x$ comes out with probability
   $\min(p(x), q(x)) + (1 - \alpha)\, p(x)$, where $\alpha = \sum_x \min(p(x), q(x))$.
2. The published tree modes run without a cache and read the whole text in every pass. Here the cache holds the text,
   and in a pass with masks the learned keys and values behind it (`Prompted`), from where they are dropped again.
3. The pass over the user's prompt has no masks, because it would need an n by n mask: the first guesses are drafted by
   the second pass.
4. Of the paper's trees this is the efficient one, which continues the best guess of each level alone.
5. The learned keys begin as what the layers themselves compute for tokens from all over the vocabulary, the masks as
   the mean embedding (`start_from`).

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.core.sampling import Sampler
>>> from reference_impls.speculative_decoding.bita import example, generate
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
from reference_impls.core.drafting import best_guesses, room
from reference_impls.core.generation import Ends, Generation, Step, check_length
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.tree import Tree, attach
from reference_impls.core.verify import verify_tree


@torch.inference_mode()
@checked
def generate(
    target: LanguageModel,
    prompt: Sequence[int],
    limit: int,
    *,
    tuning: BidirectionalTuning,
    sampler: Sampler,
    widths: Sequence[int] = (3, 2, 1),
    eos: Ends | None = None,
) -> Generation:
    """Generate up to `limit` tokens after `prompt`, with a tree of sum(widths) guesses in each pass of the target.

    `widths` say how many of the best tokens of each mask are guessed; so many masks are used. Raises ValueError for
    widths of more masks than there are, and for one that is below 1 or above the vocabulary.
    """
    check_tree_widths(widths, len(tuning.masks), target.shape.vocab)
    check_length(target, prompt, limit)
    result, tokens, cache, tree = Generation(), list(prompt), target.new_cache(), Tree()
    go_on = limit > 0
    # Between turns the cache holds all tokens but the last, and `tree` the guesses below that one.
    while go_on:
        # Verify, and look ahead in the same pass: a group of masks stands behind the root and behind each node.
        inputs, places = [*tokens[len(cache) :], *tree.tokens], torch.arange(len(tree) + 1)
        depth = len(tree.path(len(tree) - 1))
        size = room(len(tokens) + depth, len(widths), target) if result.steps else 0  # behind the deepest node too
        if size or tree.tokens:
            hidden = look_ahead(target, tuning, inputs, tree.layout(), places, size=size, cache=cache)
        else:
            hidden = target.run(target.embed(inputs), cache)[-1:]  # the prompt, or the last position
        p = sampler.probs(target.logits(hidden[: len(places)]))  # [nodes + 1, vocab]
        path, extra = verify_tree(sampler, tree, p)
        # Commit: the accepted path and the token after it; the cache forgets nodes, masks and learned keys.
        emitted = [*(tree.tokens[node] for node in path), extra]
        cache.keep(len(tokens), path)
        tokens += emitted
        go_on = result.add(Step(emitted, tree.tokens, parents=tree.parents, kept=len(path)), limit, eos)
        # Draft: the group behind the last node kept has guessed what follows the extra token.
        groups = hidden[len(places) :].view(len(places), size, target.shape.dim)  # [nodes + 1, masks, dim]
        masks = groups[path[-1] + 1 if path else 0][: room(len(tokens), size, target)]
        tree = half_tree(best_guesses(target.logits(masks), max(widths)).tolist(), widths) if go_on else Tree()
    return result


def half_tree(guesses: Sequence[Sequence[int]], widths: Sequence[int]) -> Tree:
    """The tree of guesses [masks, width], best first: widths[i] of mask i, below the best one of mask i - 1."""
    tree, parent = Tree(), -1
    for row, width in zip(guesses, widths, strict=False):  # before the first look ahead there are none
        parent, *_ = [tree.add(token, parent) for token in row[:width]]  # the best one goes on
    return tree


def look_ahead(
    target: LanguageModel,
    tuning: BidirectionalTuning,
    tokens: Sequence[int] | Tensor,
    layout: tuple[Tensor, Tensor | None],
    places: Tensor,
    *,
    size: int,
    cache: Cache | None = None,
) -> Tensor:
    """Hidden states of tokens [..., n], and of the first `size` masks behind each of `places` [groups].

    [..., n + groups * size, dim], one group after another. `layout` is that of the tokens alone, as of `Tree.layout`.
    """
    depths, visible = layout
    n, prompted = len(depths), Prompted(tuning.prompts, cache)
    depths, visible = attach(depths, visible, places, size)
    is_mask = torch.arange(len(depths)) >= n
    # Columns: the new tokens and masks, then the learned keys; those of the cache come before them.
    visible = torch.cat((visible, is_mask[:, None].expand(-1, tuning.prompts.shape[-2])), 1)
    x = target.embed(tokens)
    x = torch.cat((x, tuning.masks[:size].repeat(len(places), 1).expand(*x.shape[:-2], -1, -1)), -2)
    return target.run(x, prompted, positions=prompted.length(0) + depths, visible=visible)


def check_tree_widths(widths: Sequence[int], masks: int, vocab: int) -> None:
    """One clear sentence for a tree that the masks cannot fill."""
    if not 0 < len(widths) <= masks or not all(0 < width <= vocab for width in widths):
        raise ValueError(
            f"widths are {[*widths]}; there must be 1 to {masks} of them, one for each mask, and each from 1 to {vocab}"
        )


class Prompted:
    """A text's keys and values as one pass sees them: behind those of its own tokens stand the learned ones, `prompts`.

    The order of keys means nothing to attention, and there, behind the text, the cache forgets them with the masks.
    Without a cache nothing lasts: that is how training calls it.
    """

    def __init__(self, prompts: Tensor, cache: Cache | None = None) -> None:
        self.prompts, self.cache = prompts, cache

    def length(self, layer: int) -> int:
        """How many tokens of the text `layer` holds."""
        return self.cache.length(layer) if self.cache is not None else 0

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values [..., kv_heads, new, head_dim] and the learned ones; return all of the layer."""
        own = self.prompts[layer]  # [2, kv_heads, prompts, head_dim]
        k, v = (
            torch.cat((new, more.expand(*new.shape[:-2], -1, -1)), -2) for new, more in zip((k, v), own, strict=True)
        )
        return (k, v) if self.cache is None else self.cache.append(layer, k, v)


class BidirectionalTuning(nn.Module):
    """All that is trained: learned keys and values in every layer, `prompts`, and the embeddings of the masks."""

    @checked
    def __init__(self, shape: Shape, masks: int = 3, prompts: int = 16) -> None:
        super().__init__()
        if masks < 1 or prompts < 1:
            raise ValueError(f"masks is {masks} and prompts is {prompts}; there must be at least 1 of each")
        self.masks = nn.Parameter(torch.randn(masks, shape.dim) * shape.dim**-0.5)
        self.prompts = nn.Parameter(torch.randn(shape.layers, 2, shape.kv_heads, prompts, shape.head_dim))

    def start_from(self, target: LanguageModel) -> None:
        """Masks like the mean token, keys like tokens from all over the vocabulary: what training begins with."""
        cache = target.new_cache()
        with torch.no_grad():
            self.masks.copy_(target.embedding.mean(0))
            target(torch.linspace(0, target.shape.vocab - 1, self.prompts.shape[-2]).long().tolist(), cache)
            for layer, own in enumerate(self.prompts):
                own.copy_(torch.stack(cache.entries(layer)))


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    # On so small a target a pass grows dear with its width, and a second mask is right too seldom to pay for it.
    return {"target": zoo.load("target"), "tuning": zoo.load("bita-tuning"), "widths": (2,)}


@checked
def loss(
    target: LanguageModel,
    tuning: BidirectionalTuning,
    tokens: Tensor,
    *,
    first: int = 0,
    groups: int = 16,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Cross-entropy of groups of masks behind random places of texts [batch, n] by the target, which is frozen.

    Mask i behind place t learns the token at t + 1 + i; `first` is the first place, the end of the target's prompt.
    Raises ValueError for texts too short for all masks behind the first place, and for no group.
    """
    check_texts(target.shape.vocab, len(tuning.masks) + 2, tokens=tokens)
    check_range(1, groups=groups)
    size, end = len(tuning.masks), tokens.shape[1] - len(tuning.masks) - 1
    check_range(0, end - 1, first=first)
    places = torch.randint(first, end, (groups,), generator=generator)
    hidden = look_ahead(target, tuning, tokens[:, :end], (torch.arange(end), None), places, size=size)
    logits = target.logits(hidden[:, end:])  # [batch, groups * size, vocab]
    wanted = tokens[:, places[:, None] + torch.arange(2, size + 2)]  # [batch, groups, size]
    return F.cross_entropy(logits.float().flatten(0, 1), wanted.flatten())
