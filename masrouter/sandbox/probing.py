"""Which means of containment this machine has, tried out and not believed.

Adequate is, and nothing less:

- bubblewrap that works, and a known machine for the filter of system calls; Landlock is added where
  the kernel has it;
- or Landlock and that filter. As root also another uid, or it is refused: root's files would be
  readable to a fault in either. An ordinary user has no other uid to give: the filter and Landlock
  alone stand between the program and the caller's processes.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Literal

from masrouter.errors import ProblemError, SandboxError
from masrouter.sandbox import seccomp
from masrouter.sandbox.containment import ENVIRONMENT, Containment, Host, Kind, python_command
from masrouter.sandbox.limits import Limits
from masrouter.sandbox.processes import NoAnswer, Zygote, request_of
from masrouter.sandbox.verdicts import read_verdict

_UIDS = ((1_900_000_000, 60_000), (60_600, 500))
"""First uid and how many: ranges that no distribution gives out; the second fits where a container
maps only 65536 (systemd.io/UIDS-GIDS)."""
_PROGRAM = """
def broken(me, parent, other_uid):
    import colorsys, ctypes, os, signal, socket, tempfile, threading
    libc = ctypes.CDLL(None, use_errno=True)

    def reads(path):
        with open(path, "rb") as file:
            return file.read(1)

    def forks():
        if os.fork() == 0:
            os._exit(0)

    attempts = {
        "opened a socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        "opened a unix socket": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
        "made a process": forks,
        "started a program": lambda: os.execv("/bin/true", ["true"]),
        "read /etc/passwd": lambda: reads("/etc/passwd"),
        "read the environment of a process": lambda: reads("/proc/self/environ"),
        "read the caller's folder": lambda: os.listdir(me),
        "wrote a file": lambda: open("/tmp/masrouter-self-test", "w"),
        "wrote to memory": lambda: os.memfd_create("x"),
        "made a folder": lambda: os.mkdir("/tmp/masrouter-self-test"),
        "could signal the caller": lambda: os.kill(parent, 0),
        "could limit the caller": lambda: __import__("resource").prlimit(parent, 7),
        "became root": lambda: os.setuid(0),
    }
    done = []
    for name, attempt in attempts.items():
        try:
            attempt()
        except OSError:
            continue
        done.append(name)
    if other_uid and os.getuid() == 0:
        done.append("kept the caller's uid")
    if dict(os.environ):
        done.append("has an environment")
    thread = threading.Thread(target=done.extend, args=([],))
    thread.start()
    thread.join()
    return done
"""


def probe(
    prefer: Literal["auto", "bubblewrap", "landlock"] = "auto", *, host: Host | None = None
) -> Containment:
    """The containment to use, after a program that tries to break out has failed to.

    "auto" takes bubblewrap where it works, Landlock otherwise. Raises SandboxError, which says
    what is missing and what to install. `host`: what is there, where that is known already.
    """
    host = host or Host.here()
    if host.system != "linux" or not seccomp.is_supported(host.machine):
        raise SandboxError(
            f"untrusted code cannot be contained on {host.system} {host.machine}: "
            f"needs Linux on {' or '.join(seccomp.MACHINES)}; use a Linux machine or container"
        )
    kinds: tuple[Kind, ...] = ("bubblewrap", "landlock") if prefer == "auto" else (prefer,)
    reasons = []
    for kind in kinds:
        try:
            return _tried(kind, host)
        except SandboxError as error:
            reasons.append(f"{kind}: {error}")
    raise SandboxError(
        f"untrusted code cannot be contained here, so it is not run: {'; '.join(reasons)}. "
        "Install bubblewrap (`apt install bubblewrap`, `dnf install bubblewrap`) where user "
        "namespaces are allowed, or use Linux 5.13 or later with Landlock enabled (lsm=landlock)"
    )


def _tried(kind: Kind, host: Host) -> Containment:
    if kind == "landlock" and host.landlock_abi < 1:
        raise SandboxError("the kernel has no Landlock")
    if kind == "bubblewrap" and host.bubblewrap is None:
        raise SandboxError("there is no `bwrap` on the PATH")
    first, count = _free_uids() if host.root else (None, 0)
    wrapped = host.bubblewrap if kind == "bubblewrap" else None
    containment = Containment(kind, host.landlock_abi, wrapped, first, count)
    if command := containment.command():
        _start_once(command)
    _try_to_break_out(containment)
    return containment


def _free_uids() -> tuple[int, int]:
    """A range of uids that a child of this process can take."""
    failure = ""
    for first, count in _UIDS:
        code = (
            f"import os; os.setgroups([]); os.setresgid(*[{first}]*3); os.setresuid(*[{first}]*3)"
        )
        done = subprocess.run(
            [*python_command(), "-c", code],
            capture_output=True,
            env=dict(ENVIRONMENT),
            check=False,
            timeout=30,
        )
        if done.returncode == 0:
            return first, count
        failure = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    raise SandboxError(
        f"this is root, and no other uid can be taken ({failure}); run as an ordinary user"
    )


def _start_once(command: tuple[str, ...]) -> None:
    """Raises SandboxError with bubblewrap's own words where it does not start Python."""
    try:
        done = subprocess.run(
            [*command, "-c", "pass"],
            capture_output=True,
            env=dict(ENVIRONMENT),
            check=False,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SandboxError(f"bwrap does not start: {error}") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()[:500]
        raise SandboxError(f"bwrap does not work (status {done.returncode}): {said}")


def _try_to_break_out(containment: Containment) -> None:
    """Raises SandboxError where the containment does not start, or does not hold."""
    test = (
        "def check(candidate):\n"
        f"    done = candidate({str(Path.home())!r}, {os.getpid()},"
        f" {containment.first_uid is not None})\n"
        "    assert not done, 'a program ' + ', '.join(done)\n"
    )
    limits = Limits()
    zygote = Zygote(containment)
    try:
        answer = zygote.ask(request_of(_PROGRAM, test, "broken", None), limits)
        verdict = read_verdict(answer, limits, time.monotonic())
    except (NoAnswer, ProblemError) as error:
        raise SandboxError(f"it does not start: {error}") from None
    finally:
        zygote.close()
    if not verdict.passed:
        raise SandboxError(f"it does not hold: {verdict.reason}: {verdict.detail}")
