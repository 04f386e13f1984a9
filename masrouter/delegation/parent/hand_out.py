"""What a parent's tools may do: the limits of its tree, and results that can be told apart.

A call of a tool goes through `tools.call_tool` to a `HandOut`, which stands before the Delegator.
Parents are offered one thing more than `tools` describes: `may_delegate` of delegate_task makes the
worker a parent itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from masrouter.delegation.delegator import Delegator
from masrouter.delegation.episodes.log import Episode
from masrouter.delegation.naming.offers import Offer
from masrouter.delegation.naming.settings import Settings
from masrouter.delegation.running import Tell
from masrouter.delegation.tasks import (
    Batch,
    DelegationError,
    Task,
    TaskEnded,
    TaskError,
    TaskEvent,
    TaskResult,
    error_json,
)
from masrouter.delegation.tools.calling import call_tool, tools_of
from masrouter.delegation.tools.schemas import checked, read_arguments
from masrouter.execution.ledger import Ledger
from masrouter.llms.chat import Tool, ToolCall

MAY_DELEGATE = "may_delegate"
_MAY_DELEGATE = {
    "type": "boolean",
    "description": "true: the worker has these tools, too, and can hand out parts of a large task. "
    "It must be one chat model. It costs more; leave it out for what one model does in one go.",
}


class Places:
    """How many tasks may still be handed out, by all parents of a question together."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.left = most

    def take(self, tasks: int) -> None:
        """Raises DelegationError of type `limit` where there are not so many."""
        if tasks > self.left:
            raise DelegationError(
                TaskError(
                    "limit",
                    f"{tasks} tasks, and of {self.most} for the whole question {self.left} are "
                    + ("left; answer with what you have" if not self.left else "left; join some"),
                    asked=str(tasks),
                    nearest=(str(self.left),),
                )
            )
        self.left -= tasks

    def give_back(self, tasks: int) -> None:
        """What was taken for tasks for which nothing was sent."""
        self.left += tasks


class AsParent(Protocol):
    """Does a task with a worker that may delegate."""

    def __call__(
        self,
        task: Task,
        *,
        parent_model: str | None,
        budget_usd: float | None,
        deadline_s: float | None,
        within: Ledger | None,
        seed: int,
    ) -> Awaitable[Batch]:
        """A batch of its one result; raises DelegationError where it cannot be done so."""


@dataclass(slots=True)
class HandOut:
    """What one call of a tool hands out; a `tools.calling.Delegating`."""

    delegator: Delegator
    places: Places
    path: str
    """Stands before the ids of its results, which are a call's own."""
    tell: Tell
    keep: Callable[[TaskResult], None]
    as_parent: AsParent
    may_delegate: bool = False

    @property
    def settings(self) -> Settings:
        """The Delegator's."""
        return self.delegator.settings

    def offers(self) -> tuple[Offer, ...]:
        """The Delegator's."""
        return self.delegator.offers()

    async def delegate_tasks(
        self,
        tasks: Sequence[Task],
        *,
        parent_model: str | None = None,
        budget_usd: float | None = None,
        deadline_s: float | None = None,
        within: Ledger | None = None,
        seed: int = 0,
        **options: Any,
    ) -> Batch:
        """See `Delegator`. Raises DelegationError where a limit of the tree is reached."""
        self.places.take(len(tasks))
        unused = len(tasks)
        try:
            if self.may_delegate:
                (task,) = tasks
                batch = await self.as_parent(
                    task,
                    parent_model=parent_model,
                    budget_usd=budget_usd,
                    deadline_s=deadline_s,
                    within=within,
                    seed=seed,
                )
                unused = 0
            else:
                batch = await self.delegator.delegate_tasks(
                    tasks,
                    parent_model=parent_model,
                    budget_usd=budget_usd,
                    deadline_s=deadline_s,
                    within=within,
                    seed=seed,
                    **{**options, "on_event": self._told},
                )
                unused = sum(result.run is None and not result.models for result in batch.results)
        finally:
            self.places.give_back(unused)
        for result in batch.results:
            self.keep(self._named(result))
        return batch

    def _told(self, event: TaskEvent) -> None:
        if isinstance(event, TaskEnded):
            self.tell(TaskEnded(self._named(event.result)))
        else:
            self.tell(replace(event, id=f"{self.path}{event.id}"))

    def _named(self, result: TaskResult) -> TaskResult:
        return replace(result, id=f"{self.path}{result.id}")


def offered(delegator: Delegator) -> tuple[Tool, ...]:
    """The tools of a parent."""
    return tuple(
        replace(tool, parameters=_with_may_delegate(tool)) if tool.name == "delegate_task" else tool
        for tool in tools_of(delegator)
    )


async def answer_of(
    call: ToolCall,
    hand_out: HandOut,
    *,
    parent_model: str,
    deadline_s: float | None,
    within: Ledger,
    cost_weight: float | None,
    seed: int,
    episode: Episode | None,
    under: str | None,
    max_concurrency: int,
) -> dict[str, Any]:
    """What a parent is told of its call, as `tools.call_tool` says it. Raises nothing."""
    arguments: str | dict[str, Any] = call.arguments
    if call.name == "delegate_task":
        try:
            read = read_arguments(call.arguments)
            wish = read.pop(MAY_DELEGATE, None)
            asked = wish is not None and checked(wish, _MAY_DELEGATE, MAY_DELEGATE)
        except DelegationError as error:
            return error_json(error.error)
        arguments, hand_out = read, replace(hand_out, may_delegate=asked)
    return await call_tool(
        hand_out,
        call.name,
        arguments,
        parent_model=parent_model,
        deadline_s=deadline_s,
        within=within,
        cost_weight=cost_weight,
        seed=seed,
        episode=episode,
        under=under,
        max_concurrency=max_concurrency,
    )


def _with_may_delegate(tool: Tool) -> dict[str, Any]:
    properties = {**tool.parameters["properties"], MAY_DELEGATE: _MAY_DELEGATE}
    return {**tool.parameters, "properties": properties}
