"""What is printed of an option can be typed back."""

import importlib
import inspect
import itertools
import shlex
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_type_hints

import pytest

from accelgen.cli.options import parse, show, typed
from accelgen.taxonomy.loading import load_taxonomy

ATOMS: dict[Any, list[Any]] = {
    int: [0, 7, -3],
    float: [0.5, -1e-30, 3.0],
    bool: [True, False],
    str: ["softmax", "b=c"],
}


def values(kind: Any) -> Iterator[tuple[Any, Any]]:
    """Types made of `kind` with all of their small values: alone, perhaps none, rows, and rows of rows."""
    atoms = ATOMS[kind]
    rows = [list(row) for length in range(4) for row in itertools.product(atoms, repeat=length)]
    yield from ((kind, atom) for atom in atoms)
    yield from ((Sequence[kind], row) for row in rows)
    if kind is not str:  # to which `none` would be a word
        yield from ((kind | None, atom) for atom in [*atoms, None])
        yield from ((Sequence[kind] | None, row) for row in [*rows, None])
    short = [row for row in rows if 1 <= len(row) <= 2]
    nested = [list(some) for length in range(3) for some in itertools.product(short, repeat=length)]
    yield from ((Sequence[Sequence[kind]], some) for some in nested)


@pytest.mark.parametrize("kind", ATOMS)
def test_every_value_comes_back(kind: Any) -> None:
    count = 0
    for whole, value in values(kind):
        back = parse(show(value), whole)
        assert back == value
        assert repr(back) == repr(value)  # 3 is not 3.0
        count += 1
    assert count >= 60


@pytest.mark.parametrize("method", [m for m in load_taxonomy().methods if m.is_implemented], ids=lambda m: m.id)
def test_the_options_of_every_method_come_back(method: Any) -> None:
    generate = importlib.import_module(method.module).generate
    kinds = get_type_hints(generate)
    for name, parameter in inspect.signature(generate).parameters.items():
        if isinstance(parameter.default, int | float | str | list | tuple):
            text = show(parameter.default)
            assert show(parse(text, kinds[name])) == text, name


def test_spellings_are_those_that_are_documented() -> None:
    assert show((2, 4, 8)) == "2,4,8"
    assert show(((0,), (1,), (0, 0))) == "0;1;0,0"
    assert show([[1, 0], [0, 2]]) == "1,0;0,2"
    assert parse("3,2", Sequence[Sequence[int]]) == [[3, 2]]
    assert parse("jacobi", Literal["jacobi", "hybrid"]) == "jacobi"
    line = typed({"k_matrix": [[3, 2], [0, 1]], "gamma": 4, "strict": True})
    assert line == "--k-matrix '3,2;0,1' --gamma 4 --strict true"
    assert shlex.split(line)[1] == "3,2;0,1"
    with pytest.raises(ValueError, match="a row without values cannot be written"):
        show([[1], []])


@pytest.mark.parametrize(
    ("text", "kind", "sentence"),
    [
        ("four", int, "input should be a valid integer, unable to parse string as an integer"),
        ("nan", float, "input should be a finite number"),
        ("inf", float | None, "input should be a finite number"),
        ("none", int, "input should be a valid integer"),
        (
            "2,x",
            Sequence[int],
            "'x' should be a valid integer, unable to parse string as an integer; a row is written 2,4,8",
        ),
        ("2,,3", Sequence[int], "'' should be a valid integer"),
        (
            "1;x",
            Sequence[Sequence[int]],
            "'x' should be a valid integer, unable to parse string as an integer; rows are",
        ),
        ("best", Literal["exact", "typical"], "input should be 'exact' or 'typical'"),
    ],
)
def test_what_does_not_fit_is_told_in_words(text: str, kind: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match="should be") as caught:
        parse(text, kind)
    assert str(caught.value).startswith(sentence)
