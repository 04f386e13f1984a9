"""Run a design's assignments, grade the answers, and keep every call and run in the store.

design ──► team at work (execution) ──► grader ──► store ──► export ──► logs of schema 1
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from masrouter.answers import extract_code
from masrouter.catalog import Catalog
from masrouter.collection.design import Assignment
from masrouter.collection.recording import RecordingModel, recorded_calls
from masrouter.collection.store import Spending, Store, insert, storable
from masrouter.errors import BudgetError, CallError, CollectionError, ExecutionError, ProblemError
from masrouter.execution import Ledger, aexecute
from masrouter.llms.chat import ChatModel
from masrouter.logs.schema import record_to_json
from masrouter.problems import CodeTests, Grade, Problem
from masrouter.topologies import ExampleTests, check_plan, prompt_version, topology
from masrouter.types import LogRecord, Plan, Run

if TYPE_CHECKING:
    from masrouter.sandbox import Sandbox

_USELESS = ("unauthorised", "unknown_model")
"""Kinds of failure that every further run would meet too."""

Report = Callable[["Progress"], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a collection runs."""

    concurrency: int = 8
    """Runs under way at the same time; a provider's own limit on calls belongs to its file."""
    budget_usd: float | None = None
    """Of the whole collection, all sessions on its file together."""
    deadline_s: float | None = None
    """Of each run."""
    max_tokens: int | None = None
    """Most tokens of an answer; None takes the topologies' own. The same in all sessions."""
    retry_failed: bool = False
    """Run again what an earlier session finished without an answer."""
    pauses_s: tuple[float, ...] = (5.0, 15.0, 45.0, 120.0)
    """Waits, one after another, for a provider whose circuit is open; then the collection stops."""

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise CollectionError(f"concurrency: expected at least 1, got {self.concurrency}")
        if self.budget_usd is not None and not 0 <= self.budget_usd < math.inf:
            raise CollectionError(f"budget: expected US dollars >= 0, got {self.budget_usd}")
        if self.deadline_s is not None and not 0 < self.deadline_s < math.inf:
            raise CollectionError(f"deadline: expected seconds > 0, got {self.deadline_s}")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise CollectionError(f"max_tokens: expected at least 1, got {self.max_tokens}")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a collection is."""

    planned: int
    before: int
    """Finished in earlier sessions."""
    done: int
    """Finished in this one."""
    failed: int
    """Of those, without an answer."""
    spending: Spending
    run_id: str | None = None
    """The run that has just been finished, and is on the disk."""
    waiting: str | None = None
    """What is waited for, where a provider is down."""
    stopped: str | None = None
    """Why it ended before everything was done."""

    @property
    def complete(self) -> bool:
        """True when nothing is left to run."""
        return self.before + self.done == self.planned


async def collect(
    assignments: Iterable[Assignment],
    *,
    llm: ChatModel,
    store: Store,
    catalog: Catalog,
    sandbox: Sandbox | None,
    examples: ExampleTests | None = None,
    settings: Settings | None = None,
    stop: asyncio.Event | None = None,
    report: Report | None = None,
) -> Progress:
    """Run what is not finished yet, until all is done, the money or the disk is used up, or `stop`.

    sandbox: grades programs; needed where a problem has tests. stop: once set, runs under way are
    finished and no other is begun. Cancelling leaves them: what they paid for is in the store.
    report: called at the start, after each run, and when something is waited for.

    A run that no reply of can be had becomes a row with its error. Raises CollectionError where
    going on is useless: a key is refused, a model is unknown, a provider stays down; runs under way
    are finished before. Before anything is sent, PlanError for a plan that no team could run, and
    BudgetError for a budget with a model whose price is unknown.
    """
    settings = settings or Settings()
    planned = _planned(assignments, catalog)
    _check_prices({a.plan for a, _ in planned.values()}, llm, settings.budget_usd)
    store.pin("max_tokens", str(settings.max_tokens or "by default"))
    collector = _Collector(
        llm, store, catalog, sandbox, examples, settings, stop or asyncio.Event(), report
    )
    return await collector.run(planned)


class _Stop(Exception):
    """The collection ends in good order; the message says why."""


class _Collector:
    def __init__(
        self,
        llm: ChatModel,
        store: Store,
        catalog: Catalog,
        sandbox: Sandbox | None,
        examples: ExampleTests | None,
        settings: Settings,
        stop: asyncio.Event,
        report: Report | None,
    ) -> None:
        self._llm = llm
        self._store = store
        self._catalog = catalog
        self._sandbox = sandbox
        self._examples = examples
        self._settings = settings
        self._stop = stop
        self._report = report
        self._before = spent = store.spending()
        budget = settings.budget_usd
        if budget is not None and spent.unpriced_calls:
            raise CollectionError(
                f"{store.path}: {spent.unpriced_calls} calls of earlier sessions have an unknown "
                "cost, so a budget cannot be kept; collect without one, or into another file"
            )
        self._ledger = Ledger(None if budget is None else max(0.0, budget - spent.most_usd))
        self._grades: dict[tuple[str, str], Grade] = {}
        self._retried: set[str] = set()
        self._planned = self._finished = self._done = self._failed = 0
        self._why: str | None = None
        self._broken: Exception | None = None

    async def run(self, planned: dict[str, tuple[Assignment, str]]) -> Progress:
        finished = self._store.finished()
        if self._settings.retry_failed:
            self._retried = self._store.failed()
        todo = [
            (run_id, assignment, version)
            for run_id, (assignment, version) in planned.items()
            if run_id not in finished or run_id in self._retried
        ]
        self._planned, self._finished = len(planned), len(planned) - len(todo)
        self._tell()
        queue = iter(todo)
        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._settings.concurrency, len(todo))):
                group.create_task(self._work(queue))
        if self._broken is not None:
            raise self._broken
        if self._stop.is_set() and self._why is None and self._done < len(todo):
            self._why = "interrupted"
        with contextlib.suppress(CollectionError):
            await self._store.write()  # what was recorded in passing counts too
        return replace(self._progress(), spending=self._store.spending())

    def _progress(self, run_id: str | None = None, waiting: str | None = None) -> Progress:
        # Of the books and not of the file: summing it up after every run would be slow.
        before = self._before
        spending = Spending(
            before.known_usd + self._ledger.spent_usd,
            before.possible_usd + self._ledger.charged_usd,
            before.unpriced_calls,
        )
        return Progress(
            self._planned, self._finished, self._done, self._failed,
            spending, run_id, waiting, self._why,
        )  # fmt: skip

    def _tell(self, run_id: str | None = None, waiting: str | None = None) -> None:
        if self._report is not None:
            self._report(self._progress(run_id, waiting))

    async def _work(self, queue: Iterator[tuple[str, Assignment, str]]) -> None:
        """Run what is in the queue. Whatever goes wrong, the other workers' runs are finished."""
        while not self._stop.is_set() and (item := next(queue, None)) is not None:
            try:
                await self._one(*item)
            except _Stop as stopped:
                self._why = self._why or str(stopped)
                self._stop.set()
            except Exception as error:
                self._broken = self._broken or error
                self._stop.set()

    async def _one(self, run_id: str, assignment: Assignment, version: str) -> None:
        ended = await self._executed(run_id, assignment)
        if ended is None:
            return
        run, whole = ended
        grade = None
        if run.answer is not None:
            grade = await asyncio.to_thread(self._grade, assignment.problem, run.answer)
        record = _record(run_id, assignment, run, grade)
        if not whole:
            record = replace(record, latency_s=None)
        row = {
            "run_id": run_id,
            "prompt_version": version,
            "record": json.dumps(record_to_json(record), allow_nan=False),
            "answer": run.answer,
        }
        try:
            await self._store.write(insert("runs", row))
        except CollectionError as error:
            raise _Stop(str(error)) from error
        self._done += 1
        self._failed += run.answer is None
        self._tell(run_id)

    async def _executed(self, run_id: str, assignment: Assignment) -> tuple[Run, bool] | None:
        """The run, and whether it went in one go; None where it is left for another session."""
        again = run_id in self._retried
        pauses = iter(self._settings.pauses_s)
        while True:
            calls = recorded_calls(self._store, run_id, again=again)
            model = RecordingModel(self._llm, self._store, self._ledger, run_id, calls)
            run = await self._execute(assignment, model)
            if model.refusal is not None:
                # The run was cut short by us, not by its team: it is not an outcome.
                raise _Stop(self._told(model.refusal)) from model.refusal
            down = _outage(model.failures)
            if down is None:
                return run, model.replayed == 0
            if model.answered:
                pauses = iter(self._settings.pauses_s)
            again = False
            if self._stop.is_set() or not await self._pause(next(pauses, None), down):
                return None

    async def _pause(self, seconds: float | None, down: CallError) -> bool:
        """Wait for a provider; False where the collection stops meanwhile."""
        if seconds is None:
            raise CollectionError(
                f"stopped, since the provider stays down: {down}; run the same command again later"
            )
        self._tell(waiting=f"{down}; trying again in {seconds:g} s")
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return True
        return False

    async def _execute(self, assignment: Assignment, model: RecordingModel) -> Run:
        try:
            return await aexecute(
                assignment.plan,
                assignment.problem.query,
                llm=model,
                catalog=self._catalog,
                deadline_s=self._settings.deadline_s,
                seed=assignment.seed,
                examples=self._examples,
                max_tokens=self._settings.max_tokens,
            )
        except ExecutionError as error:
            return error.run

    def _told(self, refusal: BudgetError | CollectionError) -> str:
        if isinstance(refusal, CollectionError):
            return str(refusal)
        budget, before = self._settings.budget_usd, self._before.most_usd
        spent = f" ({before:.4f} US$ of it spent by earlier sessions)" if before else ""
        return f"the budget of {budget:g} US${spent} is used up: {refusal}; raise it to go on"

    def _grade(self, problem: Problem, answer: str) -> Grade:
        """Grade an answer; the same program of a problem is judged once."""
        grader = problem.grader
        if not isinstance(grader, CodeTests):
            return grader.grade(answer, self._sandbox)
        key = (problem.problem_id, extract_code(answer, grader.entry_point) or "")
        if key not in self._grades:
            try:
                self._grades[key] = grader.grade(answer, self._sandbox)
            except ProblemError as error:
                raise ProblemError(f"{problem.source or problem.problem_id}: {error}") from error
        return self._grades[key]


def _planned(
    assignments: Iterable[Assignment], catalog: Catalog
) -> dict[str, tuple[Assignment, str]]:
    """Every run of the design once, with its prompt version, by run id."""
    versions: dict[Plan, str] = {}
    planned: dict[str, tuple[Assignment, str]] = {}
    for assignment in assignments:
        plan = assignment.plan
        if plan not in versions:
            shape = topology(plan.topology)
            check_plan(plan, catalog, shape)
            versions[plan] = prompt_version(plan, catalog, shape)
        version = versions[plan]
        planned.setdefault(assignment.run_id(version), (assignment, version))
    return planned


def _check_prices(plans: Iterable[Plan], llm: ChatModel, budget_usd: float | None) -> None:
    models = sorted({model for plan in plans for model in plan.models})
    Ledger(budget_usd).check_prices({model: llm.price(model) for model in models})


def _outage(failures: Iterable[CallError]) -> CallError | None:
    """A failure that time may mend; raises CollectionError for one that meets every run."""
    kinds = {failure.kind: failure for failure in failures}
    for kind in _USELESS:
        if kind in kinds:
            raise CollectionError(f"stopped, since every run would fail: {kinds[kind]}")
    return kinds.get("circuit_open")


def _record(run_id: str, assignment: Assignment, run: Run, grade: Grade | None) -> LogRecord:
    problem = assignment.problem
    return LogRecord(
        run_id=run_id,
        query_id=problem.problem_id,
        query=problem.query,
        dataset=problem.dataset,
        plan=assignment.plan,
        score=None if grade is None else grade.score,
        score_source=grade.source if grade else _source(problem),
        usage=run.usage,
        agent_usage=tuple(replace(usage, cost_usd=None) for usage in run.agent_usage),
        task=problem.task,
        latency_s=run.latency_s,
        propensity=assignment.propensity,
        stage_propensities=assignment.stages,
        policy=assignment.policy,
        seed=assignment.seed,
        error=None if run.error is None else storable(run.error),
        timestamp=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )


def _source(problem: Problem) -> str:
    return "tests" if isinstance(problem.grader, CodeTests) else "exact_match"
