"""Hand out tasks, each to the model or team that fits it: `Delegator`, and two plain functions.

    tasks ── `intake` ─┬─ `naming` ────► who was asked for ───┬─ `running` ──► results, in the
                       └─ `automatic` ─► who the router picks ┘   │    ▲       tasks' order
                                                                  └────┴─ `policies`, which hand
                                                                          out tasks in turn

A batch has one ledger. What is wrong with a task is that task's error; what is wrong with a call as
a whole (too many tasks, a budget that is no number) is raised before anything is sent.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from typing import TypedDict, Unpack

from masrouter.catalog import Catalog
from masrouter.delegation.automatic.auto import Auto, remembering
from masrouter.delegation.automatic.costs import at_prices_of, committed_usd, most_call_usd
from masrouter.delegation.episodes.log import Episode, EpisodeLog
from masrouter.delegation.episodes.recording import Recording
from masrouter.delegation.intake import Taken, check_options, take_in
from masrouter.delegation.naming.model_names import callable_models, learned_names, renamed
from masrouter.delegation.naming.names import Names
from masrouter.delegation.naming.offers import Offer, offers_of
from masrouter.delegation.naming.settings import AUTO, Settings
from masrouter.delegation.query import task_query
from masrouter.delegation.running import BatchWork, Job, PolicyJob, Tell
from masrouter.delegation.task_errors import error_of, needed_failed
from masrouter.delegation.tasks import (
    Batch,
    DelegationError,
    OnTaskEvent,
    Target,
    Task,
    TaskResult,
)
from masrouter.delegation.workers.worker import Worker, with_workers
from masrouter.encoder import Encoder, load_encoder
from masrouter.errors import ConfigError
from masrouter.execution.dispatch import Clock
from masrouter.execution.ledger import Ledger
from masrouter.llms.chat import ChatModel
from masrouter.router import Router
from masrouter.topologies.registry import topology_names
from masrouter.types import Plan, RoutingDecision


class CallOptions(TypedDict, total=False):
    """What `delegate_task` and `delegate_tasks` of a `Delegator` take besides their tasks."""

    model: str | None
    parent_model: str | None
    budget_usd: float | None
    deadline_s: float | None
    within: Ledger | None
    cost_weight: float | None
    seed: int
    on_event: OnTaskEvent | None
    episode: Episode | None
    under: str | None


class Delegator:
    """Hands out tasks to models, teams and workers. Safe to use from many coroutines at once."""

    def __init__(
        self,
        llm: ChatModel,
        settings: Settings | None = None,
        *,
        router: Router | None = None,
        workers: Sequence[Worker] = (),
        catalog: Catalog | None = None,
        episodes: EpisodeLog | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        """llm: calls the models. settings: names, what is allowed, limits. router: decides `auto`.
        workers: callables that stand among the models. catalog: roles with their prompts and what
        models are good at; None is the default one. episodes: where every result is logged.
        encoder: compares requests with workers' descriptions; None takes the router's, or without
        one the default, loaded when a policy first needs it."""
        self.llm = with_workers(llm, workers)
        self.settings = Settings() if settings is None else settings
        self.router = router
        self.workers = tuple(workers)
        self.catalog = Catalog.default() if catalog is None else catalog
        self.episodes = episodes
        self._models = llm
        self._chooser = None if router is None else remembering(router)
        own = None if self._chooser is None else self._chooser.encoder
        self._encoder = _Encoder(own if encoder is None else encoder)

    def encoder(self) -> Encoder:
        """What compares requests with workers' descriptions. It may load a model, once, which
        takes seconds: call it in a worker thread. Raises what `load_encoder` raises."""
        return self._encoder.loaded()

    def offers(self) -> tuple[Offer, ...]:
        """All that a task may be given to, as it stands now: keys may come and go."""
        return offers_of(self._models, self.settings, self.catalog, self.workers, self.router)

    @property
    def names(self) -> Names:
        """Where a name leads, as it stands now.

        Raises ConfigError for names that clash, or settings that name what is not there.
        """
        return Names(
            self.settings,
            self.offers(),
            has_router=self.router is not None,
            llm=self._models,
        )

    async def delegate_task(self, task: Task | str, **options: Unpack[CallOptions]) -> TaskResult:
        """What became of one task; a text is a task's goal. See `delegate_tasks`."""
        only = Task(task) if isinstance(task, str) else task
        return (await self.delegate_tasks([only], **options)).results[0]

    async def delegate_tasks(
        self,
        tasks: Sequence[Task],
        *,
        model: str | None = None,
        parent_model: str | None = None,
        budget_usd: float | None = None,
        deadline_s: float | None = None,
        within: Ledger | None = None,
        cost_weight: float | None = None,
        seed: int = 0,
        on_event: OnTaskEvent | None = None,
        episode: Episode | None = None,
        under: str | None = None,
        max_concurrency: int | None = None,
    ) -> Batch:
        """What became of each task, in their order, and what all of it took.

        A task sees its goal, its context and the answers it needs; who works on it is what it asks
        for itself, else `model`, else the settings' default, else the parent's model. A name that
        leads nowhere is that task's error, and nothing else is tried in its place.

        Args:
            model: of tasks that name none. parent_model: of those that nobody named one for.
            budget_usd: for all of them together; a call's worst cost is reserved before it is sent.
            deadline_s: seconds for the whole batch.
            within: the books of what this batch is a part of, whose budget holds too.
            cost_weight: for `auto`: score units that a US dollar is worth.
            seed: each task gets one of its own, derived from it.
            on_event: called with each event of each task.
            episode, under: where the results belong in a tree of decisions; without an episode,
                a Delegator that has a log opens one for this call.
            max_concurrency: tasks at once; None takes the settings'. What a policy hands out within
                its task comes on top.

        Raises ConfigError for an argument or settings that cannot be meant, RoutingError for such a
        cost weight, DelegationError of type `limit` for too many tasks, LogError where no episode
        can be opened: nothing was sent then. Cancelling it cancels every call.
        """
        check_options(deadline_s, cost_weight, max_concurrency, seed)
        self._check_place(episode, under)
        clock = Clock(deadline_s)
        ledger = Ledger(budget_usd, within=within)
        taken = take_in(
            tasks,
            max_tasks=self.settings.max_tasks,
            max_goal_characters=self.settings.max_goal_characters,
        )
        left_usd = ledger.left_usd

        def settled() -> tuple[Names, list[Job]]:
            names = self.names
            budgeted = left_usd is not None
            resolve = partial(names.resolve, call=model, parent=parent_model, budgeted=budgeted)
            jobs = [_job(each, resolve) for each in taken]
            if any(job.target is not None and job.target.kind == "auto" for job in jobs):
                jobs = self._with_auto(jobs, names, left_usd, cost_weight)
            return names, jobs

        # Hundreds of models, near names and a router take their time.
        names, jobs = await asyncio.to_thread(settled)
        recording = None
        if self.episodes is not None and jobs:
            recording = await asyncio.to_thread(
                partial(
                    Recording,
                    self.episodes,
                    [job.task for job in jobs],
                    episode=episode,
                    under=under,
                    learned=learned_names(names, self.router, self.catalog),
                )
            )
        work = BatchWork(
            self.llm,
            catalog=self.catalog,
            ledger=ledger,
            clock=clock,
            max_concurrency=max_concurrency or self.settings.max_concurrency,
            max_tokens=self.settings.max_tokens,
            seed=seed,
            tell=Tell(on_event),
            recording=recording,
            run_policy=partial(self._run_policy, cost_weight),
        )
        results = await work.results(jobs)
        kept = None if recording is None else recording.episode.id
        return Batch(results, clock.now(), budget_usd, ledger.charged_usd, kept)

    async def _run_policy(self, cost_weight: float | None, asked: PolicyJob) -> TaskResult:
        # Policies hand out tasks by a Delegator: they stand above it, and bring much along.
        from masrouter.delegation.policies.running import run_policy

        # The task has kept to its limit. What a policy adds of its own, and the answers that the
        # task needs, are not counted then, as they are not for a model.
        parts = copy(self)
        parts.settings = replace(self.settings, max_goal_characters=sys.maxsize)
        return await run_policy(asked, delegator=parts, cost_weight=cost_weight)

    def _check_place(self, episode: Episode | None, under: str | None) -> None:
        if episode is not None and self.episodes is None:
            raise ConfigError("episode: there is no log of episodes; give the Delegator `episodes`")
        if under is not None and episode is None:
            raise ConfigError(f"under: {under!r} is a node of an episode; give the episode too")

    def _with_auto(
        self, jobs: list[Job], names: Names, left_usd: float | None, cost_weight: float | None
    ) -> list[Job]:
        """Jobs for which the router has chosen. It computes: call it in a worker thread."""
        assert self._chooser is not None  # `names` lets nobody ask for auto without a router
        router = self._chooser
        jobs = _without_lost(jobs)
        sound = {
            at: task_query(job.task.goal, job.task.context)
            for at, job in enumerate(jobs)
            if job.error is None
        }
        asking = [at for at in sound if jobs[at].kind == "auto"]
        settled = [(text, plan) for at, text in sound.items() if (plan := jobs[at].plan)]
        usual = self.settings.max_tokens
        tokens = {sound[at]: jobs[at].task.max_tokens or usual for at in sound}
        most = most_call_usd(self.llm, self.catalog, tokens, usual)
        budgeted = left_usd is not None
        called = callable_models(names, router, budgeted=budgeted)
        learned = learned_names(names, router, self.catalog)
        try:
            router = at_prices_of(self.llm, router, called)
            auto = Auto(
                router,
                called,
                topologies=topology_names(),
                most_call_usd=lambda query, plan: most(query, renamed(plan, called)),
            )
            later: list[str] = []  # tasks by auto that policies are going to hand out
            if budgeted:
                for at, text in sound.items():
                    for plan in self._policy_plans(jobs[at], names):
                        if plan is None:
                            later.append(text)
                        else:
                            settled.append((text, plan))
            committed = committed_usd(self.llm, router, settled, learned, most) if budgeted else 0.0
            chosen = auto.choose(
                [*(sound[at] for at in asking), *later],
                budget_usd=left_usd,
                committed_usd=committed,
                cost_weight=cost_weight,
            )[: len(asking)]
        except Exception as failure:  # the router's fault is no fault of the named tasks
            error = error_of(failure, AUTO)
            chosen = [DelegationError(error) for _ in asking]
        done = list(jobs)
        for at, decision in zip(asking, chosen, strict=True):
            if isinstance(decision, RoutingDecision):
                plan = renamed(decision.plan, called)
                done[at] = replace(jobs[at], plan=plan, decision=decision)
            else:
                done[at] = replace(jobs[at], error=decision.error)
        return done

    def _policy_plans(self, job: Job, names: Names) -> Iterator[Plan | None]:
        """What a policy's task is going to call at most, about; None is a call of `auto`."""
        if job.target is None or job.target.policy is None:
            return
        for name, times in self.settings.policies[job.target.policy].calls:
            yield from [names.resolve(name, budgeted=True).plan] * times


class _Encoder:
    """An encoder that is loaded when it is first needed, and once."""

    def __init__(self, encoder: Encoder | None) -> None:
        self._encoder = encoder
        self._loading = threading.Lock()

    def loaded(self) -> Encoder:
        with self._loading:
            if self._encoder is None:
                self._encoder = load_encoder()
            return self._encoder


def delegate_task(
    task: Task | str,
    *,
    llm: ChatModel,
    settings: Settings | None = None,
    router: Router | None = None,
    workers: Sequence[Worker] = (),
    catalog: Catalog | None = None,
    episodes: EpisodeLog | None = None,
    **options: Unpack[CallOptions],
) -> TaskResult:
    """`Delegator.delegate_task` for code that is not asynchronous; it has an event loop of its own.

    Raises ConfigError where one is running already, and what `Delegator.delegate_tasks` raises.
    """
    delegator = Delegator(
        llm, settings, router=router, workers=workers, catalog=catalog, episodes=episodes
    )
    _check_no_loop("delegate_task")
    return asyncio.run(delegator.delegate_task(task, **options))


def delegate_tasks(
    tasks: Sequence[Task],
    *,
    llm: ChatModel,
    settings: Settings | None = None,
    router: Router | None = None,
    workers: Sequence[Worker] = (),
    catalog: Catalog | None = None,
    episodes: EpisodeLog | None = None,
    max_concurrency: int | None = None,
    **options: Unpack[CallOptions],
) -> Batch:
    """`Delegator.delegate_tasks` for code that is not asynchronous, as `delegate_task` is."""
    delegator = Delegator(
        llm, settings, router=router, workers=workers, catalog=catalog, episodes=episodes
    )
    _check_no_loop("delegate_tasks")
    return asyncio.run(delegator.delegate_tasks(tasks, max_concurrency=max_concurrency, **options))


def _job(taken: Taken, resolve: Callable[[str | None], Target]) -> Job:
    """Who was asked for, where the task is sound."""
    if taken.error is not None:
        return Job(taken.id, taken.task, error=taken.error)
    try:
        target = resolve(taken.task.model)
    except DelegationError as failure:
        return Job(taken.id, taken.task, error=failure.error, asked=failure.error.asked)
    return Job(taken.id, taken.task, target, target.plan)


def _without_lost(jobs: Sequence[Job]) -> list[Job]:
    """Jobs whose needs cannot come have that error at once, and no part of the budget."""
    done = list(jobs)
    failed = {job.id: job.error for job in jobs if job.error is not None}
    for job in jobs:
        if job.error is None:
            failed.pop(job.id, None)  # the id is its own; a faulty task's was made up
    found = True
    while found:
        found = False
        for at, job in enumerate(done):
            if job.error is not None:
                continue
            need = next((id for id in job.task.needs if id in failed), None)
            if need is not None:
                failed[job.id] = needed_failed(need, failed[need])
                done[at] = replace(job, error=failed[job.id])
                found = True
    return done


def _check_no_loop(name: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ConfigError(
        f"{name}: an event loop is running here (async code, a notebook); "
        f"use `await Delegator(...).{name}(...)`"
    )
