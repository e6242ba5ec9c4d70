"""Choosing among several texts: an autoregressive teacher reads all of them in one causal pass."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from reference_impls.core.sampling import wide
from reference_impls.core.seq2seq import EncoderDecoder, Memory


def teacher_laws(teacher: EncoderDecoder, memory: Memory, texts: Tensor, *, end: int) -> Tensor:
    """The teacher's log-laws [rows, tokens + 1, vocab] after `end`, which begins every text, and after each token."""
    logits = teacher.logits(teacher.decode(F.pad(texts, (1, 0), value=end), memory))
    return logits.log_softmax(-1, wide(logits))


def with_end(words: Tensor, laws: Tensor, real: Tensor, *, end: int) -> Tensor:
    """The sum [rows] of what each real word [rows, tokens] costs, and of what `end` costs after the last by `laws`."""
    return words.where(real, 0).sum(-1) + laws[..., end].gather(-1, real.sum(-1, keepdim=True))[..., 0]


def text_log_p(teacher: EncoderDecoder, memory: Memory, texts: Tensor, real: Tensor, *, end: int) -> Tensor:
    """The teacher's log-probability [rows] of texts [rows, tokens], each with the end; `real` is False at padding.

    Raises ValueError for a teacher whose logits are not finite.
    """
    laws = teacher_laws(teacher, memory, texts, end=end)
    found = with_end(laws[:, :-1].gather(-1, texts[..., None])[..., 0], laws, real, end=end)
    if found.isnan().any():
        raise ValueError("the teacher's logits are not finite (NaN or infinite): check its weights")
    return found


def check_teacher(teacher: EncoderDecoder, model: EncoderDecoder) -> None:
    """Raise ValueError for a teacher that cannot read what the model writes."""
    if teacher.shape.vocab != model.shape.vocab:
        sizes = f"{teacher.shape.vocab} and {model.shape.vocab} tokens"
        raise ValueError(f"teacher and model have vocabularies of {sizes}; they must share one")
    if teacher.longest < model.longest:
        places = f"{teacher.longest} positions and the model {model.longest}"
        raise ValueError(f"the teacher has {places}; it must be able to read whatever the model writes")
    if model.longest < 2:
        raise ValueError("the model has 1 position, and a teacher reads a text with its end: give it at least 2")
