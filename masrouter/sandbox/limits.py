"""What a judged program may use, and what is said of it. Plain data; enforced elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from masrouter.errors import ConfigError

Reason = Literal[
    "passed", "failed", "exception", "timeout", "memory", "output", "crashed", "protocol"
]
"""Why a program passed or not.

passed: every assertion held. failed: an assertion of the test did not. exception: the program could
not be loaded, or it or the test raised. timeout: out of wall or CPU time. memory: out of memory.
output: a result beyond the caps on bytes, depth or items. crashed: the program's process ended, by
a signal or by itself. protocol: a result that is no plain value, an answer that is none, too many
calls, or a test that never called the program.
"""


_BOUNDS: Mapping[str, tuple[float, float]] = {
    "wall_s": (0.1, 86_400),
    "cpu_s": (0.1, 86_400),
    "memory_mib": (64, 1 << 20),
    "threads": (0, 1000),
    "files": (16, 10_000),
    "message_bytes": (1024, 64 << 20),
    "depth": (1, 200),
    "items": (1, 1 << 24),
    "calls": (1, 1 << 30),
}
"""What can be enforced: Python needs some memory and files to run at all."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps for one judged program. Judge and worker have the memory, CPU and thread caps each."""

    wall_s: float = 10.0
    """Seconds for the whole judgement: all calls together, and the start."""
    cpu_s: float = 10.0
    """CPU seconds, rounded up to a whole one."""
    memory_mib: int = 512
    """Address space of a process, Python itself (about 30 MiB) included."""
    threads: int = 16
    """Threads beyond the first."""
    files: int = 64
    """Open file descriptors."""
    message_bytes: int = 4 << 20
    """Bytes of the arguments or the result of one call, as JSON."""
    depth: int = 64
    """Nesting of a value."""
    items: int = 500_000
    """Values within the arguments or the result of one call."""
    calls: int = 100_000
    """Calls that a test may make."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            low, high = _BOUNDS[field.name]
            kinds = (int, float) if field.name in ("wall_s", "cpu_s") else (int,)
            if type(value) not in kinds or not low <= value <= high:
                wanted = "a number" if float in kinds else "an integer"
                raise ConfigError(
                    f"Limits.{field.name}: expected {wanted} in [{low:g}, {high:g}], got {value!r}"
                )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a test says of a program."""

    passed: bool
    reason: Reason
    detail: str
    """For people: the failed line, the exception, the signal. Partly the program's own words."""
    wall_s: float
    """Seconds from the call of `judge` that it took, waiting for a free place left out."""
