"""What a command writes stands whole where it was asked for, and nothing else is touched."""

import os
import stat
import threading
from pathlib import Path

import pytest

from accelgen.cli.output import check_output, write


def test_a_file_is_written_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old", encoding="utf-8")
    path.chmod(0o600)
    write("new é\n", path)
    assert path.read_bytes() == "new é\n".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [found.name for found in tmp_path.iterdir()] == ["file.txt"]


def test_a_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    target, link, dangling = tmp_path / "target.txt", tmp_path / "link", tmp_path / "dangling"
    target.write_text("old", encoding="utf-8")
    link.symlink_to("target.txt")
    dangling.symlink_to("born.txt")
    write("new", link)
    write("new", dangling)
    assert link.is_symlink()
    assert dangling.is_symlink()
    assert target.read_text(encoding="utf-8") == (tmp_path / "born.txt").read_text(encoding="utf-8") == "new"


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    pipe, heard = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: heard.append(pipe.read_text(encoding="utf-8")))
    reader.start()
    write("a line\n", pipe)
    reader.join(timeout=10)
    assert heard == ["a line\n"]
    assert pipe.is_fifo()


def test_a_device_is_written_into() -> None:
    """A terminal, because in its folder a fault could not replace it."""
    master, slave = os.openpty()
    try:
        device = Path(os.ttyname(slave))
        write("a line\n", device)
        assert os.read(master, 100) == b"a line\r\n"
        assert stat.S_ISCHR(device.stat().st_mode)
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_the_screen_has_a_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    check_output(Path(name))
    write("text\n", Path(name))
    assert capsys.readouterr() == ("text\n", "")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "no" / "where")
    for path, sentence in [
        (tmp_path, "is a directory; name a file in it"),
        (tmp_path / "no" / "file", f"the directory {tmp_path / 'no'} does not exist; create it first"),
        (tmp_path / "dangling", f"the directory {tmp_path / 'no'} does not exist; create it first"),
    ]:
        for refuse in (check_output, lambda path: write("text", path)):
            with pytest.raises(ValueError, match="directory") as caught:
                refuse(path)
            assert sentence in str(caught.value)
    assert [found.name for found in tmp_path.iterdir()] == ["dangling"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(UnicodeEncodeError):
        write("new \ud800", path)
    monkeypatch.setattr(
        Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device", "tmp"))
    )
    with pytest.raises(OSError, match="No space left") as caught:
        write("new", path)
    assert caught.value.filename == str(path)
    assert path.read_text(encoding="utf-8") == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["file.txt"]
