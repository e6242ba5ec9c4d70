"""Where published code deviates from the rule it stands for: the biased outcome beside the right one, computed.

Each function of `DEMONSTRATIONS` sets up the smallest example in which a deviation shows, and gives the outcome that
the rule promises, that of this project's code, and that of the rule as published, which stands in `published_rules`.
Laws are enumerated, not sampled. `python -m accelgen.measuring.counterexamples` stores what the site shows; where each
deviation was seen stands in `accelgen.site.views.mistakes`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from accelgen.measuring.published_rules import (
    Laws,
    block_by_products,
    cold_path_warm_leaf,
    drafted_pair,
    draw_per_path,
    equal_to_a_draw,
    jacobi_by_index,
    refill_from_target,
    soft_greedy,
)
from reference_impls.core.generation import Generation
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.tree import Tree
from reference_impls.core.verify import verify_chain, verify_tree
from reference_impls.non_autoregressive import jacobi_parallel_decoding as jacobi
from reference_impls.non_autoregressive import nart_crf
from reference_impls.speculative_decoding import bild
from reference_impls.speculative_decoding import online_speculative_decoding as online
from reference_impls.speculative_decoding.block_verification import verify_block
from reference_impls.testing.case import Scene
from reference_impls.testing.laws import Law, autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import drafter, flat_model, varied_model


@dataclass(frozen=True)
class Finding:
    """One example: outcomes with what the rule promises, what this project's code gives, and what was published.

    `law` says whether the numbers are probabilities of all outcomes; their distance is then the total variation, and
    else the largest difference. `given` holds the numbers of the example.
    """

    outcomes: Sequence[str]
    wanted: Sequence[float]
    ours: Sequence[float]
    published: Sequence[float]
    law: bool = True
    given: Mapping[str, Any] = field(default_factory=dict)

    def distance(self, found: Sequence[float]) -> float:
        """How far `found` is from what is wanted."""
        differences = [abs(a - b) for a, b in zip(found, self.wanted, strict=True)]
        return sum(differences) / 2 if self.law else max(differences)

    def as_data(self) -> dict[str, Any]:
        """All of it as plain data, with both distances."""
        rows = [list(row) for row in zip(self.outcomes, self.wanted, self.ours, self.published, strict=True)]
        distances = {"ours": self.distance(self.ours), "published": self.distance(self.published)}
        return {"law": self.law, "given": dict(self.given), "rows": rows, "distance": distances}


def law_of(values: Sequence[float] | Sequence[Sequence[float]]) -> Tensor:
    """A law [vocab], or a row of laws [texts, vocab], in double precision."""
    return torch.tensor(values, dtype=torch.float64)


def compare(wanted: Law, ours: Law, published: Law, given: Mapping[str, Any] | None = None) -> Finding:
    """The finding of three laws of texts; tokens are called a, b, c."""
    texts = sorted(wanted.keys() | ours.keys() | published.keys())
    names = ["".join("abcdefgh"[token] for token in text) for text in texts]
    first, second, third = ([law.get(text, 0.0) for text in texts] for law in (wanted, ours, published))
    return Finding(names, first, second, third, given=given or {})


def single(values: Sequence[float]) -> Law:
    """The law of texts of one token."""
    return {(token,): chance for token, chance in enumerate(values)}


def pairs(laws: Laws) -> Law:
    """The law of texts of two tokens."""
    return {(a, b): float(p * laws[a,][b]) for a, p in enumerate(laws[()]) for b in range(len(laws[a,]))}


# Accepting one guess


def one_token(sampler: Sampler, p: Tensor, q: Tensor) -> int:
    """The first token of a step with one guess from q, by the rule of this project's core."""
    x = int(sampler.draw(q))
    kept, extra = verify_chain(sampler, [x], q[None], p.expand(2, -1))
    return x if kept else extra


def residual_forgotten() -> Finding:
    """SPACE: what is rejected once gets a second chance."""
    given = {"p": [0.2, 0.5, 0.3], "q": [0.7, 0.2, 0.1]}
    p, q = map(law_of, given.values())
    ours = exact_law(lambda sampler: Generation([one_token(sampler, p, q)]))
    published = exact_law(lambda sampler: Generation([refill_from_target(sampler, p, q)]))
    return compare(single(given["p"]), ours, published, given)


def two_levels(q: Tensor, p_hat: Tensor, p: Tensor, middle: Callable[[Sampler, Tensor, Tensor], int]) -> Law:
    """The law of a token drafted from q, reviewed by `middle` for the law p_hat, and by the target as drawn from it."""

    def run(sampler: Sampler) -> Generation:
        x = middle(sampler, p_hat, q)
        kept, extra = verify_chain(sampler, [x], p_hat[None], p.expand(2, -1))
        return Generation([x if kept else extra])

    return exact_law(run)


def middle_level() -> Finding:
    """TriForce: the middle level hands up a law that its token does not have."""
    given = {"q": [0.7, 0.2, 0.1], "p_hat": [0.3, 0.4, 0.3], "p": [0.2, 0.5, 0.3]}
    q, p_hat, p = map(law_of, given.values())
    ours, published = two_levels(q, p_hat, p, one_token), two_levels(q, p_hat, p, refill_from_target)
    return compare(single(given["p"]), ours, published, given)


def greedy_with_soft_laws() -> Finding:
    """The copies in circulation: greedy output depends on chance, and is not the target's."""
    given = {"p": [0.5, 0.3, 0.2], "q": [0.3, 0.5, 0.2]}
    p, q = map(law_of, given.values())
    cold = Sampler(0)
    ours = exact_law(lambda s: Generation([one_token(s, cold.probs(p.log()), cold.probs(q.log()))]))
    return compare(single([1.0, 0.0, 0.0]), ours, exact_law(lambda s: soft_greedy(s, p, q)), given)


# Accepting a chain

ROWS = ((), (0,), (1,), (2,))  # the texts that a law stands for, in this order
P = dict(zip(ROWS, law_of([[0.45, 0.35, 0.2], [0.2, 0.5, 0.3], [0.5, 0.1, 0.4], [0.3, 0.3, 0.4]]), strict=True))
Q = dict(zip(ROWS, law_of([[0.4, 0.25, 0.35], [0.3, 0.25, 0.45], [0.3, 0.4, 0.3], [0.4, 0.2, 0.4]]), strict=True))


def honest_pair(sampler: Sampler) -> Generation:
    """Two tokens from an argmax draft whose law is called what it is: one-hot."""
    draft, laws = list[int](), list[Tensor]()
    for _ in range(2):
        q = Q[tuple(draft)]
        laws.append(torch.eye(len(q), dtype=q.dtype)[q.argmax()])
        draft.append(int(q.argmax()))
    p = torch.stack([P[tuple(draft[:i])] for i in (0, 1, 0)])  # nobody looks at the token after the two
    kept, extra = verify_chain(sampler, draft, torch.stack(laws), p)
    text = [*draft[:kept], extra][:2]
    return Generation([*text, *(int(sampler.draw(P[tuple(text)])) for _ in range(2 - len(text)))])


def chosen_not_drawn() -> Finding:
    """Self-speculative decoding's defaults: an argmax, judged as if it were a draw."""
    published = exact_law(lambda sampler: drafted_pair(sampler, P, Q, greedy_draft=True, shared=False))
    return compare(pairs(P), exact_law(honest_pair), published, {"p": P[()].tolist(), "q": Q[()].tolist()})


def block_rule() -> Finding:
    """vLLM-Ascend, since corrected: a block rule that is not the paper's."""
    given = {"p": [1 / 3, 2 / 3], "q": [2 / 3, 1 / 3]}
    p, q = map(law_of, given.values())

    def block(sampler: Sampler) -> Generation:
        draft = sampler.draw(q.expand(3, -1)).tolist()
        kept, extra = verify_block(sampler, draft, q.expand(3, -1), p.expand(4, -1))
        return Generation([draft[0] if kept else extra])

    return compare(single(given["p"]), exact_law(block), block_by_products(p, q), given)


# Accepting a tree


def several_draws() -> Finding:
    """REST and Medusa: a guess that many paths share is tried as often."""
    p, paths = law_of([0.3, 0.5, 0.2]), 4
    tree = Tree()
    tree.add(0)

    def node_by_node(sampler: Sampler) -> Generation:
        path, extra = verify_tree(sampler, tree, p.expand(2, -1))
        return Generation([0 if path else extra])

    wanted, published = single(p.tolist()), exact_law(lambda sampler: draw_per_path(sampler, p, paths))
    once = total_variation(wanted, exact_law(lambda sampler: draw_per_path(sampler, p, 1)))
    return compare(wanted, exact_law(node_by_node), published, {"p": p.tolist(), "paths": paths, "one_path": once})


def picked(sampler: Sampler, p: Tensor, q: Tensor, *, soft: bool) -> Generation:
    """The first token of a step with the two best tokens of q as candidates.

    With `soft` they are judged by q over the two, without the rejected one after it, as if they had been drawn.
    """
    tree, best = Tree(), q.topk(2)
    for token in best.indices.tolist():
        tree.add(token)
    laws = torch.zeros(2, len(q), dtype=q.dtype)
    laws[0, best.indices], laws[1, best.indices[1]] = best.values / best.values.sum(), 1.0
    path, extra = verify_tree(sampler, tree, p.expand(3, -1), laws if soft else None)
    return Generation([*(tree.tokens[node] for node in path), extra][:1])


def picked_candidates() -> Finding:
    """Multi-candidate speculative decoding with temperature 0 for the drafter alone."""
    given = {"p": [0.4, 0.3, 0.2, 0.1], "q": [0.5, 0.3, 0.15, 0.05]}
    p, q = map(law_of, given.values())
    ours = exact_law(lambda sampler: picked(sampler, p, q, soft=False))
    return compare(single(given["p"]), ours, exact_law(lambda sampler: picked(sampler, p, q, soft=True)), given)


def temperature_forgotten() -> Finding:
    """EAGLE-1: the token after a fully accepted path ignores the settings."""
    temperature, p = 0.5, [0.6, 0.4]  # the law at temperature 1, whatever came before
    cold = Sampler(temperature).probs(law_of(p).log())

    def law(verify: Callable[..., tuple[list[int], int]]) -> Law:
        def run(sampler: Sampler) -> Generation:
            tree = Tree()
            tree.add(int(sampler.draw(cold)))  # a faultless drafter
            path, extra = verify(sampler, tree, cold.expand(2, -1), cold[None])
            return Generation([tree.tokens[0], extra] if path else [extra])

        return exact_law(run, temperature=temperature)

    wanted = pairs({(): cold, (0,): cold, (1,): cold})
    return compare(wanted, law(verify_tree), law(cold_path_warm_leaf), {"temperature": temperature, "p": p})


# Settings and counts


def bild_law(vocab: int, gamma: int, limit: int, fallback: float, rollback: float) -> Law:
    """The law of Big Little Decoder between two tiny random models."""
    target = flat_model(vocab)
    own = {"drafter": drafter(Scene(target, [0, 1])), "fallback": fallback, "rollback": rollback}
    return exact_law(lambda sampler: bild.generate(target, [0, 1], limit, sampler=sampler, gamma=gamma, **own))


def zero_is_a_value() -> Finding:
    """Big Little Decoder: a threshold of 0, the exact end of the range, becomes the default."""
    asked, size = 0.0, (2, 1, 2)
    used = asked or 5.0
    wanted = autoregressive_law(flat_model(size[0]), [0, 1], size[2])
    return compare(wanted, bild_law(*size, 0.0, asked), bild_law(*size, 0.0, used), {"asked": asked, "used": used})


def passes_seen(target: LanguageModel, prompt: Sequence[int], length: int) -> tuple[int, int]:
    """The passes that this project's decoder reports, and those that a hook on the model counts."""
    calls = list[None]()
    hook = target.register_forward_hook(lambda *_: calls.append(None))
    reported = jacobi.generate(target, prompt, length, sampler=Sampler(0), algorithm="jacobi").passes
    hook.remove()
    return reported, len(calls)


def index_is_no_count() -> Finding:
    """Parallel decoding: the index of the last pass, counted from 0, is reported as the number of passes."""
    target, lengths = varied_model(), (4, 9, 14)
    ours, published = list[float](), list[float]()
    for length in lengths:
        reported, made = passes_seen(target, [0, 1], length)
        ours.append(reported / made)
        _, reported, made = jacobi_by_index(target, [0, 1], length)
        published.append(reported / made)
    return Finding([f"{n} tokens" for n in lengths], [1.0] * len(lengths), ours, published, law=False)


def alpha_at_the_token() -> Finding:
    """Online speculative decoding: min(p, q) at the token drawn, in the place of its sum over all tokens."""
    p, names = P[()], ("a draft law like p", "another one", "one that is certain")
    laws = [p, Q[()], law_of([1.0, 0.0, 0.0])]
    wanted = [float(torch.minimum(p, q).sum()) for q in laws]
    published = [float((q * torch.minimum(p, q)).sum()) for q in laws]  # its mean over the tokens that are drawn

    def kept(q: Tensor) -> float:
        law = exact_law(lambda s: Generation([verify_chain(s, [int(s.draw(q))], q[None], p.expand(2, -1))[0]]))
        return law.get((1,), 0.0)

    return Finding(names, wanted, [kept(q) for q in laws], published, law=False, given={"p": p.tolist()})


def shared_layers() -> Finding:
    """Medusa: a list times n holds the same layer n times."""
    dim, counts = 4, (1, 2, 3)
    block = dim * dim + dim

    def trained(layers: Sequence[nn.Module]) -> float:
        return sum(weight.numel() for weight in nn.Sequential(*layers).parameters())

    ours = [trained([nn.Linear(dim, dim) for _ in range(n)]) / block for n in counts]
    published = [trained([nn.Linear(dim, dim)] * n) / block for n in counts]
    names = [f"{n} layer{'s' * (n > 1)}" for n in counts]
    return Finding(names, [float(n) for n in counts], ours, published, law=False)


# Training and models


def chain_law(moves: Tensor) -> Law:
    """The law of sentences of a chain with transitions [places - 1, vocab, vocab] and no preference for any word."""
    places, vocab = len(moves) + 1, moves.shape[-1]
    log_z = nart_crf.log_partition(moves.new_zeros(places, vocab), moves, torch.ones(places, dtype=torch.bool))
    law = Law()
    for text in product(range(vocab), repeat=places):
        score = sum(moves[i, text[i], text[i + 1]] for i in range(places - 1))
        law[text] = float((score - log_z).exp())
    return law


def same_matrix_everywhere() -> Finding:
    """fairseq: a chain named dynamic whose transitions are the same at all places."""
    same = torch.tensor([[0.0, -60.0], [-60.0, 0.0]], dtype=torch.float64)
    wanted = Law({(0, 0, 1): 0.5, (1, 1, 0): 0.5})
    # One matrix: the likeliest law has the answers' mean counts of words and pairs, all alike, and so is uniform.
    return compare(wanted, chain_law(torch.stack((same, same.flip(0)))), chain_law(torch.zeros(2, 2, 2).double()))


def reinforce(law: Sequence[float], reward: Sequence[float], centre: Callable[..., float]) -> list[float]:
    """The expected gradient by the logits of `law`, per sentence, in a batch of two sentences that are alike.

    `centre(own, other)` is what is taken from a sentence's reward.
    """
    found = [0.0] * len(law)
    for i, j in product(range(len(law)), repeat=2):
        for a, b in ((i, j), (j, i)):
            advantage = reward[a] - centre(reward[a], reward[b])
            for k in range(len(law)):
                found[k] += law[i] * law[j] * advantage * ((a == k) - law[k]) / 2
    return found


def centred_on_itself() -> Finding:
    """NAT with fertilities: the mean that is taken from a reward contains the reward."""
    given = {"p": [0.2, 0.5, 0.3], "reward": [1.0, -2.0, 4.0]}
    p, reward = given["p"], given["reward"]
    mean = sum(chance * value for chance, value in zip(p, reward, strict=True))
    wanted = [chance * (value - mean) for chance, value in zip(p, reward, strict=True)]  # the gradient in closed form
    ours = reinforce(p, reward, lambda *_: reward[1])  # of one plan that is fixed beforehand
    published = reinforce(p, reward, lambda own, other: (own + other) / 2)
    return Finding([f"logit {name}" for name in "abc"], wanted, ours, published, law=False, given=given)


def one_place_late() -> Finding:
    """Online speculative decoding: the drafter learns to foretell the token after the one that it got wrong."""
    text, place = [0, 1, 2, 0], 2  # the token at this place took the place of a rejected guess
    laws = torch.stack([P[token,] for token in text])  # of the target, after each token
    logits = torch.zeros(len(text), laws.shape[-1], dtype=laws.dtype, requires_grad=True)  # of the drafter

    def pull(loss: Tensor) -> list[float]:
        return [float(row.abs().sum()) for row in torch.autograd.grad(loss, logits)[0]]

    wanted, published = (pull(-(laws[row] * logits[row].log_softmax(-1)).sum()) for row in (place - 1, place))
    learner: Any = lambda tokens: logits[None, : tokens.shape[-1]]  # noqa: E731
    ours = pull(online.loss(learner, [(text, {place: laws[place - 1].log()})]))
    names = [f"after token {i}" for i in range(1, len(text) + 1)]
    return Finding(names, wanted, ours, published, law=False, given={"error": place + 1})


DEMONSTRATIONS: Mapping[str, Callable[[], Finding]] = {
    "residual-forgotten": residual_forgotten,
    "middle-level": middle_level,
    "chosen-not-drawn": chosen_not_drawn,
    "greedy-with-soft-laws": greedy_with_soft_laws,
    "several-draws": several_draws,
    "picked-candidates": picked_candidates,
    "temperature-forgotten": temperature_forgotten,
    "block-rule": block_rule,
    "zero-is-a-value": zero_is_a_value,
    "index-is-no-count": index_is_no_count,
    "alpha-at-the-token": alpha_at_the_token,
    "shared-layers": shared_layers,
    "same-matrix-everywhere": same_matrix_everywhere,
    "centred-on-itself": centred_on_itself,
    "one-place-late": one_place_late,
}


def harmless() -> dict[str, float]:
    """Two habits that look wrong: their distances from the target's law, and what the first one costs."""
    p, q = P[()], Q[()]
    equal = exact_law(lambda sampler: Generation([equal_to_a_draw(sampler, p, q)]))
    shared = exact_law(lambda sampler: drafted_pair(sampler, P, Q, greedy_draft=False, shared=True))
    return {
        "equality": total_variation(equal, single(p.tolist())),
        "shared": total_variation(shared, pairs(P)),
        "kept_by_equality": float((p * q).sum()),
        "kept_by_rejection": float(torch.minimum(p, q).sum()),
    }


def figures() -> dict[str, Any]:
    """Everything that the page shows, as plain data."""
    return {"findings": {id: show().as_data() for id, show in DEMONSTRATIONS.items()}, "harmless": harmless()}


def main() -> None:
    """Compute and store."""
    from accelgen.project.files import write_whole
    from accelgen.project.places import RESULTS

    write_whole(RESULTS / "errata.json", json.dumps(figures(), indent=1) + "\n")


if __name__ == "__main__":
    main()
