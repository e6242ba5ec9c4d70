"""Every encoding of the output works: what it lacks is said in ASCII."""

import json
import os
import subprocess
import sys

import pytest

from accelgen.cli.encoding import ascii_mark, escaped, in_ascii
from accelgen.project.places import ROOT
from accelgen.taxonomy.loading import load_taxonomy

NARROW = ["cp1252", "latin-1", "ascii"]
MARKED = """
from accelgen.cli import app
from accelgen.cli.running import Outcome, _print
from reference_impls.core.generation import Generation, Step

def show():
    result = Generation()
    result.add(Step([1, 2, 3], drafted=[1, 2, 9], kept=2), limit=4)
    _print(Outcome("trial", "é λ", {"gamma": 2}, ["a", "–", "…"], result))

app.command("trial")(show)
app(["trial"])
"""


def printed(encoding: str, *words: str, script: str = "from accelgen.cli import app; app()") -> bytes:
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script, *words]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("encoding", NARROW)
def test_texts_and_marks_are_printed(encoding: str) -> None:
    accent = "é" if encoding != "ascii" else "e"
    text = printed(encoding, script=MARKED).decode(encoding)
    assert f"{accent} lambda[[a" in text
    assert "<" in text
    listed = printed(encoding, "list").decode(encoding)
    assert f"{len(load_taxonomy().methods)} methods" in listed
    shown = printed(encoding, "show", next(m.id for m in load_taxonomy().methods if m.is_implemented)).decode(encoding)
    assert "not by us" in shown


@pytest.mark.parametrize("encoding", NARROW)
def test_json_loses_nothing(encoding: str) -> None:
    assert json.loads(printed(encoding, "export", "json")) == load_taxonomy().model_dump(mode="json")


@pytest.mark.parametrize("encoding", NARROW)
def test_a_copied_file_is_code_whatever_its_reader_expects(encoding: str) -> None:
    code = printed(encoding, "copy", next(m.id for m in load_taxonomy().methods if m.is_implemented))
    assert code.isascii()
    compile(code, "copied.py", "exec")


def test_utf_8_stays_as_it_is() -> None:
    assert "é λ⟦a–⟧⟨…⟩" in printed("utf-8", script=MARKED).decode("utf-8")


@pytest.mark.parametrize(
    ("character", "mark"),
    [
        ("a", "a"),
        ("é", "e"),
        ("⟦", "[["),
        ("λ", "lambda"),
        ("Π", "Pi"),
        ("½", "1/2"),
        ("≠", "!="),
        ("…", "..."),
        ("字", "?"),
    ],
)
def test_a_mark_says_the_same(character: str, mark: str) -> None:
    assert ascii_mark(character) == mark


def test_escapes_are_those_of_json() -> None:
    text = '{"a": "é λ 😀 \\" \\n"}'
    assert escaped(text).isascii()
    assert json.loads(escaped(text)) == json.loads(text)
    assert in_ascii("naïve – yes") == "naive - yes"
