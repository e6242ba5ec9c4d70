"""The rooms of the house: arrows between them go one way, nothing stands outside, and no name stands for two things."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from accelgen.project.places import REFERENCE, ROOT, TOOL

# From bottom to top: a room imports from itself and from those before it.
REFERENCE_ROOMS = (
    "core", "baselines", "speculative_decoding", "early_exiting", "non_autoregressive", "zoo", "testing",
)  # fmt: skip
TOOL_ROOMS = ("project", "taxonomy", "exports", "checkpoints", "training", "measuring", "site", "workshop", "cli")
ORDER = [f"reference_impls.{room}" for room in REFERENCE_ROOMS] + [f"accelgen.{room}" for room in TOOL_ROOMS]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for package in (REFERENCE, TOOL)
    for path in sorted(package.rglob("*.py"))
}


def room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def imports(path: Path) -> Iterator[str]:
    """The modules of the project that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (
                alias.name for alias in node.names if alias.name.partition(".")[0] in {"accelgen", "reference_impls"}
            )
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in {
            "accelgen",
            "reference_impls",
        }:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def targets(module: str) -> list[str]:
    """The files that a module imports."""
    found = []
    for name in imports(FILES[module]):
        full = next((known for known in (name, name.rpartition(".")[0]) if known in FILES), None)
        package = next((known for known in (name, name.rpartition(".")[0]) if f"{known}.__init__" in FILES), None)
        found.append(full or f"{package}.__init__")
    return found


@pytest.mark.parametrize("module", [name for name in FILES if name.count(".") > 1])
def test_arrows_between_rooms_go_one_way(module: str) -> None:
    """The examples of the methods alone look up, to the zoo, late and inside `example`."""
    for name in targets(module):
        if room(name) == "reference_impls.zoo" and room(module) in ORDER[1:5]:
            continue
        assert name.count(".") == 1 or ORDER.index(room(name)) <= ORDER.index(room(module)), f"{module} imports {name}"


def test_the_tool_names_its_rooms_from_bottom_to_top() -> None:
    said = ast.get_docstring(ast.parse(FILES["accelgen.__init__"].read_text(encoding="utf-8"))) or ""
    assert [name for name in re.findall(r"`(\w+)`", said) if name != "reference_impls"] == list(TOOL_ROOMS)


MAPPED = ["reference_impls.core", "reference_impls.testing", "accelgen.measuring", "accelgen.cli"]


@pytest.mark.parametrize("mapped", MAPPED)
def test_a_map_of_a_room_names_every_module(mapped: str) -> None:
    """The map is the last paragraph of what the room says of itself."""
    said = ast.get_docstring(ast.parse(FILES[f"{mapped}.__init__"].read_text(encoding="utf-8"))) or ""
    names = [name.removeprefix(f"{mapped}.") for name in FILES if name.startswith(f"{mapped}.")]
    modules = sorted(name for name in names if name != "__init__" and "." not in name)
    assert sorted(re.findall(r"`(\w+)`", said.rpartition("\n\n")[2])) == modules


def test_no_module_stands_outside_a_room() -> None:
    assert {room(name) for name in FILES if not name.endswith("__init__") or name.count(".") > 1} == set(ORDER)


def test_no_name_stands_for_two_modules() -> None:
    """A case, a recipe and a method share the method's id on purpose."""
    shared = ("reference_impls.testing.cases.", "accelgen.training.recipes.")
    names = [name.rpartition(".")[2] for name in FILES if not name.startswith(shared) and not name.endswith("__init__")]
    assert not [name for name, count in Counter(names).items() if count > 1]
    assert not set(names) & {name.rpartition(".")[2] for name in ORDER}


def test_no_circle_between_files() -> None:
    graph = {module: {name for name in targets(module) if name != module} for module in FILES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a circle: {' -> '.join([*path[path.index(module) :], module])}"
        if module not in done:
            for name in sorted(graph[module]):
                visit(name, (*path, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())
