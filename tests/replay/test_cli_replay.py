"""`masrouter replay` as a command: what it prints, what it writes, how it fails."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from masrouter.cli_replay import replay_command
from masrouter.errors import ConfigError, EvaluationError, LogError, MasRouterError
from masrouter.logs import Logs, write_jsonl
from masrouter.types import LogRecord
from masrouter_train.synthetic import SyntheticWorld


@pytest.fixture(scope="module")
def records(world: SyntheticWorld, grid_logs: Logs) -> list[LogRecord]:
    plans = list(dict.fromkeys(record.plan for record in grid_logs))
    return list(world.grid_logs(30, 6, plans=plans))


@pytest.fixture(scope="module")
def log_file(records: list[LogRecord], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("replay") / "grid.jsonl"
    write_jsonl(Logs.from_records(records), path)
    return path


def run(*arguments: str | Path, catch: bool = False) -> Result:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("replay")(replay_command)
    return CliRunner().invoke(
        app, [str(a) for a in (*arguments, "--resamples", "100")], catch_exceptions=catch
    )


def test_it_prints_the_answer_and_exits_with_zero(log_file: Path, checkpoint: Path) -> None:
    done = run("--logs", log_file, "--checkpoint", checkpoint)
    assert done.exit_code == 0
    words = " ".join(done.stdout.split())
    assert "Replay of grid logs [synthetic data]" in words
    assert "the router would have paid" in words
    assert "Biggest harms" in words
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_json_is_alone_on_standard_output_and_equals_the_file(
    log_file: Path, checkpoint: Path, tmp_path: Path
) -> None:
    done = run("-l", log_file, "-c", checkpoint, "--json", "-k", "2", "--out", tmp_path / "a/b")
    assert done.exit_code == 0
    data = json.loads(done.stdout)
    assert data == json.loads((tmp_path / "a/b/replay.json").read_text(encoding="utf-8"))
    assert data["kind"] == "grid"
    assert data["queries"] == 30
    assert len(data["savings"]) <= 2
    page = (tmp_path / "a/b/replay.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert data["by_domain"][0]["name"] in page
    assert (tmp_path / "a/b/replay.md").read_text(encoding="utf-8").startswith("# Replay of grid")


def test_the_same_command_gives_the_same_bytes(log_file: Path, checkpoint: Path) -> None:
    arguments = ("-l", log_file, "-c", checkpoint, "--json")
    assert run(*arguments).stdout == run(*arguments).stdout


def test_constraints_and_todays_plan_reach_the_replay(
    records: list[LogRecord], log_file: Path, checkpoint: Path
) -> None:
    plan = records[0].plan
    done = run(
        "-l", log_file, "-c", checkpoint, "--json", "--current-plan", str(plan),
        "--willingness-to-pay", "0.05", "--max-agents", "1",
    )  # fmt: skip
    data = json.loads(done.stdout)
    assert data["reference"] == f"{plan} (run today)"
    assert data["cost_weight"] == pytest.approx(20)
    assert data["options"] == {"willingness_to_pay": 0.05, "max_agents": 1}
    assert all("," not in choice["plan"] for choice in data["choices"])


def test_bad_rows_are_reported_and_the_rest_is_replayed(
    records: list[LogRecord], log_file: Path, checkpoint: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text(log_file.read_text(encoding="utf-8") + '{"run_id": 1}\n', encoding="utf-8")
    done = run("-l", bad, "-c", checkpoint, "--json")
    assert done.exit_code == 0
    assert f"1 of {len(records) + 1} rows rejected" in done.stderr
    assert json.loads(done.stdout)["runs"] == len(records)
    with pytest.raises(LogError, match=r"bad\.jsonl:"):
        run("-l", bad, "-c", checkpoint, "--strict")


def test_a_plan_that_nobody_ran_is_refused_by_name(log_file: Path, checkpoint: Path) -> None:
    with pytest.raises(EvaluationError, match="was never run in these logs"):
        run("-l", log_file, "-c", checkpoint, "--current-plan", "io(nobody)")
    with pytest.raises(ConfigError, match="expected"):
        run("-l", log_file, "-c", checkpoint, "--current-plan", "nonsense")


def test_an_unusable_folder_fails_before_the_work(
    log_file: Path, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(EvaluationError, match="--out"):
        run("-l", log_file, "-c", checkpoint, "-o", tmp_path / "file")
    with pytest.raises(MasRouterError):
        run("-l", log_file, "-c", tmp_path / "nothing")


def test_observational_logs_exit_with_zero_and_no_estimate(
    records: list[LogRecord], checkpoint: Path, tmp_path: Path
) -> None:
    once = {record.query_id: replace(record, policy=None) for record in records}
    path = tmp_path / "once.jsonl"
    write_jsonl(Logs.from_records(once.values()), path)
    done = run("-l", path, "-c", checkpoint, "--json")
    assert done.exit_code == 0
    data = json.loads(done.stdout)
    assert data["verdict"]["level"] == "not identified"
    assert data["comparisons"] == []


@pytest.mark.parametrize("wrong", [["-k", "-1"], ["--resamples", "5"], []])
def test_wrong_usage_exits_with_two(checkpoint: Path, log_file: Path, wrong: list[str]) -> None:
    paths = ["-l", str(log_file), "-c", str(checkpoint)] if wrong else []
    app = typer.Typer()
    app.command("replay")(replay_command)
    assert CliRunner().invoke(app, [*paths, *wrong]).exit_code == 2


def test_help_teaches_by_examples() -> None:
    app = typer.Typer(rich_markup_mode=None)
    app.command("replay")(replay_command)
    shown = CliRunner().invoke(app, ["--help"]).stdout
    assert "masrouter replay --logs my_logs/ --checkpoint checkpoints/mine" in shown
