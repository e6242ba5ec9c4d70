r"""PaSS: look-ahead tokens let the target draft for itself, several places in one pass.

PaSS: Parallel Speculative Sampling. Giovanni Monea, Armand Joulin, Edouard Grave. ENLSP workshop at NeurIPS 2023.
https://arxiv.org/abs/2311.13581

Idea
----
A pass over a few tokens takes about as long as a pass over one. So put a few look-ahead tokens behind the text and let
the model itself say, in one pass, what will stand at each of these places. All that has to be learnt are the embeddings
of these tokens: their rows are trained, every weight of the model stays as it is. There is no drafter and no head, and
next to no memory is needed.

Algorithm
---------
1. *Draft*: one pass over the newest token and the look-ahead tokens $1, \dots, \gamma$ behind it. It gives the ordinary
   law $p_0$ of the next token and, at look-ahead token $i$, a law $q_i$ for the token $i$ places further. Draw $x_0$
   from $p_0$ and $x_1, \dots, x_\gamma$ from $q_1, \dots, q_\gamma$, all at once and independently of each other. The
   cache forgets the look-ahead tokens.
2. *Commit* $x_0$: it comes from the target's own law, so there is nothing to verify. Where the text ends with it, the
   second pass is saved.
3. *Verify*: a second pass, over $x_0, \dots, x_\gamma$, gives $p_1, \dots, p_{\gamma+1}$. Keep $x_i$ with probability
   $\min(1, p_i(x_i) / q_i(x_i))$; after the first rejection the extra token comes from
   $\mathrm{norm}(\max(0, p_i - q_i))$, after none from $p_{\gamma+1}$.
4. *Commit* the kept tokens and the extra one. Two passes give between 2 and $\gamma + 2$ tokens, so there are never
   more passes than in plain decoding.
5. *Train* (`loss`): behind random places $t$ of a text stand look-ahead tokens; token $i$ of them learns what the text
   has at $t + 1 + i$, by cross-entropy. Only their embeddings have a gradient.

Guarantee
---------
Exact distribution, for any look-ahead embeddings. $x_0$ is a draw from the target's law. Given the text, the guesses
are draws from laws $q_i$ that are known before anything is drawn, and the acceptance rule keeps $p_i$ for any such law.
Look-ahead tokens stand behind the text, which the causal mask hides them from, so $p_0$ is what it would be without.

Differences from the paper
--------------------------
1. The paper calls the number of look-ahead tokens $L$; here it is $\gamma$ (`gamma`). The first `gamma` of the trained
   rows are used, which the causal mask allows: row $i$ never saw a later one.
2. Each turn of the loop leaves two steps in the trace, one for each pass: what $x_0$ adds is no guess that was kept.
3. In training, many groups of look-ahead tokens stand behind one text at once. A mask keeps each group to its own place
   (`attach`), so that each learns as if it stood there alone.
4. Training begins with the mean of the target's embeddings (`start_from`); where the paper begins was not found.

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.core.sampling import Sampler
>>> from reference_impls.speculative_decoding.parallel_speculative_sampling import example, generate
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
from torch import Tensor, nn

from reference_impls.core.arguments import check_range, check_texts, checked
from reference_impls.core.drafting import check_draft, check_part, room
from reference_impls.core.generation import Ends, Generation, Step, check_length
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.tree import attach
from reference_impls.core.verify import verify_chain


@torch.inference_mode()
@checked
def generate(
    target: LanguageModel,
    prompt: Sequence[int],
    limit: int,
    *,
    look_ahead: LookAhead,
    sampler: Sampler,
    gamma: int = 4,
    eos: Ends | None = None,
) -> Generation:
    """Generate up to `limit` tokens after `prompt`; the first `gamma` look-ahead tokens draft in every other pass.

    Raises ValueError for a gamma below 1 or above the number of look-ahead tokens, and for look-ahead tokens of another
    type or device than the target's.
    """
    check_draft(gamma, target)
    check_part(target, look_ahead, "look-ahead tokens")
    if gamma > len(look_ahead.rows):
        raise ValueError(f"gamma is {gamma}, but there are {len(look_ahead.rows)} look-ahead tokens: draft no more")
    check_length(target, prompt, limit)
    result, tokens, cache = Generation(), list(prompt), target.new_cache()
    go_on = limit > 0
    # Between turns the cache holds all tokens but the last.
    while go_on:
        # Draft: one pass over the unseen tokens and the look-ahead tokens, which the cache then forgets.
        rows = look_ahead.rows[: room(len(tokens) + 1, gamma, target)]  # fewer where the target's positions end
        x = torch.cat((target.embed(tokens[len(cache) :]), rows))  # [unseen + gamma, dim]
        laws = sampler.probs(target.logits(target.run(x, cache)[-len(rows) - 1 :]))  # [gamma + 1, vocab]
        cache.crop(len(tokens))
        # Commit the first token: it comes from the target's own law.
        first, *draft = sampler.draw(laws).tolist()
        tokens.append(first)
        if not result.add(Step([first]), limit, eos):
            break
        # Verify: a second pass over the first token and the guesses after it.
        p = sampler.probs(target([first, *draft], cache))  # [gamma + 1, vocab]
        kept, extra = verify_chain(sampler, draft, laws[1:], p)
        # Commit: the kept guesses and the extra token; the cache forgets the rest.
        emitted = [*draft[:kept], extra]
        tokens += emitted
        cache.crop(len(tokens) - 1)
        go_on = result.add(Step(emitted, draft, kept=kept), limit, eos)
    return result


class LookAhead(nn.Module):
    """The embeddings [length, dim] of the look-ahead tokens, nearest first: all that is trained."""

    @checked
    def __init__(self, shape: Shape, length: int = 8) -> None:
        super().__init__()
        if length < 1:
            raise ValueError(f"length is {length}; there must be at least 1 look-ahead token")
        self.rows = nn.Parameter(torch.randn(length, shape.dim) * shape.dim**-0.5)

    def start_from(self, target: LanguageModel) -> None:
        """Make every row the mean of the target's own embeddings: what training begins with."""
        with torch.no_grad():
            self.rows.copy_(target.embedding.mean(0))


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    return {"target": zoo.load("target"), "look_ahead": zoo.load("look-ahead"), "gamma": 2}


@checked
def loss(
    target: LanguageModel,
    look_ahead: LookAhead,
    tokens: Tensor,
    *,
    groups: int = 16,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Cross-entropy of the look-ahead tokens behind `groups` random places of tokens [batch, n]; the target is frozen.

    Look-ahead token i behind place t learns the token at t + 1 + i. Raises ValueError for texts too short for
    all look-ahead tokens, and for no group.
    """
    length = len(look_ahead.rows)
    check_range(1, groups=groups)
    check_texts(target.shape.vocab, length + 2, tokens=tokens)
    places = torch.randint(tokens.shape[1] - length - 1, (groups,), generator=generator)
    logits = read_ahead(target, look_ahead, tokens[:, : -length - 1], places)  # [batch, groups, length, vocab]
    wanted = tokens[:, places[:, None] + torch.arange(2, length + 2)]  # [batch, groups, length]
    return F.cross_entropy(logits.float().flatten(0, 2), wanted.flatten())


def read_ahead(target: LanguageModel, look_ahead: LookAhead, tokens: Tensor, places: Tensor) -> Tensor:
    """Logits [batch, groups, length, vocab] of the look-ahead tokens behind each of `places` [groups] of a text.

    One pass over tokens [batch, n] and all groups; a group sees the text up to its place, and no other group.
    """
    batch, n = tokens.shape
    length, groups = len(look_ahead.rows), len(places)
    positions, visible = attach(torch.arange(n), None, places, length)
    x = torch.cat((target.embed(tokens), look_ahead.rows.repeat(groups, 1).expand(batch, -1, -1)), 1)
    hidden = target.run(x, positions=positions, visible=visible)[:, n:]
    return target.logits(hidden).unflatten(1, (groups, length))
