"""Do a task by a policy: several delegations within one, and one result that says how it went.

What a policy hands out goes through the same Delegator, within the books, the time and the episode
of the task's own batch, and is logged part by part. The result takes the team, the run and the
decision of the part whose answer stands, and the cost of all parts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict

from masrouter.delegation.deliberation.agreement import Rule
from masrouter.delegation.deliberation.deliberating import Deliberation, deliberate
from masrouter.delegation.deliberation.iterating import Find, Iteration, by_description, iterate
from masrouter.delegation.policies.specs import Deliberate, Iterate, Match
from masrouter.delegation.running import PolicyJob
from masrouter.delegation.task_errors import error_of
from masrouter.delegation.tasks import (
    OnTaskEvent,
    Task,
    TaskEnded,
    TaskError,
    TaskEvent,
    TaskResult,
    TaskWorking,
    shortened,
)
from masrouter.delegation.workers.matching import plan_steps
from masrouter.execution.ledger import Ledger, total_usage
from masrouter.printable import on_one_line
from masrouter.sections import section
from masrouter.topologies.prompts import prompt

if TYPE_CHECKING:
    from masrouter.delegation.delegator import Delegator
    from masrouter.delegation.episodes.log import Episode
    from masrouter.delegation.workers.worker import Worker

_MOST_ID = 100
"""Characters of a task's id that stand before those of its parts."""
_MOST_SAID = 120
"""Characters of a question, where it is told in a few words."""
_MOST_LACKING = 20
"""Things that a draft lacks, where they are told one by one."""
_MOST_TEXT = 500
"""Characters of a step's goal, or of a thing that is lacking, where they are told in full."""
_TOLD_BY_THE_RESULT = ("summary", "error", "models", "usage", "latency_s")


@dataclass(frozen=True, slots=True)
class _Came:
    """What a policy came to."""

    answer: str | None
    standing: TaskResult | None
    """The part whose answer it is."""
    error: TaskError | None
    told: Mapping[str, Any]
    """Of `TaskResult.policy`."""
    beside: Sequence[TaskResult] = ()
    """Further parts that stand in the answer."""


class _Options(TypedDict):
    """What every delegation of a policy is given."""

    within: Ledger
    deadline_s: float | None
    cost_weight: float | None
    seed: int
    on_event: OnTaskEvent
    episode: Episode | None
    under: str | None


async def run_policy(
    asked: PolicyJob, *, delegator: Delegator, cost_weight: float | None
) -> TaskResult:
    """See `running.RunPolicy`. Being cancelled cancels all that was handed out."""
    assert asked.target.policy is not None  # or it would be another kind of target
    name = asked.target.policy
    spec = delegator.settings.policies[name]
    parts: list[TaskResult] = []

    def hear(event: TaskEvent) -> None:
        if isinstance(event, TaskWorking):
            asked.working(event.event)
        elif isinstance(event, TaskEnded):
            parts.append(event.result)

    started = asked.clock.now()
    options = _Options(
        within=asked.ledger,
        deadline_s=_left(asked),
        cost_weight=cost_weight,
        seed=asked.seed,
        on_event=hear,
        episode=asked.episode,
        under=asked.under,
    )
    try:
        match spec:
            case Deliberate():
                came = await _deliberated(spec, asked, delegator, options)
            case Iterate():
                came = await _iterated(spec, asked, delegator, options)
            case Match():
                came = await _matched(spec, asked, delegator, options)
    except Exception as failure:
        error = error_of(failure, asked.target.asked)
        came = _Came(None, None, error, {"outcome": "failed", "how": "failed"})
    stands = came.standing
    logged = [part.node for part in (stands, *reversed(parts)) if part is not None and part.node]
    answered = parts if stands is None else [stands, *came.beside]
    return TaskResult(
        id=asked.id,
        goal=asked.task.goal,
        asked=asked.target.asked,
        source=asked.target.source,
        plan=None if stands is None else stands.plan,
        models=tuple(dict.fromkeys(model for part in answered for model in part.models)),
        answer=came.answer,
        usage=total_usage([part.usage for part in parts]),
        latency_s=asked.clock.now() - started,
        error=came.error,
        grading=None if stands is None or stands.answer != came.answer else stands.grading,
        decision=None if stands is None else stands.decision,
        run=None if stands is None else stands.run,
        node=logged[0] if logged else None,
        policy={"name": name, "kind": spec.kind, **came.told},
    )


async def _deliberated(
    spec: Deliberate, asked: PolicyJob, delegator: Delegator, options: _Options
) -> _Came:
    done = await deliberate(
        _task_of(asked),
        cheap=spec.cheap,
        strong=spec.strong,
        rule=Rule() if spec.rule is None else spec.rule,
        missing=spec.missing,
        ask_missing=spec.ask_missing,
        delegator=delegator,
        **options,
    )
    sources = (*([] if done.strong is None else [done.strong]), *done.samples)
    stands = next((one for one in sources if one.answer == done.answer), None)
    told = {k: v for k, v in done.to_json().items() if k not in _TOLD_BY_THE_RESULT}
    return _Came(
        done.answer,
        stands if done.answer is not None else None,
        done.error,
        {"outcome": done.outcome, "how": _how_deliberated(done), **told},
        [step.result for step in done.handed] if done.outcome == "agreed" else [],
    )


def _how_deliberated(done: Deliberation) -> str:
    if done.outcome == "asked":
        return f"asks: {on_one_line(done.question or '', _MOST_SAID)}"
    if done.verdict is None or done.outcome != "agreed":
        return done.outcome
    agree = f"{done.verdict.votes} of {done.verdict.asked} agree"
    return f"{agree} after step {done.handed[-1].number}" if done.handed else agree


async def _iterated(
    spec: Iterate, asked: PolicyJob, delegator: Delegator, options: _Options
) -> _Came:
    workers = await _workers(delegator, options["within"])
    find: Find | None = None
    if workers:
        encoder = await asyncio.to_thread(delegator.encoder)
        find = by_description(workers, encoder, rule=spec.matching)
    done = await iterate(
        _task_of(asked),
        model=spec.model,
        subtask=spec.subtask,
        find=find,
        ahead=spec.ahead,
        rounds=spec.rounds,
        requests=spec.requests,
        delegator=delegator,
        **options,
    )
    drafts = [one.result for one in done.rounds if one.draft is not None]
    told = {
        "outcome": done.stopped,
        "how": _how_iterated(done),
        "rounds": len(done.rounds),
        "requests": [
            {"goal": one.goal, "models": list(one.models), "found": one.error is None}
            for each in done.rounds
            for one in each.requests
        ],
        "missing": [shortened(item, _MOST_TEXT) for item in done.missing[:_MOST_LACKING]],
    }
    return _Came(done.answer, drafts[-1] if drafts else None, done.error, told)


def _how_iterated(done: Iteration) -> str:
    found = sum(one.error is None for each in done.rounds for one in each.requests)
    rounds = f"{len(done.rounds)} round{'s' if len(done.rounds) > 1 else ''}"
    lacking = f", lacks {len(done.missing)}" if done.missing else ""
    return f"{rounds}, {found} found{lacking}" if found or lacking else rounds


async def _matched(spec: Match, asked: PolicyJob, delegator: Delegator, options: _Options) -> _Came:
    workers = await _workers(delegator, options["within"])
    encoder = await asyncio.to_thread(delegator.encoder)
    plan = partial(
        plan_steps, asked.task.goal, workers, encoder, otherwise=spec.otherwise, rule=spec.matching
    )
    first, *others = await asyncio.to_thread(plan)
    names = {worker.name for worker in workers}
    # A worker is to work on plain text; a model has to know where one part ends.
    context = prompt(_context_of(asked, plain=first.model in names), first.context)
    left = [
        replace(
            step,
            id=f"{asked.id[:_MOST_ID]}-{step.id}",
            needs=tuple(f"{asked.id[:_MOST_ID]}-{needed}" for needed in step.needs),
            max_tokens=asked.task.max_tokens,
            kind=None if others else asked.task.kind,
        )
        for step in (replace(first, context=context), *others)
    ]
    done: list[TaskResult] = []
    refusals: dict[str, TaskResult] = {}
    while True:
        results = (await delegator.delegate_tasks(left, **options)).results
        # Each step needs the one before it: those behind a failed one have failed as well.
        ended = [one for one in results if one.error is None]
        done += ended
        left, failed = left[len(ended) :], results[len(ended) :]
        if not failed or not (spec.fall_back and _refused(left[0], failed[0], names)):
            break
        asked_next = await asyncio.to_thread(_models_of, spec.otherwise, delegator)
        if asked_next == (left[0].model,):
            break
        refusals[failed[0].id] = failed[0]
        if not others:
            goal, context = asked.task.goal, _context_of(asked, plain=False)
        elif not done:
            goal, context = left[0].goal, prompt(_context_of(asked, plain=False), first.context)
        else:
            goal, before = left[0].goal, done[-1]
            context = section("result", before.answer or "", task=before.id)
        instead = replace(left[0], goal=goal, context=context, model=spec.otherwise, needs=())
        left = [instead, *left[1:]]
        options = {**options, "deadline_s": _left(asked)}
    told = _told_of_steps([*done, *failed], refusals)
    if failed:
        return _Came(None, None, failed[0].error, {"outcome": "failed", **told})
    return _Came(
        done[-1].answer, done[-1], None, {"outcome": "fell_back" if refusals else "done", **told}
    )


def _refused(step: Task, failed: TaskResult, workers: set[str]) -> bool:
    """Whether a step's worker failed by itself."""
    of_worker = failed.error is not None and failed.error.type == "worker"
    return of_worker and step.model in workers


def _models_of(name: str, delegator: Delegator) -> tuple[str, ...]:
    """Who works where a name leads; nobody is known of `auto`."""
    plan = delegator.names.resolve(name, budgeted=False).plan
    return () if plan is None else plan.models


def _told_of_steps(
    results: Sequence[TaskResult], refusals: Mapping[str, TaskResult]
) -> Mapping[str, Any]:
    """Who did each step, and after whose failure."""
    names, steps = [], []
    for one in results:
        refused = refusals.get(one.id)
        name = ", ".join(one.models) or one.asked or ""
        names.append(name if refused is None else f"{name} after {refused.asked} failed")
        instead_of = None
        if refused is not None and refused.error is not None:
            instead_of = {
                "worker": refused.asked,
                "error": refused.error.message,
                "cost_usd": refused.usage.cost_usd,
            }
        steps.append(
            {
                "goal": shortened(one.goal, _MOST_TEXT),
                "asked": one.asked,
                "models": list(one.models),
                "cost_usd": one.usage.cost_usd,
                "instead_of": instead_of,
            }
        )
    return {"how": " -> ".join(names), "steps": steps}


async def _workers(delegator: Delegator, ledger: Ledger) -> tuple[Worker, ...]:
    """Those that may and can be called now."""
    names = await asyncio.to_thread(lambda: delegator.names)
    budgeted = ledger.left_usd is not None
    return tuple(one for one in delegator.workers if names.usable(one.name, budgeted=budgeted))


def _left(asked: PolicyJob) -> float | None:
    """Seconds; a delegation takes no less than a moment, and is over at once then."""
    left_s = asked.clock.left()
    return None if left_s is None else max(left_s, 1e-3)


def _task_of(asked: PolicyJob) -> Task:
    """The task with the answers that it needs as a part of its context."""
    return replace(asked.task, id=asked.id[:_MOST_ID], context=_context_of(asked, plain=False))


def _context_of(asked: PolicyJob, *, plain: bool) -> str:
    """The context and, behind it, the needed answers; plain: without marks, as a worker's text."""
    given: Sequence[str] = [
        text if plain else section("result", text, task=id) for id, text in asked.given.items()
    ]
    return prompt(asked.task.context, *given)
