r"""Online speculative decoding: the drafter goes on learning while it serves, at the places where it was wrong.

Online Speculative Decoding. Xiaoxuan Liu, Lanxiang Hu, Peter Bailis, Alvin Cheung, Zhijie Deng, Ion Stoica, Hao Zhang.
ICML 2024. https://arxiv.org/abs/2310.07177

Idea
----
What a service is asked changes from hour to hour, and a drafter that was trained before knows nothing of it. But each
rejection is a lesson: verification has just computed the target's law at the very place where the drafter failed. So
keep these laws, and let the drafter take a small step towards them between two texts. It follows the traffic, and the
target runs no pass more.

Algorithm
---------
1. *Draft*: the drafter draws $x_1, \dots, x_\gamma$ from its laws $q$. *Verify*: one pass of the target; keep $x_i$
   with probability $\min(1, p_i(x_i) / q_i(x_i))$ from the left; draw the extra token from
   $\mathrm{norm}(\max(0, p_i - q_i))$ where guess $i$ failed, or from $p_{\gamma+1}$. *Commit* them.
2. *Errors*: where guess $i$ failed, remember the place $t$ of the extra token, and the target's logits there.
3. *Replay*: when a text is whole, put it into the buffer with its errors.
4. *Learn*: when the buffer has `interval` texts, and before the next one begins, make one step of the optimiser on
   the `loss` $\frac{1}{|E|} \sum_{t \in E} D(p(\cdot \mid y_{<t}), q_\theta(\cdot \mid y_{<t}))$ over all their errors
   $E$ and nothing else, and empty the buffer. $D$ is the forward KL, whose gradient is that of the cross-entropy
   $-\sum_x p(x) \log q_\theta(x)$, or another `divergence`. The law of token $t$ is what the drafter says after token
   $t - 1$.

Guarantee
---------
Exact distribution, before, between and after updates: a kept guess $x$ has mass $\min(p, q)$, the residual adds
$\max(0, p - q)$, together $p$, whatever $q$ is. It only has to be the very law that $x$ was drawn from, so an update
never falls between a draft and its verification: here it falls between two texts. The second is drafted from other
laws than the first, and has the target's law again, also given all that was written before.

Differences from the paper
--------------------------
1. Published code also counts the token behind a draft that was kept whole as an error. No guess stood there, so here
   nothing is learnt from it, and a drafter that is always right rests.
2. Published code looks at the logits of the token that stands in the place of a rejected guess, which foretell the
   token *after* it; what failed is the place before. It computes the target's logits anew, and notes that this could be
   saved; here they are kept.
3. One drafter. Where traffic is mixed, the paper keeps several and routes each request by its language or topic: here
   that is one pair of drafter and `Replay` for each, and a choice before the call.
4. The update waits for no idle hardware: the next text waits for it. Whoever has an idle moment before it calls
   `Replay.learn`.

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.core.sampling import Sampler
>>> from reference_impls.speculative_decoding.online_speculative_decoding import Replay, example, generate
>>> models = example() | {"drafter": zoo.load("drafter").requires_grad_()}
>>> replay = Replay(models["drafter"], interval=1, rate=1e-3)
>>> prompt = zoo.encode("def read_lines(path):")
>>> runs = [generate(prompt=prompt, limit=48, sampler=Sampler(0), replay=replay, **models) for _ in range(6)]
>>> runs[0].tokens == runs[-1].tokens, runs[0].passes > runs[-1].passes
(True, True)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from reference_impls.core.arguments import checked
from reference_impls.core.distillation import Divergence, divergence
from reference_impls.core.drafting import check_draft, draft_chain, room
from reference_impls.core.generation import Ends, Generation, Step, check_length
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.verify import verify_chain

Errors = Mapping[int, Tensor]  # the places of a text where a guess failed -> the target's logits there, [vocab]


@torch.inference_mode()
@checked
def generate(
    target: LanguageModel,
    prompt: Sequence[int],
    limit: int,
    *,
    drafter: LanguageModel,
    sampler: Sampler,
    replay: Replay | None = None,
    gamma: int = 5,
    eos: Ends | None = None,
) -> Generation:
    """Generate up to `limit` tokens after `prompt`; `drafter` guesses `gamma` tokens for each pass.

    With a `replay` buffer the drafter learns from its errors, once in so many texts; without one it stays what it is.
    Raises ValueError for a gamma below 1, models of different vocabularies, and a buffer that teaches another model.
    """
    check_draft(gamma, target, drafter)
    check_replay(target, drafter, replay)
    check_length(target, prompt, limit)
    # Learn: while no draft is open, from the texts before this one.
    if replay is not None:
        replay.learn()
    result, tokens, errors = Generation(), list(prompt), dict[int, Tensor]()
    target_cache, draft_cache = target.new_cache(), drafter.new_cache()
    go_on = limit > 0
    # Between turns the target's cache holds all tokens but the last; the drafter's may lack one more.
    while go_on:
        # Draft: the drafter guesses gamma tokens, one after another, or fewer where a model's positions end.
        fitting = room(len(tokens), gamma, target, drafter)
        draft, q = draft_chain(sampler, drafter, tokens, draft_cache, fitting)
        # Verify: the target gives the laws of all guesses, and of one token more, in one pass.
        unseen = [*tokens[len(target_cache) :], *draft]
        logits = target(unseen, target_cache, last=len(draft) + 1)  # [gamma + 1, vocab]
        kept, extra = verify_chain(sampler, draft, q, sampler.probs(logits))
        if kept < len(draft):
            errors[len(tokens) + kept] = logits[kept].clone()  # the other rows need not be kept alive
        # Commit: append the kept guesses and the extra token; both caches forget the rest.
        emitted = [*draft[:kept], extra]
        tokens += emitted
        target_cache.crop(len(tokens) - 1)
        draft_cache.crop(len(tokens) - 1)
        go_on = result.add(Step(emitted, draft, kept=kept, draft_passes=len(draft)), limit, eos)
    if replay is not None:
        replay.add([*prompt, *result.tokens], errors)
    return result


def check_replay(target: LanguageModel, drafter: LanguageModel, replay: Replay | None) -> None:
    """Raise ValueError for a replay buffer that teaches another drafter, or the target."""
    if replay is not None and replay.drafter is not drafter:
        raise ValueError("the replay buffer teaches another drafter: make it with the one that guesses")
    if replay is not None and {*map(id, replay.weights)} & {*map(id, target.parameters())}:
        raise ValueError("the drafter shares weights with the target, which must not change: give it a copy of them")


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    return {"target": zoo.load("target"), "drafter": zoo.load("drafter"), "gamma": 4}


class Replay:
    """Texts since the last update with their errors, and the optimiser that makes one step for `interval` of them.

    `rate` is that of AdamW; `kind` and `beta` are those of `divergence`. The defaults are those of published code.
    Raises ValueError for numbers out of range, and for a drafter whose weights are frozen or in half precision.
    """

    @checked
    def __init__(
        self,
        drafter: LanguageModel,
        *,
        interval: int = 8,
        rate: float = 1e-4,
        kind: Divergence = "forward-kl",
        beta: float = 0.5,
    ) -> None:
        if interval < 1 or not 0 < rate < math.inf:
            raise ValueError(
                f"interval is {interval} and rate {rate}; at least 1 text is learnt from, at a rate above 0"
            )
        divergence(torch.zeros(1), torch.zeros(1), kind, beta)  # refuses what is none before anything is served
        self.drafter, self.interval, self.kind, self.beta = drafter, interval, kind, beta
        self.weights = [weight for weight in drafter.parameters() if weight.requires_grad]
        if not self.weights:
            raise ValueError("no weight of the drafter may change: thaw it with drafter.requires_grad_() first")
        if any(weight.dtype.itemsize < 4 for weight in self.weights):
            raise ValueError(
                "the drafter learns in half precision, where small steps vanish: call drafter.float() first"
            )
        self.optimiser = torch.optim.AdamW(self.weights, lr=rate, weight_decay=0.0)
        self.texts: list[tuple[list[int], Errors]] = []
        self.updates = 0

    def add(self, text: Sequence[int], errors: Errors) -> None:
        """Store a text with those of its errors that were not cut off with its end."""
        self.texts.append((list(text), {place: p for place, p in errors.items() if place < len(text)}))

    def learn(self) -> None:
        """If the buffer has `interval` texts, make one step of the optimiser on all their errors, and empty it."""
        if len(self.texts) < self.interval:
            return
        texts, self.texts = [(text, errors) for text, errors in self.texts if errors], []
        if texts:
            with torch.inference_mode(False), torch.enable_grad():
                self.optimiser.zero_grad()
                loss(self.drafter, texts, kind=self.kind, beta=self.beta).backward()
                self.optimiser.step()
            self.updates += 1


@checked
def loss(
    drafter: LanguageModel,
    texts: Sequence[tuple[Sequence[int], Errors]],
    *,
    kind: Divergence = "forward-kl",
    beta: float = 0.5,
) -> Tensor:
    """The divergence of `drafter` from the target's stored laws, a place, over the errors of all `texts`.

    Raises ValueError for no texts, one without errors, and places that are not inside of their text.
    """
    if not texts or not all(errors and 0 < min(errors) <= max(errors) < len(text) for text, errors in texts):
        raise ValueError("texts need an error each, at places after their first token and up to their last one")
    p = torch.stack([law for _, errors in texts for law in errors.values()])  # [errors, vocab]
    read = pad_sequence([torch.tensor(text[: max(errors)]) for text, errors in texts], batch_first=True)
    logits = drafter(read.to(p.device))  # [texts, n, vocab]; the zeros behind a text are seen by none of its tokens
    rows = [(i, place - 1) for i, (_, errors) in enumerate(texts) for place in errors]  # token t is foretold by t - 1
    q = logits[tuple(torch.tensor(rows).T)]  # [errors, vocab]
    return divergence(p, q, kind, beta).mean()
