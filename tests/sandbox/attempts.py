"""How hostile programs are tried: what they claim, and what they could do."""

from __future__ import annotations

from masrouter.sandbox import Limits, Sandbox, Verdict

SECRET = "sesame-51c07d"
TEST = f"def check(candidate):\n    for _ in range(2):\n        assert candidate(6) == '{SECRET}'\n"
SHORT = Limits(wall_s=0.6)
"""For programs that do not end."""


def assert_no_pass(sandbox: Sandbox, program: str, *reasons: str) -> Verdict:
    limits = SHORT if not reasons or "timeout" in reasons else None
    verdict = sandbox.judge(program, TEST, "f", limits=limits)
    assert not verdict.passed, verdict
    assert not reasons or verdict.reason in reasons, verdict
    assert verdict.wall_s < (limits or sandbox.limits).wall_s + 2
    return verdict


def outcomes(sandbox: Sandbox, program: str, limits: Limits | None = None) -> list[object]:
    """What `f()` of a program returns: a list of what it could do."""
    test = "def check(candidate):\n    result = candidate()\n    assert not result, repr(result)\n"
    verdict = sandbox.judge(program, test, "f", limits=limits)
    assert verdict.passed, verdict
    return []


ATTEMPTS = """
import os, sys, socket, signal, subprocess, ctypes, mmap, resource, fcntl, struct, threading
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    if libc.syscall(number, *args) < 0:
        raise OSError(ctypes.get_errno(), 'syscall')
def write(path, flags):
    os.close(os.open(path, flags, 0o666))
def f():
    done = []
    for attempt in ATTEMPTS.strip().split(chr(10)):
        try:
            exec(attempt, globals(), dict())
        except (OSError, ImportError, RuntimeError, ValueError, AttributeError):
            continue
        except SystemExit:
            pass
        done.append(attempt)
    return done
"""


def attempt_all(sandbox: Sandbox, attempts: str) -> None:
    outcomes(sandbox, f"ATTEMPTS = {attempts!r}\n{ATTEMPTS}")
