"""What the endpoints share: the router, the models, the records, and how a decision is made.

A decision is routed in a worker thread, so that the event loop stays free; it may explore, or keep
the plan of its session; and it is recorded. Running the team is `chat`'s.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from fastapi import Request

from masrouter.catalog import Catalog
from masrouter.encoder.batching import BatchingEncoder
from masrouter.encoder.memo import MemoEncoder, MemoStats
from masrouter.errors import ConfigError, PlanError
from masrouter.explanation import PlanFigures
from masrouter.llms import ChatModel, Providers
from masrouter.router import Router
from masrouter.server.api_errors import ApiError
from masrouter.server.budgets import Budgets
from masrouter.server.exploration import Explored, Explorer
from masrouter.server.keys import Caller
from masrouter.server.records import DecisionRecord, Records
from masrouter.server.schemas import RoutingOptions
from masrouter.server.sessions import Sessions
from masrouter.server.settings import ServerSettings
from masrouter.server.telemetry import Telemetry
from masrouter.server.tracing import Tracing
from masrouter.topologies import check_plan, topology
from masrouter.types import Plan, RoutingDecision, Run

DATASET = "served"
SESSION = "session"
"""Policy of a plan that was kept from earlier in its session."""
_WORKERS = 16
"""Threads that route; most of them wait for a forward that they share."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ServedDecision:
    """A team for a query, as it was recorded."""

    id: str
    """`dec_` and 32 hex digits."""
    plan: Plan
    """The team to run: the session's or the fixed one, where it is not the router's choice."""
    decision: RoutingDecision | None
    """What the router decided now; None for a fixed plan, which it was not asked about."""
    policy: str
    """Who picked the plan: a checkpoint's id, `session`, `plan NAME`."""
    propensity: float | None
    """None where the router was not free to choose."""
    sticky: bool
    """Whether the plan was kept from the session."""
    explored: bool
    """Whether the plan was drawn from the cascade."""
    expected_cost_usd: float | None
    """Of `plan` on this query; None where nobody can tell."""
    reasons: tuple[str, ...]
    """Why `plan`."""

    @property
    def chosen(self) -> bool:
        """Whether `plan` is the one that `decision` speaks of."""
        return self.decision is not None and self.decision.plan == self.plan


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a query comes from, for the served log."""

    dataset: str = DATASET
    task: str | None = None


class Service:
    """Made once a process, before the app. `aclose` writes what waits and lets everything go."""

    def __init__(
        self,
        router: Router,
        *,
        llm: ChatModel | None = None,
        settings: ServerSettings | None = None,
        catalog: Catalog | None = None,
        unserved: Sequence[str] = (),
        telemetry: Telemetry | None = None,
        tracing: Tracing | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """llm: None serves decisions alone. catalog: roles with their prompts, for running teams;
        None is the default one. unserved: models of the router's plans that `llm` cannot be asked
        for; no plan with one is decided for. telemetry, tracing: told of every decision, run and
        outcome. rng: of the exploration, for repeatable tests.

        Raises ConfigError where the settings ask for what the router cannot do or name a plan that
        no team could run, or the records cannot be opened.
        """
        # Concurrent queries share forwards, and a repeated text is embedded once.
        self._memo = MemoEncoder(BatchingEncoder(router.encoder))
        self.router = router.with_encoder(self._memo)
        self.llm = llm
        self.settings = settings or ServerSettings()
        self.catalog = catalog or Catalog.default()
        self.unserved = tuple(unserved)
        _check_plans(self.settings.plans, self.catalog)
        self._explorer = Explorer(self.router, self.settings.exploration, rng)
        self.records = Records(self.settings.records, keep_days=self.settings.keep_days)
        self.budgets = Budgets(
            self.settings.budget_usd,
            {entry.name: entry.budget_usd for entry in self.settings.keys},
            spent=self.records.spending(),
        )
        self.sessions = Sessions(self.settings.session_ttl_s)
        self.telemetry = telemetry
        self.tracing = tracing
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="masrouter-route")

    @property
    def policy(self) -> str:
        """Who picks where nothing is fixed."""
        name = self.router.checkpoint or "router"
        epsilon = self.settings.exploration
        return f"epsilon {epsilon:g} around {name}" if epsilon else name

    @property
    def memo(self) -> MemoStats:
        """How often a text's embedding was known."""
        return self._memo.stats

    async def decide(
        self,
        query: str,
        options: RoutingOptions | None = None,
        *,
        caller: Caller,
        session: str | None = None,
        dataset: str = DATASET,
        task: str | None = None,
    ) -> ServedDecision:
        """The team for a query, recorded. In a session, its first team while the options allow it.

        Raises ApiError for a query or a name that cannot be meant, ConstraintError where no plan
        meets the options.
        """
        began = time.perf_counter()
        options = options or RoutingOptions()
        kept = None if session is None else self.sessions.get(caller.name, session)
        if session is None or kept is None or not self._may_keep(kept, options):
            [served] = await self.decide_all(
                [query], options, caller=caller, dataset=dataset, task=task
            )
        else:
            self._check([query], options)
            arguments = options.arguments(unserved=self.unserved)
            served = await self._in_thread(
                lambda: self._kept_or_routed(query, kept, options, arguments)
            )
            self._record(query, served, caller, Origin(dataset, task), began)
        # Of requests that began a session at once, the first to be decided names its team.
        if (
            session is not None
            and not served.sticky
            and self.sessions.get(caller.name, session) == kept
        ):
            self.sessions.put(caller.name, session, served.plan)
        return served

    async def decide_all(
        self,
        queries: Sequence[str],
        options: RoutingOptions | None = None,
        *,
        caller: Caller,
        dataset: str = DATASET,
        task: str | None = None,
    ) -> list[ServedDecision]:
        """`decide` for several queries under the same options, without a session."""
        began = time.perf_counter()
        options = options or RoutingOptions()
        self._check(queries, options)
        arguments = options.arguments(unserved=self.unserved)
        explored = await self._in_thread(lambda: self._explorer.route(queries, arguments))
        found = []
        for query, one in zip(queries, explored, strict=True):
            served = self._served(one)
            self._record(query, served, caller, Origin(dataset, task), began, one.stages)
            found.append(served)
        return found

    async def decide_fixed(
        self,
        query: str,
        name: str,
        *,
        caller: Caller,
        dataset: str = DATASET,
        task: str | None = None,
    ) -> ServedDecision:
        """The settings' plan of this name, recorded; raises ApiError 404 where there is none."""
        began = time.perf_counter()
        plan = self.settings.plans.get(name)
        if plan is None:
            raise ApiError(404, "there is no fixed plan of this name", code="model_not_found")
        self._check([query], RoutingOptions())
        cost = None
        if plan in self.router.plans:
            figures = await self._in_thread(lambda: self._figures(query, plan, {}))
            cost = figures.cost_usd
        served = ServedDecision(
            id=_new_id(),
            plan=plan,
            decision=None,
            policy=f"plan {name}",
            propensity=None,
            sticky=False,
            explored=False,
            expected_cost_usd=cost,
            reasons=("the request named this plan",),
        )
        self._record(query, served, caller, Origin(dataset, task), began)
        return served

    def ran(self, served: ServedDecision, run: Run) -> None:
        """Record what became of a decision's team, an answer or not. Once a decision."""
        self.records.add_run(served.id, run)
        if self.telemetry is not None:
            self.telemetry.run(run)
        if self.tracing is not None:
            self.tracing.run(run, served)

    async def compared(self, query: str, options: RoutingOptions) -> tuple[PlanFigures, ...]:
        """Every plan's figures on a query, best utility first. Records nothing."""
        self._check([query], options)
        arguments = options.arguments(unserved=self.unserved)
        return await self._in_thread(lambda: self.router.explain(query, **arguments).plans)

    async def aclose(self) -> None:
        """Close the models' connections, write what waits, end the threads. Twice does nothing."""
        try:
            if isinstance(self.llm, Providers):
                await self.llm.aclose()
        finally:
            self._workers.shutdown(wait=False, cancel_futures=True)
            await asyncio.to_thread(self.records.close)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._workers, work)

    def _check(self, queries: Sequence[str], options: RoutingOptions) -> None:
        most = self.settings.limits.max_query_characters
        for query in queries:
            if not query.strip():
                raise ApiError(400, "query: expected a text", code="empty_query", param="query")
            if len(query) > most:
                raise ApiError(
                    400,
                    f"query: expected at most {most:,} characters",
                    code="query_too_long",
                    param="query",
                )
        options.check_names(self.router)

    def _may_keep(self, plan: Plan, options: RoutingOptions) -> bool:
        return options.allows(plan) and not set(plan.models) & set(self.unserved)

    def _kept_or_routed(
        self, query: str, kept: Plan, options: RoutingOptions, arguments: Mapping[str, Any]
    ) -> ServedDecision:
        """The session's plan where the budget of the request covers it, else a fresh choice."""
        explanation = self.router.explain(query, **arguments)
        costs = {figures.plan: figures.cost_usd for figures in explanation.plans}
        cost, most = costs.get(kept), options.max_cost_usd
        decision = explanation.decision
        if most is not None and (cost is None or cost > most):
            [explored] = self._explorer.route([query], arguments)
            return self._served(explored)
        why = "the session's team is kept, so that its prompt caches stay warm"
        if decision.plan != kept:
            why += f"; a new session would get {decision.plan}"
        return ServedDecision(
            id=_new_id(),
            plan=kept,
            decision=decision,
            policy=SESSION,
            propensity=None,
            sticky=True,
            explored=False,
            expected_cost_usd=cost,
            reasons=(why,),
        )

    def _figures(self, query: str, plan: Plan, arguments: Mapping[str, Any]) -> PlanFigures:
        found = self.router.explain(query, **arguments).plans
        return next(figures for figures in found if figures.plan == plan)

    def _served(self, explored: Explored) -> ServedDecision:
        decision = replace(explored.decision, propensity=explored.propensity or 0.0)
        return ServedDecision(
            id=_new_id(),
            plan=decision.plan,
            decision=decision,
            policy=self.policy,
            propensity=explored.propensity,
            sticky=False,
            explored=explored.drawn,
            expected_cost_usd=decision.expected_cost_usd,
            reasons=decision.reasons,
        )

    def _record(
        self,
        query: str,
        served: ServedDecision,
        caller: Caller,
        origin: Origin,
        began: float,
        stages: Mapping[str, Any] | None = None,
    ) -> None:
        # Without exploration the router could pick but one plan: such rows are observational, and
        # say nothing of others, however they are weighed.
        free = self.settings.exploration > 0
        self.records.add_decision(
            DecisionRecord(
                id=served.id,
                caller=caller.name,
                query=query,
                dataset=origin.dataset,
                task=origin.task,
                plan=served.plan,
                policy=served.policy,
                propensity=served.propensity if free else None,
                stages=stages if free else None,
            )
        )
        seconds = time.perf_counter() - began
        if self.telemetry is not None:
            self.telemetry.decision(served, seconds)
        if self.tracing is not None:
            self.tracing.decision(served, seconds)


def get_service(request: Request) -> Service:
    """FastAPI dependency: the app's service."""
    service: Service = request.app.state.service
    return service


def _check_plans(plans: Mapping[str, Plan], catalog: Catalog) -> None:
    for name, plan in plans.items():
        try:
            check_plan(plan, catalog, topology(plan.topology))
        except PlanError as error:
            raise ConfigError(f"plans: {name}: {error}") from error


def _new_id() -> str:
    return f"dec_{secrets.token_hex(16)}"
