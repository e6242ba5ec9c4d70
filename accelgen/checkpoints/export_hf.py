"""A method as a `custom_generate` folder of transformers, which runs it on any causal language model.

The folder needs torch and transformers, not this project: it holds the method's bundle, the adapter, and the function
that `generate` calls. Nothing here imports either.
"""

from __future__ import annotations

import ast
import re
import tempfile
from pathlib import Path

from accelgen.exports.bundle import bundle, method_files
from accelgen.exports.formulas import in_plain_text
from accelgen.project.places import REFERENCE, TOOL
from accelgen.taxonomy.schema import Method

WHOLE_PASSES = {"forward", "shape", "device", "new_cache"}  # what the adapter offers of a `LanguageModel`
GIVEN = {"target", "prompt", "limit", "sampler", "eos", "drafter", "drafters", "datastore"}
REQUIREMENTS = "torch\ntransformers>=5\n"
_IMPORT = re.compile(r"^from (?:accelgen|reference_impls)\.(\S+) import ", re.MULTILINE)
_HEADER = """\
# Part of the accelerated-generation project's custom generation method {id}.
# SPDX-License-Identifier: MIT
# Copyright (c) 2026 The accelerated-generation authors
"""
_CARD = """\
---
library_name: transformers
license: mit
tags:
- custom_generate
---

# {name}

{summary}

```python
text = model.generate(
    **tokenizer(prompt, return_tensors="pt"),
    custom_generate="{folder}",  # this folder, or the repository that holds it
    trust_remote_code=True,  # it runs the code in custom_generate/, which is short enough to read first
    max_new_tokens=64,{call}
)
```

It continues one sequence at a time and returns its tokens, as `generate` does. Read from the settings:
`max_new_tokens`, `max_length`, `do_sample`, `temperature`, `top_k`, `top_p` and `eos_token_id`; also `seed`{options}.
Whatever else would change the text is refused with a sentence. Any decoder that keeps keys and values will do, where
it stands: on several devices, quantised, or tensor-parallel.

{guarantee}

`custom_generate/method.py` is the method, unchanged, from the accelerated-generation project, under the MIT licence.
{source}
"""


def obstacle(id: str) -> str | None:
    """Why the method `id` cannot run on a model of transformers as it is; None where it can."""
    tree = ast.parse(method_files()[id].read_text(encoding="utf-8"))
    arguments = _arguments(tree)
    if "target" not in arguments:
        return "it has a model of its own"
    touched = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & layered()
    if touched:
        return f"it runs single layers of the model ({', '.join(sorted(touched))})"
    missing = [name for name, required in arguments.items() if required and name not in GIVEN]
    return f"it needs {missing[0]}, which is made for one model" if missing else None


def exportable() -> list[str]:
    """The ids of all methods that can be exported."""
    return [id for id in method_files() if obstacle(id) is None]


def layered() -> set[str]:
    """The public names of a `LanguageModel` beyond whole passes, read from its source."""
    tree = ast.parse((REFERENCE / "core" / "model.py").read_text(encoding="utf-8"))
    model = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "LanguageModel")
    names = {node.name for node in model.body if isinstance(node, ast.FunctionDef)}
    stored = (node for node in ast.walk(model) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store))
    names |= {node.attr for node in stored}
    return {name for name in names if not name.startswith("_")} - WHOLE_PASSES


def _arguments(tree: ast.Module) -> dict[str, bool]:
    """The parameters of `generate`, and whether each is required."""
    found = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "generate")
    plain = dict.fromkeys((argument.arg for argument in found.args.args), True)
    pairs = zip(found.args.kwonlyargs, found.args.kw_defaults, strict=True)
    return plain | {argument.arg: default is None for argument, default in pairs}


def contents(id: str, folder: str, method: Method | None = None) -> dict[str, str]:
    """The files of the export by their path in the folder. Raises ValueError for a method that cannot be exported.

    `method` is the entry of the taxonomy, from which the card speaks; the baseline has none.
    """
    if (why := obstacle(id)) is not None:
        raise ValueError(f"{id} cannot be exported: {why}; these can: {', '.join(exportable())}")
    return {
        "README.md": _card(id, folder, method),
        "custom_generate/generate.py": _here(id, TOOL / "checkpoints" / "custom_generate.py"),
        "custom_generate/adapter.py": _here(id, TOOL / "checkpoints" / "adapter.py"),
        "custom_generate/method.py": bundle(id),
        "custom_generate/requirements.txt": REQUIREMENTS,
    }


def _here(id: str, path: Path) -> str:
    """A module of the project that imports its neighbours in the folder instead."""
    text = _IMPORT.sub(_neighbour, path.read_text(encoding="utf-8"))
    lines = text.splitlines(keepends=True)
    places = [i for i, line in enumerate(lines) if line.startswith("from .")]
    between = [line for line in lines[places[0] : places[-1] + 1] if line.startswith("from .")]
    return _HEADER.format(id=id) + "".join([*lines[: places[0]], *sorted(between), *lines[places[-1] + 1 :]])


def _neighbour(found: re.Match[str]) -> str:
    return f"from .{'adapter' if found[1] == 'checkpoints.adapter' else 'method'} import "


def _card(id: str, folder: str, method: Method | None) -> str:
    arguments = _arguments(ast.parse(method_files()[id].read_text(encoding="utf-8")))
    drafts = {"drafter": "", "drafters": "  # or several, as a list"}
    call = [f"assistant_model=small_model,{drafts[name]}" for name in arguments if name in drafts]
    call += ["datastore=token_ids,  # of the text to retrieve from"] * ("datastore" in arguments)
    options = [name for name in arguments if name not in GIVEN]
    named = f", and the method's own {', '.join(f'`{name}`' for name in options)}" if options else ""
    summary = ast.get_docstring(ast.parse(method_files()[id].read_text(encoding="utf-8"))) or ""
    paper = method and f"The method is that of {method.paper.title} ({method.paper.year}), {method.paper.url}."
    return _CARD.format(
        name=method.name if method else "Autoregressive decoding",
        summary=in_plain_text(summary.partition("\n\n")[0]),
        folder=folder,
        call="".join(f"\n    {line}" for line in call),
        options=named,
        guarantee=in_plain_text(f"Guarantee: {method.guarantee}. {method.guarantee_reason}")
        if method
        else "It is the baseline.",
        source=paper or "",
    )


def export_hf(id: str, folder: Path, method: Method | None = None) -> Path:
    """Write the folder, whole or not at all. Raises ValueError for a method or a place that will not do."""
    place = folder.absolute()
    files = contents(id, place.name, method)
    if not place.parent.is_dir():
        raise ValueError(f"the directory {folder.parent} does not exist; create it first")
    if place.exists() and not place.is_dir():
        raise ValueError(f"{folder} is a file; name a directory for the export")
    if place.is_dir() and any(place.iterdir()):
        raise ValueError(f"{folder} is not empty; remove it, or name another directory")
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}-") as stage:
        made = Path(stage) / place.name
        for name, text in files.items():
            path = made / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        if place.is_dir():
            place.rmdir()
        made.rename(place)
    return place
