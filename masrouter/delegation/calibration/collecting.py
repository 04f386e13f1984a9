"""Run tasks both ways, and keep what came of it: the log that every rule is chosen on.

Each task goes to the cheap model several times and to the strong worker once, through a
`Delegator`, and is graded; where wanted, again in numbered steps, with what a rule that delegates a
step would ask for. Not here: the log's file (`sampled`), and what is chosen on it (`agreement`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from masrouter.delegation.calibration.in_order import done_in_order
from masrouter.delegation.calibration.replaying import Answers, Drawn, place_of, rules_of
from masrouter.delegation.calibration.sampled import (
    Check,
    Parting,
    Sample,
    SampledQuery,
    StepOutcome,
    StrongOutcome,
)
from masrouter.delegation.deliberation.agreement import MOST_SAMPLES, Rule
from masrouter.delegation.deliberation.missing import MissingRule, check_missing
from masrouter.delegation.deliberation.steps import Parted, read_next_step
from masrouter.delegation.deliberation.stepwise import in_steps, only_next_step, votes_behind
from masrouter.delegation.tasks import DelegationError, Task, TaskResult
from masrouter.errors import ConfigError
from masrouter.execution.ledger import Ledger
from masrouter.topologies.team import call_seed

if TYPE_CHECKING:
    from masrouter.delegation.delegator import Delegator


@dataclass(frozen=True, slots=True)
class Label:
    """What is known of a task beforehand; see `SampledQuery`."""

    lacks: bool | None = None
    group: str | None = None


async def collect_samples(
    tasks: Sequence[Task],
    *,
    cheap: str,
    strong: str,
    delegator: Delegator,
    samples: int = 5,
    steps: bool = False,
    check: bool = False,
    labels: Mapping[str, Label] | None = None,
    budget_usd: float | None = None,
    within: Ledger | None = None,
    seed: int = 0,
    max_concurrency: int = 8,
    on_query: Callable[[SampledQuery], None] | None = None,
    on_failure: Callable[[TaskResult], None] | None = None,
) -> tuple[SampledQuery, ...]:
    """Each task by the cheap model `samples` times, and once by the strong worker, all graded.

    Every task needs an id of its own and a grader. A call that fails for good counts as a wrong
    answer, as it would for whoever waits for it; one that was refused (unknown name, no key, no
    money left) raises DelegationError, and an answer that the grader cannot judge ConfigError.

    steps: also as many samples in numbered steps, and for every list of steps behind which a rule
    of `rules_of` might hand over: the strong worker's step, and samples that go on behind it.
    check: also ask the cheap model what each task lacks.
    labels: by task id, what is known of a task beforehand.
    on_query: given each query, in their order, once all before it are done; and those that were
    done where it ends with an error, so that what was paid for is not lost. on_failure: given each
    call that failed for good; where a provider was down, they say nothing of its models.
    """
    if len({task.id for task in tasks}) < len(tasks) or any(t.id is None for t in tasks):
        raise ConfigError("collect_samples: every task needs an id of its own")
    if any(task.grade is None for task in tasks):
        raise ConfigError("collect_samples: every task needs a grader")
    if not 2 <= samples <= MOST_SAMPLES:
        raise ConfigError(f"collect_samples: samples: expected 2 to {MOST_SAMPLES}, got {samples}")
    labels = {} if labels is None else labels
    if strange := sorted(set(labels) - {str(task.id) for task in tasks}):
        raise ConfigError(f"collect_samples: labels: no task has the id {strange[0]!r}")
    work = _Collecting(
        delegator, cheap, strong, samples, Ledger(budget_usd, within=within), seed,
        asyncio.Semaphore(max_concurrency), on_failure,
    )  # fmt: skip

    async def collect(task: Task) -> SampledQuery:
        label = labels.get(str(task.id), Label())
        return await work.query(task, label, steps=steps, check=check)

    # As many tasks as calls: where the money runs out, few of them are half done.
    return await done_in_order(tasks, collect, at_once=max_concurrency, tell=on_query)


@dataclass(frozen=True, slots=True)
class _Collecting:
    """The calls of all tasks: one ledger, so many at once."""

    delegator: Delegator
    cheap: str
    strong: str
    samples: int
    ledger: Ledger
    seed: int
    slots: asyncio.Semaphore
    on_failure: Callable[[TaskResult], None] | None

    async def query(self, task: Task, label: Label, *, steps: bool, check: bool) -> SampledQuery:
        """All that is asked of one task."""
        plain, best, checked, stepped = await asyncio.gather(
            self._sample(task, task, "sample", self.samples),
            self._ask(task, self.strong, "strong"),
            self._check(task) if check else _nothing(),
            self._sample(task, in_steps(task), "stepped", self.samples if steps else 0),
        )
        partings = await self._partings(task, Answers.read(stepped))
        return SampledQuery(
            query_id=str(task.id),
            query=task.goal,
            task=task.kind,
            context=task.context,
            samples=plain,
            strong=StrongOutcome(self._score(task, best), best.usage.cost_usd),
            lacks=label.lacks,
            group=label.group,
            check=checked,
            stepped=stepped,
            partings=partings,
        )

    async def _partings(self, task: Task, stepped: Answers) -> tuple[Parting, ...]:
        """One for each list of steps behind which a rule may hand over, in the rules' order."""
        reached: dict[tuple[str, ...], list[tuple[Rule, Parted, Drawn]]] = {}
        for stop_early in (False, True):
            for rule in rules_of(len(stepped.samples), stop_early=stop_early, at_step=True):
                drawn, place = place_of(stepped, rule)
                if place is not None:
                    done = tuple(step.text for step in place.agreed)
                    reached.setdefault(done, []).append((rule, place, drawn))
        found = (
            self._parting(task, stepped, f"parting-{number}", done, rules)
            for number, (done, rules) in enumerate(reached.items(), 1)
        )
        return tuple(await asyncio.gather(*found))

    async def _parting(
        self,
        task: Task,
        stepped: Answers,
        part: str,
        done: tuple[str, ...],
        rules: Sequence[tuple[Rule, Parted, Drawn]],
    ) -> Parting:
        """The strong worker's step behind others, and as many samples as any rule asks for."""
        said = await self._ask(only_next_step(task, done), self.strong, f"{part}-step")
        outcome = StepOutcome(said.answer or "", said.usage.cost_usd)
        step = read_next_step(outcome.text, rules[0][1].agreed)
        if step is None:
            return Parting(done, outcome, ())
        most = max(
            rule.samples - len(votes_behind(stepped.steps[: drawn.tried], place, step, rule))
            for rule, place, drawn in rules
        )
        behind = in_steps(task, [*done, step.text])
        return Parting(done, outcome, await self._sample(task, behind, part, most))

    async def _check(self, task: Task) -> Check:
        async with self.slots:
            found = await check_missing(
                task,
                delegator=self.delegator,
                model=self.cheap,
                rule=MissingRule.by_model_alone(),
                within=self.ledger,
                seed=call_seed(self.seed, 0, f"{task.id} missing"),
            )
        assert found.result is not None  # this rule asks whatever the text shows
        self._settled(found.result)
        return Check(found.missing, found.result.usage.cost_usd)

    async def _sample(self, task: Task, asked: Task, part: str, count: int) -> tuple[Sample, ...]:
        parts = [f"{part}-{number}" for number in range(1, count + 1)]
        results = await asyncio.gather(*(self._ask(asked, self.cheap, name) for name in parts))
        return tuple(
            Sample(one.answer or "", self._score(task, one), one.usage.cost_usd) for one in results
        )

    async def _ask(self, task: Task, model: str, part: str) -> TaskResult:
        async with self.slots:
            result = await self.delegator.delegate_task(
                replace(task, id=f"{task.id}-{part}", model=model, needs=()),
                within=self.ledger,
                seed=call_seed(self.seed, 0, f"{task.id} {part}"),
            )
        self._settled(result)
        return result

    def _settled(self, result: TaskResult) -> None:
        """Raises DelegationError for a call that was refused."""
        if result.error is not None:
            if result.error.type not in ("provider", "worker", "deadline"):
                raise DelegationError(result.error)
            if self.on_failure is not None:
                self.on_failure(result)

    def _score(self, task: Task, result: TaskResult) -> float:
        if result.error is not None:
            return 0.0
        if result.grading is None:
            raise ConfigError(f"collect_samples: task {task.id!r}: its grader gave no grade")
        return result.grading.score


async def _nothing() -> None:
    """Where the model is not asked."""
