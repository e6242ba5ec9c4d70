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
   never names a token twice below a node (`draft_tree`), and the order is that of the draws. Both are exact, no try is
   wasted, and the limit at temperature 0 is the paper's choice of the top $k_i$.
2. Nodes lie in the cache drafter after drafter, each drafter's level by level; the paper's lie depth first. The mask
   and the positions decide, not the order.
3. A drafter reads its growing tree anew at each depth, from a cache that ends before the tree (`cache.crop`): as many
   passes as the paper's, with a few more tokens in each. The prompt is read once, without guesses (`result.steps`).
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
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from reference_impls.core.arguments import check_texts, checked
from reference_impls.core.cache import Cache
from reference_impls.core.drafting import check_vocabulary, room
from reference_impls.core.generation import Ends, Generation, Step, check_length
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.tree import Tree, draft_tree
from reference_impls.core.verify import verify_tree


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
    check_vocabulary(target, *drafters)
    check_speculator(len(drafters), expansion, target.shape.vocab)
    check_length(target, prompt, limit)
    result, tokens = Generation(), list(prompt)
    cache, draft_caches = target.new_cache(), [drafter.new_cache() for drafter in drafters]
    go_on = limit > 0
    # Between turns the target's cache holds all tokens but the last; a drafter's as much of them as its tree had read.
    while go_on:
        # Draft: a tree from each drafter, once the prompt has been read; then one tree of all their paths.
        widths = expansion[: room(len(tokens), len(expansion), target, *drafters)] if result.steps else ()
        grown = [draft_tree(sampler, d, tokens, c, widths) for d, c in zip(drafters, draft_caches, strict=True)]
        # Every draw is a vote; equal paths share a merged node, and each vote keeps its own law.
        tree, votes, merged_nodes = merge([grown_tree for grown_tree, _ in grown])
        # Verify: one pass over the merged tree gives the law after every node; every vote is judged at its node.
        unseen = tokens[len(cache) :]
        depths, visible = tree.layout(len(unseen))
        inputs, positions = [*unseen, *tree.tokens], len(cache) + depths
        p = sampler.probs(target(inputs, cache, last=len(tree) + 1, positions=positions, visible=visible))
        # The rows stand in the order of the votes, drafter after drafter; without any, p[:0] gives the shape.
        q = torch.cat([p[:0], *(law for _, laws in grown for law in laws)])  # [votes, vocab]
        path, extra = verify_votes(sampler, votes, list(chain(*merged_nodes)), p, q)
        # Commit: the path and the extra token; every cache keeps what it has seen of the path.
        cache.keep(len(tokens), path)
        for draft_cache, nodes in zip(draft_caches, merged_nodes, strict=True):
            keep_path(draft_cache, len(tokens), nodes, path)
        emitted = [*(tree.tokens[node] for node in path), extra]
        tokens += emitted
        draft_passes = len(drafters) * len(widths)
        step = Step(emitted, tree.tokens, parents=tree.parents, kept=len(path), draft_passes=draft_passes)
        go_on = result.add(step, limit, eos)
    return result


def merge(trees: Sequence[Tree]) -> tuple[Tree, Tree, list[list[int]]]:
    """The tree of all paths without repeats; the tree of all votes; for each given tree, the merged node of each node.

    Every node of a given tree is a vote; they are numbered through all trees. What lies below equal paths hangs below
    the first vote for that path, because the others are never kept.
    """
    merged, votes, merged_nodes = Tree(), Tree(), list[list[int]]()
    known = dict[tuple[int, int], int]()  # (merged node, token) -> child
    first_vote = {-1: -1}  # merged node -> the first vote for it
    for tree in trees:
        nodes = list[int]()
        for token, parent in zip(tree.tokens, tree.parents, strict=True):
            above = nodes[parent] if parent >= 0 else -1
            vote = votes.add(token, first_vote[above])
            if (above, token) not in known:
                known[above, token] = merged.add(token, above)
                first_vote[known[above, token]] = vote
            nodes.append(known[above, token])
        merged_nodes.append(nodes)
    return merged, votes, merged_nodes


def verify_votes(sampler: Sampler, votes: Tree, nodes: Sequence[int], p: Tensor, q: Tensor) -> tuple[list[int], int]:
    """The accepted path through the merged tree, and the extra token; p [nodes + 1, vocab], q [votes, vocab].

    A vote is judged by the target's law at its node, `nodes` [votes], and by the law that it was drawn from.
    """
    judges = p[[0, *(node + 1 for node in nodes)]]  # [votes + 1, vocab]; row 0 is the root
    found, extra = verify_tree(sampler, votes, judges, q)
    return [nodes[vote] for vote in found], extra


def keep_path(cache: Cache, length: int, nodes: Sequence[int], path: Sequence[int]) -> None:
    """Let a drafter's cache keep `length` tokens, and of its own tree, whose nodes are `nodes`, those on the path.

    Its last level was never read, so it is not in the cache.
    """
    read = nodes[: max(0, len(cache) - length)]
    if read:  # else it holds nothing of the tree, and perhaps not all of the text
        cache.keep(length, [slot for slot, node in enumerate(read) if node in path])


def check_speculator(drafters: int, expansion: Sequence[int], vocab: int) -> None:
    """Raise ValueError where nobody or nothing drafts, or where a node gets more children than there are tokens."""
    if drafters < 1:
        raise ValueError("drafters are empty; give at least one, or use autoregressive decoding")
    if not expansion or not all(1 <= width <= vocab for width in expansion):
        raise ValueError(f"expansion is {tuple(expansion)}; give for each depth a number from 1 to the {vocab} tokens")


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    return {
        "target": zoo.load("target"),
        "drafters": [zoo.load("drafter"), zoo.load("drafter-boosted")],
        "expansion": (2, 1, 1),
    }


@checked
def loss(
    target: LanguageModel, earlier: Sequence[LanguageModel], drafter: LanguageModel, tokens: Tensor, rest: float = 0.1
) -> Tensor:
    """Cross-entropy of `drafter` against the target's best tokens, over tokens [batch, n] of plain text.

    A place where one of the `earlier` drafters has the target's best token too counts only `rest`. All others are
    frozen. Raises ValueError for models of different vocabularies, a text without tokens, and a `rest` outside (0, 1].
    """
    check_vocabulary(target, drafter, *earlier)
    check_texts(target.shape.vocab, 1, tokens=tokens)
    if not earlier:
        raise ValueError("earlier is empty; give the drafters that the new one is to complete")
    if not 0 < rest <= 1:
        raise ValueError(f"rest is {rest}; it is the weight of what is known already, above 0 and at most 1")
    with torch.no_grad():
        best = target(tokens).argmax(-1)  # [batch, n]
        known = torch.stack([model(tokens).argmax(-1) == best for model in earlier]).any(0)
        weight = torch.where(known, rest, 1.0)
    each = F.cross_entropy(drafter(tokens).float().flatten(0, 1), best.flatten(), reduction="none")
    return (weight.flatten() * each).sum() / weight.sum()
