"""Records the run that a method's page shows: the example's models, a fixed prompt, fixed seeds."""

from __future__ import annotations

import importlib
import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from accelgen.project.files import write_whole
from accelgen.project.places import TRACES
from accelgen.taxonomy.calls import BASELINE
from accelgen.taxonomy.loading import load_taxonomy

if TYPE_CHECKING:
    from reference_impls.core.generation import Generation

LIMIT = 48
SENTENCES = 2  # for a method that translates: the first held-out ones that it revises, or writes in one pass,
SEARCHED = 100  # among so many
RUNS = {"Greedy": 0.0, "Temperature 0.8": 0.8}  # title of a run -> temperature; the seed is 0


def record(id: str) -> dict[str, Any]:
    """Run the method's `example` on the zoo and describe the runs as plain data.

    The data hold the text of every token that occurs (`pieces`) and what stands between two tokens (`separator`), the
    number of layers (`depth`) or the mask token (`mask`) of the model, and for each run its prompt, its tokens and
    steps as `Generation.to_dict` gives them, the kinds of its tokens and its summary figures.
    `BASELINE` stands for plain decoding. Raises ValueError for a method without implementation.
    """
    module = importlib.import_module(_module(id))
    options = module.example()
    if "model" in options:
        return _sequence_to_sequence(id, module, options)
    return _language_model(id, module, options)


def _module(id: str) -> str:
    if id == BASELINE:
        return f"reference_impls.baselines.{BASELINE}"
    method = load_taxonomy().method(id)
    if not method.is_implemented:
        raise ValueError(f"{id} is not implemented yet, so there is no run to record")
    return method.module


def write_traces(ids: Iterable[str], folder: Path = TRACES) -> list[Path]:
    """Record each method and write `folder`/<id>.json, each file whole or not at all."""
    return [write_json(folder / f"{name}.json", record(name)) for name in ids]


def write_json(path: Path, data: dict[str, Any]) -> Path:
    """Write plain data to a file that is replaced only when the new one is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_whole(path, json.dumps(data, ensure_ascii=False) + "\n")


def _language_model(id: str, module: ModuleType, options: dict[str, Any]) -> dict[str, Any]:
    from reference_impls import zoo
    from reference_impls.core.sampling import Sampler

    prompt = zoo.encode(zoo.prompts()[0])
    runs = []
    for title, temperature in RUNS.items():
        result = module.generate(prompt=prompt, limit=LIMIT, sampler=Sampler(temperature, seed=0), **options)
        runs.append(_run(title, prompt, result, temperature=temperature, seed=0))
    pieces = {str(token): zoo.decode([token]) for token in _tokens(runs)}
    return {"id": id, "separator": "", "depth": options["target"].shape.layers, "pieces": pieces, "runs": runs}


def _sequence_to_sequence(id: str, module: ModuleType, options: dict[str, Any]) -> dict[str, Any]:
    from reference_impls.zoo.tasks import MASK, task

    lite = task("lite")
    sources = (lite.encode(example.source) for example in lite.examples(held_out=True))
    results = ((source, module.generate(source=source, **options)) for source in itertools.islice(sources, SEARCHED))
    shown = ((source, result) for source, result in results if _is_revised(result))
    runs = [
        _run(f"Held-out sentence that is revised, number {number}", source, result)
        for number, (source, result) in enumerate(itertools.islice(shown, SENTENCES), 1)
    ]
    pieces = {str(token): lite.pieces([token])[0] for token in _tokens(runs)}
    return {"id": id, "separator": " ", "mask": MASK, "pieces": pieces, "runs": runs}


def _is_revised(result: Generation) -> bool:
    """Whether a later pass changed what the first one wrote; a single pass cannot."""
    return len(result.steps) == 1 or result.steps[0].canvas != result.tokens


def _run(title: str, prompt: list[int], result: Generation, **settings: float) -> dict[str, Any]:
    figures = ("passes", "draft_passes", "tokens_per_pass", "acceptance", "mean_layers")
    return {
        "title": title,
        "settings": settings,
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
