"""`masrouter delegate` on a lab of three models behind a real HTTP server."""

from __future__ import annotations

import re
from pathlib import Path

import typer
from tests.llms.faulty_server import FaultyServer
from typer.testing import CliRunner, Result

from masrouter.cli_delegate import delegate_command

TWO = """
tasks:
  - {goal: Look it up., model: quick}
  - {goal: Think hard., model: lab/strong}
"""


def providers(folder: Path, server: FaultyServer) -> str:
    path = folder / "providers.yaml"
    path.write_text(
        f"""
providers:
  lab:
    base_url: {server.base_url}
    api_key_env: null
    retry: {{tries: 1}}
    input_usd_per_mtok: 1
    output_usd_per_mtok: 2
    models: {{quick: , strong: , broken: }}
"""
    )
    return str(path)


def tasks(folder: Path, text: str) -> str:
    path = folder / "tasks.yaml"
    path.write_text(text)
    return str(path)


def delegate(*arguments: str) -> Result:
    app = typer.Typer(add_completion=False)
    app.callback()(lambda: None)
    app.command("delegate")(delegate_command)
    return CliRunner().invoke(app, ["delegate", *arguments])


def cells(output: str) -> list[list[str]]:
    """The rows of the table, whose columns are two spaces apart."""
    lines = iter(output.splitlines())
    for line in lines:
        if line.startswith("task "):
            break
    return [re.split(r" {2,}", line.strip()) for line in lines if line.startswith("task-")]
