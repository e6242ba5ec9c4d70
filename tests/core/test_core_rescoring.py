"""A teacher that judges several texts in one pass says what it would say token by token."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from reference_impls.core.rescoring import check_teacher, teacher_laws, text_log_p, with_end
from reference_impls.core.seq2seq import EncoderDecoder
from reference_impls.testing.tiny import sequence_model

MUTANTS = [
    ("end-of-text-not-judged", "+ laws[..., end]", "+ 0 * laws[..., end]"),
    ("teacher-sees-what-it-judges", "F.pad(texts, (1, 0), value=end)", "F.pad(texts, (0, 1), value=end)"),
    ("padding-judged", "words.where(real, 0).sum(-1)", "words.sum(-1)"),
]

END, SOURCE = 1, [5, 3, 8]
TEXTS = [[4, 5, 6, 7], [9], [3, 3]]


def teacher_of(longest: int = 9, vocab: int = 11) -> EncoderDecoder:
    return sequence_model(EncoderDecoder, longest=longest, vocab=vocab).requires_grad_(False)


def batch(filler: int) -> tuple[Tensor, Tensor]:
    texts = torch.tensor([text + [filler] * (4 - len(text)) for text in TEXTS])
    return texts, torch.arange(4) < torch.tensor([[len(text)] for text in TEXTS])


def by_token(teacher: EncoderDecoder, text: list[int]) -> float:
    memory, cache, total = teacher.encode(SOURCE), teacher.new_cache(), 0.0
    for before, token in pairwise([END, *text, END]):
        total += float(teacher.logits(teacher.decode([before], memory, cache))[0].log_softmax(-1)[token])
    return total


@pytest.mark.parametrize("filler", [0, 1, 8])
def test_texts_in_one_pass_are_judged_with_their_end_as_token_by_token(filler: int) -> None:
    teacher = teacher_of()
    found = text_log_p(teacher, teacher.encode(SOURCE), *batch(filler), end=END)
    assert found.tolist() == pytest.approx([by_token(teacher, text) for text in TEXTS])


def test_laws_stand_after_the_beginning_and_after_each_token() -> None:
    teacher, (texts, _) = teacher_of(), batch(0)
    laws = teacher_laws(teacher, teacher.encode(SOURCE), texts, end=END)
    alone = teacher.logits(teacher.decode([END, *TEXTS[0]], teacher.encode(SOURCE))).log_softmax(-1)
    assert torch.allclose(laws[0], alone)


def test_laws_of_a_narrow_teacher_are_made_wide() -> None:
    teacher, (texts, _) = teacher_of().bfloat16(), batch(0)
    laws = teacher_laws(teacher, teacher.encode(SOURCE), texts, end=END)
    assert torch.allclose(laws.exp().sum(-1), torch.ones(3, 5), atol=1e-6)


def test_padding_costs_nothing_and_the_end_is_read_behind_the_last_word() -> None:
    laws = torch.arange(12.0).view(1, 4, 3)
    words, real = torch.tensor([[1.0, 2.0, math.nan]]), torch.tensor([[True, True, False]])
    assert with_end(words, laws, real, end=1).tolist() == [1 + 2 + 7]


def test_a_broken_teacher_is_reported() -> None:
    teacher = teacher_of()
    nn.init.constant_(teacher.norm.weight, math.nan)
    with pytest.raises(ValueError, match="the teacher's logits are not finite"):
        text_log_p(teacher, teacher.encode(SOURCE), *batch(0), end=END)


@pytest.mark.parametrize(
    ("teacher", "model", "sentence"),
    [
        (teacher_of(vocab=10), teacher_of(), "vocabularies of 10 and 11 tokens; they must share one"),
        (teacher_of(longest=8), teacher_of(), "the teacher has 8 positions and the model 9"),
        (teacher_of(), teacher_of(longest=1), "the model has 1 position, and a teacher reads a text with its end"),
    ],
)
def test_a_teacher_that_cannot_read_the_model_is_one_sentence(
    teacher: EncoderDecoder, model: EncoderDecoder, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_teacher(teacher, model)
    check_teacher(teacher_of(longest=12), teacher_of(longest=2))


def test_a_single_text_whose_probability_is_no_number_is_told(monkeypatch):
    teacher, (texts, real) = teacher_of(), batch(0)
    decode = teacher.decode
    one = torch.tensor([0.0, math.nan, 0.0])[:, None, None]  # added to the states of three texts
    monkeypatch.setattr(teacher, "decode", lambda *given: decode(*given) + one)
    with pytest.raises(ValueError, match="the teacher's logits are not finite"):
        text_log_p(teacher, teacher.encode(SOURCE), texts, real, end=END)
