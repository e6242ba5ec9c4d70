r"""SpecInfer: small models write a tree of guesses, and one pass of the target verifies every path in it.

SpecInfer: Accelerating Large Language Model Serving with Tree-based Speculative Inference and Verification.
Xupeng Miao, Gabriele Oliaro, Zhihao Zhang, Xinhao Cheng, Zeyu Wang, Zhengxin Zhang, Rae Ying Yee Wong, Alan Zhu,
Lijie Yang, Xiaoxiang Shi, Chunan Shi, Zhuoming Chen, Daiyaan Arfeen, Reyna Abhyankar, Zhihao Jia. ASPLOS 2024.
https://arxiv.org/abs/2305.09781

Idea
----
A single chain of guesses is lost with its first wrong token. So keep several guesses a place: expand the best few
tokens of one small model, let several small models guess and merge what they say, or both. All paths of this token tree
share one cache, and a mask lets each node see the committed text and its ancestors, so a single pass gives the target's
law after every node. Where one guess fails, its siblings are tried.

Algorithm
---------
1. *Draft*, expansion: every drafter grows a tree of its own below the last token. At depth $i$ each node gets $k_i$
   children, as the expansion configuration $\langle k_1, \dots, k_m \rangle$ says: a child is drawn from the drafter's
   law $q$ over the tokens that its elder siblings left.
2. *Draft*, merge: equal paths of the drafters' trees become one. Each draw stays a vote of its own, with its law.
3. *Verify*: one pass over the merged tree gives $p$ after the root and after every node.
4. From the root down, try the votes for the children of a node one by one: keep $x$, drawn from $q$, with probability
   $\min(1, p(x) / q(x))$ and go on below it; otherwise $p \leftarrow \mathrm{norm}(\max(0, p - q))$ (multi-step
   speculative sampling). Where none is kept, draw the extra token from what is left of $p$.
5. *Commit*: the path and the extra token. The target's cache keeps the path's nodes, each drafter's cache those nodes
   of its own tree that lie on the path.

Learning-based speculation: each further drafter is tuned on the places that the earlier ones miss (`loss`, after
adaptive boosting), so that together they cover more of what the target says.

Guarantee
---------
Exact distribution. One try leaves the law intact: $\min(p, q)$ is kept, and the rest is $\max(0, p - q)$ (theorem 4.2
of the paper). It holds for any number of tries, as long as each token is judged by the law that it was drawn from. So a
vote for a token that another drafter has named must not be dropped: it is never kept, because the first rejection took
all of that token's mass from $p$, but its law has to be subtracted too. At temperature 0 the laws are one-hot, the
children are the $k_i$ best tokens, and the path is the greedy text.

Differences from the paper
--------------------------
1. The paper draws the children of a node independently of each other and tries them in random order. Here one drafter
   never names a token twice below a node (`grow`), and the order is that of the draws. Both are exact, no try is
   wasted, and the limit at temperature 0 is the paper's choice of the top $k_i$.
2. Nodes lie level by level in the cache, the paper's depth first. The mask and the positions decide, not the order.
3. A drafter reads its growing tree anew at each depth, from a cache that ends before the tree (`cache.crop(start)`): as
   many passes as the paper's, with a few more tokens in each.
4. The drafters run one after another. The paper runs them in parallel on several GPUs, where a second one costs no
   time; here it costs as many `passes` as the first.
5. Boosting: the paper drops a prompt whose whole continuation an earlier drafter got right. In `loss` every token is a
   sample, and what an earlier drafter gets right keeps a tenth of its weight, so that the new drafter does not unlearn
   how a text goes on.
6. Two slips that the tests measure: to take the top $k$ tokens of a drafter and judge them by its softmax, as if they
   had been drawn (with $p = (.4, .3, .2, .1)$, $q = (.5, .3, .15, .05)$ and $k = 2$ the next token follows
   $(.8, 0, .0875, .1125)$), and to drop the repeated votes of two drafters.

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.core.sampling import Sampler
>>> from reference_impls.speculative_decoding.specinfer import example, generate
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
from torch import Tensor

from reference_impls.core.arguments import checked
from reference_impls.core.cache import Cache
from reference_impls.core.generation import Ends, Generation, Step
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.tree import Tree
from reference_impls.core.verify import check_draft, verify_tree


@torch.inference_mode()
@checked
def generate(
    target: LanguageModel,
    prompt: Sequence[int],
    limit: int,
    *,
    drafters: Sequence[LanguageModel],
    sampler: Sampler,
    expansion: Sequence[int] = (1, 1, 3, 1, 1, 1, 1, 1),
    eos: Ends | None = None,
) -> Generation:
    """Generate up to `limit` tokens after `prompt`; every drafter grows a tree with `expansion` children by depth.

    Raises ValueError for no drafter, one of another vocabulary, or an expansion that the vocabulary cannot fill.
    """
    check_draft(1, target, *drafters)
    check_speculator(len(drafters), expansion, target.shape.vocab)
    result, tokens = Generation(), list(prompt)
    target_cache, caches = target.new_cache(), [drafter.new_cache() for drafter in drafters]
    go_on = limit > 0
    while go_on:
        # Draft: a tree from each drafter, then one tree of all their paths.
        grown = [grow(d, tokens, c, expansion, sampler) for d, c in zip(drafters, caches, strict=True)]
        tree, votes, places = merge([own for own, _ in grown])
        # Verify: one pass over the merged tree gives the law after every node; a vote is judged at its node.
        unseen = tokens[len(target_cache) :]
        depths, visible = tree.layout(len(unseen))
        positions = len(target_cache) + depths
        p = sampler.probs(
            target([*unseen, *tree.tokens], target_cache, last=len(tree) + 1, positions=positions, visible=visible)
        )  # [nodes + 1, vocab]
        node_of = [node for own in places for node in own]
        rows = [0, *(node + 1 for node in node_of)]
        found, extra = verify_tree(sampler, votes, p[rows], torch.cat([q for _, q in grown]))
        # Commit: the path and the extra token; every cache keeps what it has seen of the path.
        path = [node_of[vote] for vote in found]
        target_cache.keep(len(tokens), path)
        for cache, own in zip(caches, places, strict=True):
            seen = own[: len(cache) - len(tokens)]  # the deepest nodes were never read
            cache.keep(len(tokens), [i for i, node in enumerate(seen) if node in path])
        emitted = [*(tree.tokens[node] for node in path), extra]
        tokens += emitted
        passes = len(drafters) * len(expansion)
        step = Step(emitted, tree.tokens, parents=tree.parents, kept=len(path), draft_passes=passes)
        go_on = result.add(step, limit, eos)
    return result


def grow(
    drafter: LanguageModel, tokens: Sequence[int], cache: Cache, expansion: Sequence[int], sampler: Sampler
) -> tuple[Tree, Tensor]:
    """A drafter's own tree after `tokens`, and the law q [nodes, vocab] of each draw, given its elder siblings."""
    tree, laws, frontier, start = Tree(), list[Tensor](), [-1], len(cache)
    for width in expansion:
        cache.crop(start)
        unseen = tokens[start:]
        depths, visible = tree.layout(len(unseen))
        read = drafter([*unseen, *tree.tokens], cache, last=len(tree) + 1, positions=start + depths, visible=visible)
        logits, drawn = read[[node + 1 for node in frontier]], list[Tensor]()  # [frontier, vocab]
        for _ in range(width):
            laws.append(sampler.probs(logits))
            drawn.append(sampler.draw(laws[-1]))  # [frontier]
            logits = logits.scatter(-1, drawn[-1].clamp(min=0)[:, None], -torch.inf)
        ranks = torch.stack(drawn).tolist()
        frontier = [tree.add(token, parent) for rank in ranks for token, parent in zip(rank, frontier, strict=True)]
    return tree, torch.cat(laws)


def merge(trees: Sequence[Tree]) -> tuple[Tree, Tree, list[list[int]]]:
    """The tree of all paths without repeats; the tree of all votes; and, for each given tree, its nodes' places.

    Votes are numbered through all trees. What lies below equal paths hangs below the first vote for that path, because
    the others are never kept.
    """
    merged, votes, places = Tree(), Tree(), list[list[int]]()
    node_of, first_vote = dict[tuple[int, int], int](), {-1: -1}
    for own in trees:
        place = {-1: -1}
        for i, (token, parent) in enumerate(zip(own.tokens, own.parents, strict=True)):
            above = place[parent]
            vote = votes.add(token, first_vote[above])
            if (above, token) not in node_of:
                node_of[above, token] = merged.add(token, above)
                first_vote[node_of[above, token]] = vote
            place[i] = node_of[above, token]
        places.append([place[i] for i in range(len(own))])
    return merged, votes, places


def check_speculator(drafters: int, expansion: Sequence[int], vocab: int) -> None:
    """Raise ValueError where nobody or nothing drafts, or where a node gets more children than there are tokens."""
    if drafters < 1:
        raise ValueError("drafters are empty; give at least one, or use autoregressive decoding")
    if not expansion or not all(1 <= width <= vocab for width in expansion):
        raise ValueError(f"expansion is {tuple(expansion)}; give for each depth a number from 1 to the {vocab} tokens")


def loss(
    target: LanguageModel, earlier: Sequence[LanguageModel], drafter: LanguageModel, tokens: Tensor, rest: float = 0.1
) -> Tensor:
    """Cross-entropy of `drafter` against the target's best tokens, over tokens [batch, n] of plain text.

    A place where one of the `earlier` drafters has the target's best token too counts only `rest`. All others are
    frozen.
    """
    with torch.no_grad():
        best = target(tokens).argmax(-1)  # [batch, n]
        known = torch.stack([model(tokens).argmax(-1) == best for model in earlier]).any(0)
        weight = torch.where(known, rest, 1.0)
    each = F.cross_entropy(drafter(tokens).float().flatten(0, 1), best.flatten(), reduction="none")
    return (weight.flatten() * each).sum() / weight.sum()


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    return {
        "target": zoo.load("target"),
        "drafters": [zoo.load("drafter"), zoo.load("drafter-boosted")],
        "expansion": (2, 1, 1),
    }
