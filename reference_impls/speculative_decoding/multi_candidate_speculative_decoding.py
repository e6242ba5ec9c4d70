r"""Multi-Candidate Speculative Decoding: several candidates drawn at every place, tried one after another.

Multi-Candidate Speculative Decoding. Sen Yang, Shujian Huang, Xinyu Dai, Jiajun Chen. arXiv 2024.
https://arxiv.org/abs/2401.06706

Idea
----
Speculative sampling ends a step with the first guess that fails. Let the drafter draw $k$ candidates for a place
instead of one. If the first is rejected, the second is tried against what is left of the target's law, and so on, so
the step ends only where all of them fail. All candidates of all places form one tree, which the target reads in one
pass.

Algorithm
---------
1. *Draft*: a tree, level by level, with `widths` $= (k_1, \dots, k_m)$. At depth $i$ every node gets $k_i$ children
   $x_1, \dots, x_{k_i}$ from the drafter's law $q$ at the node; one pass of the drafter serves all nodes of a depth.
   The default, $(4, 2, 2)$, makes 28 nodes.
2. With `replacement` all children are drawn from $q$ itself, and may repeat each other. Without it, $q_1 = q$, and
   $q_{j+1}$ is $q_j$ with $q_j(x_j) \leftarrow 0$, normalised anew: no candidate comes twice.
3. *Verify*: one pass of the target over the whole tree gives $p$ after the root and after every node.
4. From the root down, with $p_1 = p$: keep child $x_j$ with probability $\min(1, p_j(x_j) / q_j(x_j))$ and go on below
   it; otherwise $p_{j+1} = \mathrm{norm}(\max(0, p_j - q_j))$, and try the next child. Where none is kept, the extra
   token comes from the last $p_j$; below a leaf it comes from $p$.
5. *Commit*: the path and the extra token. Of the tree, the target's cache and the drafter's keep the path alone.

Guarantee
---------
Exact distribution. A try keeps $x$ with chance $\min(p_j, q_j)(x)$, and what is missing is $\max(0, p_j - q_j)$, which
the next try has to give. So by induction from the last child up, a node gives its token the law $p$, for any laws
$q_j$, as long as child $j$ was drawn from $q_j$, given its elders. Both ways to draw have an update of their own: with
replacement $q_j = q$ throughout, without it $q_j$ shrinks with the draws, and to mix them up biases the text. At
temperature 0 the laws are one-hot, and without replacement the candidates are the $k_i$ best tokens.

Differences from the paper
--------------------------
1. The candidates obey the sampler of the target: its temperature, top-k and top-p. The released code has a temperature
   for each model. With 0 for the drafter alone it picks the best $k$ tokens and judges them as if they had been drawn:
   with $p = (.4, .3, .2, .1)$, $q = (.5, .3, .15, .05)$ and $k = 2$ the next token then follows
   $(.64, 0, .24, .12)$. Here a picked token has a one-hot law.
2. The drafter reads its growing tree anew at each depth (`draft_tree`): as many passes as in the paper, with a few more
   tokens in each. The prompt is read once, without guesses (`result.steps`).
3. Where $q$ has fewer tokens than $k_i$, a node gets as many children as there are (without replacement).
4. Left out: multi-candidate naive sampling, the paper's baseline, which draws from $p$ and looks whether a candidate
   carries that token; it is exact too, and keeps less.

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.core.sampling import Sampler
>>> from reference_impls.speculative_decoding.multi_candidate_speculative_decoding import example, generate
>>> prompt = zoo.encode("def read_lines(path):")
>>> result = generate(prompt=prompt, limit=24, sampler=Sampler(temperature=0.8, seed=1), **example())
>>> len(result.tokens), result.passes < 24
(24, True)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from reference_impls.core.arguments import checked
from reference_impls.core.drafting import check_vocabulary, room
from reference_impls.core.generation import Ends, Generation, Step, check_length
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.tree import check_widths, draft_tree
from reference_impls.core.verify import verify_tree


@torch.inference_mode()
@checked
def generate(
    target: LanguageModel,
    prompt: Sequence[int],
    limit: int,
    *,
    drafter: LanguageModel,
    sampler: Sampler,
    widths: Sequence[int] = (4, 2, 2),
    replacement: bool = False,
    eos: Ends | None = None,
) -> Generation:
    """Generate up to `limit` tokens after `prompt`, with `widths` candidates for the token after a node, by depth.

    Candidates are drawn with or without `replacement`. Raises ValueError for models of different vocabularies, or for
    widths that the vocabulary cannot fill.
    """
    check_vocabulary(target, drafter)
    check_widths(widths, target.shape.vocab)
    check_length(target, prompt, limit)
    result, tokens = Generation(), list(prompt)
    cache, draft_cache = target.new_cache(), drafter.new_cache()
    go_on = limit > 0
    # Between turns the target's cache holds all tokens but the last; the drafter's as many of them as it has read.
    while go_on:
        # Draft: a level of candidates a pass, once the prompt has been read.
        fitting = widths[: room(len(tokens), len(widths), target, drafter)] if result.steps else ()
        tree, laws = draft_tree(sampler, drafter, tokens, draft_cache, fitting, replacement=replacement)
        # Verify: one pass gives the law after every node; a candidate is judged by the law that it was drawn from.
        unseen = tokens[len(cache) :]
        depths, visible = tree.layout(len(unseen))
        inputs, positions = [*unseen, *tree.tokens], len(cache) + depths
        p = sampler.probs(target(inputs, cache, last=len(tree) + 1, positions=positions, visible=visible))
        path, extra = verify_tree(sampler, tree, p, torch.cat(laws) if laws else None)
        # Commit: the path and the extra token; both caches keep the path, as far as they have read it.
        cache.keep(len(tokens), path)
        if laws:
            read = len(draft_cache) - len(tokens)  # all nodes but the last level
            draft_cache.keep(len(tokens), [node for node in path if node < read])
        emitted = [*(tree.tokens[node] for node in path), extra]
        tokens += emitted
        step = Step(emitted, tree.tokens, parents=tree.parents, kept=len(path), draft_passes=len(fitting))
        go_on = result.add(step, limit, eos)
    return result


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    return {"target": zoo.load("target"), "drafter": zoo.load("drafter"), "widths": (2, 2, 1, 1)}
