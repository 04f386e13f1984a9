"""Rules that a topology's seats and settings must meet."""

from __future__ import annotations

from masrouter.errors import ConfigError, PlanError
from masrouter.types import Plan


def check_seats(plan: Plan, fewest: int, most: int | None = None) -> None:
    """Raises PlanError unless the plan has `fewest` to `most` agents."""
    count = len(plan.agents)
    if count < fewest or (most is not None and count > most):
        if most is None:
            takes = f"at least {fewest}"
        else:
            takes = str(fewest) if fewest == most else f"{fewest} to {most}"
        raise PlanError(f"plan: agents: {plan.topology!r} takes {takes}, got {count}")


def check_count(name: str, value: int, *, least: int, most: int | None = None) -> None:
    """Raises ConfigError unless a setting is a whole number in its range."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        span = f">= {least}" if most is None else f"from {least} to {most}"
        raise ConfigError(f"{name}: expected a number {span}, got {value!r}")


def at_least_half(count: int) -> int:
    """How many of `count` seats must answer for their vote to stand for all of them."""
    return (count + 1) // 2
