"""Files that are whole or absent, whatever happens while they are written; and JSON that may not be there."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def check_place(path: Path) -> None:
    """Raise ValueError where no file can be written: for a directory, and in one that is not there.

    Cheap, so that a command asks it before it begins what takes long.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a directory; name a file in it")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise ValueError(
            f"the directory {folder if path.is_symlink() else path.parent} does not exist; create it first"
        )


def write_whole(path: Path, content: bytes | str) -> Path:
    """Write the file `path` in one step, keeping its mode, and return it; its directory must exist.

    A link stays, and what it leads to is written. What is no regular file, a device or a pipe, is written into and
    never replaced. Raises ValueError where no file can be, OSError with the name of `path` where writing fails.
    """
    check_place(path)
    data = content.encode() if isinstance(content, str) else content
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)
        else:
            _replace(path.resolve(), data)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    return path


def _replace(path: Path, data: bytes) -> None:
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is no file."""
    if not path.is_file():
        return None
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data
