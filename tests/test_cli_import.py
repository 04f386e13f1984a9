"""`masrouter logs import`: what it writes, what it tells, how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from click.testing import Result
from tests.importers.samples import langfuse_score, lines, observation, payload
from typer.testing import CliRunner

from masrouter import cli_logs
from masrouter.cli_import import import_command
from masrouter.errors import LogError
from masrouter.logs import read_logs

runner = CliRunner()


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    """The command as `masrouter logs` has it: one of several."""
    made = typer.Typer(rich_markup_mode="markdown")
    made.command("import")(import_command)
    made.command("check")(cli_logs.check)
    return made


def run(app: typer.Typer, *arguments: object) -> Result:
    return runner.invoke(app, ["import", *map(str, arguments)])


def test_what_is_written_passes_the_check(app: typer.Typer, tmp_path: Path) -> None:
    calls = lines(tmp_path / "calls.jsonl", [payload("a"), payload("b"), {"id": 1}])
    (tmp_path / "thumbs.csv").write_text("id,score,score_source\na,1,human\n")
    for name in ("out.parquet", "out.jsonl", "out.jsonl.gz"):
        result = run(
            app, "litellm", calls, "--dataset", "faq", "--scores", tmp_path / "thumbs.csv",
            "--out", tmp_path / name,
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        assert "wrote 2 records to" in result.stdout
        assert runner.invoke(app, ["check", str(tmp_path / name)]).exit_code == 0
        scores = [record.score for record in read_logs(tmp_path / name)]
        assert scores == [1.0, None]


def test_everything_that_was_met_is_told(app: typer.Typer, tmp_path: Path) -> None:
    rows = [observation("g", extra=1), observation("e", "EVENT"), {"x": 1}]
    path = lines(tmp_path / "o.jsonl", rows)
    rejects = tmp_path / "bad.jsonl"
    result = run(
        app, "langfuse", path, "--dataset", "faq", "--out", tmp_path / "a.jsonl",
        "--rejects", rejects,
    )  # fmt: skip
    assert result.exit_code == 0
    told = result.stderr
    assert "3 rows read: 1 in 1 records, 1 ignored, 0 repeated, 1 rejected" in told
    assert "0 of 1 records have a score; 0 failed" in told
    assert "ignored: EVENT observation: 1" in told
    assert f"{path}:3: row: neither an observation, a score nor a trace" in told
    assert "extra (1)" in told
    assert json.loads(rejects.read_text())["raw"] == '{"x": 1}'


def test_json_is_alone_on_stdout(app: typer.Typer, tmp_path: Path) -> None:
    calls = lines(tmp_path / "calls.jsonl", [payload("a", model="mine")])
    out = tmp_path / "a.jsonl"
    result = run(app, "litellm", calls, "--dataset", "faq", "--out", out, "--json")
    data = json.loads(result.stdout)
    assert (data["destination"], data["records"]) == (str(out), 1)
    assert data["unpriced_models"] == {"mine": 1}


def test_names_are_led_to_the_catalog(app: typer.Typer, tmp_path: Path) -> None:
    calls = lines(tmp_path / "calls.jsonl", [payload("a", model="mine"), payload("b", model="own")])
    (tmp_path / "names.yaml").write_text("mine: gpt-4o\n")
    (tmp_path / "catalog.yaml").write_text("models:\n  own: {description: Our own.}\n")
    out = tmp_path / "a.jsonl"
    result = run(
        app, "litellm", calls, "--dataset", "faq", "--out", out,
        "--model-map", tmp_path / "names.yaml", "--catalog", tmp_path / "catalog.yaml",
    )  # fmt: skip
    assert "not in the catalog" not in result.stderr
    assert [record.plan.models for record in read_logs(out)] == [("gpt-4o",), ("own",)]
    (tmp_path / "names.yaml").write_text("mine: [gpt-4o]\n")
    result = run(
        app, "litellm", calls, "--dataset", "faq", "--out", out,
        "--model-map", tmp_path / "names.yaml",
    )  # fmt: skip
    assert "names.yaml:1: mine: expected a catalog's model name" in str(result.exception)


def test_ranges_and_labels_are_options(app: typer.Typer, tmp_path: Path) -> None:
    rows = [
        observation("g"),
        langfuse_score("t1", 4.0, source="API"),
        observation("h", trace="t2"),
        langfuse_score("t2", 0, source="API", data_type="CATEGORICAL", string_value="a=b"),
    ]
    path = lines(tmp_path / "o.jsonl", rows)
    arguments = ["langfuse", path, "--dataset", "faq", "--out", tmp_path / "a.jsonl"]
    arguments += ["--score-source", "tests", "--score-range", "1", "5"]
    result = run(app, *arguments, "--score-label", "a=b=0.5")
    assert result.exit_code == 0, result.output
    assert [record.score for record in read_logs(tmp_path / "a.jsonl")] == [0.75, 0.5]
    wrong = run(app, *arguments, "--score-label", "good")
    assert "--score-label: expected LABEL=VALUE" in str(wrong.exception)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--out", "a.csv", "--dataset", "d"], "a.csv: expected a name that ends in .jsonl"),
        (["--out", "a.jsonl"], "no dataset: give the queries' origin a name"),
        (["--out", "a.jsonl", "--dataset", "d", "--score-range", "2", "1"], "expected LOW < HIGH"),
        (["--out", "a.jsonl", "--dataset", "d", "--score-range", "0", "inf"], "expected LOW <"),
        (["--out", "a.jsonl", "--dataset", "d", "--mapping", "m"], "--mapping is for tables"),
        (["--out", "a.jsonl", "--dataset", ""], "dataset: expected text"),
        (["--out", "a.jsonl", "--dataset", "d", "--strict"], "calls.jsonl:2: id: expected text"),
    ],
)
def test_wrong_options_are_told(
    app: typer.Typer, tmp_path: Path, arguments: list[str], told: str
) -> None:
    calls = lines(tmp_path / "calls.jsonl", [payload("a"), {"x": 1}])
    result = run(app, "litellm", calls, *arguments)
    assert isinstance(result.exception, LogError)
    assert told in str(result.exception)


def test_nothing_is_written_where_no_row_became_a_record(app: typer.Typer, tmp_path: Path) -> None:
    calls = lines(tmp_path / "calls.jsonl", [{"x": 1}])
    result = run(app, "litellm", calls, "--dataset", "d", "--out", tmp_path / "a.jsonl")
    assert isinstance(result.exception, LogError)
    assert "no row became a record" in str(result.exception)
    assert not (tmp_path / "a.jsonl").exists()


def test_what_logs_say_cannot_steer_a_terminal(app: typer.Typer, tmp_path: Path) -> None:
    rows = [payload("a", model="\x1b[2J[red]x[/red]", call_type="completion"), payload("b")]
    rows.append(payload("c", call_type="\x1b[31m\nfake line"))
    calls = lines(tmp_path / "calls.jsonl", rows)
    result = run(app, "litellm", calls, "--dataset", "d", "--out", tmp_path / "a.jsonl")
    assert result.exit_code == 0
    assert "\x1b" not in result.stderr
    assert "\\x1b[2J[red]x[/red] (1)" in result.stderr
    assert "\nfake line" not in result.stderr


def test_help_teaches_by_example(app: typer.Typer) -> None:
    result = runner.invoke(app, ["import", "--help"])
    assert result.exit_code == 0
    for source in ("litellm", "langfuse", "otel", "table"):
        assert f"masrouter logs import {source} " in result.stdout
    assert run(app, "excel", "a.jsonl", "--out", "b.jsonl").exit_code == 2


def test_folders_that_are_not_there_are_made(app: typer.Typer, tmp_path: Path) -> None:
    calls = lines(tmp_path / "calls.jsonl", [payload("a"), {"x": 1}])
    out, rejects = tmp_path / "logs" / "new" / "a.jsonl", tmp_path / "bad" / "rows.jsonl"
    result = run(
        app, "litellm", calls, "--dataset", "faq", "--out", out, "--rejects", rejects
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert len(read_logs(out)) == 1
    assert rejects.exists()
    result = run(app, "litellm", calls, "--dataset", "faq", "--out", calls / "a.jsonl")
    assert "cannot be made" in str(result.exception)


def test_an_input_is_never_overwritten(app: typer.Typer, tmp_path: Path) -> None:
    calls = lines(tmp_path / "calls.jsonl", [payload("a")])
    before = calls.read_bytes()
    result = run(app, "litellm", calls, "--dataset", "faq", "--out", calls)
    assert isinstance(result.exception, LogError)
    assert "the log to write is one of the inputs; name another" in str(result.exception)
    assert calls.read_bytes() == before
