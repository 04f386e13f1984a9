"""`masrouter delegations`: episodes shown, scored and exported."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.delegation.episode_samples import decision, result
from typer.testing import CliRunner, Result

from masrouter import cli_logs
from masrouter.cli_delegations import app
from masrouter.delegation.episodes.log import EpisodeLog, read_episodes
from masrouter.delegation.tasks import Grading, TaskError
from masrouter.errors import LogError
from masrouter.logs import read_logs
from masrouter.types import Usage


@pytest.fixture
def log(tmp_path: Path) -> EpisodeLog:
    log = EpisodeLog(tmp_path / "episodes.jsonl")
    first = log.open("Port the [bold]parser\x1b[31m", episode="aaa-1")
    log.add_result(
        first, "inner", "outer", result("read it", "inner", grading=Grading(0.0, "judge"))
    )
    log.add_result(first, "outer", None, result("port it", "outer", decision=decision()))
    log.finish(first, Grading(1.0, "tests"))
    second = log.open("Nothing came of it", episode="abb-2")
    error = TaskError("provider", "down")
    log.add_result(second, "n", None, result("try", "n", error=error, answer=None))
    return log


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_list_says_how_far_each_episode_is(log: EpisodeLog) -> None:
    done = run("show", log.path)
    assert done.exit_code == 0, done.output
    first, second = done.stdout.splitlines()
    assert first.startswith("aaa-1  2 subtasks, 0 failed, 1 graded, $0.004000, 1 by tests")
    assert second.startswith("abb-2  1 subtasks, 1 failed, 0 graded, $0.002000, no final score")
    assert "\x1b" not in done.output
    listed = json.loads(run("show", log.path, "--json").stdout)
    assert [each["episode"] for each in listed] == ["aaa-1", "abb-2"]


def test_the_source_of_a_score_cannot_drive_the_terminal(tmp_path: Path) -> None:
    log = EpisodeLog(tmp_path / "episodes.jsonl")
    episode = log.open("a", episode="aaa")
    log.finish(episode, Grading(1.0, "\x1b[2Jtests"))
    for shown in (run("show", log.path), run("show", log.path, "aaa")):
        assert "tests" in shown.output
        assert "\x1b" not in shown.output
    with pytest.raises(LogError) as refused:
        log.finish(episode, Grading(0.0, "\x1b[2Jjudge"))
    assert "\x1b" not in str(refused.value)


def test_one_episode_is_shown_as_its_tree_with_what_each_subtask_is_credited(
    log: EpisodeLog,
) -> None:
    done = run("show", log.path, "aa")
    assert done.exit_code == 0, done.output
    whole = " ".join(done.stdout.split())
    assert whole.index("outer cot(small)") < whole.index("inner cot(small)")
    assert "1 by final:tests" in whole
    assert "0 by judge" in whole
    assert "[bold]parser" in whole
    shown = json.loads(run("show", log.path, "aaa-1", "--json").stdout)
    assert [node["credit"]["kind"] for node in shown["nodes"]] == ["own", "final"]


@pytest.mark.parametrize(("name", "why"), [("a", "2 episodes"), ("zzz", "no episode")])
def test_a_name_that_means_no_one_episode_is_refused(log: EpisodeLog, name: str, why: str) -> None:
    done = run("show", log.path, name)
    assert isinstance(done.exception, LogError)
    assert why in str(done.exception)


def test_what_is_exported_passes_logs_check(log: EpisodeLog, tmp_path: Path) -> None:
    for only, rows in (("own", 1), ("final", 1), ("all", 3)):
        out = tmp_path / f"{only}.parquet"
        done = run("export", log.path, out, "--only", only)
        assert done.exit_code == 0, done.output
        assert f"{rows} subtasks" in done.stdout
        assert len(read_logs(out, strict=True)) == rows
        checked = CliRunner().invoke(cli_logs.app, ["check", str(out), "--strict"])
        assert checked.exit_code == 0, checked.output
    assert "1 with a score of their own, 1 with their episode's, 1 with none" in done.stdout
    assert "warning: scores of several sources stand in one log" in " ".join(done.stderr.split())


def test_without_a_choice_scores_of_several_sources_are_refused(
    log: EpisodeLog, tmp_path: Path
) -> None:
    done = run("export", log.path, tmp_path / "out.jsonl")
    assert isinstance(done.exception, LogError)
    assert "--only own|final|all" in str(done.exception)


def test_counts_come_as_json(log: EpisodeLog, tmp_path: Path) -> None:
    done = run("export", log.path, tmp_path / "out.jsonl", "--only", "final", "--json")
    told = json.loads(done.stdout)
    assert (told["rows"], told["final"], told["left_out"]) == (1, 1, 2)
    assert told["sources"] == {"final:tests": 1}


def test_a_score_that_is_told_later_stays(log: EpisodeLog) -> None:
    done = run("score", log.path, "abb", "--score", "0.5", "--source", "human")
    assert done.exit_code == 0, done.output
    again = run("score", log.path, "abb", "--score", "0.6", "--source", "human")
    assert "already, which stays" in str(again.exception)
    graded = run("score", log.path, "aaa", "--node", "outer", "--score", "1", "--source", "human")
    assert graded.exit_code == 0, graded.output
    first, second = read_episodes(log.path).episodes
    assert second.grading == Grading(0.5, "human")
    assert first.under(None)[0].grading == Grading(1.0, "human")


def test_a_subtask_is_scored_by_the_end_of_its_id_where_only_one_has_it(tmp_path: Path) -> None:
    log = EpisodeLog(tmp_path / "episodes.jsonl")
    episode = log.open("a", episode="aaa")
    for node in ("b1/1/look-up", "b1/2/sum", "b2/1/sum"):
        log.add_result(episode, node, None, result(node, node))
    scores = ("--score", "1", "--source", "human")
    assert run("score", log.path, "aaa", "--node", "look-up", *scores).exit_code == 0
    (graded,) = [n for n in read_episodes(log.path).episodes[0].nodes if n.grading is not None]
    assert graded.id == "b1/1/look-up"
    for name, why in (("sum", "2 subtasks 'sum'"), ("up", "no subtask 'up'")):
        refused = run("score", log.path, "aaa", "--node", name, *scores)
        assert f"{why}; there are b1/1/look-up, b1/2/sum, b2/1/sum" in str(refused.exception)


def test_what_a_parent_spent_is_counted_once_and_it_is_told_apart(tmp_path: Path) -> None:
    log = EpisodeLog(tmp_path / "episodes.jsonl")
    episode = log.open("a", episode="aaa")
    log.add_result(episode, "leaf", "boss", result("b", "leaf", usage=Usage(1, 1, 0.001)))
    boss = replace(result("a", "boss", plan=None, usage=Usage(9, 9, 0.003)), models=("big-2026",))
    log.add_result(episode, "boss", None, boss)
    log.add_result(episode, "other", None, result("c", "other", usage=Usage(1, 1, 0.002)))
    log.set_aside(episode, "other")
    log.finish(episode, Grading(1.0, "human"))
    assert "$0.005000" in run("show", log.path).stdout
    shown = " ".join(run("show", log.path, "aaa").stdout.split())
    assert "boss parent big-2026 $0.003000" in shown
    assert "unused, no score" in shown
    done = json.loads(
        run("export", log.path, tmp_path / "o.jsonl", "--only", "all", "--json").stdout
    )
    assert (done["rows"], done["final"], done["unscored"]) == (2, 1, 1)
    assert (done["parents"], done["not_run"]) == (1, 0)


def test_an_export_of_nothing_says_which_scores_there_are(log: EpisodeLog, tmp_path: Path) -> None:
    only = EpisodeLog(tmp_path / "graded.jsonl")
    episode = only.open("a", episode="aaa")
    only.add_result(episode, "n", None, result("a", "n", grading=Grading(1.0, "tests")))
    only.finish(episode, Grading(1.0, "human"))
    refused = run("export", only.path, tmp_path / "out.jsonl", "--only", "final")
    assert "1 have grades of their own (only=own), 0 the score of their" in str(refused.exception)


def test_a_line_that_was_cut_off_is_a_warning(log: EpisodeLog) -> None:
    with log.path.open("ab") as file:
        file.write(b'{"event": "fini')
    done = run("show", log.path)
    assert done.exit_code == 0
    assert "no whole event" in " ".join(done.stderr.split())
