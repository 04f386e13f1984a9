"""From an exception to a task's own error: which type it is, and whether to try again.

What providers and workers said stands in the message; of a fault of this program only its kind
does, since nobody knows what else its text holds.
"""

from __future__ import annotations

from masrouter.delegation.tasks import DelegationError, TaskError
from masrouter.errors import (
    BudgetError,
    CallError,
    ExecutionError,
    MasRouterError,
    PlanError,
    RoutingError,
)
from masrouter.execution.dispatch import DeadlineError
from masrouter.topologies.team import TeamError

_MAY_PASS = ("rate_limited", "server_error", "bad_response", "empty", "connection", "timeout")
"""Kinds of failed calls after which the same call may succeed."""


def error_of(failure: Exception, asked: str | None) -> TaskError:
    """What a task is told of what ended it. `asked`: the name that its model was asked for by."""
    if isinstance(failure, DelegationError):
        return failure.error
    if isinstance(failure, ExecutionError):
        return _of_run(failure, asked)
    if isinstance(failure, BudgetError):  # before anything was sent: a price is lacking
        return TaskError("unknown_price", str(failure), asked)
    if isinstance(failure, RoutingError | PlanError):
        return TaskError("no_plan", f"{failure}; name another model or plan", asked)
    if isinstance(failure, MasRouterError):
        return TaskError("internal", str(failure), asked)
    return internal(failure, asked)


def internal(failure: BaseException, asked: str | None = None) -> TaskError:
    """A fault of this program, or of code it was given."""
    why = f"{type(failure).__name__} within the program; the other tasks are not concerned"
    return TaskError("internal", why, asked)


def too_late(deadline_s: float | None, asked: str | None) -> TaskError:
    """The time was over before the task could begin."""
    why = f"the {deadline_s or 0:g} s were over before it began; allow more time, or fewer tasks"
    return TaskError("deadline", why, asked, retryable=True)


def needed_failed(id: str, error: TaskError) -> TaskError:
    """A task that it needs has no answer."""
    why = f"it needs {id!r}, which failed ({error.type}): {error.message}"
    return TaskError("needs", why, id, retryable=error.retryable)


def _of_run(failure: ExecutionError, asked: str | None) -> TaskError:
    why = failure.run.error or ""
    cause = failure.__cause__
    # The type says what stands before the colon.
    if why.startswith("deadline: "):
        late = why.removeprefix("deadline: ")
        return TaskError("deadline", f"{late}; allow more time", asked, retryable=True)
    if why.startswith("budget: "):
        return TaskError("budget", why.removeprefix("budget: "), asked)
    if not isinstance(cause, TeamError):
        return internal(cause if cause is not None else failure, asked)
    calls = [lost.error for lost in cause.failures if isinstance(lost.error, CallError)]
    calls = [call for call in calls if not isinstance(call, DeadlineError)]
    if not calls:
        return TaskError("provider", why, asked)
    return call_error(calls[-1], str(cause), asked)


def call_error(call: CallError, why: str, asked: str | None) -> TaskError:
    """Of a task whose last call, which it could not do without, failed. why: in words."""
    from masrouter.delegation.workers.worker import WorkerError

    may_pass = call.kind in _MAY_PASS or call.kind == "circuit_open"
    if isinstance(call, WorkerError):
        return TaskError("worker", why, asked, retryable=may_pass)
    if call.kind == "unknown_model":
        return TaskError("unknown_model", why, asked)
    if call.kind == "unauthorised" and call.attempts == 0:
        # Which variable lacks it, and in which file it is named, is its owner's business.
        return TaskError(
            "no_credential", f"{call.model}: its key is not set; name another model", asked
        )
    advice = "try again later, or name another model" if may_pass else "name another model"
    return TaskError("provider", f"{why}; {advice}", asked, retryable=may_pass)
