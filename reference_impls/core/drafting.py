"""Guesses and the laws that they were drawn from: a chain of them, or several for one place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Sized
from typing import Any

import torch
from torch import Tensor, nn

from reference_impls.core.generation import positions_of
from reference_impls.core.sampling import Sampler


def draft_chain(
    sampler: Sampler, drafter: Callable[..., Tensor], tokens: Sequence[int], cache: Sized, gamma: int
) -> tuple[list[int], list[Tensor]]:
    """`gamma` guesses after `tokens`, one pass of the drafter for each, and the laws q of them, each [vocab].

    The drafter is called as `drafter(unseen, cache, last=1)`; afterwards its cache holds all but the last guess.
    """
    text, q = list(tokens), list[Tensor]()
    for _ in range(gamma):
        q.append(sampler.probs(drafter(text[len(cache) :], cache, last=1)[0]))  # [vocab]
        text.append(int(sampler.draw(q[-1])))
        check_guesses(text[-1:])
    return text[len(tokens) :], q


def siblings(sampler: Sampler, logits: Tensor, width: int, *, replacement: bool = False) -> tuple[Tensor, Tensor]:
    """`width` guesses [rows, width] for the place of each row of logits [rows, vocab], and their laws, q.

    Row i of q [rows, width, vocab] is the law that a guess was drawn from, given its elders. Without replacement that
    is the sampler's law of the place without the tokens that they took, normalised anew; at temperature 0 the guesses
    are the likeliest tokens. Where a law has fewer tokens than wanted, the last one comes again and again:
    `verify_tree` never keeps it twice.
    """
    guesses, q, greedy = list[Tensor](), list[Tensor](), sampler.temperature == 0
    scores = logits if greedy else sampler.probs(logits).log()  # filters look once, at all tokens of the place
    for _ in range(width):
        q.append(sampler.probs(scores) if greedy else scores.softmax(-1))
        guesses.append(sampler.draw(q[-1]))  # [rows]
        if not replacement:
            rest = scores.scatter(-1, guesses[-1].clamp(min=0)[:, None], -torch.inf)
            scores = rest.where(rest.amax(-1, keepdim=True) > -torch.inf, scores)
    return torch.stack(guesses, 1), torch.stack(q, 1)


def one_hot(tokens: Tensor, vocab: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The laws [..., vocab] of guesses `tokens` [...] that were made without chance."""
    law = torch.zeros(*tokens.shape, vocab, dtype=dtype, device=tokens.device)
    return law.scatter_(-1, tokens[..., None], 1.0)


def room(length: int, gamma: int, target: Any, *drafters: Any) -> int:
    """How many of `gamma` guesses fit behind a text of `length` tokens, where the models' positions come to an end.

    The target reads every guess; a drafter reads all but the last.
    """
    for unread, model in [(0, target), *((1, drafter) for drafter in drafters)]:
        positions = positions_of(model)
        gamma = gamma if positions is None else min(gamma, positions + unread - length)
    return max(0, gamma)


def best_guesses(logits: Tensor, count: int) -> Tensor:
    """The `count` likeliest tokens [..., count] of logits [..., vocab], best first; where one is not finite, -1."""
    best = logits.topk(count)
    return best.indices.where(best.values < torch.inf, -1)


def check_guesses(tokens: Iterable[int], whose: str = "the drafter's") -> None:
    """Raise ValueError for the impossible token that logits make which are not finite."""
    if any(token < 0 for token in tokens):
        raise ValueError(f"{whose} logits are not finite (NaN or infinite): check the weights")


def check_draft(gamma: int, *models: Any) -> None:
    """Raise ValueError for a draft length below 1 or for models that do not share one vocabulary."""
    if gamma < 1:
        raise ValueError(f"gamma is {gamma}; draft at least 1 token a step, or use autoregressive decoding")
    check_vocabulary(*models)


def check_part(target: Any, part: nn.Module, name: str) -> None:
    """Raise ValueError for a part of the target, `name`, that computes in another type or on another device than it."""
    weight, own = next(part.parameters(), target.embedding), target.embedding
    if (weight.dtype, weight.device) != (own.dtype, own.device):
        raise ValueError(
            f"the {name} are {weight.dtype} on {weight.device}, and the target is {own.dtype} on {own.device}: "
            "make them alike with .to(target.embedding)"
        )


def check_vocabulary(*models: Any) -> None:
    """Raise ValueError for models that do not share one vocabulary."""
    sizes = [model.shape.vocab for model in models]
    if len(set(sizes)) > 1:
        found = " and ".join(map(str, sizes))
        raise ValueError(f"target and drafter have vocabularies of {found} tokens; they must share one tokenizer")
