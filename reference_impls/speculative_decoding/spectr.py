r"""SpecTr: several drafts at once, and of those that agree so far one goes on, chosen near the optimal transport.

SpecTr: Fast Speculative Decoding via Optimal Transport. Ziteng Sun, Ananda Theertha Suresh, Jae Hun Ro, Ahmad Beirami,
Himanshu Jain, Felix Yu. NeurIPS 2023. https://arxiv.org/abs/2310.15141

Idea
----
To draft is to draw from $q$, to verify is to turn that into a draw from $p$: a coupling of the two laws. With $k$
independent drafts $x_1, \dots, x_k$ of a token, the best rule makes the output one of them as often as possible: an
optimal transport problem with a membership cost, whose linear programme has $|V|^{k+1}$ variables. K-SEQ comes close in
a few sweeps over the vocabulary. It tries the drafts one after another, each a little more strictly than a single one
would be, so that together they never give a token more than $p$.

Algorithm
---------
1. *Draft*: $k$ = `drafts` continuations of $\gamma$ = `gamma` tokens, independent of each other; one pass of the
   drafter serves all of them at a place. Equal beginnings become one path of a tree.
2. *Verify*: one pass of the target over the tree gives $p$ after the root and after every node. All drafts are `alive`.
3. At a node with $k$ drafts alive, whose next tokens are draws from $q$, let
   $\beta(\rho) = \sum_x \min(q(x), p(x)/\rho)$, the chance that one of them passes, and take the $\rho \in [1, k]$ with
   $1 - (1 - \beta)^k = \rho\, \beta$, by bisection.
4. K-SEQ: keep the first $x_i$ that passes with probability $\min(1, p(x_i) / (\rho\, q(x_i)))$. The drafts that go on
   with the same token stay alive, and the next place is theirs.
5. Where none passes, the extra token comes from
   $\mathrm{norm}(p - \min(q, p/\rho) \sum_{j<k} (1 - \beta)^j)$; behind a draft that was kept whole it comes from $p$.
6. *Commit*: the path and the extra token. Both caches keep the path alone.

Guarantee
---------
Exact distribution. The first $j$ drafts all fail with chance $(1 - \beta)^j$, so $x$ is kept with chance
$\min(q, p/\rho)(x) \sum_{j<k} (1 - \beta)^j$, and the residual is what is missing. It is not negative as long as the
sum is at most $\rho$, that is $1 - (1 - \beta)^k \le \rho\, \beta$. The smallest such $\rho$ accepts most; every
larger one is exact too, and the bisection ends on that side. Drafts that are still alive agree in all that was kept, so
their next tokens are independent draws from one $q$. With one draft $\rho = 1$, which is speculative sampling.

The chance to keep one of the drafts is at least $1 - (1 - 1/k)^k \ge 1 - 1/e$ of the optimal transport's. At
temperature 0 all drafts are the same: nothing is won over one, and the tree is a chain.

Differences from the paper
--------------------------
1. The paper reads its drafts as a batch of $k$ sequences. Here equal beginnings are read once, as one path of a tree.
2. $\rho$ is solved for all nodes at once, with as many drafts as pass through each; the walk then only draws.
3. The rule and its bound were found in accounts of the paper; the tests prove the law by enumeration, and the bound
   against the optimal transport on small vocabularies.
4. The drafter reads its growing drafts anew at each place (`draft_tree`): as many passes, with a few more tokens in
   each. The prompt is read once, without guesses (`result.steps`).

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.core.sampling import Sampler
>>> from reference_impls.speculative_decoding.spectr import example, generate
>>> prompt = zoo.encode("def read_lines(path):")
>>> result = generate(prompt=prompt, limit=24, sampler=Sampler(temperature=0.8, seed=1), **example())
>>> len(result.tokens), result.passes < 24
(24, True)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import log2
from typing import Any

import torch
from torch import Tensor

from reference_impls.core.arguments import checked
from reference_impls.core.drafting import check_draft, room
from reference_impls.core.generation import Ends, Generation, Step, check_length
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.tree import Tree, draft_tree
from reference_impls.core.verify import residual


@torch.inference_mode()
@checked
def generate(
    target: LanguageModel,
    prompt: Sequence[int],
    limit: int,
    *,
    drafter: LanguageModel,
    sampler: Sampler,
    drafts: int = 8,
    gamma: int = 4,
    eos: Ends | None = None,
) -> Generation:
    """Generate up to `limit` tokens after `prompt`; each pass of the target judges `drafts` drafts of `gamma` tokens.

    Raises ValueError for fewer than one draft or token, or models of different vocabularies.
    """
    check_draft(gamma, target, drafter)
    if drafts < 1:
        raise ValueError(f"drafts is {drafts}; make at least 1 a step, or use autoregressive decoding")
    check_length(target, prompt, limit)
    result, tokens = Generation(), list(prompt)
    cache, draft_cache = target.new_cache(), drafter.new_cache()
    go_on = limit > 0
    # Between turns the target's cache holds all tokens but the last; the drafter's as many of them as it has read.
    while go_on:
        # Draft: independent continuations, once the prompt has been read; they part below the root only.
        fitting = room(len(tokens), gamma, target, drafter) if result.steps else 0
        widths = (drafts, *[1] * (fitting - 1)) if fitting else ()
        grown, laws = draft_tree(sampler, drafter, tokens, draft_cache, widths, replacement=True)
        # The nodes stand level by level, so every `drafts`-th one from i on is draft i.
        tree, paths = share([grown.tokens[i::drafts] for i in range(drafts)])
        # Verify: one pass gives the law after every node; K-SEQ among the drafts that are alive.
        unseen = tokens[len(cache) :]
        depths, visible = tree.layout(len(unseen))
        inputs, positions = [*unseen, *tree.tokens], len(cache) + depths
        p = sampler.probs(target(inputs, cache, last=len(tree) + 1, positions=positions, visible=visible))
        path, extra = verify_drafts(sampler, tree, paths, p, laws_after(paths, laws, p))
        # Commit: the path and the extra token; both caches keep the path, as far as they have read it.
        cache.keep(len(tokens), path)
        if fitting:
            winner = next(i for i, nodes in enumerate(paths) if nodes[: len(path)] == path)  # a draft with this path
            # In the drafter's cache every `drafts`-th slot is the winner's; its last token was never read.
            draft_cache.keep(len(tokens), [winner + drafts * place for place in range(min(len(path), fitting - 1))])
        emitted = [*(tree.tokens[node] for node in path), extra]
        tokens += emitted
        step = Step(emitted, tree.tokens, parents=tree.parents, kept=len(path), draft_passes=fitting)
        go_on = result.add(step, limit, eos)
    return result


def share(drafts: Sequence[Sequence[int]]) -> tuple[Tree, list[list[int]]]:
    """The tree in which equal beginnings of the drafts are one path, and the nodes of each draft in it."""
    tree, paths, known = Tree(), list[list[int]](), dict[tuple[int, int], int]()  # (node, token) -> child
    for draft in drafts:
        nodes = [-1]
        for token in draft:
            if (nodes[-1], token) not in known:
                known[nodes[-1], token] = tree.add(token, nodes[-1])
            nodes.append(known[nodes[-1], token])
        paths.append(nodes[1:])
    return tree, paths


def laws_after(paths: Sequence[Sequence[int]], laws: Sequence[Tensor], p: Tensor) -> Tensor:
    """The drafter's laws after the root and after each node, like p [nodes + 1, vocab]; zeros after the last tokens.

    `laws` are those of `draft_tree`: one for the root, then one for every draft at each place.
    """
    q = torch.zeros_like(p)
    if laws:
        rows = [0, *(nodes[place] + 1 for place in range(len(paths[0]) - 1) for nodes in paths)]
        q[rows] = torch.stack([law[0] for law in laws]).to(p.dtype)
    return q


def verify_drafts(
    sampler: Sampler, tree: Tree, paths: Sequence[Sequence[int]], p: Tensor, q: Tensor
) -> tuple[list[int], int]:
    """The nodes of the accepted path, and the extra token that follows them.

    Each of `paths` are the nodes of a draft; p and q [nodes + 1, vocab] are the laws after the root and each node.
    """
    count_at = Counter(above for nodes in paths for above in [-1, *nodes][:-1])  # node -> how many drafts go on there
    rho, rest = k_seq(p, q, [count_at[node] for node in range(-1, len(tree))])
    above = torch.tensor([parent + 1 for parent in tree.parents], device=p.device, dtype=torch.long)
    x = torch.tensor(tree.tokens, device=p.device, dtype=torch.long)
    chance = (p[above, x] / (rho[above, 0] * q[above, x])).cpu()  # [nodes]
    path, alive = list[int](), [nodes for nodes in paths if nodes]
    while alive:
        node = next((nodes[len(path)] for nodes in alive if sampler.accept(chance[nodes[len(path)]])), None)
        if node is None:
            break
        path.append(node)
        alive = [nodes for nodes in alive if node in nodes[:-1]]  # those that go on below it
    return path, int(sampler.draw(rest[path[-1] + 1 if path else 0]))


def k_seq(p: Tensor, q: Tensor, alive: Sequence[int]) -> tuple[Tensor, Tensor]:
    """For each row its factor rho [rows, 1], and the law [rows, vocab] of the token where no draft passes.

    For target laws p [rows, vocab] and as many independent draws from q [rows, vocab] as `alive` says for a row.
    """
    count = torch.tensor(alive, device=p.device)[:, None]
    turns = torch.arange(max(alive), device=p.device) < count  # [rows, most drafts]: those that there are
    low, high = torch.ones_like(p[:, :1]), count.clamp(min=1).to(p.dtype)
    for _ in range(-round(log2(torch.finfo(p.dtype).eps))):  # halve down to the digits that a law has
        rho = (low + high) / 2
        valid = tries(q.minimum(p / rho), turns) <= rho  # no token gets more than p
        low, high = torch.where(valid, low, rho), torch.where(valid, rho, high)
    passing = q.minimum(p / high)  # [rows, vocab]: a draft is this token and passes
    return high, residual(p, passing * tries(passing, turns))


def tries(passing: Tensor, turns: Tensor) -> Tensor:
    """How many drafts are tried on average [rows, 1], one by one until one passes: the sum of (1 - beta)^j.

    A draft passes as each token with the chances `passing` [rows, vocab], which sum to beta; `turns` [rows, drafts]
    says which drafts j there are.
    """
    fail = 1 - passing.sum(-1, keepdim=True)
    return (fail ** torch.arange(turns.shape[-1], device=fail.device) * turns).sum(-1, keepdim=True)


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    return {"target": zoo.load("target"), "drafter": zoo.load("drafter"), "drafts": 4, "gamma": 4}
