"""A prompt comes from words, a file or standard input, and bytes that are no text are told."""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from accelgen.cli.prompts import read_prompt


def test_words_begin_new_lines_and_files_are_read_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "prompt.txt"
    file.write_bytes(b"def f(x):\r\n    print('\\n')\n")
    assert read_prompt(None, None) is None
    assert read_prompt("", None) == ""
    assert read_prompt(r"def f(x):\n    é", None) == "def f(x):\n    é"
    assert read_prompt(None, file) == "def f(x):\r\n    print('\\n')\n"
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO("é\n".encode())))
    assert read_prompt(None, Path("-")) == "é\n"


def test_what_is_no_prompt_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "prompt.txt"
    file.write_bytes(b"ab\xff")
    with pytest.raises(ValueError, match=r"prompt\.txt: byte 3 is not UTF-8 text; save the prompt as UTF-8$"):
        read_prompt(None, file)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"\xe9")))
    with pytest.raises(ValueError, match=r"^standard input: byte 1 is not UTF-8 text"):
        read_prompt(None, Path("-"))
    with pytest.raises(ValueError, match=r"^--prompt holds bytes that are not UTF-8 text"):
        read_prompt("a\udcff", None)
    with pytest.raises(ValueError, match="are two prompts: choose one"):
        read_prompt("a", file)
    with pytest.raises(FileNotFoundError):
        read_prompt(None, tmp_path / "missing.txt")
