"""Run a plan on a query: `execute`, `aexecute`, and `stream` for its events.

What is checked is checked before anything is sent. After that every way to end, but being
cancelled, has a `Run` with every call, token, cost and error.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator

from masrouter.catalog import Catalog
from masrouter.errors import BudgetError, ConfigError, ExecutionError, PlanError
from masrouter.execution.dispatch import Clock, DeadlineError, Dispatcher, check_deadline
from masrouter.execution.events import Event, Listener, OnEvent, RunEnded, TeamNote
from masrouter.execution.ledger import Ledger, total_usage
from masrouter.llms.chat import ChatModel
from masrouter.topologies.registry import Topology, check_plan
from masrouter.topologies.registry import topology as find_topology
from masrouter.topologies.rules import check_count
from masrouter.topologies.team import ExampleReport, ExampleTests, MaxTokens, Team, TeamError
from masrouter.types import Plan, Run

_GRACE_S = 1.0
"""After the deadline no call is under way; so long may a topology settle on what it has."""


async def aexecute(
    plan: Plan,
    query: str,
    *,
    llm: ChatModel,
    catalog: Catalog | None = None,
    budget_usd: float | None = None,
    within: Ledger | None = None,
    deadline_s: float | None = None,
    max_concurrency: int = 8,
    seed: int = 0,
    examples: ExampleTests | None = None,
    max_tokens: MaxTokens | int | None = None,
    topology: Topology | None = None,
    on_event: OnEvent | None = None,
    stream_text: bool = False,
) -> Run:
    """What a team answers to a query, and all that it took.

    catalog: roles with their prompts, and how many agents a topology takes; None is the default
    one. budget_usd: a call's worst cost is reserved before it is sent, and a call that does not
    fit is not sent. within: the books of what this run is a part of, whose budget holds too.
    deadline_s: seconds for the whole run; calls end with it, and what they have
    given until then may still be enough for an answer. max_concurrency: calls under way at once.
    seed: every call gets one of its own, derived from it. examples: runs the examples that a query
    shows, for topologies that use them. max_tokens: completion tokens of a call, by kind; a number
    caps answers and everything else at it. topology: in place of the one registered as
    `plan.topology`, for other settings than its defaults. on_event: called with each event;
    stream_text: with each piece of text, too, for which calls are streamed.

    Raises PlanError for a plan that no team could run, ConfigError for a bad setting, BudgetError
    for a budget with a model whose price is unknown: all before anything is sent. After that
    ExecutionError, whose `run` holds what was done; `run.error` begins with `budget: `,
    `deadline: `, `team: ` (too many members failed), or the name of another exception.
    Cancelling it cancels all calls.
    """
    catalog = _default_catalog() if catalog is None else catalog
    shape = find_topology(plan.topology) if topology is None else topology
    _check_topology(shape)
    if shape.name != plan.topology:
        raise PlanError(
            f"plan: its topology is {plan.topology!r}, and the topology given is called "
            f"{shape.name!r}; give them the same name"
        )
    check_plan(plan, catalog, shape)
    _check_settings(query, deadline_s, max_concurrency, max_tokens)
    caps = MaxTokens.at_most(max_tokens) if isinstance(max_tokens, int) else max_tokens
    ledger = Ledger(budget_usd, within=within)
    prices = {model: llm.price(model) for model in plan.models}
    ledger.check_prices(prices)

    clock = Clock(deadline_s)
    listener = Listener(on_event)
    dispatcher = Dispatcher(
        llm,
        prices,
        ledger,
        clock,
        listener,
        max_concurrency=max_concurrency,
        stream_text=stream_text,
    )
    team = Team(
        plan,
        query,
        catalog=catalog,
        send=dispatcher,
        seed=seed,
        examples=None if examples is None else _ExamplesInTime(examples, clock),
        max_tokens=caps,
        on_note=lambda text: listener(TeamNote(text)),
    )
    answer: str | None = None
    error: Exception | None = None
    why: str | None = None
    try:
        end = None if clock.end is None else clock.end + _GRACE_S
        async with asyncio.timeout_at(end) as limit:
            answer = await shape.answer(team)
        if not isinstance(answer, str):
            raise TypeError(f"topology {shape.name!r} answered {answer!r} where text was expected")
    except Exception as failure:
        over = isinstance(failure, TimeoutError) and limit.expired()
        answer, error = None, failure
        why = f"deadline: the run's {deadline_s:g} s are over" if over else _why(failure)
    run = Run(
        plan=plan,
        query=query,
        answer=answer,
        usage=total_usage([call.usage for call in dispatcher.calls]),
        agent_usage=tuple(
            total_usage([call.usage for call in dispatcher.calls if call.agent == agent])
            for agent in range(len(plan.agents))
        ),
        calls=tuple(dispatcher.calls),
        latency_s=clock.now(),
        error=why,
        missing=tuple(sorted({failure.agent for failure in team.failures})),
        reserved_usd=ledger.charged_usd,
        notes=(*team.notes, *listener.notes),
    )
    listener(RunEnded(run))
    if why is not None:
        raise ExecutionError(f"{plan}: {why}", run=run) from error
    return run


def execute(
    plan: Plan,
    query: str,
    *,
    llm: ChatModel,
    catalog: Catalog | None = None,
    budget_usd: float | None = None,
    deadline_s: float | None = None,
    max_concurrency: int = 8,
    seed: int = 0,
    examples: ExampleTests | None = None,
    max_tokens: MaxTokens | int | None = None,
    topology: Topology | None = None,
    on_event: OnEvent | None = None,
    stream_text: bool = False,
) -> Run:
    """`aexecute` for code that is not asynchronous; it has an event loop of its own.

    Raises ConfigError where one is running already, and what `aexecute` raises.
    """
    if _loop_is_running():
        raise ConfigError(
            "execute: an event loop is running here (async code, a notebook); "
            "use `await aexecute(...)`"
        )
    return asyncio.run(
        aexecute(
            plan,
            query,
            llm=llm,
            catalog=catalog,
            budget_usd=budget_usd,
            deadline_s=deadline_s,
            max_concurrency=max_concurrency,
            seed=seed,
            examples=examples,
            max_tokens=max_tokens,
            topology=topology,
            on_event=on_event,
            stream_text=stream_text,
        )
    )


async def stream(
    plan: Plan,
    query: str,
    *,
    llm: ChatModel,
    catalog: Catalog | None = None,
    budget_usd: float | None = None,
    deadline_s: float | None = None,
    max_concurrency: int = 8,
    seed: int = 0,
    examples: ExampleTests | None = None,
    max_tokens: MaxTokens | int | None = None,
    topology: Topology | None = None,
    stream_text: bool = True,
) -> AsyncIterator[Event]:
    """The events of `aexecute` as they happen, the text of replies too; `RunEnded` is the last.

    Raises what `aexecute` raises, after the last event. Closing the iterator cancels the run;
    who may leave the loop early wraps it in `contextlib.aclosing`.
    """
    events: asyncio.Queue[Event | None] = asyncio.Queue()
    running = asyncio.create_task(
        aexecute(
            plan,
            query,
            llm=llm,
            catalog=catalog,
            budget_usd=budget_usd,
            deadline_s=deadline_s,
            max_concurrency=max_concurrency,
            seed=seed,
            examples=examples,
            max_tokens=max_tokens,
            topology=topology,
            on_event=events.put_nowait,
            stream_text=stream_text,
        )
    )
    running.add_done_callback(lambda _: events.put_nowait(None))
    try:
        while (event := await events.get()) is not None:
            yield event
        await running
    finally:
        running.cancel()
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # raised above, or nobody is there any more to be told


class _ExamplesInTime:
    """Shown examples, until the deadline: after it, an answer goes without a report."""

    def __init__(self, examples: ExampleTests, clock: Clock) -> None:
        self._examples = examples
        self._clock = clock

    async def report(self, query: str, answer: str) -> ExampleReport | None:
        if self._clock.is_over():
            return None
        try:
            async with asyncio.timeout_at(self._clock.end) as limit:
                return await self._examples.report(query, answer)
        except TimeoutError:
            if limit.expired():
                return None
            raise


def _why(error: Exception) -> str:
    if not isinstance(error, TeamError):
        return f"{type(error).__name__}: {error}"
    causes = [failure.error for failure in error.failures]
    if any(isinstance(cause, DeadlineError) for cause in causes):
        return f"deadline: {error}"
    if any(isinstance(cause, BudgetError) for cause in causes):
        return f"budget: {error}"
    return f"team: {error}"


def _check_settings(
    query: str, deadline_s: float | None, max_concurrency: int, max_tokens: MaxTokens | int | None
) -> None:
    if not isinstance(query, str) or not query.strip():
        raise ConfigError(f"query: expected a text, got {query!r}")
    check_deadline(deadline_s)
    check_count("max_concurrency", max_concurrency, least=1)
    if max_tokens is not None and not isinstance(max_tokens, MaxTokens | int):
        raise ConfigError(f"max_tokens: expected a number or MaxTokens, got {max_tokens!r}")


def _check_topology(shape: Topology) -> None:
    """A topology may be anybody's class: what it lacks is told before anything is sent."""
    whole = not isinstance(shape, type) and isinstance(getattr(shape, "name", None), str)
    if not (
        whole
        and callable(getattr(shape, "check", None))
        and inspect.iscoroutinefunction(getattr(shape, "answer", None))
    ):
        raise PlanError(
            "topology: expected an object with `name`, `version`, `check(plan)` and "
            f"`async answer(team)`, got {shape!r}"
        )


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@functools.cache
def _default_catalog() -> Catalog:
    return Catalog.default()
