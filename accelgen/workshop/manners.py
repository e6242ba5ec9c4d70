"""The manners that keep methods and core readable, where a linter cannot see: budgets, order, what may stand where.

Everything is read from the syntax tree; a complaint is a sentence.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Iterator, Sequence

from accelgen.exports.bundle import core_modules
from accelgen.site.docstring import SECTIONS, parse

DECODES, WHOLE, CORE, FUNCTION, WIDTH = 90, 160, 150, 40, 120  # lines of code, and columns
Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef
SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
ELSEWHERE = {"argparse", "datetime", "logging", "time", "timeit"}  # modules that neither methods nor core need


def code_lines(source: str) -> set[int]:
    """The numbers of the lines that hold code: no docstring, comment or blank."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {n for t in tokens if t.type not in SILENT for n in range(t.start[0], t.end[0] + 1)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def of_a_method(source: str) -> Iterator[str]:
    """What is wrong with the source of a method."""
    yield from _everywhere(source)
    page = parse(source)
    if not page.summary or tuple(page.sections) != SECTIONS or not all(page.sections.values()):
        yield f"the docstring has a summary and then the sections {', '.join(SECTIONS)}, none of them empty"
    yield from _order(source)
    yield from _budgets(source)
    for node in ast.parse(source).body:
        names = [name for part in ast.walk(node) for name in _imported(part)]
        if isinstance(node, Function) and node.name == "example":
            names = [name for name in names if not name.startswith("reference_impls.zoo")]
        elif isinstance(node, Definition) and names:
            yield f"{node.name} imports {names[0]} inside; only example does that, as a copied file goes without it"
        yield from _strangers(names)


def of_the_core(source: str) -> Iterator[str]:
    """What is wrong with the source of a module of the core."""
    yield from _everywhere(source)
    if (size := len(code_lines(source))) > CORE:
        yield f"it has {size} lines of code, and a module of the core has {CORE} at most"
    yield from _strangers([name for node in ast.walk(ast.parse(source)) for name in _imported(node)])


def _everywhere(source: str) -> Iterator[str]:
    tree, lines = ast.parse(source), code_lines(source)
    if max(map(len, source.splitlines()), default=0) > WIDTH:
        yield f"a line is longer than {WIDTH} characters"
    for node in ast.walk(tree):
        if isinstance(node, Function) and len(lines & _span(node)) > FUNCTION:
            yield f"{node.name} has {len(lines & _span(node))} lines of code, and a function has {FUNCTION} at most"
        if isinstance(node, ast.Name) and node.id == "print":
            yield "it prints; what is shown is the caller's"
        for name in set(_imported(node)) & ELSEWHERE:
            yield f"it imports {name}; arguments, time and logs are the caller's"
    yield from _top_level(tree)
    yield from _public(tree)


def _top_level(tree: ast.Module) -> Iterator[str]:
    """What a bundle can take apart: docstring, plain imports of names from the core, definitions, constants."""
    kinds = ast.Expr | ast.Import | ast.ImportFrom | Definition | ast.Assign | ast.AnnAssign
    for node in tree.body:
        if not isinstance(node, kinds):
            yield f"line {node.lineno} is no definition; at the top level stand imports, definitions and constants"
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("reference_impls"):
            if node.module not in core_modules():
                yield f"it imports from {node.module}; names come from a module of the core"
            if any(alias.asname for alias in node.names):
                yield f"it renames what it imports from {node.module}, which a copied file cannot"


def _public(tree: ast.Module) -> Iterator[str]:
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    holders: list[ast.Module | ast.ClassDef] = [tree, *classes]
    found = [node for holder in holders for node in holder.body if isinstance(node, Function)]
    public = [node for node in found if not node.name.startswith("_")]
    yield from (f"{node.name} has no docstring" for node in [*classes, *public] if not ast.get_docstring(node))
    for node in public:
        arguments = [a for a in [*node.args.args, *node.args.kwonlyargs] if a.arg not in {"self", "cls"}]
        if not node.returns or not all(a.annotation for a in arguments):
            yield f"{node.name} does not say the types of all that it takes and gives"


def _order(source: str) -> Iterator[str]:
    """`generate`, its helpers, modules, `example`; then what trains and calibrates."""
    nodes = _definitions(source)
    names = [node.name for node in nodes]
    if names[:1] not in (["generate"], ["predict"]) or "example" not in names:
        yield "its first definition is generate, and example follows what decodes"
        return
    if "loss" in names[: names.index("example")]:
        yield "loss stands above example; what trains and calibrates comes last"
    modules = [any(ast.unparse(b).endswith("Module") for b in getattr(node, "bases", [])) for node in _decoding(nodes)]
    if modules != sorted(modules):
        yield "a module stands before a helper that decodes; modules come last of what decodes"
    lines = source.splitlines()
    loops = [node.lineno for node in nodes[0].body if isinstance(node, ast.While)]
    if not all(lines[line - 2].startswith("    # ") for line in loops):
        yield "right above the loop no comment says what holds between its turns"


def _budgets(source: str) -> Iterator[str]:
    """Signatures do not count among what decodes: the formatter gives every parameter a line, and nobody follows them.

    Nor does what refuses wrong options.
    """
    lines, nodes = code_lines(source), _definitions(source)
    if len(lines) > WHOLE:
        yield f"it has {len(lines)} lines of code, and a method has {WHOLE} at most"
    if "example" not in [node.name for node in nodes]:
        return
    walked = [part for node in _decoding(nodes) for part in ast.walk(node)]
    parts: list[Definition] = [part for part in walked if isinstance(part, Definition)]
    inside = {n for node in parts for n in range(node.body[0].lineno, (node.end_lineno or 0) + 1)}
    heads = {n for node in parts if isinstance(node, Function) for n in range(node.lineno, node.body[0].lineno)}
    if (size := len(lines & inside - heads)) > DECODES:
        yield f"{size} lines of its code decode, and {DECODES} may"


def _definitions(source: str) -> list[Definition]:
    return [node for node in ast.parse(source).body if isinstance(node, Definition)]


def _decoding(nodes: Sequence[Definition]) -> list[Definition]:
    """What stands before `example`, but for what refuses wrong options."""
    before = nodes[: [node.name for node in nodes].index("example")]
    return [node for node in before if not node.name.startswith("check_")]


def _span(node: Function) -> set[int]:
    return set(range(node.lineno, (node.end_lineno or 0) + 1))


def _imported(node: ast.AST) -> list[str]:
    """The modules that a statement imports; `from a import b` counts as a.b where a is the project itself."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        origin = "." * node.level + (node.module or "")
        return [f"{origin}.{alias.name}" for alias in node.names] if origin == "reference_impls" else [origin]
    return []


def _strangers(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        own = name.partition(".")[0] in sys.stdlib_module_names | {"torch"}
        if not own and not name.startswith("reference_impls.core."):
            yield f"it imports {name}; what people copy needs torch and reference_impls.core only"
