"""What a subtask is credited with, and that a router learns from it."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import COST_LADDER, LADDER
from tests.delegation.episode_samples import decision, result

from masrouter.catalog import Catalog
from masrouter.delegation.episodes.credit import Only, credit, export, records
from masrouter.delegation.episodes.log import EpisodeLog, read_episodes
from masrouter.delegation.tasks import Grading, TaskError
from masrouter.encoder import HashingEncoder
from masrouter.errors import LogError
from masrouter.logs import read_logs
from masrouter.router import Router
from masrouter.types import Agent, Plan, Usage
from masrouter_train.config import ControllerConfig, CriticConfig, GateConfig, TrainConfig
from masrouter_train.fit import fit

GOOD, BAD = Grading(1.0, "tests"), Grading(0.0, "judge")


@pytest.fixture
def log(tmp_path: Path) -> EpisodeLog:
    return EpisodeLog(tmp_path / "episodes.jsonl")


def a_job_of_each_kind(log: EpisodeLog) -> str:
    """A graded subtask, one without a grade, a failed one, and one that was never run."""
    episode = log.open("job", dataset="jobs")
    log.add_result(episode, "graded", None, result("one", "graded", grading=BAD), kind="math")
    log.add_result(episode, "plain", "graded", result("two", "plain", decision=decision()))
    failed = TaskError("provider", "down")
    log.add_result(episode, "failed", None, result("three", "failed", error=failed, answer=None))
    refused = TaskError("unknown_model", "no such model")
    log.add_result(
        episode, "refused", None, result("four", "refused", plan=None, error=refused, answer=None)
    )
    log.finish(episode, GOOD)
    return episode.id


def test_own_grade_first_then_the_final_score_and_a_failure_has_neither(log: EpisodeLog) -> None:
    a_job_of_each_kind(log)
    (episode,) = read_episodes(log.path).episodes
    given = {node.id: credit(episode, node) for node in episode.nodes}
    assert (given["graded"].score, given["graded"].source) == (0.0, "judge")
    assert (given["plain"].score, given["plain"].source) == (1.0, "final:tests")
    assert (given["failed"].score, given["failed"].source) == (None, "none")
    assert [given[name].kind for name in ("graded", "plain", "failed")] == ["own", "final", "none"]


def test_the_final_score_reaches_every_depth_of_the_tree(log: EpisodeLog) -> None:
    episode = log.open()
    for depth in range(5):
        above = f"n{depth - 1}" if depth else None
        log.add_result(episode, f"n{depth}", above, result(f"q{depth}", f"n{depth}"))
    log.finish(episode, Grading(0.25, "human"))
    assert {(r.score, r.score_source) for r in records(log.path)} == {(0.25, "final:human")}


def test_an_episode_that_is_not_over_credits_only_own_grades(log: EpisodeLog) -> None:
    episode = log.open()
    log.add_result(episode, "a", None, result("q", "a"))
    log.add_result(episode, "b", None, result("r", "b"))
    log.grade(episode, "b", GOOD)
    assert [(r.score, r.score_source) for r in records(log.path)] == [
        (None, "none"),
        (1.0, "tests"),
    ]


def test_a_record_says_who_did_what_and_who_chose(log: EpisodeLog) -> None:
    episode = a_job_of_each_kind(log)
    graded, plain, failed = records(log.path)
    assert (graded.run_id, graded.dataset, graded.task) == (f"{episode}/graded", "jobs", "math")
    assert (graded.policy, plain.policy) == ("named:task", "router-1")
    assert plain.usage == Usage(10, 5, 0.002)
    assert failed.error == "provider: down"
    assert {r.propensity for r in (graded, plain, failed)} == {None}


def test_a_drawn_decision_keeps_its_propensity(log: EpisodeLog) -> None:
    episode = log.open()
    drawn = result("q", "n", decision=decision(propensity=0.25))
    log.add_result(episode, "n", None, drawn)
    assert [r.propensity for r in records(log.path)] == [0.25]


@pytest.mark.parametrize(
    ("only", "rows", "counts"),
    [("own", 1, (1, 0, 0, 2)), ("final", 1, (0, 1, 0, 2)), ("all", 3, (1, 1, 1, 0))],
)
@pytest.mark.parametrize("name", ["log.jsonl", "log.parquet"])
def test_an_export_holds_the_kind_of_scores_that_was_asked_for_and_counts_it(
    log: EpisodeLog, tmp_path: Path, only: Only, rows: int, counts: tuple[int, ...], name: str
) -> None:
    a_job_of_each_kind(log)
    done = export(log.path, tmp_path / name, only=only)
    assert (done.own, done.final, done.unscored, done.left_out) == counts
    assert done.not_run == 1
    logs = read_logs(tmp_path / name, strict=True)
    assert len(logs) == rows == done.rows
    sources = [record.score_source for record in logs if record.score is not None]
    assert {source: sources.count(source) for source in sources} == dict(done.sources)


def test_scores_of_several_sources_never_mix_unasked(log: EpisodeLog, tmp_path: Path) -> None:
    a_job_of_each_kind(log)
    with pytest.raises(
        LogError, match=r"'final:tests' \(1\), 'judge' \(1\).*--only own\|final\|all"
    ):
        export(log.path, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_scores_of_one_source_need_no_choice(log: EpisodeLog, tmp_path: Path) -> None:
    episode = log.open()
    log.add_result(episode, "n", None, result("q", "n", grading=GOOD))
    assert export(log.path, tmp_path / "out.jsonl").sources == {"tests": 1}


def test_what_is_no_record_of_schema_1_is_refused_by_the_file_that_holds_it(
    log: EpisodeLog, tmp_path: Path
) -> None:
    chosen = decision(propensity=0.5)
    log.add_result(log.open(), "n", None, result("q", "n", decision=chosen))
    log.path.write_text(log.path.read_text().replace('"propensity": 0.5', '"propensity": 0.0'))
    with pytest.raises(LogError, match=rf"^{log.path}: what would be row 1: propensity: expected"):
        export(log.path, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_nothing_to_export_is_said(log: EpisodeLog, tmp_path: Path) -> None:
    episode = log.open()
    with pytest.raises(LogError, match="nothing to export: 1 episodes with 0 subtasks"):
        export(log.path, tmp_path / "out.jsonl")
    log.add_result(episode, "n", None, result("q", "n"))
    with pytest.raises(LogError, match="only=own leaves out all"):
        export(log.path, tmp_path / "out.jsonl", only="own")


SMALL = Plan("cot", (Agent(None, "small"),))
LARGE = Plan("cot", (Agent(None, "large"),))
COST = {SMALL: 0.001, LARGE: 0.02}
CHANCE = {
    ("look", SMALL): 0.95,
    ("look", LARGE): 0.95,
    ("prove", SMALL): 0.15,
    ("prove", LARGE): 0.9,
}
WEIGHT = 10.0
QUIET = TrainConfig(
    encoder="hashing-32",
    critic=CriticConfig(ladder=LADDER, cost_ladder=COST_LADDER, folds=3),
    gate=GateConfig(nodes=4),
    controller=ControllerConfig(enabled=False),
)


def subtask(kind: str, luck: random.Random) -> str:
    noun = luck.choice(["river", "prime", "matrix", "comet", "graph", "verb", "tensor", "lemma"])
    number = luck.randrange(1000)
    if kind == "look":
        return f"Look up the page about {noun} {number} and copy its first line."
    return f"Prove the theorem about every {noun} of order {number}, with all the steps."


def play(log: EpisodeLog, jobs: int, luck: random.Random, *, small: float, own: bool) -> None:
    """Jobs of three subtasks, each given to the small model with a chance that heeds nothing; a
    job's score is the share of its subtasks that came out right."""
    for _ in range(jobs):
        episode = log.open(dataset="jobs")
        right = []
        for n in range(3):
            kind = luck.choice(["look", "prove"])
            plan = SMALL if luck.random() < small else LARGE
            right.append(float(luck.random() < CHANCE[kind, plan]))
            done = result(
                subtask(kind, luck),
                f"n{n}",
                plan=plan,
                grading=Grading(right[-1], "tests") if own else None,
                usage=Usage(50, 20, COST[plan]),
            )
            log.add_result(episode, f"n{n}", None, done)
        log.finish(episode, Grading(sum(right) / 3, "tests"))


def true_utility(router: Router, queries: list[tuple[str, str]]) -> float:
    chosen = router.route_batch([text for _, text in queries], cost_weight=WEIGHT)
    return float(
        np.mean(
            [
                CHANCE[kind, found.plan] - WEIGHT * COST[found.plan]
                for (kind, _), found in zip(queries, chosen, strict=True)
            ]
        )
    )


def learned(path: Path) -> Router:
    return fit(
        read_logs(path, strict=True), QUIET, catalog=Catalog.default(), encoder=HashingEncoder(32)
    )


@pytest.mark.parametrize("only", ["own", "final"])
def test_a_router_that_learned_from_credited_episodes_chooses_better(
    tmp_path: Path, only: Only
) -> None:
    """Before: a dozen jobs, nearly all done by the small model. After: these and 250 more."""
    luck = random.Random(3)
    log = EpisodeLog(tmp_path / "episodes.jsonl")
    play(log, 12, luck, small=0.9, own=only == "own")
    before = learned(export(log.path, tmp_path / "before.parquet", only=only).path)
    play(log, 250, luck, small=0.5, own=only == "own")
    after = learned(export(log.path, tmp_path / "after.parquet", only=only).path)
    queries = [(kind, subtask(kind, luck)) for kind in ("look", "prove") for _ in range(40)]
    best = np.mean([max(CHANCE[k, p] - WEIGHT * COST[p] for p in COST) for k, _ in queries])
    assert true_utility(after, queries) > true_utility(before, queries) + 0.1
    assert true_utility(after, queries) > best - 0.05
