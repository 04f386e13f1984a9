"""Delegation: a parent hands out tasks, and each runs on the model or team that fits it.

    goals ──► who was asked for (`naming`), or who the router picks (`automatic`) ──► `Delegator`
          ──► results in order, errors that say the way out ──► `episodes` ──► logs to learn from

`tools` lets a language model do it and `parent` is the loop in which one does; `deliberation` says
when it pays, by thresholds of `calibration`; `workers` are callables that stand beside the chat
models, and `policies` are ways of doing a task with several of all these, under one name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from masrouter.delegation.tasks import (
    Batch,
    DelegationError,
    Grading,
    Task,
    TaskError,
    TaskResult,
)

if TYPE_CHECKING:
    from masrouter.delegation.delegator import Delegator, delegate_task, delegate_tasks
    from masrouter.delegation.naming import Settings

__all__ = [
    "Batch",
    "DelegationError",
    "Delegator",
    "Grading",
    "Settings",
    "Task",
    "TaskError",
    "TaskResult",
    "delegate_task",
    "delegate_tasks",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """The names that take time to import, when they are first used (PEP 562)."""
        if name in ("Delegator", "delegate_task", "delegate_tasks"):
            import masrouter.delegation.delegator as home
        elif name == "Settings":
            import masrouter.delegation.naming as home
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(home, name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
