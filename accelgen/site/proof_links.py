"""Where the tests stand that prove a claim: the suites' own functions, and what a method tests beside them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath

from accelgen.site.source_links import anchor
from accelgen.taxonomy.schema import Method
from accelgen.taxonomy.suites import Claim, claims_of

KIT = "reference_impls/testing/"
EVERY = ("accounting", "options")  # suites that prove good manners, not what is special to a guarantee


@dataclass(frozen=True)
class Test:
    """A function that checks something: where it stands, and what it says."""

    path: str
    name: str
    line: int

    @property
    def sentence(self) -> str:
        """The name as words: tests here are named by what they assert."""
        words = self.name.removeprefix("test_").replace("_", " ")
        return words[:1].upper() + words[1:]

    @property
    def place(self) -> str:
        """Name of the file, and the line in it."""
        return f"{PurePosixPath(self.path).name}, line {self.line}"


def block(path: str) -> str:
    """The id of the block that shows this file of the kit, on the page of the proofs."""
    return f"kit-{PurePosixPath(path).stem.replace('_', '-')}"


def suite_tests(files: Mapping[str, str]) -> dict[str, Test]:
    """Suite id -> the function that yields its checks, found in the kit's files where `Suite(id, function)` is made."""
    found: dict[str, Test] = {}
    for path, source in files.items():
        if path.startswith(KIT):
            found |= _in_file(path, source)
    return found


@cache
def _in_file(path: str, source: str) -> dict[str, Test]:
    tree = ast.parse(source)
    lines = {node.name: node.lineno for node in tree.body if isinstance(node, ast.FunctionDef)}
    return {id: Test(path, name, lines[name]) for id, name in _made(tree) if name in lines}


def _made(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="Suite"), args=[ast.Constant(value=str(id)), ast.Name(id=name)]):
                yield id, name


def own_tests(path: str, source: str) -> list[Test]:
    """The tests of a file, in its order."""
    return [
        Test(path, node.name, node.lineno)
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]


def suite_address(suite: Claim, files: Mapping[str, str], page: str) -> str:
    """Where the suite's test can be read: a line on the page of the proofs, which is at the address `page`."""
    test = suite_tests(files).get(suite.id)
    return f"{page}{anchor(block(test.path), test.line)}" if test else f"{page}#{suite.id}"


def guarantee_address(method: Method, files: Mapping[str, str], page: str, own: str) -> str:
    """Where the proof of a method's guarantee can be read: its first special suite, or else its own tests at `own`."""
    special = [suite for suite in claims_of(method) if suite.id not in EVERY]
    return suite_address(special[0], files, page) if special else own
