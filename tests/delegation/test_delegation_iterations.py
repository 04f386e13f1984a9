"""Logs of iterations: what collecting finds is what `iterate` does, and what is chosen on them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.delegation.scripted import DOWN, Said, ScriptedModel

from masrouter.delegation.calibration.choosing import Goal
from masrouter.delegation.calibration.iterating import IteratingCalibration, calibrate_iterating
from masrouter.delegation.calibration.iterations import (
    IteratedQuery,
    Outcome,
    Way,
    collect_iterations,
    iteration_line,
    read_iterations,
)
from masrouter.delegation.delegator import Delegator
from masrouter.delegation.deliberation.iterating import END, iterate
from masrouter.delegation.deliberation.iterating_rule import IteratingRule
from masrouter.delegation.query import read_query
from masrouter.delegation.tasks import DelegationError, Grading, Task, TaskResult
from masrouter.errors import ConfigError, EvaluationError, LogError
from masrouter.llms.chat import ChatRequest

PARTS = ("height", "age", "architect")


def draft(request: ChatRequest) -> Said:
    """Whoever writes knows of the tower what was found, and misses the rest."""
    query = read_query(request.messages[-1].content)
    has = [part for part in PARTS if f"its {part} is known" in query.context]
    lacks = [f"Missing: its {part}" for part in PARTS if part not in has]
    told = f"{len(has)} of {len(PARTS)}"
    return told if END not in query.goal else "\n".join([told, *(lacks or ["Missing: nothing"])])


def look_up(request: ChatRequest) -> Said:
    """Who knows each part by its name, and of a whole goal the first alone."""
    goal = read_query(request.messages[-1].content).goal
    return f"{goal} is known" if goal.startswith("its ") else f"its {PARTS[0]} is known"


def share(answer: str) -> Grading:
    """How much of it is there."""
    return Grading(int(answer[0]) / len(PARTS), "exact")


def tower(**more: Any) -> Task:
    return Task("Describe the tower.", **{"id": "tower", "grade": share, **more})


def model(**more: Any) -> ScriptedModel:
    return ScriptedModel({"writer": draft, "notes": look_up, "best": "2 of 3", **more})


def collect(llm: ScriptedModel, *tasks: Task, **more: Any) -> tuple[IteratedQuery, ...]:
    options: dict[str, Any] = {
        "delegator": Delegator(llm), "model": "writer", "strong": "best", "subtask": "notes",
        "ahead": "notes", "rounds": 4, "requests": (1, 2), **more,
    }  # fmt: skip
    return asyncio.run(collect_iterations(tasks or [tower()], **options))


def test_every_way_is_logged_as_iterate_does_it() -> None:
    (query,) = collect(model(), tower(kind="knowledge", context="In Pisa."), groups={"tower": "t"})
    assert (query.query_id, query.query) == ("tower", "Describe the tower.")
    assert (query.task, query.context, query.group) == ("knowledge", "In Pisa.", "t")
    assert len(query.ways) == 2 * (1 + 3 * 2)
    for way in query.ways:
        llm = model()
        run = asyncio.run(
            iterate(
                tower(context="In Pisa."), delegator=Delegator(llm), model="writer",
                subtask="notes", ahead="notes" if way.ahead else None, rounds=way.rounds,
                requests=way.requests,
            )
        )  # fmt: skip
        assert way.score == share(run.answer or "").score
        assert way.cost_usd == pytest.approx(llm.billed_usd)
    best = {way.rule: way.score for way in query.ways}
    assert best[IteratingRule(3, 1)] == pytest.approx(2 / 3)
    assert best[IteratingRule(2, 2)] == pytest.approx(2 / 3)
    assert best[IteratingRule(1, 1, True)] == pytest.approx(1 / 3)
    assert query.plain.score == 0
    assert query.strong.score == pytest.approx(2 / 3)


def test_a_longer_run_is_not_paid_for_again_by_its_shorter_ones() -> None:
    llm = model()
    collect(llm, ahead=None, requests=(1,), rounds=4)
    # Four drafts and one answer without asking; three requests in between.
    assert len(llm.requests_of("writer")) == 5
    assert len(llm.requests_of("notes")) == 3


def test_without_a_look_up_ahead_there_are_no_such_ways() -> None:
    (query,) = collect(model(), ahead=None)
    assert not any(way.ahead for way in query.ways)


def test_what_fails_counts_as_iterate_takes_it() -> None:
    def twice(request: ChatRequest) -> Said:
        known = read_query(request.messages[-1].content).context.count("is known")
        return DOWN if known > 1 else draft(request)

    failed: list[TaskResult] = []
    (query,) = collect(model(writer=twice), requests=(1,), ahead=None, on_failure=failed.append)
    assert [one.id for one in failed] == ["tower-round-3"]
    # The second draft stands, since the third could not be written.
    assert [way.score for way in query.ways] == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])
    (query,) = collect(model(best=DOWN, notes=DOWN), requests=(1,))
    assert query.strong.score == 0
    assert [way.score for way in query.ways] == [0] * 8


@pytest.mark.parametrize(
    ("more", "type_"),
    [
        ({"strong": "nobody"}, "unknown_model"),
        ({"model": "nobody"}, "unknown_model"),
        ({"subtask": "nobody"}, "unknown_model"),
        ({"ahead": "nobody"}, "unknown_model"),
        ({"budget_usd": 1e-9}, "budget"),
    ],
)
def test_what_could_not_be_tried_ends_it_and_says_so(more: dict[str, Any], type_: str) -> None:
    with pytest.raises(DelegationError) as error:
        collect(model(), **more)
    assert error.value.error.type == type_


@pytest.mark.parametrize(
    ("tasks", "more", "why"),
    [
        ([tower(id=None)], {}, "an id of its own"),
        ([tower(), tower()], {}, "an id of its own"),
        ([tower(grade=None)], {}, "needs a grader"),
        ([tower(grade=lambda answer: None)], {}, "'tower': its grader gave no grade"),
        ([tower()], {"rounds": 0}, "rounds: expected a number from 1 to 1000"),
        ([tower()], {"requests": ()}, "expected numbers, none of them twice"),
        ([tower()], {"requests": (2, 2)}, "expected numbers, none of them twice"),
        ([tower()], {"requests": (0,)}, "requests: expected a number from 1 to 1000"),
    ],
)
def test_tasks_and_ways_that_say_nothing_are_refused(
    tasks: Sequence[Task], more: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        collect(model(), *tasks, **more)


def test_queries_that_are_done_are_told_in_order_and_kept_where_money_runs_out() -> None:
    told: list[str] = []
    tasks = [tower(id=f"t{n}") for n in range(6)]
    collect(model(), *tasks, on_query=lambda query: told.append(query.query_id))
    assert told == [f"t{n}" for n in range(6)]
    told.clear()
    with pytest.raises(DelegationError):
        collect(
            model(), *tasks, ahead=None, requests=(1,), rounds=2, budget_usd=0.0052,
            max_concurrency=1, on_query=lambda query: told.append(query.query_id),
        )  # fmt: skip
    assert 0 < len(told) < 6


def test_queries_come_back_from_a_file_as_they_went(tmp_path: Path) -> None:
    tasks = [tower(), tower(id="t", context="in Pisa", kind="code")]
    queries = collect(model(), *tasks, groups={"tower": "t"})
    unknown = replace(queries[0], query_id="\ud800", plain=Outcome(0.5, None))
    file = tmp_path / "log.jsonl"
    file.write_bytes(b"\n".join(map(iteration_line, [*queries, unknown])))
    assert read_iterations(file) == (*queries, unknown)


WAY = {"rounds": 2, "requests": 1, "ahead": False, "score": 1, "cost_usd": 0.1}
LINE: dict[str, Any] = {
    "query_id": "a", "query": "b", "ways": [WAY], "plain": {"score": 0, "cost_usd": 0},
    "strong": {"score": 0, "cost_usd": None},
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"query_id": " "}, "query_id: expected non-empty text"),
        ({"more": 1}, "unknown key 'more'"),
        ({"plain": None}, "plain: expected an object"),
        ({"plain": {"score": 2, "cost_usd": 0}}, "plain.score: expected a number in"),
        ({"strong": {"score": 1}}, "strong.cost_usd: expected US dollars"),
        ({"ways": []}, "ways: expected a list of one or more"),
        ({"ways": [3]}, r"ways\[0\]: expected an object"),
        ({"ways": [{**WAY, "rounds": 0}]}, r"ways\[0\].rounds: expected a whole number from 1"),
        ({"ways": [{**WAY, "rounds": 10**9}]}, r"ways\[0\].rounds: expected a whole number"),
        ({"ways": [{**WAY, "requests": True}]}, r"ways\[0\].requests: expected a whole number"),
        ({"ways": [{**WAY, "ahead": 0}]}, r"ways\[0\].ahead: expected true or false"),
        ({"ways": [{**WAY, "score": None}]}, r"ways\[0\].score: expected a number"),
        ({"ways": [{**WAY, "cost_usd": -1}]}, r"ways\[0\].cost_usd: expected US dollars"),
        ({"ways": [WAY, WAY]}, r"ways\[1\]: stands twice"),
        (
            {"ways": [{**WAY, "rounds": 1}, {**WAY, "rounds": 1, "requests": 2}]},
            r"ways\[1\]: stands twice",
        ),
        ({"context": 3}, "context: expected text"),
    ],
)
def test_a_hostile_line_is_refused_with_its_place(
    change: dict[str, Any], why: str, tmp_path: Path
) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text(f"{json.dumps(LINE)}\n\n{json.dumps({**LINE, 'query_id': 'b', **change})}\n")
    with pytest.raises(LogError, match=rf"log\.jsonl:3: .*{why}"):
        read_iterations(file)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f"{json.dumps(LINE)}\n{json.dumps(LINE)}\n", "query_id: 'a' stands already at"),
        ('{"query_id": "a", "query_id": "b"}\n', "log.jsonl:1: "),
        ("[" * 100_000, "log.jsonl:1: "),
        ('{"query_id": NaN}', "log.jsonl:1: "),
        ("\n", "no iterations there"),
    ],
)
def test_a_file_that_is_no_log_is_refused(text: str, why: str, tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text(text)
    with pytest.raises(LogError, match=why):
        read_iterations(file)


def logged(
    name: str, scores: dict[IteratingRule, float], *, plain: float = 0, **more: Any
) -> IteratedQuery:
    """A query in some ways; a draft costs 1, a request 0.1, the strong model 100."""
    ways = tuple(
        Way(
            rule.rounds, rule.requests, rule.ahead, score,
            rule.rounds + 0.1 * rule.requests * (rule.rounds - 1) + 0.1 * rule.ahead,
        )
        for rule, score in scores.items()
    )  # fmt: skip
    given = {"query": "?", "strong": Outcome(0.6, 100.0), **more}
    return IteratedQuery(query_id=name, ways=ways, plain=Outcome(plain, 1.0), **given)


ONE, TWO, THREE = IteratingRule(1, 1), IteratingRule(2, 1), IteratingRule(3, 1)
FIRST = IteratingRule(1, 1, True)


def worth(one: float, two: float, three: float, first: float) -> list[IteratedQuery]:
    """Forty queries of which each way does a share, the same ones for all."""
    shares = {ONE: one, TWO: two, THREE: three, FIRST: first}
    return [
        logged(f"q{n}", {rule: float(n % 10 < 10 * share) for rule, share in shares.items()})
        for n in range(40)
    ]


def rows_of(found: IteratingCalibration) -> dict[str, float]:
    return {row.name: row.score.mean for row in found.rows}


@pytest.mark.parametrize(
    ("queries", "goal", "best"),
    [
        (worth(0.1, 0.5, 0.9, 0.3), Goal(), THREE),
        (worth(0.1, 0.5, 0.5, 0.3), Goal(), TWO),
        (worth(0.1, 0.5, 0.9, 0.9), Goal(), FIRST),
        (worth(0.5, 0.5, 0.5, 0.5), Goal(), ONE),
        (worth(0.1, 0.5, 0.9, 0.1), Goal(tolerance=0.5), TWO),
        (worth(0.1, 0.5, 0.9, 0.1), Goal(cost_weight=1.0), ONE),
        (worth(0.1, 0.5, 0.9, 0.1), Goal(cost_weight=0.0), THREE),
    ],
)
def test_the_way_that_pays_is_chosen(
    queries: list[IteratedQuery], goal: Goal, best: IteratingRule
) -> None:
    found = calibrate_iterating(queries, goal=goal, resamples=50)
    assert found.rule == best
    assert set(found.chosen) == {best}
    rows = rows_of(found)
    scores = {way: sum(q.ways[at].score for q in queries) / 40 for at, way in enumerate(
        (ONE, TWO, THREE, FIRST))}  # fmt: skip
    assert rows["iterate"] == pytest.approx(scores[best])
    assert rows["always"] == pytest.approx(0.6)
    assert rows["never"] == 0
    assert rows["draft"] == pytest.approx(scores[ONE])
    assert rows["ahead"] == pytest.approx(scores[FIRST])
    against = {one.name: one for one in found.against}
    assert against["never"].score.mean == pytest.approx(scores[best])
    assert against["always"].cost_saved.mean > 0.9
    assert "iterate" not in against
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["queries"] == 40


def test_length_iterates_on_long_queries_alone_where_these_gain() -> None:
    queries = [
        logged(f"q{n}", {ONE: 0.0, TWO: float(n % 2)}, query="x" * (5 + 95 * (n % 2)), plain=0)
        for n in range(40)
    ]
    found = calibrate_iterating(queries, resamples=50)
    rows = {row.name: row for row in found.rows}
    assert (found.length, found.length_rule) == (100, TWO)
    assert rows["length"].asking == pytest.approx(0.5)
    assert rows["length"].score.mean == rows["iterate"].score.mean == pytest.approx(0.5)
    assert rows["length"].cost_usd.mean < rows["iterate"].cost_usd.mean
    assert "shipped" not in rows


def test_every_query_is_judged_by_a_choice_made_without_its_group() -> None:
    # Each way is right on one group only: whatever a fold chooses is wrong on the group left out.
    rules = [IteratingRule(rounds, 1) for rounds in range(1, 6)]
    queries = [
        logged(
            f"q{n}",
            {rule: float(n % 5 == at) for at, rule in enumerate(rules)},
            group=f"g{n % 5}",
        )
        for n in range(40)
    ]
    found = calibrate_iterating(queries, folds=5, resamples=50)
    mine, *_ = found.rows
    assert mine.score.mean == 0
    assert mine.cost_usd.mean >= 1  # each was judged


@pytest.mark.parametrize(
    ("queries", "folds", "why"),
    [
        (worth(0, 1, 1, 1)[:19], 5, "19 queries are too few"),
        (worth(0, 1, 1, 1), 41, "folds: expected 2 to 40"),
        (worth(0, 1, 1, 1), 1, "folds: expected 2 to 40"),
        ([*worth(0, 1, 1, 1), logged("odd", {ONE: 1, TWO: 1})], 5, "'odd' was collected in other"),
        (
            [replace(q, strong=Outcome(1, None)) for q in worth(0, 1, 1, 1)], 5,
            "'q0': an unknown cost",
        ),
    ],
)  # fmt: skip
def test_a_log_that_cannot_tell_is_refused(
    queries: list[IteratedQuery], folds: int, why: str
) -> None:
    with pytest.raises(EvaluationError, match=why):
        calibrate_iterating(queries, folds=folds)
