"""Export: logs of schema 1 that pass their check, the same in every format and every time."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.collection.worlds import (
    CATALOG,
    LARGE,
    PLANS,
    Scripted,
    failing,
    gather,
    sums,
    team,
)
from typer.testing import CliRunner

from masrouter import cli_logs
from masrouter.collection import (
    Assignment,
    PlanSpace,
    Store,
    epsilon_greedy,
    export,
    grid,
    status,
    uniform,
)
from masrouter.errors import CollectionError, LogError
from masrouter.llms.simulated import SimulatedProvider
from masrouter.logs import Logs, read_logs
from masrouter.problems import read_problems, simulated_task

ROOT = Path(__file__).parents[2]
SPACE = PlanSpace(
    {"io": (1, 1), "self_consistency": (2, 3)}, {"any": ("assistant", "critic")}, ("a", "b")
)


def mixed() -> list[Assignment]:
    problems = sums(8)
    chosen = [team("cot", LARGE)] * 8
    return [
        *grid(problems, PLANS),
        *uniform(problems, SPACE, draws=3),
        *epsilon_greedy(problems, chosen, SPACE, policy="around x", epsilon=0.4, draws=3),
    ]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of three designs, some of which failed."""
    file = tmp_path_factory.mktemp("export") / "mixed.sqlite"
    llm = Scripted(lambda request, _: failing("rejected") if request.model == "b" else None)
    ended = gather(file, mixed(), llm)
    assert ended.complete
    assert ended.failed > 3
    return file


def test_what_is_exported_passes_the_check_of_logs(file: Path, tmp_path: Path) -> None:
    for name in ("all.parquet", "all.jsonl", "all.jsonl.gz"):
        export(file, tmp_path / name)
        result = CliRunner().invoke(cli_logs.app, ["check", str(tmp_path / name), "--strict"])
        assert result.exit_code == 0, result.output
        assert f"ok: {len(mixed())} of {len(mixed())} rows kept" in result.stdout


def test_every_format_holds_the_same(file: Path, tmp_path: Path) -> None:
    kinds = ("all.parquet", "all.jsonl", "all.jsonl.gz")
    for name in kinds:
        export(file, tmp_path / name)
    one, *others = (list(read_logs(tmp_path / name)) for name in kinds)
    assert len(one) == len(mixed())
    assert others == [one, one]


def exported(file: Path, target: Path, *policies: str) -> Logs:
    export(file, target, policies=policies)
    return read_logs(target, strict=True)


def test_failures_are_exported_with_their_error_and_without_a_score(
    file: Path, tmp_path: Path
) -> None:
    logs = exported(file, tmp_path / "all.jsonl")
    failed = [record for record in logs if record.score is None]
    assert failed
    assert len(failed) == export(file, tmp_path / "all.jsonl").failed
    assert all(record.error and "a failure for the test" in record.error for record in failed)
    assert all(record.error is None for record in logs if record.score is not None)


def test_a_record_says_how_its_plan_was_picked(file: Path, tmp_path: Path) -> None:
    logs = exported(file, tmp_path / "all.parquet")
    for record in logs:
        assert record.timestamp is not None
        assert record.latency_s is not None
        assert record.seed is not None
        assert (record.propensity is None) == (record.policy == "grid")
        assert (record.stage_propensities is None) == (record.policy == "grid")
    by_policy = {record.policy for record in logs}
    assert by_policy == {"grid", "uniform", "around x"}


def test_one_policy_alone_can_be_exported(file: Path, tmp_path: Path) -> None:
    logs = exported(file, tmp_path / "uniform.parquet", "uniform")
    assert len(logs) == 24
    assert {record.policy for record in logs} == {"uniform"}
    with pytest.raises(
        CollectionError, match="no finished run of policy 'unifrom'; there are 'aro"
    ):
        export(file, tmp_path / "x.parquet", policies=("unifrom",))


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "jsonl.gz"])
def test_without_the_clock_two_collections_are_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    """The problems, plans and provider that ship; other concurrency, and one cut in two."""
    problems = read_problems(ROOT / "data/problems/math.jsonl")[:4]
    llm = SimulatedProvider(map(simulated_task, problems), catalog=CATALOG)
    runs = [
        *grid(problems, PLANS),
        *uniform(problems, PlanSpace(SPACE.topologies, SPACE.roles, (LARGE,)), draws=2),
    ]
    contents = []
    for number, (concurrency, parts) in enumerate([(1, [runs]), (12, [runs[7:20], runs])]):
        file = tmp_path / f"{number}.sqlite"
        for part in parts:
            assert gather(file, part, llm, concurrency=concurrency).complete
        target = tmp_path / f"{number}.{suffix}"
        export(file, target, clock=False)
        contents.append(target.read_bytes())
    assert contents[0] == contents[1]


def test_an_interrupted_run_claims_no_latency(tmp_path: Path) -> None:
    """Its first call was answered in one session, and its second in another."""
    file, chain = tmp_path / "some.sqlite", list(grid(sums(1), [team("chain", "a", "b")]))
    down = Scripted(lambda request, _: failing("circuit_open") if request.model == "b" else None)
    with pytest.raises(CollectionError, match="stays down"):
        gather(file, chain, down, pauses_s=())
    gather(file, chain, Scripted())
    (record,) = exported(file, tmp_path / "x.jsonl")
    assert record.latency_s is None
    assert record.score is not None


def test_what_cannot_be_exported_is_told(file: Path, tmp_path: Path) -> None:
    Store(tmp_path / "new.sqlite").close()
    with pytest.raises(CollectionError, match=r"new\.sqlite: no finished run to export"):
        export(tmp_path / "new.sqlite", tmp_path / "x.parquet")
    with pytest.raises(LogError, match="expected a name that ends in"):
        export(file, tmp_path / "x.csv")
    (tmp_path / "a file").touch()
    with pytest.raises(CollectionError, match="cannot be written"):
        export(file, tmp_path / "a file" / "x.parquet")


def test_the_status_counts_runs_scores_and_money(file: Path) -> None:
    found = status(file)
    assert [row.policy for row in found.policies] == ["around x", "grid", "uniform"]
    assert sum(row.runs for row in found.policies) == len(mixed())
    assert all(row.mean_score is not None for row in found.policies)
    assert found.spending.known_usd > 0
    assert found.spending.possible_usd == 0
