"""Tables with a mapping file become records; a mapping that does not fit is an error."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.importers.samples import bring, lines

from masrouter.errors import LogError
from masrouter.importers import Format, Imported
from masrouter.types import Agent, Usage

MAPPING = """
query: {column: prompt}
dataset: {value: support}
topology: {value: io}
agents:
  - role: {value: null}
    model: {column: model}
    prompt_tokens: {column: in_tok}
    completion_tokens: {column: out_tok}
score: {column: rating, range: [1, 5]}
score_source: {value: human}
cost_usd: {column: cents, factor: 0.01}
latency_s: {column: ms, factor: 0.001}
timestamp: {column: at, unit: ms}
"""
ROWS = [
    {
        "prompt": "Hi, there",
        "model": "gpt-4o",
        "in_tok": 5,
        "out_tok": 7,
        "rating": 4,
        "cents": 2.5,
        "ms": 1500,
        "at": 1735689600000,
        "note": "x",
    },
    {
        "prompt": "What?\nWhy?",
        "model": "gpt-4o-mini",
        "in_tok": None,
        "out_tok": 3,
        "rating": None,
        "cents": None,
        "ms": None,
        "at": None,
        "note": None,
    },
]


def table(
    folder: Path, rows: list[dict[str, Any]], mapping: str = MAPPING, **options: Any
) -> Imported:
    (folder / "map.yaml").write_text(mapping)
    path = folder / "runs.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    options.setdefault("dataset", None)
    return bring(Format.table, path, mapping=folder / "map.yaml", **options)


def changed(old: str, new: str) -> str:
    assert old in MAPPING
    return MAPPING.replace(old, new)


def test_columns_become_fields(tmp_path: Path) -> None:
    imported = table(tmp_path, ROWS)
    first, second = imported.logs
    assert (first.query, first.dataset, first.score, first.score_source) == (
        "Hi, there", "support", 0.75, "human",
    )  # fmt: skip
    assert first.plan.agents == (Agent(None, "gpt-4o"),)
    assert first.usage == Usage(5, 7, 0.025)
    assert (first.latency_s, first.timestamp) == (1.5, "2025-01-01T00:00:00Z")
    assert second.query == "What?\nWhy?"
    assert second.usage == Usage(None, 3, None)
    assert (second.score, second.timestamp) == (None, None)
    assert imported.report.unmapped_fields == {"note": 1}


def test_every_kind_of_table_gives_the_same_records(tmp_path: Path) -> None:
    wanted = list(table(tmp_path, ROWS).logs)
    options: dict[str, Any] = {"mapping": tmp_path / "map.yaml", "dataset": None}
    json_lines = lines(tmp_path / "runs.jsonl", ROWS)
    parquet = tmp_path / "runs.parquet"
    pd.DataFrame(ROWS).to_parquet(parquet)
    for path in (json_lines, parquet):
        found = list(bring(Format.table, path, **options).logs)
        assert [(r.query, r.plan, r.usage, r.score, r.latency_s) for r in found] == [
            (r.query, r.plan, r.usage, r.score, r.latency_s) for r in wanted
        ]


def test_the_same_table_imported_again_gives_the_same_runs(tmp_path: Path) -> None:
    rows = [ROWS[0], ROWS[1], ROWS[0]]
    first = [record.run_id for record in table(tmp_path, rows).logs]
    assert len(set(first)) == 3
    again = [record.run_id for record in table(tmp_path, rows[::-1]).logs]
    assert set(first) == set(again)


def test_labels_have_the_worth_that_the_mapping_gives(tmp_path: Path) -> None:
    mapping = changed("range: [1, 5]", "map: {up: 1, down: 0}")
    rows = [ROWS[0] | {"rating": rating} for rating in ("up", "down", "sideways")]
    imported = table(tmp_path, rows, mapping)
    assert [record.score for record in imported.logs] == [1.0, 0.0]
    assert imported.report.examples == (
        f"{tmp_path / 'runs.csv'}:4: score: a label that the mapping does not value, got "
        "'sideways', and the map has up, down",
    )


def test_teams_have_a_seat_a_column_or_one_column_of_json(tmp_path: Path) -> None:
    seats = (
        "agents: [{model: {column: m1}}, {role: {value: critic}, model: {column: m2}, "
        "optional: true}]\n"
    )
    base = "query: {column: q}\ntopology: {column: t}\n"
    rows = [
        {"q": "a", "t": "debate", "m1": "x", "m2": "y", "team": '[{"role": "r", "model": "x"}]'},
        {"q": "b", "t": "io", "m1": "x", "m2": None, "team": "[]"},
        {"q": "c", "t": "io", "m1": None, "m2": "y", "team": '[{"modle": "x"}]'},
    ]
    imported = table(tmp_path, rows, base + seats, dataset="d")
    assert [str(record.plan) for record in imported.logs] == ["debate(x, critic@y)", "io(x)"]
    assert imported.report.examples[0].endswith("agents[0].model: a seat without a model")
    imported = table(tmp_path, rows, base + "agents: {column: team}\n", dataset="d")
    assert [str(record.plan) for record in imported.logs] == ["debate(r@x)"]
    assert imported.report.rejected == 2


def test_a_run_id_that_stands_twice_with_another_content_is_rejected(tmp_path: Path) -> None:
    rows = [row | {"id": "r1"} for row in (ROWS[0], ROWS[0], ROWS[1])]
    report = table(tmp_path, rows, MAPPING + "run_id: {column: id}\n").report
    assert (report.records, report.duplicates, report.rejected) == (1, 1, 1)


def test_scores_of_a_side_file_join_by_run_id(tmp_path: Path) -> None:
    mapping = "\n".join(line for line in MAPPING.splitlines() if not line.startswith("score"))
    rows = [row | {"id": f"r{index}"} for index, row in enumerate(ROWS)]
    (tmp_path / "s.csv").write_text("id,score\nr1,0.5\n")
    imported = table(
        tmp_path, rows, mapping + "\nrun_id: {column: id}\n", scores=[tmp_path / "s.csv"],
        score_source="tests",
    )  # fmt: skip
    assert [record.score for record in imported.logs] == [None, 0.5]


@pytest.mark.parametrize(
    ("mapping", "told"),
    [
        (changed("column: prompt", "column: promt"), "no column 'promt' in the table; did you"),
        (changed("query:", "qeury:"), "map.yaml:2: qeury: unknown key; did you mean 'query'"),
        (changed("query: {column: prompt}", ""), "map.yaml:3: query is missing"),
        (changed("value: io", "values: io"), "topology.values: unknown key"),
        (changed("[1, 5]", "[5, 1]"), "score.range: expected [lowest, highest]"),
        (changed("unit: ms", "unit: weeks"), "timestamp.unit: expected one of s, ms"),
        (changed("factor: 0.01", "factor: 0"), "cost_usd.factor: expected a number > 0"),
        (changed("dataset: {value: support}", ""), "dataset is missing: map it, or name it"),
        (changed("score_source: {value: human}", ""), "score_source is missing"),
        (changed("range: [1, 5]", "map: {up: 2}"), "score.map.up: expected a number in [0, 1]"),
        (changed("{column: model}", "{value: x, column: y}"), "expected either column or value"),
        ("agents: []", "query is missing"),
    ],
)
def test_a_mapping_that_does_not_fit_is_an_error(tmp_path: Path, mapping: str, told: str) -> None:
    with pytest.raises(LogError) as caught:
        table(tmp_path, ROWS, mapping)
    assert told in str(caught.value)


def test_options_that_say_nothing_of_tables_are_refused(tmp_path: Path) -> None:
    for options in ({"topology_key": "x"}, {"agent_key": "x"}, {"runs": "call"}):
        with pytest.raises(LogError, match="of no use for a table"):
            table(tmp_path, ROWS, **options)
    with pytest.raises(LogError, match="a table needs a mapping file"):
        bring(Format.table, tmp_path / "runs.csv")


def test_malformed_rows_are_listed_and_none_is_lost(tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text(MAPPING)
    path = tmp_path / "runs.csv"
    header = "prompt,model,in_tok,out_tok,rating,cents,ms,at\n"
    body = [
        '"a\nb",gpt-4o,1,2,3,4,5,6',
        "too,few",
        "c,gpt-4o,1.5,2,3,4,5,6",
        "d,gpt-4o,1,2,9,4,5,6",
        ",gpt-4o,1,2,3,4,5,6",
        "e,,1,2,3,4,5,6",
        "f,gpt-4o,1,2,3,-4,5,6",
        "g,gpt-4o,1,2,3,4,5,later",
        "h,gpt-4o,1,2,3,4,5,6,7",
        "\udcff,gpt-4o,1,2,3,4,5,6",
        'i"j,gpt-4o,1,2,3,4,5,6',
        '"k"l,gpt-4o,1,2,3,4,5,6',
    ]
    text = (header + "\n".join(body) + "\n").encode("utf-8", "surrogateescape")
    path.write_bytes(text)
    rejects = tmp_path / "bad.jsonl"
    report = bring(
        Format.table, path, mapping=tmp_path / "map.yaml", dataset=None, rejects=rejects
    ).report
    assert (report.rows_read, report.records, report.rejected) == (12, 2, 10)
    told = [json.loads(line) for line in rejects.read_text().splitlines()]
    by_line = {int(item["where"]): (item["field"], item["detail"]) for item in told}
    assert by_line[4] == ("row", "2 cells for 8 columns")
    assert by_line[5] == ("agents[0].prompt_tokens", "got '1.5'")
    assert by_line[6] == ("score", "got '9'")
    assert by_line[12] == ("row", "not UTF-8")


def test_a_number_is_no_time_without_its_unit(tmp_path: Path) -> None:
    imported = table(tmp_path, ROWS, changed(", unit: ms", ""))
    assert "a number is no time without its unit" in imported.report.examples[0]


def test_a_scale_that_the_mapping_does_not_say_is_an_error(tmp_path: Path) -> None:
    rows = [ROWS[0] | {"rating": rating} for rating in (1, 4)]
    mapping = changed(", range: [1, 5]", "")
    with pytest.raises(LogError, match=r"runs\.csv:3: score: got '4', not from 0 to 1; say the"):
        table(tmp_path, rows, mapping)
    imported = table(tmp_path, rows, changed("[1, 5]", "[0, 1]"))
    assert (imported.report.records, imported.report.rejected) == (1, 1)


def test_decimals_of_parquet_are_numbers(tmp_path: Path) -> None:
    exact = {"cents": Decimal("2.50"), "in_tok": Decimal("5.00"), "ms": Decimal("1500")}
    (tmp_path / "map.yaml").write_text(MAPPING)
    pd.DataFrame([ROWS[0] | exact]).to_parquet(tmp_path / "runs.parquet")
    path, mapping = tmp_path / "runs.parquet", tmp_path / "map.yaml"
    (record,) = bring(Format.table, path, mapping=mapping, dataset=None).logs
    assert (record.usage, record.latency_s) == (Usage(5, 7, 0.025), 1.5)


def test_a_time_without_a_zone_is_told(tmp_path: Path) -> None:
    times = ("2025-01-01 00:00:00", "2025-01-01T00:00:00+01:00", "2025-01-01T00:00:00Z")
    rows = [ROWS[0] | {"at": at} for at in times]
    imported = table(tmp_path, rows, changed(", unit: ms", ""))
    assert [record.timestamp for record in imported.logs] == [
        "2025-01-01T00:00:00Z",
        "2024-12-31T23:00:00Z",
        "2025-01-01T00:00:00Z",
    ]
    assert imported.report.notes == {"timestamps without a zone, taken as UTC": 1}
