"""Runs a decision's team for one chat request: its budget, its deadline, its record.

Whatever becomes of the run, it is recorded: an answer, a failure, or what it had done until the
client left.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any

from masrouter.errors import BudgetError, ExecutionError
from masrouter.execution import CallEnded, Event, aexecute
from masrouter.execution.events import OnEvent
from masrouter.execution.ledger import total_usage
from masrouter.llms.chat import ChatModel
from masrouter.server.api_errors import ApiError, as_api_error
from masrouter.server.budgeted_model import BudgetedModel
from masrouter.server.budgets import BudgetBusyError, SpentError
from masrouter.server.chat_request import ChatAsked
from masrouter.server.decisions import decision_body
from masrouter.server.keys import Caller
from masrouter.server.service import ServedDecision, Service
from masrouter.topologies import TeamError, topology
from masrouter.types import Call, Plan, Run, Usage

CANCELLED = "cancelled: the client left, or the request's time was over"
_MARGIN_S = 2.0
"""The team's time is over so much before the request's, to answer with what there is."""


class TeamRun:
    """One run of a served decision's team. `llm` is what the team asks."""

    def __init__(
        self,
        service: Service,
        llm: ChatModel,
        caller: Caller,
        served: ServedDecision,
        asked: ChatAsked,
        *,
        spent_s: float = 0.0,
    ) -> None:
        """spent_s: seconds of the request's time that are over."""
        limits = service.settings.limits
        self.served = served
        self._service = service
        self._caller = caller
        self._asked = asked
        self._calls: list[Call] = []
        self._llm = BudgetedModel(
            llm, service.budgets, caller.name, patience_s=limits.queue_timeout_s
        )
        margin = min(_MARGIN_S, limits.request_timeout_s / 4)
        self._deadline_s = max(0.01, limits.request_timeout_s - spent_s - margin)

    async def run(self, on_event: OnEvent | None = None, *, stream_text: bool = False) -> Run:
        """The team's answer, recorded. Raises ApiError where there is none."""
        asked, plan = self._asked, self.served.plan
        began = asyncio.get_running_loop().time()

        def heard(event: Event) -> None:
            if isinstance(event, CallEnded):
                self._calls.append(event.call)
            if on_event is not None:
                on_event(event)

        most = self._service.budgets.most(self._caller.name)
        own = asked.options.max_cost_usd
        budgets = [usd for usd in (most, own) if usd is not None]
        try:
            run = await aexecute(
                plan,
                asked.conversation.query,
                llm=self._llm,
                catalog=self._service.catalog,
                budget_usd=min(budgets) if budgets else None,
                deadline_s=self._deadline_s,
                seed=secrets.randbits(48) if asked.seed is None else asked.seed,
                max_tokens=asked.max_tokens,
                topology=asked.conversation.told_to(
                    topology(plan.topology), temperature=asked.temperature
                ),
                on_event=heard,
                stream_text=stream_text,
            )
        except ExecutionError as error:
            self._service.ran(self.served, error.run)
            raise self._told(error, most) from error
        except BudgetError as error:
            raise self._unpriced() from error
        except asyncio.CancelledError:
            self._service.ran(self.served, self._cut_off(asyncio.get_running_loop().time() - began))
            raise
        self._service.ran(self.served, run)
        return run

    def _cut_off(self, latency_s: float) -> Run:
        """What a run had done when it was cancelled."""
        plan, calls = self.served.plan, self._calls
        return Run(
            plan=plan,
            query=self._asked.conversation.query,
            answer=None,
            usage=total_usage([call.usage for call in calls]),
            agent_usage=tuple(
                total_usage([call.usage for call in calls if call.agent == agent])
                for agent in range(len(plan.agents))
            ),
            calls=tuple(calls),
            latency_s=latency_s,
            error=CANCELLED,
            reserved_usd=self._llm.charged_usd,
        )

    def _told(self, error: ExecutionError, most: float | None) -> ApiError:
        """What the client is told of a run that failed."""
        if not (error.run.error or "").startswith("budget:"):
            return as_api_error(error)
        causes = _causes(error)
        if any(isinstance(cause, BudgetBusyError) for cause in causes):
            wait = self._service.settings.limits.retry_after_s
            return ApiError(
                429,
                "the budget is held by requests under way, which mostly cost less in the end; "
                f"ask again after {wait} s, or allow fewer tokens",
                type="rate_limit_exceeded",
                code="budget_busy",
                headers={"retry-after": str(wait)},
            )
        own = self._asked.options.max_cost_usd
        server_s = any(isinstance(cause, SpentError) for cause in causes)
        if own is not None and not server_s and (most is None or own <= most):
            return ApiError(
                400,
                "masrouter.max_cost_usd: the team's next call could have cost more than is left of "
                "it; raise it, allow fewer tokens (max_tokens), or cheaper models",
                code="max_cost_exceeded",
                param="masrouter.max_cost_usd",
            )
        return as_api_error(BudgetError())

    def _unpriced(self) -> ApiError:
        """There is a budget, and no price of a model: nothing was sent."""
        plan = self.served.plan
        names = [model for model in plan.models if self._llm.price(model) is None]
        return ApiError(
            400,
            f"no price is known for {', '.join(names)}, so that no budget can be kept: leave such "
            "models out (masrouter.exclude_models), or have the server told their prices",
            code="price_unknown",
        )


def _causes(error: ExecutionError) -> list[BaseException]:
    """What ended a run: the calls that failed, or whatever else."""
    cause = error.__cause__
    if isinstance(cause, TeamError):
        return [failure.error for failure in cause.failures]
    return [] if cause is None else [cause]


def usage_json(run: Run | None) -> dict[str, Any] | None:
    """OpenAI's usage of the whole team; None where any part of it is unknown. No run: nothing."""
    usage = Usage(0, 0, 0.0) if run is None else run.usage
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    if prompt is None or completion is None:
        return None
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def finish_reason(run: Run) -> str:
    """That of the call whose reply is the answer; `stop` where the answer is no single reply."""
    said = [call.finish_reason for call in run.calls if call.reply == run.answer]
    kept = said[-1] if said else None
    return kept if kept in ("length", "content_filter") else "stop"


def told_decision(served: ServedDecision) -> dict[str, Any]:
    """The decision as `/v1/decision` tells it; of a fixed plan, what there is to tell."""
    if served.decision is not None:
        return decision_body(served).model_dump(mode="json", exclude={"plans"})
    return {
        "object": "masrouter.decision",
        "id": served.id,
        "plan": served.plan.to_json(),
        "policy": served.policy,
        "propensity": served.propensity,
        "expected_cost_usd": served.expected_cost_usd,
        "reasons": list(served.reasons),
    }


def told_run(run: Run) -> dict[str, Any]:
    """What a run cost and how it went: the real figures beside the decision's expected ones."""
    return {
        "cost_usd": run.usage.cost_usd,
        "reserved_usd": run.reserved_usd,
        "prompt_tokens": run.usage.prompt_tokens,
        "completion_tokens": run.usage.completion_tokens,
        "latency_s": run.latency_s,
        "agents": _agents(run.plan, run.agent_usage),
        "calls": len(run.calls),
        "missing": list(run.missing),
        "notes": list(run.notes),
        "error": failure_kind(run.error),
    }


def told_usage(usage: Usage) -> Mapping[str, Any]:
    """Tokens and cost; null is unknown."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cost_usd": usage.cost_usd,
    }


def failure_kind(error: str | None) -> str | None:
    """What a failure was, without what a provider said about it."""
    return None if error is None else error.partition(":")[0]


def _agents(plan: Plan, usages: tuple[Usage, ...]) -> list[dict[str, Any]]:
    return [
        {"role": agent.role, "model": agent.model, **told_usage(usage)}
        for agent, usage in zip(plan.agents, usages, strict=True)
    ]
