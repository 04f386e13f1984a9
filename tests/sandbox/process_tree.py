"""What runs below a process, read from /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; the parent is [1], the start time [19]."""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return text.rpartition(")")[2].split()


def processes() -> Iterator[tuple[int, list[str]]]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                yield int(entry.name), _stat(int(entry.name))
            except OSError:
                continue


def descendants(pid: int) -> set[tuple[int, str]]:
    """(pid, start time) of every process below one."""
    parents = {child: (int(fields[1]), fields[19]) for child, fields in processes()}
    found: set[tuple[int, str]] = set()
    wave = {pid}
    while wave:
        wave = {child for child, (parent, _) in parents.items() if parent in wave}
        found |= {(child, parents[child][1]) for child in wave}
    return found


def alive(known: set[tuple[int, str]]) -> set[tuple[int, str]]:
    """Those of them that still run; zombies do not."""
    now = {(pid, fields[19]) for pid, fields in processes() if fields[0] != "Z"}
    return known & now


def zygotes() -> list[int]:
    """Zygotes that this process started."""
    return [
        pid
        for pid, fields in processes()
        if int(fields[1]) == os.getpid()
        and b"\0zygote\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return condition()
