r"""Staged Speculative Decoding: n-grams draft for the drafter, and the drafter drafts a tree for the target.

Accelerating LLM Inference with Staged Speculative Decoding. Benjamin Spector, Chris Re. ES-FoMo workshop at ICML 2023.
https://arxiv.org/abs/2308.04623

Idea
----
A long chain of guesses is seldom right to its end. So spend the guesses on a tree, wide near the root and thin below:
second and third choices near the root are worth more than a tenth guess in a row, and one pass of the drafter serves
all nodes of a level. Then the drafter's own passes are what costs. So let an n-gram table guess what the drafter will
draw: where it is right, the drafter has read the next level before it is asked for it.

Algorithm
---------
`widths` says how many children $w_1, w_2, \dots, w_d$ a node gets at each depth.

1. *Draft*, second stage: below each node that waits for children, the table grows a tree of its own, with the $w_i$
   likeliest tokens by a trigram model with Katz backoff. It ends one level above the leaves, which nobody has to read.
2. *Draft*, first stage: one pass of the drafter over all of it gives its law $q$ after each node. Draw the children of
   the waiting nodes from $q$, each over the tokens that its elder siblings left. A child that the table has guessed
   has been read as well, so its children are drawn at once; the others wait for the next pass. This ends after 1 to $d$
   passes, with a tree whose nodes are all draws of the drafter.
3. *Verify*: one pass of the target over the tree gives its law $p$ after the root and after every node. From the root
   down, keep child $x$ with probability $\min(1, p(x) / q(x))$ and go on below it; otherwise
   $p \leftarrow \mathrm{norm}(\max(0, p - q))$, and try its sibling. Where none is kept, draw from what is left of $p$.
4. *Commit*: the path and the extra token. Both caches keep the path's nodes and forget the others.

The table is counted on text that the drafter wrote itself, at a raised temperature (`count_ngrams`).

Guarantee
---------
Exact distribution, for any drafter and any table. A guess of the table never enters the tree: it only decides which
laws are known early, and what is drawn is drawn from $q$. So the tree is that of the drafter alone, and the target
tests it by the rule of [SpecInfer](https://arxiv.org/abs/2305.09781). At temperature 0 the text is the target's own.

Differences from the paper
--------------------------
1. The paper claims the target's law and does not say how several children are judged; the recursive residual rule is
   our choice, and it is exact. Nor does it say how the drafter's drafts are judged: drawing from $q$ and looking
   whether the draw was guessed is the exact test of a guess made without chance.
2. The paper builds the tree dynamically and leaves its heuristics to its code, which is not published. Here `widths` is
   fixed.
3. The paper's table was counted on 120 million tokens; that of the zoo on fewer, and it holds the commonest contexts.
   The model is that of Katz (1987) with Good-Turing discounts up to a count of 5.
4. The first pass of either model reads the prompt without guesses, because a prompt under a tree's mask would cost a
   long text dearly; the target's emits a token.

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.core.sampling import Sampler
>>> from reference_impls.speculative_decoding.staged_speculative_decoding import (
...     bandwidth, count_ngrams, example, generate)
>>> table = count_ngrams([1, 2, 3, 1, 2, 3, 1, 2, 0, 4, 2, 1, 4, 2, 1], vocab=5, contexts=9, width=2)
>>> table([1, 2], 1), table([4, 2], 1)
([3], [1])
>>> prompt, models = zoo.encode("def read_lines(path):"), example()
>>> result = generate(prompt=prompt, limit=24, sampler=Sampler(temperature=0), **models)
>>> len(result.tokens), result.passes < 24, bandwidth(result, models["target"], models["drafter"]) < 1
(24, True, True)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_impls.core.arguments import check_range, checked
from reference_impls.core.cache import Cache
from reference_impls.core.drafting import check_vocabulary, room, siblings
from reference_impls.core.generation import Ends, Generation, Step, check_length
from reference_impls.core.layers import Shape, as_tensor
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.tree import Tree, check_widths
from reference_impls.core.verify import verify_tree

RELIABLE = 5  # counts above it are taken as they are (Katz, 1987)
PART = 1024  # contexts that are worked out at once


@torch.inference_mode()
@checked
def generate(
    target: LanguageModel,
    prompt: Sequence[int],
    limit: int,
    *,
    drafter: LanguageModel,
    ngrams: Ngrams,
    sampler: Sampler,
    widths: Sequence[int] = (3, 2, 1, 1),
    eos: Ends | None = None,
) -> Generation:
    """Generate up to `limit` tokens after `prompt`; the drafter's tree has `widths` children a node by depth.

    Raises ValueError for models of different vocabularies, or for widths that the vocabulary cannot fill.
    """
    check_vocabulary(target, drafter, ngrams)
    check_widths(widths, target.shape.vocab)
    check_length(target, prompt, limit)
    result, tokens = Generation(), list(prompt)
    cache, draft_cache = target.new_cache(), drafter.new_cache()
    go_on = limit > 0
    # Between turns the target's cache holds all tokens but the last; the drafter's as many of them as it has read.
    while go_on:
        # Draft: the drafter's tree, prepared by the n-grams, once the prompt has been read.
        fitting = widths[: room(len(tokens), len(widths), target, drafter)] if result.steps else ()
        tree, laws, lookahead, draft_passes = grow(sampler, drafter, ngrams, tokens, draft_cache, fitting)
        # Verify: one pass over the tree gives the law after every node; every child is judged at its parent.
        unseen = tokens[len(cache) :]
        depths, visible = tree.layout(len(unseen))
        inputs, positions = [*unseen, *tree.tokens], len(cache) + depths
        p = sampler.probs(target(inputs, cache, last=len(tree) + 1, positions=positions, visible=visible))
        path, extra = verify_tree(sampler, tree, p, torch.stack(laws) if laws else None)
        # Commit: the path and the extra token; both caches keep what they have seen of the path.
        emitted = [*(tree.tokens[node] for node in path), extra]
        cache.keep(len(tokens), path)
        if draft_passes:
            draft_cache.keep(len(tokens), lookahead.follow(emitted[:-1]))
        tokens += emitted
        step = Step(emitted, tree.tokens, parents=tree.parents, kept=len(path), draft_passes=draft_passes)
        go_on = result.add(step, limit, eos)
    return result


def grow(  # noqa: PLR0917 - what grows, and what it grows from
    sampler: Sampler, drafter: LanguageModel, ngrams: Ngrams, tokens: Sequence[int], cache: Cache, widths: Sequence[int]
) -> tuple[Tree, list[Tensor], Tree, int]:
    """The drafter's tree after `tokens`, the law [vocab] of each node's draw, what it read last, and its passes.

    A pass reads the last of the tokens, all inner nodes so far, and what the n-grams guess below those that wait. The
    first pass of all reads the prompt alone, which needs no mask.
    """
    tree, laws, lookahead, draft_passes = Tree(), list[Tensor](), Tree(), 0
    waiting = [-1] if widths else []
    while waiting:
        # places: the nodes whose law this pass gives -> where they stand in `lookahead`
        lookahead, places = guess(ngrams, tokens, tree, waiting, widths) if len(cache) else (Tree(), {-1: -1})
        cache.crop(len(tokens) - 1)
        unseen = tokens[len(cache) :]
        depths, visible = lookahead.layout(len(unseen))
        inputs, positions = [*unseen, *lookahead.tokens], len(cache) + depths
        logits = drafter(inputs, cache, last=len(lookahead) + 1, positions=positions, visible=visible)
        draft_passes, waiting = draft_passes + 1, []
        # Level by level: a child that the n-grams guessed has its law already, so the next turn draws below it.
        for depth, width in enumerate(widths):
            nodes = [node for node in places if len(tree.path(node)) == depth]
            if not nodes:
                continue
            drawn, q = siblings(sampler, logits[[places[node] + 1 for node in nodes]], width)  # row 0 is the root
            for node, guesses, drawn_from in zip(nodes, drawn.tolist(), q, strict=True):
                known = {lookahead.tokens[place]: place for place in lookahead.children(places[node])}
                for token, law in zip(dict.fromkeys(guesses), drawn_from, strict=False):  # repeats come last
                    child = tree.add(token, node)
                    laws.append(law)
                    if token in known:
                        places[child] = known[token]
                    elif depth + 1 < len(widths):
                        waiting.append(child)
    return tree, laws, lookahead, draft_passes


def guess(
    ngrams: Ngrams, tokens: Sequence[int], tree: Tree, waiting: Sequence[int], widths: Sequence[int]
) -> tuple[Tree, dict[int, int]]:
    """The inner nodes of a tree with the n-grams' guesses below those that wait; and where these stand in it."""
    lookahead, places = Tree(), {-1: -1}
    for node, (token, parent) in enumerate(zip(tree.tokens, tree.parents, strict=True)):
        if len(tree.path(node)) < len(widths):
            places[node] = lookahead.add(token, places[parent])
    frontier = [places[node] for node in waiting]
    for node in frontier:  # grows on the way
        path = [lookahead.tokens[i] for i in lookahead.path(node)]
        if len(path) + 1 < len(widths):
            frontier += [lookahead.add(token, node) for token in ngrams([*tokens[-2:], *path], widths[len(path)])]
    return lookahead, {node: places[node] for node in waiting}


class Ngrams(nn.Module):
    """The drafter's drafter: the likeliest tokens [width] after two tokens, and after one where the two are not known.

    `pairs` [contexts] are the known pairs, each as one number, first * vocab + second.
    """

    @checked
    def __init__(self, shape: Shape, contexts: int = 0, width: int = 4) -> None:
        super().__init__()
        check_range(0, contexts=contexts)
        check_range(1, width=width)
        self.shape, vocab, width = shape, shape.vocab, min(width, shape.vocab)
        self.register_buffer("pairs", torch.zeros(contexts, dtype=torch.long))
        self.register_buffer("after_two", torch.zeros(contexts, width, dtype=torch.int32))
        self.register_buffer("after_one", ((torch.randint(vocab, (vocab, 1)) + torch.arange(width)) % vocab).int())
        self.pairs: Tensor
        self.after_two: Tensor
        self.after_one: Tensor

    @cached_property
    def _rows(self) -> tuple[dict[int, list[int]], list[list[int]]]:
        """Both tables as a look-up wants them: where an element costs no tensor."""
        return dict(zip(self.pairs.tolist(), self.after_two.tolist(), strict=True)), self.after_one.tolist()

    def forward(self, text: Sequence[int], count: int) -> list[int]:
        """Up to `count` different guesses for the token after `text`, likeliest first."""
        after_two, after_one = self._rows
        pair = text[-2] * self.shape.vocab + text[-1] if len(text) > 1 else -1
        return after_two.get(pair, after_one[text[-1]])[:count]


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    models = {"target": zoo.load("target"), "drafter": zoo.load("drafter"), "ngrams": zoo.load("staged-ngrams")}
    return models | {"widths": (3, 2, 1, 1)}


@checked
def count_ngrams(tokens: Sequence[int] | Tensor, vocab: int, *, contexts: int, width: int = 4) -> Ngrams:
    """The table of a trigram model with Katz backoff for a text; it holds the commonest `contexts` pairs."""
    check_range(0, contexts=contexts)
    text = as_tensor(tokens, vocab, torch.device("cpu"))
    pairs, which, seen = (text[:-2] * vocab + text[1:-1]).unique(return_inverse=True, return_counts=True)
    d_3 = discounts((which * vocab + text[2:]).unique(return_counts=True)[1])
    d_2 = discounts((text[:-1] * vocab + text[1:]).unique(return_counts=True)[1])
    one = text.bincount(minlength=vocab) + 1.0  # no token is impossible

    def after_token(last: Tensor) -> Tensor:  # laws [last, vocab]
        every, place = last.unique(return_inverse=True)
        return katz(counts(text[:-1], text[1:], every, vocab), d_2, one / one.sum())[place]

    best = seen.argsort(descending=True, stable=True)[:contexts].sort().values
    found = Ngrams(Shape(vocab, dim=0, layers=1, heads=0, kv_heads=0, head_dim=0, hidden=0), len(best), width)
    found.pairs = pairs[best]
    for part, rows in zip(torch.arange(vocab).split(PART), found.after_one.split(PART), strict=True):
        rows.copy_(after_token(part).topk(rows.shape[1]).indices)
    for part, rows in zip(best.split(PART), found.after_two.split(PART), strict=True):
        table = counts(which, text[2:], part, vocab)
        rows.copy_(katz(table, d_3, after_token(pairs[part] % vocab)).topk(rows.shape[1]).indices)
    return found


def counts(context: Tensor, token: Tensor, known: Tensor, vocab: int) -> Tensor:
    """How often which token comes after each of the contexts `known` [known], which rise: [known, vocab]."""
    seen = torch.isin(context, known)
    place = torch.searchsorted(known, context[seen])
    return (place * vocab + token[seen]).bincount(minlength=len(known) * vocab).view(len(known), vocab)


def discounts(seen: Tensor) -> Tensor:
    """What part d_r [7] of a count r is believed, from how often each different n-gram [n] was seen (Katz, 1987).

    By Good and Turing, what was seen r times should count as (r + 1) n_(r + 1) / n_r, where n_r n-grams were seen r
    times. Counts above 5 are believed; where too few were seen to tell, a half is.
    """
    times = seen.bincount(minlength=RELIABLE + 2)[: RELIABLE + 2].double()
    r = torch.arange(1, RELIABLE + 1)
    rare = (RELIABLE + 1) * times[-1] / times[1]
    d = ((r + 1) * times[2:] / (r * times[1:-1]) - rare) / (1 - rare)
    return F.pad(torch.where((d > 0) & (d < 1), d, 0.5), (1, 1), value=1.0)


def katz(seen: Tensor, d: Tensor, shorter: Tensor) -> Tensor:
    """Laws [rows, vocab] from counts [rows, vocab] and the laws of the shorter contexts [rows, vocab], or one for all.

    The mass that discounts save goes to what was not seen, in proportion to its law after the shorter context.
    """
    law = seen * d[seen.clamp(max=RELIABLE + 1)] / seen.sum(-1, keepdim=True).clamp(min=1)
    unseen = shorter.where(seen == 0, 0.0)
    law += (1 - law.sum(-1, keepdim=True)) * unseen / unseen.sum(-1, keepdim=True).clamp(min=1e-12)
    return law / law.sum(-1, keepdim=True)  # where nothing is unseen, nothing had to be saved


@checked
def bandwidth(result: Generation, target: nn.Module, drafter: nn.Module) -> float:
    """Bytes of weights read for a token, divided by those of plain decoding: 1 is no gain (table 1 of the paper).

    A pass reads all weights of its model once. The n-grams read a row of a few numbers for a node: as good as nothing.
    """
    of_target, of_drafter = (sum(p.numel() * p.element_size() for p in m.parameters()) for m in (target, drafter))
    return (result.passes * of_target + result.draft_passes * of_drafter) / (of_target * max(1, len(result.tokens)))
