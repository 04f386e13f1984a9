"""Every rule of log schema 1, with the message that its breach gives, in JSONL and in Parquet."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from masrouter.errors import LogError
from masrouter.logs import iter_logs, read_logs


def row(**changes: Any) -> dict[str, Any]:
    """A valid line, with some fields changed."""
    valid: dict[str, Any] = {
        "schema_version": 1,
        "run_id": "r1",
        "query_id": "q1",
        "query": "What is 2 + 2?",
        "dataset": "sums",
        "task": "math",
        "topology": "chain",
        "agents": [
            {"role": "coder", "model": "gpt-4o", "prompt_tokens": 3, "completion_tokens": 4},
            {"role": None, "model": "gpt-4o-mini"},
        ],
        "score": 0.5,
        "score_source": "tests",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cost_usd": 0.01,
        "latency_s": 1.5,
        "propensity": 0.25,
        "stage_propensities": {"topology": 0.5, "count": 0.5, "roles": [1.0, 1]},
        "policy": "uniform",
        "seed": 3,
        "error": None,
        "timestamp": "2025-01-31T12:00:00Z",
    }
    return valid | changes


def write_lines(path: Path, *rows: Any) -> Path:
    lines = [line if isinstance(line, str) else json.dumps(line) for line in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


HALF = "expected a number in [0, 1] or null"
PROB = "expected a number in (0, 1] or null"
COUNT = "expected an integer >= 0 or null"
AMOUNT = "expected a finite number >= 0 or null"
NAME = "expected a non-empty string"
TIME = "expected an ISO 8601 time such as 2025-01-31T12:00:00Z, or null"
STAGES = "expected an object whose probabilities are in (0, 1], or null"
AGENTS = "expected a non-empty list of {role, model}"

BAD: list[tuple[str, Any, str]] = [
    ("score", 1.5, f"score: {HALF}, got 1.5"),
    ("score", -0.1, f"score: {HALF}, got -0.1"),
    ("score", "0.5", f"score: {HALF}, got '0.5'"),
    ("score", True, f"score: {HALF}, got True"),
    ("score", float("nan"), f"score: {HALF}, got nan"),
    ("score", [0.5], f"score: {HALF}, got [0.5]"),
    ("propensity", 0, f"propensity: {PROB}, got 0"),
    ("propensity", 1.01, f"propensity: {PROB}, got 1.01"),
    ("propensity", False, f"propensity: {PROB}, got False"),
    ("prompt_tokens", -1, f"prompt_tokens: {COUNT}, got -1"),
    ("prompt_tokens", 1.5, f"prompt_tokens: {COUNT}, got 1.5"),
    ("prompt_tokens", True, f"prompt_tokens: {COUNT}, got True"),
    ("completion_tokens", "7", f"completion_tokens: {COUNT}, got '7'"),
    ("cost_usd", -0.5, f"cost_usd: {AMOUNT}, got -0.5"),
    ("cost_usd", float("inf"), f"cost_usd: {AMOUNT}, got inf"),
    ("cost_usd", "1 $", f"cost_usd: {AMOUNT}, got '1 $'"),
    ("latency_s", -1, f"latency_s: {AMOUNT}, got -1"),
    ("run_id", None, f"run_id: {NAME}, got null"),
    ("run_id", "", f"run_id: {NAME}, got ''"),
    ("run_id", 7, f"run_id: {NAME}, got 7"),
    ("query_id", "", f"query_id: {NAME}, got ''"),
    ("query", None, f"query: {NAME}, got null"),
    ("dataset", "", f"dataset: {NAME}, got ''"),
    ("topology", "", f"topology: {NAME}, got ''"),
    ("score_source", None, f"score_source: {NAME}, got null"),
    ("task", 3, "task: expected a string or null, got 3"),
    ("policy", False, "policy: expected a string or null, got False"),
    ("seed", 1.5, "seed: expected an integer of 64 bits or null, got 1.5"),
    ("seed", "x", "seed: expected an integer of 64 bits or null, got 'x'"),
    ("schema_version", None, "schema_version: expected the integer 1, got null"),
    ("schema_version", 0, "schema_version: expected the integer 1, got 0"),
    ("schema_version", "1", "schema_version: expected the integer 1, got '1'"),
    ("timestamp", "yesterday", f"timestamp: {TIME}, got 'yesterday'"),
    ("timestamp", "2025-02-30T12:00:00Z", f"timestamp: {TIME}, got '2025-02-30T12:00:00Z'"),
    ("timestamp", "2025-01-31x12:00:00", f"timestamp: {TIME}, got '2025-01-31x12:00:00'"),
    (
        "timestamp",
        "0001-01-01T00:00:00+05:00",
        f"timestamp: {TIME}, got '0001-01-01T00:00:00+05:00'",
    ),
    ("agents", [], f"agents: {AGENTS}, got []"),
    ("agents", None, f"agents: {AGENTS}, got null"),
    ("agents", "gpt-4o", f"agents: {AGENTS}, got 'gpt-4o'"),
    ("agents", [{"role": "a"}], f"agents[0].model: {NAME}, got null"),
    ("agents", [{"model": "m"}, {"model": ""}], f"agents[1].model: {NAME}, got ''"),
    ("agents", [{"model": "m", "role": ""}], f"agents[0].role: {NAME} or null, got ''"),
    (
        "agents",
        [{"model": "m"}, {"model": "m", "prompt_tokens": -2}],
        f"agents[1].prompt_tokens: {COUNT}, got -2",
    ),
]
ONLY_JSON: list[tuple[str, Any, str]] = [
    ("agents", ["gpt-4o"], f"agents: {AGENTS}, got ['gpt-4o']"),
    ("agents", [None], f"agents: {AGENTS}, got [None]"),
    ("seed", 2**63, f"seed: expected an integer of 64 bits or null, got {2**63}"),
    ("cost_usd", 10**400, f"cost_usd: {AMOUNT}, got "),
    ("stage_propensities", {"topology": 0}, f"stage_propensities: {STAGES}, got "),
    ("stage_propensities", {"roles": [0.5, 2]}, f"stage_propensities: {STAGES}, got "),
    ("stage_propensities", {"roles": None}, f"stage_propensities: {STAGES}, got "),
    ("stage_propensities", "topology", f"stage_propensities: {STAGES}, got 'topology'"),
    ("stage_propensities", [0.5], f"stage_propensities: {STAGES}, got [0.5]"),
    ("query", "\ud800", f"query: {NAME}, got "),
]


@pytest.mark.parametrize(("field", "value", "message"), BAD + ONLY_JSON)
def test_a_bad_line_is_rejected_by_file_line_and_field(
    tmp_path: Path, field: str, value: Any, message: str
) -> None:
    path = write_lines(
        tmp_path / "runs.jsonl", row(run_id="good"), row(**{field: value}), row(run_id="last")
    )
    logs = read_logs(path)
    assert [record.run_id for record in logs] == ["good", "last"]
    assert logs.report.rejected == 1
    assert logs.report.examples[0].startswith(f"{path}:2: {message}")
    with pytest.raises(LogError, match=r"runs\.jsonl:2: ") as caught:
        read_logs(path, strict=True)
    assert str(caught.value).startswith(f"{path}:2: {message}")


@pytest.mark.parametrize(("field", "value", "message"), BAD)
def test_a_bad_parquet_row_is_rejected_by_file_row_and_field(
    tmp_path: Path, field: str, value: Any, message: str
) -> None:
    path = tmp_path / "runs.parquet"
    pq.write_table(pa.Table.from_pylist([parquet_row(**{field: value})]), path)
    logs = read_logs(path)
    assert len(logs) == 0
    assert logs.report.examples[0].startswith(f"{path}:row 1: {message}")


def parquet_row(**changes: Any) -> dict[str, Any]:
    return {"stage_propensities": None} | row(stage_propensities=None) | changes


LINES: list[tuple[str, str]] = [
    ("{", "not valid JSON, Expecting property name"),
    ("[1]", "expected a JSON object, got [1]"),
    ("null", "expected a JSON object, got null"),
    ('{"run_id": "a", "run_id": "b"}', "a key stands twice in one object, 'run_id'"),
    (json.dumps(row()) + json.dumps(row()), "not valid JSON, Extra data at column"),
    ("[" * 100_000, "nested too deeply"),
    ('{"x": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
    ('{"x": ' + "9" * 5000 + "}", "not valid JSON, Exceeds the limit"),
]


@pytest.mark.parametrize(("line", "message"), LINES)
def test_a_line_that_is_no_record_is_rejected(tmp_path: Path, line: str, message: str) -> None:
    path = write_lines(tmp_path / "runs.jsonl", row(run_id="a"), line, "", row(run_id="b"))
    report = read_logs(path).report
    assert (report.rows_read, report.rows_kept, report.rejected) == (3, 2, 1)
    assert report.examples[0].startswith(f"{path}:2: line: {message}")


def test_blank_lines_are_no_rows_but_count_as_lines(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "runs.jsonl", "", row(), "  ", row(run_id="r2", score=2))
    report = read_logs(path).report
    assert report.rows_read == 2
    assert report.examples[0].startswith(f"{path}:4: score: ")


def test_bytes_that_are_not_utf8_are_kept_in_the_rejects(tmp_path: Path) -> None:
    path, rejects = tmp_path / "runs.jsonl", tmp_path / "bad.txt"
    bad = b'{"run_id": "\xff\xfe"}'
    path.write_bytes(json.dumps(row()).encode() + b"\n" + bad + b"\n")
    report = read_logs(path, rejects=rejects).report
    assert report.examples == (f"{path}:2: line: not UTF-8, byte 13",)
    entry = json.loads(rejects.read_text())
    assert entry["raw"].encode("utf-8", "surrogateescape") == bad
    assert (entry["where"], entry["field"], entry["why"]) == ("2", "line", "not UTF-8")


def test_a_last_line_that_was_cut_off_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text(json.dumps(row()) + "\n" + json.dumps(row(run_id="r2"))[:50])
    report = read_logs(path).report
    assert report.rows_kept == 1
    assert "cut off" in report.examples[0]
    assert report.examples[0].startswith(f"{path}:2: ")


def test_a_last_line_without_line_feed_and_a_byte_order_mark_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(row()).encode() + b"\r\n")
    with path.open("ab") as file:
        file.write(json.dumps(row(run_id="r2")).encode())
    logs = read_logs(path)
    assert logs.report.ok
    assert len(logs) == 2


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_later_schema_version_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"runs{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([parquet_row(schema_version=7)]), path)
    else:
        write_lines(path, row(run_id="a"), row(schema_version=7, new_thing={"a": 1}))
    with pytest.raises(LogError, match=r"schema version 7, and this program reads.*upgrade"):
        read_logs(path)


def test_unknown_fields_are_counted_and_not_read(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "runs.jsonl",
        row(region="eu"),
        row(run_id="r2", region=None),
        row(run_id="r3", agents=[{"model": "m", "temperature": 0.7}], region=[1, "mixed"]),
    )
    logs = read_logs(path)
    assert len(logs) == 3
    assert logs.report.unknown_fields == {"agents[].temperature": 1, "region": 2}
    assert any("'region' in 2 rows" in line for line in logs.report.lines())


def test_missing_optional_columns_are_null(tmp_path: Path) -> None:
    needed = ("schema_version", "run_id", "query_id", "query", "dataset", "topology")
    small = {k: v for k, v in row().items() if k in (*needed, "agents", "score_source")}
    pq.write_table(pa.Table.from_pylist([small]), tmp_path / "a.parquet")
    write_lines(tmp_path / "b.jsonl", small | {"run_id": "r2"})
    first, second = read_logs(tmp_path)
    assert (first.score, first.usage.cost_usd, first.timestamp) == (None, None, None)
    assert (second.score, second.propensity, second.seed) == (None, None, None)


def test_parquet_types_that_hold_the_same_values_are_read(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([parquet_row(timestamp=None, error=None)])
    agents = [[{"role": None, "model": "m", "prompt_tokens": 2.0}]]
    changes = {
        "prompt_tokens": pa.array([12.0]),
        "seed": pa.array([5], pa.uint8()),
        "score": pa.array([1], pa.int8()),
        "dataset": pa.array(["sums"]).dictionary_encode(),
        "query": pa.array(["q"], pa.string_view()),
        "timestamp": pa.array([1_700_000_000_000_000], pa.timestamp("us")),
        "agents": pa.array(agents),
        "stage_propensities": pa.array([{"topology": 0.5, "roles": [0.1, 1.0], "count": None}]),
    }
    for name, column in changes.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    pq.write_table(table, tmp_path / "runs.parquet")
    (record,) = read_logs(tmp_path / "runs.parquet", strict=True)
    assert record.usage.prompt_tokens == 12
    assert type(record.usage.prompt_tokens) is int
    assert record.agent_usage[0].prompt_tokens == 2
    assert (record.seed, record.score, record.plan.agents[0].role) == (5, 1.0, None)
    assert record.timestamp == "2023-11-14T22:13:20.000000Z"
    assert record.stage_propensities == {"topology": 0.5, "roles": [0.1, 1.0]}


def test_the_same_run_counts_once_and_another_content_is_rejected(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", row(), row(), row(run_id="r2"))
    write_lines(tmp_path / "b.jsonl", row(run_id="r2"), row(score=0.75))
    logs = read_logs(tmp_path)
    assert len(logs) == 2
    assert logs.report.duplicates == 2
    assert logs.report.examples == (
        f"{tmp_path / 'b.jsonl'}:2: run_id: the run_id of an earlier row with other content, "
        "got 'r1'",
    )
    with pytest.raises(LogError, match="run_id of an earlier row"):
        read_logs(tmp_path, strict=True)


DIFFERENT = ("score", "query", "cost_usd", "error", "seed", "stage_propensities", "agents")


@pytest.mark.parametrize("field", DIFFERENT)
def test_any_difference_makes_another_content(tmp_path: Path, field: str) -> None:
    seats = row()["agents"]
    change = {"agents": [seats[1], seats[0]], "query": "Other?", "error": "boom"}.get(field)
    path = write_lines(tmp_path / "runs.jsonl", row(), row(**{field: change}))
    assert read_logs(path).report.rejected == 1


def test_a_query_id_with_two_texts_is_reported_and_kept(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", row(), row(run_id="r2", query="What is 3 + 3?"))
    logs = read_logs(path)
    assert len(logs) == 2
    assert not logs.report.ok
    assert logs.report.text_conflicts == 1
    assert logs.report.conflict_examples[0].startswith(f"{path}:2: query: another text")
    with pytest.raises(LogError, match="another text"):
        read_logs(path, strict=True)


def test_gzip_reads_the_same_and_a_damaged_stream_is_an_error(tmp_path: Path) -> None:
    rows = [row(run_id=f"r{i}") for i in range(500)]
    packed = gzip.compress("".join(json.dumps(r) + "\n" for r in rows).encode())
    path = tmp_path / "runs.jsonl.gz"
    path.write_bytes(packed)
    assert len(read_logs(path)) == 500
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(LogError, match=r"runs\.jsonl\.gz:1: gzip stream damaged"):
        read_logs(path)
    path.write_bytes(b"not gzip at all")
    with pytest.raises(LogError, match="gzip stream damaged"):
        read_logs(path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_a_damaged_parquet_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "runs.parquet"
    path.write_bytes(content)
    with pytest.raises(LogError, match=r"runs\.parquet: damaged Parquet file"):
        read_logs(path)


def test_paths_that_hold_no_logs_are_errors(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="no such file or folder"):
        read_logs(tmp_path / "absent.jsonl")
    with pytest.raises(LogError, match=r"no \.jsonl, \.jsonl\.gz, \.parquet file"):
        read_logs(tmp_path)
    with pytest.raises(LogError, match="no logs given"):
        read_logs([])
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(LogError, match="not a log by its name"):
        read_logs(tmp_path / "notes.txt")


def test_folders_are_read_in_sorted_order_and_other_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    write_lines(tmp_path / "b" / "one.jsonl", row(run_id="b1"))
    write_lines(tmp_path / "a.jsonl", row(run_id="a"))
    (tmp_path / "README.md").write_text("notes")
    logs = read_logs([tmp_path, tmp_path / "a.jsonl"])
    assert [record.run_id for record in logs] == ["a", "b1"]
    assert logs.report.ignored_files == (str(tmp_path / "README.md"),)


def test_the_rejects_file_may_not_be_one_of_the_logs(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", row())
    with pytest.raises(LogError, match="rejects file is one of the logs"):
        read_logs(path, rejects=path)
    assert path.read_text()


def test_batches_are_bounded_and_progress_ends_at_the_total(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", *(row(run_id=f"r{i}") for i in range(25)))
    seen: list[tuple[int, int]] = []
    reader = iter_logs(path, batch_size=10, progress=lambda done, total: seen.append((done, total)))
    assert [batch.num_rows for batch in reader] == [10, 10, 5]
    assert reader.report.rows_kept == 25
    assert seen[-1] == (path.stat().st_size, path.stat().st_size)


def test_a_block_with_one_bad_line_says_the_same_of_the_others(tmp_path: Path) -> None:
    rows = [row(run_id=f"r{i}", score=i / 100, seed=i) for i in range(100)]
    good = write_lines(tmp_path / "good.jsonl", *rows)
    mixed = write_lines(tmp_path / "mixed.jsonl", *rows[:50], "{", *rows[50:])
    assert list(read_logs(good)) == list(read_logs(mixed))
    scores = read_logs(mixed).numbers("score")
    np.testing.assert_array_equal(scores, [i / 100 for i in range(100)])
