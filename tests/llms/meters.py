"""Meters for tests: one that writes down what a client tells it, one that keeps a budget."""

from __future__ import annotations

from dataclasses import dataclass, field

from masrouter.errors import BudgetError
from masrouter.types import Usage


@dataclass
class Tally:
    """Writes down every attempt: `r` reserved, `s` settled as billed, `u` unknown, `f` free."""

    marks: str = ""
    usages: list[Usage | None] = field(default_factory=list)

    def reserve(self) -> None:
        self.marks += "r"

    def settle(self, usage: Usage | None) -> None:
        self.usages.append(usage)
        known = usage is not None and usage.cost_usd is not None
        self.marks += "s" if known else "u"

    def release(self) -> None:
        self.marks += "f"


@dataclass
class Budget:
    """Lets an attempt pass only where its worst cost still fits; unknown costs the worst."""

    limit_usd: float
    worst_usd: float
    """Of one attempt."""
    spent_usd: float = 0.0
    held_usd: float = 0.0

    def reserve(self) -> None:
        if self.spent_usd + self.held_usd + self.worst_usd > self.limit_usd:
            raise BudgetError("the next call could cost more than is left")
        self.held_usd += self.worst_usd

    def settle(self, usage: Usage | None) -> None:
        self.held_usd -= self.worst_usd
        cost = None if usage is None else usage.cost_usd
        self.spent_usd += self.worst_usd if cost is None else cost

    def release(self) -> None:
        self.held_usd -= self.worst_usd
