"""The listening socket: opened, bounded by what the system allows, and closed without a reset.

Not here: who accepts from it and when it ends (`running`).
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import socket
import sys

from masrouter.errors import ConfigError

BACKLOG = 4096
SPARE_FILES = 512
"""Beside connections: those that linger, records, providers."""


def listening(host: str, port: int) -> list[socket.socket]:
    """Sockets for every address of a host; one alone where the port is to be a free one."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        chosen = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
        if port == 0:
            chosen = chosen[:1]
        sockets = []
        for family, address in chosen:
            listener = socket.create_server(address, family=family, backlog=BACKLOG)
            listener.setblocking(False)
            sockets.append(listener)
        return sockets
    except OSError as error:
        raise ConfigError(
            f"{host}:{port}: cannot listen there: {error.strerror or error}; "
            "choose another port or host"
        ) from error


def connections_within(wanted: int) -> int:
    """How many connections the limit of open files allows, which is raised where it can be."""
    if sys.platform == "win32":
        return wanted
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + SPARE_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    if soft >= needed:
        return wanted
    most = max(soft - SPARE_FILES, soft // 2)
    logging.getLogger("masrouter.server").warning(
        "max_connections is %d, but the system allows %d open files, so %d connections are held "
        "at once and others wait; `ulimit -n` raises it",
        wanted, soft, most,
    )  # fmt: skip
    return most


class _Instruction(ctypes.Structure):
    """`struct sock_filter` of Linux: one step of a classic BPF program."""

    _fields_ = (
        ("code", ctypes.c_uint16),
        ("jump_true", ctypes.c_uint8),
        ("jump_false", ctypes.c_uint8),
        ("operand", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    """`struct sock_fprog` of Linux."""

    _fields_ = (("length", ctypes.c_uint16), ("steps", ctypes.POINTER(_Instruction)))


_SO_ATTACH_FILTER = 26
_DROP_SYN = (
    (0x30, 0, 0, 13),  # load the byte of flags of the TCP header
    (0x45, 0, 1, 0x02),  # is SYN among them?
    (0x06, 0, 0, 0),  # drop the packet
    (0x06, 0, 0, 0xFFFFFFFF),  # keep it
)


def refuse_newcomers(listener: socket.socket) -> None:
    """Let nobody begin to connect; who has begun may finish.

    The system completes connections by itself and resets, at the close, those that were not
    accepted yet; between the last `accept` and the close there is always time for one. A socket
    filter that drops the first packet of a connection (SYN; classic BPF, Linux socket filtering)
    closes that gap: such a client tries again a second later, and is refused. Where the system has
    no such filters, nothing is changed.
    """
    if sys.platform != "linux":
        return
    steps = (_Instruction * len(_DROP_SYN))(*(_Instruction(*step) for step in _DROP_SYN))
    program = bytes(_Program(len(steps), steps))
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
