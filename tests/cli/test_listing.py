"""`accelgen list` and `search` are readable in every width."""

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner, Result

from accelgen.cli import app
from accelgen.project.places import ROOT
from accelgen.taxonomy.loading import load_taxonomy


def accelgen(*words: str, columns: int | None = None, code: int = 0) -> Result:
    result = CliRunner().invoke(app, words, env={"COLUMNS": str(columns) if columns else None})
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


@pytest.mark.parametrize("columns", [40, 60, 80, 120, None])
def test_ids_and_names_are_whole_in_every_width(columns: int | None) -> None:
    text = accelgen("list", columns=columns).stdout
    lines = text.splitlines()
    assert all(line == line.rstrip() for line in lines)
    longest = max(map(len, lines))
    assert longest <= (columns or 160)
    words = {word.rstrip(",") for word in text.split()}
    for method in load_taxonomy().methods:
        assert any(line.split()[:1] == [method.id] for line in lines), method.id
        assert {word.rstrip(",") for word in method.name.split()} <= words, method.name
        if len(method.name) <= 30:
            assert method.name in text


@pytest.mark.parametrize(("columns", "lines_a_method"), [(40, 3.0), (60, 2.2), (80, 1.2), (120, 1.2), (None, 1.2)])
def test_lists_are_as_short_as_the_width_allows(columns: int | None, lines_a_method: float) -> None:
    lines = accelgen("list", columns=columns).stdout.splitlines()
    assert len(lines) <= lines_a_method * len(load_taxonomy().methods)


@pytest.mark.parametrize("columns", [40, 80])
def test_what_is_shown_fits_and_breaks_no_path(columns: int) -> None:
    for method in load_taxonomy().methods[:8]:
        text = accelgen("show", method.id, columns=columns).stdout
        assert all(line == line.rstrip() for line in text.splitlines())
        assert all(len(line) <= columns or len(line.split()[-1]) > columns - 11 for line in text.splitlines())
        assert method.paper.url in text.split()
        if method.is_implemented:
            assert f"{method.module.replace('.', '/')}.py," in text.split()


def test_columns_that_are_left_out_are_named() -> None:
    narrow, wide = accelgen("list", columns=80).stdout, accelgen("list", columns=120).stdout
    assert "not shown for want of columns: year, guarantee" in narrow
    assert "exact-distribution" not in narrow
    assert "exact-distribution" in wide
    assert "not shown" not in wide


def test_a_pipe_is_as_wide_as_a_page() -> None:
    """In a process of its own, whose output is a pipe in earnest."""
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", "from accelgen.cli import app; app()", "list"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, encoding="utf-8")
    assert done.stdout == accelgen("list").stdout


def test_a_branch_is_a_category_too() -> None:
    taxonomy = load_taxonomy()
    branch = taxonomy.categories[0].subcategories[0]
    rows = json.loads(accelgen("list", "--category", branch.name, "--json").stdout)
    assert [row["id"] for row in rows] == [
        method.id for method in taxonomy.methods_of(taxonomy.categories[0].id, branch.id)
    ]
    assert "0 of" in accelgen("list", "--category", branch.id, "--guarantee", "not-applicable").stdout


def test_search_prints_best_first_and_says_when_there_is_more() -> None:
    method = load_taxonomy().methods[-1]
    text = accelgen("search", *method.name.split()).stdout
    assert text.startswith(f"{method.id}  {method.name} (method)\n")
    rows = json.loads(accelgen("search", method.name, "--json").stdout)
    assert rows[0]["id"] == method.id
    assert "more; add a word" in accelgen("search", "decoding").stdout
    nothing = accelgen("search", "xyzzy", code=1)
    assert nothing.stdout == ""
    assert "nothing holds all of 'xyzzy'" in nothing.stderr
    assert json.loads(accelgen("search", "xyzzy", "--json", code=1).stdout) == []
