"""Exports to RouterBench and LLMRouterBench, read back as those benchmarks read them.

The readers here are written from the formats as their repositories document them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from masrouter.cli_export import app
from masrouter.errors import EvaluationError, MasRouterError
from masrouter.evaluation.exports import (
    RouteOptions,
    bench_results,
    plan_names,
    read_names,
    routed_result,
    router_bench_table,
    write_bench,
    write_router_bench,
)
from masrouter.logs import LogKind, Logs
from masrouter.logs.write import write_parquet
from masrouter.outcomes import Outcomes
from masrouter.router import Router
from masrouter.types import Agent, Plan

NAN = np.nan
IO, COT = Plan("io", (Agent(None, "small"),)), Plan("cot", (Agent(None, "small"),))
LARGE = Plan("cot", (Agent("solver", "large"),))
TEAM = Plan("debate", (Agent("solver", "small"), Agent("critic", "large")))
WHEN = datetime(2025, 3, 1, 12, 30, 5, tzinfo=UTC)


@pytest.fixture
def outcomes(outcomes_of: Any) -> Outcomes:
    score = np.array(
        [[1.0, 1.0, 1.0, 0.5], [0.0, 0.0, 0.0, 0.0], [0.25, NAN, 0.75, 0.75], [NAN] * 4]
    )
    cost = np.array(
        [[0.02, 0.01, NAN, 0.05], [0.1, 0.2, 0.3, 0.4], [0.1, NAN, NAN, 0.5], [0.1] * 4]
    )
    made: Outcomes = outcomes_of(
        score,
        cost,
        plans=(IO, COT, LARGE, TEAM),
        texts=('two\nlines, "quoted"', "what is 1|1?", "déjà vu", "unscored"),
        datasets=("math", "math", "code", "code"),
    )
    return made


def read_router_bench(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """As its evaluate_routers.py does: models are found by their columns of responses."""
    frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    end = "|model_response"
    return frame, [c.replace(end, "") for c in frame.columns if end in c]


def read_bench(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """As its BaselineDataLoader does: names are read from the files, not from the folders."""
    files = (json.loads(path.read_text(encoding="utf-8")) for path in folder.rglob("*.json"))
    return {(f["dataset_name"], f["model_name"]): f for f in files if not f.get("demo", False)}


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(result.exception, MasRouterError):
        return 1, str(result.exception)
    return result.exit_code, result.output


# Names


def test_a_single_agent_goes_by_its_model_where_no_other_plan_has_it_alone() -> None:
    assert plan_names((IO, COT, LARGE, TEAM)) == (
        "io(small)", "cot(small)", "large", "debate(solver@small, critic@large)",
    )  # fmt: skip


def test_teams_that_are_shown_alike_are_told_apart_by_their_order() -> None:
    a, b = Agent(None, "a"), Agent(None, "b")
    names = plan_names((Plan("chain", (a, b, a)), Plan("chain", (a, a, b))))
    assert names == ("chain(a, b, a)", "chain(a, a, b)")


def test_plans_that_no_name_tells_apart_are_refused() -> None:
    twins = (Plan("io", (Agent("x", "y"),) * 2), Plan("io", (Agent(None, "x@y"),) * 2))
    with pytest.raises(EvaluationError, match="two plans"):
        plan_names(twins)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("small: 3\n", r"names\.yaml:1: small: expected a name, got 3"),
        ("- small\n", r"names\.yaml:1: expected a mapping"),
        ("a: b\na: c\n", r"names\.yaml:2: a: the key stands twice"),
    ],
)
def test_a_wrong_names_file_is_refused_with_its_line(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "names.yaml").write_text(text)
    with pytest.raises(EvaluationError, match=why):
        read_names(tmp_path / "names.yaml")


# RouterBench


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_a_router_bench_table_holds_what_the_logs_hold(
    outcomes: Outcomes, tmp_path: Path, name: str
) -> None:
    table = router_bench_table(outcomes)
    write_router_bench(table, tmp_path / name)
    frame, models = read_router_bench(tmp_path / name)
    assert models == list(plan_names(outcomes.plans))
    assert frame["sample_id"].tolist() == list(outcomes.query_ids[:3])
    assert frame["prompt"].tolist() == list(outcomes.queries[:3])
    assert frame["eval_name"].tolist() == ["math", "math", "code"]
    np.testing.assert_array_equal(frame[models].to_numpy(), outcomes.dense("score")[:3])
    costs = frame[[f"{model}|total_cost" for model in models]].to_numpy()
    np.testing.assert_array_equal(costs, outcomes.dense("cost")[:3])
    assert frame[[f"{model}|model_response" for model in models]].isna().all().all()


def test_the_oracle_of_a_router_bench_table_is_the_cheapest_of_the_best(outcomes: Outcomes) -> None:
    told = router_bench_table(outcomes).frame["oracle_model_to_route_to"].tolist()
    # An unknown cost is not the lowest, and nobody was right on the second query.
    assert told == ["cot(small)", "no_model_correct", "debate(solver@small, critic@large)"]


def test_what_a_router_bench_table_lacks_is_said(outcomes: Outcomes) -> None:
    notes = " / ".join(router_bench_table(outcomes).notes)
    assert "1 queries without any score are left out" in notes
    assert "1 of 12 performances are unknown" in notes
    assert "2 costs of scored cells are unknown" in notes
    assert "responses" in notes


def test_models_take_the_names_that_are_given(outcomes: Outcomes) -> None:
    table = router_bench_table(outcomes, {"large": "acme/large-1"})
    assert table.models == (
        "io(small)", "cot(small)", "acme/large-1", "debate(solver@small, critic@large)",
    )  # fmt: skip
    assert "acme/large-1|total_cost" in table.frame


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ({"larg": "x"}, "nothing is called 'larg'; did you mean 'large'"),
        ({"large": "io(small)"}, r"'io\(small\)' stands for two plans"),
        ({"large": "prompt"}, "cannot hold a model called 'prompt'"),
        ({"large": "a|total_cost"}, "cannot hold a model called"),
    ],
)
def test_names_that_the_table_cannot_hold_are_refused(
    outcomes: Outcomes, names: Mapping[str, str], why: str
) -> None:
    with pytest.raises(EvaluationError, match=why):
        router_bench_table(outcomes, names)


@pytest.mark.parametrize("kind", [LogKind.RANDOMISED, LogKind.OBSERVATIONAL])
def test_logs_that_are_no_grid_are_not_exported(outcomes: Outcomes, kind: LogKind) -> None:
    other = replace(outcomes, kind=kind, why="made by hand")
    with pytest.raises(EvaluationError, match=rf"RouterBench .* these are {kind.value}"):
        router_bench_table(other)
    with pytest.raises(EvaluationError, match="LLMRouterBench"):
        bench_results(other)


def test_a_table_is_never_pickled(outcomes: Outcomes, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"\.csv or \.parquet"):
        write_router_bench(router_bench_table(outcomes), tmp_path / "table.pkl")
    assert list(tmp_path.iterdir()) == []


# LLMRouterBench


def test_result_files_hold_a_record_for_each_scored_cell(
    outcomes: Outcomes, tmp_path: Path
) -> None:
    found = bench_results(outcomes)
    write_bench(found.results, tmp_path, when=WHEN)
    files = read_bench(tmp_path)
    names = plan_names(outcomes.plans)
    seen = 0
    for p, name in enumerate(names):
        for dataset in ("math", "code"):
            records = files[dataset, name]["records"] if (dataset, name) in files else []
            mine = [i for i, d in enumerate(outcomes.datasets) if d == dataset]
            for record in records:
                i = mine[record["index"]]
                assert record["prompt"] == record["origin_query"] == outcomes.queries[i]
                assert record["extra_fields"]["query_id"] == outcomes.query_ids[i]
                assert record["score"] == outcomes.dense("score")[i, p]
                cost = outcomes.dense("cost")[i, p]
                assert record["cost"] == (None if np.isnan(cost) else cost)
            seen += len(records)
    assert seen == int(np.isfinite(outcomes.score).sum())
    # cot(small) has no scored run on the data set `code`: no file, and no score of 0.
    assert ("code", "cot(small)") not in files


def test_a_result_file_adds_up_and_unknown_is_not_zero(outcomes: Outcomes) -> None:
    files = {(r.dataset, r.model): r.data for r in bench_results(outcomes).results}
    small, large = files["math", "io(small)"], files["math", "large"]
    assert (small["performance"], small["counts"]) == (0.5, 2)
    assert small["cost"] == pytest.approx(0.12)
    assert large["cost"] is None
    assert large["prompt_tokens"] is None
    assert large["time_taken"] is None


def test_result_files_lie_where_that_benchmark_looks(outcomes: Outcomes, tmp_path: Path) -> None:
    results = [
        r for r in bench_results(outcomes).results if (r.dataset, r.model) == ("math", "large")
    ]
    (path,) = write_bench(results, tmp_path, when=WHEN)
    assert path == tmp_path / "math/test/large/math-test-large-20250301_123005.json"


@pytest.mark.parametrize("name", ["../../escape", "/etc/passwd", "a/b", "..", ".hidden", "x" * 300])
def test_no_name_leaves_the_folder(outcomes: Outcomes, tmp_path: Path, name: str) -> None:
    hostile = replace(outcomes, datasets=(name,) * 4)
    inside = tmp_path / "inside"
    write_bench(bench_results(hostile).results, inside, when=WHEN)
    written = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(written) == 4
    assert all(p.is_relative_to(inside) for p in written)
    assert {dataset for dataset, _ in read_bench(inside)} == {name}


def test_repeated_runs_are_their_mean_and_whole_tokens_stay_whole(outcomes: Outcomes) -> None:
    cells = len(outcomes.score)
    tokens = replace(
        outcomes,
        prompt_tokens=np.full(cells, 12.0),
        completion_tokens=np.full(cells, 2.5),
    )
    record = bench_results(tokens).results[0].data["records"][0]
    assert (record["prompt_tokens"], record["completion_tokens"]) == (12, 2.5)
    assert isinstance(record["prompt_tokens"], int)


def test_a_router_is_one_more_model_with_the_records_that_it_chose(
    router: Router, grid_logs: Logs, tmp_path: Path
) -> None:
    outcomes = Outcomes.from_logs(grid_logs)
    options = RouteOptions(cost_weight=5.0)
    routed = routed_result(router, outcomes, options, name="mine")
    write_bench([*bench_results(outcomes).results, *routed.results], tmp_path, when=WHEN)
    files = read_bench(tmp_path)
    decisions = router.route_batch(list(outcomes.queries), cost_weight=5.0)
    plans = dict(zip(outcomes.query_ids, (d.plan for d in decisions), strict=True))
    names = dict(zip(outcomes.plans, plan_names(outcomes.plans), strict=True))
    checked = 0
    for dataset in set(outcomes.datasets):
        for record in files[dataset, "mine"]["records"]:
            plan = plans[record["extra_fields"]["query_id"]]
            theirs = files[dataset, names[plan]]["records"]
            assert record in theirs
            checked += 1
    assert checked == outcomes.n_queries
    assert "in sample" in " ".join(routed.notes)


def test_choices_without_a_scored_run_are_left_out_and_counted(
    router: Router, grid_logs: Logs
) -> None:
    whole = Outcomes.from_logs(grid_logs)
    chosen = [d.plan for d in RouteOptions(cost_weight=5.0).decide(router, whole.queries)]
    unscored = whole.score.copy()
    unscored[whole.query < 7] = np.nan
    fewer = replace(whole, score=unscored)
    routed = routed_result(router, fewer, RouteOptions(cost_weight=5.0), name="mine")
    assert f"on 7 of {whole.n_queries} queries" in " ".join(routed.notes)
    nothing = whole.plans_at([p for p, plan in enumerate(whole.plans) if plan not in chosen])
    with pytest.raises(EvaluationError, match="no query has a scored run"):
        routed_result(router, nothing, RouteOptions(cost_weight=5.0), name="mine")


def test_a_router_called_like_a_plan_is_refused(
    router: Router, grid_logs: Logs, tmp_path: Path
) -> None:
    outcomes = Outcomes.from_logs(grid_logs)
    taken = plan_names(outcomes.plans)[0]
    routed = routed_result(router, outcomes, RouteOptions(), name=taken)
    with pytest.raises(EvaluationError, match="give the router another name"):
        write_bench([*bench_results(outcomes).results, *routed.results], tmp_path)
    assert list(tmp_path.iterdir()) == []


# Commands


def test_the_commands_write_what_the_functions_do(
    grid_logs: Logs, checkpoint: Path, tmp_path: Path
) -> None:
    logs = tmp_path / "grid.parquet"
    write_parquet(grid_logs, logs)
    outcomes = Outcomes.from_logs(grid_logs)
    code, said = invoke("routerbench", "--logs", logs, "--out", tmp_path / "t.csv")
    assert code == 0, said
    frame, models = read_router_bench(tmp_path / "t.csv")
    np.testing.assert_allclose(frame[models].to_numpy(), outcomes.dense("score"))
    code, said = invoke(
        "llmrouterbench", "--logs", logs, "--out", tmp_path / "bench", "-c", checkpoint,
        "--cost-weight", 2, "--name", "mine", "--split", "dev",
    )  # fmt: skip
    assert code == 0, said
    files = read_bench(tmp_path / "bench")
    assert {model for _, model in files} == {*models, "mine"}
    assert {file["split"] for file in files.values()} == {"dev"}


def test_a_place_that_cannot_be_written_is_named(outcomes: Outcomes, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EvaluationError, match=r"t\.csv: cannot be written"):
        write_router_bench(router_bench_table(outcomes), tmp_path / "file" / "t.csv")
