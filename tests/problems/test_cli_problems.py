"""`masrouter problems`: counts, and answers that are not what a set says they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_problem_files import CHOICE, CODE, NUMBER, write
from typer.testing import CliRunner

from masrouter import cli_problems
from masrouter.errors import ProblemError
from masrouter.sandbox import Sandbox

runner = CliRunner()


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write(tmp_path / "good.jsonl", CODE, NUMBER, CHOICE, NUMBER | {
        "id": "math/other", "question": "What is a third of 6?", "answer": "2", "difficulty": None,
        "wrong_answers": [],
    })  # fmt: skip


def test_show_counts_by_task_and_difficulty(good: Path) -> None:
    result = runner.invoke(cli_problems.app, ["show", str(good)])
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["good", "math", "2", "0", "1", "1"] in rows
    data = json.loads(runner.invoke(cli_problems.app, ["show", str(good), "--json"]).stdout)
    assert data["problems"] == 4
    assert {"dataset": "good", "task": "code", "difficulty": 1, "problems": 1} in data["counts"]


def test_check_passes_a_sound_set(good: Path, sandbox: Sandbox) -> None:
    result = runner.invoke(cli_problems.app, ["check", str(good)])
    assert result.exit_code == 0, result.stderr
    assert "ok: 0 faults in 4 problems, 11 answers" in result.stdout


def test_check_names_every_answer_that_is_not_what_it_claims(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    path = write(
        tmp_path / "bad.jsonl",
        CODE | {"canonical_solution": "    return x\n"},
        CODE | {"task_id": "code/b", "wrong_solutions": ["    return x + x\n", "    return 1\n"]},
        CODE | {"task_id": "code/c", "prompt": CODE["prompt"] + "\n", "test": "check = 3"},
        NUMBER | {"wrong_answers": ["5/2"]},
    )
    result = runner.invoke(cli_problems.app, ["check", str(path), "--json", "--jobs", "1"])
    assert result.exit_code == 1
    faults = json.loads(result.stdout)["faults"]
    assert [fault.split(": ")[:3] for fault in faults] == [
        [f"{path}:2", "code/b", f"asks the same as code/double ({path}:1)"],
        [f"{path}:3", "code/c", f"asks the same as code/double ({path}:1)"],
        [f"{path}:1", "code/double", "the right answer is graded wrong"],
        [f"{path}:2", "code/b", "wrong answer 1 is graded right"],
        [f"{path}:3", "code/c", "cannot be graded"],
        [f"{path}:4", "math/half", "wrong answer 1 is graded right"],
    ]
    assert "wrong answer 1 is graded right" in result.stderr


def test_sets_without_code_need_no_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_here(*_: object) -> None:
        raise AssertionError("a sandbox was opened")

    monkeypatch.setattr("masrouter.sandbox.Sandbox", none_here)
    path = write(tmp_path / "set.jsonl", NUMBER, CHOICE)
    assert runner.invoke(cli_problems.app, ["check", str(path)]).exit_code == 0


def test_a_bad_file_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "set.jsonl", "{")
    result = runner.invoke(cli_problems.app, ["show", str(path)])
    assert isinstance(result.exception, ProblemError)


@pytest.mark.parametrize("command", ["show", "check"])
def test_help_teaches_by_example(command: str) -> None:
    result = runner.invoke(cli_problems.app, [command, "--help"])
    assert f"masrouter problems {command} " in result.stdout
    assert runner.invoke(cli_problems.app, [command]).exit_code == 2
