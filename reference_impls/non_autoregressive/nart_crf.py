r"""NART-DCRF: a parallel decoder scores all words at once, and a chain over neighbouring words picks those that agree.

Fast Structured Decoding for Sequence Models. Zhiqing Sun, Zhuohan Li, Haoqing Wang, Di He, Zi Lin, Zhi-Hong Deng.
NeurIPS 2019. https://arxiv.org/abs/1910.11555

Idea
----
Words that are predicted in parallel cannot agree on which of several right translations they belong to. So let the
decoder only *propose* words, and put a linear-chain conditional random field (CRF) on top that also scores every pair
of neighbours. The best sentence of the chain is found by dynamic programming, which costs little beside a pass of a
large decoder. The chain is a law of whole sentences, and is trained as one.

Algorithm
---------
1. *Length*: $N = T + C$ for a source of $T$ tokens and a constant $C$ (`bias`), and as many lengths around it as
   `candidates` allows, side by side in one batch.
2. *Predict*: one pass of the decoder over a canvas of fillers gives states $h_i$ and logits $s_i(y)$. Keep the `beam`
   $= k$ likeliest tokens of every place.
3. *Transitions*: with two narrow tables $E_1, E_2$ and a two-layer network $f$, the pair of tokens at the places
   $i - 1, i$ scores $t_i(y_{i-1}, y_i) = E_1[y_{i-1}]\, f([h_{i-1}; h_i])\, E_2[y_i]^\top$. Without `dynamic`
   transitions $f$ is the identity: $M = E_1 E_2^\top$ for all places.
4. *Search*: Viterbi finds the sentence with the highest
   $\mathrm{score}(y) = \sum_i s_i(y_i) + \sum_{i > 1} t_i(y_{i-1}, y_i)$ among the $k^N$ of the beam.
5. *Commit*: of several lengths take the sentence to which an autoregressive `teacher` gives the highest probability;
   it reads all of them in one causal pass.
6. *Training*: minimise $\log Z - \mathrm{score}(y) + \lambda L_{NAT}$, with $\log Z$ from the forward algorithm over
   a beam that always holds the reference, and $L_{NAT}$ the cross-entropy of $s_i$, on distilled data.

Guarantee
---------
None about the text: lossy, and from a model of its own, trained for this. One pass of the decoder, whatever the
length, and one of the teacher if there is one. Within the beam the search is exact, and a beam as large as the
vocabulary makes it exact altogether. A beam of one token leaves plain parallel decoding. A smaller beam makes
$\log Z$ smaller, never larger, so the likelihood that training sees is too good.

Differences from the paper
--------------------------
1. Filler and end can never be predicted (`beams`), and are left out of $\log Z$.
2. $f$ (`self.mix`) starts as the identity, so that the chain starts as the one without dynamic transitions.
3. Chain and decoder are trained together from the start, and the `loss` is the mean over tokens.
4. The feed-forward halves are gated and the norms come first, as everywhere in this project.
5. Published code (fairseq; the authors' repository holds none) has no dynamic transitions, though its layer is called
   `DynamicCRF`: where two neighbours must be equal and the next two different, its likeliest law gives the two right
   answers an eighth each, no more than words drawn apart. It also learns to classify the length instead of $T + C$,
   and divides every sentence's loss by its own length, so that a word of a short sentence counts more.
6. Only the beginning of the paper could be read. The form of $f$ follows an independent port; the canvas of fillers,
   the rule for the length and the teacher's choice are how this project understands it.

Example
-------
>>> from reference_impls.non_autoregressive.nart_crf import example, generate
>>> from reference_impls.zoo.tasks import task
>>> lite = task("lite")
>>> source = lite.encode("Anna sold Felix twenty chairs for eighty-six euros on the sixth of April.")
>>> result = generate(source=source, **example())
>>> lite.join(lite.decode(result.tokens)), result.passes
('am sechsten April verkaufte Anna Felix zwanzig Stühle für sechsundachtzig Euro.', 2)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_impls.core.arguments import check_pairs, check_range, checked
from reference_impls.core.generation import Generation, Step
from reference_impls.core.layers import Shape
from reference_impls.core.lengths import lengths_around, real_places
from reference_impls.core.rescoring import check_teacher, text_log_p
from reference_impls.core.seq2seq import EncoderDecoder, Memory


@torch.inference_mode()
@checked
def generate(
    model: StructuredModel,
    source: Sequence[int],
    *,
    beam: int = 64,
    bias: int = 0,
    candidates: int = 1,
    teacher: EncoderDecoder | None = None,
) -> Generation:
    """Translate `source` in one pass; with a `teacher`, into the best of `candidates` lengths around T + `bias`.

    Raises ValueError for options that cannot work, for an empty source and for unknown tokens.
    """
    check_options(model, beam, candidates, teacher)
    memory = model.encode(source)
    # Length: the usual difference to the source and its neighbours, as many canvases as candidates.
    room = model.longest - 1 if teacher else model.longest  # the teacher also reads the end
    real = real_places(lengths_around(len(source) + bias, candidates, room, model.device))  # [candidates, places]
    # Predict: one pass proposes k tokens for every place.
    states = model.fill(real, memory)
    scores, tokens = model.beams(states @ model.embedding.T, beam)  # [candidates, places, k]
    # Search: the best sentence of each chain.
    path, judged = viterbi(scores, model.transitions(tokens, states), real)
    texts = tokens.gather(-1, path[..., None])[..., 0]  # [candidates, places]
    if not judged.isfinite().all():
        raise ValueError("the model's logits are not finite (NaN or infinite): check its weights")
    # Commit: the sentence that the teacher finds likeliest.
    if teacher is not None:
        judged = text_log_p(teacher, teacher.encode(source), texts, real, end=model.end)
    chosen = int(judged.argmax())
    emitted = texts[chosen, real[chosen]].tolist()
    result = Generation()
    result.add(Step(emitted, canvas=emitted, passes=2 if teacher else 1), limit=len(emitted))
    return result


def viterbi(scores: Tensor, moves: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """The best path [..., places] through beams scores [..., places, k], as indices into them, and its score [...].

    `moves` [..., places - 1, k, k] is what a step adds; padding, where `real` is false, changes nothing.
    """
    total, stay, back = scores[..., 0, :], torch.arange(scores.shape[-1], device=scores.device), []
    # `total` holds the best score of every path to place i, by its last token.
    for i in range(1, scores.shape[-2]):
        step, here = (total[..., :, None] + moves[..., i - 1, :, :]).max(-2), real[..., i, None]
        back.append(torch.where(here, step.indices, stay))
        total = torch.where(here, step.values + scores[..., i, :], total)
    best = total.max(-1, keepdim=True)
    path = [best.indices]
    for came in reversed(back):
        path.append(came.gather(-1, path[-1]))
    return torch.cat(path[::-1], -1), best.values[..., 0]


def check_options(model: StructuredModel, beam: int, candidates: int, teacher: EncoderDecoder | None) -> None:
    """One clear sentence for options that cannot work."""
    if beam < 1:
        raise ValueError(f"beam is {beam}; at least 1 token must be kept for every place")
    if not 1 <= candidates <= model.longest:
        raise ValueError(f"candidates is {candidates}; the model knows the lengths 1 to {model.longest}")
    if candidates > 1 and teacher is None:
        raise ValueError(f"candidates is {candidates}, but there is no teacher to choose among the lengths: give one")
    if teacher is not None:
        check_teacher(teacher, model)


class StructuredModel(EncoderDecoder):
    """A translation model that decodes in parallel, with a chain of transitions on top."""

    @checked
    def __init__(self, shape: Shape, longest: int, *, pad: int, end: int, rank: int = 32, dynamic: bool = True) -> None:
        check_range(0, shape.vocab - 1, pad=pad, end=end)
        super().__init__(shape, longest)
        self.pad, self.end = pad, end
        self.transitions = Transitions(shape.vocab, shape.dim, rank, dynamic=dynamic)

    def fill(self, real: Tensor, memory: Memory) -> Tensor:
        """States [..., places, dim], normalised, of a canvas that has a place where `real` [..., places] is true.

        The canvas holds fillers and, in its last place, the end symbol; all its places see each other.
        """
        last = real & ~F.pad(real[..., 1:], (0, 1))
        canvas = torch.where(last, self.end, self.pad)
        return self.norm(self.decode(canvas, memory, visible=real[..., None, :]))

    def beams(self, logits: Tensor, k: int, gold: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scores and tokens, both [..., places, k], of the likeliest tokens of every place; `gold` stands first."""
        logits = logits.index_fill(-1, torch.tensor([self.pad, self.end], device=logits.device), float("-inf"))
        order = logits if gold is None else logits.scatter(-1, gold[..., None], float("inf"))
        tokens = order.topk(min(k, self.shape.vocab)).indices
        return logits.gather(-1, tokens), tokens


class Transitions(nn.Module):
    """Scores of neighbouring tokens: two tables [vocab, rank] and, if dynamic, a network between them."""

    @checked
    def __init__(self, vocab: int, dim: int, rank: int, *, dynamic: bool = True) -> None:
        super().__init__()
        check_range(1, vocab=vocab, dim=dim, rank=rank)
        self.rank, self.dynamic = rank, dynamic
        self.before = nn.Parameter(torch.randn(vocab, rank) * rank**-0.5)  # E_1
        self.after = nn.Parameter(torch.randn(vocab, rank) * rank**-0.5)  # E_2
        if dynamic:
            self.pair, self.mix = nn.Linear(2 * dim, dim), nn.Linear(dim, rank * rank)
            nn.init.zeros_(self.mix.weight)
            nn.init.eye_(self.mix.bias.data.view(rank, rank))

    def forward(self, tokens: Tensor, states: Tensor) -> Tensor:
        """Scores [..., places - 1, k, k] of every pair from the beams tokens [..., places, k] of neighbouring places.

        `states` [..., places, dim] is what the dynamic transitions depend on.
        """
        left, right = self.before[tokens[..., :-1, :]], self.after[tokens[..., 1:, :]]  # [..., places - 1, k, rank]
        if self.dynamic:
            both = torch.cat((states[..., :-1, :], states[..., 1:, :]), -1)
            left = left @ self.mix(self.pair(both).relu()).unflatten(-1, (self.rank, self.rank))
        return left @ right.mT


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    models = {"model": zoo.load("translation-crf"), "teacher": zoo.load("translation-ar")}
    return {**models, "beam": 16, "bias": -1, "candidates": 5}


@checked
def loss(
    model: StructuredModel,
    source: Tensor,
    target: Tensor,
    *,
    beam: int = 64,
    weight: float = 0.5,
    smoothing: float = 0.1,
) -> Tensor:
    """Training loss in nats a token, of padded sources [batch, source] and targets [batch, target].

    The chain's negative log-likelihood, and `weight` (lambda) times the smoothed cross-entropy of the logits alone.
    Raises ValueError for texts without a token, for what is no token, and for options out of range.
    """
    check_pairs(model, source, target, never=model.end)
    check_options(model, beam, candidates=1, teacher=None)
    check_range(0, weight=weight)
    check_range(0, 1, smoothing=smoothing)
    real = target != model.pad
    states = model.fill(real, model.encode(source, source != model.pad))
    logits = states @ model.embedding.T  # [batch, target, vocab]
    scores, tokens = model.beams(logits, beam, gold=target)
    scores = scores.masked_fill(~real[..., None], 0.0)
    moves = model.transitions(tokens, states)
    chain = log_partition(scores, moves, real) - first_path(scores, moves, real)
    words = F.cross_entropy(logits[real], target[real], label_smoothing=smoothing, reduction="sum")
    return (chain.sum() + weight * words) / real.sum()


def log_partition(scores: Tensor, moves: Tensor, real: Tensor) -> Tensor:
    """The log of Z [...], the sum of exp(score) over all paths through the beams (forward algorithm)."""
    total = scores[..., 0, :]
    # `total` holds the log of the sum over all paths to place i, by its last token.
    for i in range(1, scores.shape[-2]):
        step = (total[..., :, None] + moves[..., i - 1, :, :]).logsumexp(-2) + scores[..., i, :]
        total = torch.where(real[..., i, None], step, total)
    return total.logsumexp(-1)


def first_path(scores: Tensor, moves: Tensor, real: Tensor) -> Tensor:
    """The score [...] of the path through the first token of every beam."""
    return (scores[..., 0] * real).sum(-1) + (moves[..., 0, 0] * real[..., 1:]).sum(-1)
