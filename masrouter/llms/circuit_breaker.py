"""A circuit breaker: stop calling a provider that keeps failing, then try it with one call.

Closed, every call passes. After `failures` faults in a row it is open: calls fail at once, nothing
is sent. After `pause_s` one call may pass as a probe; it closes the circuit or opens it anew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from masrouter.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """When a provider counts as down."""

    failures: int = 8
    """Faults in a row: 5xx, no connection, timeouts. Anything else that it answers ends the row."""
    pause_s: float = 30.0
    """From opening to the probe."""

    def __post_init__(self) -> None:
        if not self.failures >= 1:
            raise ConfigError(f"breaker: failures: expected at least 1, got {self.failures!r}")
        if not self.pause_s > 0:
            raise ConfigError(f"breaker: pause_s: expected seconds above 0, got {self.pause_s!r}")


Entry = Literal["call", "probe"]
Outcome = Literal["works", "fault", "unknown"]


class Circuit:
    """The state of one provider's breaker; safe to share between threads."""

    def __init__(self, breaker: Breaker, clock: Callable[[], float] = time.monotonic) -> None:
        self._breaker = breaker
        self._clock = clock
        self._faults = 0
        self._opened: float | None = None
        self._probing = False
        self._lock = threading.Lock()

    def open_for_s(self) -> float | None:
        """Seconds until a probe may pass; None where a call may pass now."""
        with self._lock:
            return self._open_for_s()

    def enter(self) -> Entry | None:
        """How a call passes, which then must report its `end`; None where it may not."""
        with self._lock:
            if self._open_for_s() is not None:
                return None
            self._probing = self._opened is not None
            return "probe" if self._probing else "call"

    def end(self, entry: Entry, outcome: Outcome) -> None:
        """How a call that passed went; `unknown` where it was broken off on this side."""
        with self._lock:
            probe = entry == "probe"
            if probe:
                self._probing = False
            if outcome == "works":
                self._faults, self._opened = 0, None
            elif outcome == "fault":
                self._faults += 1
                if probe or (self._opened is None and self._faults >= self._breaker.failures):
                    self._opened = self._clock()

    def _open_for_s(self) -> float | None:
        if self._opened is None:
            return None
        wait = self._opened + self._breaker.pause_s - self._clock()
        return max(wait, 0.0) if wait > 0 or self._probing else None
