"""`masrouter serve` and `masrouter served`, as commands."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import yaml
from tests.server.test_served_outcomes import a_run, outcome, record
from typer.testing import CliRunner, Result

from masrouter.cli import build_app
from masrouter.errors import CheckpointError, ConfigError, MasRouterError
from masrouter.logs import read_logs
from masrouter.server import ServerSettings
from masrouter.server.keys import key_digest
from masrouter.server.records import Records

QUERY = "What is 1 plus 5?"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(build_app(), [str(argument) for argument in arguments])


def failure(*arguments: str | Path) -> MasRouterError:
    error = run(*arguments).exception
    assert isinstance(error, MasRouterError), error
    return error


def test_a_new_key_is_printed_once_with_the_yaml_that_holds_its_hash(tmp_path: Path) -> None:
    said = run("serve", "--new-key", "ann").output
    key = re.search(r"mr-[\w-]{43}", said)
    assert key is not None
    assert said.count(key[0]) == 1
    entries = yaml.safe_load(said)["keys"]
    assert entries == [{"name": "ann", "sha256": key_digest(key[0])}]
    config = tmp_path / "serve.yaml"
    config.write_text(said)
    assert ServerSettings.load(config).keys[0].name == "ann"
    assert run("serve", "--new-key", "ann").output != said


@pytest.mark.parametrize(
    ("arguments", "kind", "told"),
    [
        ([], ConfigError, "name a router with --checkpoint"),
        (["-c", "x", "--exploration", "2"], ConfigError, "exploration: expected a number"),
        (["-c", "x", "--host", "0.0.0.0"], ConfigError, "and no key is set"),
        (["-c", "x", "--config", "nowhere.yaml"], ConfigError, "nowhere.yaml: cannot be read"),
        (["-c", "nowhere"], CheckpointError, "nowhere"),
        (["--new-key", "a b"], ConfigError, "name: expected letters"),
    ],
)
def test_what_cannot_be_served_is_told_before_anything_listens(
    arguments: Sequence[str], kind: type[MasRouterError], told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delenv("MASROUTER_SERVER_KEY", raising=False)
    error = failure("serve", *arguments)
    assert isinstance(error, kind)
    assert told in str(error)


def test_models_must_be_told_apart_from_their_questions(served_checkpoint: Path) -> None:
    serve = ("serve", "-c", served_checkpoint)
    assert "--problems" in str(failure(*serve, "--simulated"))
    assert "give one of them" in str(failure(*serve, "--simulated", "--llm", "p.yaml"))
    assert "only simulated" in str(failure(*serve, "--problems", "data/problems"))


def test_the_help_teaches() -> None:
    said = run("serve", "--help").output
    for word in (
        "--providers",
        "--exploration",
        "--records",
        "curl",
        "keys:",
        "MASROUTER_SERVER_KEY",
    ):
        assert word in said


def some_records(path: Path) -> None:
    records = Records(path)
    for name in ("1", "2", "3"):
        records.add_decision(record(name, propensity=0.5 if name == "1" else None))
    records.add_run("dec_1", a_run(0.5))
    records.add_run("dec_2", a_run(0.25, "team: no"))
    asyncio.run(records.add_outcome(outcome("1", 0.75), caller="anonymous"))
    records.close()


def test_records_are_exported_as_a_log_that_passes_the_check(tmp_path: Path) -> None:
    path, log = tmp_path / "r.sqlite", tmp_path / "served.parquet"
    some_records(path)
    said = run("served", "export", path, log)
    assert said.exit_code == 0
    assert (
        "3 decisions, 1 with a score, 2 without an outcome yet, 1 with a propensity" in said.output
    )
    assert run("logs", "check", log).exit_code == 0
    assert [row.run_id for row in read_logs(log)] == ["dec_1", "dec_2", "dec_3"]
    told = json.loads(run("served", "export", path, log, "--randomised", "--json").output)
    assert told == {"path": str(log), "rows": 1, "scored": 1, "with_propensity": 1, "left_out": 2}
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert "nothing to export" in str(failure("served", "export", path, log, "--since", tomorrow))
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert run("served", "export", path, log, "--since", today).exit_code == 0
    assert "--since: expected a date" in str(failure("served", "export", path, log, "--since", "?"))


def test_records_are_shown_in_numbers(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    some_records(path)
    said = run("served", "show", path).output
    for words in ("decisions  3 from", "runs       2, 1 without an answer", "1 with a score",
                  "mean score 0.7500", "$0.750000 by anonymous", "3 by a"):  # fmt: skip
        assert words in said
    told = json.loads(run("served", "show", path, "--json").output)
    assert (told["decisions"], told["spent_usd"]) == (3, [["anonymous", 0.75]])
    assert "no such file" in str(failure("served", "show", tmp_path / "none"))


def test_what_was_answered_with_200_survives_a_kill(
    served_checkpoint: Path, tmp_path: Path
) -> None:
    records, log = tmp_path / "r.sqlite", tmp_path / "served.jsonl"
    command = [
        sys.executable, "-m", "masrouter.cli", "serve", "-c", str(served_checkpoint),
        "--port", "0", "--records", str(records), "--exploration", "0.3",
    ]  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if k != "MASROUTER_SERVER_KEY"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stdout is not None
            said = ""
            while "Ctrl-C" not in said:
                line = server.stdout.readline()
                assert line, said
                said += line
            url = re.search(r"http://127\.0\.0\.1:\d+", said)
            assert url is not None
            for words in ("none: decisions alone", "this machine alone", "0.3 of", str(records)):
                assert words in said
            told = {}
            with httpx.Client(base_url=url[0], timeout=60) as client:
                for i in range(20):
                    made = client.post("/v1/decision", json={"query": f"{QUERY} {i}"}).json()
                    body = {"decision_id": made["id"], "score": i / 20}
                    assert client.post("/v1/outcomes", json=body).status_code == 200
                    told[made["id"]] = i / 20
        finally:
            server.send_signal(signal.SIGKILL)
    assert run("served", "export", records, log).exit_code == 0
    rows = list(read_logs(log, strict=True))
    assert {row.run_id: row.score for row in rows} == told
    assert all(row.propensity is not None for row in rows)
