"""A method as one file: its module, and exactly those definitions of the core that it uses, in front of it."""

from __future__ import annotations

import ast
import functools
import graphlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from accelgen.project.places import REFERENCE
from accelgen.taxonomy.loading import TaxonomyError, suggestion

FAMILIES = ("speculative_decoding", "early_exiting", "non_autoregressive")
BASELINES = "baselines"

# Python takes "coding:" in the first lines for the name of an encoding, so no colon follows an id like …-decoding.
_HEADER = """\
# Standalone copy of a reference implementation of the accelerated-generation project.
# Method: {id}
#
# In front of the method stand exactly those definitions of the project's core that it uses. Nothing is changed; the
# example alone is left out, as it needs the project's trained models. Runs with Python 3.11 or later and PyTorch.
#
# SPDX-License-Identifier: MIT
# Copyright (c) 2026 The accelerated-generation authors
"""
_RULE = "# " + "-" * 118
_EXAMPLE = re.compile(r'\n\nExample\n-+\n.*?(?=\n?"""$)', re.DOTALL)


class Piece(NamedTuple):
    """A top-level definition: its source with the comments right above it, and the file's names that it mentions."""

    source: str
    names: frozenset[str]


class Module(NamedTuple):
    """A source file taken apart. `imports` maps each bound name to where it comes from: (module, name or None)."""

    docstring: str
    imports: dict[str, tuple[str, str | None]]
    pieces: dict[str, Piece]


def method_files() -> dict[str, Path]:
    """The file of every implemented method and of the baselines, by id."""
    files = [path for folder in (BASELINES, *FAMILIES) for path in (REFERENCE / folder).glob("*.py")]
    return {path.stem.replace("_", "-"): path for path in sorted(files) if path.stem != "__init__"}


def bundle(id: str) -> str:
    """The standalone file of the method `id`. Raises TaxonomyError if no such method is implemented."""
    files = method_files()
    if id not in files:
        raise TaxonomyError(f"no implemented method is called {id!r}{suggestion(id, files)}")
    method, core = parse(files[id]), core_modules()
    own = [piece for name, piece in method.pieces.items() if name != "example"]
    owner = {name: module for module in core.values() for name in module.pieces}
    used: set[str] = set()
    new = {name for piece in own for name in piece.names & owner.keys()}
    while new:
        used |= new
        new = {name for user in new for name in owner[user].pieces[user].names & owner.keys()} - used
    shared = [piece for module in core.values() for name, piece in module.pieces.items() if name in used]
    mentioned = {name for piece in [*shared, *own] for name in piece.names}
    imports = {k: v for module in [*core.values(), method] for k, v in module.imports.items() if k in mentioned}
    sections = []
    for title, pieces in (("Core", shared), ("Method", own)):
        sources = dict.fromkeys(piece.source for piece in pieces)  # one statement may bind several names
        sections.append(f"{_RULE}\n# {title}\n{_RULE}\n\n\n" + "\n\n".join(sources))
    docstring = _EXAMPLE.sub("", method.docstring)
    return f"{_HEADER.format(id=id)}{docstring}\n\n{_import_block(imports)}\n\n" + "\n\n".join(sections)


@functools.cache
def core_modules() -> dict[str, Module]:
    """The modules of the core by full name, each after those that it imports."""
    modules = {f"reference_impls.core.{path.stem}": parse(path) for path in sorted((REFERENCE / "core").glob("*.py"))}
    needs = {name: sorted({origin for origin, _ in parsed.imports.values()}) for name, parsed in modules.items()}
    return {name: modules[name] for name in graphlib.TopologicalSorter(needs).static_order() if name in modules}


def parse(path: Path) -> Module:
    """Take a source file apart into docstring, imports and definitions."""
    text = path.read_text(encoding="utf-8")
    lines, module = text.splitlines(keepends=True), Module("", {}, {})
    for node in ast.parse(text).body:
        match node:
            case ast.Import(names):
                module.imports.update({a.asname or a.name: (a.name, None) for a in names})
            case ast.ImportFrom(origin, names):
                module.imports.update({a.asname or a.name: (origin or "", a.name) for a in names})
            case ast.Expr():
                module = module._replace(docstring="".join(lines[node.lineno - 1 : node.end_lineno]).rstrip())
            case _:
                start = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]) - 1
                while start and lines[start - 1].startswith("#"):
                    start -= 1
                names_used = frozenset(n.id for n in ast.walk(node) if isinstance(n, ast.Name))
                piece = Piece("".join(lines[start : node.end_lineno]), names_used)
                module.pieces.update(dict.fromkeys(_defined(node), piece))
    known = module.imports.keys() | module.pieces.keys()
    module.pieces.update({name: piece._replace(names=piece.names & known) for name, piece in module.pieces.items()})
    return module


def _defined(node: ast.stmt) -> list[str]:
    """The names that a top-level statement binds; those of a comprehension are its own."""
    match node:
        case ast.FunctionDef(name) | ast.ClassDef(name):
            return [name]
        case ast.Assign(targets):
            bound: Sequence[ast.AST] = targets
        case ast.AnnAssign(target):
            bound = [target]
        case _:
            bound = [node]
    return [n.id for part in bound for n in ast.walk(part) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]


def _import_block(imports: dict[str, tuple[str, str | None]]) -> str:
    """Merged and sorted: `__future__`, the standard library, the rest."""
    members: dict[str, list[str]] = {}
    groups: list[list[str]] = [[], []]
    for bound, (origin, name) in sorted(imports.items(), key=lambda item: item[1][0]):
        if name is None:
            line = f"import {origin}" if bound == origin else f"import {origin} as {bound}"
            groups[_is_foreign(origin)].append(line)
        elif not origin.startswith("reference_impls."):
            members.setdefault(origin, []).append(name if name == bound else f"{name} as {bound}")
    for origin, names in members.items():
        names.sort(key=lambda name: (not name.isupper(), not name[0].isupper(), name))  # constants, classes, functions
        groups[_is_foreign(origin)].append(f"from {origin} import {', '.join(names)}")
    blocks = [["from __future__ import annotations"], *groups]
    return "\n\n".join("\n".join(lines) for lines in blocks if lines)


def _is_foreign(module: str) -> bool:
    return module.partition(".")[0] not in sys.stdlib_module_names
