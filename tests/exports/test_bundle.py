"""`accelgen copy`: one file that runs without the project and gives the same tokens."""

import ast
import importlib
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from calling import tiny_call

from accelgen.exports.bundle import bundle, core_modules, method_files, parse
from accelgen.project.places import ROOT
from accelgen.taxonomy.loading import TaxonomyError

IDS = list(method_files())

# Runs one bundle after another, each in a namespace of its own, where the project cannot be imported: the calls come
# pickled, and every class and function of the project stands for the bundle's own of the same name.
ALONE = """
import json, pathlib, pickle, runpy, sys
import torch
torch.set_num_threads(1)
sys.modules["reference_impls"] = None
for file in sys.argv[1:]:
    try:
        names = runpy.run_path(file)
        class Bundled(pickle.Unpickler):
            def find_class(self, module, name):
                own = module.startswith("reference_impls")
                return names[name] if own else super().find_class(module, name)
        with pathlib.Path(file).with_suffix(".call").open("rb") as call:
            found = names["generate"](**Bundled(call).load())
        result = [row.tokens for row in found] if isinstance(found, list) else found.tokens
    except Exception as error:
        result = f"{type(error).__name__}: {error}"
    print(json.dumps([file.removesuffix(".py"), result]))
"""


def module_of(id: str) -> Any:
    path = method_files()[id].relative_to(ROOT).with_suffix("")
    return importlib.import_module(".".join(path.parts))


@pytest.fixture(scope="module")
def tokens_alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    folder = tmp_path_factory.mktemp("bundles")
    for id in IDS:
        (folder / f"{id}.py").write_text(bundle(id), encoding="utf-8")
        (folder / f"{id}.call").write_bytes(pickle.dumps(tiny_call(id, module_of(id).generate)))
    command = [sys.executable, "-I", "-c", ALONE, *(f"{id}.py" for id in IDS)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines())


@pytest.mark.parametrize("method", IDS)
def test_bundle_runs_alone_with_the_same_tokens(method: str, tokens_alone: dict[str, list[int]]) -> None:
    generate = module_of(method).generate
    found = generate(**tiny_call(method, generate))
    expected = [row.tokens for row in found] if isinstance(found, list) else found.tokens
    assert expected
    assert tokens_alone[method] == expected


@pytest.mark.parametrize("name", IDS)
def test_bundle_holds_the_method_and_exactly_what_it_uses(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bundle.py"
    path.write_text(bundle(name), encoding="utf-8")
    bundled, method = parse(path), parse(method_files()[name])
    shared = bundled.pieces.keys() - method.pieces.keys()
    assert method.pieces.keys() - bundled.pieces.keys() == {"example"}
    assert all(bundled.pieces[own].source == piece.source for own, piece in method.pieces.items() if own != "example")
    assert shared <= {own for core in core_modules().values() for own in core.pieces}
    for part in shared:
        users = [other for other, piece in bundled.pieces.items() if other != part and part in piece.names]
        assert users, f"nothing in the bundle uses {part}"
    origins = {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
    assert not any(origin.startswith("reference_impls") for origin in origins)
    assert ">>>" not in bundled.docstring
    assert "Algorithm\n---------\n" in bundled.docstring


def test_bundles_are_clean_code(tmp_path: Path) -> None:
    """No undefined or unused name, imports in order, layout as the formatter would have it."""
    for name in IDS:
        (tmp_path / f"{name}.py").write_text(bundle(name), encoding="utf-8")
    ruff, options = [sys.executable, "-m", "ruff"], ["--isolated", "--no-cache", "--line-length=120", str(tmp_path)]
    for command in (["check", "--select=F,I,W"], ["format", "--diff"]):
        done = subprocess.run([*ruff, *command, *options], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_header_names_method_and_licence() -> None:
    header = bundle("speculative-decoding-leviathan").split('"""')[0]
    assert "# Method: speculative-decoding-leviathan\n" in header
    assert "SPDX-License-Identifier: MIT" in header


def test_unknown_id_names_the_nearest() -> None:
    with pytest.raises(TaxonomyError, match=r"'autoregresive'; did you mean 'autoregressive'\?$"):
        bundle("autoregresive")


def test_names_are_unique_across_the_core_and_not_taken_by_a_method() -> None:
    """Bundling is concatenation, so a name must mean one thing: in the core, and beside a method."""
    core = core_modules()
    owners = [name for module in core.values() for name in module.pieces]
    assert len(owners) == len(set(owners)), sorted(name for name in set(owners) if owners.count(name) > 1)
    bound: dict[str, tuple[str, str | None]] = {}
    for module in core.values():
        for name, origin in module.imports.items():
            assert bound.setdefault(name, origin) == origin, f"{name} is imported from two places"
    for id_, path in method_files().items():
        method = parse(path)
        assert not method.pieces.keys() & (set(owners) | bound.keys()), f"{id_} defines a name of the core"
        clashes = [name for name, origin in method.imports.items() if bound.get(name, origin) != origin]
        assert not clashes, f"{id_} imports {clashes} from elsewhere than the core does"
