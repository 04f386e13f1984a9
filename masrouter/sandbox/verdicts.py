"""From what supervisor and judge say to a `Verdict`. The judge's line is not believed unseen."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Mapping
from typing import Any, get_args

from masrouter.errors import ProblemError, SandboxError
from masrouter.sandbox.limits import Limits, Reason, Verdict
from masrouter.sandbox.tasks import OUT_OF_MEMORY

_REASONS: Mapping[str, Reason] = {reason: reason for reason in get_args(Reason)}


def _verdict(passed: bool, reason: Reason, detail: str, began: float) -> Verdict:
    # Half a surrogate pair, which a program may say, could not be stored or sent.
    shown = detail.encode("utf-8", "backslashreplace").decode("utf-8")
    return Verdict(passed, reason, shown, time.monotonic() - began)


def read_verdict(answer: Mapping[str, Any], limits: Limits, began: float) -> Verdict:
    """The verdict in a supervisor's answer. `began`: of `time.monotonic`, for the time it took.

    Raises ProblemError where the test is at fault, SandboxError where a process did not start.
    """
    line, worker, judge = answer["line"], answer["worker"], answer["judge"]
    if not answer["in_time"]:
        return _verdict(False, "timeout", f"no verdict within {limits.wall_s:g} s", began)
    if not line:
        if not answer["started"]:
            raise SandboxError(f"the test's process did not start: {_ending(judge)}")
        if _ran_out_of_time(judge):
            return _verdict(False, "timeout", "the test used up its CPU time", began)
        return _verdict(False, "crashed", f"the test's process ended: {_ending(judge)}", began)
    try:
        said = json.loads(line)
        reason, detail = said["reason"], said["detail"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return _verdict(False, "protocol", "the test's process sent no verdict", began)
    if type(detail) is not str or type(reason) is not str:
        return _verdict(False, "protocol", "the test's process sent no verdict", began)
    if reason == "unconfined":
        raise SandboxError(f"a process could not be confined: {detail}")
    if reason == "bad problem":
        raise ProblemError(f"the problem cannot be judged: {detail}")
    if reason not in _REASONS:
        return _verdict(False, "protocol", "the test's process sent no verdict", began)
    if reason == "crashed":
        if _ran_out_of_time(worker):
            return _verdict(False, "timeout", "the program used up its CPU time", began)
        if worker == OUT_OF_MEMORY:
            return _verdict(False, "memory", "the program ran out of memory", began)
        detail = f"{detail}: {_ending(worker)}"
    return _verdict(reason == "passed", _REASONS[reason], detail, began)


def _ran_out_of_time(status: int | None) -> bool:
    """Bubblewrap passes a signal on as 128 and its number."""
    return status in {end for one in (signal.SIGXCPU, signal.SIGKILL) for end in (-one, 128 + one)}


def _ending(status: int | None) -> str:
    if status is None:
        return "its channel was closed"
    number = -status if status < 0 else status - 128
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(number).name}"
    return f"status {status}"
