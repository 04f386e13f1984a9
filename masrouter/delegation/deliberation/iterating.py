"""Work in rounds: a draft says what it lacks, that is asked for, and the next draft has it.

    (goal ──► a look-up ahead) ──► draft ── `Missing: ...` lines ──► workers by description,
                                     ▲                              else subtasks
                                     └──────────────────────────────────────┘

That the work so far shows what to look for next is ITER-RETGEN's idea (Shao et al., arXiv
2305.15294), which looks up by the question alone first, and then by the question and a whole draft;
here a draft's last lines are asked for. That a model asks for what it needs in its own words, and
is matched with tools by their descriptions instead of being shown all of them, is MCP-Zero's (Fei
et al., arXiv 2506.01056); here in one stage, not servers first.

Every round ends in bounded work: so many rounds, so many requests a round, none asked twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from masrouter.delegation.deliberation.iterating_rule import DEFAULT
from masrouter.delegation.intake import check_options
from masrouter.delegation.tasks import OnTaskEvent, Task, TaskError, TaskResult
from masrouter.delegation.workers.matching import MatchingRule, match_workers
from masrouter.encoder import Encoder
from masrouter.execution.ledger import Ledger, total_usage
from masrouter.sections import section
from masrouter.topologies.endings import Draft, read_draft
from masrouter.topologies.prompts import prompt
from masrouter.topologies.rules import check_count
from masrouter.topologies.team import call_seed
from masrouter.types import Usage

if TYPE_CHECKING:
    from masrouter.delegation.delegator import Delegator
    from masrouter.delegation.episodes.log import Episode
    from masrouter.delegation.workers.worker import Worker

Stopped = Literal["done", "unstated", "repeated", "not_found", "rounds", "failed"]
"""done: nothing is missing any more. unstated: a draft does not say whether anything is. repeated:
all that is missing was asked for before, or is too long to be asked for. not_found: nobody could
give any of it. rounds: they are used up. failed: a draft could not be written; the one before
stands."""

Find = Callable[[Sequence[str]], Sequence[str | None]]
"""Who is asked each of some requests, by name; None where nobody is known for it."""

MOST_REQUEST = 500
"""Characters of a request; what is longer is a text, and not asked for."""

END = (
    "Answer from what is given and what you know. Then end with lines `Missing: ...`, one for each "
    "thing that the answer lacks and that a tool or a colleague could supply, each worded so that "
    "it can be asked for by itself, or with the one line `Missing: nothing`."
)
"""What a draft is told to end with."""


@dataclass(frozen=True, slots=True)
class Round:
    """A draft, and what was asked for on its account."""

    result: TaskResult
    draft: Draft | None
    """None where it could not be written."""
    requests: tuple[TaskResult, ...] = ()
    """`goal` is what was asked for; last those that were asked once more, of `subtask`, after a
    worker failed."""


@dataclass(frozen=True, slots=True)
class Iteration:
    """What the rounds came to."""

    answer: str | None
    """Of the last draft that was written, without its `Missing:` lines."""
    missing: tuple[str, ...]
    """What it still lacks, in its own words."""
    stopped: Stopped
    rounds: tuple[Round, ...]
    error: TaskError | None
    """Why there is no answer; None where there is one."""
    usage: Usage
    latency_s: float
    ahead: TaskResult | None = None
    """What was looked up by the goal alone, found or not."""
    episode: str | None = None
    """Where it was logged; None without a log."""


async def iterate(
    task: Task | str,
    *,
    delegator: Delegator,
    model: str | None = None,
    subtask: str | None = "auto",
    find: Find | None = None,
    ahead: str | None = None,
    rounds: int = DEFAULT.rounds,
    requests: int = DEFAULT.requests,
    budget_usd: float | None = None,
    within: Ledger | None = None,
    deadline_s: float | None = None,
    cost_weight: float | None = None,
    seed: int = 0,
    on_event: OnTaskEvent | None = None,
    episode: Episode | None = None,
    under: str | None = None,
) -> Iteration:
    """Draft, ask for what the draft lacks, and draft again with it.

    model: writes the drafts; None takes the task's own, or the delegator's default.
    find: who is asked for what (`by_description`). subtask: who is asked where it knows nobody, or
    where the worker that it names fails; None asks nobody then. ahead: who is asked with the goal
    itself before the first draft; for a worker that looks up, since a draft that misses nothing
    asks for nothing. rounds: drafts at most. requests: asked for after a draft, at most.
    The other keywords are those of `Delegator.delegate_task`; the deadline and the budget hold for
    all of it. A request that fails leaves a gap in the next draft, and nothing else. A model is
    told what a request is for; a worker gets the request alone, or with the goal where it takes
    "all".

    Raises ConfigError for rounds or requests below 1, LogError where no episode can be opened, and
    DelegationError where the settings allow fewer tasks at once than `requests`.
    """
    check_options(deadline_s, cost_weight, None, seed)
    check_count("iterate: rounds", rounds, least=1)
    check_count("iterate: requests", requests, least=1)
    loop = asyncio.get_running_loop()
    start = loop.time()
    task = Task(task) if isinstance(task, str) else task
    ledger = Ledger(budget_usd, within=within)
    if episode is None and delegator.episodes is not None:
        episode = await asyncio.to_thread(delegator.episodes.open, task.goal)
    prefix = "" if task.id is None else f"{task.id}-"

    async def delegate(tasks: Sequence[Task], part: str) -> tuple[TaskResult, ...]:
        spent_s = loop.time() - start
        batch = await delegator.delegate_tasks(
            tasks,
            within=ledger,
            deadline_s=None if deadline_s is None else max(deadline_s - spent_s, 1e-3),
            cost_weight=cost_weight,
            seed=call_seed(seed, 0, part),
            on_event=on_event,
            episode=episode,
            under=under,
        )
        return batch.results

    workers = {worker.name: worker for worker in delegator.workers}
    done: list[Round] = []
    given: list[str] = []
    looked_up: TaskResult | None = None
    if ahead is not None:
        worker = workers.get(ahead)
        # A worker that takes its material would take the context for what is to be looked up.
        context = task.context if worker is None or worker.takes == "all" else ""
        first = replace(task, model=ahead, context=context, id=f"{prefix}ahead", needs=())
        (looked_up,) = await delegate([replace(first, grade=None)], "ahead")
        if looked_up.answer is not None:
            given.append(section("found", looked_up.answer))
    asked: set[str] = set()
    stopped: Stopped = "rounds"
    for number in range(1, rounds + 1):
        drafting = replace(
            task,
            goal=f"{task.goal}\n\n{END}",
            context=prompt(task.context, *given),
            model=model or task.model,
            id=f"{prefix}round-{number}",
            needs=(),
            grade=None,
        )
        (result,) = await delegate([drafting], f"round {number}")
        if result.answer is None:
            done.append(Round(result, None))
            stopped = "failed"
            break
        draft = read_draft(result.answer)
        done.append(Round(result, draft))
        if not draft.missing:
            stopped = "done" if draft.stated else "unstated"
            break
        fresh = _fresh(draft.missing, asked)[:requests]
        if not fresh:
            stopped = "repeated"
            break
        if number == rounds:
            break
        asked |= {_same(item) for item in fresh}
        # An encoder takes its time.
        names = [None] * len(fresh) if find is None else await asyncio.to_thread(find, fresh)
        batch = [
            Task(
                item,
                _beside(workers.get(asked_of), task, draft),
                model=asked_of,
                id=f"{prefix}round-{number}-request-{at}",
            )
            for at, (item, name) in enumerate(zip(fresh, names, strict=True), 1)
            if (asked_of := name or subtask) is not None
        ]
        found = await delegate(batch, f"requests {number}") if batch else ()
        again = [
            replace(
                asking, context=_beside(workers.get(subtask), task, draft), model=subtask,
                id=f"{asking.id}-again",
            )
            for asking, result in zip(batch, found, strict=True)
            if subtask is not None and asking.model != subtask and _refused(result)
        ]  # fmt: skip
        if again:
            found += await delegate(again, f"requests {number} again")
        done[-1] = replace(done[-1], requests=found)
        answers = [one for one in found if one.answer is not None]
        if not answers:
            stopped = "not_found"
            break
        given += [section("found", one.answer or "", request=one.goal) for one in answers]
    last = next((one.draft for one in reversed(done) if one.draft is not None), None)
    results = [] if looked_up is None else [looked_up]
    results += [result for one in done for result in (one.result, *one.requests)]
    return Iteration(
        answer=None if last is None else last.answer,
        missing=() if last is None else last.missing,
        stopped=stopped,
        rounds=tuple(done),
        error=done[-1].result.error if last is None else None,
        usage=total_usage([result.usage for result in results]),
        latency_s=loop.time() - start,
        ahead=looked_up,
        episode=None if episode is None else episode.id,
    )


def by_description(
    workers: Sequence[Worker], encoder: Encoder, *, rule: MatchingRule | None = None
) -> Find:
    """Who is asked: the worker whose description is nearest, where it is near enough.

    rule: see `workers.match_workers`. A description says what kind of work somebody does; a request
    that names a fact alone hardly shows who has it (tests/benchmarks/bench_iterate.py). One worker
    that looks things up is better named as `subtask` or `ahead` of `iterate`.
    """
    chosen = tuple(workers)
    return lambda asked: [
        match.worker for match in match_workers(asked, chosen, encoder, rule=rule)
    ]


def _fresh(items: Sequence[str], asked: set[str]) -> list[str]:
    """Those that were not asked for yet, each once."""
    found: dict[str, str] = {}
    for item in items:
        if len(item) <= MOST_REQUEST and _same(item) not in asked:
            found.setdefault(_same(item), item)
    return list(found.values())


def _same(item: str) -> str:
    return " ".join(item.casefold().split()).rstrip(".?!")


def _refused(result: TaskResult) -> bool:
    return result.error is not None and result.error.type == "worker"


def _beside(worker: Worker | None, task: Task, draft: Draft) -> str:
    """The context of a request. A worker that takes its material would take that for the request;
    a model has to know what a request is for."""
    if worker is not None:
        return task.goal if worker.takes == "all" else ""
    return prompt(
        "This is needed for a larger task; supply it, and do not do the whole.",
        section("task", task.goal),
        section("given", task.context) if task.context else "",
        section("draft", draft.answer),
    )
