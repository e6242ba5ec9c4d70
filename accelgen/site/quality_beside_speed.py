"""Quality beside speed of a method whose law is another one on purpose, as a part of its page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelgen.exports.markdown import table
from accelgen.measuring.rows import CONTRASTS, ContrastFigures, cells, read
from accelgen.site import charts

COMMAND = "python -m accelgen.measuring.contrasts"


def figures(id: str, stored: Mapping[str, Any] | None) -> str:
    """What was measured for the page of this method; nothing for any other, or where nothing is stored."""
    if not stored or stored["id"] != id:
        return ""
    found = read(ContrastFigures, stored)
    lead = (
        f"With the models of the zoo and $\\gamma = {found.gamma}$. Right are those of {found.read:,} tokens of"
        f" held-out prompts that the law likes best; the drafter alone has {found.drafter_right:.1%} right. Texts"
        f" are {found.prompts} of {found.limit} tokens. The first rows have neither mask nor contrast: their law is the"
        " target's, and they are speculative decoding with one more pass of the drafter after each draft that was kept"
        " whole."
    )
    heads = [f"{column.head} {column.symbol}".strip() for column in CONTRASTS]
    rows = table(heads, [cells(CONTRASTS, row) for row in found.rows])
    data = f"`{COMMAND}` measures them; [as JSON](../downloads/contrasts.json){{ download }}."
    return "\n\n".join([lead, charts.contrasts(found), rows, data])
