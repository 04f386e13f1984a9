"""RouterArena's prediction files: read and checked as that benchmark's own scripts do.

The checks here are written from the format as its repository documents it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from masrouter.cli_export import app
from masrouter.errors import EvaluationError, MasRouterError
from masrouter.evaluation.exports import (
    ArenaQuery,
    RouteOptions,
    arena_predictions,
    read_arena_queries,
    write_arena_predictions,
)
from masrouter.router import Router

ROWS = [
    {"global index": "ArcMMLU_655", "prompt_formatted": "Which is 1 + 1?\nA. 2\nB. 3"},
    {"global index": "AIME_3", "prompt_formatted": 'Say "hello", then count to three.'},
]
QUERIES = [ArenaQuery(row["global index"], row["prompt_formatted"]) for row in ROWS]


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(result.exception, MasRouterError):
        return 1, str(result.exception)
    return result.exit_code, result.output


def written(folder: Path, suffix: str) -> Path:
    path = folder / f"router_data{suffix}"
    if suffix == ".json":
        path.write_text(json.dumps(ROWS), encoding="utf-8")
    elif suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, ROWS)) + "\n\n", encoding="utf-8")
    elif suffix == ".csv":
        pd.DataFrame(ROWS).to_csv(path, index=False)
    else:
        pd.DataFrame(ROWS).to_parquet(path)
    return path


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".parquet"])
def test_arena_queries_are_read_in_every_form(tmp_path: Path, suffix: str) -> None:
    assert read_arena_queries(written(tmp_path, suffix)) == QUERIES


def test_the_formatted_prompt_comes_before_the_plain_one(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"global_index": "a", "prompt": "plain", "prompt_formatted": "formatted"}\n')
    assert read_arena_queries(path) == [ArenaQuery("a", "formatted")]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("q.json", "{}", r"q\.json: expected a list, got a mapping"),
        ("q.json", "[1]", r"entry 0: expected an object, got 1"),
        ("q.json", "[", r"q\.json: not a file of its kind"),
        ("q.json", "[]", "no queries"),
        ("q.json", "[" * 100_000, "not a file of its kind"),
        ("q.jsonl", '{"global index": "a", "prompt": "b"}\n{', r"q\.jsonl:2: not JSON"),
        ("q.jsonl", '{"prompt": "b"}', r"q\.jsonl:1: global index: missing; the entry has prompt"),
        ("q.jsonl", '{"global index": "a"}', r"prompt_formatted: missing"),
        ("q.jsonl", '{"global index": 3, "prompt": "b"}', "global index: expected text, got 3"),
        ("q.jsonl", '{"global index": "a", "prompt": " "}', "prompt: expected text"),
        ("q.jsonl", '{"global index": "a", "prompt": "\\ud800"}', "prompt: not text"),
        ("q.jsonl", '{"global index": "a", "prompt": "b"}\n' * 2, r":2: .*'a' stands twice"),
        ("q.csv", "a,b\n1,2\n", "global index: missing"),
        ("q.parquet", "no parquet", "not a file of its kind"),
        ("q.txt", "", r"expected a \.json"),
    ],
)  # fmt: skip
def test_wrong_arena_queries_are_refused_by_place(
    tmp_path: Path, name: str, text: str, why: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(EvaluationError, match=why):
        read_arena_queries(tmp_path / name)


def check_predictions(path: Path, config: Path) -> list[dict[str, Any]]:
    """What its check_config_prediction_files.py checks of every entry."""
    entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    dataset = {row["global index"]: row for row in ROWS}
    allowed = json.loads(config.read_text(encoding="utf-8"))["pipeline_params"]["models"]
    assert len(entries) == len(ROWS)
    for entry in entries:
        assert entry["prompt"] == dataset[entry["global index"]]["prompt_formatted"]
        assert entry["prediction"] in allowed
        assert not entry.get("for_optimality", False)
        assert entry["generated_result"] is entry["cost"] is entry["accuracy"] is None
    return entries


def test_predictions_pass_the_checks_of_router_arena(checkpoint: Path, tmp_path: Path) -> None:
    out, config = tmp_path / "predictions/mine.json", tmp_path / "config/mine.json"
    data = written(tmp_path, ".json")
    names = tmp_path / "names.yaml"
    router = Router.from_pretrained(checkpoint)
    single = next(p for p in router.plans if len(p.agents) == 1)
    names.write_text(f"{single.agents[0].model}: theirs/one\n", encoding="utf-8")
    code, said = invoke(
        "routerarena", "-c", checkpoint, "--queries", data, "--out", out, "--config", config,
        "--max-agents", 1, "--model", single.agents[0].model, "--names", names,
    )  # fmt: skip
    assert code == 0, said
    entries = check_predictions(out, config)
    assert {entry["prediction"] for entry in entries} == {"theirs/one"}
    assert json.loads(config.read_text())["pipeline_params"]["router_name"] == "mine"


def test_predictions_are_the_models_of_what_route_decides(router: Router, tmp_path: Path) -> None:
    options = RouteOptions(cost_weight=3.0, max_agents=1)
    found = arena_predictions(router, QUERIES, options)
    decided = router.route_batch([q.prompt for q in QUERIES], cost_weight=3.0, max_agents=1)
    assert [e["prediction"] for e in found.entries] == [d.plan.agents[0].model for d in decided]
    assert "asks the bare model" in found.notes[0]
    write_arena_predictions(found, tmp_path / "p.json")
    assert json.loads((tmp_path / "p.json").read_text()) == [dict(e) for e in found.entries]


def test_a_team_is_refused_and_the_option_named(router: Router) -> None:
    teams = {plan.topology for plan in router.plans if len(plan.agents) > 1}
    only_teams = teams - {plan.topology for plan in router.plans if len(plan.agents) == 1}
    options = RouteOptions(topologies=tuple(sorted(only_teams)))
    with pytest.raises(EvaluationError, match=r"on 2 of 2 queries .* team, .*--max-agents 1"):
        arena_predictions(router, QUERIES, options)


def test_a_name_for_a_model_that_the_router_lacks_is_refused(router: Router) -> None:
    with pytest.raises(EvaluationError, match="'nobody' is no model of this router"):
        arena_predictions(router, QUERIES, RouteOptions(max_agents=1), names={"nobody": "x"})


def test_a_config_of_another_name_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    code, said = invoke(
        "routerarena", "-c", tmp_path / "none", "--queries", tmp_path / "none.json",
        "--out", tmp_path / "a.json", "--config", tmp_path / "b.json",
    )  # fmt: skip
    assert code == 1
    assert "a.json, not b.json" in said
