"""What became of a run: every token's text and kind, the figures, and how that looks on a screen or as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.text import Text

from accelgen.cli.options import show as written
from accelgen.cli.output import console, write_json
from accelgen.measuring.kinds import Kind
from accelgen.measuring.sides import Request, Side
from accelgen.measuring.vocabularies import Vocabulary

if TYPE_CHECKING:
    from reference_impls.core.generation import Generation

DEFAULTS: dict[str, Any] = {"limit": 64, "temperature": 0.0, "seed": 0}  # of `accelgen run`


@dataclass(frozen=True)
class Outcome:
    """One text of a run: the prompt, the tokens' texts, and for each pass what stood on the canvas."""

    id: str
    prompt: str
    options: dict[str, Any]
    pieces: list[str]
    result: Generation
    canvases: list[str] = field(default_factory=list)
    apart: bool = False  # whether what is written stands by itself, as a translation does


def perform(
    id: str,
    kind: Kind,
    side: Side,
    text: str | None,
    asked: Mapping[str, Any],
    used: Mapping[str, Any],
    vocabulary: Vocabulary,
) -> list[Outcome]:
    """Run `side` on the text, by default the zoo's; one outcome for each sequence.

    `asked` holds limit, temperature and seed where the user named them, `used` what else is shown to have been used.
    Raises ValueError and ZooError for what the method or its models cannot do.
    """
    kind.refuse(id, side, list(asked))
    common = {k: v for k, v in DEFAULTS.items() if kind.options.get(k) in side.required} | dict(asked)
    texts = kind.begin(text)
    given = kind.given([vocabulary.encode(each) for each in texts])
    request = Request(given, **DEFAULTS | common, eos=vocabulary.eos)
    found = zip(texts, kind.rows(given), kind.perform(side, request), strict=True)
    return [
        Outcome(
            id,
            each,
            common | dict(used),
            kind.pieces(vocabulary, prompt, result.tokens),
            result,
            _canvases(kind, vocabulary, prompt, result),
            kind.apart,
        )
        for each, prompt, result in found
    ]


def _canvases(kind: Kind, vocabulary: Vocabulary, prompt: Sequence[int], result: Generation) -> list[str]:
    """The text after each pass, where every pass writes all of it."""
    shown = [step.canvas for step in result.steps if step.canvas] if kind.rewrites else []
    return ["".join(vocabulary.pieces(prompt, canvas)) for canvas in shown]


def show_json(outcomes: Sequence[Outcome]) -> None:
    """Print the run as JSON: an object, or a list of them where there were several sequences."""
    data = [_as_data(outcome) for outcome in outcomes]
    write_json(data[0] if len(data) == 1 else data)


def show(outcomes: Sequence[Outcome]) -> None:
    """Print the run, one text after the other."""
    for outcome in outcomes:
        _print(outcome)


def _as_data(outcome: Outcome) -> dict[str, Any]:
    from accelgen.cli.tokens import figures

    result = outcome.result
    return {
        "id": outcome.id,
        "prompt": outcome.prompt,
        "options": outcome.options,
        "text": "".join(outcome.pieces),
        "pieces": outcome.pieces,
        "kinds": result.kinds,
        "figures": figures(result),
        **result.to_dict(),
    }


def _print(outcome: Outcome) -> None:
    from accelgen.cli.tokens import figures, has_colour, legend, render

    screen, result = console(), outcome.result
    colour = has_colour(screen)
    for i, canvas in enumerate(outcome.canvases, start=1):
        screen.print(Text(f"pass {i:>2}  {canvas}", style="dim"), soft_wrap=True)
    separator = "\n" if outcome.apart else ""
    answer = render(outcome.pieces, result.kinds, colour=colour)
    shown = Text.assemble((outcome.prompt + separator, "bold"), answer)
    screen.print(shown, soft_wrap=True)
    screen.print()
    if set(result.kinds) != {"plain"}:
        screen.print(legend(result.kinds, colour=colour), soft_wrap=True)
    used = {name: value for name, value in outcome.options.items() if value is not None}
    screen.print(
        Text("  ".join([outcome.id, *(f"{name} {written(value)}" for name, value in used.items())])), soft_wrap=True
    )
    known = {name: value for name, value in figures(result).items() if value is not None}
    if not result.draft_passes:
        del known["draft_passes"]
    screen.print("  ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in known.items()))


def _number(value: float) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
