r"""Mask-Predict: write the whole translation at once, then mask the doubtful words and write them again.

Mask-Predict: Parallel Decoding of Conditional Masked Language Models. Marjan Ghazvininejad, Omer Levy, Yinhan Liu, Luke
Zettlemoyer. EMNLP-IJCNLP 2019. https://arxiv.org/abs/1904.09324

Idea
----
Words that are predicted in parallel cannot agree on which of several right translations they belong to. So train a
decoder that sees both ways to fill in *any* masked part of a translation. Start from masks alone, and with every
further pass give the words it is least sure of another chance, now that they see the surer ones. The number of passes
is a constant that you choose, whatever the length.

Algorithm
---------
1. *Length*: a LENGTH token in front of the source predicts $p(N \mid X)$. Decode the `candidates` likeliest lengths
   in parallel, as one batch.
2. *Mask*: in pass $t = 0, \dots, T - 1$ mask the $n_t = \max(1, \lfloor N (T - t) / T \rfloor)$ tokens with the
   lowest $\log p_i$; in the first pass that is all of them.
3. *Predict*: one pass of the decoder. A masked place $i$ takes
   $y_i = \arg\max_w p(w \mid X, Y_{obs})$ and $p_i = p(y_i \mid X, Y_{obs})$.
   An observed place keeps its token and its $p_i$, though that number is from an earlier pass.
4. *Commit*: after $T$ passes, keep the candidate with the highest $\frac{1}{N} \sum_i \log p_i$.
5. *Training*: draw $n$ uniformly from $1, \dots, N$, mask $n$ random tokens of the target, and sum the cross-entropy
   of these tokens (label smoothing 0.1) and that of the length.

Guarantee
---------
None about the text: lossy, and from a model of its own, trained for this. It takes exactly `iterations` passes of the
decoder and leaves no mask; one iteration is plain parallel decoding.

Differences from the paper
--------------------------
1. The fully masked case, where decoding starts, occurs in training (`random_mask`); the published code draws $n < N$
   for $N > 1$.
2. $n_t$ (`mask_counts`) is computed in integers, because $N (1 - t / T)$ can fall just short of a whole number.
3. Padding and mask can never be predicted (`predict`). Lengths start at 1, not 2, for the canvas holds no begin or end.
4. `length_weight` times $\log p(N \mid X)$ may be added to a candidate's score. The paper's rule, the default 0, can
   prefer a fluent sentence of a wrong length although the length is certain.
5. The feed-forward halves are gated and the norms come first, as everywhere in this project.

Example
-------
>>> from reference_impls.non_autoregressive.mask_predict import example, generate
>>> from reference_impls.zoo.tasks import task
>>> lite = task("lite")
>>> source = lite.encode("Anna sold Felix twenty chairs for eighty-six euros on the sixth of April.")
>>> result = generate(source=source, **example())
>>> lite.join(lite.decode(result.steps[0].canvas))
'am sechsten verkaufte Anna Anna am zwanzig Stühle für sechsundachtzig Euro.'
>>> lite.join(lite.decode(result.tokens)), result.passes
('am sechsten April verkaufte Anna Felix zwanzig Stühle für sechsundachtzig Euro.', 10)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from reference_impls.core.arguments import check_pairs, check_range, checked
from reference_impls.core.generation import Generation, Step
from reference_impls.core.layers import Shape
from reference_impls.core.lengths import LengthPredictor, likeliest_lengths, real_places
from reference_impls.core.sampling import wide
from reference_impls.core.seq2seq import EncoderDecoder, Memory


@torch.inference_mode()
@checked
def generate(
    model: ConditionalMaskedModel,
    source: Sequence[int],
    *,
    iterations: int = 10,
    candidates: int = 3,
    length_weight: float = 0.0,
) -> Generation:
    """Translate `source` in `iterations` passes of the decoder, for the `candidates` likeliest lengths side by side.

    Raises ValueError for options that cannot work, for an empty source and for unknown tokens.
    """
    check_options(model, iterations, candidates, length_weight)
    # Length: as many canvases as candidates, padded to the longest; padding has probability 1, so it is never masked.
    memory, length_log_p = model.encode_with_length(source)
    lengths, length_scores = likeliest_lengths(length_log_p, candidates)
    real = real_places(lengths)  # [candidates, longest of them]
    canvas = torch.full_like(real, model.pad, dtype=torch.long)
    log_p = torch.zeros_like(canvas, dtype=length_log_p.dtype).masked_fill(real, float("-inf"))
    canvases, holes = [], []
    # The canvas holds what was written last in every place, and log_p how sure the model was of it then.
    for t in range(iterations):
        # Mask: the least certain tokens of every candidate.
        masked = least_certain(log_p, mask_counts(lengths, t, iterations))
        canvas = canvas.masked_fill(masked, model.mask_id)
        # Predict: only the masked places get new tokens and new probabilities.
        tokens, certainty = predict(model, canvas, memory)
        canvas, log_p = torch.where(masked, tokens, canvas), torch.where(masked, certainty, log_p)
        canvases.append(canvas)
        holes.append(masked)
    if not log_p.isfinite().all():
        raise ValueError("the model's logits are not finite (NaN or infinite): check its weights")
    # Commit: the candidate that is surest of its tokens on average.
    best = int((log_p.sum(-1) / lengths + length_weight * length_scores).argmax())
    return traced(torch.stack(canvases)[:, best, real[best]], torch.stack(holes)[:, best, real[best]])


def mask_counts(lengths: Tensor, t: int, iterations: int) -> Tensor:
    """How many tokens [candidates] of canvases of these lengths pass t masks: N (T - t) / T, rounded down, at least 1.

    Section 3.1. All in integers: N = 20, T = 10 gives 20, 18, 16, …, 2.
    """
    return (lengths * (iterations - t) // iterations).clamp(min=1)


def least_certain(log_p: Tensor, count: Tensor) -> Tensor:
    """True [candidates, tokens] at the `count` [candidates] lowest log-probabilities; the leftmost win a tie.

    So a certain token, with log-probability 0, is masked before the padding to its right.
    """
    rank = log_p.argsort(stable=True, dim=-1).argsort(dim=-1)
    return rank < count[:, None]


def predict(model: ConditionalMaskedModel, canvas: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
    """The likeliest token of every place of the canvas, and its log-probability, both [candidates, tokens]."""
    logits = model.logits(model.fill(canvas, memory))  # [candidates, tokens, vocab]
    logits[..., [model.pad, model.mask_id]] = float("-inf")
    best = logits.log_softmax(-1, wide(logits)).max(-1)
    return best.indices, best.values


def traced(canvases: Tensor, holes: Tensor) -> Generation:
    """The result and its trace from one candidate's canvases [iterations, N] and what was masked before each pass."""
    result, passes = Generation(), len(canvases)
    for t, (canvas, masked) in enumerate(zip(canvases.tolist(), holes.tolist(), strict=True), 1):
        places = [place for place, hole in enumerate(masked) if hole]
        result.add(Step(canvas if t == passes else [], canvas=canvas, masked=places), limit=len(canvas))
    return result


def check_options(model: ConditionalMaskedModel, iterations: int, candidates: int, length_weight: float) -> None:
    """One clear sentence for options that cannot work."""
    if iterations < 1:
        raise ValueError(f"iterations is {iterations}; at least 1 pass must fill the canvas")
    if not 1 <= candidates <= model.longest:
        raise ValueError(f"candidates is {candidates}; the model tells the lengths 1 to {model.longest} apart")
    if math.isinf(length_weight):
        raise ValueError(f"length_weight is {length_weight}; give a number, or 0 to leave the lengths' chances aside")


class ConditionalMaskedModel(EncoderDecoder):
    """A translation model whose decoder fills in masked places, and which predicts the length of its translation."""

    @checked
    def __init__(self, shape: Shape, longest: int, *, pad: int, mask_id: int) -> None:
        check_range(0, shape.vocab - 1, pad=pad, mask_id=mask_id)
        super().__init__(shape, longest)
        self.pad, self.mask_id = pad, mask_id
        self.lengths = LengthPredictor(shape.dim, longest)

    def encode_with_length(self, source: Sequence[int] | Tensor, real: Tensor | None = None) -> tuple[Memory, Tensor]:
        """The memory of `source` without the LENGTH token, and the log-probabilities [..., longest + 1] of lengths."""
        with_token = None if real is None else F.pad(real, (1, 0), value=True)
        states = self.read(self.lengths.prepend(self.embed(source)), with_token)
        return self.remember(states[..., 1:, :], real), self.lengths(states[..., 0, :])

    def fill(self, canvas: Tensor, memory: Memory) -> Tensor:
        """Hidden states [..., tokens, dim] of a canvas [..., tokens] whose real tokens all see each other."""
        return self.decode(canvas, memory, visible=(canvas != self.pad)[..., None, :])


def example() -> dict[str, Any]:
    """Model and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    return {"model": zoo.load("translation-masked"), "iterations": 10, "candidates": 1}


@checked
def loss(
    model: ConditionalMaskedModel,
    source: Tensor,
    target: Tensor,
    *,
    generator: torch.Generator | None = None,
    smoothing: float = 0.1,
) -> Tensor:
    """Training loss in nats a masked token, of padded sources [batch, source] and targets [batch, target].

    Masked tokens only, smoothed, plus the length with weight 1 (sections 2.2 and 2.3). Raises ValueError for
    texts without a token, for what is no token, and for a smoothing outside of [0, 1].
    """
    check_pairs(model, source, target, never=model.mask_id)
    check_range(0, 1, smoothing=smoothing)
    real = target != model.pad
    masked = random_mask(real, generator)
    memory, length_log_p = model.encode_with_length(source, source != model.pad)
    hidden = model.fill(target.masked_fill(masked, model.mask_id), memory)
    logits = model.logits(hidden[masked])  # [masked tokens, vocab]
    words = F.cross_entropy(logits, target[masked], label_smoothing=smoothing, reduction="sum")
    length = F.nll_loss(length_log_p, real.sum(-1), reduction="sum")
    return (words + length) / masked.sum()


def random_mask(real: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """True [batch, tokens] at n random places of each row's real tokens, n uniform in 1, …, N."""
    chance = torch.rand(real.shape, generator=generator, device=real.device)
    share = torch.rand(len(real), generator=generator, device=real.device, dtype=torch.float64)
    count = (share * real.sum(-1)).long() + 1
    return least_certain(chance.masked_fill(~real, 2.0), count)
