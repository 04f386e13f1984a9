"""Matching calibrated on outcomes: what both sides gave, and the rule that is chosen on it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.delegation.scripted import ScriptedModel

from masrouter.delegation.calibration.matching import (
    MatchingRow,
    calibrate_matching,
)
from masrouter.delegation.calibration.matching_outcomes import (
    collect_matching,
    matched_requests,
    only_other_plan,
)
from masrouter.delegation.delegator import Delegator
from masrouter.delegation.episodes.credit import export
from masrouter.delegation.episodes.log import EpisodeLog
from masrouter.delegation.query import task_query
from masrouter.delegation.tasks import DelegationError, Grading, Task
from masrouter.delegation.workers.matching import MatchingRule, match_workers
from masrouter.delegation.workers.worker import Worker
from masrouter.encoder import HashingEncoder
from masrouter.errors import ConfigError, EvaluationError
from masrouter.logs import Logs, read_logs
from masrouter.types import Agent, LogRecord, Plan, Usage

ENCODER = HashingEncoder(256)
SHOUTER = Worker(
    name="shouter", description="write a text in capital letters", run=str.upper, usd_per_call=0.0
)
COUNTER = Worker(
    name="counter", description="count the characters of a text", run=lambda text: str(len(text)),
    usd_per_call=0.001,
)  # fmt: skip
WORKERS = (SHOUTER, COUNTER)
SMALL = Plan("cot", (Agent(None, "small"),))


def record(
    query: str, plan: Plan, score: float | None, cost: float | None = 0.0, **more: Any
) -> LogRecord:
    made = LogRecord(
        run_id=f"{query}/{plan}", query_id=query, query=query, dataset="d", plan=plan, score=score,
        score_source="tests", usage=Usage(None, None, cost),
    )  # fmt: skip
    return replace(made, **more)


def pairs(count: int = 60, seed: int = 0) -> list[LogRecord]:
    """A worker is right where a request says what it is for; the model is right of other ones."""
    numbers = np.random.default_rng(seed)
    made = []
    for n in range(count):
        own = n % 2 == 0
        words = " ".join(f"w{numbers.integers(500)}" for _ in range(4 if own else 5))
        text = f"write a text in capital letters {words}" if own else f"{words} solve this {n}"
        (match,) = match_workers([text], WORKERS, ENCODER, rule=ANY)
        worker = next(one for one in WORKERS if one.name == match.nearest)
        made.append(record(text, worker.plan, float(own), 0.0))
        made.append(record(text, SMALL, 0.5 if own else 1.0, 0.01))
    return made


ANY = MatchingRule(0.0, 0.0, ENCODER.identity)


class TestCollecting:
    def tasks(self) -> list[Task]:
        return [
            Task("write this text in capital letters", context="abc", grade=graded("ABC")),
            Task("count its characters", context="abcd", grade=graded("4")),
        ]

    def test_each_task_is_done_by_its_nearest_worker_and_otherwise(self) -> None:
        llm = ScriptedModel({"small": "ABC"})
        delegator = Delegator(llm, workers=WORKERS)
        met: list[Sequence[LogRecord]] = []
        found = asyncio.run(
            collect_matching(
                self.tasks(), WORKERS, ENCODER, delegator=delegator, otherwise="small",
                on_request=met.append,
            )
        )  # fmt: skip
        assert [(str(one.plan), one.score) for one in found] == [
            ("io(shouter)", 1.0), ("cot(small)", 1.0), ("io(counter)", 1.0), ("cot(small)", 0.0),
        ]  # fmt: skip
        assert found[0].query == task_query("write this text in capital letters", "abc")
        assert found[0].query_id == found[1].query_id != found[2].query_id
        assert sorted(map(len, met)) == [2, 2]
        assert {one for pair in met for one in pair} == set(found)
        assert len({one.run_id for one in found}) == 4
        read = matched_requests(
            Logs.from_records(found, source="here"), WORKERS, ENCODER, otherwise="small"
        )
        assert [(one.nearest, one.request) for one in read] == [
            ("shouter", "write this text in capital letters"),
            ("counter", "count its characters"),
        ]
        assert [(one.worker.score, one.otherwise.score) for one in read] == [(1, 1), (1, 0)]
        assert read[1].worker.cost_usd == 0.001

    def test_a_log_of_episodes_holds_the_same_runs(self, tmp_path: Path) -> None:
        log = EpisodeLog(tmp_path / "episodes.jsonl")
        delegator = Delegator(ScriptedModel({"small": "ABC"}), workers=WORKERS, episodes=log)
        found = asyncio.run(
            collect_matching(
                self.tasks(), WORKERS, ENCODER, delegator=delegator, otherwise="small"
            )
        )  # fmt: skip
        exported = export(log.path, tmp_path / "log.jsonl")
        assert (exported.rows, exported.own) == (4, 4)
        rows = read_logs(tmp_path / "log.jsonl", strict=True)
        assert sorted((r.query_id, str(r.plan), r.score) for r in rows) == sorted(
            (r.query_id, str(r.plan), r.score) for r in found
        )

    def test_a_worker_that_fails_is_a_wrong_answer_and_says_so(self, tmp_path: Path) -> None:
        broken = replace(SHOUTER, run=lambda text: str(1 / 0), usd_per_call=0.5)
        delegator = Delegator(ScriptedModel({"small": "ABC"}), workers=[broken])
        found = asyncio.run(
            collect_matching(
                self.tasks()[:1], [broken], ENCODER, delegator=delegator, otherwise="small"
            )
        )  # fmt: skip
        assert found[0].score is None
        assert "ZeroDivisionError" in str(found[0].error)
        (read,) = matched_requests(found, [broken], ENCODER, otherwise="small")
        assert (read.worker.score, read.worker.failed, read.worker.cost_usd) == (0.0, 1, 0.5)
        assert read.worker.refused == 1.0

    def test_what_is_refused_is_raised(self) -> None:
        delegator = Delegator(ScriptedModel({"small": "ABC"}), workers=[SHOUTER])

        def collected(tasks: list[Task], workers: Sequence[Worker], otherwise: str) -> None:
            asyncio.run(
                collect_matching(
                    tasks, workers, ENCODER, delegator=delegator, otherwise=otherwise
                )
            )  # fmt: skip

        with pytest.raises(DelegationError, match="smal"):
            collected(self.tasks(), [SHOUTER], "smal")
        with pytest.raises(ConfigError, match="no worker 'counter'"):
            collected(self.tasks(), WORKERS, "small")
        with pytest.raises(ConfigError, match="needs a grader"):
            collected([Task("x")], [SHOUTER], "small")
        cannot = [replace(self.tasks()[0], grade=lambda answer: None)]
        with pytest.raises(ConfigError, match="gave no grade"):
            collected(cannot, [SHOUTER], "small")


class TestReading:
    def read(self, *records: LogRecord, otherwise: str = "small") -> Any:
        return matched_requests(records, WORKERS, ENCODER, otherwise=otherwise)

    def test_runs_of_one_plan_count_by_their_mean(self) -> None:
        first = record("write a text", SHOUTER.plan, 1.0, 0.0)
        again = record("write a text", SHOUTER.plan, 0.0, 0.02, run_id="again")
        (read,) = self.read(first, again, record("write a text", SMALL, 1.0, 0.01))
        assert (read.worker.score, read.worker.cost_usd) == (0.5, 0.01)

    def test_what_a_worker_refuses_is_tried_by_the_other_at_the_cost_of_both(self) -> None:
        refused = {"error": "worker: worker 'shouter': ValueError: no", "run_id": "again"}
        (read,) = self.read(
            record("write a text", SHOUTER.plan, 1.0, 0.0),
            record("write a text", SHOUTER.plan, None, 0.02, **refused),
            record("write a text", SMALL, 0.5, 0.01),
        )
        assert read.tried(fall_back=False) == read.worker
        tried = read.tried(fall_back=True)
        assert (read.worker.score, tried.score) == (0.5, 0.75)
        assert tried.cost_usd == pytest.approx((0.0 + 0.02 + 0.01) / 2)

    @pytest.mark.parametrize("error", ["budget: used up", "deadline: 3 s", "provider: no calls"])
    def test_nobody_is_asked_after_an_error_that_is_not_the_workers(self, error: str) -> None:
        (read,) = self.read(
            record("write a text", SHOUTER.plan, None, 0.02, error=error),
            record("write a text", SMALL, 1.0, 0.01),
        )
        assert (read.worker.failed, read.worker.refused) == (1, 0.0)
        assert read.tried(fall_back=True) == read.worker

    def test_runs_of_other_plans_and_queries_are_left_out(self) -> None:
        other = Plan("debate", (Agent("a", "small"), Agent("b", "large")))
        read = self.read(
            record("write a text", SHOUTER.plan, 1.0), record("write a text", SMALL, 1.0),
            record("write a text", other, 0.0), record("another", other, 0.0),
        )  # fmt: skip
        assert [one.query_id for one in read] == ["write a text"]

    @pytest.mark.parametrize(
        ("lost", "why"),
        [
            (0, r"'write a text' .*nearest is the worker 'shouter', .* no run of io\(shouter\);"),
            (1, r"no run of cot\(small\); hand this request out .*1 of 2 requests lack a run"),
        ],
    )
    def test_a_lacking_outcome_is_named(self, lost: int, why: str) -> None:
        records = [record("write a text", SHOUTER.plan, 1.0), record("write a text", SMALL, 1.0)]
        del records[lost]
        whole = [record("write it", SHOUTER.plan, 1.0), record("write it", SMALL, 1.0)]
        with pytest.raises(EvaluationError, match=why):
            self.read(*records, *whole)

    @pytest.mark.parametrize(
        ("change", "why"),
        [
            ({"score": None}, "was not graded"),
            ({"usage": Usage()}, "nobody knows what run"),
            ({"score": None, "error": "provider: down", "usage": Usage()}, "nobody knows"),
        ],
    )
    def test_an_unknown_outcome_is_named(self, change: Any, why: str) -> None:
        bad = replace(record("write a text", SMALL, 1.0), **change)
        with pytest.raises(EvaluationError, match=f"'write a text' .*: .*{why}"):
            self.read(record("write a text", SHOUTER.plan, 1.0), bad)

    def test_otherwise_is_a_plan_or_the_model_of_one(self) -> None:
        io = Plan("io", (Agent(None, "small"),))
        runs = [record("write a text", plan, 1.0) for plan in (SHOUTER.plan, SMALL, io)]
        assert self.read(*runs, otherwise="cot(small)")[0].otherwise.score == 1.0
        with pytest.raises(EvaluationError, match=r"may be cot\(small\) or io\(small\); say which"):
            self.read(*runs)
        with pytest.raises(EvaluationError, match="no run of 'smal'; did you mean 'small'"):
            self.read(*runs[:2], otherwise="smal")
        several = r"no run of 'tier'; expected one of cot\(small\), io\(small\); the log names"
        with pytest.raises(EvaluationError, match=several):
            self.read(*runs, otherwise="tier")
        with pytest.raises(EvaluationError, match=r"say which of cot\(small\), io\(small\); the"):
            only_other_plan(runs, WORKERS)
        with pytest.raises(EvaluationError, match="has workers' runs alone"):
            only_other_plan(runs[:1], WORKERS)
        assert only_other_plan(runs[:2], WORKERS) == "small"


class TestCalibration:
    def test_a_rule_that_tells_requests_apart_is_found_and_judged_on_others(self) -> None:
        found = calibrate_matching(pairs(), WORKERS, ENCODER, otherwise="small", resamples=200)
        rows = {row.name: row for row in found.rows}
        assert [row.name for row in found.rows] == ["match", "nearest", "never", "length", "best"]
        assert rows["best"].score.mean == 1.0
        assert rows["match"].score.mean >= 0.9
        assert rows["nearest"].score.mean == 0.5
        assert rows["never"].score.mean == 0.75
        assert rows["match"].cost_usd.mean < rows["never"].cost_usd.mean
        assert rows["never"].cost_usd.mean == pytest.approx(0.01)
        against = {one.name: one for one in found.against}
        assert against["never"].score.interval.low > 0
        assert against["never"].cost_usd.interval.high < 0
        assert found.requests == 60
        assert len(found.chosen) == 5
        assert found.rule.is_for(ENCODER)
        matched = match_workers(
            ["write a text in capital letters w1 w2 w3 w4", "w1 w2 w3 solve this"], WORKERS,
            ENCODER, rule=found.rule,
        )  # fmt: skip
        assert [one.worker for one in matched] == ["shouter", None]
        json.dumps(found.to_json(), allow_nan=False)

    def test_nothing_is_matched_where_workers_are_worth_nothing(self) -> None:
        useless = [
            replace(one, score=0.0, usage=Usage(None, None, 0.01)) if one.plan != SMALL else one
            for one in pairs()
        ]
        found = calibrate_matching(useless, WORKERS, ENCODER, otherwise="small", resamples=50)
        rows = {row.name: row for row in found.rows}
        assert rows["match"].matched == rows["length"].matched == 0.0
        assert found.length == 0
        (none,) = match_workers([SHOUTER.description], WORKERS, ENCODER, rule=found.rule)
        assert none.worker is None

    def test_a_dollar_may_be_worth_more_than_a_score(self) -> None:
        found = calibrate_matching(
            pairs(), WORKERS, ENCODER, otherwise="small", cost_weight=1000.0, resamples=50
        )
        rows = {row.name: row for row in found.rows}
        # 0.01 US$ a request are worth more than any score: a worker is free.
        assert rows["match"].matched > 0.9
        assert found.tolerance is None

    def test_workers_that_refuse_lose_nothing_where_another_is_asked_next(self) -> None:
        refusing = [
            replace(one, score=None, error="worker: no") if one.score == 0.0 else one
            for one in pairs()
        ]

        def rows(fall_back: bool) -> dict[str, MatchingRow]:
            found = calibrate_matching(
                refusing, WORKERS, ENCODER, otherwise="small", fall_back=fall_back, resamples=50
            )
            assert found.fall_back is found.to_json()["fall_back"] is fall_back
            assert found.failed == (30, 0)
            return {row.name: row for row in found.rows}

        falling, strict = rows(True), rows(False)
        assert falling["nearest"].score.mean == 1.0
        assert falling["nearest"].cost_usd.mean == pytest.approx(0.005)
        assert falling["match"].score.mean >= strict["match"].score.mean
        assert strict["nearest"].score.mean == 0.5
        assert falling["never"] == strict["never"]

    def test_choices_see_no_request_that_they_are_judged_by(self) -> None:
        """Labels drawn by lot teach nothing, so held-out choices gain nothing over the better."""
        numbers = np.random.default_rng(1)
        lots = [
            replace(one, score=float(numbers.integers(2)), usage=Usage(None, None, 0.01))
            for one in pairs(200, seed=2)
        ]
        found = calibrate_matching(
            lots, WORKERS, ENCODER, otherwise="small", tolerance=0.0, resamples=50
        )
        rows = {row.name: row for row in found.rows}
        better = max(rows["nearest"].score.mean, rows["never"].score.mean)
        assert rows["match"].score.mean <= better + 0.05
        assert rows["best"].score.mean > better + 0.1

    @pytest.mark.parametrize(
        ("options", "why"),
        [
            ({"folds": 1}, "folds: expected 2 to 60, got 1"),
            ({"tolerance": -1.0}, "tolerance or a cost weight >= 0"),
            ({"cost_weight": float("nan")}, "tolerance or a cost weight >= 0"),
            ({"otherwise": "large"}, "no run of 'large'"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, options: Any, why: str) -> None:
        with pytest.raises(EvaluationError, match=why):
            calibrate_matching(pairs(), WORKERS, ENCODER, **{"otherwise": "small", **options})
        with pytest.raises(EvaluationError, match="10 requests are too few"):
            calibrate_matching(pairs(10), WORKERS, ENCODER, otherwise="small")


def graded(right: str) -> Any:
    return lambda answer: Grading(float(answer == right), "exact_match")
