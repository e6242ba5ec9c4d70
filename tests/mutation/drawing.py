"""Random mutants: small changes of the syntax tree, drawn by seed, uniformly over modules and then over places.

A change replaces exactly the text of one node, so that a survivor can be read, and pasted into a list, as one line.
What a reader or a type checker reads and the program does not is left alone, and so are messages and `example()`.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Iterable, Iterator
from itertools import pairwise

from .changes import ROOT, Change
from .equivalents import EQUIVALENTS

Edit = tuple[int, int, str]  # replace these bytes of the source by this text

OPERATORS: dict[type[ast.AST], tuple[str, ...]] = {  # how it is spelled, and what it may be confused with
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "%"),
    ast.Mod: ("%", "//"),
    ast.Pow: ("**", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.BitXor: ("^", "|"),
    ast.Lt: ("<", "<=", ">="),
    ast.LtE: ("<=", "<", ">"),
    ast.Gt: (">", ">=", "<="),
    ast.GtE: (">=", ">", "<"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.And: ("and", "or"),
    ast.Or: ("or", "and"),
}
OPPOSITES = {"min": "max", "amin": "amax", "argmin": "argmax", "minimum": "maximum", "any": "all"}
OPPOSITES |= {other: one for one, other in OPPOSITES.items()}
EITHER = {"min", "max"}  # functions of two values in any order
KIT = "reference_impls/testing/"
UNREAD = {"annotation", "returns", "decorator_list", "bases", "msg"}  # fields that do not decide what is computed


def drawn(files: Iterable[str], count: int, seed: int) -> list[Change]:
    """`count` random mutants of these modules, or as many as there are places; the same seed draws the same ones."""
    chance, found = random.Random(seed), list[Change]()
    equal = {change.text() for change in EQUIVALENTS}
    left = {file: shuffled(file, chance) for file in sorted(files)}
    while left and len(found) < count:
        file = chance.choice(list(left))
        change = next(left[file], None)
        if change is None:
            del left[file]
        elif change.text() not in equal:
            found.append(change)
    return found


def shuffled(file: str, chance: random.Random) -> Iterator[Change]:
    """Every place of a module once, each with one of the changes that it allows."""
    source = Source(file)
    places = source.places()
    chance.shuffle(places)
    for place in places:
        change = source.change(*chance.choice(place))
        if source.differs(change):
            yield change


class Source:
    """The text of a module with its syntax tree: where a node stands, and what a small change makes of it."""

    def __init__(self, file: str) -> None:
        self.file, self.data = file, (ROOT / file).read_bytes()
        self.tree = ast.parse(self.data)
        self.starts = [0]
        for line in self.data.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        kit = self.file.startswith(KIT)
        self.tried = set(ast.walk(self.tree)) - judged(self.tree) if kit else set()
        self.again = {one for node in ast.walk(self.tree) for one in reassigned(node)}

    def span(self, node: ast.AST) -> tuple[int, int]:
        """The bytes at which a node begins and ends."""
        return self.starts[node.lineno - 1] + node.col_offset, self.starts[node.end_lineno - 1] + node.end_col_offset

    def of(self, node: ast.AST) -> str:
        """The text of a node."""
        start, end = self.span(node)
        return self.data[start:end].decode()

    def places(self) -> list[list[Edit]]:
        """For every place of the module that can be changed, the edits that it allows."""
        return [found for node in nodes(self.tree) if (found := list(edits(node, self)))]

    def change(self, start: int, end: int, new: str) -> Change:
        """The edit as a change of whole lines: its own, and as many around it as tell it from other places."""
        data = self.data + b"\n"
        first, last = data.rfind(b"\n", 0, start) + 1, data.index(b"\n", end)
        first += len(data[first:start]) - len(data[first:start].lstrip())
        while data.find(data[first:last]) != data.rfind(data[first:last]):
            above = data.rfind(b"\n", 0, first)
            first = data.rfind(b"\n", 0, max(above, 0)) + 1
            last = last if above >= 0 else data.index(b"\n", last + 1)
        changed = data[first:start] + new.encode() + data[end:last]
        return Change(self.file, data[first:last].decode(), changed.decode())

    def differs(self, change: Change) -> bool:
        """Whether the changed text is a program, and another one."""
        try:
            tree = ast.parse(change.text())
        except SyntaxError:
            return False
        return ast.dump(tree) != ast.dump(self.tree)


def nodes(parent: ast.AST) -> Iterator[ast.AST]:
    """What is below, from top to bottom, as far as it decides what is computed."""
    for field, value in ast.iter_fields(parent):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and field not in UNREAD and not untouched(child):
                yield child
                yield from nodes(child)


def untouched(node: ast.AST) -> bool:
    """Whether a node is a message, a docstring, an import, the name of a type, or a method's `example()`.

    Nor is `strict` of `zip` read: it makes a mistake of our own loud, and nobody's input can reach it.
    """
    match node:
        case ast.keyword(arg="strict"):
            return True
        case ast.Raise() | ast.Import() | ast.ImportFrom() | ast.JoinedStr():
            return True
        case ast.Expr(value=ast.Constant()) | ast.FunctionDef(name="example"):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Subscript() | ast.BinOp(op=ast.BitOr())):
            return name[0].isupper() and not name.isupper()
    return False


def edits(node: ast.AST, source: Source) -> Iterator[Edit]:
    """The small changes of one node."""
    for kind in (operators, constants, conditions, statements, arguments, bounds, opposites, results):
        yield from kind(node, source)


def operators(node: ast.AST, source: Source) -> Iterator[Edit]:
    """Another operator between two operands, or none before one."""
    match node:
        case ast.BinOp(left=left, op=op, right=right):
            pairs = [(left, op, right)]
        case ast.AugAssign(target=left, op=op, value=right):
            pairs = [(left, op, right)]
        case ast.BoolOp(op=op, values=[left, right]):
            pairs = [(left, op, right)]
        case ast.Compare(left=left, ops=ops, comparators=others):
            pairs = list(zip([left, *others], ops, others, strict=False))
        case ast.UnaryOp(operand=operand):
            yield (*source.span(node), source.of(operand))
            return
        case _:
            return
    for left, op, right in pairs:
        start, end = source.span(left)[1], source.span(right)[0]
        between = source.data[start:end].decode()
        sign, *others = OPERATORS.get(type(op), ("",))
        yield from ((start, end, between.replace(sign, other, 1)) for other in others)


def constants(node: ast.AST, source: Source) -> Iterator[Edit]:
    """A number a little larger or smaller, the other truth; defaults are constants too."""
    match node:
        case ast.Constant() if node in source.tried:
            return
        case ast.Constant(value=bool(value)):
            others = [not value]
        case ast.Constant(value=int(value)):
            others = [value + 1, value - 1]
        case ast.Constant(value=float(value)):
            others = [value * 2, value / 2] if value else [1.0]
        case _:
            return
    yield from ((*source.span(node), repr(other)) for other in others)


def judged(tree: ast.AST) -> set[ast.AST]:
    """What stands in a comparison. Other numbers of the kit are what a method is tried on, not how it is judged."""
    return {part for node in ast.walk(tree) if isinstance(node, ast.Compare) for part in ast.walk(node)}


def conditions(node: ast.AST, source: Source) -> Iterator[Edit]:
    """The opposite of what decides."""
    match node:
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) | ast.Assert(test=test):
            tests = [test]
        case ast.comprehension(ifs=tests):
            pass
        case _:
            return
    yield from ((*source.span(test), f"not ({source.of(test)})") for test in tests)


def statements(node: ast.AST, source: Source) -> Iterator[Edit]:
    """A statement left out, where no name is missing without it."""
    match node:
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Break() | ast.Continue():
            yield (*source.span(node), "pass")
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield (*source.span(node), "pass")
        case ast.Assign() if node in source.again:
            yield (*source.span(node), "pass")


def reassigned(function: ast.AST) -> Iterator[ast.Assign]:
    """The assignments of a function to names that have a value already."""
    if not isinstance(function, ast.FunctionDef):
        return
    known = {one.arg for one in [*function.args.args, *function.args.kwonlyargs]}
    assignments = [one for one in ast.walk(function) if isinstance(one, ast.Assign | ast.AnnAssign)]
    for one in sorted(assignments, key=lambda one: one.lineno):
        names = {name.id for name in ast.walk(one) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)}
        if isinstance(one, ast.Assign) and names and names <= known:
            yield one
        known |= names


def arguments(node: ast.AST, source: Source) -> Iterator[Edit]:
    """Two neighbouring arguments the other way round."""
    if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in EITHER):
        yield from swaps(node.args, source)


def swaps(values: list[ast.expr], source: Source) -> Iterator[Edit]:
    """Each two neighbours swapped."""
    for one, other in pairwise(values):
        if not isinstance(one, ast.Starred) and not isinstance(other, ast.Starred):
            (start, middle), (again, end) = source.span(one), source.span(other)
            between = source.data[middle:again].decode()
            yield start, end, source.of(other) + between + source.of(one)


def bounds(node: ast.AST, source: Source) -> Iterator[Edit]:
    """A slice or a range that begins or ends one earlier or later; where its bound is a number, that is changed."""
    match node:
        case ast.Slice(lower=lower, upper=upper):
            ends = [lower, upper]
        case ast.Call(func=ast.Name(id="range"), args=ends):
            pass
        case _:
            return
    for end in ends:
        if end is not None and not isinstance(end, ast.Constant | ast.Starred):
            yield from ((*source.span(end), f"({source.of(end)}) {step} 1") for step in "+-")


def opposites(node: ast.AST, source: Source) -> Iterator[Edit]:
    """The smallest for the largest, all for any; as functions, as methods, and as the limits of `clamp`."""
    match node:
        case ast.Call(func=ast.Name(id=name) as function) if name in OPPOSITES:
            yield (*source.span(function), OPPOSITES[name])
        case ast.Call(func=ast.Attribute(attr=name) as function) if name in OPPOSITES:
            end = source.span(function)[1]
            yield end - len(name), end, OPPOSITES[name]
        case ast.keyword(arg=str(name)) if name in OPPOSITES:
            start = source.span(node)[0]
            yield start, start + len(name), OPPOSITES[name]


def results(node: ast.AST, source: Source) -> Iterator[Edit]:
    """Another result: the opposite truth, a pair the other way round, or what the last call was to change."""
    match node:
        case ast.Return(value=ast.Compare() | ast.BoolOp() as value):
            yield (*source.span(value), f"not ({source.of(value)})")
        case ast.Return(value=ast.Tuple(elts=values)):
            yield from swaps(values, source)
        case ast.Return(value=ast.Call(func=ast.Attribute(value=inner)) as value) if not isinstance(inner, ast.Name):
            yield (*source.span(value), source.of(inner))
