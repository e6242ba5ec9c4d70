"""Quality beside speed of a method whose text is another one on purpose, as a part of its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from accelgen.exports.markdown import table
from accelgen.measuring.rows import CONTRASTS, RELAXED, Column, ContrastFigures, RelaxedFigures, cells, read
from accelgen.site import charts

MEASURED = "`python -m accelgen.measuring.{0}` measures them; [as JSON](../downloads/{0}.json){{ download }}."


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
    return "\n\n".join([lead, charts.contrasts(found), _table(CONTRASTS, found.rows), MEASURED.format("contrasts")])


def relaxed(id: str, stored: Mapping[str, Any] | None) -> str:
    """What was measured for the page of the method that lets other words pass than the model's own."""
    if not stored or stored["id"] != id:
        return ""
    found = read(RelaxedFigures, stored)
    lead = (
        f"Over {found.sentences:,} held-out sentences of the zoo's task, which have four right translations each, with"
        f" $\\gamma = {found.gamma}$; plain greedy decoding has {found.right:.1%} right. The first row is the strict"
        " rule, whose text is that of plain decoding; the second is the paper's."
    )
    parts = [lead, charts.relaxations(found), _table(RELAXED, found.rows), MEASURED.format("relaxations")]
    return "\n\n".join(parts)


def _table(columns: tuple[Column[Any], ...], rows: Sequence[Any]) -> str:
    heads = [f"{column.head} {column.symbol}".strip() for column in columns]
    return table(heads, [cells(columns, row) for row in rows])
