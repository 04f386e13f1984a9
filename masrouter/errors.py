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
    ├── RoutingError        a request cannot be routed
    │   └── ConstraintError     no plan meets the request's constraints
    ├── CallError           a call of a model failed; `kind` says how
    ├── BudgetError         the next call could cost more than is left, or has no known price
    ├── ExecutionError      a team gave no answer; `run` holds what it did
    ├── SandboxError        untrusted code cannot be contained here
    ├── ProblemError        a problem file is wrong, or a grader cannot judge
    └── CollectionError     a collection cannot start, go on or be exported

Messages say what was wrong, where (file, line, field) and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from masrouter.types import Run


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


CallKind = Literal[
    "rate_limited", "server_error", "unauthorised", "rejected", "bad_response", "empty",
    "connection", "timeout", "circuit_open", "unknown_model",
]  # fmt: skip
"""How a call failed.

rate_limited: 429 until tries or time ran out. server_error: 5xx. unauthorised: 401, 403, no key.
rejected: any other 4xx, such as a prompt too long or a filter. bad_response: 200 with what is no
completion. empty: a completion without text. connection: refused, reset, not resolved. timeout:
the deadline, or a stall. circuit_open: the provider failed too often just now, nothing was sent.
unknown_model: no provider of this name.
"""


class CallError(MasRouterError):
    """A call of a model failed for good: what retries could mend was tried before.

    Attributes: kind; model as `provider/model`; status, the HTTP status where there was one;
    attempts, how many were sent.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: CallKind,
        model: str,
        status: int | None = None,
        attempts: int = 0,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.model = model
        self.status = status
        self.attempts = attempts


class BudgetError(MasRouterError):
    """The next call could cost more than is left, or its price is unknown."""


class ExecutionError(MasRouterError):
    """A team gave no answer. `run` is what it did until then, with every call and cost."""

    def __init__(self, message: str, *, run: Run) -> None:
        super().__init__(message)
        self.run = run


class SandboxError(MasRouterError):
    """Untrusted code cannot be contained here, so it is not run."""


class ProblemError(MasRouterError):
    """A problem file is wrong, or a grader cannot judge."""


class CollectionError(MasRouterError):
    """A collection cannot start, go on or be exported."""
