"""What a machine offers for containment, and what a containment consists of."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from masrouter.sandbox import landlock

Kind = Literal["bubblewrap", "landlock"]
BOOTSTRAP = Path(__file__).with_name("bootstrap.py")
ENVIRONMENT = {"PYTHONHASHSEED": "0"}
"""All of a judged program's environment: the same program gets the same verdict every time."""


@dataclass(frozen=True, slots=True)
class Host:
    """What a machine offers."""

    system: str
    machine: str
    landlock_abi: int
    """0 where there is none."""
    bubblewrap: str | None
    """Path of bwrap, or None."""
    root: bool

    @classmethod
    def here(cls) -> Host:
        """This machine."""
        linux = sys.platform == "linux"
        return cls(
            system=sys.platform,
            machine=platform.machine(),
            landlock_abi=landlock.version() if linux else 0,
            bubblewrap=shutil.which("bwrap") if linux else None,
            root=linux and os.geteuid() == 0,
        )


@dataclass(frozen=True, slots=True)
class Containment:
    """Means that were tried and hold. From `probe`; made by hand, nothing has been tried."""

    kind: Kind
    landlock_abi: int
    bubblewrap: str | None
    first_uid: int | None
    """Programs run under uids from here on; None: under the caller's."""
    uids: int = 0

    def __str__(self) -> str:
        parts = ["bubblewrap"] if self.kind == "bubblewrap" else []
        parts += [f"Landlock (ABI {self.landlock_abi})"] if self.landlock_abi else []
        parts += ["seccomp", "own uid per process" if self.first_uid else "the caller's uid"]
        return ", ".join(parts)

    def command(self) -> tuple[str, ...] | None:
        """What starts Python inside bubblewrap, up to its script; None without bubblewrap."""
        if self.kind != "bubblewrap" or self.bubblewrap is None:
            return None
        return (
            self.bubblewrap,
            *_bubblewrap_options(self.first_uid is not None),
            "--",
            *python_command(),
        )


def python_command() -> tuple[str, ...]:
    """The interpreter below any virtual environment: no site, no bytecode, no path of the user's.

    Started with `ENVIRONMENT` and nothing else, so that it is as isolated as `-I`, which would
    leave the order of sets, and with it some verdicts, to chance.
    """
    interpreter = getattr(sys, "_base_executable", None) or sys.executable
    return (os.path.realpath(interpreter), "-s", "-P", "-S", "-B", "-X", "utf8")


def _bubblewrap_options(as_root: bool) -> Iterator[str]:
    yield from ("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts")
    yield from ("--unshare-cgroup-try", "--die-with-parent", "--new-session", "--clearenv")
    for name, value in ENVIRONMENT.items():
        yield from ("--setenv", name, value)
    yield from ("--cap-drop", "ALL")
    if as_root:  # it takes another uid inside
        yield from ("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID")
    else:
        yield "--unshare-user"
    made = {Path("/")}
    for path in _visible():
        for parent in reversed(path.parents):
            if parent not in made:
                made.add(parent)
                yield from ("--perms", "0755", "--dir", str(parent))
        yield from ("--ro-bind", str(path), str(path))
        made.add(path)
    library = landlock.standard_library()
    for hidden in ("site-packages", "dist-packages"):
        if (library / hidden).is_dir():
            yield from ("--tmpfs", str(library / hidden), "--remount-ro", str(library / hidden))
    yield from ("--chdir", str(library), "--remount-ro", "/")


def _visible() -> Iterator[Path]:
    """What Python needs to run: itself, its library, shared libraries, this folder."""
    library = landlock.standard_library()
    yield Path(python_command()[0])
    yield library
    yield from Path(sys.base_prefix, "lib").glob("libpython*.so*")
    for folder in landlock.library_folders():
        if folder != Path(sys.base_prefix, "lib"):
            yield folder
    for path in (Path("/etc/ld.so.cache"), Path("/etc/localtime"), Path("/usr/share/zoneinfo")):
        if path.exists():
            yield path
    yield BOOTSTRAP.parent
