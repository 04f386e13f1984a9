"""`masrouter evaluate --problems` as it is typed: what it refuses, keeps, resumes and writes."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from tests.live_samples import PROBLEMS, figures, samples, small_checkpoint
from typer.testing import CliRunner, Result

from masrouter.cli import build_app
from masrouter.collection import status
from masrouter.errors import MasRouterError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_checkpoint(tmp_path_factory))


@pytest.fixture
def sums(tmp_path: Path) -> str:
    """Twelve sums, with wrong answers: nothing to be contained."""
    path = tmp_path / "sums.jsonl"
    lines = [
        {"id": f"sums/{i}", "question": f"How much is {i} and {i + 2}?", "answer": str(2 * i + 2),
         "wrong_answers": [str(2 * i), str(2 * i + 4)]}
        for i in range(12)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(build_app(), ["evaluate", *arguments])


def says(result: Result) -> str:
    return " ".join(result.output.split())


def refusal(result: Result) -> str:
    assert isinstance(result.exception, MasRouterError), result.output
    return str(result.exception)


def test_a_router_is_compared_with_fixed_plans(checkpoint: str, sums: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run(
        "--problems", sums, "-c", checkpoint, "--plan", "cot(gpt-4o)", "--plan", "io(gpt-4o-mini)",
        "--repeats", "5", "-o", str(out),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "12 problems, 3 arms, 5 repeats" in done.stderr
    data = json.loads((out / "evaluation.json").read_text())
    assert data["complete"]
    assert [arm["arm"] for arm in data["arms"]] == ["routed", "cot(gpt-4o)", "io(gpt-4o-mini)"]
    assert data["ks"] == [1, 5]
    assert "figures say nothing of the models that are named" in says(done)
    table = (out / "table.md").read_text()
    for part in ("pass@1", "pass@5", "routed less each fixed plan", "same plan"):
        assert part in table
        assert part in done.stdout
    assert not samples(out)
    first = figures(out)
    again = run(
        "--problems", sums, "-c", checkpoint, "--plan", "cot(gpt-4o)", "--plan", "io(gpt-4o-mini)",
        "--repeats", "5", "-o", str(out), "--json",
    )  # fmt: skip
    assert "0 of them now" in says(again)
    assert json.loads(again.stdout)["complete"]
    assert figures(out) == first


def test_more_repeats_and_other_plans_pay_for_what_is_new(
    checkpoint: str, sums: str, tmp_path: Path
) -> None:
    base = ("--problems", sums, "-c", checkpoint, "-o", str(tmp_path / "out"))
    run(*base, "--plan", "cot(gpt-4o)", "--limit", "6")
    more = run(*base, "--plan", "cot(gpt-4o)", "--repeats", "2")
    assert more.exit_code == 0, more.output
    runs = sum(row.runs for row in status(tmp_path / "out/runs.sqlite").policies)
    other = run(*base, "--plan", "io(gpt-4o)", "--repeats", "2", "--dry-run")
    assert other.exit_code == 0, other.output
    rows = [line.split() for line in other.stdout.splitlines()]
    assert ["routed", "24", "0", "$0.0000"] in rows
    assert ["io(gpt-4o)", "24", "24"] in [row[:3] for row in rows]
    assert sum(row.runs for row in status(tmp_path / "out/runs.sqlite").policies) == runs


def test_without_plans_the_checkpoint_names_what_to_compare_with(
    checkpoint: str, sums: str, tmp_path: Path
) -> None:
    done = run("--problems", sums, "-c", checkpoint, "--dry-run")
    assert done.exit_code == 0, done.output
    assert "compared with the checkpoint's best fixed plan" in says(done)
    assert "its cheapest single agent" in says(done)
    assert not (tmp_path / "out").exists()


def test_problems_that_the_router_was_trained_on_are_told(checkpoint: str) -> None:
    done = run("--problems", str(PROBLEMS), "-c", checkpoint, "--dry-run")
    assert done.exit_code == 0, done.output
    assert "of 580 problems stand in the router's training logs" in says(done)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--k", "5"), "pass@5 needs at least 5 runs of each problem, and there are 1"),
        (("--repeats", "0"), "--repeats: expected at least 1, got 0"),
        (("--plan", "cot(nobody)"), "the simulated provider does not play it"),
        (("--plan", "cot"), "expected `topology(role@model, ...)`"),
        (("--plan", "debate(gpt-4o)"), "2 to"),
        (("--limit", "0"), "--limit: expected at least 1"),
        (("--concurrency", "0"), "concurrency: expected at least 1"),
        (("--llm", "none.yaml"), "none.yaml: cannot be read"),
        (("--llm", "none.yaml", "--simulated-seed", "1"), "is not simulated; leave it out"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_run(
    checkpoint: str, sums: str, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    out = tmp_path / "out"
    refused = run("--problems", sums, "-c", checkpoint, "-o", str(out), *arguments)
    assert message in refusal(refused)
    assert not (out / "runs.sqlite").exists()


def test_a_checkpoint_and_a_folder_are_needed(checkpoint: str, sums: str) -> None:
    assert "--checkpoint" in refusal(run("--problems", sums, "-o", "out"))
    assert "name a folder with --out" in refusal(run("--problems", sums, "-c", checkpoint))


def test_runs_of_another_world_or_deadline_are_never_mixed(
    checkpoint: str, sums: str, tmp_path: Path
) -> None:
    base = ("--problems", sums, "-c", checkpoint, "-o", str(tmp_path), "--plan", "io(gpt-4o)")
    assert run(*base).exit_code == 0
    assert "now it is simulated, world 1" in refusal(run(*base, "--simulated-seed", "1"))
    assert "deadline none, now it is 9 s" in refusal(run(*base, "--deadline-s", "9"))
    assert "max_tokens" in refusal(run(*base, "--max-tokens", "50"))


def test_runs_at_other_prices_are_never_mixed(checkpoint: str, sums: str, tmp_path: Path) -> None:
    base = (
        "--problems", sums, "-c", checkpoint, "-o", str(tmp_path / "out"), "--plan", "io(gpt-4o)",
    )  # fmt: skip
    assert run(*base).exit_code == 0
    dearer = tmp_path / "dearer.yaml"
    dearer.write_text("models:\n  gpt-4o: {input_usd_per_mtok: 99.0, output_usd_per_mtok: 99.0}\n")
    assert "price of gpt-4o 2.5 and 10 US$" in refusal(run(*base, "--catalog", str(dearer)))


def test_the_figures_of_another_evaluation_are_not_written_over(
    checkpoint: str, sums: str, tmp_path: Path
) -> None:
    (tmp_path / "evaluation.json").write_text("{}")
    refused = run("--problems", sums, "-c", checkpoint, "-o", str(tmp_path))
    assert "of another evaluation, which would be written over" in refusal(refused)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".jsonl"] == [
        "evaluation.json"
    ]


def test_a_program_that_no_test_can_judge_is_refused_before_it_is_paid_for(
    checkpoint: str, tmp_path: Path
) -> None:
    line = {
        "task_id": "x", "prompt": "def check(n):\n", "entry_point": "check",
        "canonical_solution": "    return n\n",
        "test": "def check(candidate):\n    assert check(1) == 1\n",
    }  # fmt: skip
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps(line) + "\n")
    refused = run("--problems", str(path), "-c", checkpoint, "-o", str(tmp_path / "out"))
    assert "set.jsonl:1: entry_point: x asks for a function `check`" in refusal(refused)
    assert not (tmp_path / "out").exists()


def test_why_runs_have_no_answer_is_said(checkpoint: str, sums: str, tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        here = {
            "base_url": f"http://127.0.0.1:{taken.getsockname()[1]}/v1",
            "api_key_env": None,
            "models": dict.fromkeys(["gpt-4o", "gpt-4o-mini"]),
            "retry": {"tries": 1},
        }
        down = tmp_path / "down.yaml"
        down.write_text(json.dumps({"providers": {"here": here}}))
        done = run(
            "--problems", sums, "-c", checkpoint, "-o", str(tmp_path / "out"), "--limit", "1",
            "--plan", "io(gpt-4o)", "--llm", str(down), "--json",
        )  # fmt: skip
    (note,) = [note for note in json.loads(done.stdout)["notes"] if "have no answer" in note]
    assert note.startswith("2 of the arms' runs")
    assert "reason: " in note
    assert "None" not in note


def test_a_budget_that_is_used_up_leaves_a_table_that_says_so(
    checkpoint: str, sums: str, tmp_path: Path
) -> None:
    base = (
        "--problems", sums, "-c", checkpoint, "-o", str(tmp_path), "--plan", "cot(gpt-4o)",
        "--concurrency", "1",
    )  # fmt: skip
    stopped = run(*base, "--budget-usd", "0.03")
    assert "the budget of 0.03 US$ is used up" in refusal(stopped)
    assert "INCOMPLETE" in stopped.stdout
    assert "no verdict, runs are missing" in stopped.stdout
    data = json.loads((tmp_path / "evaluation.json").read_text())
    assert not data["complete"]
    assert 0 < data["spending"]["known_usd"] <= 0.03
    assert run(*base).exit_code == 0
    assert json.loads((tmp_path / "evaluation.json").read_text())["complete"]


def test_programs_leave_samples_for_each_arm(checkpoint: str, tmp_path: Path) -> None:
    code = str(PROBLEMS / "code.jsonl")
    done = run(
        "--problems", code, "--limit", "3", "-c", checkpoint, "-o", str(tmp_path), "--repeats", "2",
        "--plan", "io(llama-3.1-8b-instruct)",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found = samples(tmp_path)
    assert list(found) == [
        "samples-code-io-llama-3.1-8b-instruct.jsonl",
        "samples-code-routed.jsonl",
    ]
    for text in found.values():
        rows = [json.loads(line) for line in text.splitlines()]
        assert len(rows) == 6
        assert len({row["task_id"] for row in rows}) == 3


def test_help_teaches() -> None:
    text = says(run("--help"))
    for part in ("--problems", "--plan", "--repeats", "--dry-run"):
        assert part in text
