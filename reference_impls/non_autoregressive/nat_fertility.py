r"""NAT with fertilities: decide first how many words each source word brings forth, then write all of them at once.

Non-Autoregressive Neural Machine Translation. Jiatao Gu, James Bradbury, Caiming Xiong, Victor O.K. Li, Richard Socher.
ICLR 2018. https://arxiv.org/abs/1711.02281

Idea
----
A decoder that writes every word at the same time cannot see which of several right translations its other words have
begun; it mixes them. Two things make the right translation nearly unique. The *fertility* of each source word, the
number of words it brings forth, is fixed before the first word is written: a plan that all places share, and whose sum
is the length. And the model learns from the outputs of an autoregressive *teacher*, which answers the same kind of
sentence in the same way, instead of from a corpus, where each way has its share. At the end the teacher may choose
among translations of several plans.

Algorithm
---------
1. *Plan*: $p_F(f_i \mid x)$ is a softmax over $0, 1, \dots$ at the encoder's last state of source word $i$. By
   `decoding`, the plan is $f_i = \arg\max_f p_F(f \mid x)$ (`argmax`), or $f_i = \sum_f p_F(f \mid x) f$, rounded
   (`average`), or `samples` plans are drawn from $p_F$ (`noisy`: noisy parallel decoding).
2. *Copy*: the decoder's input is the source's input vectors, the $i$-th of them $f_i$ times, in order; place $t$ of the
   $N = \sum_i f_i$ places gets its own position.
3. *Write*: one pass of a decoder whose self-attention sees every place but its own, with *positional attention* in
   every layer: positions are queries and keys, the decoder's states are the values. Each place takes
   $\hat y_t = \arg\max_y p(y \mid x, f)$. Several plans are written as one batch.
4. *Choose*: of several texts keep the one with the highest $\log p_{AR}(\hat y \mid x)$, which the teacher reads off in
   one pass.
5. *Training* (`loss`): an aligner gives every word of the teacher's translation a source word, and so each source word
   its fertility: $L_{KD} = - \sum_t \log p(y_t \mid x, f) - \sum_i \log p_F(f_i \mid x)$.
6. *Fine-tuning* (`fine_tuning_loss`): $\lambda (L_{RL} + L_{BP}) + (1 - \lambda) L_{KD}$, where
   $L_{RKL}(f) = - \sum_t \sum_y p(y_t \mid x, f) \log p_{AR}(y_t \mid \hat y_{<t}, x)$. $L_{BP}$ is its value for the
   aligner's plan. $L_{RL}$ is its expectation over plans from $p_F$, less its value for the average plan; its gradient
   is estimated by REINFORCE.

Guarantee
---------
None about the text: lossy, and from a model of its own. Given the plan its words are independent of each other. Where
the training data holds several translations of one kind of sentence, every place follows the majority *of its own*, and
the whole can be a mixture that nobody wrote: that is why it needs distilled data. The text has exactly as many words as
its plan. It takes one pass of the decoder, and noisy decoding one more, of the teacher; however many plans there are.

Differences from the paper
--------------------------
1. The norms come first, the feed-forward halves are gated, and positions are learned, as everywhere in this project.
2. A source word brings forth at most `most` = 9 words; published code tells 50 fertilities apart, 0 to 49.
3. A plan is cut after `longest - 1` words, so that the teacher can read it with the end; published code drops every
   fertility from the one on with which the sum would reach twice the length of the padded source. A plan without a word
   copies the first source word once, and a text of one word sees itself.
4. Padding and end cannot be predicted (`write`). The teacher reads every text with an end token behind the last word,
   as if the student had been certain of it; so a text that stops too early costs something in fine-tuning.
5. The settings of the sampler apply to the draw of the plans; a plan drawn twice is written once (`drawn.unique`).
6. The zoo's model is trained by step 5 alone, without fine-tuning.
7. Published code keeps each place from itself in positional attention too, and divides the teacher's log-probability by
   the number of words unless told otherwise: for 4 of the tests' 10 random models it chooses a less likely text.
8. Published code takes the mean over the batch, the sample itself among them, from the reward of REINFORCE. For $B$
   sentences that are alike this leaves $1 - 1/B$ of the gradient, half of it for two. It also multiplies it by 0.1.

Example
-------
>>> from reference_impls.non_autoregressive.nat_fertility import example, generate
>>> from reference_impls.zoo.tasks import task
>>> lite = task("lite")
>>> source = lite.encode("Anna sold Felix twenty chairs for eighty-six euros on the sixth of April.")
>>> result = generate(source=source, **example())
>>> lite.join(lite.decode(result.tokens)), result.passes
('am sechsten April verkaufte Anna Felix zwanzig Stühle für sechsundachtzig Euro.', 2)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_impls.core.arguments import check_pairs, check_range, checked
from reference_impls.core.generation import Generation, Step
from reference_impls.core.layers import Attention, Norm, Shape, attention_mask
from reference_impls.core.rescoring import check_teacher, teacher_laws, text_log_p, with_end
from reference_impls.core.sampling import Sampler, wide
from reference_impls.core.seq2seq import EncoderDecoder, Memory

Decoding = Literal["argmax", "average", "noisy"]


@torch.inference_mode()
@checked
def generate(
    model: FertilityModel,
    source: Sequence[int],
    *,
    decoding: Decoding = "argmax",
    teacher: EncoderDecoder | None = None,
    samples: int = 10,
    sampler: Sampler | None = None,
) -> Generation:
    """Translate `source` in one pass; with `noisy` decoding, in one for all `samples` plans and one of the `teacher`.

    `sampler` draws the plans, by default from their law as it is. Only `noisy` decoding asks the teacher. Raises
    ValueError for options that cannot work, for an empty source and for unknown tokens.
    """
    check_options(model, decoding, teacher, samples)
    # Plan: how often every source word is copied, once or in several ways.
    inputs, memory, scores = model.consider(source)
    fertility = plans(scores, decoding, samples, sampler or Sampler())  # [plans, source]
    # Write: the texts of all plans in a single pass.
    logits, real = model.write(inputs, fertility, memory)
    certainty, texts = logits.softmax(-1).max(-1)  # [plans, tokens]; how certain only tells whether all is finite
    if not certainty.isfinite().all():
        raise ValueError("the model's logits are not finite (NaN or infinite): check its weights")
    # Choose: the teacher reads all texts in a single pass.
    best, passes = 0, 1
    if teacher is not None and decoding == "noisy":  # which has a teacher: `check_options`
        best, passes = int(text_log_p(teacher, teacher.encode(source), texts, real, end=model.end).argmax()), 2
    emitted = texts[best, real[best]].tolist()
    result = Generation()
    result.add(Step(emitted, passes=passes, canvas=emitted), limit=len(emitted))
    return result


def plans(scores: Tensor, decoding: Decoding, samples: int, sampler: Sampler) -> Tensor:
    """The plans [plans, source] to write, of the fertilities' logits [source, most + 1].

    Raises ValueError for logits that are not finite.
    """
    if scores.softmax(-1).isnan().any():
        raise ValueError("the fertilities' logits are not finite (NaN or infinite): check the model's fertility head")
    if decoding == "noisy":
        drawn = sampler.draw(sampler.probs(scores).expand(samples, -1, -1))
        return drawn.unique(dim=0)
    return (average(scores) if decoding == "average" else scores.argmax(-1))[None]


def average(scores: Tensor) -> Tensor:
    """The expected fertilities [..., source], rounded, of their logits [..., source, most + 1]."""
    law = scores.softmax(-1, wide(scores))
    return (law @ torch.arange(law.shape[-1], dtype=law.dtype, device=law.device)).round().long()


def copies(fertility: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """For plans [plans, source]: which source word each place [plans, tokens] copies, and which places are real.

    Source word i stands in `fertility[i]` neighbouring places, in order, up to `limit` places in all.
    """
    ends = fertility.cumsum(-1).clamp(max=limit)
    ends = ends.where(ends[:, -1:] > 0, 1)  # a plan without a word: the first source word comes once
    place = torch.arange(int(ends[:, -1].max()), device=ends.device).repeat(len(ends), 1)
    origin = torch.searchsorted(ends, place, right=True)  # the first word that ends behind the place
    return origin.clamp(max=ends.shape[-1] - 1), place < ends[:, -1:]  # places that are not real copy the last word


def check_options(model: FertilityModel, decoding: str, teacher: EncoderDecoder | None, samples: int) -> None:
    """One clear sentence for options that cannot work."""
    if decoding not in get_args(Decoding):
        raise ValueError(f"decoding is {decoding!r}; choose argmax, average or noisy")
    check_range(1, samples=samples)
    if decoding == "noisy" and teacher is None:
        raise ValueError("noisy decoding needs a teacher to choose among its texts: give teacher=, or choose argmax")
    if teacher is not None:
        check_teacher(teacher, model)


class FertilityModel(EncoderDecoder):
    """A translation model that plans how often each source word is copied, and writes all words in one pass."""

    def __init__(self, shape: Shape, longest: int, *, pad: int, end: int, most: int = 9) -> None:
        check_range(0, shape.vocab - 1, pad=pad, end=end)
        check_range(1, most=most)
        super().__init__(shape, longest)
        self.pad, self.end = pad, end
        self.fertility = nn.Linear(shape.dim, most + 1)
        self.reorder = nn.ModuleList(PositionalAttention(shape) for _ in range(shape.layers))

    def consider(
        self, source: Sequence[int] | Tensor, source_real: Tensor | None = None
    ) -> tuple[Tensor, Memory, Tensor]:
        """The source's input vectors, its memory, and the fertilities' logits [..., source, most + 1]."""
        inputs = self.embed(source)
        memory = self.remember(self.read(inputs, source_real), source_real)
        return inputs, memory, self.fertility(memory.states)

    def write(self, inputs: Tensor, fertility: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Logits [plans, tokens, vocab] for plans `fertility` [plans, source], and which [plans, tokens] are real.

        The input vectors and the memory may be those of one source, or have a row for each plan.
        """
        origin, real = copies(fertility, self.longest - 1)
        places = self.positions[: origin.shape[-1]]  # [tokens, dim]
        inputs = inputs.expand(len(origin), *inputs.shape[-2:])
        x = inputs.take_along_dim(origin[..., None], dim=-2) + places  # [plans, tokens, dim]
        alone = (real.sum(-1) == 1)[:, None, None]  # a lone word has no other to look at, so it sees itself
        others = ~torch.eye(len(places), dtype=torch.bool, device=x.device) | alone
        seen = attention_mask(real[:, None, :], 0, len(places), x)
        seen_others = attention_mask(real[:, None, :] & others, 0, len(places), x)
        where = F.rms_norm(places, places.shape[-1:])  # queries and keys of the positional attention
        for block, positional, (keys, values) in zip(self.decoder, self.reorder, memory.layers, strict=True):
            x = x + block.attend(x, None, seen_others)
            x = x + positional(x, where, seen)
            x = x + block.consult(x, keys, values, memory.mask)
            x = x + block.feed(x)
        logits = self.logits(x)
        logits[..., [self.pad, self.end]] = float("-inf")
        return logits, real


class PositionalAttention(Attention):
    """Attention by place alone: queries and keys come from positions, values from the decoder's states."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.norm = Norm(shape.dim, eps=shape.eps)

    def forward(self, x: Tensor, places: Tensor, mask: Tensor | None) -> Tensor:
        """What it adds to x [plans, tokens, dim], for positions `places` [tokens, dim]."""
        q, k, _ = self.project(places, None)
        v = self.project(self.norm(x), None)[2]
        q, k = (t.expand(len(x), *t.shape) for t in (q, k))
        return self.read(q, k, v, mask)


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    models = {"model": zoo.load("translation-fertility"), "teacher": zoo.load("translation-ar")}
    return {**models, "decoding": "noisy"}


@checked
def loss(model: FertilityModel, source: Tensor, target: Tensor, fertility: Tensor) -> Tensor:
    """L_KD in nats a target word, of padded sources and targets and the aligner's fertilities [batch, source].

    Raises ValueError for texts without a token, and for what is no token or no fertility.
    """
    check_plans(model, source, target, fertility)
    inputs, memory, scores = model.consider(source, source != model.pad)
    logits, _ = model.write(inputs, fertility, memory)
    return supervised(model, source, target, fertility, scores=scores, logits=logits) / (target != model.pad).sum()


def check_plans(model: FertilityModel, source: Tensor, target: Tensor, fertility: Tensor) -> None:
    """Raise ValueError for texts that nothing can be learnt from, and for fertilities that do not sum to the words."""
    check_pairs(model, source, target, never=model.end)
    whole = fertility.shape == source.shape and fertility.dtype == torch.long and not bool((fertility < 0).any())
    if not whole or not torch.equal(fertility.sum(-1), (target != model.pad).sum(-1)):
        raise ValueError("fertility must say of each token in source how many words of the target come from it")


def supervised(
    model: FertilityModel, source: Tensor, target: Tensor, fertility: Tensor, *, scores: Tensor, logits: Tensor
) -> Tensor:
    """L_KD, summed over the batch: the words given the aligner's plan, and the plan."""
    source_real, most = source != model.pad, scores.shape[-1] - 1
    target = target[:, : logits.shape[-2]]  # as a plan is cut, so is what it should become
    words = F.cross_entropy(logits.transpose(-1, -2), target, ignore_index=model.pad, reduction="sum")
    return words + F.cross_entropy(scores[source_real], fertility[source_real].clamp(max=most), reduction="sum")


def expected_log_p(
    teacher: EncoderDecoder, memory: Memory, p: Tensor, texts: Tensor, real: Tensor, *, end: int
) -> Tensor:
    """The teacher's log-probability [plans] of words drawn from p [plans, tokens, vocab] after the words of `texts`.

    If p is certain of `texts` [plans, tokens], it is that of the texts themselves, with the end. Nothing is learnt by
    the teacher.
    """
    with torch.no_grad():
        laws = teacher_laws(teacher, memory, texts, end=end)
    return with_end((p * laws[:, :-1]).sum(-1), laws, real, end=end)


@checked
def fine_tuning_loss(
    model: FertilityModel,
    teacher: EncoderDecoder,
    source: Tensor,
    target: Tensor,
    fertility: Tensor,
    *,
    sampler: Sampler,
    weight: float = 0.25,
) -> Tensor:
    """The loss of fine-tuning in nats a target word; its gradient is a one-sample estimate. `weight` is lambda.

    Raises ValueError as `loss` does, for a `weight` outside of [0, 1], and for a teacher that cannot read the texts.
    """
    check_plans(model, source, target, fertility)
    check_range(0, 1, weight=weight)
    check_teacher(teacher, model)
    source_real = source != model.pad
    inputs, memory, scores = model.consider(source, source_real)
    taught = teacher.encode(source, source_real)

    def divergence(logits: Tensor, real: Tensor) -> Tensor:
        p = logits.softmax(-1)
        return -expected_log_p(teacher, taught, p, p.argmax(-1), real, end=model.end)  # L_RKL, [batch]

    logits, real = model.write(inputs, fertility, memory)
    back_propagated = divergence(logits, real).sum()
    drawn = sampler.draw(sampler.probs(scores.detach())) * source_real  # [batch, source]
    with torch.no_grad():  # REINFORCE: a baseline that does not depend on the draw leaves the gradient unbiased
        advantage = divergence(*model.write(inputs, drawn, memory))
        advantage -= divergence(*model.write(inputs, average(scores) * source_real, memory))
    log_p = scores.log_softmax(-1).gather(-1, drawn[..., None]).squeeze(-1).where(source_real, 0).sum(-1)
    known = supervised(model, source, target, fertility, scores=scores, logits=logits)
    return (weight * ((advantage * log_p).sum() + back_propagated) + (1 - weight) * known) / (target != model.pad).sum()
