"""`masrouter delegate` with policies and workers, and what it asks where nobody says whom."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli_delegate_samples import cells, delegate, providers, tasks
from tests.llms.faulty_server import Behaviour, FaultyServer, answer

from masrouter.delegation.deliberation.agreement import Rule
from masrouter.delegation.deliberation.missing import MissingRule
from masrouter.delegation.deliberation.thresholds import Thresholds
from masrouter.encoder import HashingEncoder
from masrouter.errors import ConfigError

QUESTION = "A box holds 3 bags of 5 marbles. How many marbles is that?"


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as found:
        yield found


@pytest.fixture
def llm(server: FaultyServer, tmp_path: Path) -> str:
    return providers(tmp_path, server)


def samples(*texts: str) -> list[Behaviour]:
    return [answer(f"Answer: {text}") for text in texts]


def test_a_cheap_and_a_strong_model_are_all_that_deliberating_needs(
    server: FaultyServer, llm: str
) -> None:
    server.script = {"quick": samples("15", "15", "15")}
    done = delegate("--llm", llm, "--cheap", "quick", "--strong", "strong", QUESTION)
    assert done.exit_code == 0, done.output
    ((name, model, cost, _, result),) = cells(done.stdout)
    assert (name, result) == ("task-1", "Answer: 15")
    assert "agree)" in model
    assert model.startswith("quick (")
    assert float(cost.removeprefix("$")) == pytest.approx(server.billed_usd)
    assert f"spent ${server.billed_usd:.6f}" in done.stdout
    assert "[0/1] task-1: working, deliberate" in done.stderr


def test_thresholds_say_how_many_and_the_strong_model_gets_the_rest(
    server: FaultyServer, llm: str, tmp_path: Path
) -> None:
    file = tmp_path / "thresholds.json"
    Thresholds(Rule(2, 1.0), MissingRule({"placeholder": 0.9})).save(file)
    server.script = {"quick": samples("15", "16"), "strong": samples("15")}
    arguments = ("--cheap", "quick", "--strong", "strong", "--thresholds", str(file))
    done = delegate("--llm", llm, *arguments, QUESTION, "Write to {{name}} that we are late.")
    assert done.exit_code == 1
    first, second = cells(done.stdout)
    assert (first[1], first[-1]) == ("strong (delegated)", "Answer: 15")
    assert second[-1].startswith("asks: What is to stand in the place")
    assert [call.model for call in server.calls] == ["quick", "quick", "strong"]
    assert "1 of 2 tasks done, 1 failed" in done.stdout


def test_a_settings_files_policies_are_names_for_any_task(
    server: FaultyServer, llm: str, tmp_path: Path
) -> None:
    settings = tmp_path / "delegation.yaml"
    settings.write_text("""
default: careful
policies:
  careful: {deliberate: {cheap: quick, strong: strong, rule: {samples: 3, threshold: 0.6}}}
  looked: {iterate: {model: strong, subtask: quick, rounds: 2}}
""")
    server.script = {
        "quick": [*samples("15", "15", "15"), answer("12 seats")],
        "strong": [answer("Hm.\nMissing: seats of the bus"), answer("12 go.\nMissing: nothing")],
    }
    text = f"- goal: {QUESTION}\n- {{goal: Who is to go, model: looked, needs: [task-1]}}\n"
    log = tmp_path / "episodes.jsonl"
    done = delegate(
        "--tasks", tasks(tmp_path, text), "--llm", llm, "--settings", str(settings), "--json",
        "--log", str(log), "--budget", "0.05",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    first, second = data["results"]
    assert (first["asked"], first["asked_by"], first["models"]) == ("careful", "default", ["quick"])
    assert first["policy"]["how"] == "3 of 3 agree"
    assert (second["answer"], second["policy"]["how"]) == ("12 go.", "2 rounds, 1 found")
    assert data["usage"]["cost_usd"] == pytest.approx(data["spent_usd"])
    assert data["spent_usd"] == pytest.approx(server.billed_usd)
    assert log.read_text().count('"event": "result"') == len(server.calls) == 6


def test_workers_of_a_file_do_the_steps_that_fit_them(
    server: FaultyServer, llm: str, tmp_path: Path
) -> None:
    (tmp_path / "delegated_tools.py").write_text(
        'def shout(text: str) -> str:\n    """Says it in capital letters."""\n'
        "    return text.upper()\n"
    )
    workers = tmp_path / "workers.yaml"
    workers.write_text('workers: {shouter: {python: "delegated_tools:shout", usd_per_call: 0}}\n')
    text = "- {goal: Say it., model: shouter, context: hello, id: task-1}\n"
    done = delegate("--tasks", tasks(tmp_path, text), "--llm", llm, "--workers", str(workers))
    assert done.exit_code == 0, done.output
    ((_, model, cost, _, result),) = cells(done.stdout)
    assert (model, cost, result) == ("shouter", "$0.000000", "HELLO")
    assert server.calls == []


@pytest.mark.parametrize(
    ("policy", "early"),
    [("match: {otherwise: quick}", True), ("iterate: {model: quick, subtask: quick}", True),
     ("deliberate: {cheap: quick, strong: strong}", False)],
)  # fmt: skip
def test_the_encoder_is_loaded_before_the_tasks_that_need_it(
    llm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str, early: bool
) -> None:
    def load() -> HashingEncoder:
        print("loaded", file=sys.stderr)
        return HashingEncoder()

    monkeypatch.setattr("masrouter.delegation.delegator.load_encoder", load)
    workers = tmp_path / "workers.yaml"
    workers.write_text('workers: {upper: {python: "builtins:str", description: Says it.}}\n')
    settings = tmp_path / "delegation.yaml"
    settings.write_text(f"policies: {{mine: {{{policy}}}}}\n")
    given = ("--llm", llm, "--settings", str(settings), "--workers", str(workers))
    told = delegate(*given, "--model", "mine", "Why?").stderr
    assert ("loading the encoder" in told) is early
    assert told.count("loaded") == early
    assert not early or told.index("loaded") < told.index("task-1")
    assert "loading the encoder" not in delegate(*given, "--model", "quick", "Why?").stderr


def test_what_workers_print_is_no_part_of_the_results(llm: str, tmp_path: Path) -> None:
    (tmp_path / "talkative_tools.py").write_text(
        'print("loaded")\n\n\ndef echo(text: str) -> str:\n    """Says it again."""\n'
        '    print("called")\n    return text\n'
    )
    workers = tmp_path / "workers.yaml"
    workers.write_text('workers: {echo: {python: "talkative_tools:echo", usd_per_call: 0}}\n')
    done = delegate("--llm", llm, "--workers", str(workers), "--model", "echo", "--json", "hello")
    assert [one["answer"] for one in json.loads(done.stdout)["results"]] == ["hello"]
    assert "loaded" in done.stderr
    assert "called" in done.stderr


def test_a_policy_of_ones_own_by_that_name_is_not_replaced(llm: str, tmp_path: Path) -> None:
    settings = tmp_path / "delegation.yaml"
    settings.write_text("policies: {deliberate: {match: {otherwise: quick}}}\n")
    result = delegate(
        "--llm", llm, "--settings", str(settings), "--cheap", "quick", "--strong", "strong", "a"
    )
    assert isinstance(result.exception, ConfigError)
    assert "the settings have a policy 'deliberate'" in str(result.exception)


class TestWhoIsAsked:
    def test_a_providers_file_in_the_folder_is_taken_and_said(
        self, server: FaultyServer, llm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        text = "- {goal: Look it up., model: quick}\n"
        done = delegate("--tasks", tasks(tmp_path, text), "--budget", "0.05")
        assert done.exit_code == 0, done.output
        assert "note: --llm providers.yaml, which is in this folder" in done.stderr
        assert len(server.calls) == 1

    def test_without_one_both_ways_are_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        result = delegate("Why?")
        assert isinstance(result.exception, ConfigError)
        assert "--llm" in str(result.exception)
        assert "--problems" in str(result.exception)

    def test_problems_are_never_sent_to_a_provider_that_nobody_named(
        self, server: FaultyServer, llm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        problem = {
            "id": "sums/3", "question": QUESTION, "answer": "15", "difficulty": 1,
            "solution": "3 times 5 is 15.", "wrong_answers": ["8", "25"],
        }  # fmt: skip
        (tmp_path / "sums.jsonl").write_text(json.dumps(problem) + "\n")
        done = delegate("--problems", "sums.jsonl", "--cheap", "gpt-4o-mini", "--strong", "o3-mini")
        assert done.exit_code == 0, done.output
        assert server.calls == []
        assert "1 of 1 tasks done" in done.stdout
