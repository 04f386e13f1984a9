"""`masrouter mcp` as clients start it: a real child process, over the standard streams and HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from typer.testing import CliRunner

from masrouter.cli_mcp import mcp_command
from masrouter.delegation.tools.mcp_http import ENVIRONMENT_KEY
from masrouter.errors import CatalogError, CheckpointError, ConfigError
from masrouter.problems import read_problems

ROOT = Path(__file__).parents[1]
PROBLEMS = ROOT / "data" / "problems" / "math.jsonl"
COMMAND = [sys.executable, "-m", "masrouter.cli", "mcp"]
SIMULATED = ["--llm", "simulated", "--problems", str(PROBLEMS)]
HELLO = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}  # fmt: skip


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [*COMMAND, *SIMULATED, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with child:
        try:
            yield child
        finally:
            child.kill()


def exchange(child: subprocess.Popen[str], *messages: Any) -> list[dict[str, Any]]:
    """What comes back, a line for each request, in the order in which they are answered."""
    assert child.stdin is not None
    assert child.stdout is not None
    for message in messages:
        child.stdin.write(json.dumps(message) + "\n")
    child.stdin.flush()
    wanted = sum("id" in message for message in messages)
    return [json.loads(child.stdout.readline()) for _ in range(wanted)]


class TestStdio:
    def test_the_official_client_delegates_to_the_trained_router(self, tmp_path: Path) -> None:
        problems = read_problems(PROBLEMS)[:3]
        log = tmp_path / "episodes.jsonl"
        settings = tmp_path / "settings.yaml"
        settings.write_text(
            "aliases: {mini: gpt-4o-mini}\nmax_tasks: 3\n"
            "policies: {careful: {deliberate: {cheap: mini, strong: o3-mini}}}\n"
        )
        (tmp_path / "served_tools.py").write_text(
            'def shout(text: str) -> str:\n    """Says it in capital letters."""\n'
            "    return text.upper()\n"
        )
        workers = tmp_path / "workers.yaml"
        workers.write_text('workers: {shouter: {python: "served_tools:shout", usd_per_call: 0}}\n')
        arguments = [
            *COMMAND[1:], *SIMULATED, "-c", str(ROOT / "checkpoints" / "default"),
            "--backend", "onnx", "--settings", str(settings), "--budget", "0.5", "--log", str(log),
            "--workers", str(workers),
        ]  # fmt: skip
        told: list[str] = []

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            told.append(message or "")

        async def run() -> None:
            server = StdioServerParameters(command=COMMAND[0], args=arguments)
            with (tmp_path / "stderr").open("w") as errors:
                async with Client(stdio_client(server, errlog=errors)) as client:
                    assert [tool.name for tool in (await client.list_tools()).tools] == [
                        "delegate_task", "delegate_tasks", "list_models",
                    ]  # fmt: skip
                    listed = (await client.call_tool("list_models", {})).structured_content
                    assert listed is not None
                    offers = {offer["id"]: offer for offer in listed["models"]}
                    assert offers["auto"]["callable"] is True
                    assert offers["gpt-4o-mini"]["aliases"] == ["mini"]
                    tasks = [{"goal": problem.query, "model": "auto"} for problem in problems[:2]]
                    tasks.append({"goal": problems[2].query, "model": "mini"})
                    assert offers["careful"]["kind"] == "policy"
                    careful = {"goal": problems[2].query, "model": "careful"}
                    thought = (await client.call_tool("delegate_task", careful)).structured_content
                    shout = {"goal": "Shout it.", "context": "hello", "model": "shouter"}
                    loud = (await client.call_tool("delegate_task", shout)).structured_content
                    done = await client.call_tool(
                        "delegate_tasks", {"tasks": tasks}, progress_callback=on_progress
                    )
            assert thought is not None
            assert thought["policy"]["kind"] == "deliberate"
            assert loud is not None
            assert loud["summary"] == "HELLO"
            answer = done.structured_content
            assert answer is not None
            assert [one["status"] for one in answer["results"]] == ["done"] * 3
            assert [one["asked"] for one in answer["results"]] == ["auto", "auto", "mini"]
            assert answer["results"][0]["expected"]["reasons"]
            assert answer["results"][2]["models"] == ["gpt-4o-mini"]
            spent = answer["usage"]["cost_usd"]
            spent += thought["usage"]["cost_usd"]
            assert answer["budget_left_usd"] == pytest.approx(0.5 - spent)

        asyncio.run(run())
        assert [name for name in ("task-1", "task-2", "task-3") if f"{name}: done" in str(told)]
        assert "budget: $0.5 in all" in (tmp_path / "stderr").read_text()
        assert log.read_text().count("\n") >= 4

    def test_standard_output_carries_the_protocol_alone_until_the_client_closes_it(self) -> None:
        listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
        junk = "this is no JSON"
        with started() as child:
            (hello,) = exchange(child, HELLO)
            assert hello["result"]["serverInfo"]["name"] == "masrouter"
            (tools,) = exchange(child, {"jsonrpc": "2.0", "method": "notifications/initialized"},
                                listing)  # fmt: skip
            assert len(tools["result"]["tools"]) == 3
            assert child.stdin is not None
            child.stdin.write(junk + "\n")
            rest, errors = child.communicate(timeout=60)
            assert all(json.loads(line)["jsonrpc"] == "2.0" for line in rest.splitlines())
            assert child.returncode == 0
        assert "no limit" in errors
        assert "Traceback" not in errors

    def test_a_signal_ends_it_though_the_client_stays(self) -> None:
        with started() as one, started() as other:  # both at once: each takes a while to start
            for child, sent, code in ((one, signal.SIGINT, 130), (other, signal.SIGTERM, 0)):
                exchange(child, HELLO)
                child.send_signal(sent)
                assert child.wait(60) == code


class TestHttp:
    def test_the_official_client_calls_over_http_until_a_signal(self) -> None:
        problem = read_problems(PROBLEMS)[0]

        async def run(url: str) -> None:
            async with Client(url) as client:
                assert len((await client.list_tools()).tools) == 3
                task = {"goal": problem.query, "model": "small"}
                done = await client.call_tool("delegate_task", task)
                assert done.structured_content is not None
                assert done.structured_content["status"] == "done"
                refused = await client.call_tool("delegate_task", {**task, "budget_usd": 1})
                assert refused.is_error

        with started("--http", "--port", "0", "--budget-per-call", "0.1") as child:
            assert child.stderr is not None
            line = child.stderr.readline()
            found = re.search(r"whoever is on this machine at (http://127\.0\.0\.1:\d+/mcp)", line)
            assert found is not None, line
            assert "$0.1 a call" in line
            asyncio.run(run(found[1]))
            child.send_signal(signal.SIGTERM)
            assert child.wait(60) == 0
            assert child.stdout is not None
            assert child.stdout.read() == ""


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "kind", "why"),
        [
            (["--llm", "simulated"], ConfigError, "name problem sets with --problems"),
            (["--llm", "p.yaml", "--problems", "x"], ConfigError, "only simulated models"),
            (["--llm", "none.yaml"], ConfigError, "none.yaml: cannot be read"),
            ([*SIMULATED, "--port", "1"], ConfigError, "--http"),
            ([*SIMULATED, "--host", "::1"], ConfigError, "--http"),
            ([*SIMULATED, "--budget", "-1"], ConfigError, "budget_usd"),
            ([*SIMULATED, "--budget", "nan"], ConfigError, "budget_usd"),
            ([*SIMULATED, "--budget-per-call", "inf"], ConfigError, "budget_usd of a call"),
            ([*SIMULATED, "--deadline-s", "0"], ConfigError, "deadline_s: expected seconds > 0"),
            ([*SIMULATED, "--settings", "none.yaml"], ConfigError, "none.yaml: cannot be read"),
            ([*SIMULATED, "--workers", "none.yaml"], ConfigError, "none.yaml: cannot be read"),
            ([*SIMULATED, "-c", "none/such"], CheckpointError, "none/such"),
            ([*SIMULATED, "--catalog", "none.yaml"], CatalogError, "none.yaml"),
            ([*SIMULATED, "--http", "--host", "0.0.0.0"], ConfigError, ENVIRONMENT_KEY),
        ],
    )
    def test_what_cannot_be_served_is_said_before_anything_is(
        self,
        arguments: list[str],
        kind: type[Exception],
        why: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.delenv(ENVIRONMENT_KEY, raising=False)
        monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
        app = typer.Typer()
        app.command()(mcp_command)
        result = CliRunner().invoke(app, arguments)
        assert isinstance(result.exception, kind), result.exception
        assert why in str(result.exception)
        assert result.stdout == ""

    def test_a_key_that_could_be_guessed_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(ENVIRONMENT_KEY, "guess")
        app = typer.Typer()
        app.command()(mcp_command)
        result = CliRunner().invoke(app, [*SIMULATED, "--http"])
        assert isinstance(result.exception, ConfigError)
        assert "guess" not in str(result.exception).replace("guessed", "")
