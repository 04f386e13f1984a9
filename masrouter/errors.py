"""Every failure that a caller may meet.

    MasRouterError
    ├── CatalogError        a catalog file is wrong, or a name is not in the catalog
    ├── LogError            a log file or record breaks the schema
    ├── PlanError           a plan that no team could run
    ├── EncoderError        the text encoder cannot be found, verified or used
    ├── CheckpointError     a checkpoint is missing, damaged, forged or of another version
    ├── ConfigError         a setting or recipe is wrong
    ├── TrainingError       the logs cannot train what was asked
    ├── EvaluationError     the logs cannot answer what was asked
    └── RoutingError        a request cannot be routed
        └── ConstraintError     no plan meets the request's constraints

Messages say what was wrong, where (file, line, field) and what to do.
"""

from __future__ import annotations


class MasRouterError(Exception):
    """Base of every public failure."""


class CatalogError(MasRouterError):
    """A catalog file is wrong, or a name is not in the catalog."""


class LogError(MasRouterError):
    """A log file or record breaks the schema."""


class PlanError(MasRouterError):
    """A plan that no team could run."""


class EncoderError(MasRouterError):
    """The text encoder cannot be found, verified or used."""


class CheckpointError(MasRouterError):
    """A checkpoint is missing, damaged, forged or of another version."""


class ConfigError(MasRouterError):
    """A setting or a recipe is wrong."""


class TrainingError(MasRouterError):
    """The logs cannot train what was asked."""


class EvaluationError(MasRouterError):
    """The logs cannot answer what was asked."""


class RoutingError(MasRouterError):
    """A request cannot be routed."""


class ConstraintError(RoutingError):
    """No plan meets the request's constraints; the message names the one to relax."""
