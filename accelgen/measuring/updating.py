"""Stored figures where a few methods were measured anew: their rows take the place of their own among the others'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

ALIKE = ("settings", "machine", "versions")  # what rows that stand together have in common


def check_alike(stored: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise ValueError where figures are not made as the stored ones were, so that they cannot stand among them."""
    for name in ALIKE:
        if stored[name] != new[name]:
            raise ValueError(
                f"stored figures have {name} {stored[name]} and these {new[name]}: measure alike, or measure all anew"
            )


def updated(stored: Mapping[str, Any], new: Mapping[str, Any], order: Sequence[str]) -> dict[str, Any]:
    """The stored figures with the new rows, all in the `order` of their ids; the command stays that of all of them.

    Raises ValueError where they were not made alike.
    """
    check_alike(stored, new)
    ids = {row["id"] for row in new["rows"]}
    rows = [*(row for row in stored["rows"] if row["id"] not in ids), *new["rows"]]
    rows.sort(key=lambda row: order.index(row["id"]))
    return {**stored, **new, "command": stored["command"], "rows": rows}
