"""Rows: what is stored comes back, what does not fit is refused, and each figure is written in one way everywhere."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from accelgen.cli import measurements as commands
from accelgen.measuring.rows import (
    BENCH,
    COSTS,
    FORCED,
    SPEEDUP,
    AcceptanceFigures,
    BenchRow,
    Column,
    FailedRow,
    ForcedRow,
    PeerRow,
    Prediction,
    TheirCall,
    Unit,
    cells,
    peer_rows,
    read,
    rows_of,
)
from accelgen.project.files import read_json
from accelgen.project.places import RESULTS
from accelgen.site.method_page import figures_table

FIGURES: dict[str, Any] = {"id": "a", "setting": "greedy", "tokens_per_pass": 2.0}
TIMES: dict[str, Any] = {"speedup": 1.5, "speedup_q1": 1.25, "speedup_q3": 2.0, "pairs": 3}
ROW = BenchRow(**FIGURES, **TIMES)


def stored(name: str) -> dict[str, Any]:
    return read_json(RESULTS / name) or {}


def test_every_stored_row_comes_back_as_it_was() -> None:
    bench, costs, peers = (stored(f"{name}.json") for name in ("bench", "costs", "peers"))
    pairs: list[tuple[Any, Any]] = [
        *zip(rows_of(BenchRow, bench), bench["rows"], strict=True),
        *zip(rows_of(Prediction, costs), costs["rows"], strict=True),
        *zip([read(Unit, unit) for unit in costs["units"]], costs["units"], strict=True),
        *zip(peer_rows(peers), peers["rows"], strict=True),
        (read(AcceptanceFigures, stored("acceptance.json")), stored("acceptance.json")),
    ]
    assert len(pairs) > 100
    for row, data in pairs:
        assert row.as_data() == without_nothing(data)


def without_nothing(data: Any) -> Any:
    """Plain data without the fields that have no value."""
    if isinstance(data, dict):
        return {key: without_nothing(value) for key, value in data.items() if value is not None}
    return data


@pytest.mark.parametrize("wrong", [{"speed_up": 1.0}, {"speedup": "fast"}, {"pairs": 1.5}])
def test_what_does_not_fit_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        read(BenchRow, FIGURES | TIMES | wrong)
    with pytest.raises(ValidationError):
        read(BenchRow, FIGURES)


def test_a_report_that_is_not_there_has_no_rows() -> None:
    assert rows_of(BenchRow, None) == rows_of(BenchRow, {}) == []


def test_a_translation_is_told_by_what_it_is_judged_by() -> None:
    assert not ROW.translates
    assert replace(ROW, exact_match=0.0).translates


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, ""),
        ({"texts": 4, "identical_texts": 3}, "3 of 4"),
        ({"texts": 4, "identical_texts": 3, "rounding_ties": 1, "as_promised": True}, "3 of 4; 1 by a rounding tie"),
        (
            {"texts": 4, "identical_texts": 1, "rounding_ties": 1, "as_promised": False},
            "1 of 4; 1 by a rounding tie; 2 not as promised",
        ),
    ],
)
def test_equal_texts_say_why_others_are_not(more: dict[str, Any], words: str) -> None:
    assert replace(ROW, **more).equal_texts == words


def test_a_figure_is_written_with_what_belongs_to_it_or_not_at_all() -> None:
    assert (SPEEDUP.figure(ROW), SPEEDUP.show(ROW)) == ("1.50", "1.50 (1.25–2.00)")
    depth: Column[BenchRow] = Column("Depth", lambda row: row.mean_layers, ".1f", unit="layers a token")
    assert (depth.head, depth.show(ROW), depth.show(replace(ROW, mean_layers=0.0))) == (
        "Depth (layers a token)", "", "0.0",
    )  # fmt: skip


def test_depth_and_work_are_two_columns() -> None:
    shown = dict(
        zip(
            (column.head for column in BENCH), cells(BENCH, replace(ROW, mean_layers=14.5, mean_work=23.0)), strict=True
        )
    )
    assert (shown["Depth (layers a token)"], shown["Work (layers a token)"]) == ("14.5", "23.0")


def test_terminal_and_page_write_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [ROW, replace(ROW, setting="warm", acceptance=0.25)]
    head = {"machine": {"processor": "P", "threads": 1}, "versions": {"torch": "2"}}
    commands._print(commands.Figures(head, rows, BENCH, ["words"]))
    lines = capsys.readouterr().out.splitlines()
    place = lines.index(ROW.id)  # the method stands above its rows, the heads of the columns above that
    page = figures_table(rows).replace('<span class="nowrap">', "").replace("</span>", "")
    titles = [cell.strip() for cell in page.splitlines()[0].strip("|").split("|")]
    assert titles == ["Setting", "Tokens per pass", "Guesses kept", "Speedup"], "columns without a value are left out"
    assert set(" ".join(titles).split()) == set(" ".join(lines[:place]).split())
    for line, shown in zip(page.splitlines()[2:], lines[place + 1 : place + 3], strict=True):
        assert all(cell.strip() in shown for cell in line.strip("|").split("|"))
    assert lines[-1] == "words"


def test_a_call_that_failed_has_its_sentence_alone() -> None:
    failed = FailedRow(id="a", setting="greedy", title="t", theirs=TheirCall(call="generate()"), error="E: no")
    assert peer_rows({"rows": [json.loads(json.dumps(failed.as_data()))]}) == [failed]
    found = dict(zip((column.title for column in commands.PEERS), cells(commands.PEERS, failed), strict=True))
    assert found["Their time / ours"] == "failed: E: no"
    assert found["transformers"] == "generate()"


@pytest.mark.parametrize(
    ("columns", "kind"), [(BENCH, BenchRow), (FORCED, ForcedRow), (COSTS, Prediction), (commands.PEERS, PeerRow)]
)
def test_no_title_stands_twice(columns: tuple[Column[Any], ...], kind: type) -> None:
    titles = [column.title for column in columns]
    assert len(set(titles)) == len(titles), kind
