"""Which team a conversation began with, so that its next turn meets warm prompt caches.

Kept in memory, for a while, and for so many conversations of each caller. A session belongs to the
caller who named it: the same name from another caller is another session.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from masrouter.errors import ConfigError
from masrouter.types import Plan

LONGEST_NAME = 128


def is_session_name(text: str) -> bool:
    """1 to 128 printable ASCII characters without a space at either end."""
    return (
        0 < len(text) <= LONGEST_NAME
        and text.isascii()
        and text.isprintable()
        and text == text.strip()
    )


class Sessions:
    """Plans by caller and session. Safe to use from many threads.

    ttl_s: how long after its last use a session is kept. most: how many of each caller; then the
    one that was not used for longest goes. So no caller can push out what another has.
    """

    def __init__(
        self,
        ttl_s: float,
        most: int = 10_000,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises ConfigError for a time or a number that is not above 0."""
        if not ttl_s > 0:
            raise ConfigError(f"session_ttl_s: expected seconds > 0, got {ttl_s!r}")
        if most < 1:
            raise ConfigError(f"sessions: expected room for at least 1, got {most!r}")
        self._ttl_s = ttl_s
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, OrderedDict[str, tuple[float, Plan]]] = {}

    def get(self, caller: str, session: str) -> Plan | None:
        """The session's plan, kept longer by the look; None where there is none (any more)."""
        now = self._clock()
        with self._lock:
            kept = self._kept.get(caller)
            if kept is None:
                return None
            self._forget_old(kept, now)
            if session not in kept:
                return None
            _, plan = kept[session]
            kept[session] = (now, plan)
            kept.move_to_end(session)
            return plan

    def put(self, caller: str, session: str, plan: Plan) -> None:
        """The session's plan from now on; raises ConfigError for what is no session's name."""
        if not is_session_name(session):
            raise ConfigError(
                f"session: expected 1 to {LONGEST_NAME} printable ASCII characters without a "
                "space at either end"
            )
        now = self._clock()
        with self._lock:
            kept = self._kept.setdefault(caller, OrderedDict())
            self._forget_old(kept, now)
            kept[session] = (now, plan)
            kept.move_to_end(session)
            while len(kept) > self._most:
                kept.popitem(last=False)

    def __len__(self) -> int:
        """How many are kept, of all callers."""
        with self._lock:
            return sum(map(len, self._kept.values()))

    def _forget_old(self, kept: OrderedDict[str, tuple[float, Plan]], now: float) -> None:
        # The order is that of use, so that those that are over stand first.
        while kept:
            used, _ = next(iter(kept.values()))
            if now - used < self._ttl_s:
                return
            kept.popitem(last=False)
