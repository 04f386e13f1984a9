"""When a failed attempt is tried again: the only place that does, on tenacity."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from masrouter.errors import ConfigError
from masrouter.llms.failures import Failure, missing_extra

if TYPE_CHECKING:
    from tenacity import RetryCallState
    from tenacity.asyncio import AsyncRetrying


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how long a call is tried. Only what another try may mend is tried again:
    429, 5xx, 408, 409, 425, connection errors, timeouts of one attempt, answers out of shape."""

    tries: int = 5
    """Attempts of one call at most."""
    broken_tries: int = 2
    """Of these, attempts that may end in an answer that cannot be used: each may be billed."""
    first_wait_s: float = 0.5
    """The n-th wait is drawn evenly from 0 to `first_wait_s * 2 ** (n - 1)`: full jitter."""
    longest_wait_s: float = 30.0
    longest_retry_after_s: float = 60.0
    """A longer Retry-After is cut to this; one beyond the deadline ends the call at once."""
    deadline_s: float = 600.0
    """For a call that brings no `timeout_s`: end to end, waiting and retries included."""
    attempt_timeout_s: float = 300.0
    """Of one attempt, from its start to the end of its answer."""
    stall_timeout_s: float = 60.0
    """Between two pieces of a streamed answer, once it has begun."""
    connect_timeout_s: float = 10.0

    def __post_init__(self) -> None:
        for name in ("tries", "broken_tries"):
            if not getattr(self, name) >= 1:
                raise ConfigError(f"retry: {name}: expected at least 1, got {getattr(self, name)}")
        for name in ("first_wait_s", "longest_wait_s", "longest_retry_after_s"):
            if not getattr(self, name) >= 0:
                raise ConfigError(
                    f"retry: {name}: expected seconds >= 0, got {getattr(self, name)}"
                )
        for name in ("deadline_s", "attempt_timeout_s", "stall_timeout_s", "connect_timeout_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"retry: {name}: expected seconds > 0, got {getattr(self, name)}")


def retrying(policy: RetryPolicy, deadline: float) -> AsyncRetrying:
    """Calls a coroutine function until it succeeds, or raises its last Failure.

    deadline: on the running loop's clock. What is no Failure passes through at once.
    """
    try:
        from tenacity import retry_if_exception
        from tenacity.asyncio import AsyncRetrying
        from tenacity.wait import wait_random_exponential
    except ImportError as missing:
        raise missing_extra(missing) from None

    jitter = wait_random_exponential(multiplier=policy.first_wait_s, max=policy.longest_wait_s)
    broken = 0

    def helps(error: BaseException) -> bool:
        nonlocal broken
        if not isinstance(error, Failure):
            return False
        broken += error.retry == "broken"
        return error.retry == "yes" or (error.retry == "broken" and broken < policy.broken_tries)

    def wait(state: RetryCallState) -> float:
        asked = _asked(state)
        drawn = jitter(state)
        return drawn if asked is None else min(asked, policy.longest_retry_after_s) + drawn

    def stop(state: RetryCallState) -> bool:
        left = deadline - asyncio.get_running_loop().time()
        return (
            state.attempt_number >= policy.tries
            or state.upcoming_sleep >= left
            or (_asked(state) or 0.0) >= left
        )

    return AsyncRetrying(
        retry=retry_if_exception(helps), wait=wait, stop=stop, sleep=asyncio.sleep, reraise=True
    )


def _asked(state: RetryCallState) -> float | None:
    failure = state.outcome.exception() if state.outcome else None
    return failure.wait_s if isinstance(failure, Failure) else None
