"""How a `Generation` looks in a terminal: each token in the colour of its kind, or in marks without colours."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from reference_impls.core.generation import Generation


@dataclass(frozen=True)
class Look:
    """How a kind of token is shown."""

    meaning: str
    style: str
    opening: str = ""
    closing: str = ""


# The keys are those of `Generation.kinds`. The colours differ in lightness as well, for eyes that see fewer hues.
LOOKS = {
    "accepted": Look("drafted and accepted", "black on bright_green", "⟦", "⟧"),
    "corrected": Look("rejected and corrected", "bright_white on red", "⟨", "⟩"),
    "plain": Look("plain", ""),
}
FIGURES = ("passes", "draft_passes", "tokens_per_pass", "acceptance", "mean_layers", "mean_work")


def has_colour(console: Console) -> bool:
    """Whether colours reach the reader: a terminal that has them, and a user who did not say no (NO_COLOR)."""
    return console.is_terminal and console.color_system is not None and not console.no_color


def render(pieces: Sequence[str], kinds: Sequence[str], *, colour: bool) -> Text:
    """The text of tokens; neighbours of one kind share a colour or a pair of marks."""
    text = Text()
    for kind, group in itertools.groupby(zip(kinds, pieces, strict=True), key=lambda pair: pair[0]):
        text.append_text(_shown("".join(piece for _, piece in group), LOOKS[kind], colour=colour))
    return text


def legend(kinds: Sequence[str], *, colour: bool) -> Text:
    """What the colours or marks of these kinds mean."""
    used = [look for kind, look in LOOKS.items() if kind in kinds]
    return Text("   ").join(_shown(look.meaning, look, colour=colour) for look in used)


def figures(result: Generation) -> dict[str, float | int | None]:
    """The figures of a run by their names in `Generation`; None where one does not apply."""
    return {"tokens": len(result.tokens)} | {name: getattr(result, name) for name in FIGURES}


def _shown(words: str, look: Look, *, colour: bool) -> Text:
    return Text(words, style=look.style) if colour else Text(f"{look.opening}{words}{look.closing}")
