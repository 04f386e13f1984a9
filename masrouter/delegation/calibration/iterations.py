"""Logs for choosing how to iterate: what every way of asking for more gave on a query.

JSON Lines, one query a line, all ways of it known, since a choice is judged by all its sides:

    {"query_id": "tower-3", "query": "How high is the tower?", "task": "knowledge", "context": "",
     "group": "tower", "plain": {"score": 0, "cost_usd": 0.0001},
     "strong": {"score": 0, "cost_usd": 0.0030},
     "ways": [{"rounds": 1, "requests": 1, "ahead": false, "score": 0, "cost_usd": 0.0001},
              {"rounds": 2, "requests": 1, "ahead": false, "score": 1, "cost_usd": 0.0003}, ...]}

`task`, `context` and `group` may be left out. `plain` is the model asked once for the task as it
is, `strong` the strong one. A way of one round asks for nothing, so that its `requests` say nothing
and it stands once. `collect_iterations` makes such a log of tasks; what is chosen on it is
`iterating`'s matter.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from masrouter.delegation.calibration.in_order import done_in_order
from masrouter.delegation.calibration.lines import (
    cost_of,
    count_of,
    fields_of,
    flag_of,
    read_queries,
    score_of,
    string_of,
    text_of,
)
from masrouter.delegation.deliberation.iterating import Find, Iteration, iterate
from masrouter.delegation.deliberation.iterating_rule import IteratingRule
from masrouter.delegation.grading import grading_of
from masrouter.delegation.tasks import DelegationError, ErrorType, Task, TaskResult
from masrouter.errors import ConfigError
from masrouter.execution.ledger import Ledger, total_usage
from masrouter.logs.lines import BadLine
from masrouter.topologies.rules import check_count
from masrouter.topologies.team import call_seed

if TYPE_CHECKING:
    from masrouter.delegation.delegator import Delegator

MOST = 1000
"""Of rounds, and of requests: more is no log of this program."""

_NOT_TRIED: frozenset[ErrorType] = frozenset(
    {
        "unknown_model", "no_credential", "unknown_price", "not_allowed", "no_router", "no_plan",
        "budget", "internal",
    }
)  # fmt: skip
"""Errors that say nothing of a way, but of how it was called."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an answer was worth, and what it took."""

    score: float
    """In [0, 1]."""
    cost_usd: float | None
    """None is unknown."""


@dataclass(frozen=True, slots=True)
class Way:
    """What one way of iterating gave."""

    rounds: int
    requests: int
    ahead: bool
    score: float
    """In [0, 1]."""
    cost_usd: float | None
    """None is unknown."""

    @property
    def rule(self) -> IteratingRule:
        """Which way it is; that of one round is the same whatever its requests."""
        return IteratingRule(self.rounds, 1 if self.rounds == 1 else self.requests, self.ahead)


@dataclass(frozen=True, slots=True)
class IteratedQuery:
    """A query in every way."""

    query_id: str
    query: str
    ways: tuple[Way, ...]
    """One or more, none twice."""
    plain: Outcome
    """The model asked once, for the task as it is."""
    strong: Outcome
    """The strong model asked once, for the task as it is."""
    task: str | None = None
    """Domain, as in the log schema."""
    context: str = ""
    """What the query was given with."""
    group: str | None = None
    """Queries of one group (a problem whole, and with a gap) are never parted by folds."""

    def to_json(self) -> dict[str, Any]:
        """One line's object; what is not known is left out."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}


def read_iterations(*paths: str | Path) -> tuple[IteratedQuery, ...]:
    """The queries of files, in order.

    Raises LogError as `file:line: field: what` for the first bad line, for a query id that stands
    twice, and where there is none at all.
    """
    return read_queries(paths, _query, "iterations")


def iteration_line(query: IteratedQuery) -> bytes:
    """One line of a file for `read_iterations`."""
    return json.dumps(query.to_json()).encode("ascii") + b"\n"


async def collect_iterations(
    tasks: Sequence[Task],
    *,
    delegator: Delegator,
    model: str,
    strong: str,
    subtask: str | None,
    find: Find | None = None,
    ahead: str | None = None,
    rounds: int = 3,
    requests: Sequence[int] = (1, 2, 4),
    groups: Mapping[str, str] | None = None,
    budget_usd: float | None = None,
    within: Ledger | None = None,
    seed: int = 0,
    max_concurrency: int = 8,
    on_query: Callable[[IteratedQuery], None] | None = None,
    on_failure: Callable[[TaskResult], None] | None = None,
) -> tuple[IteratedQuery, ...]:
    """Each task by `model` and by `strong` as it is, and in every way of iterating, all graded.

    A way is a number of rounds up to `rounds`, one of `requests`, and whether `ahead` is asked
    first, where one is named. A longer run begins as a shorter one does, so that one run tells of
    all rounds up to its own: there are as many runs as pairs of the other two.
    model, subtask, find, ahead: as `iterate` takes them. groups: by task id, the group of a task.

    Every task needs an id of its own and a grader. A call that fails for good counts as `iterate`
    takes it, and as a wrong answer where nothing else stands; one that could not be tried (unknown
    name, no key, no money left) raises DelegationError, and an answer that the grader cannot judge
    ConfigError.

    on_query: given each query, in their order, once all before it are done; and those that were
    done where it ends with an error, so that what was paid for is not lost. on_failure: given each
    call that failed for good.
    """
    if len({task.id for task in tasks}) < len(tasks) or any(t.id is None for t in tasks):
        raise ConfigError("collect_iterations: every task needs an id of its own")
    if any(task.grade is None for task in tasks):
        raise ConfigError("collect_iterations: every task needs a grader")
    check_count("collect_iterations: rounds", rounds, least=1, most=MOST)
    if not requests or len(set(requests)) < len(requests):
        raise ConfigError("collect_iterations: requests: expected numbers, none of them twice")
    for count in requests:
        check_count("collect_iterations: requests", count, least=1, most=MOST)
    ledger = Ledger(budget_usd, within=within)
    slots = asyncio.Semaphore(max_concurrency)

    async def asked(task: Task, name: str, part: str) -> Outcome:
        async with slots:
            result = await delegator.delegate_task(
                replace(task, id=f"{task.id}-{part}", model=name, needs=(), grade=None),
                within=ledger,
                seed=call_seed(seed, 0, f"{task.id} {part}"),
            )
        _tried([result], on_failure)
        return Outcome(await _score(task, result.answer), result.usage.cost_usd)

    async def iterated(task: Task, count: int, first: str | None) -> list[Way]:
        async with slots:
            run = await iterate(
                replace(task, model=model),
                delegator=delegator,
                subtask=subtask,
                find=find,
                ahead=first,
                rounds=rounds,
                requests=count,
                within=ledger,
                seed=call_seed(seed, 0, f"{task.id} iterate"),
            )
        _tried(_results(run, rounds), on_failure)
        return await _ways(run, task, rounds, count)

    async def collect(task: Task) -> IteratedQuery:
        runs = [
            iterated(task, count, first)
            for first in (None, *([] if ahead is None else [ahead]))
            for count in requests
        ]
        plain, best, ways = await asyncio.gather(
            asked(task, model, "plain"), asked(task, strong, "strong"), asyncio.gather(*runs)
        )
        found: dict[IteratingRule, Way] = {}
        for way in (way for run in ways for way in run):
            found.setdefault(way.rule, way)
        return IteratedQuery(
            query_id=str(task.id),
            query=task.goal,
            ways=tuple(found.values()),
            plain=plain,
            strong=best,
            task=task.kind,
            context=task.context,
            group=None if groups is None else groups.get(str(task.id)),
        )

    return await done_in_order(tasks, collect, at_once=max_concurrency, tell=on_query)


async def _ways(run: Iteration, task: Task, rounds: int, requests: int) -> list[Way]:
    """What `iterate` gives with each number of rounds; one that stopped stays as it was."""
    found = []
    scores: dict[str | None, float] = {}
    for number in range(1, rounds + 1):
        draft = next((d for one in reversed(run.rounds[:number]) if (d := one.draft)), None)
        answer = None if draft is None else draft.answer
        if answer not in scores:
            scores[answer] = await _score(task, answer)
        usage = total_usage([result.usage for result in _results(run, number)])
        ahead = run.ahead is not None
        found.append(Way(number, requests, ahead, scores[answer], usage.cost_usd))
    return found


def _results(run: Iteration, rounds: int) -> list[TaskResult]:
    """All that was delegated for so many rounds: the last one asks for nothing."""
    found = [] if run.ahead is None else [run.ahead]
    for number, one in enumerate(run.rounds[:rounds], 1):
        found += [one.result, *(one.requests if number < rounds else ())]
    return found


def _tried(results: Sequence[TaskResult], on_failure: Callable[[TaskResult], None] | None) -> None:
    """Raises DelegationError for a call that could not be tried."""
    for result in results:
        if result.error is not None:
            if result.error.type in _NOT_TRIED:
                raise DelegationError(result.error)
            if on_failure is not None:
                on_failure(result)


async def _score(task: Task, answer: str | None) -> float:
    if answer is None:
        return 0.0
    assert task.grade is not None  # checked before
    grading = await grading_of(task.grade, answer, until=None)
    if grading is None:
        raise ConfigError(f"collect_iterations: task {task.id!r}: its grader gave no grade")
    return grading.score


def _query(data: Mapping[str, Any]) -> IteratedQuery:
    fields_of(data, "line", IteratedQuery.__dataclass_fields__)
    return IteratedQuery(
        query_id=text_of(data, "query_id"),
        query=text_of(data, "query"),
        ways=_read_ways(data.get("ways")),
        plain=_outcome(data.get("plain"), "plain"),
        strong=_outcome(data.get("strong"), "strong"),
        task=text_of(data, "task") if data.get("task") is not None else None,
        context=string_of(data, "context", "context") if "context" in data else "",
        group=text_of(data, "group") if data.get("group") is not None else None,
    )


def _outcome(data: Any, name: str) -> Outcome:
    data = fields_of(data, name, Outcome.__dataclass_fields__)
    return Outcome(score_of(data, name), cost_of(data, name))


def _read_ways(data: Any) -> tuple[Way, ...]:
    if not isinstance(data, list) or not data:
        raise BadLine("ways", "expected a list of one or more")
    found: dict[IteratingRule, Way] = {}
    for at, one in enumerate(data):
        name = f"ways[{at}]"
        fields = fields_of(one, name, Way.__dataclass_fields__)
        way = Way(
            count_of(fields, "rounds", f"{name}.rounds", MOST),
            count_of(fields, "requests", f"{name}.requests", MOST),
            flag_of(fields, "ahead", f"{name}.ahead"),
            score_of(fields, name),
            cost_of(fields, name),
        )
        if way.rule in found:
            raise BadLine(name, "stands twice; of one round, whatever its requests, there is one")
        found[way.rule] = way
    return tuple(found.values())
