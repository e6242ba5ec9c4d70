"""What is decided while checkpoints are read, without any: whether two tokenizers speak of the same tokens."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from accelgen.checkpoints.reading import Checkpoint, check_vocabulary

MUTANTS = [
    ("vocabularies-compared-by-size", "if ours.get(token) != theirs.get(token)", "if len(ours) != len(theirs)"),
    (
        "vocabularies-compared-by-their-ids",
        "if ours.get(token) != theirs.get(token)",
        "if sorted(ours.values()) != sorted(theirs.values())",
    ),
    ("what-the-drafter-alone-knows-is-no-difference", "ours.keys() | theirs.keys()", "ours.keys()"),
    ("widths-not-compared", "if widths[0] != widths[1]:", "if widths[0] < 0:"),
]


def checkpoint(name: str, words: str, width: int = 4) -> Checkpoint:
    """What is asked of one here: its name, its tokens in order, the width of its logits."""
    ids: dict[str, int] = {word: i for i, word in enumerate(words.split())}
    model: Any = SimpleNamespace(shape=SimpleNamespace(vocab=width))
    return Checkpoint(name, model, SimpleNamespace(get_vocab=lambda: ids), eos=None)


def test_the_same_tokens_in_the_same_order_are_one_vocabulary() -> None:
    check_vocabulary(
        checkpoint("large", "a red fox"), checkpoint("small", "a red fox"), checkpoint("tiny", "a red fox")
    )


@pytest.mark.parametrize(("words", "differ"), [("a fox red", 2), ("a red cat", 2), ("a red", 1), ("a red fox ran", 1)])
def test_other_tokens_are_another_vocabulary(words: str, differ: int) -> None:
    sentence = f"the vocabularies of large and small differ in {differ} tokens, such as "
    with pytest.raises(ValueError, match=sentence):
        check_vocabulary(checkpoint("large", "a red fox"), checkpoint("same", "a red fox"), checkpoint("small", words))


def test_logits_of_another_width_are_refused() -> None:
    with pytest.raises(
        ValueError, match="large and small share a tokenizer, but one has logits for 4 tokens and the other for 3"
    ):
        check_vocabulary(checkpoint("large", "a red fox"), checkpoint("small", "a red fox", width=3))
