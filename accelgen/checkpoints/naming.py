"""The words that name a checkpoint and its type, judged before torch is imported, which takes seconds."""

from __future__ import annotations

from pathlib import Path

DTYPES = ("float32", "bfloat16", "float16")


def local(place: str | Path) -> Path | None:
    """The folder of this name; None for what can only be the id of a hub. Raises ValueError for what is neither."""
    folder = Path(place).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ValueError(f"{place} is a file; name the folder that has the checkpoint's config.json")
    if isinstance(place, Path) or place.startswith(("/", ".", "~")) or place.count("/") > 1:
        raise ValueError(f"there is no folder {place}")
    return None


def check_dtype(name: str) -> None:
    """Raise ValueError for a type in which no checkpoint is loaded."""
    if name not in DTYPES:
        raise ValueError(f"there is no dtype {name!r} here; choose one of {', '.join(DTYPES)}")
