"""`masrouter deliberate`: logs of both ways, gone on with where they stopped, and what they say."""

from __future__ import annotations

import fcntl
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_group
from typer.testing import CliRunner, Result

from masrouter.cli_deliberate import app
from masrouter.cli_deliberating import told_saving
from masrouter.delegation.calibration.measuring import UNKNOWN, Measured
from masrouter.delegation.calibration.sampled import read_samples, sample_line
from masrouter.delegation.deliberation.thresholds import Thresholds
from masrouter.errors import ConfigError, LogError
from masrouter.types import Interval

MATH = Path(__file__).resolve().parents[1] / "data" / "problems" / "math.jsonl"
NAMES = ("--cheap", "gpt-4o-mini", "--strong", "o3-mini", "--samples", "3")
AGAIN = ("collect", "-p", str(MATH), *NAMES, "--limit", "40", "--gaps", "0.5", "--check")


def call(*words: str | Path) -> Result:
    result = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def collect(out: Path, *more: str) -> Result:
    return call("collect", "-p", MATH, *NAMES, "-o", out, *more)


@pytest.fixture(scope="module")
def gapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("deliberate") / "samples.jsonl"
    told = collect(out, "--limit", "40", "--gaps", "0.5", "--check")
    assert f"{out}: " in told.stderr
    return out


def test_problems_are_logged_with_a_gap_as_well_and_say_so(gapped: Path) -> None:
    queries = {query.query_id: query for query in read_samples(gapped)}
    lacking = [query for query in queries.values() if query.lacks]
    assert 5 < len(lacking) < 25
    assert len(queries) == 40 + len(lacking)
    assert all(query.check is not None for query in queries.values())
    for query in lacking:
        assert query.group is not None
        whole = queries[query.group]
        assert (whole.lacks, whole.group) == (False, query.group)
        assert set(query.query.split()) <= set(whole.query.split())
    order = list(queries)
    first = lacking[0]
    assert order.index(first.query_id) == order.index(str(first.group)) + 1


def test_both_rules_are_chosen_and_written(gapped: Path, tmp_path: Path) -> None:
    out = tmp_path / "thresholds.json"
    shown = call("calibrate", gapped, "-o", out).output
    assert "deliberate scores more" in shown
    assert "asking scores more" in shown
    found = Thresholds.load(out)
    assert found.rule is not None
    assert found.missing is not None
    assert found.chosen_on["missing"]["lacking"] == sum(bool(q.lacks) for q in read_samples(gapped))
    assert "which scores nothing" in shown
    assert "samples must agree, else the task is delegated (by fold: " in shown
    assert "a step" not in shown.partition("\n")[0]
    assert "A model's own word is " in shown
    assert "with its questions answered" in call("report", gapped, "--answered").output
    told = json.loads(call("report", gapped, "--json").stdout)
    assert told["rule"]["samples"] == found.rule.samples
    assert told["asking"]["threshold"] == found.missing.threshold
    assert told["asking"]["rows"][0]["name"] == "ask"


def test_a_log_without_labels_says_what_to_collect_and_keeps_the_other_parts(
    gapped: Path, tmp_path: Path
) -> None:
    out, plain = tmp_path / "thresholds.json", tmp_path / "plain.jsonl"
    call("calibrate", gapped, "-o", out)
    before = Thresholds.load(out).missing
    collect(plain, "--limit", "20")
    told = call("calibrate", plain, "-o", out)
    assert "does not say which queries lack something" in told.stderr
    assert "asking scores more" not in told.output
    after = Thresholds.load(out)
    assert after.missing == before
    assert "missing" in after.chosen_on
    assert json.loads(call("report", plain, "--json").stdout)["asking"] is None


def test_that_a_models_word_was_not_logged_is_told_apart(gapped: Path, tmp_path: Path) -> None:
    out = tmp_path / "unchecked.jsonl"
    queries = read_samples(gapped)
    out.write_bytes(b"".join(sample_line(replace(query, check=None)) for query in queries))
    shown = call("report", out).output
    assert "own word was not logged for every query: collect --check logs it." in shown


@pytest.mark.parametrize(
    ("mean", "low", "high", "shown"),
    [
        (-6.92, -8.0, -5.0, "costs 7.9x (6.0x to 9.0x)"),
        (-0.03, -0.1, 0.04, "costs 1.03x (0.96x to 1.10x)"),
        (-0.0001, -0.0001, 0.5, "0.0% (0.0% to 50.0%)"),
        (0.25, -0.1, 0.5, "25.0% (-10.0% to 50.0%)"),
    ],
)
def test_what_costs_more_is_told_by_how_many_times(
    mean: float, low: float, high: float, shown: str
) -> None:
    assert told_saving(Measured(mean, Interval(low, high))) == shown
    assert told_saving(UNKNOWN) == "-"


def test_how_often_a_step_alone_was_delegated_has_a_column(tmp_path: Path) -> None:
    out = tmp_path / "steps.jsonl"
    collect(out, "--limit", "40", "--steps")
    shown = call("report", out, "--tolerance", "0").output
    assert "delegated  a step" in shown.partition("deliberate scores")[0]


def test_labels_of_one_kind_only_are_told_and_the_rest_is_calibrated(
    gapped: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole.jsonl"
    lines = [line for line in gapped.read_text().splitlines() if '"lacks": false' in line]
    whole.write_text("\n".join(lines) + "\n")
    told = call("calibrate", whole, "-o", tmp_path / "t.json")
    assert "note: when to ask first is not calibrated: asking: 40 of 40" in told.stderr
    assert Thresholds.load(tmp_path / "t.json").missing is None


def test_the_same_command_again_asks_only_what_is_left(gapped: Path, tmp_path: Path) -> None:
    out = tmp_path / "samples.jsonl"
    lines = gapped.read_text().splitlines(keepends=True)
    out.write_text("".join(lines[:20]) + lines[20][:50])
    setting = out.with_name("samples.jsonl.setting.json")
    setting.write_text(gapped.with_name(setting.name).read_text())
    told = collect(out, "--limit", "40", "--gaps", "0.5", "--check")
    assert "a last line that was cut off is taken away" in told.stderr
    assert f"{len(lines)} of {len(lines)} queries, 20 of which were there" in told.stderr
    # The simulated provider says the same to the same: nothing is lost, doubled or different.
    assert out.read_text() == gapped.read_text()
    again = collect(out, "--limit", "40", "--gaps", "0.5", "--check")
    assert f"{len(lines)} of which were there" in again.stderr
    assert out.read_text() == gapped.read_text()


def test_a_file_of_another_setting_is_let_alone(gapped: Path) -> None:
    before = gapped.read_bytes()
    words = ["collect", "-p", str(MATH), *NAMES, "-o", str(gapped), "--limit", "40", "--check"]
    other = CliRunner().invoke(app, words)
    assert isinstance(other.exception, ConfigError)
    assert "was made with gaps = 0.5, and now it is 0.0" in str(other.exception)
    assert gapped.read_bytes() == before


@pytest.mark.parametrize(
    ("setting", "why"),
    [(None, "is not there to say how it was made"), ("[1, 2]", "give --out another name")],
)
def test_a_file_of_which_nothing_says_how_it_was_made_is_let_alone(
    tmp_path: Path, setting: str | None, why: str
) -> None:
    out = tmp_path / "mine.jsonl"
    out.write_text("notes of mine\n")
    if setting is not None:
        out.with_name("mine.jsonl.setting.json").write_text(setting)
    done = CliRunner().invoke(app, ["collect", "-p", str(MATH), *NAMES, "-o", str(out)])
    assert isinstance(done.exception, ConfigError)
    assert why in str(done.exception)
    assert out.read_text() == "notes of mine\n"


def test_nothing_is_left_behind_where_nothing_was_logged(tmp_path: Path) -> None:
    out = tmp_path / "samples.jsonl"
    words: list[Any] = ["collect", "-p", MATH, "--cheap", "nobody", "--strong", "o3-mini"]
    done = CliRunner().invoke(app, [*map(str, words), "--limit", "2", "-o", str(out)])
    assert "nobody" in str(done.exception)
    assert "again to go on" not in done.stderr
    assert list(tmp_path.iterdir()) == []
    elsewhere = tmp_path / "no" / "folder" / "s.jsonl"
    done = CliRunner().invoke(app, ["collect", "-p", str(MATH), *NAMES, "-o", str(elsewhere)])
    assert isinstance(done.exception, LogError)


def test_where_nothing_can_be_cut_gaps_are_refused(tmp_path: Path) -> None:
    problems = tmp_path / "sums.jsonl"
    problems.write_text('{"question": "What is 17 + 25?", "answer": "42"}\n')
    words = ["collect", "-p", str(problems), *NAMES, "--gaps", "1", "-o", str(tmp_path / "s.jsonl")]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, ConfigError)
    assert "--gaps: nothing can be cut" in str(done.exception)


def test_the_help_shows_commands_that_are_there() -> None:
    told = call("collect", "--help").stdout
    assert "masrouter deliberate collect" in told
    assert "--gaps" in told
    assert "thresholds.json" in call("calibrate", "--help").stdout
    group = call("--help").stdout
    for command in get_group(app).commands.values():
        # What is left of 80 columns beside the longest name.
        assert not command.get_short_help_str(57).endswith("..."), command.name
    assert "collect -> report -> calibrate" in group
    assert "collect-match -> match" in group


def test_two_runs_on_one_file_do_not_pay_for_a_query_twice(gapped: Path) -> None:
    before = gapped.read_bytes()
    with gapped.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        done = CliRunner().invoke(app, [*AGAIN, "-o", str(gapped)])
    assert isinstance(done.exception, ConfigError)
    assert "another run is at work on" in str(done.exception)
    assert gapped.read_bytes() == before


def test_names_that_lead_elsewhere_now_are_another_setting(tmp_path: Path) -> None:
    out, names = tmp_path / "s.jsonl", tmp_path / "names.yaml"
    words: list[Any] = ["collect", "-p", MATH, "--cheap", "small", "--strong", "o3-mini"]
    words += ["--samples", "2", "--limit", "2", "--settings", names, "-o", out]
    names.write_text("aliases: {small: gpt-4o-mini}\n")
    call(*words)
    names.write_text("aliases: {small: gpt-4.1}\n")
    done = CliRunner().invoke(app, list(map(str, words)))
    assert isinstance(done.exception, ConfigError)
    assert "was made with settings = 'sha256 " in str(done.exception)


def test_plans_of_the_settings_may_use_what_the_catalog_adds(tmp_path: Path) -> None:
    names, roles = tmp_path / "names.yaml", tmp_path / "roles.yaml"
    roles.write_text("roles:\n  my_checker: {description: Checks it., prompt: Check it.}\n")
    names.write_text("plans:\n  pair: {debate: [my_checker@gpt-4o-mini, gpt-4o-mini]}\n")
    words: list[Any] = ["-p", MATH, "--cheap", "gpt-4o-mini", "--strong", "pair", "--limit", "2"]
    words += ["--samples", "2", "--settings", names, "--catalog", roles]
    assert "2 of 2 queries" in call("collect", *words, "-o", tmp_path / "s.jsonl").stderr


def test_a_problem_that_has_another_text_now_is_refused(tmp_path: Path) -> None:
    out, problems = tmp_path / "s.jsonl", tmp_path / "sums.jsonl"
    words = ["collect", "-p", str(problems), *NAMES, "-o", str(out)]
    line = '{"id": "sum", "question": "What is 17 + 2%d?", "answer": "4%d"}\n'
    problems.write_text(line % (5, 2))
    call(*words)
    problems.write_text(line % (6, 3))
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, ConfigError)
    assert "has another text than in" in str(done.exception)


def test_a_run_that_was_killed_before_its_first_query_is_gone_on_with(tmp_path: Path) -> None:
    out = tmp_path / "s.jsonl"
    out.touch()  # its setting was not written yet
    assert "2 of 2 queries" in collect(out, "--limit", "2").stderr
