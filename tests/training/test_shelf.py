"""The shelf gives held-out text of the side that is asked for, and of the test side where none is named."""

from __future__ import annotations

import pytest

from accelgen.training.corpora import Corpus
from accelgen.training.shelf import Shelf

TEXTS = {"train": "while True:\n    pass\n", "development": "import os\n", "test": "def f(x):\n    return x\n"}


def shelf() -> Shelf:
    own = {side: {"library": [text * 9]} for side, text in TEXTS.items()}
    return Shelf(read=lambda _: Corpus(own["train"]["library"], [], own["development"], own["test"]))


def test_held_out_text_is_of_the_test_side_where_no_side_is_named() -> None:
    own = shelf()
    said = own.tokenizer.decode(own.held_out().tolist())
    assert TEXTS["test"] in said
    assert TEXTS["development"] not in said
    assert TEXTS["development"] in own.tokenizer.decode(own.held_out(side="development").tolist())
    assert len(own.held_out(5)) == 5
    with pytest.raises(ValueError, match="no held-out side"):
        own.held_out(side="train")


def test_prompts_are_of_the_test_side_where_no_side_is_named() -> None:
    own = shelf()
    assert own.prompts() == own.prompts("test") != own.prompts("development")
    assert own.prompts(count=3) == own.prompts()[:3]
