"""A framework's way to call models, seen as a masrouter ChatModel: what runs a plan in every host.

A host gives one coroutine that asks one of its models and says what came back. Here is the rest:
prices, the meter, the deadline, and failures as a team knows them.

The framework's own retries and timeouts stay in force inside a call. Where it tries again and both
tries are billed, a run's budget sees one of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import TypedDict

from masrouter.catalog import Catalog
from masrouter.errors import CallError, CallKind, PlanError
from masrouter.execution import aexecute
from masrouter.execution.events import OnEvent
from masrouter.llms.chat import ChatRequest, Completion, Meter, Price
from masrouter.llms.prices import catalog_price
from masrouter.topologies.prompts import system_prompt
from masrouter.topologies.registry import Topology
from masrouter.topologies.team import ExampleTests, MaxTokens
from masrouter.types import Agent, Plan, Run, Usage


class ExecutionOptions(TypedDict, total=False):
    """Options of `aexecute` that `run_plan` passes on."""

    catalog: Catalog | None
    budget_usd: float | None
    deadline_s: float | None
    max_concurrency: int
    seed: int
    examples: ExampleTests | None
    max_tokens: MaxTokens | int | None
    topology: Topology | None
    on_event: OnEvent | None


@dataclass(frozen=True, slots=True)
class Said:
    """What a framework's model said. None is unknown."""

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None


AskModel = Callable[[ChatRequest], Awaitable[Said]]


class HostModel:
    """A ChatModel whose calls a framework makes.

    names: the models that may be asked. ask: makes one call. catalog: prices; None is the default
    one. Text is not streamed: `on_text` gets the whole text at once.
    """

    def __init__(
        self, names: Collection[str], ask: AskModel, *, catalog: Catalog | None = None
    ) -> None:
        self.names = names
        self._ask = ask
        self._catalog = Catalog.default() if catalog is None else catalog

    def price(self, model: str) -> Price | None:
        """The catalog's price."""
        return catalog_price(self._catalog, model)

    async def complete(
        self,
        request: ChatRequest,
        *,
        timeout_s: float | None = None,
        meter: Meter | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        """See ChatModel; a request that offers tools is refused, as hosts' models get none here."""
        if request.tools:
            raise CallError(
                f"{request.model}: a host's model is asked for text alone, and this request offers "
                "tools; ask a model that masrouter calls itself, or offer none",
                kind="rejected",
                model=request.model,
            )
        if request.model not in self.names:
            raise CallError(
                f"no model {request.model!r} was given; given: {', '.join(self.names)}",
                kind="unknown_model",
                model=request.model,
            )
        clock = asyncio.get_running_loop().time
        started = clock()
        if meter is not None:
            meter.reserve()
        usage: Usage | None = None
        billed = True
        try:
            async with asyncio.timeout(timeout_s):
                said = await self._ask(request)
            usage = self._usage(request.model, said)
        except Exception as error:
            failure = _call_error(error, request.model)
            billed = failure.status is None
            raise failure from error
        finally:
            if meter is not None:
                meter.settle(usage) if billed else meter.release()
        if on_text is not None:
            on_text(said.text)
        return Completion(
            text=said.text,
            usage=usage,
            model=request.model,
            finish_reason=said.finish_reason,
            latency_s=clock() - started,
        )

    def _usage(self, model: str, said: Said) -> Usage:
        prompt, completion = said.prompt_tokens, said.completion_tokens
        price = self.price(model)
        known = price is not None and prompt is not None and completion is not None
        cost = price.cost_usd(prompt, completion) if known else None  # type: ignore[union-attr, arg-type]
        return Usage(prompt, completion, cost)


async def run_in_host(plan: Plan, query: str, llm: HostModel, options: ExecutionOptions) -> Run:
    """`aexecute` on a framework's models. Raises PlanError for a plan with a model it lacks."""
    check_given(plan, llm.names)
    return await aexecute(plan, query, llm=llm, **options)


def check_given(plan: Plan, names: Collection[str]) -> None:
    """Raises PlanError unless every model of the plan was given."""
    lacking = [model for model in plan.models if model not in names]
    if lacking:
        raise PlanError(
            f"plan: {plan} needs {', '.join(map(repr, lacking))}, and the models given are "
            f"{', '.join(names) or 'none'}; give all of them by name"
        )


SeatKey = tuple[str, str]
"""A model and a system prompt: what a call says of the seat that it is made for."""


def seats_of(plan: Plan, catalog: Catalog | None) -> dict[SeatKey, Agent]:
    """The seats of a plan that differ, by what their calls look like: see `seat_key`."""
    known = Catalog.default() if catalog is None else catalog
    return {(agent.model, system_prompt(agent, known)): agent for agent in plan.agents}


def seat_key(request: ChatRequest) -> SeatKey:
    """Which of `seats_of` a call is made for."""
    return request.model, request.messages[0].content


def _call_error(error: Exception, model: str) -> CallError:
    if isinstance(error, CallError):
        return error
    status = getattr(error, "status_code", None)
    status = status if isinstance(status, int) and 400 <= status < 600 else None
    return CallError(
        f"{model}: {type(error).__name__}: {error}",
        kind=_kind(error, status),
        model=model,
        status=status,
        attempts=1,
    )


def _kind(error: Exception, status: int | None) -> CallKind:
    """By the HTTP status, where the framework says it; else by what the error is called."""
    if status is not None:
        named: dict[int, CallKind] = {
            401: "unauthorised",
            403: "unauthorised",
            408: "timeout",
            429: "rate_limited",
        }
        return named.get(status, "server_error" if status >= 500 else "rejected")
    name = type(error).__name__.lower()
    if "timeout" in name:
        return "timeout"
    return "connection" if "connect" in name else "bad_response"
