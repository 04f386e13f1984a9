"""The calls of one deliberation: its books, its clock and its seeds, and what has come so far.

Not here: what is asked of whom, and when it is enough (`deliberating`, `stepwise`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from masrouter.answers import answer_key
from masrouter.delegation.deliberation.agreement import Rule, Verdict, verdict_of
from masrouter.delegation.deliberation.missing import MissingCheck
from masrouter.delegation.tasks import OnTaskEvent, Task, TaskResult
from masrouter.execution.ledger import Ledger
from masrouter.topologies.team import ExampleTests, call_seed

if TYPE_CHECKING:
    from masrouter.delegation.delegator import Delegator
    from masrouter.delegation.episodes.log import Episode


@dataclass(frozen=True, slots=True)
class HandedStep:
    """A step that the strong worker was asked for alone."""

    number: int
    """Which one, from 1."""
    text: str | None
    """None where its reply gives no step, or there is none."""
    result: TaskResult


class Calls:
    """One deliberation under way."""

    def __init__(
        self,
        task: Task,
        delegator: Delegator,
        *,
        examples: ExampleTests | None,
        ledger: Ledger,
        deadline_s: float | None,
        cost_weight: float | None,
        seed: int,
        on_event: OnTaskEvent | None,
        episode: Episode | None,
        under: str | None,
    ) -> None:
        """The keywords are those of `deliberate`. To be made in the event loop that uses it."""
        self.task = task
        self.delegator = delegator
        self.ledger = ledger
        self.seed = seed
        self.on_event = on_event
        self.episode = episode
        self.under = under
        self.check: MissingCheck | None = None
        self.verdict: Verdict | None = None
        self.samples: list[TaskResult] = []
        """All of them, in the order of their drawing."""
        self.voting: list[TaskResult] = []
        """Those that the last verdict is on."""
        self.handed: list[HandedStep] = []
        self.strong: TaskResult | None = None
        """Of the whole task; None where nobody was asked for it."""
        self._asked: list[TaskResult] = []
        self._examples = examples
        self._passed: dict[str, bool | None] = {}
        self._cost_weight = cost_weight
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()
        self._end = None if deadline_s is None else self._start + deadline_s

    @property
    def results(self) -> list[TaskResult]:
        """Of every call that came back, also where what it was for was cancelled."""
        checked = None if self.check is None else self.check.result
        return [*self._asked, *([] if checked is None else [checked])]

    @property
    def texts(self) -> list[str]:
        """What those that the verdict is on say; without those whose calls failed."""
        return [result.answer for result in self.voting if result.answer is not None]

    def left(self) -> float | None:
        """Seconds; a call that is sent with none left is told so by the delegator."""
        return None if self._end is None else max(self._end - self._loop.time(), 1e-3)

    def passed_s(self) -> float:
        """Seconds since it began."""
        return self._loop.time() - self._start

    async def ask(self, model: str, part: str, task: Task) -> TaskResult:
        """One call; `part` names it among the others, and gives it its seed."""
        name = part if task.id is None else f"{task.id}-{part}"
        result = await self.delegator.delegate_task(
            replace(task, model=model, id=name, needs=()),
            within=self.ledger,
            deadline_s=self.left(),
            cost_weight=self._cost_weight,
            seed=call_seed(self.seed, 0, part),
            on_event=self.on_event,
            episode=self.episode,
            under=self.under,
        )
        self._asked.append(result)
        return result

    async def sample(
        self, cheap: str, rule: Rule, task: Task, votes: Sequence[TaskResult] = ()
    ) -> Verdict:
        """Ask the cheap model until there are as many as the rule says, `votes` among them.

        All at once, or no more at a time than could settle it.
        """
        self.voting = list(votes)
        while True:
            verdict = await self._verdict(rule)
            tried = len(self.voting)
            more = rule.wanting(verdict.votes, tried) if rule.stop_early else rule.samples - tried
            if not more:
                return verdict
            drawn = await self._draw(cheap, task, more)
            self.samples += drawn
            self.voting += drawn

    async def _draw(self, cheap: str, task: Task, count: int) -> list[TaskResult]:
        first = len(self.samples) + 1
        try:
            async with asyncio.TaskGroup() as group:
                asked = [
                    group.create_task(self.ask(cheap, f"sample-{number}", task))
                    for number in range(first, first + count)
                ]
        except BaseExceptionGroup as broken:
            # What a sample may fail by is its result: this is a fault of all of them.
            raise broken.exceptions[0] from None
        return [one.result() for one in asked]

    async def _verdict(self, rule: Rule) -> Verdict:
        texts = self.texts
        checks = [await self._passes(text) for text in texts]
        passed = None if all(one is None for one in checks) else [bool(one) for one in checks]
        verdict = verdict_of(texts, threshold=rule.threshold, asked=rule.samples, passed=passed)
        errors = [sample.error for sample in self.voting if sample.error is not None]
        if not errors:
            return verdict
        # A provider that is down is no disagreement.
        failed = f"{len(errors)} of {rule.samples} samples failed (the first: {errors[0].message})"
        return replace(verdict, reason=f"{failed}; {verdict.reason}")

    async def _passes(self, text: str) -> bool | None:
        """Whether it does what the task's own examples show; None where there are none."""
        if self._examples is None:
            return None
        if text not in self._passed:
            report = await self._examples.report(self.task.goal, text)
            self._passed[text] = None if report is None else report.passed
        return self._passed[text]

    async def set_aside(self, answer: str | None) -> None:
        """Say in the log who had no part in this answer, so that no score reaches them.

        Whose answer it is had one, and whoever's step it stands on.
        """
        log = self.delegator.episodes
        if log is None or self.episode is None:
            return
        part: list[TaskResult] = []
        if self.strong is not None:
            part = [self.strong]
        elif answer is not None:
            key = answer_key(answer)
            agreed = (one for one in self.voting if one.answer and answer_key(one.answer) == key)
            part = [*agreed, *(step.result for step in self.handed)]
        nodes = {result.node for result in part}
        try:
            for result in self.results:
                if result.node is not None and result.node not in nodes:
                    await asyncio.to_thread(log.set_aside, self.episode, result.node)
        except Exception as error:  # an answer is worth more than its record, as for `Recording`
            told = {"message": "what was unused could not be logged", "exception": error}
            self._loop.call_exception_handler(told)
