"""The command `masrouter` as a whole: help, exit codes, and the way from logs to a decision."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import masrouter
from masrouter import cli

RECIPE = """
encoder: hashing-64
critic: {folds: 3}
gate: {nodes: 5}
controller: {epochs: 2, width: 16}
"""


@dataclass(frozen=True)
class Outcome:
    """What a run of the command left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """`run("logs", "check", ...)`: the console script's own entry point, in this process."""

    def command(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["masrouter", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        captured = capfd.readouterr()
        return Outcome(int(left.value.code or 0), captured.out, captured.err)

    return command


@dataclass(frozen=True)
class Trained:
    """A tiny synthetic world, and a router that learned from it."""

    folder: Path

    @property
    def logs(self) -> Path:
        return self.folder / "world"

    @property
    def catalog(self) -> Path:
        return self.logs / "catalog.yaml"

    @property
    def recipe(self) -> Path:
        return self.folder / "recipe.yaml"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    made = Trained(tmp_path_factory.mktemp("cli"))
    made.recipe.write_text(RECIPE, encoding="utf-8")
    app = cli.build_app()

    def invoke(*arguments: str | Path) -> str:
        result = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stderr

    assert "synthetic grid logs" in invoke("synth", "--out", made.logs, "--queries", "40")
    said = invoke(
        "train", "--logs", made.logs, "--catalog", made.catalog, "--recipe", made.recipe,
        "--out", made.checkpoint,
    )  # fmt: skip
    assert "grid logs: " in said  # the kind of log is said aloud
    assert "wrote " in said
    return made


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


COMMANDS = sorted(commands(typer.main.get_command(cli.build_app())))


def test_the_commands_are_these() -> None:
    assert {path[0] for path in COMMANDS} == {
        "logs", "catalog", "train", "evaluate", "synth", "route", "run", "collect", "collection",
        "problems", "replay", "ablate", "export", "cold-start", "serve", "served", "optimize",
        "delegate", "delegations", "deliberate", "mcp",
    }  # fmt: skip


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_teaches_by_an_example(run: Run, path: tuple[str, ...]) -> None:
    shown = run(*path, "--help")
    assert (shown.code, shown.err) == (0, "")
    example = rf"^\W*(cat .*\| )?masrouter {' '.join(path)} +[^\[\s]"
    assert re.search(example, shown.out, re.MULTILINE), shown.out


def test_help_shows_the_way_and_the_exit_codes(run: Run) -> None:
    shown = run("--help")
    assert shown.code == 0
    for first in ("masrouter logs check", "masrouter train", "Exit codes: 0 done, 1 failed"):
        assert first in shown.out


def test_version(run: Run) -> None:
    assert run("--version") == Outcome(0, f"{masrouter.__version__}\n", "")


@pytest.mark.parametrize("arguments", [["fly"], ["route", "--fly", "x"], ["train"]])
def test_wrong_usage_exits_with_two(run: Run, arguments: list[str]) -> None:
    failed = run(*arguments)
    assert failed.code == 2
    assert failed.out == ""
    assert failed.err != ""


def test_a_failure_is_one_clear_line_and_exit_code_one(run: Run, tmp_path: Path) -> None:
    failed = run("route", "--checkpoint", tmp_path / "nothing", "a query")
    assert failed.code == 1
    assert failed.out == ""
    assert failed.err.startswith("error: ")
    assert str(tmp_path / "nothing") in failed.err
    assert failed.err.count("\n") == 1


def test_stats_of_synthetic_logs(run: Run, trained: Trained) -> None:
    shown = run("logs", "stats", trained.logs, "--json")
    assert shown.code == 0
    stats = json.loads(shown.out)["stats"]
    assert stats["queries"] == 40
    assert stats["kind"] == "grid"
    assert all("synthetic" in name for name in stats["datasets"])


def test_route_obeys_its_constraints(run: Run, trained: Trained) -> None:
    free = run("route", "-c", trained.checkpoint, "--json", "Prove it.", "Write a poem.")
    assert free.code == 0
    decisions = [json.loads(line) for line in free.out.splitlines()]
    assert [decision["query"] for decision in decisions] == ["Prove it.", "Write a poem."]
    banned = decisions[0]["plan"]["agents"][0]["model"]
    bound = run(
        "route", "-c", trained.checkpoint, "--json", "--max-agents", "1", "--exclude-model", banned,
        "-k", "2", "Prove it.",
    )  # fmt: skip
    assert bound.code == 0
    decision = json.loads(bound.out)
    plans = [decision["plan"], *(other["plan"] for other in decision["alternatives"])]
    assert len(plans) <= 3
    for plan in plans:
        assert len(plan["agents"]) == 1
        assert plan["agents"][0]["model"] != banned
    low, high = decision["score_interval"]["low"], decision["score_interval"]["high"]
    assert low <= decision["expected_score"] <= high
    assert decision["expected_cost_usd"] > 0


def test_route_shows_the_plan_and_its_reasons(run: Run, trained: Trained) -> None:
    arguments = ["-c", trained.checkpoint, "--willingness-to-pay", "0.05", "Prove it."]
    shown = run("route", *arguments)
    assert shown.code == 0
    as_json = json.loads(run("route", "--json", *arguments).out)
    words = " ".join(shown.out.split())
    assert f"-> {as_json['plan']['topology']}(" in words
    for reason in as_json["reasons"]:
        assert " ".join(reason.split()) in words
    explained = run("route", "--explain", *arguments)
    assert explained.code == 0
    assert as_json["plan"]["topology"] in explained.out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--max-cost-usd", "1e-12"], "raise max_cost_usd"),
        (["--topology", "io", "--topology", "flight"], "'flight' is unknown"),
        (["--max-agents", "1", "--topology", "debate"], "relax"),
        (["--cost-weight", "1", "--willingness-to-pay", "1"], "willingness_to_pay"),
    ],
)
def test_an_impossible_request_says_what_to_change(
    run: Run, trained: Trained, arguments: list[str], why: str
) -> None:
    failed = run("route", "-c", trained.checkpoint, *arguments, "Prove it.")
    assert failed.code == 1
    assert failed.out == ""
    assert why in failed.err
    assert "Traceback" not in failed.err


def test_evaluate_reports_as_json_and_in_files(run: Run, trained: Trained, tmp_path: Path) -> None:
    shown = run(
        "evaluate", "--logs", trained.logs, "--catalog", trained.catalog,
        "--recipe", trained.recipe, "--folds", "2", "--seeds", "1", "--no-baselines", "--json",
        "--out", tmp_path / "report",
    )  # fmt: skip
    assert shown.code == 0, shown.err
    report = json.loads(shown.out)
    assert report["synthetic"] is True
    assert report["queries"] == 40
    assert "masrouter" in {learner["name"] for learner in report["learners"]}
    assert json.loads((tmp_path / "report/evaluation.json").read_text()) == report
    assert "synthetic" in (tmp_path / "report/table.md").read_text().lower()
    assert (tmp_path / "report/frontier.png").read_bytes().startswith(b"\x89PNG")


def test_the_installed_script_reads_queries_from_standard_input(trained: Trained) -> None:
    script = Path(sys.executable).with_name("masrouter")
    done = subprocess.run(
        [script, "route", "-c", trained.checkpoint, "--json", "-"],
        input="Prove it.\n\nWrite a poem.\n",
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    queries = [json.loads(line)["query"] for line in done.stdout.splitlines()]
    assert queries == ["Prove it.", "Write a poem."]
