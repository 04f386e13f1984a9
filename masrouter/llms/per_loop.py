"""One thing per event loop: sockets and semaphores do not survive the loop that they belong to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerLoop(Generic[T]):
    """Makes a thing at its first use in an event loop, and forgets those of closed loops."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[asyncio.AbstractEventLoop, T] = {}
        self._lock = threading.Lock()

    def get(self) -> T:
        """The running loop's."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if loop not in self._made:
                for old in [other for other in self._made if other.is_closed()]:
                    del self._made[old]
                self._made[loop] = self._make()
            return self._made[loop]

    def pop(self) -> T | None:
        """The running loop's, which is forgotten; None where there is none."""
        with self._lock:
            return self._made.pop(asyncio.get_running_loop(), None)
