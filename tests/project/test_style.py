"""Methods and core keep the manners of `accelgen.workshop.manners`, and each of these can be broken."""

import ast
from pathlib import Path

import pytest

from accelgen.exports.bundle import method_files
from accelgen.project.places import REFERENCE
from accelgen.taxonomy.loading import load_taxonomy
from accelgen.workshop.manners import code_lines, of_a_method, of_the_core

METHODS = method_files()
CORE = {path.stem: path for path in sorted((REFERENCE / "core").glob("[!_]*.py"))}
WELL = '''"""Name: a summary.

Idea
----
It is one.

Algorithm
---------
1. Do it.

Guarantee
---------
None.

Differences from the paper
--------------------------
1. None.

Example
-------
>>> 1
1
"""

from torch import nn


def generate(limit: int) -> int:
    """Generate."""
    # Between turns nothing holds.
    while limit > 0:
        limit -= helper(1)
    return limit


def helper(n: int) -> int:
    """Help."""
    return n


def check_options(n: int) -> None:
    """Refuse."""


class Heads(nn.Module):
    """Heads."""


def example() -> dict[str, int]:
    """Options."""
    from reference_impls import zoo

    return {"limit": len(zoo.__name__)}


def loss(n: int) -> int:
    """Loss."""
    return n
'''
LINES = [f"    n += {i}\n" for i in range(41)]
HELPERS = "".join(
    f'def h{i}(n: int) -> int:\n    """Help."""\n{"".join(LINES[:30])}    return n\n\n\n' for i in range(4)
)
HELPER = 'def helper(n: int) -> int:\n    """Help."""\n    return n\n'
HEADS = 'class Heads(nn.Module):\n    """Heads."""\n'
BROKEN = {
    "a line is longer": ("    return n\n", f"    return n  # {'x' * 120}\n"),
    "helper has 4": (HELPER, f'def helper(n: int) -> int:\n    """Help."""\n{"".join(LINES)}    return n\n'),
    "it prints": ("    return limit\n", "    print(limit)\n    return limit\n"),
    "it imports time;": ("from torch import nn\n", "import time\n\nfrom torch import nn\n"),
    "is no definition": ("from torch import nn\n", "from torch import nn\n\nif True:\n    pass\n"),
    "it imports from reference_impls.zoo": (
        "from torch import nn\n",
        "from reference_impls.zoo import load\nfrom torch import nn\n",
    ),
    "it renames": (
        "from torch import nn\n",
        "from reference_impls.core.tree import Tree as T\nfrom torch import nn\n",
    ),
    "helper has no docstring": (HELPER, "def helper(n: int) -> int:\n    return n\n"),
    "helper does not say the types": ("def helper(n: int) -> int:", "def helper(n):"),
    "the docstring has a summary": ("Guarantee\n---------\nNone.\n", ""),
    "its first definition is generate": ("def generate(", "def decode("),
    "loss stands above example": ("def helper(", 'def loss(n: int) -> int:\n    """Loss."""\n\n\ndef helper('),
    "a module stands before a helper": (HELPER, HEADS + "\n\n" + HELPER.replace("helper", "other")),
    "right above the loop": ("    # Between turns nothing holds.\n", ""),
    "lines of its code decode": (HELPER, HELPERS + HELPER),
    "a method has 160 at most": ("def loss(", HELPERS.replace("def h", "def k") + HELPERS + "def loss("),
    "helper imports math inside": ("    return n\n", "    import math\n\n    return n + math.pi\n"),
    "it imports numpy": ("from torch import nn\n", "import numpy\nfrom torch import nn\n"),
}


@pytest.mark.parametrize("path", METHODS.values(), ids=METHODS)
def test_methods_keep_the_manners(path: Path) -> None:
    assert list(of_a_method(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", CORE.values(), ids=CORE)
def test_the_core_keeps_the_manners_and_names_no_method(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert list(of_the_core(source)) == []
    kinds = ast.FunctionDef | ast.ClassDef
    own = {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)} | {path.stem}
    spelled = {name.lower().replace("_", "") for name in own}
    assert not spelled & {method.id.replace("-", "") for method in load_taxonomy().methods}


def test_a_method_in_order_gives_no_complaint() -> None:
    assert list(of_a_method(WELL)) == []


@pytest.mark.parametrize("complaint", BROKEN)
def test_every_complaint_is_heard(complaint: str) -> None:
    old, new = BROKEN[complaint]
    assert old in WELL
    found = list(of_a_method(WELL.replace(old, new, 1)))
    assert any(complaint in sentence for sentence in found), found


def test_a_module_of_the_core_has_its_budget() -> None:
    assert list(of_the_core("".join(f"A{i} = {i}\n" for i in range(150)))) == []
    (complaint,) = of_the_core("".join(f"A{i} = {i}\n" for i in range(151)))
    assert "151 lines" in complaint


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
