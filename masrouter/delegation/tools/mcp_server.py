"""The tools of delegation as a server of the Model Context Protocol, by the official package `mcp`.

The tools, their texts and what they answer are `calling`'s; here is what the protocol adds: one
budget over all calls of a server, progress per task for the clients that ask for it, and
cancellation. The transports are `mcp_stdio`'s and `mcp_http`'s.

A call that is cancelled ends its work at once; what was sent until then is counted. Tasks never see
anything of the client but the arguments of their own call.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

try:
    from mcp.server import Server, ServerRequestContext
    from mcp.types import (
        CallToolRequestParams,
        CallToolResult,
        ListToolsResult,
        PaginatedRequestParams,
        TextContent,
        Tool,
        ToolAnnotations,
    )
except ModuleNotFoundError as missing:
    from masrouter.errors import ConfigError

    raise ConfigError(
        f"serving MCP needs the package {missing.name!r}: pip install 'masrouter[mcp]'"
    ) from missing

from masrouter.delegation.intake import check_options
from masrouter.delegation.tasks import (
    OnTaskEvent,
    TaskEnded,
    TaskEvent,
    TaskRouted,
    TaskStarted,
    TaskWorking,
)
from masrouter.delegation.tools.calling import Delegating, call_tool, failed, tools_of
from masrouter.errors import ConfigError
from masrouter.execution.events import CallEnded, CallStarted
from masrouter.execution.ledger import Ledger

INSTRUCTIONS = (
    "Hand parts of your work to other models: small ones for look-ups, strong ones for hard parts, "
    "several at once. Call list_models for the names; model `auto` lets a trained router choose."
)
_TITLES = {
    "delegate_task": "Delegate a task",
    "delegate_tasks": "Delegate tasks in parallel",
    "list_models": "List models",
}
_MOST_TOLD = 1000
"""Notifications kept for a client that does not take them; later ones are left out."""


@dataclass(frozen=True, slots=True)
class EachCall:
    """What holds for every call of a server. Raises ConfigError, or RoutingError for a cost weight,
    for what cannot be meant."""

    budget_usd: float | None = None
    """Most that one call may spend."""
    deadline_s: float | None = None
    cost_weight: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        budget = self.budget_usd
        if budget is not None and not (math.isfinite(budget) and budget >= 0):
            raise ConfigError(f"budget_usd of a call: expected US dollars >= 0, got {budget!r}")
        check_options(self.deadline_s, self.cost_weight, None, self.seed)


def mcp_server(
    delegator: Delegating,
    *,
    budget_usd: float | None = None,
    each_call: EachCall | None = None,
) -> Server[dict[str, Any]]:
    """A server that offers delegate_task, delegate_tasks and list_models.

    Args:
        budget_usd: most that all calls of this server may spend, of all its clients together.
        each_call: what holds for each of them.

    It belongs to one event loop. Raises ConfigError for a budget that is no number of US dollars,
    and for settings that name what is not there.
    """
    tools_of(delegator)  # better said now than in answer to every call
    books = Ledger(budget_usd)
    options = each_call or EachCall()

    async def on_list_tools(
        context: ServerRequestContext[dict[str, Any]], params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        return ListToolsResult(tools=_mcp_tools(delegator))

    async def on_call_tool(
        context: ServerRequestContext[dict[str, Any]], params: CallToolRequestParams
    ) -> CallToolResult:
        async with _progress(context) as on_event:
            answer = await call_tool(
                delegator,
                params.name,
                params.arguments or {},
                within=books,
                budget_usd=options.budget_usd,
                deadline_s=options.deadline_s,
                cost_weight=options.cost_weight,
                seed=options.seed,
                on_event=on_event,
            )
        return CallToolResult(
            content=[TextContent(type="text", text=json.dumps(answer, ensure_ascii=False))],
            structured_content=answer,
            is_error=failed(answer),
        )

    return Server(
        "masrouter",
        title="masrouter delegation",
        version=version("masrouter"),
        instructions=INSTRUCTIONS,
        on_list_tools=on_list_tools,
        on_call_tool=on_call_tool,
    )


def _mcp_tools(delegator: Delegating) -> list[Tool]:
    return [
        Tool(
            name=tool.name,
            title=_TITLES[tool.name],
            description=tool.description,
            input_schema=dict(tool.parameters),
            annotations=ToolAnnotations(
                read_only_hint=tool.name == "list_models",
                destructive_hint=False,
                idempotent_hint=tool.name == "list_models",
                open_world_hint=tool.name != "list_models",
            ),
        )
        for tool in tools_of(delegator)
    ]


@contextlib.asynccontextmanager
async def _progress(context: ServerRequestContext[dict[str, Any]]) -> AsyncIterator[OnTaskEvent]:
    """A listener whose events the client is told in order, before the block is left."""
    told: asyncio.Queue[tuple[float, int, str] | None] = asyncio.Queue(_MOST_TOLD)
    steps = _Steps()

    def on_event(event: TaskEvent) -> None:
        said = steps.after(event)
        if said is not None and not told.full():
            told.put_nowait((steps.progress, steps.total, said))

    async def send() -> None:
        while (one := await told.get()) is not None:
            # Whether a client hears of it is nothing that a task should fail by.
            with contextlib.suppress(Exception):
                await context.session.report_progress(one[0], one[1], one[2])

    sender = asyncio.create_task(send())
    try:
        yield on_event
        await told.put(None)
        await sender
    finally:
        sender.cancel()


class _Steps:
    """How far the tasks of a call are: it only ever grows, as the protocol demands."""

    def __init__(self) -> None:
        self._left: dict[str, float] = {}
        """What is left of each task: 1, 1/2, 1/3, ... with each step, and 0 at its end."""

    @property
    def progress(self) -> float:
        """Tasks that are done, with parts of those that are not."""
        return sum(1 - left for left in self._left.values())

    @property
    def total(self) -> int:
        """Tasks that were heard of."""
        return len(self._left)

    def after(self, event: TaskEvent) -> str | None:
        """What to tell of an event; None where it is not worth a word."""
        said = _said(event)
        if said is None:
            return None
        name = event.result.id if isinstance(event, TaskEnded) else event.id
        left = self._left.get(name, 1.0)
        if left == 0:  # an id that was given to two tasks: the answer tells of the other
            return None
        self._left[name] = 0.0 if isinstance(event, TaskEnded) else left / (1 + left)
        return f"{name}: {said}"


def _said(event: TaskEvent) -> str | None:
    match event:
        case TaskRouted(target=target, plan=plan):
            return f"goes to {target.asked if plan is None else plan}"
        case TaskStarted():
            return "started"
        case TaskWorking(event=CallStarted(model=model, step=step)):
            return f"asks {model} ({step})"
        case TaskWorking(event=CallEnded(call=call)):
            return f"{call.model} {'answered' if call.error is None else 'failed'} ({call.step})"
        case TaskEnded(result=result) if result.error is None:
            cost = result.usage.cost_usd
            return f"done, {'unknown cost' if cost is None else f'${cost:.6f}'}"
        case TaskEnded(result=result):
            return f"failed: {result.error.type if result.error else 'no answer'}"
        case _:
            return None
