"""A process gives up what it could do, before it runs anything of strangers: no way back.

Order matters: the uid first, while it may be changed; the filter of system calls last.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from masrouter.sandbox import landlock, seccomp

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
_BY_WORKING_FOLDER = "/proc/self/cwd"


@dataclass(frozen=True, slots=True)
class Confinement:
    """What one process is left with. Sizes in bytes, times in whole seconds."""

    uid: int | None
    """The uid and gid to take, None to keep the own."""
    parent: int | None
    """Pid of the process to die with, None where something else sees to that."""
    ruleset: int | None
    """Descriptor of the Landlock rules, None where the kernel has none (only with bubblewrap)."""
    memory: int
    cpu: int
    tasks: int
    """Threads of this uid, at most."""
    files: int


def prctl(option: int, value: int) -> None:
    """Raises OSError."""
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def die_with(parent: int, by: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent, of that pid, ends."""
    prctl(PR_SET_PDEATHSIG, by)
    if os.getppid() != parent:
        os._exit(1)


def confine(to: Confinement) -> None:
    """Confine this process. Raises OSError; nothing untrusted may be run then."""
    os.environ.clear()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
    resource.setrlimit(resource.RLIMIT_MSGQUEUE, (0, 0))
    _limit(resource.RLIMIT_AS, to.memory)
    _limit(resource.RLIMIT_NOFILE, to.files)
    _limit(resource.RLIMIT_NPROC, to.tasks)
    _limit(resource.RLIMIT_CPU, to.cpu, to.cpu + 1)
    if to.uid is not None:
        os.setgroups([])
        os.setresgid(to.uid, to.uid, to.uid)
        os.setresuid(to.uid, to.uid, to.uid)
    if to.parent is not None:
        die_with(to.parent)  # a change of uid would undo it
    prctl(PR_SET_DUMPABLE, 0)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    _keep_the_standard_library()
    if to.ruleset is not None:
        landlock.restrict(to.ruleset)
        os.close(to.ruleset)
    seccomp.allow_only_listed_calls()


def is_confined() -> bool:
    """Whether this process is under a filter of system calls: it cannot open a socket."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.socket(1, 1, 0)
    if descriptor >= 0:
        os.close(descriptor)
    return bool(descriptor < 0)


def count_tasks(uid: int) -> int:
    """Threads on this machine that belong to a uid."""
    count = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError):  # it has just ended
                if entry.stat().st_uid == uid:
                    count += Path(entry.path, "task").stat().st_nlink - 2
    return count


def _limit(what: int, soft: int, hard: int | None = None) -> None:
    """Lower a limit; one that is lower already stays."""
    wanted = soft if hard is None else hard
    before = resource.getrlimit(what)[1]
    top = wanted if before == resource.RLIM_INFINITY else min(wanted, before)
    resource.setrlimit(what, (min(soft, top), top))


def _keep_the_standard_library() -> None:
    """Where another uid cannot walk to the standard library, reach it by the working folder.

    An interpreter below a home folder is such a case. The working folder was set before.
    """
    library = str(landlock.standard_library())
    if os.access(f"{library}/os.py", os.R_OK):
        return

    def moved(path: str) -> str:
        inside = path == library or path.startswith(f"{library}/")
        return _BY_WORKING_FOLDER + path[len(library) :] if inside else path

    sys.path[:] = [moved(path) for path in sys.path]
    for module in list(sys.modules.values()):
        places = getattr(module, "__path__", None)
        if isinstance(places, list):
            places[:] = [moved(path) for path in places]
    sys.path_importer_cache.clear()
