"""What the nearest worker of a request gave, and what a model or team gave in its place.

Both are needed of every request on which matching is to be calibrated: a log of schema 1 with a run
of each. `collect_matching` makes such runs of graded tasks (`masrouter deliberate collect-match`).
By hand, each task is handed out twice, once by the worker's name, and logged (`masrouter delegate
--log`, then `masrouter delegations export`, not with `--only own`, which leaves out failed runs).

The nearest worker is named by the encoder alone, so it is known before any rule is chosen. Not
here: the choice (`matching`).
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from masrouter.delegation.episodes.credit import records as records_of
from masrouter.delegation.episodes.events import Node
from masrouter.delegation.episodes.log import Episode
from masrouter.delegation.query import read_query, task_query
from masrouter.delegation.tasks import DelegationError, Task, shortened
from masrouter.delegation.workers.matching import Match, MatchingRule, match_workers
from masrouter.encoder import Encoder
from masrouter.errors import ConfigError, EvaluationError
from masrouter.execution.ledger import Ledger
from masrouter.strict_yaml import did_you_mean
from masrouter.topologies.team import call_seed
from masrouter.types import LogRecord, Plan

if TYPE_CHECKING:
    from masrouter.delegation.delegator import Delegator
    from masrouter.delegation.workers.worker import Worker


_NOT_ITS_OWN = ("budget:", "deadline:", "provider:")
"""How a log begins an error that is not a worker's own, after which nobody else is asked."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a plan gave on a request: means over its runs, where there are several."""

    score: float
    """In [0, 1]; a run that failed counts 0, as it is worth to whoever waits for it."""
    cost_usd: float
    failed: int
    """Runs that failed,"""
    refused: float = 0.0
    """and the share of runs that failed by the worker's own error: money or time may be left."""


@dataclass(frozen=True, slots=True)
class MatchedRequest:
    """A request under its nearest worker, and without it."""

    query_id: str
    request: str
    """The goal, without the context that came along: what is matched."""
    nearest: str
    cosine: float
    """Of the nearest worker's description or example."""
    chat: float
    """Of the nearest of a chat model's work."""
    worker: Outcome
    otherwise: Outcome

    def tried(self, *, fall_back: bool) -> Outcome:
        """What comes of asking the worker; fall_back: and `otherwise` next, where it refuses."""
        if not fall_back:
            return self.worker
        again = self.worker.refused
        return replace(
            self.worker,
            score=self.worker.score + again * self.otherwise.score,
            cost_usd=self.worker.cost_usd + again * self.otherwise.cost_usd,
        )


async def collect_matching(
    tasks: Sequence[Task],
    workers: Sequence[Worker],
    encoder: Encoder,
    *,
    delegator: Delegator,
    otherwise: str,
    budget_usd: float | None = None,
    within: Ledger | None = None,
    seed: int = 0,
    max_concurrency: int = 8,
    on_request: Callable[[Sequence[LogRecord]], None] | None = None,
) -> tuple[LogRecord, ...]:
    """Each task by the worker that is nearest to its goal, and by `otherwise`; two records a task.

    Every task needs a grader, and the delegator the workers. A run that fails for good has a record
    that says so; one that was refused (unknown name, no key, no money left) raises DelegationError,
    and an answer that the grader cannot judge ConfigError. A delegator with a log of episodes has
    all runs there too, in one episode. on_request: given each task's records as they come, also
    those of tasks that end before another one raises.
    """
    if any(task.grade is None for task in tasks):
        raise ConfigError("collect_matching: every task needs a grader")
    there = {worker.name for worker in delegator.workers}
    for worker in workers:
        if worker.name not in there:
            raise ConfigError(f"collect_matching: the delegator has no worker {worker.name!r}")
    matches = _nearest([task.goal for task in tasks], workers, encoder)
    ledger = Ledger(budget_usd, within=within)
    slots = asyncio.Semaphore(max_concurrency)
    told = f"Which of {len(tasks)} requests are a worker's?"
    episode = None
    if delegator.episodes is not None:
        episode = await asyncio.to_thread(delegator.episodes.open, told)

    async def run(task: Task, model: str, part: str) -> LogRecord:
        drawn = call_seed(seed, 0, part)
        async with slots:
            result = await delegator.delegate_task(
                replace(task, id=part, model=model, needs=()),
                within=ledger, seed=drawn, episode=episode,
            )  # fmt: skip
        if result.error is not None and (
            result.plan is None or result.error.type not in ("provider", "worker")
        ):
            raise DelegationError(result.error)
        if result.error is None and result.grading is None:
            raise ConfigError(f"collect_matching: {part}: its grader gave no grade")
        query = task_query(task.goal, task.context)
        node = Node.of(part, None, result, query=query, kind=task.kind, seed=drawn)
        alone = Episode(uuid.uuid4().hex if episode is None else episode.id, nodes=(node,))
        (record,) = records_of([alone])
        return record

    async def both(at: int) -> tuple[LogRecord, LogRecord]:
        task, name = tasks[at], matches[at].nearest
        found = await asyncio.gather(
            run(task, name, f"request-{at + 1}-worker"),
            run(task, otherwise, f"request-{at + 1}-otherwise"),
        )
        if on_request is not None:
            on_request(found)
        return found

    try:
        async with asyncio.TaskGroup() as group:
            working = [group.create_task(both(at)) for at in range(len(tasks))]
    except BaseExceptionGroup as broken:
        raise broken.exceptions[0] from None
    return tuple(record for one in working for record in one.result())


def matched_requests(
    records: Iterable[LogRecord], workers: Sequence[Worker], encoder: Encoder, *, otherwise: str
) -> tuple[MatchedRequest, ...]:
    """The requests of a log that a worker or `otherwise` was given, each with both outcomes.

    otherwise: a plan as a log shows it, such as `cot(gpt-4o-mini)`, or the model of a plan of one.
    Runs of other plans are left out. Raises EvaluationError, with the request, where the outcome of
    its nearest worker or of `otherwise` is not there, was not graded, or cost nobody knows what.
    """
    by_name = {worker.name: worker for worker in workers}
    kept: dict[str, dict[Plan, list[LogRecord]]] = {}
    plans: dict[Plan, None] = {}
    for record in records:
        plans.setdefault(record.plan)
        kept.setdefault(record.query_id, {}).setdefault(record.plan, []).append(record)
    instead = _plan_named(otherwise, plans, workers)
    known = {instead, *(worker.plan for worker in workers)}
    asked = {id: runs for id, runs in kept.items() if known & runs.keys()}
    goals = [read_query(next(iter(runs.values()))[0].query).goal for runs in asked.values()]
    found, lacking = [], []
    for (id, runs), goal, match in zip(
        asked.items(), goals, _nearest(goals, workers, encoder), strict=True
    ):
        worker = by_name[match.nearest]
        missing = [str(plan) for plan in (worker.plan, instead) if plan not in runs]
        if missing:
            lacking.append((id, goal, worker.name, missing))
            continue
        found.append(
            MatchedRequest(
                query_id=id,
                request=goal,
                nearest=worker.name,
                cosine=match.cosines[worker.name],
                chat=match.chat,
                worker=_outcome(runs[worker.plan], worker),
                otherwise=_outcome(runs[instead], None),
            )
        )
    if lacking:
        id, goal, name, missing = lacking[0]
        raise EvaluationError(
            f"matching: {_told(id, goal)}: nearest is the worker {name!r}, and the log has no run "
            f"of {' and none of '.join(missing)}; hand this request out once to each of them and "
            f"log it, or leave it out ({len(lacking)} of {len(asked)} requests lack a run)"
        )
    return tuple(found)


def other_plans(records: Iterable[LogRecord], workers: Sequence[Worker]) -> tuple[str, ...]:
    """What `otherwise` may be for a log: its plans that are no workers, sorted.

    A plan of one is named by its model, where that says which it is.
    """
    return _names({record.plan for record in records} - {worker.plan for worker in workers})


def only_other_plan(records: Iterable[LogRecord], workers: Sequence[Worker]) -> str:
    """The `otherwise` of a log with one plan that is no worker; else raises EvaluationError."""
    names = other_plans(records, workers)
    if len(names) != 1:
        there = f"say which of {', '.join(names)}" if names else "the log has workers' runs alone"
        raise EvaluationError(f"matching: otherwise: {there}; {_BY_ID}")
    return names[0]


_BY_ID = "the log names models by id; a tier or alias is not known here"


def _names(plans: Collection[Plan]) -> tuple[str, ...]:
    single = Counter(plan.models[0] for plan in plans if len(plan.agents) == 1)
    return tuple(
        sorted(
            plan.models[0] if len(plan.agents) == 1 == single[plan.models[0]] else str(plan)
            for plan in plans
        )
    )


def _nearest(
    requests: Sequence[str], workers: Sequence[Worker], encoder: Encoder
) -> Sequence[Match]:
    """Threshold and weight have no part in who is nearest."""
    return match_workers(requests, workers, encoder, rule=MatchingRule(0.0, 0.0, encoder.identity))


def _plan_named(name: str, plans: Collection[Plan], workers: Sequence[Worker]) -> Plan:
    found = [plan for plan in plans if str(plan) == name]
    found = found or [p for p in plans if len(p.agents) == 1 and p.agents[0].model == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise EvaluationError(
            f"matching: otherwise: {name!r} may be {' or '.join(map(str, found))}; say which"
        )
    raise EvaluationError(
        f"matching: otherwise: the log has no run of {name!r}"
        f"{did_you_mean(name, _names(set(plans) - {worker.plan for worker in workers}))}; {_BY_ID}"
    )


def _outcome(runs: Sequence[LogRecord], worker: Worker | None) -> Outcome:
    scores, costs, failed, refused = [], [], 0, 0
    for run in runs:
        where = f"matching: {_told(run.query_id, run.query)}: {run.plan}"
        cost = run.usage.cost_usd
        if run.score is None and run.error is None:
            raise EvaluationError(
                f"{where}: run {run.run_id!r} was not graded; grade it, or leave the request out"
            )
        if run.score is None:
            failed += 1
            own = worker is not None and not str(run.error).startswith(_NOT_ITS_OWN)
            refused += int(own)
            # What a failed call cost is unknown; a worker's is no more than a call's price.
            cost = _price_of_call(worker) if cost is None else cost
        if cost is None:
            raise EvaluationError(
                f"{where}: nobody knows what run {run.run_id!r} cost; give the price when "
                "logging (a free worker says `usd_per_call: 0`), or leave the request out"
            )
        scores.append(0.0 if run.score is None else run.score)
        costs.append(cost)
    return Outcome(
        float(np.mean(scores)), float(np.mean(costs)), failed, refused / len(runs)
    )  # fmt: skip


def _price_of_call(worker: Worker | None) -> float | None:
    if worker is None or worker.input_usd_per_mtok or worker.output_usd_per_mtok:
        return None
    return worker.usd_per_call


def _told(id: str, text: str) -> str:
    return f"request {shortened(text, 60)!r} (query_id {id!r})"
