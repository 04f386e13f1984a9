"""What the caller and its zygote agree on. Plain data, loadable on any system."""

from __future__ import annotations

from dataclasses import dataclass

LONGEST_VERDICT = 1 << 16
"""Bytes of a judge's line."""
OUT_OF_MEMORY = 86
"""Exit status of a worker that had no memory left even to say so."""


@dataclass(frozen=True, slots=True)
class ZygoteSetup:
    """What every judgement of a zygote has in common."""

    parent: int
    control: int
    """Descriptor of the socket to the caller."""
    first_uid: int | None
    """Two uids per program from here on, None to keep the caller's."""
    uids: int
    landlock: bool
    bubblewrap: tuple[str, ...] | None
    """Command up to the program to start inside, None to do without."""


@dataclass(frozen=True, slots=True)
class Job:
    """Limits of one judgement; see `Limits`."""

    wall_s: float
    cpu: int
    memory: int
    threads: int
    files: int
    message_bytes: int
    depth: int
    items: int
    calls: int
