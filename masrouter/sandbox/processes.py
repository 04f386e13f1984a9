"""The caller's end of the sandbox's processes: start a zygote, send it a request, wait."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import struct
import subprocess
import threading
import time
from dataclasses import asdict
from typing import Any

from masrouter.errors import SandboxError
from masrouter.sandbox.containment import (
    BOOTSTRAP,
    ENVIRONMENT,
    Containment,
    python_command,
)
from masrouter.sandbox.limits import Limits
from masrouter.sandbox.tasks import LONGEST_VERDICT, Job, ZygoteSetup

_GRACE_S = 1.5
"""Beyond the wall limit, before the supervisor itself is given up."""
_START_S = 30.0
_LENGTH = struct.Struct(">I")


class NoAnswer(Exception):
    """The supervisor is gone, or silent."""


def request_of(program: str, test: str, entry_point: str, helpers: str | None) -> bytes:
    """What the judge reads; see `Sandbox.judge`."""
    texts = {"program": program, "test": test, "entry_point": entry_point, "helpers": helpers}
    return json.dumps(texts).encode("ascii")


class Zygote:
    """The process that forks supervisors, and the control socket to it."""

    def __init__(self, containment: Containment) -> None:
        self._owner = os.getpid()
        self._sending = threading.Lock()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = containment.command()
        setup = ZygoteSetup(
            parent=self._owner,
            control=theirs.fileno(),
            first_uid=containment.first_uid,
            uids=containment.uids,
            landlock=containment.landlock_abi > 0,
            bubblewrap=None if command is None else (*command, str(BOOTSTRAP)),
        )
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [*python_command(), str(BOOTSTRAP), "zygote", json.dumps(asdict(setup))],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=dict(ENVIRONMENT),
                    pass_fds=[theirs.fileno()],
                )
            except OSError as error:
                self._control.close()
                raise SandboxError(f"the sandbox does not start: {error}") from None
        self._control.settimeout(_START_S)
        try:
            ready = self._control.recv(16)
        except OSError:
            ready = b""
        if ready != b"ready":
            self.close()
            raise SandboxError(f"the sandbox does not start: status {self._process.returncode}")

    def is_alive(self) -> bool:
        """False in a forked child too: the zygote serves the process that started it."""
        return os.getpid() == self._owner and self._process.poll() is None

    def has_ended(self) -> bool:
        """Like `is_alive`, but waits a moment for a process that is just ending."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            if os.getpid() == self._owner:
                self._process.wait(0.2)
        return not self.is_alive()

    def close(self) -> None:
        """Kill it: supervisors, judges and workers die with it."""
        self._control.close()
        if os.getpid() == self._owner:
            self._process.kill()
            self._process.wait()

    def ask(self, request: bytes, limits: Limits) -> dict[str, Any]:
        """The supervisor's answer; raises NoAnswer."""
        seconds = limits.wall_s + _GRACE_S
        deadline = time.monotonic() + seconds
        report, their_report = socket.socketpair()
        request_end, their_request = socket.socketpair()
        with report, request_end:
            with their_report, their_request:
                try:
                    with self._sending:
                        descriptors = [their_report.fileno(), their_request.fileno()]
                        socket.send_fds(self._control, [b"j"], descriptors)
                except OSError as error:
                    raise NoAnswer(str(error)) from None
            try:
                data = json.dumps(asdict(_job(limits))).encode("ascii")
                report.settimeout(seconds)
                report.sendall(_LENGTH.pack(len(data)) + data)
                request_end.settimeout(seconds)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    request_end.sendall(request)
                    request_end.shutdown(socket.SHUT_WR)
                return _receive(report, deadline)
            except OSError as error:
                raise NoAnswer(str(error)) from None


def _receive(report: socket.socket, deadline: float) -> dict[str, Any]:
    """The answer of a supervisor: trusted, but for the line in it."""
    data = b""
    wanted = _LENGTH.size
    while len(data) < wanted:
        report.settimeout(max(deadline - time.monotonic(), 0.001))
        part = report.recv(LONGEST_VERDICT)
        if not part:
            raise NoAnswer("the supervisor ended")
        data += part
        if len(data) >= _LENGTH.size:
            wanted = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    answer: dict[str, Any] = json.loads(data[_LENGTH.size : wanted])
    return answer


def _job(limits: Limits) -> Job:
    return Job(
        wall_s=limits.wall_s,
        cpu=math.ceil(limits.cpu_s),
        memory=limits.memory_mib << 20,
        threads=limits.threads,
        files=limits.files,
        message_bytes=limits.message_bytes,
        depth=limits.depth,
        items=limits.items,
        calls=limits.calls,
    )
