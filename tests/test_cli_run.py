"""`masrouter run`: a team answers problems, and is graded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.llms.faulty_server import FaultyServer, answer
from typer.testing import CliRunner

from masrouter.cli import build_app
from masrouter.errors import ConfigError

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
        (["--plan", "{", "Why?"], "no JSON"),
        (["--plan", PLAN, "--checkpoint", "x", "Why?"], "not both"),
    ],
)
def test_what_cannot_be_run_is_refused_with_what_to_do(arguments: list[str], why: str) -> None:
    done = run(*arguments)
    assert isinstance(done.exception, ConfigError)
    assert why in str(done.exception)
