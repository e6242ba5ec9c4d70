"""The beginning of a method: its file, its case and its test, from what the taxonomy knows of it.

The file runs at once, as plain decoding in the shape of its call; what is to be written is marked as such, and the
test fails until it says what is peculiar to the method.
"""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path

from accelgen.measuring.kinds import KINDS
from accelgen.project.places import REFERENCE, ROOT, TOOL
from accelgen.taxonomy.schema import Call, Method
from accelgen.workshop.status import UNWRITTEN, test_file

_SHAPES = {
    Call.CONTINUE: REFERENCE / "baselines" / "autoregressive.py",
    Call.TRANSLATE: REFERENCE / "baselines" / "translation.py",
    Call.CANVAS: TOOL / "workshop" / "shapes" / "filling.py",
    Call.BATCH: TOOL / "workshop" / "shapes" / "together.py",
    Call.CLASSIFY: TOOL / "workshop" / "shapes" / "answering.py",
}
_DOCSTRING = '''\
r"""{name}: {unwritten}

{paper}

Idea
----
{unwritten}

Algorithm
---------
1. {unwritten}

Guarantee
---------
{guarantee}. {unwritten}

Differences from the paper
--------------------------
1. {unwritten}

Example
-------
>>> from {module} import example
>>> sorted(example())
{unwritten}
"""
'''
_CASE = '''\
"""What the kit and the tools must know of {name}."""

from reference_impls.testing.case import Case

CASE = Case()
'''
_TEST = '''\
"""What is peculiar to {name}."""

from __future__ import annotations

import pytest

from {module} import {function}

MUTANTS: list[tuple[str, str, str]] = []  # name, text of the method, wrong text: bugs that one could make here


def test_what_is_peculiar_to_the_method() -> None:
    assert {function}
    pytest.fail("say here, with small numbers worked out by hand, what this method does that no other does")
'''


def skeletons(method: Method) -> dict[Path, str]:
    """The files to begin with, by their place."""
    module = method.module
    places = {
        "file": REFERENCE.joinpath(*module.split(".")[1:]).with_suffix(".py"),
        "case": REFERENCE / "testing" / "cases" / f"{module.rpartition('.')[2]}.py",
        "test": test_file(method),
    }
    code = _code(method)
    function = KINDS[method.call].function
    words = {"name": method.name, "module": module, "function": function, "unwritten": UNWRITTEN}
    guarantee = method.guarantee.replace("-", " ").capitalize()
    docstring = _DOCSTRING.format(**words, paper=_paper(method), guarantee=guarantee)
    return {
        places["file"]: f"{docstring}\n{code}",
        places["case"]: _CASE.format(**words),
        places["test"]: _TEST.format(**words),
    }


def begin(method: Method) -> list[Path]:
    """Write the skeletons. Raises ValueError, and writes nothing, where one of the files is there already."""
    files = skeletons(method)
    there = [path for path in files if path.exists()]
    if there:
        place = there[0].relative_to(ROOT)
        raise ValueError(f"{place} is there already: `accelgen status {method.id}` tells what the method lacks")
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    return list(files)


def _paper(method: Method) -> str:
    paper = method.paper
    where = paper.venue if str(paper.year) in paper.venue else f"{paper.venue}, {paper.year}"
    return textwrap.fill(f"{paper.title}. {paper.byline}. {where}. {paper.url}", 120)


def _code(method: Method) -> str:
    """Everything below the docstring: plain decoding in the shape of the method's call."""
    text = _SHAPES[method.call].read_text(encoding="utf-8")
    docstring = ast.parse(text).body[0]
    assert docstring.end_lineno is not None
    return "".join(text.splitlines(keepends=True)[docstring.end_lineno :]).lstrip("\n")
