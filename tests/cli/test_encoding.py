"""Every encoding of the output works: what it lacks is said in ASCII."""

import json
import os
import subprocess
import sys

import pytest

from accelgen.cli.encoding import ascii_mark, escaped, in_ascii
from accelgen.project.places import ROOT
from accelgen.taxonomy.loading import load_taxonomy

END = "\x1e"
SCRIPT = f"""
import sys
from accelgen.cli import app
from accelgen.cli.output import console
from accelgen.cli.tokens import legend, render

def trial():
    kinds = ["accepted", "accepted", "corrected"]
    console().print("é λ", render(["a", "–", "…"], kinds, colour=False), legend(kinds, colour=False))

app.command("trial")(trial)
for words in sys.argv[1:]:
    app(words.split(), standalone_mode=False)
    print({END!r}, flush=True)
"""


def printed(encoding: str, *commands: str) -> list[str]:
    """What each command prints, in one process whose output has this encoding."""
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SCRIPT, *commands]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode(encoding).split(END)


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii"])
def test_an_encoding_that_lacks_characters_says_the_same(encoding: str) -> None:
    taxonomy = load_taxonomy()
    method = next(method for method in taxonomy.methods if method.is_implemented)
    commands = ("trial", "list", f"show {method.id}", "export json", f"copy {method.id}", "--help")
    run, listed, shown, exported, code, helped, _ = printed(encoding, *commands)
    dash, dots = ("–", "…") if encoding == "cp1252" else ("-", "...")
    accent = "e" if encoding == "ascii" else "é"
    assert run.startswith(f"{accent} lambda [[a{dash}]]<{dots}> [[drafted and accepted]]   <rejected and corrected>\n")
    assert f"{len(taxonomy.methods)} methods" in listed
    assert method.paper.url in shown
    assert json.loads(exported) == taxonomy.model_dump(mode="json")  # nothing is lost
    assert code.isascii()  # whatever encoding its reader expects
    compile(code, "copied.py", "exec")
    assert "proved reference implementations" in helped


def test_utf_8_stays_as_it_is() -> None:
    run, exported, _ = printed("utf-8", "trial", "export json")
    assert run.startswith("é λ ⟦a–⟧⟨…⟩ ⟦drafted and accepted⟧   ⟨rejected")
    assert not exported.isascii()


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
