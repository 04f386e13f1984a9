"""`masrouter deliberate collect-match` and `match`: from problems to a file of thresholds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from masrouter.cli_matching import collect_match_command, match_command
from masrouter.delegation.deliberation.agreement import Rule
from masrouter.delegation.deliberation.thresholds import Thresholds
from masrouter.errors import ConfigError, EvaluationError
from masrouter.logs import read_logs

ROOT = Path(__file__).resolve().parents[1]
WORKERS = ROOT / "examples" / "workers.yaml"
ENCODER = ("--encoder", "hashing-128")

app = typer.Typer()
app.command("match")(match_command)
app.command("collect-match")(collect_match_command)


def call(*words: str | Path) -> Result:
    result = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def collect(out: Path, problems: Path, *more: str) -> Result:
    named = ("--workers", WORKERS, "--otherwise", "gpt-4o-mini", "-o", out)
    return call("collect-match", "-p", problems, *named, *ENCODER, *more)


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sums that the calculator can do, beside the project's problems of mathematics."""
    file = tmp_path_factory.mktemp("matching") / "math.jsonl"
    taken = (ROOT / "data" / "problems" / "math.jsonl").read_text().splitlines()[:20]
    for n in range(20):
        sums = {
            "id": f"math/sum-{n}", "question": f"Calculate {n + 3} * {n + 7}.",
            "answer": str((n + 3) * (n + 7)), "wrong_answers": [str(n)], "difficulty": 2,
            "topics": ["arithmetic"],
        }  # fmt: skip
        taken.append(json.dumps(sums))
    file.write_text("\n".join(taken) + "\n")
    return file


@pytest.fixture(scope="module")
def log(problems: Path) -> Path:
    out = problems.with_name("log.jsonl")
    collect(out, problems)
    return out


def test_each_problem_is_run_on_a_worker_and_on_the_model(log: Path) -> None:
    records = list(read_logs(log, strict=True))
    assert len(records) == 80
    by_worker = [record for record in records if record.plan.topology == "io"]
    assert {record.plan.models for record in records if record not in by_worker} == {
        ("gpt-4o-mini",)
    }
    sums = [r for r in by_worker if r.plan.models == ("calculator",) and "Calculate" in r.query]
    assert len(sums) == 20
    assert all(r.score == 1.0 and r.usage.cost_usd == 0.0 for r in sums)
    assert any(record.error is not None for record in by_worker)


def test_what_is_logged_already_is_not_run_again(problems: Path, tmp_path: Path) -> None:
    out = tmp_path / "log.jsonl"
    collect(out, problems, "--limit", "5")
    first = out.read_text()
    collect(out, problems, "--limit", "5")
    assert out.read_text() == first


def test_a_rule_is_chosen_and_the_other_parts_of_the_file_stay(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "thresholds.json"
    Thresholds(rule=Rule(3, 2 / 3)).save(out)
    named = ("--workers", WORKERS, "--otherwise", "gpt-4o-mini", "-o", out)
    shown = call("match", log, *named, *ENCODER)
    assert "always the nearest worker" in shown.stdout
    assert "runs of workers" in shown.stderr
    found = Thresholds.load(out)
    assert found.rule == Rule(3, 2 / 3)
    assert found.matching is not None
    assert found.matching.encoder == "hashing-128-v1"
    told = json.loads(call("match", log, *named, *ENCODER, "--json").stdout)
    assert told["rule"]["threshold"] == found.matching.threshold
    rows = {row["name"]: row for row in told["rows"]}
    assert rows["match"]["score"]["mean"] >= rows["never"]["score"]["mean"] - 0.05
    assert rows["match"]["cost_usd"]["mean"] < rows["never"]["cost_usd"]["mean"]
    assert found.chosen_on["matching"]["requests"] == 40
    assert rows["nearest"]["score"]["mean"] >= rows["never"]["score"]["mean"]
    strict = json.loads(call("match", log, *named, *ENCODER, "--no-fall-back", "--json").stdout)
    assert (told["fall_back"], strict["fall_back"]) == (True, False)
    (nearest,) = (row for row in strict["rows"] if row["name"] == "nearest")
    assert nearest["score"]["mean"] < rows["nearest"]["score"]["mean"]


def test_the_only_plan_that_is_no_worker_is_found(
    log: Path, problems: Path, tmp_path: Path
) -> None:
    told = collect(log, problems).stderr.splitlines()[-1]
    assert told == (
        f"next: masrouter deliberate match {log} --workers {WORKERS} --otherwise gpt-4o-mini "
        "--encoder hashing-128 -o thresholds.json"
    )
    named = ("--workers", WORKERS, "-o", tmp_path / "t.json", *ENCODER)
    shown = call("match", log, *named)
    assert "otherwise: gpt-4o-mini, the only plan of the log that is no worker" in shown.stderr
    two = tmp_path / "two.jsonl"
    again = log.read_text().replace("gpt-4o-mini", "gpt-4o").replace('"run_id": "', '"run_id": "2')
    two.write_text(log.read_text() + again)
    with pytest.raises(EvaluationError, match="say which of gpt-4o, gpt-4o-mini; the log names"):
        call("match", two, *named)
    with pytest.raises(
        EvaluationError,
        match="'small'; expected one of gpt-4o, gpt-4o-mini; the log names models by id; a tier",
    ):
        call("match", two, *named, "--otherwise", "small")


def test_a_rule_that_asks_no_worker_says_so(log: Path, tmp_path: Path) -> None:
    useless = tmp_path / "useless.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    for row in rows:
        right = row["agents"][0]["model"] == "gpt-4o-mini"
        row.update(score=float(right), score_source="tests", error=None)
    useless.write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = ("--workers", WORKERS, "-o", tmp_path / "t.json", *ENCODER)
    shown = call("match", useless, *named).stdout
    assert "no worker is worth asking: all requests go to gpt-4o-mini (by fold" in shown
    assert "a worker fits from" not in shown


def test_a_log_without_a_run_says_which(log: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.jsonl"
    half.write_text("\n".join(log.read_text().splitlines()[:-1]) + "\n")
    named = ("--workers", WORKERS, "-o", tmp_path / "t.json", *ENCODER)
    with pytest.raises(EvaluationError, match=r"the log has no run of .*1 of 40 requests lack"):
        call("match", half, "--otherwise", "gpt-4o-mini", *named)
    with pytest.raises(EvaluationError, match=r"no run of 'gpt-4o-min'; did you mean 'gpt-4o-mini"):
        call("match", log, "--otherwise", "gpt-4o-min", *named)
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        call("match", log, "--otherwise", "x", "--workers", "none.yaml", "-o", "t.json")
    assert not (tmp_path / "t.json").exists()
