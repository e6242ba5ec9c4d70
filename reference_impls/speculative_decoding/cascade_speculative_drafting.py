r"""Cascade Speculative Drafting: drafters that draft for each other, and the better ones where it matters most.

Cascade Speculative Drafting for Even Faster LLM Inference. Ziyi Chen, Xiaocong Yang, Jiacheng Lin, Chenkai Sun,
Kevin Chen-Chuan Chang, Jie Huang. NeurIPS 2024. https://arxiv.org/abs/2312.11462

Idea
----
In speculative decoding the drafter still writes token by token, and spends as much on the last guess of a draft as on
the first, although the last is seldom reached. The *vertical cascade* lets every drafter review what a smaller one
wrote, down to one that is no neural network: no model is left that decodes by itself. The *horizontal cascade* takes
the first guesses of a draft from the largest drafter and the later ones from ever smaller ones.

Algorithm
---------
With drafters $0, 1, \dots$, largest first, Max-Gram as the last one, and the matrix $K$, whose row 0 belongs to the
target, row $j + 1$ to drafter $j$, and whose column $j$ says how many tokens drafter $j$ adds on behalf of that row.
Left of the diagonal it is 0, for only smaller drafters draft for a drafter.

1. *Draft* for a model: let drafter after drafter extend the text, each by at least its entry of the model's row; what
   is too much counts for the next.
2. A neural drafter extends the text by having smaller ones draft (step 1 with its own row of $K$) and by reviewing all
   guesses in one pass. With its law $q$ and the law $r$ that guess $x$ was drawn from, $x$ is kept with probability
   $a(x) = \min(1, q(x) / r(x))$, or surely if $\tilde q(x) > l\, r(x)$, where $l$ is the `lenience` and $\tilde q$
   the softmax of its logits. After the first rejection one token comes from
   $\mathrm{norm}(\max(0, q - r))$, after none from $q$.
3. It hands its tokens up with the law that they really have,
   $t(x) = r(x)\, a(x) + (1 - \sum_y r(y)\, a(y)) \, \mathrm{norm}(\max(0, q - r))(x)$.
   Without lenience this is $q$.
4. Max-Gram extends the text by what followed the longest earlier occurrence of its end, and then by the likeliest
   successors of single tokens, from a table. Its law is one-hot.
5. *Verify*: the target reviews its draft in one pass, strictly and against the laws handed up.
6. *Commit*: the kept guesses and the extra token. Each review rolls back all caches below it.

A row of zeros lets that drafter decode by itself: `k_matrix` ((5, 0), (0, 0)) is plain speculative decoding. A zero in
row 0 leaves that drafter out of the target's own draft: with ((0, 5), (0, 0)) Max-Gram alone drafts.

Guarantee
---------
Exact distribution, at any lenience and temperature. Given all that was decided before, a guess has the law that is
handed up with it: whether a review gets as far as this place, and which drafter fills it, is settled before the token
is. So the target's test of $p$ against that law is the one of speculative decoding. Lenience changes what is proposed,
never what is returned.

Differences from the paper
--------------------------
1. The paper's lenience is the reciprocal: its 2 is `lenience` 0.5 here, as in Leviathan et al.
2. Published code decodes greedily only. The lenient rule is the one of that code; the law $t$ is what makes it exact
   for sampling too. To hand up $q$ instead of $t$ biases the text: by a total variation of 0.06 in the tests, for two
   tokens of a small random model at lenience 0.4.
3. Max-Gram (`longest_match`) looks for the last of the longest earlier occurrences, in prompt and output alike;
   published code takes the first. It adds as many tokens at once as $K$ says; published code adds 10, whatever it says.

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.core.sampling import Sampler
>>> from reference_impls.speculative_decoding.cascade_speculative_drafting import example, generate
>>> prompt = zoo.encode("def read_lines(path):")
>>> result = generate(prompt=prompt, limit=24, sampler=Sampler(temperature=0), **example())
>>> len(result.tokens), result.passes < 24
(24, True)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reference_impls.core.arguments import checked
from reference_impls.core.drafting import check_guesses, check_vocabulary, one_hot, room
from reference_impls.core.generation import Ends, Generation, Step, check_length
from reference_impls.core.layers import Shape, as_tensor
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler, wide
from reference_impls.core.verify import drafted_laws, residual, verify_chain

Matrix = Sequence[Sequence[int]]


@torch.inference_mode()
@checked
def generate(
    target: LanguageModel,
    prompt: Sequence[int],
    limit: int,
    *,
    drafters: Sequence[LanguageModel],
    max_gram: MaxGram,
    sampler: Sampler,
    k_matrix: Matrix,
    lenience: float = 1.0,
    eos: Ends | None = None,
) -> Generation:
    """Generate up to `limit` tokens after `prompt`, drafted by a cascade of `drafters`, largest first, and `max_gram`.

    Raises ValueError for other vocabularies, a `k_matrix` that does not fit, or a lenience outside (0, 1].
    """
    check_vocabulary(target, *drafters, max_gram)
    check_cascade(k_matrix, len(drafters) + 1, lenience)
    check_length(target, prompt, limit)
    result, tokens, cache = Generation(), list(prompt), target.new_cache()
    cascade = Cascade(drafters, max_gram, k_matrix, lenience, sampler)
    # A drafter adds one token to a draft made for it, so a draft is at most the sum of its row and of those below.
    longest = sum(map(sum, k_matrix))
    go_on = limit > 0
    # Between turns the target's cache holds all tokens but the last; those of the drafters hold no more than that.
    while go_on:
        # Draft: what the whole cascade writes for the target, if its longest draft ends before any model's positions.
        cascade.passes = 0
        fits = room(len(tokens), longest, target, *drafters) == longest
        draft, laws = cascade.draft(0, tokens) if fits else ([], [])
        # Verify: strictly, for only the target's own test makes the text.
        unseen = [*tokens[len(cache) :], *draft]
        p = sampler.probs(target(unseen, cache, last=len(draft) + 1))  # [draft + 1, vocab]
        kept, extra = verify_chain(sampler, draft, laws, p)
        # Commit: the kept guesses and the extra token; all caches forget the rest.
        emitted = [*draft[:kept], extra]
        tokens += emitted
        cache.crop(len(tokens) - 1)
        cascade.crop(len(tokens) - 1)
        go_on = result.add(Step(emitted, draft, kept=kept, draft_passes=cascade.passes), limit, eos)
    return result


@dataclass
class Cascade:
    """The drafters with their caches, and the recursion: `draft` asks drafters to `extend`, which ask for drafts.

    Row 0 of the matrix is the target's, row j + 1 drafter j's. After a drafter has extended a text, its cache and those
    below hold no more than all of the extended text but its last token. `passes` counts those of all drafters.
    """

    drafters: Sequence[LanguageModel]
    max_gram: MaxGram
    k_matrix: Matrix
    lenience: float
    sampler: Sampler
    passes: int = 0

    def __post_init__(self) -> None:
        self.caches = [drafter.new_cache() for drafter in self.drafters]

    def crop(self, length: int, first: int = 0) -> None:
        """Let the drafters from the `first` on forget every token from `length` on."""
        for cache in self.caches[first:]:
            cache.crop(length)

    def draft(self, row: int, text: Sequence[int]) -> tuple[list[int], list[Tensor]]:
        """The horizontal cascade: guesses after `text` on behalf of a row of the matrix, and their laws [vocab]."""
        tokens, laws, wanted = list[int](), list[Tensor](), 0
        for j, count in enumerate(self.k_matrix[row][row:], start=row):
            wanted += count
            while len(tokens) < wanted:
                more, more_laws = self.extend(j, [*text, *tokens], wanted - len(tokens))
                tokens, laws = tokens + more, laws + more_laws
        return tokens, laws

    def extend(self, j: int, text: Sequence[int], count: int) -> tuple[list[int], list[Tensor]]:
        """The vertical cascade: tokens of drafter j after `text`, from one pass over what smaller ones drafted.

        `count` binds Max-Gram alone.
        """
        if j == len(self.drafters):  # Max-Gram, the last
            guesses = self.max_gram(text, count)
            drawn = self.max_gram.successor.new_tensor(guesses)  # on the table's device
            return guesses, list(one_hot(drawn, self.max_gram.shape.vocab))
        draft, laws = self.draft(j + 1, text)
        logits = self.drafters[j]([*text, *draft][len(self.caches[j]) :], self.caches[j], last=len(draft) + 1)
        self.passes += 1
        tokens, t = self.review(draft, laws, logits)
        self.crop(len(text) + len(tokens) - 1, first=j)
        return tokens, list(t)

    def review(self, draft: Sequence[int], laws: Sequence[Tensor], logits: Tensor) -> tuple[list[int], Tensor]:
        """The tokens that replace a draft, and their true laws [tokens, vocab]; logits [draft + 1, vocab] judge it."""
        q = self.sampler.probs(logits)
        r = drafted_laws(laws, q)
        shared = torch.minimum(r, q)  # r(x) a(x): the mass with which a guess x is made and kept
        if self.lenience < 1:  # behind the draft r is 0, and so this stays 0
            q_tilde = logits.softmax(-1, wide(logits))
            shared = torch.where(q_tilde > self.lenience * r, r, shared)
        rest = residual(q, r)
        t = shared + (1 - shared.sum(-1, keepdim=True)) * rest
        drawn = torch.tensor(draft, device=q.device, dtype=torch.long)[:, None]
        a = shared[:-1].gather(-1, drawn) / r[:-1].gather(-1, drawn)
        kept = self.sampler.accept(a.squeeze(-1)).cumprod(0).sum()
        count, extra = torch.stack((kept, self.sampler.draw(rest[kept]))).tolist()
        check_guesses([extra])
        return [*draft[:count], extra], t[: count + 1]


def longest_match(text: Sequence[int]) -> int:
    """The place right behind the last of the longest earlier occurrences of the text's end; `len(text)` without any.

    Read backwards, the text begins with its end, and the prefix function finds all that repeats it in linear time:
    `size[i]` is the most tokens, ending at place i of the text read backwards, that it begins with as well.
    """
    back, size, longest, place = text[::-1], [0], 0, len(text)
    for i in range(1, len(text)):
        n = size[-1]
        while n and back[i] != back[n]:
            n = size[n - 1]
        size.append(n + (back[i] == back[n]))
        if size[i] > longest:
            longest, place = size[i], len(text) - 1 - i + size[i]  # text[place - longest : place] repeats the end
    return place


def check_cascade(k_matrix: Matrix, size: int, lenience: float) -> None:
    """Raise ValueError for a matrix of another size, useless entries or an empty first row; for the lenience."""
    if [len(row) for row in k_matrix] != [size] * size or any(k < 0 for row in k_matrix for k in row):
        raise ValueError(f"k_matrix needs {size} rows of {size} numbers from 0 on, one for each drafter and Max-Gram")
    if any(k for i, row in enumerate(k_matrix) for k in row[:i]):
        raise ValueError(
            "k_matrix has numbers left of its diagonal; set them to 0: only smaller drafters draft for a drafter"
        )
    if sum(k_matrix[0]) < 1:
        raise ValueError("the first row of k_matrix drafts nothing; give it a number above 0, or decode without drafts")
    if not 0 < lenience <= 1:
        raise ValueError(f"lenience is {lenience}; it must lie in (0, 1], where 1 is strict")


class MaxGram(nn.Module):
    """The drafter at the bottom: copies from the text itself; where nothing matches, a table of successors [vocab]."""

    @checked
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("successor", torch.randint(shape.vocab, (shape.vocab,)))
        self.successor: Tensor

    def forward(self, text: Sequence[int], count: int) -> list[int]:
        """`count` guesses after `text`. Raises ValueError for no text or a last id outside the vocabulary."""
        if not isinstance(count, int) or count < 0:
            raise ValueError(f"count is {count!r}; it is how many guesses to make, a whole number from 0 on")
        as_tensor(text[-1:], self.shape.vocab, self.successor.device)  # what is no text has no end to look for
        guesses = list(text[longest_match(text) :][:count])
        successor = self.successor.tolist() if len(guesses) < count else []
        while len(guesses) < count:
            guesses.append(successor[guesses[-1] if guesses else text[-1]])
        return guesses


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    return {
        "target": zoo.load("target"),
        "drafters": [zoo.load("drafter")],
        "max_gram": zoo.load("max-gram"),
        "k_matrix": ((3, 2), (0, 2)),
        "lenience": 0.5,
    }
