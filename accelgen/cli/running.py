"""`accelgen run`: a method on the zoo's models or on a checkpoint, and what became of every token."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Protocol, get_args, get_type_hints

import typer
from pydantic import TypeAdapter, ValidationError
from rich.text import Text

from accelgen.cli.catalogue import MethodId
from accelgen.cli.output import AsJson, console, waiting, write_json
from accelgen.taxonomy.finding import find_runnable
from accelgen.taxonomy.loading import load_taxonomy, suggestion
from accelgen.taxonomy.schema import Guarantee, Method, Need

if TYPE_CHECKING:
    from reference_impls.core.generation import Ends, Generation

LIMIT = 64
END_OF_TEXT = 0  # the token that stands between the texts of the zoo's corpus
CONTEXT = {
    "ignore_unknown_options": True,
    "allow_extra_args": True,
}  # methods have options of their own
PLAIN = (int, float, str, bool, type(None))  # types of options that can be written on the command line


@dataclass(frozen=True)
class Outcome:
    """A run, ready to be shown: the prompt's text, the tokens' texts, and for each pass what stood on the canvas."""

    id: str
    prompt: str
    options: dict[str, Any]
    pieces: list[str]
    result: Generation
    canvases: list[str] = field(default_factory=list)


class Vocabulary(Protocol):
    """How text becomes tokens, tokens become text, and a text ends."""

    @property
    def eos(self) -> Ends | None:
        """The token after which a text ends, or several."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""

    def pieces(self, prompt: Sequence[int], tokens: Sequence[int]) -> list[str]:
        """The text of each token after those of the prompt."""


class ZooVocabulary:
    """The zoo's own tokens."""

    eos = END_OF_TEXT

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        from reference_impls import zoo

        return zoo.encode(text)

    def pieces(self, prompt: Sequence[int], tokens: Sequence[int]) -> list[str]:  # noqa: ARG002 - all stand alone
        """The text of each token."""
        from reference_impls import zoo

        return zoo.pieces(tokens)


def run(
    ctx: typer.Context,
    id: MethodId,
    prompt: Annotated[str | None, typer.Option(help="Text to continue, or the sentence to translate.")] = None,
    limit: Annotated[int | None, typer.Option(min=0, help=f"How many tokens at most; {LIMIT} by default.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy, and the default.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of all random choices; 0 by default.")] = None,
    target: Annotated[str | None, typer.Option(help="A checkpoint: a folder, or a hub's id.")] = None,
    drafter: Annotated[list[str] | None, typer.Option(help="A smaller checkpoint that drafts.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, the default, bfloat16 or float16.")] = None,
    device: Annotated[str | None, typer.Option(help="Where checkpoints run; cpu by default.")] = None,
    keep: Annotated[
        bool, typer.Option("--keep-transformers", help="Leave checkpoints in transformers: any family, but slower.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a method on the zoo, or on checkpoints of yours: --target FOLDER.

    Its own options follow the id: --gamma 6. `accelgen show ID` lists them.
    """
    entry = find_runnable(load_taxonomy(), id)
    id, method = entry.id, entry if isinstance(entry, Method) else None
    loading = {"target": target, "drafter": drafter, "dtype": dtype, "device": device, "keep-transformers": keep}
    chosen = {name: value for name, value in loading.items() if value}
    if chosen and target is None:
        raise ValueError(f"--{next(iter(chosen))} needs --target: name the checkpoint to run on, a folder or an id")
    with waiting(f"running {id}"):
        module = importlib.import_module(entry.module)
        given = parse_options(module.generate, ctx.args, id)
        common = {"limit": limit, "temperature": temperature, "seed": seed}
        common = {k: v for k, v in common.items() if v is not None}
        if target is None:
            outcome = perform(id, module, prompt, given, common)
        else:
            from accelgen.cli import on_checkpoint as checkpoints

            outcome = checkpoints.perform(id, module, prompt, given, common, chosen)
    if as_json:
        write_json(_as_data(outcome))
    else:
        _print(outcome)
    if target is not None and method is not None and Need.TARGET_TRAINING in method.needs:
        typer.echo(f"accelgen: {_caution(method)}", err=True)


def perform(id: str, module: Any, prompt: str | None, given: dict[str, Any], common: dict[str, Any]) -> Outcome:
    """Run `example()` with the options `given`. `common` holds limit, temperature and seed where the user named them.

    Raises ValueError and ZooError for what the method or its models cannot do.
    """
    options = module.example() | given
    used = {name: value for name, value in options.items() if is_plain(value)}
    if "model" in options:
        if common:
            raise ValueError(
                f"{id} makes no random choices and finds the length itself: leave out --{next(iter(common))}"
            )
        return _translate(id, module, prompt, options, used)
    return continue_text(id, module, prompt, options, common | used, ZooVocabulary())


def continue_text(
    id: str, module: Any, prompt: str | None, options: dict[str, Any], used: dict[str, Any], vocabulary: Vocabulary
) -> Outcome:
    """Run a method that continues a prompt, by default one of the zoo's. `used` says what it is shown to have used."""
    from reference_impls import zoo
    from reference_impls.core.sampling import Sampler

    start = zoo.prompts()[0] if prompt is None else prompt
    used = {"limit": LIMIT, "temperature": 0.0, "seed": 0} | used
    sampler = Sampler(used["temperature"], seed=used["seed"])
    tokens = vocabulary.encode(start)
    result = module.generate(prompt=tokens, limit=used["limit"], sampler=sampler, eos=vocabulary.eos, **options)
    return Outcome(id, start, used, vocabulary.pieces(tokens, result.tokens), result)


def _translate(id: str, module: Any, prompt: str | None, options: dict[str, Any], used: dict[str, Any]) -> Outcome:
    from reference_impls.zoo.tasks import task

    lite = task("lite")
    text = next(lite.examples(held_out=True)).source if prompt is None else prompt
    result = module.generate(source=lite.encode(text), **options)
    canvases = [" ".join(lite.pieces(step.canvas)) for step in result.steps if step.canvas]
    first, *others = lite.pieces(result.tokens) or [""]
    return Outcome(id, text, used, [first, *(f" {piece}" for piece in others)], result, canvases)


def _caution(method: Method) -> str:
    effect = "the text gets worse" if method.guarantee is Guarantee.LOSSY else "little is gained, and the text is right"
    return f"{method.id} is meant for a target that was trained for it; with any other {effect}"


# ---- options of a method ------------------------------------------------------------------------------------------


def is_plain(value: Any) -> bool:
    """Whether an option's value can be written on the command line: numbers, words, and rows of them."""
    return isinstance(value, PLAIN) or (isinstance(value, list | tuple) and all(map(is_plain, value)))


def own_options(generate: Callable[..., Any]) -> dict[str, Any]:
    """Keyword options of `generate` that can be written on the command line, with their types."""
    hints = get_type_hints(generate)
    keywords = [p.name for p in inspect.signature(generate).parameters.values() if p.kind is p.KEYWORD_ONLY]
    return {name: hints[name] for name in keywords if name not in ("sampler", "eos") and _is_plain_type(hints[name])}


def _is_plain_type(kind: Any) -> bool:
    if kind in PLAIN or isinstance(kind, str):  # a string stands in Literal["…"]
        return True
    return bool(get_args(kind)) and all(map(_is_plain_type, get_args(kind)))


def parse_options(generate: Callable[..., Any], words: Sequence[str], id: str) -> dict[str, Any]:
    """The method's own options from `--name value` or `--name=value`; a row of numbers is written 2,4,8.

    Raises ValueError for a name that the method does not have and a value that does not fit.
    """
    known = own_options(generate)
    found: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise ValueError(f"{word!r} belongs to no option; put text with spaces in quotes: --prompt 'def f(x):'")
        name, equals, value = word.removeprefix("--").partition("=")
        key = name.replace("-", "_")
        if key not in known:
            hint = suggestion(name, [option.replace("_", "-") for option in known])
            raise ValueError(f"{id} has no option --{name}{hint or f'; `accelgen show {id}` tells how it is called'}")
        if not equals:
            if not rest:
                raise ValueError(f"--{name} needs a value")
            value = rest.pop(0)
        found[key] = _value(name, value, known[key])
    return found


def _value(name: str, text: str, kind: Any) -> Any:
    """The value that `text` stands for. pydantic knows how the types of Python are written."""
    adapter, reason = TypeAdapter(kind), ""
    for candidate in (text, text.split(",") if text else []):
        try:
            return adapter.validate_python(candidate)
        except ValidationError as error:
            reason = error.errors()[-1]["msg"]
    raise ValueError(f"--{name} cannot be {text!r}: {reason[:1].lower()}{reason[1:]}")


# ---- how it looks -------------------------------------------------------------------------------------------------


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
    separator = "\n" if outcome.canvases else ""
    answer = render(outcome.pieces, result.kinds, colour=colour)
    shown = Text.assemble((outcome.prompt + separator, "bold"), answer)
    screen.print(shown, soft_wrap=True)
    screen.print()
    if set(result.kinds) != {"plain"}:
        screen.print(legend(result.kinds, colour=colour), soft_wrap=True)
    options = "  ".join(f"{name} {value}" for name, value in outcome.options.items() if value is not None)
    screen.print(Text(f"{outcome.id}  {options}"), soft_wrap=True)
    known = {name: value for name, value in figures(result).items() if value is not None}
    if not result.draft_passes:
        del known["draft_passes"]
    screen.print("  ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in known.items()))


def _number(value: float) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
