"""The zygote: a small process that forks a supervisor, and that a judge and a worker, per program.

Started by `Sandbox` in an interpreter of its own, with the standard library only, an empty
environment and one thread: so a fork costs a millisecond and inherits no secret. Zygote and
supervisor run no text of strangers, and read none but a capped line that they hand on unread.

Nothing survives: judge and worker cannot make processes, and the kernel kills them with their
supervisor; the zygote ends with its caller, whose end of the control socket closes; the kernel then
asks the supervisors to end, which first kill all that they started. (Bubblewrap killed in the midst
of its own start would leave a child behind; the supervisor, as subreaper, inherits and kills that.)
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from masrouter.sandbox import confinement, landlock
from masrouter.sandbox.channel import read_message, write_message
from masrouter.sandbox.confinement import Confinement
from masrouter.sandbox.contained import import_standard
from masrouter.sandbox.judging import STARTED, JudgeTask, judge
from masrouter.sandbox.tasks import LONGEST_VERDICT, Job, ZygoteSetup
from masrouter.sandbox.working import WorkerTask, work

_REQUEST_BYTES = 1 << 20
_PRELOADED = (
    "bisect", "collections", "copy", "datetime", "functools", "heapq", "itertools", "math",
    "operator", "random", "re", "string", "typing",
)  # fmt: skip
"""Modules that programs use often, loaded once."""


def serve(control: socket.socket, setup: ZygoteSetup) -> NoReturn:
    """Fork a supervisor for each pair of sockets that comes in, until the caller is gone."""
    os.setsid()
    os.chdir(landlock.standard_library())
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # supervisors need no wait
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in _PRELOADED:
        import_standard(name)
    ruleset = landlock.make_ruleset() if setup.landlock else None
    control.sendall(b"ready")
    number = int.from_bytes(os.urandom(4), "big")  # other zygotes have the same uids
    while True:
        ready, _, _ = select.select([control], [], [], 1.0)
        if os.getppid() != setup.parent:
            os._exit(0)
        if not ready:
            continue
        data, descriptors, _, _ = socket.recv_fds(control, 1, 2)
        if not data:
            os._exit(0)
        pid, zygote = 0, os.getpid()
        with suppress(OSError):  # no process to be had: the caller sees its sockets close
            pid = os.fork()
            if pid == 0:
                control.close()
                report, request = descriptors
                _supervise(report, request, setup, ruleset, number, zygote)
        for descriptor in descriptors:
            os.close(descriptor)
        number += 1


def _supervise(
    report: int,
    request: int,
    setup: ZygoteSetup,
    ruleset: int | None,
    number: int,
    zygote: int,
) -> NoReturn:
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until all is started
        confinement.die_with(zygote, signal.SIGTERM)
        confinement.prctl(confinement.PR_SET_CHILD_SUBREAPER, 1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        job = Job(**json.loads(read_message(report, _REQUEST_BYTES)))
        supervisor = _Supervisor(report, request, setup, ruleset, number, job)
        try:
            answer = supervisor.run()
        finally:
            supervisor.end_all()
        write_message(report, json.dumps(answer).encode("ascii"))
    finally:
        os._exit(0)


class _Supervisor:
    """Starts judge and worker, waits for the verdict or the time limit, and ends both."""

    def __init__(
        self,
        report: int,
        request: int,
        setup: ZygoteSetup,
        ruleset: int | None,
        number: int,
        job: Job,
    ) -> None:
        self.report = report
        self.request = request
        self.setup = setup
        self.ruleset = ruleset
        self.job = job
        self.started: set[int] = set()
        self.statuses: dict[int, int] = {}
        uid = setup.first_uid
        self.uids = (None, None) if uid is None else _pair(uid, number, setup.uids)

    def run(self) -> dict[str, Any]:
        deadline = time.monotonic() + self.job.wall_s
        to_worker, from_worker, verdict = os.pipe(), os.pipe(), os.pipe()
        caps = {name: getattr(self.job, name) for name in ("message_bytes", "depth", "items")}
        worker_task = WorkerTask(
            self.confinement(self.uids[0]), reads=to_worker[0], writes=from_worker[1], **caps
        )
        judge_task = JudgeTask(
            self.confinement(self.uids[1]),
            request=self.request,
            verdict=verdict[1],
            reads=from_worker[0],
            writes=to_worker[1],
            calls=self.job.calls,
            **caps,
        )
        worker = self.start(lambda: work(worker_task), "worker", asdict(worker_task))
        judging = self.start(lambda: judge(judge_task), "judge", asdict(judge_task))
        for descriptor in (*to_worker, *from_worker, verdict[1], self.request):
            os.close(descriptor)
        signal.signal(signal.SIGTERM, lambda *_: self.leave())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        line, in_time = self.wait(verdict[0], deadline)
        if b'"crashed"' in line:
            self.reap_within(0.2, {worker})
        elif in_time and not line.lstrip(STARTED):
            self.reap_within(0.2, {judging})
        self.end_all()
        return {
            "started": line.startswith(STARTED),
            "line": line.lstrip(STARTED).decode("ascii", "replace"),
            "in_time": in_time,
            "worker": self.statuses.get(worker),
            "judge": self.statuses.get(judging),
        }

    def confinement(self, uid: int | None) -> Confinement:
        wrapped = self.setup.bubblewrap is not None
        others = 4  # bubblewrap's own, and the main thread
        if uid is None and not wrapped:
            others += confinement.count_tasks(os.getuid())
        return Confinement(
            uid=uid,
            parent=None if wrapped else os.getpid(),
            ruleset=self.ruleset,
            memory=self.job.memory,
            cpu=self.job.cpu,
            tasks=self.job.threads + others,
            files=self.job.files,
        )

    def start(self, inside: Callable[[], NoReturn], role: str, task: Mapping[str, Any]) -> int:
        """Fork judge or worker, with its own channels only; the pid of its outermost process."""
        names = ("reads", "writes", "request", "verdict")
        keep = [task[name] for name in names if name in task]
        keep += [self.ruleset] if self.ruleset is not None else []
        pid = os.fork()
        if pid:
            self.started.add(pid)
            return pid
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            _close_all_but(keep)
            if self.setup.bubblewrap is None:
                os.setsid()
                inside()
            for descriptor in keep:
                os.set_inheritable(descriptor, True)
            command = [*self.setup.bubblewrap, role, json.dumps(task)]
            os.execve(command[0], command, {})
        finally:
            os._exit(70)

    def wait(self, verdict: int, deadline: float) -> tuple[bytes, bool]:
        """The verdict's line, and whether it came in time; ends when the caller hangs up."""
        data = b""
        poll = select.poll()
        poll.register(verdict, select.POLLIN)
        poll.register(self.report, select.POLLIN)  # the caller sends no more: readable is gone
        while b"\n" not in data and len(data) < LONGEST_VERDICT:
            left = deadline - time.monotonic()
            if left <= 0:
                return data, False
            events = dict(poll.poll(left * 1000 + 1))
            if self.report in events:
                self.leave()
            if verdict in events:
                part = os.read(verdict, LONGEST_VERDICT)
                if not part:
                    break
                data += part
        return data.partition(b"\n")[0][:LONGEST_VERDICT], True

    def reap_within(self, seconds: float, wanted: set[int]) -> None:
        """Let processes that are ending anyway tell how."""
        end = time.monotonic() + seconds
        with suppress(ChildProcessError):
            while not wanted <= self.statuses.keys() and time.monotonic() < end:
                if not self.reap():
                    time.sleep(0.002)

    def reap(self) -> bool:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            self.statuses[pid] = os.waitstatus_to_exitcode(status)
        return bool(pid)

    def leave(self) -> NoReturn:
        """End with everything: nobody is left to answer."""
        self.end_all()
        os._exit(0)

    def end_all(self) -> None:
        """Kill every descendant, until there is none."""
        children = Path(f"/proc/self/task/{os.getpid()}/children")
        with suppress(ChildProcessError):
            while True:
                pids = self.started - self.statuses.keys()
                with suppress(OSError):  # not every kernel lists children
                    pids |= set(map(int, children.read_text(encoding="ascii").split()))
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                while self.reap():
                    pass
                time.sleep(0.0005)


def _pair(first: int, number: int, uids: int) -> tuple[int, int]:
    uid = first + 2 * number % uids
    return uid, uid + 1


def _close_all_but(keep: list[int]) -> None:
    """Every descriptor but these and the standard three, which are /dev/null."""
    begin = 3
    for descriptor in sorted(keep):
        os.closerange(begin, descriptor)
        begin = descriptor + 1
    os.closerange(begin, os.sysconf("SC_OPEN_MAX"))


def main(role: str, text: str) -> NoReturn:
    """Start of a zygote, or of a judge or worker within bubblewrap."""
    task = json.loads(text)
    if role == "zygote":
        wrapped = task["bubblewrap"]
        setup = ZygoteSetup(**{**task, "bubblewrap": tuple(wrapped) if wrapped else None})
        serve(socket.socket(fileno=setup.control), setup)
    confined = Confinement(**task.pop("confinement"))
    if role == "worker":
        work(WorkerTask(confined, **task))
    judge(JudgeTask(confined, **task))
