"""`masrouter delegate`: progress, the table, the exit code, and what Ctrl-C leaves."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli_delegate_samples import TWO, cells, delegate, providers, tasks
from tests.llms.faulty_server import (
    Exchange,
    FaultyServer,
    Received,
    answer,
    completion,
    status,
)

from masrouter.delegation.episodes.log import EpisodeLog, read_episodes
from masrouter.errors import MasRouterError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as found:
        yield found


@pytest.fixture
def llm(server: FaultyServer, tmp_path: Path) -> str:
    return providers(tmp_path, server)


def refused(*arguments: str) -> str:
    result = delegate(*arguments)
    assert isinstance(result.exception, MasRouterError), result.output
    return str(result.exception)


def test_a_table_of_model_cost_time_and_result_ends_it(
    server: FaultyServer, llm: str, tmp_path: Path
) -> None:
    server.script = {"quick": [answer("found it")], "strong": [answer("42, since\nit has to be")]}
    done = delegate("--tasks", tasks(tmp_path, TWO), "--budget", "0.05", "--llm", llm)
    assert done.exit_code == 0, done.output
    head = next(line for line in done.stdout.splitlines() if line.startswith("task"))
    assert head.split() == ["task", "model", "cost", "time", "result"]
    first, second = cells(done.stdout)
    assert (first[0], first[1], first[4]) == ("task-1", "quick", "found it")
    assert (second[0], second[1], second[4]) == ("task-2", "strong", "42, since it has to be")
    costs = [float(row[2].removeprefix("$")) for row in (first, second)]
    assert sum(costs) == pytest.approx(server.billed_usd)
    assert all(re.fullmatch(r"\d+\.\d s", row[3]) for row in (first, second))
    assert f"2 of 2 tasks done; spent ${server.billed_usd:.6f}; " in done.stdout


def test_the_limit_on_tasks_of_language_models_is_none_for_a_list_of_ones_own(
    server: FaultyServer, llm: str
) -> None:
    goals = [f"Look up {number}." for number in range(17)]
    done = delegate("--llm", llm, "--model", "quick", "--provider", "lab", *goals)
    assert done.exit_code == 0, done.output
    assert "17 of 17 tasks done" in done.stdout


def test_of_a_long_answer_the_last_line_is_shown(
    server: FaultyServer, llm: str, tmp_path: Path
) -> None:
    long = "First, what is given has to be read with care. " * 3
    server.script = {"quick": [answer(f"{long}\n\nAnswer: 42\n")], "strong": [answer("so")]}
    done = delegate("--tasks", tasks(tmp_path, TWO), "--llm", llm)
    assert [row[4] for row in cells(done.stdout)] == ["Answer: 42", "so"]


def test_on_a_pipe_every_task_has_a_line_when_it_begins_and_when_it_ends(
    server: FaultyServer, llm: str, tmp_path: Path
) -> None:
    server.script = {"strong": [status(400, "no such thing")]}
    done = delegate("--tasks", tasks(tmp_path, TWO), "--llm", llm)
    lines = done.stderr.splitlines()
    assert sorted(line.split("] ")[1] for line in lines if line.startswith("[0/2]")) == [
        "task-1: working, lab/quick",
        "task-2: working, lab/strong",
    ]
    ended = [line for line in lines if not line.startswith("[0/2]")]
    assert {line[:5] for line in ended} == {"[1/2]", "[2/2]"}
    (good,) = (line for line in ended if "task-1" in line)
    assert re.search(r"task-1: done, quick, 1 call, \$0\.0000\d+, \d+\.\d s", good)
    (bad,) = (line for line in ended if "task-2" in line)
    assert "task-2: failed" in bad
    assert "no such thing" in bad


def test_one_tasks_failure_is_its_own_and_the_exit_code_says_that_there_was_one(
    server: FaultyServer, llm: str, tmp_path: Path
) -> None:
    text = """
- {goal: a, model: quick}
- {goal: b, model: quik}
- {goal: c, model: "lab:quick"}
- {goal: d, model: broken}
- {goal: e, needs: [task-4], model: quick}
"""
    server.script = {"broken": [status(500, "out of order")]}
    done = delegate("--tasks", tasks(tmp_path, text), "--llm", llm, "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)["results"]
    assert [row["status"] for row in found] == ["done", "failed", "failed", "failed", "failed"]
    errors = [row["error"] and row["error"]["type"] for row in found]
    assert errors == [None, "unknown_model", "unknown_model", "provider", "needs"]
    assert "lab/quick" in found[1]["error"]["nearest"]
    table = delegate("--tasks", tasks(tmp_path, text), "--llm", llm)
    told = " ".join(table.stdout.split())
    assert "1 of 5 tasks done, 4 failed" in told
    assert "unknown_model: " in told
    assert table.exit_code == 1


def test_needed_results_and_context_files_reach_the_model(
    server: FaultyServer, llm: str, tmp_path: Path
) -> None:
    (tmp_path / "report.md").write_text("Sales were 12.")
    text = """
- {goal: Summarise., context_file: report.md, model: quick, id: summary, max_tokens: 77}
- {goal: Check., needs: [summary], model: strong}
"""
    server.script = {"quick": [answer("twelve sold")]}
    done = delegate("--tasks", tasks(tmp_path, text), "--llm", llm)
    assert done.exit_code == 0, done.output
    first, second = server.calls
    assert "Sales were 12." in first.messages[-1][1]
    assert first.body["max_tokens"] == 77
    assert "twelve sold" in second.messages[-1][1]
    assert "Sales were 12." not in second.messages[-1][1]


def test_a_single_goal_is_answered_in_full(server: FaultyServer, llm: str) -> None:
    whole = "\n".join(f"line {n} of a long answer" for n in range(60))
    server.script = {"quick": [answer(whole)]}
    done = delegate("--llm", llm, "--model", "quick", "Tell me all.")
    assert done.exit_code == 0, done.output
    assert whole in done.stdout


def test_the_model_of_the_call_is_for_tasks_that_name_none(
    server: FaultyServer, llm: str, tmp_path: Path
) -> None:
    text = "- {goal: a}\n- {goal: b, model: strong}\n"
    settings = tmp_path / "settings.yaml"
    settings.write_text("aliases: {fast: quick}\ndefault: broken\n")
    delegate(
        "--tasks", tasks(tmp_path, text), "--llm", llm,
        "--settings", str(settings), "--model", "fast",
    )  # fmt: skip
    assert sorted(call.model for call in server.calls) == ["quick", "strong"]


def test_a_plan_of_one_agent_and_several_calls_is_shown_with_its_topology(
    server: FaultyServer, llm: str, tmp_path: Path
) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        "plans: {again: {topology: reflection, agents: [{role: null, model: quick}]}}\n"
    )
    given = ("--llm", llm, "--settings", str(settings), "--model", "again")
    done = delegate(*given, "Look it up.")
    assert done.exit_code == 0, done.output
    assert len(server.calls) > 1
    assert [row[1] for row in cells(done.stdout)] == ["reflection: quick"]
    assert "task-1: working, reflection(lab/quick)" in done.stderr


def test_a_budget_is_held_to(server: FaultyServer, llm: str, tmp_path: Path) -> None:
    path = tasks(tmp_path, TWO)
    done = delegate("--tasks", path, "--llm", llm, "--budget", "0.0000001", "--json")
    assert done.exit_code == 1
    assert server.calls == []
    found = json.loads(done.stdout)
    assert [row["error"]["type"] for row in found["results"]] == ["budget", "budget"]
    assert (found["budget_usd"], found["spent_usd"]) == (1e-07, 0.0)
    assert "budget_usd: expected US dollars >= 0" in refused(
        "--tasks", path, "--llm", llm, "--budget", "nan"
    )


def test_json_goes_to_standard_output_and_the_same_into_a_file(
    server: FaultyServer, llm: str, tmp_path: Path
) -> None:
    long = "word " * 1000 + "end"
    server.script = {"quick": [answer(long)]}
    out = tmp_path / "results.json"
    out.write_text("old")
    done = delegate("--tasks", tasks(tmp_path, TWO), "--llm", llm, "--json", "--out", str(out))
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found == json.loads(out.read_text())
    assert found["interrupted"] is False
    first = found["results"][0]
    assert (first["id"], first["goal"], first["status"]) == ("task-1", "Look it up.", "done")
    assert first["answer"] == long
    assert first["models"] == ["quick"]
    assert found["usage"]["cost_usd"] == pytest.approx(server.billed_usd)
    assert sorted(path.name for path in tmp_path.iterdir() if "result" in path.name) == [
        "results.json"
    ]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("out", "expected"),
    [(".", "is a folder; name a file"), ("none/results.json", "folder does not exist")],
)
def test_results_that_could_not_be_written_are_refused_before_anything_is_spent(
    server: FaultyServer, llm: str, tmp_path: Path, out: str, expected: str
) -> None:
    path = tasks(tmp_path, TWO)
    assert expected in refused("--tasks", path, "--llm", llm, "--out", str(tmp_path / out))
    assert server.calls == []


def test_results_never_replace_the_file_of_another_option(
    server: FaultyServer, llm: str, tmp_path: Path
) -> None:
    path, log = tasks(tmp_path, TWO), str(tmp_path / "log.jsonl")
    for option, given in (("--tasks", path), ("--llm", llm), ("--log", log)):
        told = refused("--tasks", path, "--llm", llm, "--log", log, "--out", given)
        assert f"is the file of {option}, too" in told
    os.mkfifo(tmp_path / "pipe")
    told = refused("--tasks", path, "--llm", llm, "--out", str(tmp_path / "pipe"))
    assert "is a device or pipe" in told
    assert server.calls == []


def test_what_models_and_tasks_say_cannot_steer_the_terminal(
    server: FaultyServer, llm: str, tmp_path: Path
) -> None:
    server.script = {"quick": [answer("\x1b[31mred\x1b[2J [bold]not bold[/bold] \u202eback")]}
    text = '- {goal: "\\e[31mgoal", model: quick, id: first}\n- {goal: b, model: "\\e[31mx"}\n'
    done = delegate("--tasks", tasks(tmp_path, text), "--llm", llm)
    assert "\x1b" not in done.stdout + done.stderr
    assert "\u202e" not in done.stdout
    assert "[bold]not bold[/bold]" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "nothing to hand out"),
        (("--tasks", "t.yaml", "a goal"), "and not both"),
        (("--parent", "quick", "one", "two"), "--parent works on one goal, got 2"),
        (("--parent", "quick", "--max-concurrency", "2", "one"), "not for --parent"),
        (("--tasks", "none.yaml"), "none.yaml: cannot be read"),
        (("--settings", "none.yaml", "one"), "none.yaml: cannot be read"),
        (("--deadline-s", "0", "one"), "deadline_s: expected seconds > 0"),
        (("--max-concurrency", "0", "one"), "max_concurrency"),
        (("--model", "quick", "--limit", "2", "one"), "--limit: is for --problems"),
        (("--provider", "lab", "one"), "--provider: says whose --model is meant"),
        (("--workers", "none.yaml", "one"), "none.yaml: cannot be read"),
        (("--strong", "quick", "one"), "--strong: goes with --cheap"),
        (("--thresholds", "t.json", "one"), "--thresholds: goes with --cheap"),
        (("--cheap", "quick", "one"), "--cheap: name --strong too, or give a router"),
        (("--cheap", "quick", "--model", "strong", "one"), "--cheap: goes in place of --model"),
        (("--cheap", "none", "--strong", "strong", "one"), "--cheap 'none': nothing has this name"),
        (("--cheap", "quick", "--strong", "stron", "one"), "--strong 'stron': nothing has this"),
        (("--parent", "none", "one"), "--parent 'none': nothing has this name"),
        (
            ("--cheap", "quick", "--strong", "strong", "--thresholds", "none.json", "one"),
            "none.json: cannot be read",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(
    server: FaultyServer, llm: str, arguments: tuple[str, ...], expected: str
) -> None:
    assert expected in refused("--llm", llm, *arguments)
    assert server.calls == []


def test_what_happened_can_be_logged_and_learned_from(
    server: FaultyServer, llm: str, tmp_path: Path
) -> None:
    log = tmp_path / "episodes.jsonl"
    path = tasks(tmp_path, TWO)
    for _ in range(2):
        done = delegate("--tasks", path, "--llm", llm, "--log", str(log))
        assert done.exit_code == 0
    latest = read_episodes(log).episodes[-1].id
    assert f"episode: {latest}, see masrouter delegations show {log}\n" in done.stdout
    assert "episode" not in delegate("--tasks", path, "--llm", llm).stdout
    lines = log.read_text().splitlines()
    assert len(lines) >= 6
    assert "Look it up." in log.read_text()
    EpisodeLog(log).open("another")  # the file is whole: it can be gone on with


def _uses_tools(received: Received) -> dict[str, Any]:
    if len(received.messages) > 2:
        return completion("Both found: 42.", received.model)
    call = {
        "id": "c1",
        "type": "function",
        "function": {
            "name": "delegate_tasks",
            "arguments": json.dumps(
                {"tasks": [{"goal": "part one", "model": "quick"}, {"goal": "part two"}]}
            ),
        },
    }
    usage = {"completion_tokens": 4}
    return completion(
        None, received.model, tool_calls=[call], finish_reason="tool_calls", more_usage=usage
    )


def test_a_parent_model_hands_out_tasks_of_its_own(
    server: FaultyServer, llm: str, tmp_path: Path
) -> None:
    async def parent(exchange: Exchange) -> None:
        exchange.bill(4)
        await exchange.respond(200, _uses_tools(exchange.received))

    server.script = {"strong": [parent]}
    done = delegate(
        "--llm", llm, "--parent", "strong", "--model", "quick", "--budget", "0.05", "What is it?"
    )
    assert done.exit_code == 0, done.output
    assert [call.model for call in server.calls] == ["strong", "quick", "quick", "strong"]
    assert "parent: strong, 2 turns" in done.stdout
    assert done.stdout.rstrip().endswith("Both found: 42.")
    assert done.stdout.count("the answer") == 2
    as_json = delegate("--llm", llm, "--parent", "strong", "--model", "quick", "--json", "Again?")
    found = json.loads(as_json.stdout)
    assert found["parent"]["answer"] == "Both found: 42."
    assert found["parent"]["results"] == [row["id"] for row in found["results"]]
    assert found["usage"]["cost_usd"] == pytest.approx(found["spent_usd"])


def test_a_parent_without_an_answer_is_a_failure(server: FaultyServer, llm: str) -> None:
    server.script = {"strong": [status(400, "no tools here")]}
    done = delegate("--llm", llm, "--parent", "strong", "What is it?")
    assert done.exit_code == 1
    assert "failed: provider: " in done.stdout
    assert "no tools here" in done.stdout


SUMS = [
    {
        "id": f"sums/{n}",
        "question": f"A box holds {n} bags of {n + 2} marbles. How many marbles is that?",
        "answer": str(n * (n + 2)),
        "difficulty": 1,
        "solution": f"{n} times {n + 2} is {n * (n + 2)}.",
        "wrong_answers": [str(2 * n + 2), str(n * n)],
    }
    for n in range(3, 7)
]


@pytest.fixture
def problems(tmp_path: Path) -> str:
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in SUMS))
    return str(path)


def test_the_simulated_provider_answers_problems_and_they_are_graded(problems: str) -> None:
    done = delegate("--problems", problems, "--model", "o3-mini", "--budget", "0.05")
    assert done.exit_code == 0, done.output
    head = next(line for line in done.stdout.splitlines() if line.startswith("task"))
    assert head.split() == ["task", "model", "cost", "time", "score", "result"]
    assert "sums/3" in done.stdout
    assert "4 of 4 tasks done; spent $0.0" in done.stdout
    note = "note: --llm simulated, since --problems are given; its costs are made up"
    assert note in done.stderr
    named = delegate("--problems", problems, "--model", "o3-mini", "--llm", "simulated")
    assert note not in named.stderr


def test_a_file_of_tasks_is_graded_where_a_goal_is_a_problems_question(
    problems: str, tmp_path: Path
) -> None:
    text = f"- {{goal: {json.dumps(SUMS[1]['question'])}, model: o3-mini}}\n"
    done = delegate("--tasks", tasks(tmp_path, text), "--problems", problems, "--json")
    (row,) = json.loads(done.stdout)["results"]
    assert (row["id"], row["score"]) in (("task-1", 0.0), ("task-1", 1.0))


def test_auto_without_a_router_is_each_tasks_error(problems: str) -> None:
    done = delegate("--problems", problems, "--model", "auto", "--json")
    assert done.exit_code == 1
    assert {row["error"]["type"] for row in json.loads(done.stdout)["results"]} == {"no_router"}


@pytest.mark.slow
def test_auto_asks_the_router_that_ships(tmp_path: Path) -> None:
    done = delegate(
        "--problems", str(ROOT / "data/problems"), "--limit", "6",
        "-c", str(ROOT / "checkpoints/default"), "--budget", "0.05", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert {row["asked"] for row in found["results"]} == {"auto"}
    assert all(row["expected"]["score"] > 0 for row in found["results"])
    assert 0 < found["spent_usd"] <= 0.05
