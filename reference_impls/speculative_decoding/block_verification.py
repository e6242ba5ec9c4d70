r"""Block Verification: the same draft, judged as a whole, so that a good token makes up for a poor one before it.

Block Verification Accelerates Speculative Decoding. Ziteng Sun, Uri Mendlovic, Yaniv Leviathan, Asaf Aharoni,
Jae Hun Ro, Ahmad Beirami, Ananda Theertha Suresh. ICLR 2025. https://arxiv.org/abs/2403.10444

Idea
----
Token by token, a draft ends at its first rejection, however well the target likes what comes after. Block verification
leaves the draft and the target's pass as they are and decides jointly how long a prefix of the block is kept: a guess
that the target finds likelier than the drafter did makes up for a poor one before it. This costs no further pass of
any model, and no exact test that knows only the laws along the draft keeps more tokens on average.

Algorithm
---------
1. *Draft*: draw $x_i \sim q_i = q(\cdot \mid x_{<i})$ for $i = 1, \dots, \gamma$ with the drafter.
2. *Verify*: one pass of the target gives $p_1, \dots, p_{\gamma+1}$. Each prefix has a weight: $w_0 = 1$ and
   $w_i = \min(1, w_{i-1}\, p_i(x_i) / q_i(x_i))$.
3. With the missing mass $R_i = \sum_x \max(0, w_i\, p_{i+1}(x) - q_{i+1}(x))$, length $i$ passes its test with
   probability $h_i = R_i / (R_i + 1 - w_i)$, independently of the others; for the whole block $h_\gamma = w_\gamma$.
4. Keep the longest prefix $\tau$ that passes, whatever became of the shorter ones.
5. Draw the extra token from $\mathrm{norm}(\max(0, w_\tau\, p_{\tau+1} - q_{\tau+1}))$, or from $p_{\gamma+1}$ if
   $\tau = \gamma$.
6. *Commit*: append the kept guesses and the extra token; roll both caches back to them.

Guarantee
---------
Exact distribution. From the last guess backwards, $h_i$ is just what makes $\Pr(\tau \ge i \mid x_{1..i}) = w_i$. Of
the mass $w_i$ that reaches place $i + 1$, guesses take $q_{i+1} w_{i+1} = \min(q_{i+1}, w_i\, p_{i+1})$ and the extra
token adds $\max(0, w_i\, p_{i+1} - q_{i+1})$: together $w_i\, p_{i+1}$, the target's law.

Never worse than token verification, which reaches length $i$ with probability
$\prod_{j \le i} \min(1, p_j(x_j) / q_j(x_j)) \le w_i$. With $p = (1/3, 2/3)$, $q = (2/3, 1/3)$ everywhere and
$\gamma = 2$, the paper's example, blocks keep $11/9$ guesses on average and single tokens $10/9$. With one guess, and
at temperature 0, the two agree.

Differences from the paper
--------------------------
1. The paper writes $M_b$ for the target, $M_s$ for the drafter and $p_i$ for the weight $w_i$ (`prefix_weights`).
2. After the block nothing is drafted. With $q_{\gamma+1} = 0$ the general $h_i$ and residual give the paper's special
   case, $h_\gamma = w_\gamma$ and $p_{\gamma+1}$, so `verify_block` has no second branch.
3. The second verification algorithm that the paper mentions besides is left out.
4. Published code: vLLM-Ascend had a rule under this name until its pull request 7808. It keeps the longest prefix with
   $w_i \ge u_1 \cdots u_i$, for uniform $u_j$, and draws the extra token from
   $\mathrm{norm}(\max(0, p_{\tau+1} - q_{\tau+1}))$. On the example with $\gamma = 3$, the shortest block that it is
   used for, its first token misses the target's law by 0.26 (total variation).

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.core.sampling import Sampler
>>> from reference_impls.speculative_decoding.block_verification import example, generate
>>> prompt = zoo.encode("def read_lines(path):")
>>> result = generate(prompt=prompt, limit=24, sampler=Sampler(temperature=0.8, seed=1), **example())
>>> len(result.tokens), result.passes < 24
(24, True)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from reference_impls.core.arguments import checked
from reference_impls.core.drafting import check_draft, draft_chain, room
from reference_impls.core.generation import Ends, Generation, Step, check_length
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.verify import drafted_laws, residual


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
    """Generate up to `limit` tokens after `prompt`; blocks of `gamma` guesses are judged in each pass of the target.

    Raises ValueError for a gamma below 1 or models of different vocabularies.
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
        # Verify: the target gives all laws in one pass; how much of the block is kept is decided jointly.
        unseen = [*tokens[len(target_cache) :], *draft]
        p = sampler.probs(target(unseen, target_cache, last=len(draft) + 1))  # [gamma + 1, vocab]
        kept, extra = verify_block(sampler, draft, q, p)
        # Commit: append the kept guesses and the extra token; both caches forget the rest.
        emitted = [*draft[:kept], extra]
        tokens += emitted
        target_cache.crop(len(tokens) - 1)
        draft_cache.crop(len(tokens) - 1)
        go_on = result.add(Step(emitted, draft, kept=kept, draft_passes=len(draft)), limit, eos)
    return result


def verify_block(sampler: Sampler, draft: Sequence[int], q: Iterable[Tensor], p: Tensor) -> tuple[int, int]:
    """How many of the drafted tokens are kept, and the extra token that follows them.

    The rows of q, [vocab], and p [gamma + 1, vocab] are the laws at the draft's places, p also one place further. The
    result costs one copy from the device.
    """
    laws = drafted_laws(q, p)  # [gamma + 1, vocab]
    w = prefix_weights(draft, laws[:-1], p)
    weighted = w[:, None] * p
    missing = (weighted - laws).clamp(min=0).sum(-1)
    # Where w is 1 and the next laws coincide, h is 0 / 0, and its value is free: a longer prefix is kept anyway.
    h = missing / (missing + 1 - w).clamp(min=torch.finfo(p.dtype).tiny)  # [gamma + 1]
    passed = sampler.accept(h[1:]) * torch.arange(1, len(draft) + 1, device=p.device)
    kept = F.pad(passed, (1, 0)).amax()  # a failure does not end the block; where nothing passes, nothing is kept
    extra = sampler.draw(residual(weighted, laws)[kept])
    count, token = torch.stack((kept, extra)).tolist()
    return count, token


def prefix_weights(draft: Sequence[int], q: Tensor, p: Tensor) -> Tensor:
    """The chance w_i [gamma + 1] that at least i tokens are kept: w_0 = 1, w_i = min(1, w_{i-1} p_i / q_i)."""
    drawn = torch.tensor(draft, device=p.device, dtype=torch.long).unsqueeze(-1)
    w = [p.new_ones(1)]
    for ratio in p[:-1].gather(-1, drawn) / q.gather(-1, drawn):
        w.append((w[-1] * ratio).clamp(max=1))
    return torch.cat(w)


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    return {"target": zoo.load("target"), "drafter": zoo.load("drafter"), "gamma": 4}
