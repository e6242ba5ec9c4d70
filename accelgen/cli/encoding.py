"""What is printed reaches every screen and file: as it is where it can be, else in ASCII that says the same."""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata

HANDLER = "accelgen.marks"
# What the project prints beside letters; the brackets are the marks of `accelgen run`.
MARKS = {"⟦": "[[", "⟧": "]]", "⟨": "<", "⟩": ">", "–": "-", "—": "-", "−": "-", "×": "x", "·": "*", "⁄": "/"}
MARKS |= {"≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "∈": "in", "∑": "sum", "∏": "prod", "√": "sqrt", "∞": "infinity"}
MARKS |= {"“": '"', "”": '"', "‘": "'", "’": "'", "→": "->", "λ": "lambda", "Λ": "Lambda"}
MARKS |= {"ß": "ss", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "æ": "ae", "Æ": "AE"}


def ascii_mark(character: str) -> str:
    """ASCII in place of a character: a letter without its accent, the name of a Greek letter, a mark; else `?`."""
    if character in MARKS:
        return MARKS[character]
    return "".join(map(_part, unicodedata.normalize("NFKD", character)))


def in_ascii(text: str) -> str:
    """The text in ASCII, every other character by its mark."""
    return "".join(map(ascii_mark, text))


def escaped(json_text: str) -> str:
    r"""The same JSON in ASCII: other characters stand in strings only, where JSON has `\u…` for them."""
    found = ("".join(f"\\u{u:04x}" for u in _utf16(c)) if not c.isascii() else c for c in json_text)
    return "".join(found)


def is_unicode() -> bool:
    """Whether stdout takes every character."""
    return codecs.lookup(sys.stdout.encoding or "utf-8").name.startswith("utf")


def print_everywhere() -> None:
    """From now on stdout and stderr print marks for what their encoding does not have, instead of failing."""
    codecs.register_error(HANDLER, _marks)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=HANDLER)


def _marks(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return in_ascii(error.object[error.start : error.end]), error.end


def _part(character: str) -> str:
    """ASCII for a part of a composed character; an accent has none."""
    if character.isascii() or unicodedata.combining(character):
        return character if character.isascii() else ""
    alphabet, _, name = unicodedata.name(character, "").partition(" LETTER ")
    if alphabet in ("GREEK SMALL", "GREEK CAPITAL"):
        return name.lower() if alphabet == "GREEK SMALL" else name.title()
    return MARKS.get(character, "?")


def _utf16(character: str) -> list[int]:
    data = character.encode("utf-16-be")
    return [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]
