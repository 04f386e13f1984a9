"""One parent's turns: ask its model, do what it calls, tell it what came of that, and end.

Not here: what a call of a tool does (`tools`), and the limits of a whole tree (`hand_out`).
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from masrouter.delegation.delegator import Delegator
from masrouter.delegation.episodes.log import Episode
from masrouter.delegation.intake import take_in
from masrouter.delegation.naming.settings import Settings
from masrouter.delegation.parent.hand_out import HandOut, Places, answer_of, offered
from masrouter.delegation.parent.outcome import ParentLimits, ParentRun, Turn
from masrouter.delegation.query import task_query
from masrouter.delegation.running import Tell
from masrouter.delegation.task_errors import call_error, internal
from masrouter.delegation.tasks import (
    Batch,
    DelegationError,
    Target,
    Task,
    TaskEnded,
    TaskError,
    TaskResult,
    TaskRouted,
    TaskStarted,
    TaskWorking,
    error_json,
    shortened,
)
from masrouter.errors import BudgetError, CallError, MasRouterError
from masrouter.execution.dispatch import Clock, DeadlineError, Dispatcher
from masrouter.execution.events import Event, Listener
from masrouter.execution.ledger import Ledger
from masrouter.llms.chat import ChatRequest, Completion, Message, Price, ToolCall
from masrouter.sections import section
from masrouter.topologies.team import call_seed

MOST_ANSWER = 32_000
"""Characters of a tool's answer that a parent is shown; a longer one is cut in its middle."""
_SHORTENED = (MOST_ANSWER, 8_000, 2_000, 800)
"""How far answers are cut where the next call would not fit the budget with more."""
_KEPT_FOR_AN_ANSWER = 1_500
"""Prompt tokens that a budget keeps back for reading each answer of a tool."""
_KEPT_FOR_A_REFUSAL = 500
"""The same for a call that is one too many."""

_SYSTEM = """\
You answer the question. You may hand parts of it to other models with your tools: a look-up or a \
summary to a small one, the hard part to a strong one, what is independent at the same time. Do \
what is quick yourself.
A tool's answer is JSON. Where it holds an error, read its message and its nearest valid names, \
and call again, mended. turns_left says how often you may still speak; at 1, answer in text.
When you know enough, answer in text and call no tool: that text alone is given to who asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """What all parents of one question share."""

    delegator: Delegator
    limits: ParentLimits
    places: Places
    max_depth: int
    cost_weight: float | None
    tell: Tell
    episode: Episode | None


class Loop:
    """One parent at work. Used once."""

    def __init__(
        self,
        tree: Tree,
        task: Task,
        target: Target,
        ledger: Ledger,
        clock: Clock,
        *,
        level: int,
        under: str | None,
        seed: int,
        id: str = "",
    ) -> None:
        """level: 1 of the one at the top. under: the node of the log that it is, None: the
        episode itself. id: of its own result; empty at the top."""
        assert target.plan is not None
        (self._model,) = target.plan.models
        self._tree = tree
        self._task = task
        self._target = target
        self._ledger = ledger
        self._clock = clock
        self._level = level
        self._under = None if tree.episode is None else under
        self._seed = seed
        self._id = id
        self._settings = tree.delegator.settings
        self._price = tree.delegator.llm.price(self._model)
        self._turns: list[Turn] = []
        self._results: list[TaskResult] = []
        self._below: dict[str, ParentRun] = {}

    async def run(self) -> ParentRun:
        """Turn by turn to an end."""
        task, tree = self._task, self._tree
        send = Dispatcher(
            tree.delegator.llm,
            {self._model: self._price},
            self._ledger,
            self._clock,
            Listener(self._working if self._id else None),
            max_concurrency=1,
            stream_text=False,
        )
        request = ChatRequest(
            self._model,
            (
                Message("system", _SYSTEM),
                Message("user", section("question", task_query(task.goal, task.context))),
            ),
            task.max_tokens or tree.limits.max_tokens or self._settings.max_tokens,
            tools=offered(tree.delegator),
        )
        answer: str | None = None
        error: TaskError | None = None
        while answer is None and error is None:
            turn = len(self._turns) + 1
            step = f"turn {turn}"
            request = replace(request, seed=call_seed(self._seed, self._level, step))
            try:
                said = await send(0, step, request)
            except Exception as failure:
                error = _own_error(failure, self._target.asked)
                break
            if not said.tool_calls:
                answer = said.text
                self._turns.append(Turn(said.text, (), ()))
            elif turn >= tree.limits.max_turns:
                self._turns.append(Turn(said.text, said.tool_calls, ()))
                error = _still_calling(turn)
            else:
                request = await self._heard(turn, request, said)
        return ParentRun(
            goal=task.goal,
            target=self._target,
            answer=answer,
            error=error,
            turns=tuple(self._turns),
            calls=tuple(send.calls),
            results=tuple(self._results),
            below=self._below,
            latency_s=self._clock.now(),
            budget_usd=self._ledger.budget_usd,
            charged_usd=self._ledger.charged_usd,
            episode=None if tree.episode is None else tree.episode.id,
        )

    async def _heard(self, turn: int, request: ChatRequest, said: Completion) -> ChatRequest:
        """Do what was called; the request of the next turn, with the answers."""
        calls = said.tool_calls
        spoken = Message("assistant", said.text, tool_calls=calls)
        request = replace(request, messages=(*request.messages, spoken))
        ledger = self._tools_ledger(request, len(calls))
        at_once = self._settings.max_concurrency
        slots = asyncio.Semaphore(at_once)

        async def one(index: int, call: ToolCall) -> Mapping[str, Any]:
            if index >= self._tree.limits.max_calls:
                return error_json(_too_many(len(calls), self._tree.limits.max_calls))
            async with slots:
                return await self._answer(
                    call,
                    f"{self._id and self._id + '/'}{turn}.{index + 1}/",
                    ledger,
                    max_concurrency=max(1, at_once // len(calls)),
                    seed=call_seed(self._seed, self._level, f"tool {turn}.{index + 1}"),
                )

        async with asyncio.TaskGroup() as group:
            under_way = [group.create_task(one(*numbered)) for numbered in enumerate(calls)]
        left = {
            "turns_left": self._tree.limits.max_turns - turn,
            "tasks_left": self._tree.places.left,
        }
        answers = tuple({**_noted(work.result(), said), **left} for work in under_way)
        self._turns.append(Turn(said.text, calls, answers))
        return _with_answers(request, calls, answers, self._price, self._ledger.left_usd)

    def _tools_ledger(self, request: ChatRequest, calls: int) -> Ledger:
        """The books for calls of tools: without what the parent needs to read their answers."""
        left = self._ledger.left_usd
        if left is None or self._price is None:
            return self._ledger
        done = min(calls, self._tree.limits.max_calls)
        reading = done * _KEPT_FOR_AN_ANSWER + (calls - done) * _KEPT_FOR_A_REFUSAL
        kept = self._price.cost_usd(request.most_prompt_tokens + reading, request.max_tokens)
        return Ledger(max(0.0, left - kept), within=self._ledger)

    async def _answer(
        self, call: ToolCall, path: str, ledger: Ledger, *, max_concurrency: int, seed: int
    ) -> dict[str, Any]:
        left_s = self._clock.left()
        if left_s is not None and left_s <= 0:
            return error_json(_late(self._clock.deadline_s))
        hand_out = HandOut(
            self._tree.delegator,
            self._tree.places,
            path,
            self._tree.tell,
            self._results.append,
            partial(self._as_parent, path),
        )
        return await answer_of(
            call,
            hand_out,
            parent_model=self._model,
            deadline_s=left_s,
            within=ledger,
            cost_weight=self._tree.cost_weight,
            seed=seed,
            episode=self._tree.episode,
            under=self._under,
            max_concurrency=max_concurrency,
        )

    async def _as_parent(
        self,
        path: str,
        task: Task,
        *,
        parent_model: str | None,
        budget_usd: float | None,
        deadline_s: float | None,
        within: Ledger | None,
        seed: int,
    ) -> Batch:
        """A task whose worker may hand out tasks, too. Raises DelegationError where it may not."""
        if self._level >= self._tree.max_depth:
            raise DelegationError(_too_deep(self._level, self._tree.max_depth))
        ledger = Ledger(budget_usd, within=within)
        checked_task(task, self._settings)
        budgeted = ledger.left_usd is not None
        target = parent_target(self._tree.delegator, task.model, parent_model, budgeted=budgeted)
        assert target.plan is not None
        id = f"{path}{task.id}"
        self._tree.tell(TaskRouted(id, target, target.plan, None))
        self._tree.tell(TaskStarted(id))
        node = f"{uuid.uuid4().hex[:12]}/{task.id}"
        loop = Loop(
            self._tree,
            task,
            target,
            ledger,
            Clock(deadline_s),
            level=self._level + 1,
            under=node,
            seed=seed,
            id=id,
        )
        run = self._below[id] = await loop.run()
        result = TaskResult(
            id=task.id or "",
            goal=task.goal,
            asked=target.asked,
            source=target.source,
            plan=None,  # who worked was settled on the way, and stands under it
            models=run.models,
            answer=run.answer,
            usage=run.usage,
            latency_s=run.latency_s,
            error=run.error,
        )
        result = await self._logged(node, task, result, seed)
        self._tree.tell(TaskEnded(replace(result, id=id)))
        return Batch((result,), run.latency_s, budget_usd, ledger.charged_usd)

    async def _logged(self, node: str, task: Task, result: TaskResult, seed: int) -> TaskResult:
        """A parent's own node; an answer is worth more than its record."""
        log, episode = self._tree.delegator.episodes, self._tree.episode
        if log is None or episode is None:
            return result
        query = task_query(task.goal, task.context)
        add = partial(log.add_result, episode, node, self._under, result, query=query, seed=seed)
        try:
            await asyncio.to_thread(add)
        except MasRouterError as error:
            told = {"message": "a parent's result could not be logged", "exception": error}
            asyncio.get_running_loop().call_exception_handler(told)
            return result
        return replace(result, node=node)

    def _working(self, event: Event) -> None:
        self._tree.tell(TaskWorking(self._id, event))


def parent_target(
    delegator: Delegator, name: str | None, parent_model: str | None, *, budgeted: bool
) -> Target:
    """Where a parent's name leads; raises DelegationError where that is not one chat model."""
    target = delegator.names.resolve(name, None, parent_model, budgeted=budgeted)
    if target.kind == "model" and target.plan is not None:
        return target
    what = "the router's choice" if target.kind == "auto" else f"a {target.kind}"
    models = tuple(offer.id for offer in delegator.offers() if offer.kind == "model")
    raise DelegationError(
        TaskError(
            "invalid_task",
            f"{target.asked!r} is {what}, and who hands out tasks itself is one chat model; name "
            f"one, such as {', '.join(models[:3]) or 'provider/model'}",
            asked=target.asked,
            nearest=models[:3],
        )
    )


def checked_task(task: Task, settings: Settings) -> Task:
    """The task; raises DelegationError for one that nobody can be given."""
    (taken,) = take_in([task], max_tasks=1, max_goal_characters=settings.max_goal_characters)
    if taken.error is not None:
        raise DelegationError(taken.error)
    return task


def _with_answers(
    request: ChatRequest,
    calls: Sequence[ToolCall],
    answers: Sequence[Mapping[str, Any]],
    price: Price | None,
    left_usd: float | None,
) -> ChatRequest:
    """The request with what the calls gave, cut where the money would not do for all of it."""
    texts = [json.dumps(answer, ensure_ascii=False) for answer in answers]
    for most in _SHORTENED:
        heard = [
            Message("tool", shortened(text, most), tool_call_id=call.id)
            for call, text in zip(calls, texts, strict=True)
        ]
        full = replace(request, messages=(*request.messages, *heard))
        if left_usd is None or price is None:
            break
        if price.cost_usd(full.most_prompt_tokens, full.max_tokens) <= left_usd:
            break
    return full


def _noted(answer: Mapping[str, Any], said: Completion) -> dict[str, Any]:
    """An error of what was cut off says so."""
    if said.finish_reason != "length" or answer.get("error") is None:
        return dict(answer)
    note = "your message was cut off at its most tokens: call with less at once"
    return {**answer, "note": note}


def _own_error(failure: Exception, asked: str) -> TaskError:
    """Why a call of the parent's own ended it all."""
    if isinstance(failure, DeadlineError):
        return TaskError("deadline", f"{failure}; allow more time", asked, retryable=True)
    if isinstance(failure, CallError):
        return call_error(failure, f"the parent's own call failed: {failure}", asked)
    if isinstance(failure, BudgetError):
        return TaskError("budget", f"the parent's next turn: {failure}", asked)
    return internal(failure, asked)


def _still_calling(turns: int) -> TaskError:
    why = f"after {turns} turns the parent was still calling tools; allow more turns, or ask less"
    return TaskError("limit", why, asked=str(turns))


def _too_many(calls: int, most: int) -> TaskError:
    why = f"{calls} calls in one turn, and only the first {most} were answered; make fewer at once"
    return TaskError("limit", why, asked=str(calls), nearest=(str(most),))


def _too_deep(level: int, most: int) -> TaskError:
    return TaskError(
        "limit",
        f"may_delegate: you are parent {level} of at most {most} above one another, so that your "
        "workers cannot hand out tasks; leave may_delegate out, and hand out the parts yourself",
        asked=str(level + 1),
        nearest=(str(most),),
    )


def _late(deadline_s: float | None) -> TaskError:
    why = f"the {deadline_s or 0:g} s are over, and nothing was sent"
    return TaskError("deadline", why, retryable=True)
