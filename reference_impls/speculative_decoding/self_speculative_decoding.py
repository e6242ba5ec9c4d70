r"""Self-Speculative Decoding: the target drafts for itself by skipping some of its own sublayers.

Draft & Verify: Lossless Large Language Model Acceleration via Self-Speculative Decoding. Jun Zhang, Jue Wang, Huan Li,
Lidan Shou, Ke Chen, Gang Chen, Sharad Mehrotra. ACL 2024. https://arxiv.org/abs/2309.08168

Idea
----
A layer of a residual network can be left out, and the next token often stays the same. So the target, with a chosen
set of its attention and feed-forward halves left out, drafts a few tokens, and the whole target checks them in one
pass. There is no second model and nothing is trained: the set is searched once, for speed. A draft ends where it
becomes unsure.

Algorithm
---------
1. *Prefill*: one pass of the whole target over the prompt gives the first token.
2. *Draft*: run the target without the skipped halves; only the residual passes them. Draw $x_i \sim q_i$, up to
   `gamma` times, but stop after a token to which the drafting network gives a probability below the threshold
   $\lambda$. Drafts read the true keys and values of the text so far and add their own; an attention half that is
   skipped adds none.
3. *Verify*: forget all that drafting stored. One pass of the whole target gives $p_1, p_2, \dots$; keep $x_i$ with
   probability $\min(1, p_i(x_i) / q_i(x_i))$; after the first rejection draw from $\mathrm{norm}(\max(0, p - q))$.
4. *Commit*: append the kept tokens and the extra one; the cache forgets the rest.
5. *Adapt* $\lambda$ so that the acceptance rate $r$ stays near `goal`: after a step that kept $k$ of $n$ tokens,
   $r \leftarrow \beta_1 r + (1 - \beta_1)\, k / n$. Then $\lambda' = \lambda + \varepsilon$ if $r$ is below the goal,
   $\lambda' = \lambda$ if the draft was as long as allowed, else $\lambda' = \lambda - \varepsilon$; and
   $\lambda \leftarrow \beta_2 \lambda + (1 - \beta_2) \lambda'$, with $\beta_1 = 0.5$ and $\beta_2 = 0.9$.

The set of skipped halves is a point of $\{0, 1\}^{2L}$; `search` looks for one with a great objective. The point 0,
which skips nothing, is one of them: there draft and target are the same, so every guess is kept and nothing is gained.

Guarantee
---------
Exact distribution, for every set of skipped halves. Whether a draft goes on depends only on earlier steps and on tokens
that are in the draft already, and the token that ends a draft is verified like the others; so each place keeps the law
$p$ of speculative sampling. At temperature 0 the text is the target's greedy text. Work is not saved but spent: every
guess runs through the halves that are left and, verified, through all (`mean_work`).

Differences from the paper
--------------------------
1. The paper finds the set by Bayesian optimisation (a Gaussian process, a thousand runs) of the tokens per second.
   `search` is a plain local search over the same sets; it is given the objective, so that may be a clock. The zoo's
   recipe runs the whole loop on training text, counts what is run, and multiplies with the measured time of each half
   and of a pass.
2. `gamma` is the longest draft here, as everywhere in this project.
3. The threshold (`adapted`) starts anew in each call; the authors' evaluation carries it from prompt to prompt.
4. Published code, with its defaults in sampling mode (`do_sample_draft=False`), drafts the argmax and judges it as if
   it were drawn from the soft law: between two flat laws of three tokens, the law of two tokens is off by 0.64 (total
   variation). The authors' own evaluation samples the draft, which is exact. One list of random numbers decides there
   both whether a draft goes on and what is accepted; enumeration shows that this alone does no harm to the law.

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.core.sampling import Sampler
>>> from reference_impls.speculative_decoding.self_speculative_decoding import example, generate
>>> prompt = zoo.encode("def read_lines(path):")
>>> result = generate(prompt=prompt, limit=24, sampler=Sampler(temperature=0), **example())
>>> len(result.tokens), result.passes < 24
(24, True)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from reference_impls.core.arguments import check_range, checked
from reference_impls.core.cache import Cache
from reference_impls.core.drafting import check_draft, check_guesses, room
from reference_impls.core.generation import Ends, Generation, Step, check_length
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.verify import verify_chain

Skips = tuple[tuple[int, ...], tuple[int, ...]]  # layers without their attention half, layers without the other


@torch.inference_mode()
@checked
def generate(
    target: LanguageModel,
    prompt: Sequence[int],
    limit: int,
    *,
    sampler: Sampler,
    skip_attention: Sequence[int],
    skip_feed: Sequence[int],
    gamma: int = 8,
    threshold: float = 0.6,
    goal: float = 0.9,
    epsilon: float = 0.01,
    eos: Ends | None = None,
) -> Generation:
    """Generate up to `limit` tokens after `prompt`; drafts of at most `gamma` tokens leave out the given halves.

    `threshold` moves by `epsilon` towards the acceptance rate `goal`; with 0 it stays. Raises ValueError for a `gamma`
    below 1, layers that the target does not have, and numbers out of range.
    """
    check_draft(gamma, target)
    check_skips(target.shape.layers, skip_attention=skip_attention, skip_feed=skip_feed)
    check_range(0, 1, threshold=threshold, goal=goal)
    check_range(0, epsilon=epsilon)
    check_length(target, prompt, limit)
    result, tokens, cache, rate = Generation(), list(prompt), target.new_cache(), 0.0
    skips, depth = (tuple(skip_attention), tuple(skip_feed)), target.shape.layers
    thin = depth - (len(set(skip_attention)) + len(set(skip_feed))) / 2  # layers of a drafting pass; a half is half
    go_on = limit > 0
    # Between turns the cache holds all tokens but the last, in all layers.
    while go_on:
        # Draft: the thinned target guesses, until it is unsure; nothing before the prompt has been read.
        fitting = room(len(tokens), gamma, target) if result.tokens else 0
        draft, q = sure_draft(sampler, target, tokens, cache, skips, gamma=fitting, threshold=threshold)
        # Verify: the whole target writes the true keys and values.
        unseen = [*tokens[len(cache) :], *draft]
        p = sampler.probs(target(unseen, cache, last=len(draft) + 1))  # [draft + 1, vocab]
        kept, extra = verify_chain(sampler, draft, q, p)
        # Commit: the kept guesses and the extra token; then the threshold learns from the step.
        emitted = [*draft[:kept], extra]
        tokens += emitted
        cache.crop(len(tokens) - 1)
        work = (len(draft) + 1) * depth + len(draft) * thin
        go_on = result.add(Step(emitted, draft, kept=kept, draft_passes=len(draft), work=work), limit, eos)
        if draft:
            longest = len(draft) == fitting
            threshold, rate = adapted(threshold, rate, kept / len(draft), longest, goal=goal, epsilon=epsilon)
    return result


def sure_draft(
    sampler: Sampler,
    target: LanguageModel,
    tokens: Sequence[int],
    cache: Cache,
    skips: Skips,
    *,
    gamma: int,
    threshold: float,
) -> tuple[list[int], list[Tensor]]:
    """Up to `gamma` guesses, the last of which may be an unsure one, and their laws, each [vocab].

    What drafting adds to the cache is forgotten again: keys and values of a thinned target are not the true ones.
    """
    draft, q, confidence = list[int](), list[Tensor](), 1.0
    while len(draft) < gamma and (not draft or confidence >= threshold):
        logits = sketch(target, (draft or tokens)[-1], cache, skips)  # [vocab]
        q.append(sampler.probs(logits))
        token, confidence = drawn_with_confidence(sampler, q[-1], logits)
        draft.append(token)
        check_guesses(draft[-1:])
    cache.crop(max(0, len(tokens) - 1))
    return draft, q


def sketch(target: LanguageModel, token: int, cache: Cache, skips: Skips) -> Tensor:
    """Logits [vocab] after `token` if the skipped halves add nothing; the others keep their own keys and values."""
    skip_attention, skip_feed = skips
    x = target.embed([token])
    for layer, block in enumerate(target.blocks):
        if layer not in skip_attention:
            x = x + block.attend(x, target.angles(cache.length(layer), 1), None, cache, layer)
        if layer not in skip_feed:
            x = x + block.feed(x)
    return target.logits(x[0])


def drawn_with_confidence(sampler: Sampler, q: Tensor, logits: Tensor) -> tuple[int, float]:
    """A token from q [vocab], and its probability before temperature and filters; one copy from the device."""
    drawn = sampler.draw(q)
    token, confidence = torch.stack((drawn, logits.double().softmax(-1)[drawn])).tolist()
    return int(token), confidence


def adapted(
    threshold: float,
    rate: float,
    accepted: float,
    longest: bool,  # noqa: FBT001 - a fact about the step, not a switch
    *,
    goal: float = 0.9,
    epsilon: float = 0.01,
    betas: tuple[float, float] = (0.5, 0.9),
) -> tuple[float, float]:
    """Threshold and acceptance rate after a step that kept the share `accepted` of a draft, maybe the longest one."""
    rate = betas[0] * rate + (1 - betas[0]) * accepted
    wanted = threshold + epsilon if rate < goal else threshold if longest else threshold - epsilon
    return betas[1] * threshold + (1 - betas[1]) * wanted, rate


def check_skips(layers: int, **skips: Sequence[int]) -> None:
    """Raise ValueError for a layer that the model does not have."""
    for name, chosen in skips.items():
        wrong = [layer for layer in chosen if not 0 <= layer < layers]
        if wrong:
            raise ValueError(f"{name} names layer {wrong[0]}; the model has layers 0 to {layers - 1}")


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    found = zoo.load("skip-set")  # what `search` found for the target
    return {"target": zoo.load("target"), "skip_attention": found.attention, "skip_feed": found.feed}


def halves(chosen: Collection[int], layers: int) -> Skips:
    """Attention and feed-forward halves out of numbers below 2L: attention first, as in the paper's vector z."""
    return tuple(sorted(n for n in chosen if n < layers)), tuple(sorted(n - layers for n in chosen if n >= layers))


@checked
def search(
    objective: Callable[[Skips], float], layers: int, *, starts: Sequence[Skips], rounds: int, seed: int = 0
) -> tuple[Skips, float]:
    """The best set of skipped halves found, and its score: from the best of `starts`, flip one or two halves at a time.

    A flip is kept unless it scores less. `objective` is asked at most once about a set.
    """
    chance, scores = random.Random(seed), dict[frozenset[int], float]()

    def score(chosen: frozenset[int]) -> float:
        if chosen not in scores:
            scores[chosen] = objective(halves(chosen, layers))
        return scores[chosen]

    best = max((frozenset([*a, *(layers + n for n in f)]) for a, f in starts), key=score)
    for _ in range(rounds):
        trial = best ^ set(chance.sample(range(2 * layers), chance.choice((1, 2))))
        best = max(trial, best, key=score)  # of equals the first: it may lead on
    return halves(best, layers), score(best)
