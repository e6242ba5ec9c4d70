"""The text side of the language models: tokens, their pieces, and prompts of two sides."""

from __future__ import annotations

import random
import time

import pytest

from reference_impls import zoo

ODD = "ünïcödé → 🎉\n\ttabs"


def test_text_survives_the_tokenizer() -> None:
    for text in [*zoo.prompts(), *zoo.prompts("development"), ODD]:
        tokens = zoo.encode(text)
        assert zoo.decode(tokens) == text
        assert "".join(zoo.pieces(tokens)) == text


def test_what_is_no_text_gets_one_sentence() -> None:
    with pytest.raises(ValueError, match="the prompt is empty"):
        zoo.encode("")
    for text in (b"the\xe9".decode(errors="surrogateescape"), "the\ud800"):
        with pytest.raises(ValueError, match="the prompt is not UTF-8: its character 4 "):
            zoo.encode(text)


def by_bytes(rows: list[int]) -> str:
    """The text of tokens that are single bytes."""
    return bytes(rows).decode(errors="replace")


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"ab", ["a", "b"]),
        ("aé→🎉b".encode(), ["a", "", "é", "", "", "→", "", "", "", "🎉", "b"]),
        (b"a\xf0", ["a", "\ufffd"]),  # cut off at the end
        (b"a\xf0\x9f", ["a", "\ufffd", ""]),
        (b"\xf0b", ["\ufffd", "b"]),  # no character at all
        (b"\x80\x80b", ["\ufffd", "\ufffd", "b"]),
        ("a\ufffd".encode(), ["a", "", "", "\ufffd"]),  # really written, and kept
        ("\ufffdb\ufffd\ufffd".encode(), ["", "", "\ufffd", "b", "", "", "\ufffd", "", "", "\ufffd"]),
        (b"", []),
    ],
)
def test_a_character_stands_at_its_last_token(content: bytes, wanted: list[str]) -> None:
    # "\xef\xbf" alone and "\xef\xbf\xbd" read the same, so a written U+FFFD may stand at any of its tokens
    found = zoo.pieces(list(content), by_bytes)
    assert "".join(found) == "".join(wanted)
    assert len(found) == len(wanted)
    if b"\xef\xbf\xbd" not in content:
        assert found == wanted


def test_pieces_of_any_bytes_are_the_whole_text() -> None:
    chance = random.Random(0)
    for _ in range(300):
        content = [chance.choice(b"a\x80\x9f\xbf\xc3\xa9\xe2\x86\x92\xf0\xef\xbd") for _ in range(12)]
        found = zoo.pieces(content, by_bytes)
        assert "".join(found) == by_bytes(content)
        assert len(found) == 12


def test_pieces_decode_a_few_tokens_at_a_time() -> None:
    asked: list[int] = []

    def decode(tokens: list[int]) -> str:
        asked.append(len(tokens))
        return by_bytes(tokens)

    zoo.pieces([97] * 500, decode)  # type: ignore[arg-type]
    assert max(asked) <= 8
    assert len(asked) <= 3 * 500
    start = time.process_time()
    zoo.pieces([97] * 4_000)
    assert time.process_time() - start < 2  # of the quadratic way: more than 2 s on a fast processor


def test_prompts_have_two_sides_that_share_nothing() -> None:
    development, test = zoo.prompts("development"), zoo.prompts("test")
    assert zoo.prompts() == test
    assert len(set(development)) == len(development) == len(test) == len(set(test)) == 60
    assert not set(development) & set(test)
    starts = {text[:30] for text in test if len(text) > 30}
    assert not [text for text in development if text[:30] in starts and "import" not in text]
    with pytest.raises(ValueError, match="no side 'train'; they have development and test"):
        zoo.prompts("train")
