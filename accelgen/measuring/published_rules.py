"""Rules as published code has them where it deviates from what it promises, written as that code computes them.

`counterexamples` shows what each does; where each was seen stands in `accelgen.site.views.mistakes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import log

import torch
from torch import Tensor

from reference_impls.core.generation import Generation
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.tree import Tree
from reference_impls.core.verify import residual, verify_tree
from reference_impls.speculative_decoding.block_verification import prefix_weights
from reference_impls.testing.laws import Law

Laws = Mapping[tuple[int, ...], Tensor]  # the law [vocab] of the next token after each text


def refill_from_target(sampler: Sampler, p: Tensor, q: Tensor) -> int:
    """A rejected guess is replaced by a draw from p itself."""
    x = int(sampler.draw(q))
    return x if sampler.accept(p[x] / q[x]) else int(sampler.draw(p))


def soft_greedy(sampler: Sampler, p: Tensor, q: Tensor) -> Generation:
    """Argmax instead of a draw, before soft laws: the guess, and the token that replaces it."""
    x = int(q.argmax())
    return Generation([x if sampler.accept(p[x] / q[x]) else int(residual(p, q).argmax())])


def equal_to_a_draw(sampler: Sampler, p: Tensor, q: Tensor) -> int:
    """A guess from q is kept if a fresh draw from p equals it; else that draw is written."""
    x, own = int(sampler.draw(q)), int(sampler.draw(p))
    return x if x == own else own


def drafted_pair(sampler: Sampler, target: Laws, drafter: Laws, *, greedy_draft: bool, shared: bool) -> Generation:
    """Two tokens as the published sampling mode of self-speculative decoding draws them.

    Its random number of a place says with `shared` both whether the draft goes on and whether its token is accepted.
    """
    draft, kept = tuple[int, ...](), list[bool]()
    for _ in range(2):
        p, q = target[draft], drafter[draft]
        x = int(q.argmax()) if greedy_draft else int(sampler.draw(q))
        chance, go_on = min(1.0, float(p[x] / q[x])), 0.5
        cuts = torch.tensor(sorted({0.0, chance, go_on, 1.0}), dtype=p.dtype)
        number = (cuts[:-1] + cuts[1:])[int(sampler.draw(cuts.diff()))] / 2  # one for each interval that matters
        draft, kept = (*draft, x), [*kept, bool(number < chance)]
        if shared and q[x] < 0.5 and number >= go_on:
            break
    taken = (*kept, False).index(False)
    text = draft[:taken]
    while len(text) < 2:
        p, q = target[text], drafter[text]
        rejected = len(text) == taken < len(draft)
        text = (*text, int(sampler.draw(residual(p, q) if rejected else p)))
    return Generation(list(text))


def none_kept(w: Sequence[float]) -> float:
    """The chance that u_1 > w_1, u_1 u_2 > w_2 and u_1 u_2 u_3 > w_3 for three uniform numbers."""
    most = max(w[2], w[3])
    start = max(w[1], most)
    if start == 1:
        return 0.0
    return 1 - start + most * log(start) - w[3] * (log(most) ** 2 - log(start / most) ** 2) / 2


def block_by_products(p: Tensor, q: Tensor) -> Law:
    """The law of the first token if blocks of three are kept by products of uniform numbers, as published."""
    law, rest = [0.0] * len(p), residual(p, q).tolist()
    for draft in product(range(len(p)), repeat=3):
        w = prefix_weights(draft, q.expand(3, -1), p.expand(4, -1)).tolist()
        chance, none = float(q[list(draft)].prod()), none_kept(w)
        law[draft[0]] += chance * (1 - none)
        law = [mass + chance * none * share for mass, share in zip(law, rest, strict=True)]
    return {(token,): chance for token, chance in enumerate(law)}


def draw_per_path(sampler: Sampler, p: Tensor, paths: int) -> Generation:
    """The guess 0 begins so many paths. Each draws on its own; if none draws 0, all is thrown away and drawn anew."""
    hit = bool((sampler.draw(p.expand(paths, -1)) == 0).any())
    return Generation([0 if hit else int(sampler.draw(p))])


def cold_path_warm_leaf(sampler: Sampler, tree: Tree, p: Tensor, q: Tensor | None = None) -> tuple[list[int], int]:
    """As `verify_tree`, but after a path to a leaf the extra token comes from the softmax at temperature 1."""
    leaf = torch.tensor([bool(tree.tokens) and not tree.children(node) for node in range(-1, len(tree))])
    plain = p**sampler.temperature  # of the softmax of logits / temperature: up to its sum the softmax of the logits
    return verify_tree(sampler, tree, torch.where(leaf[:, None], plain / plain.sum(-1, keepdim=True), p), q)


@torch.no_grad()
def jacobi_by_index(target: LanguageModel, prompt: Sequence[int], length: int) -> tuple[list[int], int, int]:
    """The text, the iterations reported and the passes made by the authors' Jacobi decoder, in its rules.

    Each pass retires one token; it stops when a pass changes nothing, and reports that pass's index.
    """
    y, passes = [0] * length, 0
    for index in range(length + 1):
        before, text = y, [*prompt, *y[:index]]
        y = [*y[:index], *target([*text, *y[index:]])[len(text) - 1 : -1].argmax(-1).tolist()]
        passes += 1
        if y == before:
            break
    return y, index, passes
