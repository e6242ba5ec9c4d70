"""Acceptance over time of a method whose drafter goes on learning, as a part of its page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelgen.exports.markdown import table
from accelgen.measuring.rows import STREAM, StreamFigures, cells, read
from accelgen.site import charts

COMMAND = "python -m accelgen.measuring.streams"


def figures(id: str, stored: Mapping[str, Any] | None) -> str:
    """What was measured for the page of this method; nothing for any other, or where nothing is stored."""
    if not stored or stored["id"] != id:
        return ""
    found = read(StreamFigures, stored)
    domains = ", then ".join(dict.fromkeys(row.domain for row in found.rows))
    lead = (
        f"A stream of {found.rows[-1].texts} held-out prompts, first {domains}, is served twice with the models of the"
        f" zoo: by a drafter that learns once in {found.interval} texts, at a rate of {found.rate:g}, and by the same"
        f" one frozen. Texts have {found.limit} tokens at temperature {found.temperature:g}, and $\\gamma ="
        f" {found.gamma}$; both sides have the target's law from the first text to the last."
    )
    rows = table([column.head for column in STREAM], [cells(STREAM, row) for row in found.rows])
    data = f"`{COMMAND}` measures it anew; [as JSON](../downloads/streams.json){{ download }}."
    return "\n\n".join([lead, charts.stream(found), rows, data])
