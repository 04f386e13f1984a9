"""`masrouter run`: a team answers problems, and is graded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.llms.faulty_server import FaultyServer, answer
from typer.testing import CliRunner

from masrouter.cli import build_app
from masrouter.cli_models import read_plan
from masrouter.errors import ConfigError
from masrouter.types import Agent, Plan

PLAN = json.dumps({"topology": "cot", "agents": [{"role": None, "model": "o3-mini"}]})
DEBATE = json.dumps(
    {
        "topology": "debate",
        "agents": [
            {"role": "mathematician", "model": "gpt-4o-mini"},
            {"role": "critic", "model": "gpt-4o"},
        ],
    }
)


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    path = tmp_path / "sums.jsonl"
    lines = [
        {
            "id": f"sums/{n}",
            "question": f"A box holds {n} bags of {n + 2} marbles. How many marbles is that?",
            "answer": str(n * (n + 2)),
            "difficulty": 1,
            "solution": f"{n} times {n + 2} is {n * (n + 2)}.",
            "wrong_answers": [str(2 * n + 2), str(n * n)],
        }
        for n in range(3, 9)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def run(*arguments: str):
    return CliRunner().invoke(build_app(), ["run", *arguments])


def test_a_given_team_answers_each_problem_and_is_graded(problems: Path) -> None:
    done = run("--plan", PLAN, "--problems", str(problems))
    assert done.exit_code == 0, done.output
    assert done.output.count("team    cot(o3-mini)") == 6
    assert "of 6 graded answers are right" in done.output
    assert done.output.count("spent   $0.0") == 6


@pytest.mark.parametrize(
    "plan",
    [
        Plan("cot", (Agent(None, "gpt-4o"),)),
        Plan("debate", (Agent("critic", "gpt-4o"), *[Agent("judge", "openai/o3-mini:free")] * 2)),
    ],
)
def test_a_plan_is_read_as_it_is_shown(plan: Plan) -> None:
    assert read_plan(str(plan)) == plan
    assert read_plan(json.dumps(plan.to_json())) == plan


def test_a_router_leaves_out_plans_of_models_that_nobody_serves(
    tmp_path: Path, checkpoint: Path
) -> None:
    (tmp_path / "providers.yaml").write_text(
        "providers:\n  local:\n    base_url: http://127.0.0.1:9/v1\n    api_key_env: null\n"
        "    models: {other: }\n"
    )
    providers = str(tmp_path / "providers.yaml")
    done = run("--checkpoint", str(checkpoint), "--llm", providers, "Why is the sky blue?")
    assert isinstance(done.exception, ConfigError)
    assert "of the router's" in str(done.exception)
    assert "no provider lists it" in str(done.exception)


def test_fewer_tokens_fit_into_a_small_budget(problems: Path) -> None:
    arguments = ("--plan", "cot(gpt-4o)", "--problems", str(problems), "--limit", "1")
    budget = ("--max-cost-usd", "0.005")
    refused = run(*arguments, *budget)
    assert refused.exit_code == 1
    assert "allow the call fewer tokens" in " ".join(refused.output.split())
    assert "in 0 calls" in refused.output
    assert "0 of 0 graded answers are right; 1 without an answer" in refused.output
    assert run(*arguments, *budget, "--max-tokens", "300").exit_code == 0


def test_the_trace_shows_every_message(problems: Path) -> None:
    done = run("--plan", DEBATE, "--problems", str(problems), "--limit", "1", "--trace")
    assert done.exit_code == 0, done.output
    assert "<question>" in done.output
    assert "mathematician@gpt-4o-mini" in done.output


def test_what_a_model_says_cannot_steer_the_terminal(tmp_path: Path) -> None:
    said = "\x1b[31mred\x1b]0;title\x07 \x9b2J\r\nnext\tline [bold]b[/bold]"
    providers = tmp_path / "providers.yaml"
    plan = json.dumps({"topology": "cot", "agents": [{"role": None, "model": "here/m"}]})
    with FaultyServer(otherwise=answer(said)) as server:
        entry = {"base_url": server.base_url, "api_key_env": None}
        providers.write_text(json.dumps({"providers": {"here": entry}}))
        done = run("Hello \x1b[2J\udcff", "--plan", plan, "--llm", str(providers), "--trace")
    assert done.exit_code == 0, done.output
    assert "next" in done.output
    assert "[bold]b[/bold]" in done.output
    assert not {"\x1b", "\x07", "\x9b", "\r", "\udcff"} & set(done.output)


def test_json_holds_the_run_and_its_grade(problems: Path) -> None:
    done = run("--plan", PLAN, "--problems", str(problems), "--limit", "2", "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 2
    for row in rows:
        assert row["grade"]["source"] == "exact_match"
        assert row["usage"]["cost_usd"] == pytest.approx(
            sum(call["usage"]["cost_usd"] for call in row["calls"])
        )


def test_a_budget_that_is_too_small_fails_and_says_so(problems: Path) -> None:
    done = run("--plan", PLAN, "--problems", str(problems), "--max-cost-usd", "0.000001")
    assert done.exit_code == 1
    assert "budget" in done.output


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--plan", PLAN], "give queries, or --problems"),
        (["--plan", PLAN, "Why?"], "answers problems only"),
        (["Why?"], "name a router with --checkpoint"),
        (["--plan", "{", "--problems", "SUMS"], "no JSON"),
        (["--plan", "debate", "--problems", "SUMS"], "expected `topology(role@model, ...)`"),
        (["--plan", "cot(gpt-4omini)", "--problems", "SUMS"], "did you mean 'gpt-4o-mini'"),
        (["--plan", PLAN, "--checkpoint", "x", "Why?"], "not both"),
    ],
)
def test_what_cannot_be_run_is_refused_with_what_to_do(
    arguments: list[str], why: str, problems: Path
) -> None:
    done = run(*(str(problems) if part == "SUMS" else part for part in arguments))
    assert isinstance(done.exception, ConfigError)
    assert why in str(done.exception)
