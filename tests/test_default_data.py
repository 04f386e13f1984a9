"""The logs and the checkpoint that come with the project: what made them makes them again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from masrouter.catalog import Catalog
from masrouter.collection import Store, collect, export, grid, read_plan_file, uniform
from masrouter.llms.simulated import SimulatedProvider
from masrouter.logs import Logs, detect_kind, read_logs
from masrouter.logs.stats import LogKind
from masrouter.problems import Problem, ShownExamples, read_problems, simulated_task
from masrouter.router import Router
from masrouter.sandbox import Sandbox

ROOT = Path(__file__).parents[1]
LOGS = ROOT / "data/logs"
DRAWS = 12
"""Runs of each problem in the randomised part, as the Makefile says."""


@pytest.fixture(scope="module")
def problems() -> tuple[Problem, ...]:
    return read_problems(ROOT / "data/problems")


def rows(logs: Logs, chosen: set[str]) -> dict[str, dict[str, object]]:
    found = [row for batch in logs.batches() for row in batch.to_pylist()]
    return {row["run_id"]: row for row in found if row["query_id"] in chosen}


def collected(part: str, problems: tuple[Problem, ...], folder: Path) -> Path:
    """The same design over some of the problems, collected anew."""
    catalog = Catalog.default()
    plans = read_plan_file(ROOT / "data/plans.yaml", catalog)
    assert plans.space is not None
    design = (
        grid(problems, plans.plans)
        if part == "grid"
        else uniform(problems, plans.space, draws=DRAWS)
    )
    target = folder / f"{part}.parquet"
    with Store(folder / f"{part}.sqlite") as store, Sandbox() as sandbox:
        asyncio.run(
            collect(
                design,
                llm=SimulatedProvider(map(simulated_task, problems), catalog=catalog),
                store=store,
                catalog=catalog,
                sandbox=sandbox,
                examples=ShownExamples(sandbox),
            )
        )
    export(folder / f"{part}.sqlite", target, clock=False)
    return target


def test_there_are_enough_runs_and_each_part_is_of_its_kind() -> None:
    parts = {part: read_logs(LOGS / f"{part}.parquet", strict=True) for part in PARTS}
    assert sum(map(len, parts.values())) >= 20_000
    assert detect_kind(parts["grid"]).kind is LogKind.GRID
    assert detect_kind(parts["randomised"]).kind is LogKind.RANDOMISED
    assert sum(path.stat().st_size for path in LOGS.iterdir()) < 8e6


PARTS = ("grid", "randomised")


@pytest.mark.parametrize("part", PARTS)
def test_runs_collected_anew_are_the_ones_that_are_shipped(
    part: str, problems: tuple[Problem, ...], tmp_path: Path
) -> None:
    some = tuple(p for task in ("code", "math", "knowledge") for p in problems if p.task == task)
    some = some[::97]
    again = read_logs(collected(part, some, tmp_path), strict=True)
    chosen = {problem.problem_id for problem in some}
    shipped = rows(read_logs(LOGS / f"{part}.parquet"), chosen)
    assert len(shipped) == len(some) * (24 if part == "grid" else DRAWS)
    assert rows(again, chosen) == shipped


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_the_whole_part_is_remade_byte_for_byte(
    part: str, problems: tuple[Problem, ...], tmp_path: Path
) -> None:
    again = collected(part, problems, tmp_path)
    assert again.read_bytes() == (LOGS / f"{part}.parquet").read_bytes()


def test_the_default_checkpoint_routes_by_what_a_point_of_score_is_worth(
    problems: tuple[Problem, ...],
) -> None:
    router = Router.from_pretrained(ROOT / "checkpoints/default", memo=1000)
    queries = [problem.query for problem in problems[::29]]
    costs = [
        sum(d.expected_cost_usd or 0.0 for d in router.route_batch(queries, willingness_to_pay=w))
        for w in (0.0001, 0.01, 1.0)
    ]
    assert costs[0] < costs[1] <= costs[2]
