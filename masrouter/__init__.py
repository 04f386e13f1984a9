"""masrouter: a trainable multi-agent router. `__all__` is the public API.

Importing it opens no socket, needs no key and loads neither lightning nor a text encoder.
"""

from masrouter.catalog import Catalog
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
from masrouter.execution import aexecute, execute, stream
from masrouter.logs import Logs, LogWriter, read_logs
from masrouter.router import Router
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
