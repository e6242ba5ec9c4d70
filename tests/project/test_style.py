"""The budgets and manners that keep the methods and the core readable, where the linter cannot see them."""

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from accelgen.exports.bundle import core_modules, method_files
from accelgen.project.places import REFERENCE
from accelgen.site.docstring import SECTIONS, parse
from accelgen.taxonomy.loading import load_taxonomy

METHODS = method_files()
CORE = {path.stem: path for path in sorted((REFERENCE / "core").glob("*.py"))}
FILES = {**METHODS, **{f"core.{name}": path for name, path in CORE.items()}}
Function = ast.FunctionDef | ast.AsyncFunctionDef

each_file = pytest.mark.parametrize("path", FILES.values(), ids=FILES)
each_method = pytest.mark.parametrize("path", METHODS.values(), ids=METHODS)


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def code_lines(source: str) -> set[int]:
    """The numbers of the lines that hold code: no docstring, comment or blank."""
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {n for t in tokens if t.type not in silent for n in range(t.start[0], t.end[0] + 1)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, node.end_lineno + 1))  # type: ignore[operator]
    return lines


def functions(path: Path) -> Iterator[Function]:
    yield from (node for node in ast.walk(tree(path)) if isinstance(node, Function))


def imported(node: ast.AST) -> list[str]:
    """The modules that a statement imports; `from a import b` counts as a.b where a is this package or its zoo's."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        origin = "." * node.level + (node.module or "")
        return [f"{origin}.{alias.name}" for alias in node.names] if origin == "reference_impls" else [origin]
    return []


def allowed(module: str) -> bool:
    foreign = module.partition(".")[0] not in sys.stdlib_module_names | {"torch"}
    return not foreign or module.startswith("reference_impls.core.")


def test_counting_leaves_out_docstrings_comments_and_blanks() -> None:
    source = '''
"""Doc

string."""

# why
x = """a
b"""  # two lines


def f():
    """Doc."""
    return (
        1,
    )
'''
    assert sorted(code_lines(source)) == [7, 8, 11, 13, 14, 15]


def definitions(path: Path) -> list[Function | ast.ClassDef]:
    """The functions and classes of a file, from top to bottom."""
    return [node for node in tree(path).body if isinstance(node, Function | ast.ClassDef)]


def decoding(path: Path) -> list[Function | ast.ClassDef]:
    """What decodes: all that stands between the imports and `example`, but for what refuses wrong options."""
    nodes = definitions(path)
    before = nodes[: [node.name for node in nodes].index("example")]
    return [node for node in before if not node.name.startswith("check_")]


@each_method
def test_method_keeps_its_budgets(path: Path) -> None:
    """At most 160 lines of code, of which 90 decode.

    Signatures are left out of the 90: the formatter gives every parameter a line, and nobody has to follow them.
    """
    lines = code_lines(path.read_text(encoding="utf-8"))
    assert len(lines) <= 160
    bodies = [part for node in decoding(path) for part in ast.walk(node) if isinstance(part, Function)]
    bodies += [node for node in decoding(path) if isinstance(node, ast.ClassDef)]
    inside = {n for node in bodies for n in range(node.body[0].lineno, (node.end_lineno or 0) + 1)}
    heads = {n for node in bodies if isinstance(node, Function) for n in range(node.lineno, node.body[0].lineno)}
    assert len(lines & inside - heads) <= 90


@each_method
def test_method_stands_in_reading_order(path: Path) -> None:
    """`generate`, its helpers, modules, `example`; then what trains and calibrates."""
    names = [node.name for node in definitions(path)]
    assert names[0] == "generate"
    assert "loss" not in names[: names.index("example")]
    modules = [any(ast.unparse(b).endswith("Module") for b in getattr(node, "bases", [])) for node in decoding(path)]
    assert modules == sorted(modules), "a module stands before a helper that decodes"


@each_method
def test_right_above_each_loop_stands_what_holds_between_its_turns(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    generate = definitions(path)[0]
    loops = [node.lineno for node in generate.body if isinstance(node, ast.While)]
    assert all(lines[line - 2].startswith("    # ") for line in loops)


def test_core_keeps_its_budget() -> None:
    sizes = {name: len(code_lines(path.read_text(encoding="utf-8"))) for name, path in CORE.items()}
    assert max(sizes.values()) <= 150, sizes


@each_file
def test_functions_and_lines_are_short(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert max(map(len, source.splitlines()), default=0) <= 120
    lines = code_lines(source)
    sizes = {f.name: sum(f.lineno <= n <= (f.end_lineno or 0) for n in lines) for f in functions(path)}
    assert not {name: size for name, size in sizes.items() if size > 40}


@each_method
def test_docstring_has_its_sections_in_order(path: Path) -> None:
    page = parse(path.read_text(encoding="utf-8"))
    assert page.summary
    assert tuple(page.sections) == SECTIONS
    assert all(page.sections.values())


@each_method
def test_method_imports_only_torch_and_the_core(path: Path) -> None:
    """And the models of the zoo, inside `example` alone: so that a copied file does not need them."""
    for node in tree(path).body:
        names = [name for part in ast.walk(node) for name in imported(part)]
        if isinstance(node, ast.FunctionDef) and node.name == "example":
            names = [name for name in names if not name.startswith("reference_impls.zoo")]
        assert all(map(allowed, names)), names


@each_method
def test_method_imports_at_the_top(path: Path) -> None:
    """The bundle reads imports there; `example` is not bundled."""
    nested = [f.name for f in functions(path) if any(imported(part) for part in ast.walk(f))]
    assert set(nested) <= {"example"}


@pytest.mark.parametrize("path", CORE.values(), ids=CORE)
def test_core_imports_only_torch_and_itself_and_names_no_method(path: Path) -> None:
    module = tree(path)
    names = [name for node in ast.walk(module) for name in imported(node)]
    assert all(map(allowed, names)), names
    own = {node.name for node in ast.walk(module) if isinstance(node, Function | ast.ClassDef)} | {path.stem}
    spelled = {name.lower().replace("_", "") for name in own}
    assert not spelled & {method.id.replace("-", "") for method in load_taxonomy().methods}


@each_file
def test_no_printing_argument_parsing_or_timing(path: Path) -> None:
    module = tree(path)
    imports = {name.split(".")[0] for node in ast.walk(module) for name in imported(node)}
    assert not imports & {"argparse", "datetime", "logging", "time", "timeit"}
    assert not [node for node in ast.walk(module) if isinstance(node, ast.Name) and node.id == "print"]


@each_file
def test_top_level_is_definitions_only(path: Path) -> None:
    """What the bundle can take apart: docstring, plain imports of names from the core, definitions, constants."""
    for node in tree(path).body:
        assert isinstance(
            node, ast.Expr | ast.Import | ast.ImportFrom | Function | ast.ClassDef | ast.Assign | ast.AnnAssign
        )
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("reference_impls"):
            assert node.module in core_modules(), f"import names from a module of the core, not {node.module}"
            assert all(alias.asname is None for alias in node.names), "a bundle cannot rename"


@each_file
def test_public_names_are_described_and_annotated(path: Path) -> None:
    module = tree(path)
    classes = [node for node in module.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    found = [node for holder in [module, *classes] for node in holder.body if isinstance(node, Function)]
    public = [node for node in found if not node.name.startswith("_")]
    assert not [node.name for node in [*classes, *public] if not ast.get_docstring(node)]
    for node in public:
        arguments = [a for a in [*node.args.args, *node.args.kwonlyargs] if a.arg not in {"self", "cls"}]
        assert node.returns, f"{node.name} does not say what it returns"
        assert all(a.annotation for a in arguments), f"{node.name} has an argument without a type"
