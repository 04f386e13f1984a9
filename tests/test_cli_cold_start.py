"""`masrouter cold-start`: what a description and a few probe runs of a new model are worth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from masrouter import cli
from masrouter_train.synthetic import write_world

WORLD_QUERIES = 60


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["masrouter", "cold-start", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return int(left.value.code or 0)


def test_a_model_joins_by_its_description_then_by_probes_then_by_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = write_world(tmp_path / "world", "grid", WORLD_QUERIES, 0)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("encoder: hashing-64\ncritic: {folds: 3}\ngate: {nodes: 3}\n")
    arguments = [
        *("--logs", str(written.logs), "--catalog", str(written.catalog)),
        *("--recipe", str(recipe), "--model", "synthetic-large", "--folds", "2", "--draws", "1"),
        *("--probes", "0", "--probes", "16", "--out", str(tmp_path / "out"), "--json"),
    ]
    assert run(arguments, monkeypatch) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == json.loads((tmp_path / "out/cold_start.json").read_text(encoding="utf-8"))
    (joined,) = shown
    assert joined["model"] == "synthetic-large"
    assert joined["queries"] == WORLD_QUERIES
    ways = [point["probes"] for point in joined["points"]]
    assert ways.index(0) < ways.index(16) < len(ways) - 1
    trained = joined["points"][-1]
    described = joined["points"][ways.index(0)]
    assert trained["squared_error"]["mean"] < described["squared_error"]["mean"]
    assert "synthetic-large" in (tmp_path / "out/cold_start.md").read_text(encoding="utf-8")


def test_a_model_that_nobody_logged_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = write_world(tmp_path, "grid", 20, 0)
    arguments = ["--logs", str(written.logs), "--encoder", "hashing-64", "--model", "gpt-9"]
    assert run(arguments, monkeypatch) == 1
    assert "gpt-9" in capsys.readouterr().err
