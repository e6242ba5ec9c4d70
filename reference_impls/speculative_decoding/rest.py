r"""REST: what followed the same words in a corpus becomes the draft.

REST: Retrieval-Based Speculative Decoding. Zhenyu He, Zexuan Zhong, Tianle Cai, Jason D. Lee, Di He. NAACL 2024.
https://arxiv.org/abs/2311.08252

Idea
----
Text repeats phrases that have been written before. So let a corpus draft, not a model: look up where the newest tokens
occur in it and read on from there. The continuations of all these places are merged into a tree in which the commonest
stand for what is likeliest, and the target checks the tree in one pass. Nothing is trained, and nothing but a search
runs between two passes.

Algorithm
---------
1. *Datastore*: the corpus as one row of $N$ token ids and its suffix array, the starts of all suffixes in lexicographic
   order. All places where some $n$ tokens occur are neighbours there, found by two binary searches.
2. *Draft*: look up the last $n$ tokens of the text for $n = n_{max}, n_{max} - 1, \dots, 1$, until they occur. Merge
   the $\gamma$ tokens after every place into a trie, in which a node weighs as many places as pass through it, and
   keep the `nodes` heaviest. They form a tree, for no node outweighs its parent.
3. *Verify*: one pass of the target over the tree gives the law $p$ after the root and after each node. Draw a token
   from $p$ at the root; as long as a child carries the token drawn, go there and draw again.
4. *Commit*: the tokens drawn, the last of which no child carried; the cache keeps the path. Where nothing was found,
   the tree is empty and the step is an ordinary one.

Guarantee
---------
Exact distribution, for any datastore: each token is one draw from the target's law, whether a node carries it or not.
`verify_tree` reaches the same law with fewer copies from the device: it keeps child $x$ with probability $p(x)$ and
takes $x$ out of $p$ after a rejection.

Differences from the paper
--------------------------
1. The target's first pass reads the prompt without guesses, because a prompt under a tree's mask would cost a long text
   dearly, and emits a token.
2. All occurrences are counted (`trie`). The suffix array has them sorted already, so that each node of the trie is a
   run of equal rows and its weight the length of the run; no trie of the whole is built. The published code stops after
   5,000 places, those whose continuations come first in the order of token ids. Where its nodes are more than the
   budget, `cut_to_choices` drops whole paths, those of the most different tokens first, and not the lightest nodes.
3. The `suffix_array` is made by prefix doubling, for the datastore is small; the published code uses libsais, and looks
   up no fewer than 2 tokens.
4. Published code is exact when greedy and biased when it samples. It draws once for every path of the tree instead of
   once a node, takes the path with the most agreement, and after a disagreement throws the draw away and draws again.
   If one guess $x$ stands below the root, $x$ comes out with probability $p(x) (2 - p(x))$: a total variation of
   $p(x) (1 - p(x))$, up to 1/4. With $r$ paths through $x$ it is worse, as $x$ is missed with $(1 - p(x))^{r+1}$ only.

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.core.sampling import Sampler
>>> from reference_impls.speculative_decoding.rest import Datastore, example, generate
>>> store = Datastore([3, 1, 4, 1, 5, 3, 1, 4, 2])
>>> tree = store.draft([7, 3, 1], longest=16, gamma=2, nodes=3)
>>> tree.tokens, tree.parents
([4, 1, 2], [-1, 0, 0])
>>> prompt = zoo.encode("def read_lines(path):")
>>> result = generate(prompt=prompt, limit=24, sampler=Sampler(temperature=0), **example())
>>> len(result.tokens), result.passes < 24
(24, True)
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_impls.core.arguments import checked, shown
from reference_impls.core.drafting import check_draft, room
from reference_impls.core.generation import Ends, Generation, Step, check_length
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.tree import Tree
from reference_impls.core.verify import verify_tree


@torch.inference_mode()
@checked
def generate(
    target: LanguageModel,
    prompt: Sequence[int],
    limit: int,
    *,
    datastore: Datastore,
    sampler: Sampler,
    longest: int = 16,
    gamma: int = 10,
    nodes: int = 64,
    eos: Ends | None = None,
) -> Generation:
    """Generate up to `limit` tokens after `prompt`, with up to `nodes` guesses from `datastore` in each pass.

    Up to `longest` tokens are looked up, and up to `gamma` read from there; the defaults are the paper's. Raises
    ValueError for numbers below 1, and for a datastore with tokens that the target does not have.
    """
    check_options(target, datastore, longest, gamma, nodes)
    check_length(target, prompt, limit)
    result, tokens, cache = Generation(), list(prompt), target.new_cache()
    go_on = limit > 0
    # Between turns the cache holds all tokens but the last.
    while go_on:
        # Draft: what followed the newest tokens in the datastore, as a tree, once the prompt has been read.
        depth = room(len(tokens), gamma, target) if result.steps else 0
        tree = datastore.draft(tokens, longest=longest, gamma=depth, nodes=nodes) if depth else Tree()
        # Verify: one pass over the whole tree, every node at the place of its depth.
        unseen = tokens[len(cache) :]
        depths, visible = tree.layout(len(unseen))
        inputs, positions = [*unseen, *tree.tokens], len(cache) + depths
        p = sampler.probs(target(inputs, cache, last=len(tree) + 1, positions=positions, visible=visible))
        path, extra = verify_tree(sampler, tree, p)
        # Commit: the accepted path and the target's own token after it; the cache forgets the other nodes.
        cache.keep(len(tokens), path)
        emitted = [*(tree.tokens[node] for node in path), extra]
        tokens += emitted
        go_on = result.add(Step(emitted, tree.tokens, parents=tree.parents, kept=len(path)), limit, eos)
    return result


def trie(rows: Tensor, nodes: int) -> Tree:
    """The `nodes` heaviest prefixes of sorted rows [rows, gamma] as a tree; -1 stands behind the end of the text.

    Sorted rows that share a prefix are neighbours, so a node is a run, and its weight the length of the run.
    """
    fresh = F.pad((rows[1:] != rows[:-1]).cumsum(1) > 0, (0, 0, 1, 0), value=True)  # [rows, gamma]: a run begins
    depth, start = fresh.T.nonzero(as_tuple=True)
    end = torch.where(F.pad(depth[1:] != depth[:-1], (0, 1), value=True), len(rows), start.roll(-1))
    real = rows[start, depth] >= 0
    weight, depth, start = (end - start)[real], depth[real], start[real]
    best = weight.argsort(descending=True, stable=True)[:nodes].sort().values  # equal ones: nearer to the root first
    tree, numbers = Tree(), {(): -1}
    for path, length in zip(rows[start[best]].tolist(), (depth[best] + 1).tolist(), strict=True):
        prefix = tuple(path[:length])
        numbers[prefix] = tree.add(prefix[-1], numbers[prefix[:-1]])
    return tree


def suffix_array(tokens: Tensor) -> Tensor:
    """The starts [n] of all suffixes of tokens [n] in lexicographic order (Manber and Myers, 1993).

    Prefix doubling: suffixes ranked by their first `width` tokens are ranked by twice as many when the rank of the
    suffix `width` places on is put behind their own. Rank 0 is the end of the text.
    """
    order, rank, width = tokens.argsort(), tokens.long() + 1, 1
    while width < 2 * len(tokens):
        behind = F.pad(rank, (0, width))[width:]
        pairs, order = (rank * (rank.max() + 1) + behind).sort()
        rank = torch.empty_like(rank).scatter_(0, order, F.pad(pairs.diff() > 0, (1, 0), value=True).cumsum(0))
        if int(rank.max()) == len(tokens):
            break
        width *= 2
    return order


def check_options(target: LanguageModel, datastore: Datastore, longest: int, gamma: int, nodes: int) -> None:
    """One clear sentence for options that cannot work."""
    check_draft(gamma, target)
    if longest < 1 or nodes < 1:
        raise ValueError(f"longest is {longest} and nodes is {nodes}; at least 1 token is looked up and 1 node drafted")
    vocab = target.shape.vocab
    if (datastore.tokens >= vocab).any():
        raise ValueError(f"the datastore holds tokens that a vocabulary of {vocab} lacks: use the target's tokenizer")


class Datastore(nn.Module):
    """A corpus as one row of token ids, of any integer type, with its suffix array, which is made at the first use."""

    @checked
    def __init__(self, tokens: Sequence[int] | Tensor) -> None:
        super().__init__()
        row = tokens if isinstance(tokens, Tensor) else torch.tensor(tokens, dtype=torch.int32)
        if row.dim() != 1 or row.is_floating_point():
            raise ValueError(f"tokens are {shown(row)} and {row.dtype}; a datastore is one row of whole numbers")
        self.register_buffer("tokens", row)
        self.tokens: Tensor

    @cached_property
    def order(self) -> Tensor:
        """The suffix array [N]."""
        return suffix_array(self.tokens)

    @cached_property
    def _lists(self) -> tuple[list[int], list[int]]:
        """Text and suffix array as the binary search wants them: where an element costs no tensor."""
        return self.tokens.tolist(), self.order.tolist()

    def find(self, query: Sequence[int]) -> tuple[int, int]:
        """Where the suffixes that begin with `query` start and end in the suffix array."""
        text, order = self._lists
        wanted, n = list(query), len(query)
        first = bisect_left(order, wanted, key=lambda start: text[start : start + n])
        return first, bisect_right(order, wanted, lo=first, key=lambda start: text[start : start + n])

    def match(self, context: Sequence[int], longest: int) -> tuple[int, int, int]:
        """How many of the last `longest` tokens of `context` occur, the most, and where `find` finds them."""
        for n in range(min(longest, len(context)), 0, -1):
            first, end = self.find(context[-n:])
            if first < end:
                return n, first, end
        return 0, 0, 0

    def draft(self, context: Sequence[int], *, longest: int, gamma: int, nodes: int) -> Tree:
        """The `nodes` commonest continuations of the longest suffix of `context` that occurs, up to `gamma` tokens."""
        n, first, end = self.match(context, longest)
        if n == 0:
            return Tree()
        places = self.order[first:end, None] + torch.arange(n, n + gamma, device=self.order.device)
        last = len(self.tokens) - 1
        return trie(self.tokens[places.clamp(max=last)].masked_fill(places > last, -1), nodes)


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    return {"target": zoo.load("target"), "datastore": zoo.load("rest-datastore"), "nodes": 16}
