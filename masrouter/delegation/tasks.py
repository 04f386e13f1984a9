"""The nouns of delegation: a task that is handed out, what comes back, or why nothing does.

Everything a parent gets is JSON-ready by `to_json`; nothing here calls anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from masrouter.errors import MasRouterError
from masrouter.execution.events import Event
from masrouter.execution.ledger import total_usage
from masrouter.types import Plan, RoutingDecision, Run, Usage

ErrorType = Literal[
    "invalid_task", "unknown_model", "no_credential", "unknown_price", "not_allowed", "no_router",
    "no_plan", "budget", "limit", "provider", "deadline", "needs", "missing_information", "worker",
    "internal",
]  # fmt: skip
"""Why a task has no result.

invalid_task: the task itself cannot be meant. unknown_model: the name leads nowhere.
no_credential: its provider's key is not set. unknown_price: there is a budget, and nobody knows
what the model costs. not_allowed: the settings refuse it. no_router: `auto` without a checkpoint.
no_plan: the router has no plan within the constraints. budget: money ran out, or would. limit: too
many, or too deep. provider: every call ended badly. deadline: the time was over. needs: a task that
it needs failed. missing_information: something has to be asked first. worker: a worker that is no
chat model failed. internal: a fault of this program.
"""

Source = Literal["task", "call", "default", "parent"]
"""Who asked for the model: in this order of precedence."""

TargetKind = Literal["model", "plan", "worker", "policy", "auto"]

MOST_SUMMARY = 2000
"""Characters of a summary; a longer answer is cut in its middle, and says so."""


@dataclass(frozen=True, slots=True)
class TaskError:
    """Why a task has no result, for a program or a model that can do better next time."""

    type: ErrorType
    message: str
    """What was asked, why not, and what to do."""
    asked: str | None = None
    """The name or value as it was asked for."""
    nearest: tuple[str, ...] = ()
    """Valid names that come nearest, best first."""
    retryable: bool = False
    """True where the same task may succeed later."""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "type": self.type,
            "message": self.message,
            "asked": self.asked,
            "nearest": list(self.nearest),
            "retryable": self.retryable,
        }


class DelegationError(MasRouterError):
    """A task cannot be done; `error` says why."""

    def __init__(self, error: TaskError) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(frozen=True, slots=True)
class Grading:
    """How good a task's answer was."""

    score: float
    """In [0, 1]."""
    source: str
    """As a log's `score_source`."""


Grade = Callable[[str], Grading | None]
"""A task's own grader: of its answer, None where it cannot tell. Called in a thread of its own."""


@dataclass(frozen=True, slots=True)
class Task:
    """One piece of work. It sees its goal, its context and the results it needs: nothing else."""

    goal: str
    context: str = ""
    model: str | None = None
    """How a model is asked for; None leaves it to the call, then the default, then the parent."""
    id: str | None = None
    """Its name in the batch; None takes `task-1`, `task-2`, ... by position."""
    needs: tuple[str, ...] = ()
    """Ids of other tasks of the batch: it waits for them and is given their answers."""
    max_tokens: int | None = None
    """Completion tokens of an answer; None takes the settings'."""
    kind: str | None = None
    """Domain for the log: `code`, `math`, ..."""
    grade: Grade | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """What a name led to."""

    asked: str
    source: Source
    kind: TargetKind
    plan: Plan | None
    """What will run; None for `auto`, which the router fills in, and for a policy, which settles it
    as it goes. A worker is a plan of one agent whose model is the worker."""
    policy: str | None = None
    """The name of the policy, where it is one."""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What became of a task. Either `error` is None and there is an answer, or the other way."""

    id: str
    goal: str
    asked: str | None
    """The name that decided; None where nobody named a model."""
    source: Source | None
    plan: Plan | None
    """The team that worked; None where nothing was run. Of a policy the team whose answer stands,
    as `models`, `decision` and `run` are then."""
    models: tuple[str, ...]
    """Who really answered, as their providers name themselves; empty where nobody did."""
    answer: str | None
    usage: Usage
    """All that the task took, failed or not; a part is None where it is unknown."""
    latency_s: float
    error: TaskError | None = None
    grading: Grading | None = None
    decision: RoutingDecision | None = None
    """The router's, for `auto`."""
    run: Run | None = None
    """The whole trace, where a team ran."""
    node: str | None = None
    """Its name in the log of episodes; None where it was not logged. A policy's work is logged by
    its parts: then it is the part whose answer stands."""
    policy: Mapping[str, Any] | None = None
    """JSON-ready, of a policy: its `name` and `kind`, the `outcome`, in a few words `how`, and what
    else it found."""

    @property
    def summary(self) -> str | None:
        """The answer, cut in its middle to `MOST_SUMMARY` characters."""
        return None if self.answer is None else shortened(self.answer)

    def to_json(self) -> dict[str, Any]:
        """What a parent is told: JSON-ready, without the trace."""
        expected = self.decision
        return {
            "id": self.id,
            "status": "done" if self.error is None else "failed",
            "summary": self.summary,
            "error": None if self.error is None else self.error.to_json(),
            "asked": self.asked,
            "asked_by": self.source,
            "plan": None if self.plan is None else str(self.plan),
            "models": list(self.models),
            "usage": usage_json(self.usage),
            "latency_s": round(self.latency_s, 3),
            "expected": None
            if expected is None
            else {
                "score": expected.expected_score,
                "cost_usd": expected.expected_cost_usd,
                "reasons": list(expected.reasons),
            },
            "score": None if self.grading is None else self.grading.score,
            "policy": None if self.policy is None else dict(self.policy),
        }


@dataclass(frozen=True, slots=True)
class Batch:
    """The results of a batch, in the order of its tasks."""

    results: tuple[TaskResult, ...]
    latency_s: float
    budget_usd: float | None
    charged_usd: float = 0.0
    """Worst cost of calls that may have been billed though nothing said what they cost."""
    episode: str | None = None
    """The episode that the results were logged to; None without a log."""

    @property
    def usage(self) -> Usage:
        """The sum over the tasks."""
        return total_usage([result.usage for result in self.results])

    @property
    def failed(self) -> tuple[TaskResult, ...]:
        """The tasks without an answer."""
        return tuple(result for result in self.results if result.error is not None)

    def to_json(self) -> dict[str, Any]:
        """What a parent is told: JSON-ready."""
        return {
            "results": [result.to_json() for result in self.results],
            "usage": usage_json(self.usage),
            "budget_usd": self.budget_usd,
            "latency_s": round(self.latency_s, 3),
        }


@dataclass(frozen=True, slots=True)
class TaskRouted:
    """It is settled who will do a task."""

    id: str
    target: Target
    plan: Plan | None
    """None for a policy."""
    decision: RoutingDecision | None


@dataclass(frozen=True, slots=True)
class TaskStarted:
    """A task's work begins."""

    id: str


@dataclass(frozen=True, slots=True)
class TaskWorking:
    """Something happened within a task's team, or within one of a policy's."""

    id: str
    event: Event


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """A task is over, well or not."""

    result: TaskResult


TaskEvent = TaskRouted | TaskStarted | TaskWorking | TaskEnded
OnTaskEvent = Callable[[TaskEvent], None]


def shortened(text: str, most: int = MOST_SUMMARY) -> str:
    """A text of at most about `most` characters: start and end are kept, the gap says its size."""
    if len(text) <= most:
        return text
    end = most // 3
    start = most - end
    cut = len(text) - start - end
    return f"{text[:start]}\n[... {cut} characters left out ...]\n{text[-end:]}"


def usage_json(usage: Usage) -> dict[str, Any]:
    """JSON-ready; null where a part is unknown."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cost_usd": usage.cost_usd,
    }


def error_json(error: TaskError) -> dict[str, Any]:
    """`{"error": {...}}`: what a tool call answers where it cannot be done."""
    return {"error": error.to_json()}
