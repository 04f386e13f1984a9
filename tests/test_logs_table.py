"""Logs in memory: plans, codes, selection, joining, figures and the kind of logs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from masrouter.errors import LogError
from masrouter.logs import LogKind, Logs, detect_kind, log_stats, read_logs, write_parquet
from masrouter.types import Agent, LogRecord, Plan, Usage

REAL = Path(__file__).parents[1] / "../shared/logs"
PLANS = (
    Plan("chain", (Agent("a", "m1"), Agent("b", "m2"))),
    Plan("chain", (Agent("b", "m2"), Agent("a", "m1"))),
    Plan("chain", (Agent(None, "m1"), Agent("b", "m2"))),
    Plan("chain", (Agent("a", "m1"), Agent("b", "m2"), Agent("a", "m1"))),
    Plan("debate", (Agent("a", "m1"), Agent("b", "m2"))),
    Plan("io", (Agent(None, "m1"),)),
)


def run(query: int, plan: Plan, **changes: object) -> LogRecord:
    record = LogRecord(
        run_id=f"{query}/{plan}",
        query_id=f"q{query}",
        query=f"text {query}",
        dataset="sums",
        plan=plan,
        score=1.0,
        score_source="tests",
        usage=Usage(10, 5, 0.01),
        policy="grid",
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def grid(queries: int, plans: tuple[Plan, ...] = PLANS) -> Iterator[LogRecord]:
    for query in range(queries):
        for plan in plans:
            yield run(query, plan)


def test_every_row_finds_its_plan_and_plans_are_sorted() -> None:
    logs = Logs.from_records(grid(5))
    index = logs.plan_index()
    assert set(index.plans) == set(PLANS)
    assert len(index.plans) == len(PLANS)
    assert [index.plans[i] for i in index.row_plan] == [record.plan for record in logs]
    shuffled = logs.select(np.arange(len(logs)) % 7 != 3).plan_index()
    assert shuffled.plans == index.plans
    assert index.row_plan.dtype == np.int32


def test_an_empty_log_has_no_plans() -> None:
    logs = Logs.from_records([])
    assert logs.plan_index().plans == ()
    assert list(logs) == []
    assert log_stats(logs).rows == 0
    assert detect_kind(logs).kind is LogKind.OBSERVATIONAL


def test_codes_give_the_values_back_and_minus_one_for_null() -> None:
    records = [run(i, PLANS[0], task=task) for i, task in enumerate(["x", None, "y", "x"])]
    logs = Logs.from_records(records)
    codes = logs.codes("task")
    assert codes.values == ("x", "y")
    assert codes.rows.tolist() == [0, -1, 1, 0]
    picked = logs.select(np.array([False, False, True, False])).codes("task")
    assert (picked.values, picked.rows.tolist()) == (("y",), [0])
    assert logs.codes("query").values == ("text 0", "text 1", "text 2", "text 3")


def test_unknown_numbers_are_nan_and_not_zero() -> None:
    logs = Logs.from_records([run(0, PLANS[0], usage=Usage()), run(1, PLANS[0])])
    cost = logs.numbers("cost_usd")
    assert np.isnan(cost[0])
    assert cost[1] == 0.01
    assert logs.to_pandas()["cost_usd"].isna().tolist() == [True, False]


def test_select_keeps_the_rows_of_the_mask() -> None:
    logs = Logs.from_records(grid(3))
    picked = logs.select(np.array([record.query_id == "q1" for record in logs]))
    assert list(picked) == [record for record in grid(3) if record.query_id == "q1"]
    with pytest.raises(LogError, match=r"boolean mask of shape \(18,\), got int64"):
        logs.select(np.zeros(18, dtype=np.int64))


def test_joined_logs_count_a_run_once() -> None:
    one, two = Logs.from_records(grid(2)), Logs.from_records(grid(4))
    joined = one.concat(two)
    assert list(joined) == list(grid(4))
    assert joined.report.duplicates == 2 * len(PLANS)
    changed = Logs.from_records([run(0, PLANS[0], score=0.0)])
    assert one.concat(changed).report.examples[0].startswith("logs 1:row 1: run_id: ")


def test_bad_records_are_errors_or_counted() -> None:
    bad = [run(0, PLANS[0]), run(1, PLANS[0], score=1.5), run(2, PLANS[0], usage=Usage(True))]
    with pytest.raises(LogError, match=r"^records:row 2: score: .*got 1\.5"):
        Logs.from_records(bad)
    with pytest.raises(LogError, match=r"^records:row 1: prompt_tokens: .*got True"):
        Logs.from_records(bad[2:])
    logs = Logs.from_records(bad, strict=False, source="synthetic")
    assert list(logs) == bad[:1]
    assert logs.report.rejected == 2
    assert logs.report.examples[0].startswith("synthetic:row 2: score: ")
    with pytest.raises(LogError, match="schema version 2"):
        Logs.from_records([run(0, PLANS[0], schema_version=2)])


def test_grid_logs_are_told_by_their_coverage() -> None:
    verdict = detect_kind(Logs.from_records(grid(5)))
    assert verdict.kind is LogKind.GRID
    assert "6.0 plans on average" in verdict.why
    assert "100%" in verdict.why
    undeclared = [replace(record, policy=None) for record in grid(5)]
    assert detect_kind(Logs.from_records(undeclared)).kind is LogKind.GRID


def test_blocks_of_a_grid_are_told_apart_by_data_set() -> None:
    sums = list(grid(4, PLANS[:3]))
    words = [
        replace(r, run_id=f"w{r.run_id}", query_id=f"w{r.query_id}", dataset="words", policy=None)
        for r in grid(4, PLANS[3:])
    ]
    verdict = detect_kind(Logs.from_records(sums + words))
    assert verdict.kind is LogKind.GRID
    assert "100%" in verdict.why


def test_logs_with_propensities_are_randomised() -> None:
    rows = [run(i, PLANS[i % 6], propensity=1 / 6, policy="uniform") for i in range(300)]
    verdict = detect_kind(Logs.from_records(rows))
    assert verdict.kind is LogKind.RANDOMISED
    assert "300 of 300 rows have a propensity" in verdict.why
    stray = [replace(rows[0], propensity=None), *rows[1:]]
    verdict = detect_kind(Logs.from_records(stray))
    assert verdict.kind is LogKind.RANDOMISED
    assert "the 1 without" in verdict.why


def test_sparse_or_mixed_logs_are_observational() -> None:
    sparse = [run(i, PLANS[i % 6], policy="habit") for i in range(60)]
    verdict = detect_kind(Logs.from_records(sparse))
    assert verdict.kind is LogKind.OBSERVATIONAL
    assert "no row has a propensity" in verdict.why
    mixed = [replace(r, propensity=0.5) if i % 2 else r for i, r in enumerate(sparse)]
    verdict = detect_kind(Logs.from_records(mixed))
    assert verdict.kind is LogKind.OBSERVATIONAL
    assert "only 30 of 60 rows have a propensity" in verdict.why


def test_the_figures_are_those_of_the_rows() -> None:
    rows = list(grid(3, PLANS[:2]))
    rows[0] = replace(rows[0], score=None, error="timeout", usage=Usage(10, None, None))
    rows[1] = replace(rows[1], score=0.5, score_source="judge", timestamp="2025-01-31T12:00:00Z")
    rows[2] = replace(rows[2], timestamp="2025-01-30T12:00:00+02:00")
    found = log_stats(Logs.from_records(rows))
    assert (found.rows, found.queries, found.plans, found.coverage) == (6, 3, 2, 1.0)
    assert found.mean_score == pytest.approx(4.5 / 5)
    assert (found.score_known, found.cost_known, found.tokens_known) == (5 / 6, 5 / 6, 5 / 6)
    assert found.total_cost_usd == pytest.approx(0.05)
    assert found.errors == 1
    assert found.roles == {"a": 6, "b": 6}
    assert found.team_sizes == {2: 6}
    assert found.score_sources == {"tests": 5, "judge": 1}
    assert (
        "scores of several sources are mixed: tests (5 rows), judge (1 rows)" in (found.warnings[0])
    )
    assert found.first_time == "2025-01-30T10:00:00+00:00"
    assert found.last_time == "2025-01-31T12:00:00+00:00"


def test_processes_may_append_to_one_file_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    code = """
import sys
from masrouter.logs import LogWriter
from masrouter.types import Agent, LogRecord, Plan
with LogWriter(sys.argv[1]) as writer:
    for i in range(20):
        writer.append(LogRecord(f"{sys.argv[2]}-{i}", "q", "text " * 400, "d",
                                Plan("io", (Agent(None, "m"),)), 1.0, "tests"))
"""
    root = str(Path(__file__).parents[1])
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(path), str(i)], cwd=root)
        for i in range(3)
    ]
    assert [process.wait() for process in writers] == [0, 0, 0]
    logs = read_logs(path, strict=True)
    assert len(logs) == 60


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the real logs beside the repository")
@pytest.mark.parametrize("name", sorted(p.name for p in REAL.glob("*.parquet")) or ["none"])
def test_real_logs_are_read_whole_and_are_grids(name: str, tmp_path: Path) -> None:
    logs = read_logs(REAL / name)
    report = logs.report
    assert report.rejected == report.duplicates == 0
    assert report.rows_kept == report.rows_read == len(logs)
    assert report.unknown_fields == {}
    verdict = detect_kind(logs)
    assert verdict.kind is LogKind.GRID, verdict.why
    first = next(iter(logs))
    index = logs.plan_index()
    assert index.plans[index.row_plan[0]] == first.plan
    small = logs.select(np.arange(len(logs)) < 200)
    write_parquet(small, tmp_path / "part.parquet")
    assert list(read_logs(tmp_path / "part.parquet")) == list(small)
