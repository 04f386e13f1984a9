"""Episodes on the disk: a tree of results with one final score, which a kill does not damage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.delegation.episode_samples import decision, result

from masrouter.delegation.episodes.events import (
    Finished,
    Graded,
    Node,
    Opened,
    Result,
    read_event,
    write_event,
)
from masrouter.delegation.episodes.log import Episode, EpisodeLog, read_episodes
from masrouter.delegation.tasks import Grading, TaskError
from masrouter.errors import LogError
from masrouter.types import Agent, Plan, Usage

GOOD, BAD = Grading(1.0, "tests"), Grading(0.0, "tests")


@pytest.fixture
def log(tmp_path: Path) -> EpisodeLog:
    return EpisodeLog(tmp_path / "kept" / "episodes.jsonl")


def only(log: EpisodeLog) -> Episode:
    read = read_episodes(log.path)
    assert read.cut_off == ()
    (episode,) = read.episodes
    return episode


def test_an_episode_reads_back_as_the_tree_that_was_written(log: EpisodeLog) -> None:
    episode = log.open("Port the parser", dataset="porting")
    log.add_result(episode, "b", "a", result("inner", "b", grading=BAD))
    log.add_result(episode, "c", "a", result("inner too", "c"))
    log.add_result(episode, "a", None, result("outer", "a", decision=decision()), kind="code")
    log.finish(episode, GOOD)
    found = only(log)
    assert (found.id, found.goal, found.dataset) == (episode.id, "Port the parser", "porting")
    assert found.grading == GOOD
    assert [node.id for node in found.under(None)] == ["a"]
    assert [node.id for node in found.under("a")] == ["b", "c"]
    assert found.under("b") == ()
    (outer,) = found.under(None)
    assert (outer.query, outer.kind, outer.plan) == ("outer", "code", result("", "").plan)
    assert outer.decision is not None
    assert outer.decision.expected_score == decision().expected_score
    assert found.under("a")[0].grading == BAD


def test_what_is_kept_of_a_result_is_all_but_its_answer(log: EpisodeLog) -> None:
    episode = log.open()
    failed = result(
        "q", "n", error=TaskError("provider", "the provider is down"), answer=None,
        usage=Usage(7, None, None),
    )  # fmt: skip
    log.add_result(episode, "n", None, failed, seed=3)
    log.add_result(episode, "m", None, result("q", "m", answer="THE-SECRET-ANSWER"))
    node, other = only(log).nodes
    assert node.error == "provider: the provider is down"
    assert (node.usage, node.seed) == (failed.usage, 3)
    assert other.usage == result("", "").usage
    assert "THE-SECRET-ANSWER" not in log.path.read_text()
    assert log.path.stat().st_mode & 0o077 == 0


def test_what_the_team_was_given_is_the_query(log: EpisodeLog) -> None:
    episode = log.open()
    log.add_result(episode, "n", None, result("goal", "n"), query="goal\n\n<context>...</context>")
    assert only(log).nodes[0].query == "goal\n\n<context>...</context>"


def test_finishing_twice_alike_does_nothing_and_otherwise_is_refused(log: EpisodeLog) -> None:
    episode = log.open()
    log.finish(episode, GOOD)
    before = log.path.read_bytes()
    log.finish(episode, GOOD)
    EpisodeLog(log.path).finish(episode.id, GOOD)  # another process knows it by its id
    assert log.path.read_bytes() == before
    for writer in (log, EpisodeLog(log.path)):
        with pytest.raises(LogError, match=r"has score 1 \('tests'\) already, which stays"):
            writer.finish(episode, Grading(1.0, "judge"))
    assert only(log).grading == GOOD


def test_a_result_or_grade_is_kept_once_and_another_is_refused(log: EpisodeLog) -> None:
    episode = log.open()
    log.add_result(episode, "n", None, result("q", "n"))
    log.grade(episode, "n", GOOD)
    before = log.path.read_bytes()
    log.add_result(episode, "n", None, result("q", "n"))
    log.grade(episode, "n", GOOD)
    assert log.path.read_bytes() == before
    with pytest.raises(LogError, match="'n' has another result already"):
        log.add_result(episode, "n", None, result("another", "n"))
    with pytest.raises(LogError, match="refused: 0"):
        log.grade(episode, "n", BAD)
    assert only(log).nodes[0].grading == GOOD


def test_opening_an_id_again_goes_on_with_it(log: EpisodeLog) -> None:
    first = log.open("goal", episode="job-1")
    assert log.open("goal", episode="job-1").id == first.id
    with pytest.raises(LogError, match="another goal"):
        log.open("another", episode="job-1")
    assert len(read_episodes(log.path).episodes) == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda log, e: log.finish("nobody", GOOD), "no episode 'nobody'; open it first"),
        (lambda log, e: log.finish(e, Grading(1.5, "tests")), "score: expected a finite number"),
        (lambda log, e: log.finish(e, Grading(float("nan"), "tests")), "score"),
        (lambda log, e: log.finish(e, Grading(1.0, "")), "source: expected a non-empty text"),
        (lambda log, e: log.grade(e, "nothing", GOOD), "no node 'nothing'"),
        (lambda log, e: log.add_result(e, "n", "n", result("q", "n")), "under itself"),
        (lambda log, e: log.add_result(e, "", None, result("q", "n")), "node: expected"),
        (lambda log, e: log.add_result(e, "x" * 201, None, result("q", "n")), "at most 200"),
        (lambda log, e: log.open(episode="two\nlines"), "printable"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_not_written(
    log: EpisodeLog, wrong: Any, message: str
) -> None:
    episode = log.open()
    before = log.path.read_bytes()
    with pytest.raises(LogError, match=message):
        wrong(log, episode)
    assert log.path.read_bytes() == before


def test_nodes_cannot_stand_in_a_circle(log: EpisodeLog) -> None:
    episode = log.open()
    log.add_result(episode, "a", "c", result("q", "a"))
    log.add_result(episode, "b", "a", result("q", "b"))
    with pytest.raises(LogError, match="'c' would stand under itself"):
        log.add_result(episode, "c", "b", result("q", "c"))


def test_a_tree_that_is_absurdly_deep_is_refused(log: EpisodeLog) -> None:
    log.open(episode="deep")
    lines = []
    for n in range(1002):
        node = Node.of(f"n{n}", f"n{n - 1}" if n else None, result("q", f"n{n}"))
        lines.append(json.dumps(write_event(Result("deep", node))))
    with log.path.open("a") as file:
        file.write("\n".join(lines) + "\n")
    with pytest.raises(LogError, match=r"jsonl:1002: under: node 'n1000' stands more than 1000"):
        read_episodes(log.path)


def test_a_child_whose_parent_never_ended_stands_under_the_episode(log: EpisodeLog) -> None:
    episode = log.open()
    log.add_result(episode, "child", "killed before its end", result("q", "child"))
    assert [node.id for node in only(log).under(None)] == ["child"]


def test_a_line_that_was_cut_off_is_said_and_costs_no_other(log: EpisodeLog) -> None:
    episode = log.open()
    log.add_result(episode, "a", None, result("q", "a"))
    with log.path.open("ab") as file:
        file.write(b'{"event": "result", "episode": "')  # what a kill leaves
    read = read_episodes(log.path)
    assert [node.id for node in read.episodes[0].nodes] == ["a"]
    (said,) = read.cut_off
    assert said.startswith(f"{log.path}:3: no whole event")
    for writer, node in ((log, "b"), (EpisodeLog(log.path), "c")):
        writer.add_result(episode, node, None, result("q", node))
    read = read_episodes(log.path)
    assert [node.id for node in read.episodes[0].nodes] == ["a", "b", "c"]
    assert len(read.cut_off) == 1


def test_a_line_that_lacks_only_its_end_counts(log: EpisodeLog) -> None:
    episode = log.open()
    log.finish(episode, GOOD)
    log.path.write_bytes(log.path.read_bytes().removesuffix(b"\n"))
    with pytest.raises(LogError, match="which stays"):
        EpisodeLog(log.path).finish(episode, BAD)
    EpisodeLog(log.path).add_result(episode, "late", None, result("q", "late"))
    assert only(log).grading == GOOD
    assert [node.id for node in only(log).nodes] == ["late"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"event": "closed"}, "event: expected opened, result, graded, unused or finished"),
        ({"event": "finished", "score": 2}, "score: expected a finite number from 0 to 1"),
        ({"event": "finished", "score": True}, "score"),
        ({"event": "finished", "episode": "another"}, "'another' was never opened"),
        ({"event": "finished", "note": "hi"}, "note: unknown key"),
        ({"event": "graded", "node": "none"}, "'none' has no result yet"),
        ({"event": "opened", "goal": "g", "dataset": "d"}, "opened twice"),
        ([1, 2], "expected an object"),
        ("text", "expected an object"),
    ],
)
def test_what_is_no_event_is_refused_by_file_and_line(
    log: EpisodeLog, line: Any, message: str
) -> None:
    episode = log.open()
    whole = {"episode": episode.id, "score": 1, "source": "tests", "time": "2026-01-01T00:00:00Z"}
    if isinstance(line, dict):
        extra = {"score", "source"} if line["event"] == "opened" else set()
        line = {k: v for k, v in whole.items() if k not in extra} | line
    with log.path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(LogError, match=rf"episodes\.jsonl:2: .*{message}"):
        read_episodes(log.path)
    with pytest.raises(LogError, match=rf"episodes\.jsonl:2: .*{message}"):
        EpisodeLog(log.path).finish(episode, GOOD)


def test_a_result_that_was_tampered_with_is_refused_by_its_field(log: EpisodeLog) -> None:
    episode = log.open()
    log.add_result(episode, "n", None, result("q", "n", decision=decision(), grading=GOOD))
    first, line = log.path.read_text().splitlines()
    data = json.loads(line)
    wrong: list[tuple[str, Any]] = [
        ("plan", {"topology": "io", "agents": []}), ("plan", "io"), ("cost_usd", -1),
        ("latency_s", None), ("agents", [[1]]), ("agents", [[1, 2], [3, 4], [5, 6]]),
        ("asked_by", "the devil"), ("seed", 2**70), ("models", "m"), ("decision", {}),
        ("grading", {"score": 1.0}), ("query", 3), ("prompt_tokens", 1.5), ("under", "n"),
    ]  # fmt: skip
    for key, value in wrong:
        log.path.write_text(f"{first}\n{json.dumps(data | {key: value})}\n")
        with pytest.raises(LogError, match=rf"jsonl:2: {key}"):
            read_episodes(log.path)


def test_a_file_that_is_missing_or_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="cannot be read: No such file"):
        read_episodes(tmp_path / "none.jsonl")
    (tmp_path / "file").touch()
    with pytest.raises(LogError, match="cannot be written"):
        EpisodeLog(tmp_path / "file" / "episodes.jsonl").open()


texts = st.text(max_size=30)
some = st.text("abc/-é", min_size=1, max_size=8)
amounts = st.floats(0, 1e6, allow_nan=False)
counts = st.none() | st.integers(0, 10**9)
gradings = st.builds(Grading, st.floats(0, 1), some)
plans = st.builds(
    Plan, some, st.lists(st.builds(Agent, st.none() | some, some), min_size=1, max_size=3)
)
nodes = st.builds(
    Node,
    id=some,
    under=st.none() | some,
    query=texts,
    plan=st.none() | plans,
    asked=st.none() | some,
    asked_by=st.sampled_from((None, "task", "call", "default", "parent")),
    decision=st.none(),
    models=st.lists(some).map(tuple),
    usage=st.builds(Usage, counts, counts, st.none() | amounts),
    agent_usage=st.just(()),
    latency_s=amounts,
    error=st.none() | some,
    grading=st.none() | gradings,
    kind=st.none() | some,
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    time=st.none() | some,
)
events = (
    st.builds(Opened, some, texts, some, some)
    | st.builds(Result, some, nodes)
    | st.builds(Graded, some, some, gradings, some)
    | st.builds(Finished, some, gradings, some)
)


@settings(max_examples=200, deadline=None)
@given(events)
def test_every_event_reads_back_unchanged(event: Any) -> None:
    assert read_event(json.loads(json.dumps(write_event(event)))) == event


def test_half_a_surrogate_pair_from_a_provider_does_not_stop_the_log(log: EpisodeLog) -> None:
    episode = log.open("goal \ud800")
    log.add_result(episode, "n", None, replace(result("q \udfff", "n"), models=("m\ud800",)))
    assert only(log).nodes[0].query == "q ?"


def test_threads_and_writers_share_a_file(log: EpisodeLog) -> None:
    episode = log.open()
    writers = [log, EpisodeLog(log.path)]

    def add(n: int) -> None:
        writers[n % 2].add_result(episode, f"n{n}", None, result("q", f"n{n}"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(60)))
    assert {node.id for node in only(log).nodes} == {f"n{n}" for n in range(60)}


WRITER = """
import sys
from tests.delegation.episode_samples import result
from masrouter.delegation.episodes.log import EpisodeLog
log = EpisodeLog(sys.argv[1])
episode = log.open("a long job", episode=sys.argv[2])
n = 0
while True:
    log.add_result(episode, f"n{n}", None, result("q" * 50_000, f"n{n}"))
    print(n, flush=True)
    n += 1
"""


def test_a_kill_loses_no_result_that_was_acknowledged(tmp_path: Path) -> None:
    """Several kills, each while lines of 50 kB are being written; the last ones are checked."""
    path = tmp_path / "episodes.jsonl"
    for round_ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), f"job-{round_}"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 5 + 7 * round_:
                break
        os.kill(process.pid, signal.SIGKILL)
        acknowledged = [int(line), *map(int, process.stdout.read().split())]
        process.wait()
        process.stdout.close()
        found = {e.id: e for e in read_episodes(path).episodes}[f"job-{round_}"]
        assert {f"n{n}" for n in range(max(acknowledged) + 1)} <= {node.id for node in found.nodes}
    log = EpisodeLog(path)
    log.finish("job-0", GOOD)
    read = read_episodes(path)
    assert [episode.id for episode in read.episodes] == ["job-0", "job-1", "job-2"]
    assert read.episodes[0].grading == GOOD


def test_what_was_set_aside_stays_so_and_only_what_is_there_can_be(tmp_path: Path) -> None:
    log = EpisodeLog(tmp_path / "episodes.jsonl")
    episode = log.open("a")
    log.add_result(episode, "n", None, result("a", "n"))
    log.set_aside(episode, "n")
    size = log.path.stat().st_size
    log.set_aside(episode.id, "n")
    assert log.path.stat().st_size == size
    (node,) = read_episodes(log.path).episodes[0].nodes
    assert node.unused
    with pytest.raises(LogError, match="has no node 'm'"):
        log.set_aside(episode, "m")
