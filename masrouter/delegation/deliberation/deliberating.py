"""Deliberate: the cheap model a few times, and the strong worker only where its samples disagree.

    check what is missing -> sample the cheap model -> agreed: its answer
                                                    -> not: the strong worker, on the whole task,
                                                       or on one step first (`stepwise`)

Everything runs through one `Delegator` and one ledger. That the samples differ at all is left to
the provider's default temperature and to the seeds: a model that always says the same agrees with
itself, and nothing is ever delegated.

Sources: self-consistency (Wang et al., arXiv 2203.11171) as the acceptance test of a cascade (Yue
et al., arXiv 2310.03094); at which step samples part, SAND (Xia et al., arXiv 2507.07441).
Not here: the rule itself (`agreement`), how it is chosen on logs (`calibration`), and the calls'
books (`calls`).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from masrouter.delegation.deliberation.agreement import Rule, Verdict, with_parting
from masrouter.delegation.deliberation.calls import Calls, HandedStep
from masrouter.delegation.deliberation.missing import MissingCheck, MissingRule, check_missing
from masrouter.delegation.deliberation.stepwise import hand_over_step, in_steps
from masrouter.delegation.intake import check_options
from masrouter.delegation.tasks import (
    DelegationError,
    OnTaskEvent,
    Task,
    TaskError,
    TaskResult,
    shortened,
    usage_json,
)
from masrouter.errors import ConfigError
from masrouter.execution.ledger import Ledger, total_usage
from masrouter.topologies.team import ExampleTests
from masrouter.types import Usage

if TYPE_CHECKING:
    from masrouter.delegation.delegator import Delegator
    from masrouter.delegation.episodes.log import Episode

Outcome = Literal["agreed", "delegated", "asked", "failed"]
"""agreed: the samples' answer stands. delegated: the strong worker's. asked: something is missing,
and nobody answered. failed: there is no answer, `error` says why."""

_UNFIT = (
    "invalid_task", "unknown_model", "no_credential", "unknown_price", "not_allowed", "no_router",
)  # fmt: skip
"""Errors of what was asked for: no sample that failed so says anything about the task."""


@dataclass(frozen=True, slots=True)
class Deliberation:
    """What came of a task, and what it took."""

    task: Task
    outcome: Outcome
    answer: str | None
    """None unless the samples agreed or the strong worker answered."""
    error: TaskError | None
    verdict: Verdict | None
    """On the samples, with the most frequent answer even where it was not trusted; None where none
    were asked for."""
    check: MissingCheck | None
    samples: tuple[TaskResult, ...]
    strong: TaskResult | None
    """Of the whole task; None where the strong worker was not called for it."""
    usage: Usage
    """Of all of it; a part is None where it is unknown."""
    strong_usd: float | None
    """What the strong worker took, or would have: then for the samples' prompt and an answer of
    their mean length, which is too little for a model that thinks first. None where unknown: a
    team, `auto`, no price."""
    latency_s: float
    episode: str | None = None
    """Where it was logged, to be finished with a final score; None without a log."""
    handed: tuple[HandedStep, ...] = ()
    """The steps that the strong worker was asked for alone."""

    @property
    def saved_usd(self) -> float | None:
        """Against always asking the strong worker; negative where samples came on top of it."""
        cost = self.usage.cost_usd
        return None if cost is None or self.strong_usd is None else self.strong_usd - cost

    def to_json(self) -> dict[str, Any]:
        """What a parent is told: JSON-ready, without the samples' texts."""
        verdict = self.verdict
        return {
            "outcome": self.outcome,
            "summary": None if self.answer is None else shortened(self.answer),
            "error": None if self.error is None else self.error.to_json(),
            "question": self.question,
            "agreement": None if verdict is None else verdict.agreement,
            "parted_at_step": self._parted_at,
            "handed_steps": [
                {"number": step.number, "text": step.text and shortened(step.text)}
                for step in self.handed
            ],
            "reason": None if verdict is None else verdict.reason,
            "models": list(dict.fromkeys(name for one in self._answering() for name in one.models)),
            "usage": usage_json(self.usage),
            "strong_usd": self.strong_usd,
            "saved_usd": self.saved_usd,
            "latency_s": round(self.latency_s, 3),
        }

    @property
    def _parted_at(self) -> int | None:
        if self.handed:
            return self.handed[0].number
        return None if self.verdict is None else self.verdict.step

    def _answering(self) -> tuple[TaskResult, ...]:
        if self.strong is not None:
            return (self.strong,)
        return (*self.samples, *(step.result for step in self.handed))

    @property
    def question(self) -> str | None:
        """What to ask first; None where nothing is missing."""
        return None if self.check is None else self.check.question


async def deliberate(
    task: Task | str,
    *,
    cheap: str,
    delegator: Delegator,
    strong: str = "auto",
    rule: Rule | None = None,
    missing: MissingRule | None = None,
    ask_missing: bool = False,
    examples: ExampleTests | None = None,
    budget_usd: float | None = None,
    within: Ledger | None = None,
    deadline_s: float | None = None,
    cost_weight: float | None = None,
    seed: int = 0,
    on_event: OnTaskEvent | None = None,
    episode: Episode | None = None,
    under: str | None = None,
) -> Deliberation:
    """A task's answer by the cheap model where its samples agree, else by the strong one.

    cheap, strong: any form of a name that the delegator takes. rule: how many samples, and how many
    must agree. missing: look first whether the task lacks information; None looks for nothing.
    ask_missing: ask the cheap model for it as well, one short call. examples: run the examples that
    the task shows; then passing them counts in place of agreeing. The other keywords are those of
    `Delegator.delegate_task`; the deadline and the budget hold for all of it.

    With `rule.at` "step" the samples work in numbered steps. Where they part, the strong worker is
    asked for that step alone, and the cheap model goes on behind it; where that does not make them
    agree either, or there is no such step, the whole task is delegated after all.

    A sample whose call fails agrees with none. The strong worker's failure is an error: the
    samples' answer stays in `verdict` and is never taken for it. What is wrong with the task or a
    name is `error`. Raises ConfigError for bad settings, RoutingError for such a cost weight,
    LogError where no episode can be opened.
    """
    rule = Rule() if rule is None else rule
    task = Task(task) if isinstance(task, str) else task
    check_options(deadline_s, cost_weight, None, seed)
    if ask_missing and missing is None:
        raise ConfigError("deliberate: ask_missing needs `missing`, the rule to judge it by")
    if episode is None and delegator.episodes is not None:
        # One tree for all of it: its final score is that of whoever's answer stands.
        episode = await asyncio.to_thread(delegator.episodes.open, task.goal)
    calls = Calls(
        task, delegator, examples=examples, ledger=Ledger(budget_usd, within=within),
        deadline_s=deadline_s, cost_weight=cost_weight, seed=seed, on_event=on_event,
        episode=episode, under=under,
    )  # fmt: skip
    try:
        done = await _outcome(calls, cheap, strong, rule, missing, ask_missing)
    except BaseException:  # such as being cancelled: a final score is none of these calls'
        await calls.set_aside(None)
        raise
    await calls.set_aside(done.answer)
    return done


async def _outcome(
    calls: Calls,
    cheap: str,
    strong: str,
    rule: Rule,
    missing: MissingRule | None,
    ask_missing: bool,
) -> Deliberation:
    task, delegator = calls.task, calls.delegator
    if task.model is not None:
        return _ended(
            calls,
            "failed",
            error=TaskError(
                "invalid_task",
                f"the task asks for {task.model!r}, and deliberating chooses between {cheap!r} and "
                f"{strong!r}; leave the task's model out, or delegate it without deliberating",
                asked=task.model,
            ),
        )
    for name in (cheap, strong):
        try:
            delegator.names.resolve(name, None, None, budgeted=calls.ledger.left_usd is not None)
        except DelegationError as unfit:
            return _ended(calls, "failed", error=unfit.error)
    if missing is not None:
        calls.check = await check_missing(
            task,
            delegator=delegator,
            model=cheap if ask_missing else None,
            rule=missing,
            within=calls.ledger,
            deadline_s=calls.left(),
            seed=calls.seed,
            on_event=calls.on_event,
            episode=calls.episode,
            under=calls.under,
        )
        if calls.check.missing:
            return _ended(calls, "asked", error=calls.check.error)
    calls.verdict = await calls.sample(cheap, rule, in_steps(task) if rule.at == "step" else task)
    unfit_error = _unfit_error(calls)
    if unfit_error is not None:
        return _ended(calls, "failed", error=unfit_error)
    if calls.verdict.delegate and rule.at == "step":
        calls.verdict = await hand_over_step(calls, cheap, strong, rule) or calls.verdict
    if not calls.verdict.delegate:
        return _ended(calls, "agreed", answer=calls.verdict.answer, estimate_of=strong)
    if not calls.handed:
        calls.verdict = with_parting(
            calls.verdict, calls.texts, threshold=rule.threshold, alike=rule.alike
        )
    calls.strong = await calls.ask(strong, "strong", task)
    if calls.strong.error is not None:
        return _ended(calls, "failed", error=calls.strong.error)
    return _ended(calls, "delegated", answer=calls.strong.answer)


def _unfit_error(calls: Calls) -> TaskError | None:
    errors = (sample.error for sample in calls.samples)
    return next((error for error in errors if error is not None and error.type in _UNFIT), None)


def _ended(
    calls: Calls,
    outcome: Outcome,
    *,
    answer: str | None = None,
    error: TaskError | None = None,
    estimate_of: str | None = None,
) -> Deliberation:
    if estimate_of is not None:
        strong_usd = _estimate(calls, estimate_of)
    else:
        strong_usd = None if calls.strong is None else calls.strong.usage.cost_usd
    return Deliberation(
        task=calls.task,
        outcome=outcome,
        answer=answer,
        error=error,
        verdict=calls.verdict,
        check=calls.check,
        samples=tuple(calls.samples),
        strong=calls.strong,
        usage=total_usage([result.usage for result in calls.results]),
        strong_usd=strong_usd,
        latency_s=calls.passed_s(),
        episode=None if calls.episode is None else calls.episode.id,
        handed=tuple(calls.handed),
    )


def _estimate(calls: Calls, strong: str) -> float | None:
    """What one call of the strong model would cost; None for a team, `auto`, no price."""
    plan = calls.delegator.names.resolve(strong, None, None, budgeted=False).plan
    if plan is None or len(plan.agents) != 1:
        return None
    price = calls.delegator.llm.price(plan.agents[0].model)
    used = [
        (result.usage.prompt_tokens, result.usage.completion_tokens)
        for result in calls.samples
        if result.answer is not None
    ]
    known = [(sent, got) for sent, got in used if sent is not None and got is not None]
    if price is None or not known:
        return None
    sent, got = (round(sum(column) / len(known)) for column in zip(*known, strict=True))
    return price.cost_usd(sent, got)
