"""`masrouter logs` and `masrouter catalog`: output, exit codes, JSON on stdout alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from masrouter import cli_catalog, cli_logs
from masrouter.errors import CatalogError, LogError
from masrouter.logs import Logs, read_logs, write_jsonl
from test_logs_roundtrip import sample

runner = CliRunner()


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.jsonl"
    write_jsonl(Logs.from_records(map(sample, range(14))), path)
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.jsonl"
    write_jsonl(Logs.from_records(map(sample, range(3))), path)
    with path.open("a") as file:
        file.write('{"score": 7}\n')
    return path


def test_stats_prints_the_figures(good: Path) -> None:
    result = runner.invoke(cli_logs.app, ["stats", str(good)])
    assert result.exit_code == 0
    assert "rows           14" in result.stdout
    assert "randomised: 14 of 14 rows have a propensity" in " ".join(result.stdout.split())


def test_stats_as_json_is_alone_on_stdout(bad: Path) -> None:
    result = runner.invoke(cli_logs.app, ["stats", str(bad), "--json"])
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    assert data["stats"]["rows"] == 3
    assert data["stats"]["kind"] == "randomised"
    assert data["report"]["rejected"] == 1
    assert "1 of 4 rows rejected" in result.stderr


def test_check_exits_with_one_where_rows_are_bad(good: Path, bad: Path, tmp_path: Path) -> None:
    fine = runner.invoke(cli_logs.app, ["check", str(good)])
    assert fine.exit_code == 0
    assert "ok: 14 of 14 rows kept from 1 file(s)" in fine.stdout
    rejects = tmp_path / "rejects.txt"
    found = runner.invoke(cli_logs.app, ["check", str(bad), "--json", "--rejects", str(rejects)])
    assert found.exit_code == 1
    report = json.loads(found.stdout)
    assert report["ok"] is False
    assert report["examples"][0].startswith(f"{bad}:4: schema_version: ")
    assert json.loads(rejects.read_text())["raw"] == '{"score": 7}'
    assert f"{bad}:4: schema_version: expected the integer 1, got null" in found.stderr


def test_strict_raises_the_first_bad_row(bad: Path) -> None:
    result = runner.invoke(cli_logs.app, ["check", str(bad), "--strict"])
    assert isinstance(result.exception, LogError)
    assert str(result.exception).startswith(f"{bad}:4: schema_version: ")


def test_convert_joins_files(good: Path, bad: Path, tmp_path: Path) -> None:
    target = tmp_path / "all.parquet"
    arguments = ["convert", str(good), str(bad), "--to", str(target), "--json"]
    result = runner.invoke(cli_logs.app, arguments)
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    assert (data["rows_kept"], data["rejected"], data["duplicates"]) == (14, 1, 3)
    assert list(read_logs(target)) == list(read_logs(good))


@pytest.mark.parametrize(
    "arguments", [["stats"], ["check", "x.jsonl", "--bogus"], ["convert", "x.jsonl"], ["unknown"]]
)
def test_wrong_usage_exits_with_two(arguments: list[str]) -> None:
    assert runner.invoke(cli_logs.app, arguments).exit_code == 2


@pytest.mark.parametrize("command", ["stats", "check", "convert"])
def test_help_teaches_by_example(command: str) -> None:
    result = runner.invoke(cli_logs.app, [command, "--help"])
    assert result.exit_code == 0
    assert f"masrouter logs {command} " in result.stdout


def test_catalog_list_shows_prices(tmp_path: Path) -> None:
    result = runner.invoke(cli_catalog.app, ["list", "models"])
    assert result.exit_code == 0
    assert "gpt-4o-mini" in result.stdout
    extra = tmp_path / "mine.yaml"
    extra.write_text("models:\n  mine: {description: My model.}\n")
    arguments = ["list", "--json", "--catalog", str(extra)]
    data = json.loads(runner.invoke(cli_catalog.app, arguments).stdout)
    assert data["models"][-1]["name"] == "mine"
    assert data["models"][-1]["input_usd_per_mtok"] is None
    assert {"coder", "critic"} <= {role["name"] for role in data["roles"]}


def test_catalog_show_follows_aliases_and_suggests() -> None:
    result = runner.invoke(cli_catalog.app, ["show", "gpt-4o-mini-2024-07-18", "--json"])
    assert json.loads(result.stdout)["models"]["name"] == "gpt-4o-mini"
    assert "order" in runner.invoke(cli_catalog.app, ["show", "chain"]).stdout
    missing = runner.invoke(cli_catalog.app, ["show", "debat"])
    assert isinstance(missing.exception, CatalogError)
    assert "did you mean 'debate'?" in str(missing.exception)


def test_catalog_check_says_what_a_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "models:\n  gpt-4o: {input_usd_per_mtok: 2}\n  mine: {description: My model.}\n"
    )
    result = runner.invoke(cli_catalog.app, ["check", str(path), "--json"])
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    assert data["changes"]["models"] == {"added": ["mine"], "changed": ["gpt-4o"]}
    assert data["unpriced_models"] == ["mine"]
    assert "no price for mine" in result.stderr
    path.write_text("models:\n  mine: {descripton: x}\n")
    failed = runner.invoke(cli_catalog.app, ["check", str(path)])
    assert isinstance(failed.exception, CatalogError)
    assert f"{path}:2: models.mine.descripton: unknown key; did you mean 'description'?" == str(
        failed.exception
    )
