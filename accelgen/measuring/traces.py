"""Records the run that a method's page shows: the example's models, fixed inputs, fixed seeds."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelgen.measuring.kinds import KINDS
from accelgen.measuring.sides import Shown
from accelgen.measuring.vocabularies import Tokens
from accelgen.project.files import write_whole
from accelgen.project.places import TRACES
from accelgen.taxonomy.calls import BASELINES, Baseline
from accelgen.taxonomy.loading import load_taxonomy
from accelgen.taxonomy.schema import Method

if TYPE_CHECKING:
    from reference_impls.core.generation import Generation

LIMIT = 48


def record(id: str) -> dict[str, Any]:
    """Run the `example` of a method or of a baseline on the zoo and describe the runs as plain data.

    The data hold the text of every token that occurs (`pieces`) and what stands between two tokens (`separator`), what
    else the page must know of this kind (`Kind.facts`), and for each run its prompt, its tokens and steps as
    `Generation.to_dict` gives them, the kinds of its tokens and its summary figures. Raises ValueError for a method
    without implementation.
    """
    return described(_known(id))


def described(method: Method | Baseline) -> dict[str, Any]:
    """What `record` gives."""
    kind, module = KINDS[method.call], importlib.import_module(method.module)
    own, words = kind.side(module, module.example()), kind.vocabulary()
    shown = list(kind.shown(own, LIMIT))
    runs = [_run(each, *row) for each in shown for row in zip(kind.rows(each.request.given), each.results, strict=True)]
    pieces = {str(token): words.alone(token) for token in _tokens(runs)}
    return {"id": method.id, "separator": words.separator, **kind.facts(own), "pieces": pieces, "runs": runs}


def _known(id: str) -> Method | Baseline:
    if id in BASELINES:
        return BASELINES[id]
    method = load_taxonomy().method(id)
    if not method.is_implemented:
        raise ValueError(f"{id} is not implemented yet, so there is no run to record")
    return method


def write_traces(ids: Iterable[str], folder: Path = TRACES) -> list[Path]:
    """Record each method and write `folder`/<id>.json, each file whole or not at all."""
    return [write_json(folder / f"{name}.json", record(name)) for name in ids]


def write_json(path: Path, data: dict[str, Any]) -> Path:
    """Write plain data to a file that is replaced only when the new one is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_whole(path, json.dumps(data, ensure_ascii=False) + "\n")


def _run(shown: Shown, prompt: Tokens, result: Generation) -> dict[str, Any]:
    figures = ("passes", "draft_passes", "tokens_per_pass", "acceptance", "mean_layers", "mean_work")
    return {
        "title": shown.title,
        "settings": dict(shown.settings),
        "prompt": list(prompt),
        **result.to_dict(),
        "kinds": result.kinds,
        "figures": {"tokens": len(result.tokens)} | {name: getattr(result, name) for name in figures},
    }


def _tokens(runs: list[dict[str, Any]]) -> list[int]:
    """Every token that occurs in the runs, rejected guesses included."""
    used = {token for run in runs for token in [*run["prompt"], *run["tokens"]]}
    used |= {token for run in runs for step in run["steps"] for token in [*step["drafted"], *step["canvas"]]}
    return sorted(used)
