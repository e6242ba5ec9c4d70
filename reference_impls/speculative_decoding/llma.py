r"""LLMA: what follows the newest tokens in a reference is copied, and the target checks the copy.

Inference with Reference: Lossless Acceleration of Large Language Models. Nan Yang, Tao Ge, Liang Wang, Binxing Jiao,
Daxin Jiang, Linjun Yang, Rangan Majumder, Furu Wei. 2023. https://arxiv.org/abs/2304.04487

Idea
----
Much of what a model writes stands already in a text at hand: in the documents that were retrieved for a question, in a
stored answer that is to be changed a little, in what was said before in a conversation. So when the newest tokens occur
in such a *reference*, copy what follows them there, and let the target check the copy in one pass. There is no drafter,
nothing is trained, and all that is kept is a table of n-grams.

Algorithm
---------
1. *Index*: a table from every $n$-gram of the references, for $n$ from `shortest` to `longest`, to the place behind its
   first occurrence.
2. *Draft*: look up the last $n$ tokens *that were generated*, the longest $n$ first. On a hit copy the $\gamma$ tokens
   that follow in the reference, or as many as there are; on a miss the draft is empty. The prompt is no key: so the
   first pass copies nothing.
3. *Verify*: one pass over the last token and the copy gives the target's laws $p_1, \dots, p_{\gamma+1}$. Keep copied
   token $x_i$ with probability $p_i(x_i)$, until one is rejected. At temperature 0 this keeps the longest run with
   $x_i = \arg\max_y p_i(y)$.
4. *Commit*: the kept tokens and one more: after a rejection from $p_i$ without $x_i$, else from $p_{\gamma+1}$. The
   cache forgets the rest of the copy.

Guarantee
---------
Exact distribution, for any references. A copied token was chosen without chance, which is a draw from a one-hot law
$q_i$; `verify_chain` keeps it with probability $\min(1, p_i(x_i) / 1)$ and replaces it from $\mathrm{norm}(\max(0, p_i
- q_i))$. At temperature 0 the text is the target's greedy text. A match decides only how much is saved.

Differences from the paper
--------------------------
1. The paper decodes greedily. Here copies are verified by their laws, so that sampling is exact too; at temperature 0
   that is the paper's rule.
2. The paper's $k$ is $\gamma + 1$ here, the width of a pass in published code, and its match length $n$ is `shortest`.
   Published code looks up at most 5 tokens, and so does the default of `longest`.
3. An $n$-gram is indexed only where a token follows it. In published code the first occurrence can be the end of a
   reference: then it copies nothing, although a later occurrence, or a shorter $n$-gram, had something to offer.
4. Where no references are given, the prompt is the reference: there stand the documents of a question and the earlier
   turns of a conversation.

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.core.sampling import Sampler
>>> from reference_impls.speculative_decoding.llma import Index, example, generate
>>> index = Index([[3, 1, 4, 1, 5], [2, 1, 4, 8, 6]], shortest=1, longest=2)
>>> index.copy([9, 1, 4], gamma=2), index.copy([2, 1], gamma=2), index.copy([7, 1], gamma=4), index.copy([5], gamma=4)
([1, 5], [4, 8], [4, 1, 5], [])
>>> prompt = zoo.encode("def read_lines(path):")
>>> plain = generate(prompt=prompt, limit=24, sampler=Sampler(temperature=0), **example())
>>> again = generate(prompt=prompt, limit=24, sampler=Sampler(temperature=0), **example(), references=[plain.tokens])
>>> again.tokens == plain.tokens, plain.passes, again.passes
(True, 24, 4)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from reference_impls.core.arguments import checked
from reference_impls.core.drafting import check_draft, one_hot, room
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
    sampler: Sampler,
    references: Sequence[Sequence[int]] | None = None,
    shortest: int = 1,
    longest: int = 5,
    gamma: int = 19,
    eos: Ends | None = None,
) -> Generation:
    """Generate up to `limit` tokens after `prompt`, with up to `gamma` tokens copied from `references` in each pass.

    The references are token lists; without any, the prompt is the one reference. A copy follows a match of the last
    `longest` to `shortest` generated tokens; the defaults are those of the published code. Raises ValueError for
    numbers below 1, a `longest` below `shortest`, and references with tokens that the target does not have.
    """
    texts = [prompt] if references is None else references
    whose = "prompt holds" if references is None else "references hold"
    check_options(target, texts, gamma, whose)
    check_length(target, prompt, limit)
    result, tokens, cache = Generation(), list(prompt), target.new_cache()
    index = Index(texts, shortest, longest)
    go_on = limit > 0
    # Between turns the cache holds all tokens but the last.
    while go_on:
        # Draft: what follows the newest generated tokens in a reference; before the first of them, nothing.
        draft = index.copy(result.tokens, room(len(tokens), gamma, target))
        # Verify: one pass over what is new; a copied token was chosen without chance, so its law is one-hot.
        p = sampler.probs(target([*tokens[len(cache) :], *draft], cache, last=len(draft) + 1))
        copied = torch.tensor(draft, dtype=torch.long, device=p.device)
        kept, extra = verify_chain(sampler, draft, one_hot(copied, target.shape.vocab, p.dtype), p)
        # Commit: the kept copy and one token more; the cache forgets the others.
        emitted = [*draft[:kept], extra]
        tokens += emitted
        cache.crop(len(tokens) - 1)
        go_on = result.add(Step(emitted, draft, kept=kept), limit, eos)
    return result


class Index:
    """Where the n-grams of references first stand, for each n from `shortest` to `longest`."""

    @checked
    def __init__(self, references: Sequence[Sequence[int]], shortest: int, longest: int) -> None:
        if not 1 <= shortest <= longest:
            raise ValueError(f"shortest is {shortest} and longest is {longest}; needed are 1 <= shortest <= longest")
        self.references = references
        self.sizes = range(longest, shortest - 1, -1)  # the longest first
        self.behind: dict[tuple[int, ...], tuple[int, int]] = {}  # n-gram -> its reference and the place after it
        for number, text in enumerate(references):
            for n in self.sizes:
                for place in range(n, len(text)):  # a token follows, or there would be nothing to copy
                    self.behind.setdefault(tuple(text[place - n : place]), (number, place))

    def copy(self, written: Sequence[int], gamma: int) -> list[int]:
        """The `gamma` tokens, or fewer, behind the longest suffix of `written` that is known; none if none is."""
        for suffix in (tuple(written[-n:]) for n in self.sizes):
            if suffix in self.behind:
                number, place = self.behind[suffix]
                return list(self.references[number][place : place + gamma])
        return []


def check_options(target: LanguageModel, texts: Sequence[Sequence[int]], gamma: int, whose: str) -> None:
    """One clear sentence for options that cannot work, and for texts with strange tokens, that `whose` names."""
    check_draft(gamma, target)
    vocab = target.shape.vocab
    if any(not 0 <= token < vocab for text in texts for token in text):
        raise ValueError(f"the {whose} tokens that a vocabulary of {vocab} lacks: use the target's tokenizer")


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    return {"target": zoo.load("target")}
