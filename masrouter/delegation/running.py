"""Work on a batch: so many tasks at once, each after those it needs, each with a result of its own.

Who does a task is settled before (`delegator`). Every team runs through `aexecute` within one
ledger; what goes wrong with a task is its own error, and only being cancelled ends the batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from masrouter.catalog import Catalog
from masrouter.delegation.episodes.log import Episode
from masrouter.delegation.episodes.recording import Recording
from masrouter.delegation.grading import grading_of
from masrouter.delegation.query import task_query
from masrouter.delegation.task_errors import error_of, internal, needed_failed, too_late
from masrouter.delegation.tasks import (
    OnTaskEvent,
    Target,
    TargetKind,
    Task,
    TaskEnded,
    TaskError,
    TaskEvent,
    TaskResult,
    TaskRouted,
    TaskStarted,
    TaskWorking,
)
from masrouter.errors import ExecutionError
from masrouter.execution.dispatch import Clock
from masrouter.execution.events import Event
from masrouter.execution.ledger import Ledger
from masrouter.execution.runtime import aexecute
from masrouter.llms.chat import ChatModel
from masrouter.topologies.team import call_seed
from masrouter.types import Plan, RoutingDecision, Run, Usage

_NOTHING = Usage(0, 0, 0.0)


@dataclass(frozen=True, slots=True)
class Job:
    """A task, and who will do it, or why nobody can."""

    id: str
    task: Task
    target: Target | None = None
    plan: Plan | None = None
    decision: RoutingDecision | None = None
    error: TaskError | None = None
    """None where there is a target: of a policy, or with a plan."""
    asked: str | None = None
    """The name that decided, where it leads to no target."""

    @property
    def kind(self) -> TargetKind | None:
        """Of its target; None where there is none."""
        return None if self.target is None else self.target.kind


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyJob:
    """A job whose name is a policy's, when its turn has come."""

    id: str
    task: Task
    """Without its needs, its model and its id."""
    target: Target
    given: Mapping[str, str]
    """The answers that it needs, by the ids of their tasks."""
    ledger: Ledger
    clock: Clock
    seed: int
    working: Callable[[Event], None]
    """Is told what happens within its teams."""
    episode: Episode | None
    under: str | None


RunPolicy = Callable[[PolicyJob], Awaitable[TaskResult]]
"""Gives a result with the node of the log whose answer it is, if it was logged, and its grade, if
that has one. It raises nothing for what may go wrong with a task."""


class Tell:
    """Passes events on, and keeps a listener's fault away from work that costs money."""

    def __init__(self, on_event: OnTaskEvent | None) -> None:
        self._on_event = on_event

    def __call__(self, event: TaskEvent) -> None:
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception as error:
            self._on_event = None
            _report("on_event raised; the batch goes on without it", error)


class BatchWork:
    """The work on one batch. Used once, in the event loop that made it."""

    def __init__(
        self,
        llm: ChatModel,
        *,
        catalog: Catalog | None,
        ledger: Ledger,
        clock: Clock,
        max_concurrency: int,
        max_tokens: int,
        seed: int,
        tell: Tell,
        recording: Recording | None,
        run_policy: RunPolicy,
    ) -> None:
        """max_concurrency: tasks at once, and graders; what a policy hands out in turn comes on
        top. max_tokens: of an answer of a task that sets none. recording: keeps each result as it
        comes."""
        self._llm = llm
        self._catalog = catalog
        self._ledger = ledger
        self._clock = clock
        self._slots = asyncio.Semaphore(max_concurrency)
        self._graders = asyncio.Semaphore(max_concurrency)
        self._max_tokens = max_tokens
        self._seed = seed
        self._tell = tell
        self._recording = recording
        self._run_policy = run_policy
        self._ends: dict[str, asyncio.Future[TaskResult]] = {}

    async def results(self, jobs: Sequence[Job]) -> tuple[TaskResult, ...]:
        """Of all jobs, in their order. Their needs name sound jobs, or ones with an error."""
        loop = asyncio.get_running_loop()
        ends: list[asyncio.Future[TaskResult]] = [loop.create_future() for _ in jobs]
        # An id may stand twice where one of its tasks has a fault: then the sound one is meant.
        for job, end in sorted(zip(jobs, ends, strict=True), key=lambda pair: not pair[0].error):
            self._ends[job.id] = end
        async with asyncio.TaskGroup() as group:
            working = [
                group.create_task(self._result(index, job, end))
                for index, (job, end) in enumerate(zip(jobs, ends, strict=True))
            ]
        return tuple(work.result() for work in working)

    async def _result(self, index: int, job: Job, end: asyncio.Future[TaskResult]) -> TaskResult:
        try:
            result = await self._answer(index, job)
        except asyncio.CancelledError as stopped:
            if _is_cancelled():
                raise
            result = _broken(job, stopped)  # somebody's stray one, which ends one task only
        except Exception as failure:
            result = _broken(job, failure)
        end.set_result(result)
        graded = result.grading is not None  # by the policy's part whose answer it is
        if result.answer is not None and job.task.grade is not None and not graded:
            async with self._graders:
                given = await grading_of(job.task.grade, result.answer, until=self._clock.end)
            result = replace(result, grading=given)
        if self._recording is not None:
            if result.node is None:
                seed = self._seed_of(index, job)
                result = await self._recording.keep(index, job.task, result, seed)
            elif result.grading is not None and not graded:
                await self._recording.grade(result.node, result.grading)
        self._tell(TaskEnded(result))
        return result

    async def _answer(self, index: int, job: Job) -> TaskResult:
        if job.error is not None or job.target is None or not (job.plan or job.target.policy):
            return _failed(job, job.error or internal(RuntimeError()))
        self._tell(TaskRouted(job.id, job.target, job.plan, job.decision))
        try:
            async with asyncio.timeout_at(self._clock.end) as limit:
                needed = [await asyncio.shield(self._ends[id]) for id in job.task.needs]
                for result in needed:
                    if result.error is not None:
                        return _failed(job, needed_failed(result.id, result.error))
                await self._slots.acquire()
        except TimeoutError:
            if not limit.expired():
                raise
            return _failed(job, too_late(self._clock.deadline_s, job.target.asked))
        try:
            left_s = self._clock.left()
            if left_s is not None and left_s <= 0:
                return _failed(job, too_late(self._clock.deadline_s, job.target.asked))
            if job.plan is None:
                return await self._by_policy(index, job, job.target, needed)
            return await self._run(index, job, job.target, job.plan, needed, left_s)
        finally:
            self._slots.release()

    async def _run(
        self,
        index: int,
        job: Job,
        target: Target,
        plan: Plan,
        needed: Sequence[TaskResult],
        left_s: float | None,
    ) -> TaskResult:
        self._tell(TaskStarted(job.id))
        task = job.task
        given = {result.id: result.answer or "" for result in needed}
        started = self._clock.now()
        try:
            run = await aexecute(
                plan,
                task_query(task.goal, task.context, given),
                llm=self._llm,
                catalog=self._catalog,
                within=self._ledger,
                deadline_s=left_s,
                seed=self._seed_of(index, job),
                max_tokens=task.max_tokens or self._max_tokens,
                on_event=lambda event: self._working(job.id, event),
            )
        except Exception as failure:
            done = failure.run if isinstance(failure, ExecutionError) else None
            latency_s = self._clock.now() - started
            return _result_of(job, plan, done, latency_s, error_of(failure, target.asked))
        return _result_of(job, plan, run, run.latency_s, None)

    async def _by_policy(
        self, index: int, job: Job, target: Target, needed: Sequence[TaskResult]
    ) -> TaskResult:
        self._tell(TaskStarted(job.id))
        recording = self._recording
        task = replace(job.task, model=None, id=None, needs=())
        result = await self._run_policy(
            PolicyJob(
                id=job.id,
                # What is logged is graded part by part; else only what becomes of it counts.
                task=task if recording is not None else replace(task, grade=None),
                target=target,
                given={result.id: result.answer or "" for result in needed},
                ledger=self._ledger,
                clock=self._clock,
                seed=self._seed_of(index, job),
                working=lambda event: self._working(job.id, event),
                episode=None if recording is None else recording.episode,
                under=None if recording is None else recording.under,
            )
        )
        return replace(result, goal=job.task.goal)

    def _seed_of(self, index: int, job: Job) -> int:
        return call_seed(self._seed, index, job.id)

    def _working(self, id: str, event: Event) -> None:
        self._tell(TaskWorking(id, event))


def _result_of(
    job: Job, plan: Plan, run: Run | None, latency_s: float, error: TaskError | None
) -> TaskResult:
    calls = () if run is None else run.calls
    answered = (call.answered_by for call in calls if call.answered_by is not None)
    return TaskResult(
        id=job.id,
        goal=job.task.goal,
        asked=None if job.target is None else job.target.asked,
        source=None if job.target is None else job.target.source,
        plan=plan,
        models=tuple(dict.fromkeys(answered)),
        answer=None if run is None or error is not None else run.answer,
        usage=_NOTHING if run is None else run.usage,
        latency_s=latency_s,
        error=error,
        decision=job.decision,
        run=run,
    )


def _failed(job: Job, error: TaskError) -> TaskResult:
    """Of a task for which nothing was sent."""
    return TaskResult(
        id=job.id,
        goal=job.task.goal if isinstance(job.task.goal, str) else "",
        asked=job.asked if job.target is None else job.target.asked,
        source=None if job.target is None else job.target.source,
        plan=None,
        models=(),
        answer=None,
        usage=_NOTHING,
        latency_s=0.0,
        error=error,
        decision=job.decision,
    )


def _broken(job: Job, failure: BaseException) -> TaskResult:
    """Of a task whose work ended without a trace: what it took is unknown."""
    failed = _failed(job, internal(failure, None if job.target is None else job.target.asked))
    return replace(failed, plan=job.plan, usage=Usage())


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _report(message: str, error: Exception) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
