"""masrouter: a trainable multi-agent router. `__all__` is the public API.

Importing it opens no socket and needs no key; what a name needs is loaded when the name is first
used. Routing with an exported checkpoint needs no torch at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from masrouter.errors import (
    BudgetError,
    CallError,
    CatalogError,
    CheckpointError,
    CollectionError,
    ConfigError,
    ConstraintError,
    EncoderError,
    EvaluationError,
    ExecutionError,
    LogError,
    MasRouterError,
    PlanError,
    ProblemError,
    RoutingError,
    SandboxError,
    TrainingError,
)
from masrouter.types import (
    Agent,
    Call,
    Evidence,
    Interval,
    LogRecord,
    Plan,
    RoutingDecision,
    Run,
    ScoredPlan,
    StageProbabilities,
    Usage,
)

if TYPE_CHECKING:
    from masrouter.catalog import Catalog
    from masrouter.execution import aexecute, execute, stream
    from masrouter.logs import Logs, LogWriter, read_logs
    from masrouter.router import Router

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "BudgetError",
    "Call",
    "CallError",
    "Catalog",
    "CatalogError",
    "CheckpointError",
    "CollectionError",
    "ConfigError",
    "ConstraintError",
    "EncoderError",
    "EvaluationError",
    "Evidence",
    "ExecutionError",
    "Interval",
    "LogError",
    "LogRecord",
    "LogWriter",
    "Logs",
    "MasRouterError",
    "Plan",
    "PlanError",
    "ProblemError",
    "Router",
    "RoutingDecision",
    "RoutingError",
    "Run",
    "SandboxError",
    "ScoredPlan",
    "StageProbabilities",
    "TrainingError",
    "Usage",
    "__version__",
    "aexecute",
    "execute",
    "read_logs",
    "stream",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """The names that take time to import, when they are first used (PEP 562)."""
        if name == "Router":
            import masrouter.router as home
        elif name == "Catalog":
            import masrouter.catalog as home
        elif name in ("Logs", "LogWriter", "read_logs"):
            import masrouter.logs as home
        elif name in ("aexecute", "execute", "stream"):
            import masrouter.execution as home
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(home, name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
