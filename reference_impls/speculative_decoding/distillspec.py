r"""DistillSpec: the drafter learns the target's laws, on texts that it writes itself, and is accepted more often.

DistillSpec: Improving Speculative Decoding via Knowledge Distillation. Yongchao Zhou, Kaifeng Lyu, Ankit Singh Rawat,
Aditya Krishna Menon, Afshin Rostamizadeh, Sanjiv Kumar, Jean-François Kagy, Rishabh Agarwal. ICLR 2024.
https://arxiv.org/abs/2310.08461

Idea
----
A guess is kept with the chance $1 - \mathrm{TV}(p, q)$, whatever the drafter is worth as a writer. So before it serves,
let it learn the target's laws and not the corpus: how their distance is measured, and whose texts they are compared on,
are two separate choices. Serving does not change at all.

Algorithm
---------
1. *Texts* $y$: those of a data set, or continuations that the target or the drafter writes (`continuations`). The
   drafter's own are *on-policy*: written anew in the course of training, at the cost of drafter's passes alone. No
   gradient flows through the drawing.
2. *Loss* (`loss`): $\frac{1}{|y|} \sum_t D(p(\cdot \mid y_{<t}), q_\theta(\cdot \mid y_{<t}))$, the mean over the
   tokens of $y$ without its prompt, at the temperature of use. The target is frozen.
3. *Divergence* $D$ (`divergence`): forward KL $\sum_x p \log \frac{p}{q}$, reverse KL $\sum_x q \log \frac{q}{p}$,
   Jensen-Shannon $\beta\,\mathrm{KL}(p \| m) + (1 - \beta)\,\mathrm{KL}(q \| m)$ with $m = \beta p + (1 - \beta) q$,
   or total variation $\frac{1}{2} \sum_x |p - q|$, which is the chance of a rejection itself.
4. *Draft*: the drafter draws $x_1, \dots, x_\gamma$. *Verify*: one pass of the target; keep $x_i$ with probability
   $\min(1, p_i(x_i) / q_i(x_i))$ from the left; draw the extra token from $\mathrm{norm}(\max(0, p_i - q_i))$ where
   guess $i$ failed, or from $p_{\gamma+1}$. *Commit* them, and roll both caches back.
5. With $\tau$ tokens a pass (the *block efficiency*) and a drafter's pass that costs $c$ passes of the target, the
   expected speedup is $\tau / (c \gamma + 1)$ (`speedup`).

Guarantee
---------
Exact distribution, whatever the drafter has learnt: a kept guess $x$ has mass $\min(p, q)$, the residual adds
$\max(0, p - q)$, together $p$. Distillation can only change how often a guess is kept.

Differences from the paper
--------------------------
1. The paper also studies a lenient, lossy acceptance, and a target that is distilled itself before its drafter is.
   Both are other operating points; here decoding is exact, and the target is the one given.
2. All texts of a batch have one length, so a mean over the batch is the mean of the texts' means.
3. `continuations` writes on past an end of a text: what follows it is learnt like the rest.

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.core.sampling import Sampler
>>> from reference_impls.speculative_decoding.distillspec import example, generate, speedup
>>> prompt = zoo.encode("def read_lines(path):")
>>> result = generate(prompt=prompt, limit=24, sampler=Sampler(temperature=0), **example())
>>> len(result.tokens), result.passes < 24
(24, True)
>>> speedup(tau=3.0, gamma=4, c=0.125)
2.0
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from reference_impls.core.arguments import check_texts, checked
from reference_impls.core.batch import Batch
from reference_impls.core.distillation import Divergence, divergence
from reference_impls.core.drafting import check_draft, check_vocabulary, draft_chain, room
from reference_impls.core.generation import Ends, Generation, Step, check_length
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.verify import verify_chain


@torch.inference_mode()
@checked
def generate(
    target: LanguageModel,
    prompt: Sequence[int],
    limit: int,
    *,
    drafter: LanguageModel,
    sampler: Sampler,
    gamma: int = 4,
    eos: Ends | None = None,
) -> Generation:
    """Generate up to `limit` tokens after `prompt`; the distilled `drafter` guesses `gamma` tokens for each pass.

    Raises ValueError for a gamma below 1, or models of different vocabularies.
    """
    check_draft(gamma, target, drafter)
    check_length(target, prompt, limit)
    result, tokens = Generation(), list(prompt)
    target_cache, draft_cache = target.new_cache(), drafter.new_cache()
    go_on = limit > 0
    # Between turns the target's cache holds all tokens but the last; the drafter's may lack one more.
    while go_on:
        # Draft: the drafter guesses gamma tokens, one after another, or fewer where a model's positions end.
        fitting = room(len(tokens), gamma, target, drafter)
        draft, q = draft_chain(sampler, drafter, tokens, draft_cache, fitting)
        # Verify: the target gives the laws of all guesses, and of one token more, in one pass.
        unseen = [*tokens[len(target_cache) :], *draft]
        p = sampler.probs(target(unseen, target_cache, last=len(draft) + 1))  # [gamma + 1, vocab]
        kept, extra = verify_chain(sampler, draft, q, p)
        # Commit: append the kept guesses and the extra token; both caches forget the rest.
        emitted = [*draft[:kept], extra]
        tokens += emitted
        target_cache.crop(len(tokens) - 1)
        draft_cache.crop(len(tokens) - 1)
        go_on = result.add(Step(emitted, draft, kept=kept, draft_passes=len(draft)), limit, eos)
    return result


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    return {"target": zoo.load("target"), "drafter": zoo.load("drafter-distilled"), "gamma": 4}


@checked
def loss(
    target: LanguageModel,
    drafter: LanguageModel,
    tokens: Tensor,
    *,
    prompt: int = 1,
    kind: Divergence = "forward-kl",
    beta: float = 0.5,
    temperature: float = 1.0,
) -> Tensor:
    """The divergence of `drafter` from the frozen target, a token, over texts [batch, n] without their `prompt` tokens.

    Raises ValueError for a prompt that leaves no token, a beta outside (0, 1), and a temperature that is not above 0.
    """
    check_vocabulary(target, drafter)
    check_texts(target.shape.vocab, 2, tokens=tokens)
    if not 1 <= prompt < tokens.shape[-1]:
        raise ValueError(f"prompt is {prompt}; of {tokens.shape[-1]} tokens at least 1 is read and 1 is learnt")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature}; a law to learn needs one above 0")
    read = tokens[..., :-1]
    with torch.no_grad():
        taught = target(read)[..., prompt - 1 :, :]  # [batch, n - prompt, vocab]
    learnt = drafter(read)[..., prompt - 1 :, :]
    return divergence(taught / temperature, learnt / temperature, kind, beta).mean()


@torch.no_grad()
@checked
def continuations(model: LanguageModel, prompts: Tensor, length: int, sampler: Sampler) -> Tensor:
    """Texts [batch, n + length]: `prompts` [batch, n], and how `model` goes on after each.

    With the drafter that is to learn they are on-policy, with the target they are the teacher's own. Raises ValueError
    for a length below 1.
    """
    if length < 1:
        raise ValueError(
            f"length is {length}; write at least 1 token after a prompt, or learn from the texts as they are"
        )
    texts: list[list[int]] = prompts.tolist()
    batch, new = Batch(model, len(texts)), texts
    for _ in range(length):
        p = sampler.probs(torch.cat(batch(new, last=1)))  # [batch, vocab]
        new = sampler.draw(p)[:, None].tolist()
        texts = [[*text, *token] for text, token in zip(texts, new, strict=True)]
    return torch.tensor(texts, device=prompts.device)


@checked
def speedup(tau: float, gamma: int, c: float) -> float:
    """Expected ratio of wall time to autoregressive decoding at `tau` tokens a pass; c = drafter pass / target pass.

    Raises ValueError for a tau outside [1, gamma + 1], and for a c that is no time.
    """
    if not (gamma >= 1 and 1 <= tau <= gamma + 1 and 0 <= c < math.inf):
        raise ValueError(f"tau is {tau}, gamma {gamma} and c {c}; tau lies from 1 to gamma + 1, c is at least 0")
    return tau / (c * gamma + 1)
