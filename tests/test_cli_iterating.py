"""`masrouter deliberate collect-iterate` and `iterate`: from problems to a file of thresholds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from masrouter.cli_deliberate import app
from masrouter.delegation.calibration.iterations import read_iterations
from masrouter.delegation.deliberation.agreement import Rule
from masrouter.delegation.deliberation.iterating_rule import IteratingRule
from masrouter.delegation.deliberation.thresholds import Thresholds
from masrouter.delegation.workers.matching import MatchingRule
from masrouter.errors import ConfigError, EvaluationError
from masrouter.problems import read_problems

MATH = Path(__file__).resolve().parents[1] / "data" / "problems" / "math.jsonl"


def call(*words: str | Path) -> Result:
    result = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A worker that knows every problem as a whole: what a look-up ahead would bring."""
    folder = tmp_path_factory.mktemp("iterating")
    texts = [problem.query for problem in read_problems(MATH)]
    (folder / "texts.json").write_text(json.dumps(texts))
    (folder / "whole_texts.py").write_text(
        """import json
from pathlib import Path

TEXTS = json.loads(Path(__file__).with_name("texts.json").read_text())


def look_up(text: str) -> str:
    \"\"\"Looks up what a story says.\"\"\"
    words = set(text.split())
    return max(TEXTS, key=lambda known: len(words & set(known.split())))
"""
    )
    workers = "workers:\n  notes: {python: 'whole_texts:look_up', takes: goal, usd_per_call: 0}\n"
    (folder / "workers.yaml").write_text(workers)
    Thresholds(matching=MatchingRule(-1.0, 0.0, "hashing-64-v1")).save(folder / "fits.json")
    return folder


def words(known: Path, out: Path, *more: str) -> list[str]:
    given: list[str | Path] = [
        "collect-iterate", "-p", MATH, "--model", "gpt-4o-mini", "--strong", "gpt-4.1",
        "--workers", known / "workers.yaml", "--encoder", "hashing-64", "--thresholds",
        known / "fits.json", "--ahead", "notes", "--rounds", "2", "--requests", "1",
        "--limit", "24", "--gaps", "1", "-o", out, *more,
    ]  # fmt: skip
    return list(map(str, given))


@pytest.fixture(scope="module")
def log(known: Path) -> Path:
    out = known / "log.jsonl"
    assert "queries" in call(*words(known, out)).stderr
    return out


def test_problems_are_logged_in_every_way_whole_and_with_a_gap(log: Path) -> None:
    queries = read_iterations(log)
    gapped = [query for query in queries if query.query_id.endswith("-gap")]
    assert len(queries) == 24 + len(gapped)
    assert 10 < len(gapped) <= 24
    ways = {IteratingRule(1, 1), IteratingRule(2, 1)}
    ways |= {IteratingRule(rule.rounds, 1, True) for rule in ways}
    for query in queries:
        assert {way.rule for way in query.ways} == ways
        assert query.group == query.query_id.removesuffix("-gap")


def test_the_choice_is_shown_and_written_beside_the_other_parts(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "thresholds.json"
    Thresholds(Rule()).save(out)
    told = call("iterate", log, "-o", out)
    for row in ("always the strong model", "never asking", "iterating on long", "after a look-up"):
        assert row in told.stdout
    found = Thresholds.load(out)
    assert found.rule == Rule()
    assert found.iterating is not None
    assert found.iterating.ahead  # the worker has all that was cut
    data = json.loads(call("iterate", log, "-o", out, "--json").stdout)
    assert data["rule"]["rounds"] == found.iterating.rounds
    assert data["queries"] == len(read_iterations(log))
    assert found.chosen_on["iterating"]["rows"] == data["rows"]
    call("iterate", log, "-o", out, "--cost-weight", "1e6")
    assert Thresholds.load(out).iterating == IteratingRule(1, 1)


def test_the_same_command_again_runs_only_what_is_left(
    known: Path, log: Path, tmp_path: Path
) -> None:
    out = tmp_path / "log.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    out.write_text("".join(lines[:-2]) + lines[-2][:50])
    setting = log.with_name("log.jsonl.setting.json").read_text()
    out.with_name("log.jsonl.setting.json").write_text(setting)
    told = call(*words(known, out))
    assert f"{len(lines)} of {len(lines)} queries, {len(lines) - 2} of which were" in told.stderr
    # The simulated provider says the same to the same: nothing is lost, doubled or different.
    assert out.read_text() == log.read_text()
    other = CliRunner().invoke(app, words(known, out, "--seed", "1"))
    assert isinstance(other.exception, ConfigError)
    assert "was made with seed = 0" in str(other.exception)


def test_where_nobody_could_be_asked_nothing_is_run(tmp_path: Path) -> None:
    out = tmp_path / "log.jsonl"
    given = ["collect-iterate", "-p", str(MATH), "--model", "gpt-4o-mini", "--strong", "gpt-4.1"]
    done = CliRunner().invoke(app, [*given, "-o", str(out)])
    assert isinstance(done.exception, ConfigError)
    assert "name --subtask, --workers or --ahead" in str(done.exception)
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_is_too_small_writes_nothing(log: Path, tmp_path: Path) -> None:
    small, out = tmp_path / "small.jsonl", tmp_path / "thresholds.json"
    small.write_text("".join(log.read_text().splitlines(keepends=True)[:5]))
    done = CliRunner().invoke(app, ["iterate", str(small), "-o", str(out)])
    assert isinstance(done.exception, EvaluationError)
    assert not out.exists()


def test_the_help_shows_commands_that_are_there() -> None:
    told = call("collect-iterate", "--help").stdout
    assert "masrouter deliberate collect-iterate" in told
    assert "masrouter deliberate iterate" in call("iterate", "--help").stdout
