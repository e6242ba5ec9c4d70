r"""Big Little Decoder: the small model writes until it is unsure; the large one then continues, or rolls it back.

Speculative Decoding with Big Little Decoder. Sehoon Kim, Karttikeya Mangalam, Suhong Moon, Jitendra Malik, Michael W.
Mahoney, Amir Gholami, Kurt Keutzer. NeurIPS 2023. https://arxiv.org/abs/2302.07863

Idea
----
Most tokens are easy enough for a small model, and it often knows which are not. So it writes on its own and hands over
when its confidence drops. In the one pass that gives the next token, the large model also reads everything written
since its last turn; where it finds a token too unlikely, the text is rolled back to that place.

Algorithm
---------
1. *Draft*: the small model $q$ writes token after token. *Fallback*: when $\max_x q(x) < \alpha_{FB}$ (`fallback`), its
   next token is thrown away and the large model takes over; so it does after `gamma` tokens.
2. *Verify*: one pass of the large model over the newest tokens and the draft $x_1, \dots, x_n$ gives its laws
   $p_1, \dots, p_{n + 1}$ and, from each, the token $y_i$ that it would have written.
3. *Rollback*: at the first $i$ with $-\log p_i(x_i) > \alpha_{RB}$ (`rollback`) and $x_i \ne y_i$, drop $x_i$ and
   everything after it, and write $y_i$. If there is none, the whole draft stays and $y_{n + 1}$ follows.
4. *Commit*: append the tokens; both caches forget what was rolled back.
5. *Align*, if wanted (`loss`): tune the small model on text that the large one wrote, so that it is rolled back less.

Guarantee
---------
Lossy: a kept token needs only to be likelier than $e^{-\alpha_{RB}}$ for the large model, so the text is neither
model's. Both thresholds trade quality against speed, and three ends of their ranges are known. With `rollback` 0, only
tokens that equal the large model's own draw stay, and the text has the large model's law; the same holds with
`fallback` above 1, where nothing is drafted. With `fallback` 0 and `rollback` infinite, the small model's text stays,
but for every (`gamma` + 1)-th token.

Differences from the paper
--------------------------
1. The paper's models are encoder-decoders; here both are decoder-only and read the prompt.
2. The paper decodes greedily. Drawing both models' tokens (`own`) is its own notation, and what this file does;
   thresholds look at the models' untempered laws, so that they mean the same at every temperature, 0 included.
3. A token that the large model would write itself is never rolled back, however unlikely; with the small window of
   `gamma` tokens this is taken from the published code.
4. Every drafted token is checked (`count_kept`). In the published code a text also ends unchecked, where the small
   model ends it.
5. Published code compares only the first token above `rollback` with the large model's choice. If these are equal, the
   rest of the window stays, whatever it holds. After a rollback it runs the large model once more over the window, and
   it misses an end of the text that a rollback has written.
6. Published code turns a threshold of 0 into its default (0.6 and 5), so the exact end of the range cannot be reached:
   two tokens of this project's smallest test models are then at a total variation of 0.51 from the large model's.

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.core.sampling import Sampler
>>> from reference_impls.speculative_decoding.bild import example, generate
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
from torch import Tensor

from reference_impls.core.arguments import check_texts, checked
from reference_impls.core.drafting import check_draft, check_guesses, room
from reference_impls.core.generation import Ends, Generation, Step, check_length
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler


@torch.inference_mode()
@checked
def generate(
    target: LanguageModel,
    prompt: Sequence[int],
    limit: int,
    *,
    drafter: LanguageModel,
    sampler: Sampler,
    fallback: float = 0.6,
    rollback: float = 5.0,
    gamma: int = 10,
    eos: Ends | None = None,
) -> Generation:
    """Generate up to `limit` tokens after `prompt`: the drafter writes, the target takes over and rolls back.

    `fallback` is a probability, `rollback` a distance in nats, `gamma` the most tokens the drafter writes in a row.
    Raises ValueError for thresholds below 0, a `gamma` below 1, or models with different vocabularies.
    """
    check_draft(gamma, target, drafter)
    if not (fallback >= 0 and rollback >= 0):
        raise ValueError(f"fallback is {fallback} and rollback is {rollback}; both thresholds must be 0 or more")
    check_length(target, prompt, limit)
    result, tokens = Generation(), list(prompt)
    target_cache, draft_cache = target.new_cache(), drafter.new_cache()
    go_on = limit > 0
    # Between turns the target's cache holds all tokens but the last; the drafter's may lack one more.
    while go_on:
        # Draft: the small model writes as long as it is sure enough of the next token.
        draft, asked, sure = list[int](), 0, True
        while sure and len(draft) < room(len(tokens), gamma, target, drafter):
            unseen = [*tokens, *draft][len(draft_cache) :]
            logits = drafter(unseen, draft_cache, last=1)[0]  # [vocab]
            asked += 1
            sure = not float(logits.double().softmax(-1).max()) < fallback
            if sure:
                draft.append(int(sampler.draw(sampler.probs(logits))))
                check_guesses(draft[-1:])
        # Verify: one pass of the large model over the window; it draws its own token at each place.
        unseen = [*tokens[len(target_cache) :], *draft]
        logits = target(unseen, target_cache, last=len(draft) + 1)  # [draft + 1, vocab]
        own = sampler.draw(sampler.probs(logits))  # [draft + 1]
        kept = count_kept(draft, own, logits, rollback)
        count, extra = torch.stack((kept, own[kept])).tolist()
        # Commit: the tokens before the first that is too unlikely, and the large model's token there.
        emitted = [*draft[:count], extra]
        tokens += emitted
        target_cache.crop(len(tokens) - 1)
        draft_cache.crop(len(tokens) - 1)
        go_on = result.add(Step(emitted, draft, kept=count, draft_passes=asked), limit, eos)
    return result


def count_kept(draft: Sequence[int], own: Tensor, logits: Tensor, rollback: float) -> Tensor:
    """How many drafted tokens stay, a number on the device: those before the first that is too unlikely.

    `own` [draft + 1] are the large model's own tokens; one of them is never too unlikely. With `rollback` 0 all others
    are, also where the law rounds to certainty and the distance to 0.
    """
    guess = torch.tensor(draft, device=logits.device, dtype=torch.long)
    distance = -logits[:-1].double().log_softmax(-1).gather(-1, guess[:, None]).squeeze(-1)  # [draft]
    stays = (guess == own[:-1]) | ((distance <= rollback) & (rollback > 0))
    return stays.cumprod(0).sum()


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    models = {"target": zoo.load("target"), "drafter": zoo.load("drafter")}
    return models | {"fallback": 0.3, "rollback": 1.0, "gamma": 8}


@checked
def loss(drafter: LanguageModel, tokens: Tensor, start: int) -> Tensor:
    """Prediction alignment: cross-entropy of the small model on what the large one wrote after each prompt.

    `tokens` [batch, n] hold prompts of `start` tokens and the large model's text after them. Raises ValueError
    for a `start` that leaves nothing before or behind it.
    """
    check_texts(drafter.shape.vocab, 2, tokens=tokens)
    if not 1 <= start < tokens.shape[1]:
        raise ValueError(f"start is {start}; of {tokens.shape[1]} tokens at least 1 is read and 1 is learnt")
    logits = drafter(tokens[:, :-1])[:, start - 1 :]
    return F.cross_entropy(logits.float().flatten(0, 1), tokens[:, start:].flatten())
