"""What a parent is allowed, and what becomes of a question that is given to one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from masrouter.delegation.tasks import Target, TaskError, TaskResult, usage_json
from masrouter.errors import ConfigError
from masrouter.execution.ledger import total_usage
from masrouter.llms.chat import ToolCall
from masrouter.types import Call, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentLimits:
    """How far a parent may go. Raises ConfigError for what is no whole number >= 1."""

    max_turns: int = 12
    """Calls of its own model; parents below it have as many each."""
    max_tasks: int | None = None
    """Handed out by it and all parents below; None takes the settings' `max_total_tasks`."""
    max_depth: int | None = None
    """Parents above one another, itself included; at most the settings' `max_depth`, and None
    takes that."""
    max_calls: int = 16
    """Calls of tools in one turn."""
    max_tokens: int | None = None
    """Completion tokens of a turn; None takes the settings'."""

    def __post_init__(self) -> None:
        for name in ("max_turns", "max_tasks", "max_depth", "max_calls", "max_tokens"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            optional = value is None and name not in ("max_turns", "max_calls")
            if not optional and not (whole and value >= 1):
                raise ConfigError(f"{name}: expected a whole number >= 1, got {value!r}")


@dataclass(frozen=True, slots=True)
class Turn:
    """One call of the parent's model, and what its calls of tools were answered."""

    text: str
    calls: tuple[ToolCall, ...]
    answers: tuple[Mapping[str, Any], ...]
    """One of each call, JSON-ready; none where the turn was the last."""


@dataclass(frozen=True, slots=True)
class ParentRun:
    """What became of a question. Either `error` is None and there is an answer, or the other way.

    However it ended, `turns`, `calls` and `results` hold what was done.
    """

    goal: str
    target: Target
    """Who the parent was."""
    answer: str | None
    error: TaskError | None
    turns: tuple[Turn, ...]
    calls: tuple[Call, ...]
    """Of the parent's own model, with their cost; a last one that failed is among them."""
    results: tuple[TaskResult, ...]
    """Of what it handed out, in the order in which it ended. `2.1/draft` is the task `draft` of
    the first call of turn 2."""
    below: Mapping[str, ParentRun]
    """The runs of those of its workers that were parents themselves, by the id of the result."""
    latency_s: float
    budget_usd: float | None
    charged_usd: float = 0.0
    """Worst cost of calls that may have been billed though nothing said what they cost."""
    episode: str | None = None
    """The episode that the results were logged to; None without a log."""

    @property
    def own_usage(self) -> Usage:
        """Of the parent's own calls."""
        return total_usage([call.usage for call in self.calls])

    @property
    def usage(self) -> Usage:
        """Of all: its own calls and what it handed out."""
        return total_usage([self.own_usage, *(result.usage for result in self.results)])

    @property
    def models(self) -> tuple[str, ...]:
        """Who really answered as the parent, as the provider names itself."""
        named = (call.answered_by for call in self.calls if call.answered_by is not None)
        return tuple(dict.fromkeys(named))

    @property
    def said(self) -> str | None:
        """Its last words, answer or not; None where it wrote nothing."""
        return next((turn.text for turn in reversed(self.turns) if turn.text.strip()), None)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, without the traces."""
        return {
            "goal": self.goal,
            "status": "done" if self.error is None else "failed",
            "answer": self.answer,
            "error": None if self.error is None else self.error.to_json(),
            "said": self.said,
            "asked": self.target.asked,
            "models": list(self.models),
            "turns": len(self.turns),
            "results": [result.to_json() for result in self.results],
            "usage": usage_json(self.usage),
            "budget_usd": self.budget_usd,
            "latency_s": round(self.latency_s, 3),
        }
