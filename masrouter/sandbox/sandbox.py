"""`Sandbox`: what a caller uses. Runs neither program nor test in this process."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from types import TracebackType
from typing import Self

from masrouter.errors import SandboxError
from masrouter.sandbox.containment import Containment
from masrouter.sandbox.limits import Limits, Verdict
from masrouter.sandbox.probing import probe
from masrouter.sandbox.processes import NoAnswer, Zygote, request_of
from masrouter.sandbox.verdicts import read_verdict


class Sandbox:
    """Judges programs. A context manager; safe to share between threads.

    containment: from `probe`; None probes here. at_once: programs judged at the same time, further
    calls wait; None is the number of CPUs. Raises SandboxError where nothing can contain.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        containment: Containment | None = None,
        *,
        at_once: int | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.containment = containment or probe()
        self._places = threading.BoundedSemaphore(at_once or os.cpu_count() or 1)
        self._lock = threading.Lock()
        self._zygote: Zygote | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every process of this sandbox; what is being judged ends with SandboxError."""
        with self._lock:
            self._closed = True
            zygote, self._zygote = self._zygote, None
        if zygote is not None:
            zygote.close()

    def judge(
        self,
        program: str,
        test: str,
        entry_point: str,
        *,
        helpers: str | None = None,
        limits: Limits | None = None,
    ) -> Verdict:
        """Whether `program` passes `test`; blocks, at most the wall limit and 2 s.

        test: source text that defines `check(candidate)`, and may call it. It sees the program's
        function as `candidate` and by its name `entry_point`. Other functions of the program that
        it uses by name are offered too: then the program has a say in its own test. helpers:
        source text of the problem (as a HumanEval prompt) to take such names from instead.
        limits: for this program; None are the sandbox's.

        Raises ProblemError where the test is at fault (no `check`, not valid Python, an argument
        that cannot cross), SandboxError where the program could not be contained.
        """
        limits = limits or self.limits
        request = request_of(program, test, entry_point, helpers)
        with self._places:
            began = time.monotonic()
            for attempt in (1, 2):
                zygote = self._running()
                try:
                    left = limits.wall_s - (time.monotonic() - began if attempt == 2 else 0)
                    answer = zygote.ask(request, replace(limits, wall_s=max(left, 0.1)))
                    break
                except NoAnswer as gone:
                    took = time.monotonic() - began
                    if took > limits.wall_s:
                        return Verdict(False, "timeout", "the supervisor was silent", took)
                    if attempt == 2 or self._closed:
                        raise SandboxError(f"the sandbox's processes ended: {gone}") from None
                    if zygote.has_ended():
                        self._forget(zygote)
            return read_verdict(answer, limits, began)

    def _running(self) -> Zygote:
        with self._lock:
            if self._closed:
                raise SandboxError("this sandbox is closed; open a new one")
            if self._zygote is not None and not self._zygote.is_alive():
                self._zygote.close()
                self._zygote = None
            if self._zygote is None:
                self._zygote = Zygote(self.containment)
            return self._zygote

    def _forget(self, zygote: Zygote) -> None:
        with self._lock:
            if self._zygote is zygote:
                self._zygote = None
        zygote.close()
