"""Formulas as plain text, for where nothing sets them: terminals, and the cards of exported folders."""

from __future__ import annotations

import re
import unicodedata

SIGNS = {
    "dots": "…", "ldots": "…", "cdots": "…", "cdot": "·", "times": "×", "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥",
    "ne": "≠", "neq": "≠", "approx": "≈", "sim": "~", "in": "∈", "sum": "∑", "prod": "∏", "sqrt": "√", "infty": "∞",
    "mid": "|", "to": "→", "rightarrow": "→", "leftarrow": "←", "gets": "←", "top": "ᵀ", "ell": "ℓ", "odot": "⊙",
    "lambda": "λ", "Lambda": "Λ",  # which Unicode spells without its b
    "lfloor": "⌊", "rfloor": "⌋", "lceil": "⌈", "rceil": "⌉", "langle": "⟨", "rangle": "⟩", "quad": " ", "qquad": " ",
}  # fmt: skip
UNSEEN = {
    "left", "right", "big", "Big", "bigl", "bigr", "mathrm", "mathbf", "mathcal", "mathbb", "text", "operatorname",
}  # fmt: skip
MARKS = {"|": "‖", "%": "%", "_": "_", "&": "&", "#": "#", ";": " ", ":": " "}
_FORMULA = re.compile(r"(`+[^`]*`+|\$\$[^$]+\$\$|\$[^$]+\$)")
_COMMAND = re.compile(r"\\(?![td]?frac)([a-zA-Z]+)\s*|\\([^a-zA-Z])")
_INDEX = re.compile(r"([_^])\{([^{}]*)\}")
_GROUP = re.compile(r"(?<!frac)(?<![}_^])\{([^{}]*)\}")  # whose braces only hold together
_RATIO = re.compile(r"\\[td]?frac(?:\{([^{}]*)\}\{([^{}]*)\}|(\d)(\d))")


def in_plain_text(text: str) -> str:
    r"""The text with each formula `$…$` in plain characters, `$\gamma + 1$` as `γ + 1`; code stays as it is."""
    parts = _FORMULA.split(text)
    return "".join(_plain(part.strip("$").strip()) if part.startswith("$") else part for part in parts)


def _plain(formula: str) -> str:
    # What stands in escaped braces is no group: it waits under another sign.
    found, before = _COMMAND.sub(_sign, formula.replace(r"\{", "\x01").replace(r"\}", "\x02")), ""
    while found != before:  # from the innermost braces on
        before = found
        found = _RATIO.sub(_ratio, _GROUP.sub(r"\1", _INDEX.sub(_index, found)))
    return " ".join(found.replace("\x01", "{").replace("\x02", "}").split())


def _ratio(found: re.Match[str]) -> str:
    above, below = (part if part.isalnum() else f"({part})" for part in found.groups() if part is not None)
    return f"{above} / {below}"


def _sign(found: re.Match[str]) -> str:
    """A command as its sign, its Greek letter or its name; one that only sets is nothing."""
    name, mark = found.groups()
    if name is None or name in UNSEEN:
        return MARKS.get(mark, "")
    space = " " if found[0][-1].isspace() else ""
    case, letter = "CAPITAL" if name[0].isupper() else "SMALL", name.removeprefix("var").upper()
    try:
        return (SIGNS.get(name) or unicodedata.lookup(f"GREEK {case} LETTER {letter}")) + space
    except KeyError:
        return name + space


def _index(found: re.Match[str]) -> str:
    """An index or a power; one of several signs stands in parentheses."""
    place, inside = found.groups()
    return place + (inside if inside.isalnum() else f"({inside})")
