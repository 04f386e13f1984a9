"""Landlock: which files a process may read; nothing may be written, whoever owns it.

Where the kernel is new enough also: no TCP, no signals and no abstract unix sockets beyond the
process. Source: Linux, Documentation/userspace-api/landlock.rst.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many rights on files an ABI knows; later ones know those of 5."""
_TCP, _SCOPES = 0b11, 0b11
_INSTALLED = ("site-packages", "dist-packages")
"""Not readable: a package may hold the very problems that are judged."""


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """The kernel's Landlock ABI; 0 where there is none."""
    found = _libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    return max(0, int(found))


def standard_library() -> Path:
    """The folder of the standard library's modules."""
    return Path(os.__file__).parent


def library_folders() -> tuple[Path, ...]:
    """Folders of the shared libraries that the standard library's modules load."""
    multiarch = getattr(sys.implementation, "_multiarch", "")
    places = [Path(sys.base_prefix, "lib"), Path("/lib64"), Path("/usr/lib64")]
    places += [Path("/lib", multiarch), Path("/usr/lib", multiarch), Path("/usr/local/lib")]
    return tuple(dict.fromkeys(place for place in places if place.is_dir()))


def _readable() -> Iterator[tuple[Path, int]]:
    """Paths and the rights on them, for those beneath them too."""
    library = standard_library()
    yield library, _READ_DIR
    for child in library.iterdir():
        if child.name not in _INSTALLED:
            yield child, _READ_FILE | _READ_DIR if child.is_dir() else _READ_FILE
    for folder in library_folders():
        for child in folder.iterdir():
            if ".so" in child.name and child.is_file():
                yield child, _READ_FILE
    for path in (Path("/etc/ld.so.cache"), Path("/etc/localtime")):
        if path.is_file():
            yield path, _READ_FILE
    if Path("/usr/share/zoneinfo").is_dir():
        yield Path("/usr/share/zoneinfo"), _READ_FILE | _READ_DIR


def make_ruleset() -> int:
    """A descriptor of the rules, for `restrict`. Raises OSError."""
    abi = version()
    rights = (1 << _RIGHTS.get(abi, 16)) - 1
    attributes = struct.pack("=QQQ", rights, _TCP, _SCOPES)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    libc = _libc()
    ruleset = int(libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0))
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    for path, allowed in _readable():
        with suppress(OSError):  # what cannot be opened stays forbidden
            parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rule = struct.pack("=Qi", allowed, parent)
            failed = libc.syscall(_ADD_RULE, ruleset, 1, rule, 0)
            os.close(parent)
            if failed:
                raise RuntimeError(f"landlock_add_rule: {path}: {ctypes.get_errno()}")
    return ruleset


def restrict(ruleset: int) -> None:
    """Hold this process to the rules, for good. Needs no_new_privs. Raises OSError."""
    if _libc().syscall(_RESTRICT_SELF, ruleset, 0) != 0:
        raise OSError(ctypes.get_errno(), "landlock_restrict_self")
