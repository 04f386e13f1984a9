"""Deliberate: the cheap model a few times, and the strong worker only where its samples disagree.

    check what is missing -> sample the cheap model -> agreed: its answer
                                                    -> not: the strong worker, on the whole task

Everything runs through one `Delegator` and one ledger. That the samples differ at all is left to
the provider's default temperature and to the seeds: a model that always says the same agrees with
itself, and nothing is ever delegated.

Sources: self-consistency (Wang et al., arXiv 2203.11171) as the acceptance test of a cascade (Yue
et al., arXiv 2310.03094); at which step samples part, SAND (Xia et al., arXiv 2507.07441).
Not here: the rule itself (`agreement`), and how it is chosen on logs (`calibration`).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from masrouter.answers import answer_key
from masrouter.delegation.delegator import Delegator, check_options
from masrouter.delegation.deliberation.agreement import Rule, Verdict, should_delegate
from masrouter.delegation.deliberation.missing import MissingCheck, MissingRule, check_missing
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
from masrouter.sections import section
from masrouter.topologies.prompts import prompt
from masrouter.topologies.team import ExampleTests, call_seed
from masrouter.types import Usage

if TYPE_CHECKING:
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
    """None where the strong worker was not called."""
    usage: Usage
    """Of all of it; a part is None where it is unknown."""
    strong_usd: float | None
    """What the strong worker took, or would have: then for the samples' prompt and an answer of
    their mean length, which is too little for a model that thinks first. None where unknown: a
    team, `auto`, no price."""
    latency_s: float
    episode: str | None = None
    """Where it was logged, to be finished with a final score; None without a log."""

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
            "parted_at_step": None if verdict is None else verdict.step,
            "reason": None if verdict is None else verdict.reason,
            "models": list(dict.fromkeys(name for one in self._answering() for name in one.models)),
            "usage": usage_json(self.usage),
            "strong_usd": self.strong_usd,
            "saved_usd": self.saved_usd,
            "latency_s": round(self.latency_s, 3),
        }

    def _answering(self) -> tuple[TaskResult, ...]:
        return self.samples if self.strong is None else (self.strong,)

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
    hand_over: bool = False,
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
    ask_missing: ask the cheap model for it as well, one short call. hand_over: give the strong
    worker the steps on which the samples agree as context. examples: run the examples that the task
    shows; then passing them counts in place of agreeing. The other keywords are those of
    `Delegator.delegate_task`; the deadline and the budget hold for all of it.

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
    work = _Work(
        task, delegator, Ledger(budget_usd, within=within), deadline_s, seed, on_event, episode,
        under, cost_weight,
    )  # fmt: skip
    done = await _outcome(work, cheap, strong, rule, missing, ask_missing, hand_over, examples)
    await work.set_aside(done)
    return done


async def _outcome(
    work: _Work,
    cheap: str,
    strong: str,
    rule: Rule,
    missing: MissingRule | None,
    ask_missing: bool,
    hand_over: bool,
    examples: ExampleTests | None,
) -> Deliberation:
    task, delegator = work.task, work.delegator
    if task.model is not None:
        return work.failed(
            TaskError(
                "invalid_task",
                f"the task asks for {task.model!r}, and deliberating chooses between {cheap!r} and "
                f"{strong!r}; leave the task's model out, or delegate it without deliberating",
                asked=task.model,
            )
        )
    for name in (cheap, strong):
        try:
            delegator.names.resolve(name, None, None, budgeted=work.ledger.left_usd is not None)
        except DelegationError as unfit:
            return work.failed(unfit.error)
    if missing is not None:
        work.check = await check_missing(
            task,
            delegator=delegator,
            model=cheap if ask_missing else None,
            rule=missing,
            within=work.ledger,
            deadline_s=work.left(),
            seed=work.seed,
            on_event=work.on_event,
            episode=work.episode,
            under=work.under,
        )
        if work.check.missing:
            return work.ended("asked", error=work.check.error)
    verdict = await work.sample(cheap, rule, examples)
    unfit_error = next(
        (s.error for s in work.samples if s.error is not None and s.error.type in _UNFIT), None
    )
    if unfit_error is not None:
        return work.failed(unfit_error)
    if not verdict.delegate:
        return work.ended("agreed", answer=verdict.answer, estimate_of=strong)
    await work.ask_strong(strong, verdict if hand_over else None)
    assert work.strong is not None
    if work.strong.error is not None:
        return work.failed(work.strong.error)
    return work.ended("delegated", answer=work.strong.answer)


def handed_over(context: str, agreed: tuple[str, ...]) -> str:
    """A context with the steps on which samples agree; as it is where there are none."""
    if not agreed:
        return context
    steps = "\n".join(f"{number}. {step}" for number, step in enumerate(agreed, 1))
    told = "Several attempts at this task agree on these steps and part after them:"
    return prompt(context, f"{told}\n{section('agreed_steps', steps)}")


class _Work:
    """One deliberation under way: its books, its clock, and what it has so far."""

    def __init__(
        self,
        task: Task,
        delegator: Delegator,
        ledger: Ledger,
        deadline_s: float | None,
        seed: int,
        on_event: OnTaskEvent | None,
        episode: Episode | None,
        under: str | None,
        cost_weight: float | None,
    ) -> None:
        self.task = task
        self.delegator = delegator
        self.ledger = ledger
        self.samples: list[TaskResult] = []
        self.strong: TaskResult | None = None
        self.check: MissingCheck | None = None
        self.verdict: Verdict | None = None
        self.seed = seed
        self.on_event = on_event
        self.episode = episode
        self.under = under
        self.cost_weight = cost_weight
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()
        self._end = None if deadline_s is None else self._start + deadline_s

    def left(self) -> float | None:
        """Seconds; a call that is sent with none left is told so by the delegator."""
        return None if self._end is None else max(self._end - self._loop.time(), 1e-3)

    async def sample(self, cheap: str, rule: Rule, examples: ExampleTests | None) -> Verdict:
        """Ask the cheap model as often as the rule says, all at once or until it is settled."""
        wave = rule.needed if rule.stop_early else rule.samples
        while True:
            await self._ask_cheap(cheap, wave)
            verdict = await self._judged(rule, examples)
            wave = rule.wanting(verdict.votes, len(self.samples))
            if not wave:
                self.verdict = verdict
                return verdict

    async def _ask_cheap(self, cheap: str, count: int) -> None:
        first = len(self.samples) + 1
        try:
            async with asyncio.TaskGroup() as group:
                asked = [
                    group.create_task(self._ask(cheap, f"sample-{number}", self.task.context))
                    for number in range(first, first + count)
                ]
        except BaseExceptionGroup as broken:
            # What a sample may fail by is its result: this is a fault of all of them.
            raise broken.exceptions[0] from None
        self.samples += [one.result() for one in asked]

    async def _judged(self, rule: Rule, examples: ExampleTests | None) -> Verdict:
        texts = [result.answer for result in self.samples if result.answer is not None]
        passed: list[bool] | None = None
        if examples is not None:
            reports = [await examples.report(self.task.goal, text) for text in texts]
            if any(report is not None for report in reports):
                passed = [report is not None and report.passed for report in reports]
        return should_delegate(texts, threshold=rule.threshold, asked=rule.samples, passed=passed)

    async def ask_strong(self, strong: str, verdict: Verdict | None) -> None:
        """Hand the task on, with the steps of `verdict` where one is given."""
        context = self.task.context
        if verdict is not None:
            context = handed_over(context, verdict.agreed)
        self.strong = await self._ask(strong, "strong", context)

    async def _ask(self, model: str, part: str, context: str) -> TaskResult:
        name = part if self.task.id is None else f"{self.task.id}-{part}"
        return await self.delegator.delegate_task(
            replace(self.task, model=model, id=name, context=context, needs=()),
            within=self.ledger,
            deadline_s=self.left(),
            cost_weight=self.cost_weight,
            seed=call_seed(self.seed, 0, part),
            on_event=self.on_event,
            episode=self.episode,
            under=self.under,
        )

    async def set_aside(self, done: Deliberation) -> None:
        """Say in the log whose answers had no part in the end, so that no score reaches them."""
        log = self.delegator.episodes
        if log is None or self.episode is None:
            return
        key = None if done.answer is None else answer_key(done.answer)
        lost = [
            sample
            for sample in self.samples
            if done.outcome != "agreed" or sample.answer is None or answer_key(sample.answer) != key
        ]
        if self.check is not None and self.check.result is not None:
            lost.append(self.check.result)
        try:
            for result in lost:
                if result.node is not None:
                    await asyncio.to_thread(log.set_aside, self.episode, result.node)
        except Exception as error:  # an answer is worth more than its record, as for `Recording`
            told = {"message": "what was unused could not be logged", "exception": error}
            self._loop.call_exception_handler(told)

    def failed(self, error: TaskError) -> Deliberation:
        return self.ended("failed", error=error)

    def ended(
        self,
        outcome: Outcome,
        *,
        answer: str | None = None,
        error: TaskError | None = None,
        estimate_of: str | None = None,
    ) -> Deliberation:
        asked = [*self.samples, *([] if self.strong is None else [self.strong])]
        if self.check is not None and self.check.result is not None:
            asked.append(self.check.result)
        if estimate_of is not None:
            strong_usd = self._estimate(estimate_of)
        else:
            strong_usd = None if self.strong is None else self.strong.usage.cost_usd
        return Deliberation(
            task=self.task,
            outcome=outcome,
            answer=answer,
            error=error,
            verdict=self.verdict,
            check=self.check,
            samples=tuple(self.samples),
            strong=self.strong,
            usage=total_usage([result.usage for result in asked]),
            strong_usd=strong_usd,
            latency_s=self._loop.time() - self._start,
            episode=None if self.episode is None else self.episode.id,
        )

    def _estimate(self, strong: str) -> float | None:
        """What one call of the strong model would cost; None for a team, `auto`, no price."""
        plan = self.delegator.names.resolve(strong, None, None, budgeted=False).plan
        if plan is None or len(plan.agents) != 1:
            return None
        price = self.delegator.llm.price(plan.agents[0].model)
        used = [
            (result.usage.prompt_tokens, result.usage.completion_tokens)
            for result in self.samples
            if result.answer is not None
        ]
        known = [(sent, got) for sent, got in used if sent is not None and got is not None]
        if price is None or not known:
            return None
        sent, got = (round(sum(column) / len(known)) for column in zip(*known, strict=True))
        return price.cost_usd(sent, got)
