"""The table of teams beside single agents."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from masrouter.cli import build_app
from masrouter.errors import EvaluationError
from masrouter.evaluation.teams import render_teams, team_table
from masrouter.logs import Logs, write_jsonl
from masrouter.types import Agent, LogRecord, Plan, Usage

ONE = Plan("cot", (Agent(None, "small"),))
BIG = Plan("cot", (Agent(None, "big"),))
TEAM = Plan("debate", (Agent("critic", "small"), Agent(None, "big")))


def run(
    plan: Plan, query: int, score: float | None, cost: float | None = 0.01, n: int = 0
) -> LogRecord:
    return LogRecord(
        run_id=f"{plan}-{query}-{n}",
        query_id=f"q{query}",
        query=f"question {query}",
        dataset="set",
        plan=plan,
        score=score,
        score_source="tests",
        usage=Usage(cost_usd=cost),
        error=None if score is not None else "team: broke",
    )


def logs(*records: LogRecord) -> Logs:
    return Logs.from_records(records)


def grid() -> Logs:
    """Ten problems: small gets 0-4, big 0-7, the team 1-6, so it loses 0 and 7 to big."""
    records = []
    for q in range(10):
        records += [
            run(ONE, q, float(q <= 4), 0.01),
            run(BIG, q, float(q <= 7), 0.10),
            run(TEAM, q, float(1 <= q <= 6), 0.30),
        ]
    return logs(*records)


def test_a_team_stands_beside_its_best_member_alone_on_the_same_problems() -> None:
    table = team_table(grid(), least_runs=5)
    assert [row.topology for row in table.rows] == ["cot", "cot", "debate"]
    team = table.rows[-1]
    assert team.models == "big + small"
    assert (team.runs, team.problems, team.agents) == (10, 10, 2)
    assert team.accuracy == pytest.approx(0.6)
    against = team.against_single
    assert against is not None
    assert against.single == "cot(big)"
    assert against.gain == pytest.approx(-0.2)
    assert (against.worse, against.better) == (0.2, 0.0)
    assert against.cost_ratio == pytest.approx(3.0)
    assert against.gain in against.gain_interval
    assert all(row.against_single is None for row in table.rows[:-1])


def test_only_problems_that_both_ran_are_compared() -> None:
    shared = [run(BIG, q, 1.0) for q in range(5)] + [run(TEAM, q, 1.0) for q in range(5)]
    alone = [run(BIG, q, 0.0) for q in range(5, 30)]
    against = team_table(logs(*shared, *alone), least_runs=5).rows[-1].against_single
    assert against is not None
    assert against.problems == 5
    assert against.gain == 0.0


def test_repeats_of_a_problem_count_as_one() -> None:
    records = [run(BIG, 0, 1.0, n=n) for n in range(9)] + [run(BIG, 1, 0.0)]
    records += [run(TEAM, 0, 0.0), *(run(TEAM, 1, 1.0, n=n) for n in range(9))]
    against = team_table(logs(*records), least_runs=5).rows[-1].against_single
    assert against is not None
    assert against.gain == 0.0
    assert (against.worse, against.better) == (0.5, 0.5)


def test_an_unknown_cost_stays_unknown() -> None:
    records = [run(BIG, q, 1.0, None) for q in range(5)] + [run(TEAM, q, 1.0) for q in range(5)]
    rows = team_table(logs(*records), least_runs=5).rows
    assert rows[0].mean_cost_usd is None
    assert rows[1].against_single is not None
    assert rows[1].against_single.cost_ratio is None


def test_rare_teams_and_unscored_runs_are_counted_and_not_shown() -> None:
    records = [run(BIG, q, 1.0) for q in range(5)] + [run(TEAM, 0, 1.0), run(BIG, 9, None)]
    table = team_table(logs(*records), least_runs=2)
    assert len(table.rows) == 1
    assert (table.rare_teams, table.rare_runs, table.unscored_runs) == (1, 1, 1)


def test_a_team_whose_members_never_ran_alone_is_compared_with_nobody() -> None:
    table = team_table(logs(*(run(TEAM, q, 1.0) for q in range(5))), least_runs=5)
    assert table.rows[0].against_single is None
    assert render_teams(table).row_count == 1


def test_logs_without_a_score_are_refused() -> None:
    with pytest.raises(EvaluationError, match="no run has a score"):
        team_table(logs(run(BIG, 0, None)))


def test_asking_for_more_runs_than_there_are_is_refused_with_what_to_do() -> None:
    with pytest.raises(EvaluationError, match="least-runs"):
        team_table(grid(), least_runs=1000)


def test_the_command_prints_the_table_and_what_it_leaves_out(tmp_path) -> None:
    path = tmp_path / "runs.jsonl"
    write_jsonl(grid(), path)
    shown = CliRunner().invoke(build_app(), ["logs", "teams", str(path), "--least-runs", "5"])
    assert shown.exit_code == 0, shown.output
    assert "-0.200" in shown.output
    assert "20.0%" in shown.output
    as_json = CliRunner().invoke(
        build_app(), ["logs", "teams", str(path), "--least-runs", "5", "--json"]
    )
    assert json.loads(as_json.stdout)["rows"][2]["against_single"]["worse"] == 0.2
