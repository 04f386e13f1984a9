"""masrouter: a trainable multi-agent router. `__all__` is the public API.

Importing it opens no socket, needs no key and loads neither lightning nor a text encoder.
"""

from masrouter.catalog import Catalog
from masrouter.errors import (
    CatalogError,
    CheckpointError,
    ConfigError,
    ConstraintError,
    EncoderError,
    EvaluationError,
    LogError,
    MasRouterError,
    PlanError,
    RoutingError,
    TrainingError,
)
from masrouter.logs import Logs, LogWriter, read_logs
from masrouter.router import Router
from masrouter.types import (
    Agent,
    Evidence,
    Interval,
    LogRecord,
    Plan,
    RoutingDecision,
    ScoredPlan,
    StageProbabilities,
    Usage,
)

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "Catalog",
    "CatalogError",
    "CheckpointError",
    "ConfigError",
    "ConstraintError",
    "EncoderError",
    "EvaluationError",
    "Evidence",
    "Interval",
    "LogError",
    "LogRecord",
    "LogWriter",
    "Logs",
    "MasRouterError",
    "Plan",
    "PlanError",
    "Router",
    "RoutingDecision",
    "RoutingError",
    "ScoredPlan",
    "StageProbabilities",
    "TrainingError",
    "Usage",
    "__version__",
    "read_logs",
]
