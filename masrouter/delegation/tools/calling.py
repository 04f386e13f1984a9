"""Delegation as tools of a language model: what it may call, and what a call answers.

`tools_of` describes delegate_task, delegate_tasks and list_models, with names that are valid where
they are offered; `call_tool` does what a model wrote. What a model writes is untrusted: whatever
is wrong with it becomes a JSON error that the model can act on, and nothing is spent on it. The
loop in which a model calls them is `parent`'s; MCP is `mcp_server`'s.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Protocol

from masrouter.delegation.tasks import (
    Batch,
    DelegationError,
    OnTaskEvent,
    Task,
    TaskError,
    TaskResult,
    error_json,
)
from masrouter.delegation.tools.listing import is_callable, listing
from masrouter.delegation.tools.schemas import checked, read_arguments
from masrouter.delegation.tools.self_contained import MOST_ID, unseen
from masrouter.delegation.tools.texts import MOST_NAME, ExampleNames, tools_with
from masrouter.errors import MasRouterError
from masrouter.execution.ledger import Ledger
from masrouter.llms.chat import Tool
from masrouter.types import Usage

if TYPE_CHECKING:
    from masrouter.delegation.episodes.log import Episode
    from masrouter.delegation.naming.offers import Offer
    from masrouter.delegation.naming.settings import Settings

TOOLS: tuple[Tool, ...] = tools_with(ExampleNames())
"""The tools where the tiers are small, medium and large and there is a router; see `tools_of`."""

_NOTHING = Usage(0, 0, 0.0)


class Delegating(Protocol):
    """Who does the work; `Delegator` is one."""

    @property
    def settings(self) -> Settings:
        """What is allowed."""

    def offers(self) -> Sequence[Offer]:
        """What tasks can be given to."""

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
        """See `Delegator`."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """One task of a call; `error` where it cannot be handed out."""

    task: Task
    error: TaskError | None = None


def tools_of(delegator: Delegating) -> tuple[Tool, ...]:
    """The tools, with examples whose names are valid with this delegator."""
    return tools_with(_example_names(delegator.offers(), delegator.settings.max_tasks))


def openai_tools(delegator: Delegating) -> list[dict[str, Any]]:
    """The tools in OpenAI's function form, for `tools` of a chat completion request."""
    return [tool.to_json() for tool in tools_of(delegator)]


async def call_tool(
    delegator: Delegating,
    name: str,
    arguments: str | Mapping[str, Any],
    *,
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
) -> dict[str, Any]:
    """Do what a model asks for, and say it as JSON.

    delegate_task gives a `TaskResult.to_json()`, delegate_tasks a `Batch.to_json()`, list_models
    entries under `models`. A call that cannot be meant, or was refused as a whole, gives
    `{"error": ...}`; so a call of one task failed where `error` is there and not None.

    Args:
        arguments: as the model wrote them, JSON; or an object that was parsed.
        budget_usd: the most for this call; a model that asks for more than this, or than `within`
            has left, is told so.

    The others are `delegate_tasks`'. Raises nothing for whatever a model may write.
    """
    try:
        tool = _tool(name)
        asked = read_arguments(arguments)
        if tool.name == "list_models":
            return _valid_text(
                listing(
                    delegator.offers(),
                    delegator.settings.default,
                    **checked(asked, tool.parameters),
                )
            )
        entries, call_model, call_budget = _read_tasks(tool, asked, delegator.settings.max_tasks)
        budget = _allowed(call_budget, budget_usd, within)
        ready = [entry.task for entry in entries if entry.error is None]
        batch = Batch((), 0.0, budget)
        if ready:
            batch = await delegator.delegate_tasks(
                ready,
                model=call_model,
                parent_model=parent_model,
                budget_usd=budget,
                deadline_s=deadline_s,
                within=within,
                cost_weight=cost_weight,
                seed=seed,
                on_event=on_event,
                episode=episode,
                under=under,
                max_concurrency=max_concurrency,
            )
        whole = _merged(entries, batch)
        single = tool.name == "delegate_task"
        told = whole.results[0].to_json() if single else whole.to_json()
        if within is not None and within.left_usd is not None:
            told["budget_left_usd"] = within.left_usd
        return _valid_text(told)
    except DelegationError as error:
        return _valid_text(error_json(error.error))
    except Exception as error:  # the model's call must not end its host
        return _valid_text(error_json(_told_to_the_host(error)))


def _told_to_the_host(error: Exception) -> TaskError:
    """What the model is told of a fault: not its text, which may name files of this machine."""
    told = {"message": "a call of a delegation tool failed", "exception": error}
    asyncio.get_running_loop().call_exception_handler(told)
    whose = "the tools' settings or logs" if isinstance(error, MasRouterError) else "this program"
    return TaskError("internal", f"a fault of {whose}: {type(error).__name__}; its log says more")


def failed(answer: Mapping[str, Any]) -> bool:
    """Whether a tool's answer holds nothing but failure."""
    if answer.get("error") is not None:
        return True
    results = answer.get("results")
    return bool(results) and all(result["error"] is not None for result in results or ())


def _tool(name: str) -> Tool:
    for tool in TOOLS:
        if tool.name == name:
            return tool
    asked = str(name)[:120]
    names = [tool.name for tool in TOOLS]
    raise DelegationError(
        TaskError(
            "invalid_task",
            f"there is no tool {asked!r}, only {', '.join(names)}",
            asked=asked,
            nearest=tuple(get_close_matches(asked, names)),
        )
    )


def _read_tasks(
    tool: Tool, asked: dict[str, Any], max_tasks: int
) -> tuple[list[_Entry], str | None, float | None]:
    """The tasks of a call with their own faults, its model and its budget."""
    schema = tool.parameters
    if tool.name == "delegate_task":
        one = checked(asked, schema)
        task = Task(**{k: v for k, v in one.items() if k != "budget_usd"}, id="task-1")
        return [_Entry(task, unseen(task, ()))], None, one.get("budget_usd")
    # Each task is checked for itself, so that one's fault is its own.
    properties = schema["properties"]
    loose = {**properties, "tasks": {**properties["tasks"], "items": {}}}
    call = checked(asked, {**schema, "properties": loose})
    tasks = call["tasks"]
    if len(tasks) > max_tasks:
        raise DelegationError(
            TaskError(
                "limit",
                f"{len(tasks)} tasks in one call, and at most {max_tasks} are taken: join steps "
                "that one worker can do in one go, with all their material",
                asked=str(len(tasks)),
            )
        )
    item = properties["tasks"]["items"]
    entries = [_read_task(value, item, index) for index, value in enumerate(tasks)]
    ids = [entry.task.id or "" for entry in entries]
    entries = [
        entry if entry.error else dataclasses.replace(entry, error=unseen(entry.task, ids))
        for entry in entries
    ]
    return _without_dependents(entries), call.get("model"), call.get("budget_usd")


def _read_task(value: Any, schema: Mapping[str, Any], index: int) -> _Entry:
    own = f"task-{index + 1}"
    try:
        read = checked(value, schema, f"tasks[{index}]")
    except DelegationError as error:
        given = value.get("id") if isinstance(value, dict) else None
        sound = isinstance(given, str) and 0 < len(given) <= MOST_ID and given.isprintable()
        name = str(given) if sound else own
        return _Entry(Task(goal="", id=name), error.error)
    needs = tuple(read.pop("needs", ()))
    return _Entry(Task(**{"id": own, **read}, needs=needs))


def _without_dependents(entries: list[_Entry]) -> list[_Entry]:
    """Whoever needs a task that is not handed out is not either."""
    while True:
        out = {entry.task.id for entry in entries if entry.error is not None}
        found = [
            (index, lost)
            for index, entry in enumerate(entries)
            if entry.error is None and (lost := [n for n in entry.task.needs if n in out])
        ]
        if not found:
            return entries
        for index, lost in found:
            why = TaskError(
                "needs",
                f"it needs {', '.join(map(repr, lost))}, which was not handed out; mend that first",
                asked=lost[0],
            )
            entries[index] = dataclasses.replace(entries[index], error=why)


def _merged(entries: Sequence[_Entry], batch: Batch) -> Batch:
    """The results in the order of the call, with those that were not handed out in their place."""
    done = iter(batch.results)
    results = [
        next(done)
        if entry.error is None
        else TaskResult(
            id=entry.task.id or "",
            goal=entry.task.goal,
            asked=entry.task.model,
            source=None if entry.task.model is None else "task",
            plan=None,
            models=(),
            answer=None,
            usage=_NOTHING,
            latency_s=0.0,
            error=entry.error,
        )
        for entry in entries
    ]
    return dataclasses.replace(batch, results=tuple(results))


def _allowed(asked: float | None, cap: float | None, within: Ledger | None) -> float | None:
    """The call's budget; raises DelegationError where a model asks for more than there is."""
    left = None if within is None else within.left_usd
    limits = [limit for limit in (cap, left) if limit is not None]
    if asked is None:
        return cap
    if limits and asked > min(limits):
        most = _no_more_than(min(limits))
        raise DelegationError(
            TaskError(
                "budget",
                f"budget_usd: {asked:g} US$ were asked for, and this call may spend at most "
                f"{most}; ask for no more, or leave it out",
                asked=f"{asked:g}",
                nearest=(most,),
            )
        )
    return asked


def _no_more_than(usd: float) -> str:
    """In six digits, unless that is more: who asks for what they are told shall get it."""
    short = f"{usd:.6g}"
    return short if float(short) <= usd else repr(usd)


def _example_names(offers: Sequence[Offer], max_tasks: int) -> ExampleNames:
    """The cheapest and the dearest tier, or model, that can be called."""

    def cost(offer: Offer) -> float:
        price = offer.price
        return math.inf if price is None else price.input_usd_per_mtok + price.output_usd_per_mtok

    able = [offer for offer in offers if offer.kind == "model" and is_callable(offer)]
    able = sorted([offer for offer in able if offer.price is not None] or able, key=cost)
    names = [name for offer in able if (name := _short_name(offer)) is not None]
    policies = any(offer.kind == "policy" and is_callable(offer) for offer in offers)
    if not names:
        return ExampleNames(None, None, None, max_tasks, policies)
    automatic = any(offer.kind == "auto" and is_callable(offer) for offer in offers)
    strongest = "auto" if automatic else names[-1]
    return ExampleNames(names[0], names[-1], strongest, max_tasks, policies)


def _short_name(offer: Offer) -> str | None:
    names = (*offer.tiers, *offer.aliases, offer.id)
    return next((name for name in names if len(name) <= MOST_NAME), None)


def _valid_text(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data with every text such that UTF-8 can hold it: answers are a model's."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False)
    valid: dict[str, Any] = json.loads(text.encode("utf-8", "replace"))
    return valid
