"""`accelgen run`: a method on the zoo's models or on a checkpoint, and what became of every token."""

from __future__ import annotations

import importlib
from typing import Annotated, Any

import typer

from accelgen.cli import on_checkpoint
from accelgen.cli.catalogue import MethodId
from accelgen.cli.outcome import DEFAULTS, Outcome, perform, show, show_json
from accelgen.cli.output import AsJson, waiting
from accelgen.cli.own_options import is_plain, parse_options
from accelgen.cli.prompts import PromptFile, read_prompt
from accelgen.measuring.kinds import KINDS, Kind
from accelgen.measuring.sides import Side
from accelgen.taxonomy.finding import find_runnable
from accelgen.taxonomy.loading import load_taxonomy
from accelgen.taxonomy.schema import Guarantee, Method, Need

LIMIT_HELP = f"How many tokens at most; {DEFAULTS['limit']} by default."
CONTEXT = {
    "ignore_unknown_options": True,
    "allow_extra_args": True,
}  # methods have options of their own


def run(
    ctx: typer.Context,
    id: MethodId,
    prompt: Annotated[str | None, typer.Option(help="Text to continue, or the sentence to translate.")] = None,
    prompt_file: PromptFile = None,
    limit: Annotated[int | None, typer.Option(min=0, help=LIMIT_HELP)] = None,
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
    method = find_runnable(load_taxonomy(), id)
    id, prompt = method.id, read_prompt(prompt, prompt_file)
    loading = {"target": target, "drafter": drafter, "dtype": dtype, "device": device, "keep-transformers": keep}
    chosen = {name: value for name, value in loading.items() if value}
    if chosen and target is None:
        raise ValueError(f"--{next(iter(chosen))} needs --target: name the checkpoint to run on, a folder or an id")
    asked = {"limit": limit, "temperature": temperature, "seed": seed}
    asked = {name: value for name, value in asked.items() if value is not None}
    kind = KINDS[method.call]
    if target is not None:
        on_checkpoint.check_words(id, kind, chosen)
    with waiting(f"running {id}"):
        side = kind.side(importlib.import_module(method.module), {})
        given = parse_options(side.function, ctx.args, id)
        if target is None:
            outcomes = on_zoo(id, kind, side, prompt, given, asked)
        else:
            outcomes = on_checkpoint.run(id, kind, side, prompt, given, asked, chosen)
    (show_json if as_json else show)(outcomes)
    if target is not None and isinstance(method, Method) and Need.TARGET_TRAINING in method.needs:
        typer.echo(f"accelgen: {_caution(method)}", err=True)


def on_zoo(
    id: str, kind: Kind, side: Side, text: str | None, given: dict[str, Any], asked: dict[str, Any]
) -> list[Outcome]:
    """Run a method with the models and options of its `example()`, changed by the options `given`."""
    options = side.module.example() | given
    used = {name: value for name, value in options.items() if is_plain(value)}
    return perform(id, kind, kind.side(side.module, options), text, asked, used, kind.vocabulary())


def _caution(method: Method) -> str:
    effect = "the text gets worse" if method.guarantee is Guarantee.LOSSY else "little is gained, and the text is right"
    return f"{method.id} is meant for a target that was trained for it; with any other {effect}"
