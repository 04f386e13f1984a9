"""`masrouter collect` and `masrouter collection`: the real commands, signals and all."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.collection.worlds import said
from tests.llms.faulty_server import FaultyServer, Received, answer
from typer.testing import CliRunner, Result

from masrouter import cli
from masrouter.collection import status
from masrouter.errors import MasRouterError
from masrouter.logs import read_logs
from masrouter.router import Router

PLANS = """\
plans:
  - io: [gpt-4o-mini]
  - chain: [planner@gpt-4o-mini, assistant@gpt-4o]
space:
  topologies: {io: 1, cot: 1}
  roles: {any: [assistant, critic]}
  models: [gpt-4o-mini, gpt-4o]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ten problems and a plan file, where commands are run."""
    lines = [
        {"id": f"sum/{i}", "question": f"How much is {i} and {i}?", "answer": str(2 * i),
         "solution": f"It is {2 * i}.", "wrong_answers": [str(2 * i + 1)]}
        for i in range(1, 11)
    ]  # fmt: skip
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "plans.yaml").write_text(PLANS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


COLLECT = (
    "collect", "--problems", "sums.jsonl", "--plan-file", "plans.yaml", "-o", "some.sqlite"
)  # fmt: skip


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.build_app(), list(arguments))


def says(result: Result) -> str:
    return " ".join(result.output.split())


def test_collect_export_and_show_work_together(folder: Path) -> None:
    first = run(*COLLECT)
    assert first.exit_code == 0, first.output
    assert "10 problems, 2 plans, 20 runs" in first.stderr
    assert "20 of 20 runs finished, 20 of them now, 0 of these without an answer; spent $" in says(
        first
    )
    again = run(*COLLECT)
    assert "some.sqlite holds 20 finished runs" in says(again)
    assert "20 of 20 runs finished, 0 of them now" in says(again)
    drawn = run(*COLLECT, "--plans", "random", "--draws", "2")
    assert "20 of 20 runs finished, 20 of them now" in says(drawn)
    shown = run("collection", "show", "some.sqlite")
    assert shown.exit_code == 0
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert [line[:3] for line in lines[1:3]] == [["grid", "20", "0"], ["uniform", "20", "0"]]
    exported = run("collection", "export", "some.sqlite", "logs/some.parquet", "--no-clock")
    assert exported.stdout == "logs/some.parquet: 40 runs, 0 of them without a score\n"
    assert len(read_logs("logs/some.parquet")) == 40
    assert run("logs", "check", "logs/some.parquet").exit_code == 0


def test_a_dry_run_sends_nothing_and_makes_no_file(folder: Path) -> None:
    result = run(*COLLECT, "--dry-run")
    assert result.exit_code == 0
    assert "10 problems, 2 plans, 20 runs" in result.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["plans.yaml", "sums.jsonl"]


def test_the_router_design_follows_a_checkpoint(folder: Path, checkpoint: Path) -> None:
    models = {m for plan in Router.from_pretrained(checkpoint).plans for m in plan.models}
    served = "".join(f"      {name}:\n" for name in sorted(models | {"gpt-4o", "gpt-4o-mini"}))
    (folder / "providers.yaml").write_text(
        "providers:\n  local:\n    base_url: http://127.0.0.1:9/v1\n    api_key_env: null\n"
        f"    models:\n{served}"
    )
    arguments = (*COLLECT, "--plans", "router", "--checkpoint", str(checkpoint), "--draws", "2")
    unknown = run(*arguments, "--dry-run")
    assert "the simulated provider does not play it" in str(unknown.exception)
    result = run(*arguments, "--llm", "providers.yaml", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "20 runs" in result.stderr


def test_help_teaches() -> None:
    text = says(run("collect", "--help"))
    for part in (
        "Ctrl-C once finishes the runs under way, twice stops at once",
        "masrouter collection export runs/mine.sqlite logs/mine.parquet",
        "--budget-usd 5",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--draws", "3"],
            "--draws is for --plans random and --plans router, not for --plans grid",
        ),
        (
            ["--plans", "random", "--seeds", "2"],
            "--seeds is for --plans grid, not for --plans random",
        ),
        (["--checkpoint", "x"], "--checkpoint is for --plans router"),
        (["--plans", "router"], "name the router with --checkpoint"),
        (["--llm", "none.yaml"], "none.yaml: cannot be read"),
        (["--llm", "none.yaml", "--simulated-seed", "1"], "--llm none.yaml is not simulated"),
        (["--concurrency", "0"], "concurrency: expected at least 1, got 0"),
        (["--budget-usd", "-1"], "budget: expected US dollars >= 0"),
    ],
)
def test_what_makes_no_sense_is_refused(folder: Path, arguments: list[str], message: str) -> None:
    result = run(*COLLECT, *arguments)
    assert isinstance(result.exception, MasRouterError)
    assert message in str(result.exception)
    assert not (folder / "some.sqlite").exists()


def test_a_plan_file_without_the_part_that_is_needed_is_told(folder: Path) -> None:
    text = (folder / "plans.yaml").read_text()
    (folder / "plans.yaml").write_text(text[text.index("space:") :])
    assert "plans.yaml: has no `plans`, which a grid runs" in str(run(*COLLECT).exception)
    (folder / "plans.yaml").write_text(text[: text.index("space:")])
    refused = run(*COLLECT, "--plans", "random").exception
    assert "plans.yaml: has no `space`, which random draws from" in str(refused)


def test_simulated_and_real_runs_are_never_mixed_in_one_collection(folder: Path) -> None:
    assert run(*COLLECT).exit_code == 0
    other = run(*COLLECT, "--simulated-seed", "1")
    assert "was collected with provider simulated, world 0, now it is simulated, world 1" in str(
        other.exception
    )


def test_a_budget_that_is_used_up_is_told_with_what_to_do(folder: Path) -> None:
    result = run(*COLLECT, "--budget-usd", "0.02")
    assert "stopped: the budget of 0.02 US$ is used up: the next call may cost" in str(
        result.exception
    )
    assert "Run the same command again to go on" in str(result.exception)
    assert status("some.sqlite").spending.most_usd <= 0.02


Command = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def command(folder: Path) -> Iterator[Command]:
    """Starts `masrouter` in a process of its own; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "masrouter.cli", *arguments],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def server(folder: Path) -> Iterator[FaultyServer]:
    """A slow provider, with its providers file."""

    def reply(received: Received) -> str:
        return said(received.model, received.messages, received.body.get("seed"))

    with FaultyServer(otherwise=answer(reply), latency_s=0.3) as started:
        (folder / "providers.yaml").write_text(
            "providers:\n"
            "  here:\n"
            f"    base_url: {started.base_url}\n"
            "    api_key_env: null\n"
            "    input_usd_per_mtok: 1\n"
            "    output_usd_per_mtok: 2\n"
            "    models: {gpt-4o-mini: , gpt-4o: }\n"
        )
        yield started


REAL = (*COLLECT, "--llm", "providers.yaml", "--concurrency", "4")


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_the_first_interrupt_finishes_the_runs_under_way(
    command: Command, server: FaultyServer, number: signal.Signals
) -> None:
    process = command(*REAL)
    wait_for(lambda: len(server.calls) >= 5)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "finishing the runs under way; Ctrl-C again stops at once" in errors
    assert "interrupted; run the same command again to go on" in errors
    found = status("some.sqlite")
    finished = sum(row.runs for row in found.policies)
    assert 4 <= finished < 20
    assert found.spending.possible_usd == 0
    server.latency_s = 0.0
    before = len(server.calls)
    last = run(*REAL)
    assert f"20 of 20 runs finished, {20 - finished} of them now" in says(last)
    assert len(server.calls) == 30
    assert before < 30


def test_the_second_interrupt_stops_at_once(command: Command, server: FaultyServer) -> None:
    server.latency_s = 20.0
    process = command(*REAL)
    wait_for(lambda: len(server.calls) >= 4)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=15)
    assert process.returncode == 130, errors
    assert "stopped at once; calls under way are lost and may be billed" in errors
    assert "Traceback" not in errors
    spending = status("some.sqlite").spending
    assert spending.known_usd == 0
    assert spending.possible_usd > 0
    server.latency_s = 0.0
    assert run(*REAL).exit_code == 0
    assert len(server.calls) == 30 + 4


def test_a_terminal_shows_runs_cost_and_the_time_left(
    command: Command, server: FaultyServer
) -> None:
    server.latency_s = 0.05
    ours, theirs = pty.openpty()
    process = command(*REAL, stderr=theirs)
    os.close(theirs)
    shown = b""
    while chunk := _read(ours):
        shown += chunk
    os.close(ours)
    assert process.wait(60) == 0
    text = shown.decode()
    assert "20/20" in text
    assert "$0.00" in text
    assert "left" in text
    assert "20 of 20 runs finished" in text


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so where the other side has closed
        return b""
