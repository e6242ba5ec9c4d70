"""`accelgen copy`: one file that runs without the project and gives the same tokens."""

import ast
import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from accelgen.exports.bundle import bundle, core_modules, method_files, parse
from accelgen.project.places import ROOT
from accelgen.taxonomy.loading import TaxonomyError

IDS = list(method_files())

# Runs one bundle after another, each in a namespace of its own, where the project cannot be imported.
ALONE = """
import json, runpy, sys
from types import SimpleNamespace
sys.modules["reference_impls"] = None
for file in sys.argv[1:]:
    try:
        result = tiny_run(file.removesuffix(".py"), SimpleNamespace(**runpy.run_path(file)))
    except Exception as error:
        result = f"{type(error).__name__}: {error}"
    print(json.dumps([file.removesuffix(".py"), result]))
"""


def tiny_run(method: str, m: Any) -> list[int]:
    """Tokens of a short run of a method on tiny random models, all built from the names in `m`."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    shape = {"vocab": 7, "dim": 8, "heads": 2, "kv_heads": 1, "head_dim": 4, "hidden": 16}

    def language_model(layers: int) -> Any:
        return m.LanguageModel(m.Shape(layers=layers, **shape)).double()

    def generate(**options: Any) -> Any:
        return m.generate(language_model(4), [1, 2, 3], 12, sampler=m.Sampler(1.0, seed=1), **options)

    runs = {
        "autoregressive": generate,
        "translation": lambda: m.generate(
            m.EncoderDecoder(m.Shape(layers=1, **shape), 9).double(),
            [2, 3, 4],
            5,
            sampler=m.Sampler(1.0, seed=1),
            eos=1,
        ),
        "speculative-decoding-leviathan": lambda: generate(drafter=language_model(1), gamma=3),
        "speculative-sampling-chen": lambda: generate(drafter=language_model(1), gamma=3),
        "blockwise-parallel-decoding": lambda: generate(heads=m.BlockHeads(m.Shape(layers=4, **shape)).double()),
        "medusa": lambda: generate(
            heads=m.MedusaHeads(m.Shape(layers=4, **shape), 3).double(), choices=[(0,), (1,), (0, 0)]
        ),
        "bild": lambda: generate(drafter=language_model(1), fallback=0.2, rollback=1.5, gamma=3),
        "eagle": lambda: generate(drafter=m.EagleDrafter(m.Shape(layers=4, **shape)).double()),
        "rest": lambda: generate(datastore=m.Datastore([1, 2, 3, 4, 5, 6, 1, 3, 5, 0, 2, 4, 6, 0, 3, 6]), gamma=3),
        "triforce": lambda: generate(
            drafter=language_model(1), gamma=2, gamma_2=3, budget=8, chunk=2, sinks=1, recent=5, stride=4
        ),
        "specinfer": lambda: generate(drafters=[language_model(1), language_model(1)], expansion=(2, 1)),
        "cascade-speculative-drafting": lambda: generate(
            drafters=[language_model(1)],
            max_gram=m.MaxGram(m.Shape(layers=1, **shape)),
            k_matrix=((2, 1), (0, 2)),
            lenience=0.5,
        ),
        "layerskip": lambda: generate(exit_layer=2, gamma=3),
        "block-verification": lambda: generate(drafter=language_model(1), gamma=3),
        "jacobi-parallel-decoding": lambda: generate(block=4),
        "self-speculative-decoding": lambda: generate(skip_attention=[1, 3], skip_feed=[0, 2], threshold=0.1),
        "free": lambda: generate(exit_layer=2, threshold=0.05, estimator=m.ThresholdEstimator(), rollback=1.5),
        "calm": lambda: generate(exits=[1, 2], threshold=0.2),
        "mask-predict": lambda: m.generate(
            m.ConditionalMaskedModel(m.Shape(layers=1, **shape), 9, pad=0, mask_id=1).double(), [2, 3, 4], iterations=3
        ),
        "nart-crf": lambda: m.generate(
            m.StructuredModel(m.Shape(layers=1, **shape), 9, pad=0, end=1).double(),
            [2, 3, 4],
            beam=3,
            candidates=3,
            teacher=m.EncoderDecoder(m.Shape(layers=1, **shape), 9).double(),
        ),
        "nat-fertility": lambda: m.generate(
            m.FertilityModel(m.Shape(layers=1, **shape), 9, pad=0, end=1).double(),
            [2, 3, 4],
            decoding="noisy",
            teacher=m.EncoderDecoder(m.Shape(layers=1, **shape), 9).double(),
        ),
    }
    tokens: list[int] = runs[method]().tokens
    return tokens


@pytest.fixture(scope="module")
def tokens_alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    folder = tmp_path_factory.mktemp("bundles")
    files = [f"{name}.py" for name in IDS]
    for name in IDS:
        (folder / f"{name}.py").write_text(bundle(name), encoding="utf-8")
    command = [sys.executable, "-I", "-c", "from typing import Any\n" + inspect.getsource(tiny_run) + ALONE, *files]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines())


@pytest.mark.parametrize("method", IDS)
def test_bundle_runs_alone_with_the_same_tokens(method: str, tokens_alone: dict[str, list[int]]) -> None:
    path = method_files()[method].relative_to(ROOT).with_suffix("")
    names: dict[str, Any] = {}
    for module in [*core_modules(), ".".join(path.parts)]:
        names |= vars(importlib.import_module(module))
    expected = tiny_run(method, SimpleNamespace(**names))
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
