"""Nothing survives: no process, no file, whoever ends first."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from tests.sandbox.process_tree import alive, descendants, eventually, processes, zygotes

from masrouter.errors import SandboxError
from masrouter.sandbox import Containment, Limits, Sandbox, Verdict

ENDLESS = "def f(n):\n    while True: pass"
PASSES = "def check(c):\n    assert c(1) == 1\n"


@pytest.mark.parametrize(
    "program",
    [
        "def f(n): return n",
        "import threading\ndef f(n):\n"
        "    threading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()\n    return n",
        "import signal, threading\nfor s in set(signal.Signals) - {9, 19}:\n"
        "    signal.signal(s, signal.SIG_IGN)\ndef f(n): threading.Event().wait()",
        ENDLESS,
    ],
)
def test_a_judgement_leaves_no_process_and_no_file(
    containment: Containment, program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tests beside this one use the common folders too: there, only strangers' files are looked for.
    common = [Path(tempfile.gettempdir()), Path("/dev/shm")]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Sandbox(Limits(wall_s=0.7), containment) as sandbox:
        before = zygotes()
        sandbox.judge("def f(n): return n", PASSES, "f")
        (zygote,) = set(zygotes()) - set(before)
        files = strangers_files(common)
        verdict = sandbox.judge(program, PASSES, "f")
        assert verdict.passed == ("return n" in program)
        assert verdict.wall_s < 0.7 + 2
        assert eventually(lambda: not alive(descendants(zygote)), 2)
        assert strangers_files(common) - files == set()
        assert list(tmp_path.iterdir()) == []
    assert zygote not in zygotes()


def strangers_files(folders: list[Path]) -> set[Path]:
    """What belongs to another uid, such as those that programs are given where there is root."""
    found = set()
    for path in (path for folder in folders for path in folder.iterdir()):
        with contextlib.suppress(FileNotFoundError):
            if path.lstat().st_uid != os.geteuid():
                found.add(path)
    return found


class Judging(threading.Thread):
    """A judgement in the background; `outcome` is its verdict or its error."""

    def __init__(self, sandbox: Sandbox, program: str, limits: Limits) -> None:
        super().__init__()
        self.sandbox, self.program, self.limits = sandbox, program, limits
        self.outcome: Verdict | SandboxError | None = None

    def run(self) -> None:
        try:
            self.outcome = self.sandbox.judge(self.program, PASSES, "f", limits=self.limits)
        except SandboxError as error:
            self.outcome = error


def test_a_zygote_that_is_killed_is_replaced(containment: Containment) -> None:
    with Sandbox(containment=containment) as sandbox:
        before = zygotes()
        assert sandbox.judge("def f(n): return n", PASSES, "f").passed
        (zygote,) = set(zygotes()) - set(before)
        os.kill(zygote, signal.SIGKILL)
        assert sandbox.judge("def f(n): return n", PASSES, "f").passed
        assert set(zygotes()) - set(before) - {zygote}


def test_a_judgement_whose_processes_are_killed_is_done_again(containment: Containment) -> None:
    with Sandbox(containment=containment) as sandbox:
        before = zygotes()
        assert sandbox.judge("def f(n): return n", PASSES, "f").passed
        (zygote,) = set(zygotes()) - set(before)
        slow = "import time\ndef f(n):\n    time.sleep(0.5)\n    return n"
        judging = Judging(sandbox, slow, Limits(wall_s=20))
        judging.start()
        assert eventually(lambda: len(descendants(zygote)) >= 3)
        running = descendants(zygote)
        os.kill(zygote, signal.SIGKILL)
        judging.join(30)
        assert isinstance(judging.outcome, Verdict)
        assert judging.outcome.passed
        assert eventually(lambda: not alive(running))


def test_closing_ends_what_is_being_judged(containment: Containment) -> None:
    sandbox = Sandbox(containment=containment)
    before = zygotes()
    assert sandbox.judge("def f(n): return n", PASSES, "f").passed
    (zygote,) = set(zygotes()) - set(before)
    judging = Judging(sandbox, ENDLESS, Limits(wall_s=60))
    judging.start()
    assert eventually(lambda: len(descendants(zygote)) >= 3)
    running = descendants(zygote)
    sandbox.close()
    judging.join(30)
    assert isinstance(judging.outcome, SandboxError)
    assert eventually(lambda: not alive(running))


SCRIPT = """
import sys
sys.path.insert(0, {library!r})
from masrouter.sandbox import Limits, Sandbox, probe
sandbox = Sandbox(Limits(wall_s=120), probe({kind!r}))
print("ready", flush=True)
sandbox.judge({program!r}, {test!r}, "f")
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_caller_that_is_killed_leaves_nothing(
    containment: Containment, bare_library: Path, how: signal.Signals
) -> None:
    script = SCRIPT.format(
        library=str(bare_library), kind=containment.kind, program=ENDLESS, test=PASSES
    )
    with subprocess.Popen(
        [sys.executable, "-S", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == b"ready\n"
        # zygote, supervisor, judge, worker; each of the last two has two of bubblewrap above it
        wanted = 4 if containment.kind == "landlock" else 8
        assert eventually(lambda: len(alive(descendants(caller.pid))) >= wanted)
        time.sleep(0.2)
        running = descendants(caller.pid)
        caller.send_signal(how)
        caller.wait(30)
    assert eventually(lambda: not alive(running)), alive(running)


BUSY = """
import sys, threading
sys.path.insert(0, {library!r})
from masrouter.sandbox import Sandbox, probe
sandbox = Sandbox(containment=probe({kind!r}), at_once=8)
def judge():
    while True:
        sandbox.judge("def f(n): return n", {test!r}, "f")
for _ in range(8):
    threading.Thread(target=judge).start()
print("ready", flush=True)
"""


def _started_from(folder: Path) -> list[int]:
    """Processes that have a path below `folder` in their command."""
    found = []
    for pid, _ in processes():
        with contextlib.suppress(OSError):
            if f"{folder}/".encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def test_a_caller_killed_while_programs_start_leaves_nothing(
    containment: Containment, bare_library: Path
) -> None:
    """Not even what was between two steps of its start when the caller went."""
    script = BUSY.format(library=str(bare_library), kind=containment.kind, test=PASSES)
    library = bare_library / "masrouter"
    for wait in (0.1, 0.15, 0.2):
        with subprocess.Popen(
            [sys.executable, "-S", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as caller:
            assert caller.stdout is not None
            assert caller.stdout.readline() == b"ready\n"
            time.sleep(wait)
            caller.kill()
        assert eventually(lambda: not _started_from(library)), _started_from(library)
