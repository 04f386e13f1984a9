"""Which containment is taken, and the refusal where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from masrouter.errors import SandboxError
from masrouter.sandbox import Containment, Host, probe
from masrouter.sandbox.containment import python_command

BARE = Host(
    system="linux", machine="x86_64", landlock_abi=0, bubblewrap=None, root=os.getuid() == 0
)


def replaced(**changes: object) -> Host:
    return Host(**{**{name: getattr(BARE, name) for name in Host.__slots__}, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "why"),
    [
        (replaced(), "no `bwrap` on the PATH.*no Landlock.*Install bubblewrap"),
        (replaced(system="darwin", machine="arm64"), "on darwin arm64: needs Linux on x86_64"),
        (replaced(machine="riscv64", landlock_abi=7), "on linux riscv64: needs Linux on x86_64"),
        (replaced(bubblewrap="/no/such/bwrap"), "bwrap does not start.*no Landlock"),
        (replaced(bubblewrap=shutil.which("false")), "bwrap does not work \\(status 1\\)"),
    ],
)
def test_where_nothing_contains_the_refusal_says_what_to_install(host: Host, why: str) -> None:
    with pytest.raises(SandboxError, match=why):
        probe(host=host)


def test_a_bubblewrap_that_contains_nothing_is_found_out(tmp_path: Path) -> None:
    """One that only starts what it is told to start, and claims to have done the rest."""
    fake = tmp_path / "bwrap"
    fake.write_text('#!/bin/sh\nwhile [ "$1" != "--" ]; do shift; done\nshift\nexec "$@"\n')
    fake.chmod(0o755)
    host = replaced(bubblewrap=str(fake))
    with pytest.raises(SandboxError, match=r"bubblewrap: it does not (hold|start)"):
        probe("bubblewrap", host=host)


def test_the_preferred_means_is_taken_or_refused() -> None:
    here = Host.here()
    with pytest.raises(SandboxError, match="bubblewrap: there is no `bwrap`"):
        probe("bubblewrap", host=replaced(landlock_abi=here.landlock_abi))
    with pytest.raises(SandboxError, match="landlock: the kernel has no Landlock"):
        probe("landlock", host=replaced(bubblewrap=here.bubblewrap))


def test_what_is_found_says_what_it_is(containment: Containment) -> None:
    assert ("bubblewrap" in str(containment)) == (containment.kind == "bubblewrap")
    assert "seccomp" in str(containment)
    assert ("own uid" in str(containment)) == (os.geteuid() == 0)


AS_NOBODY = """
import os, sys
sys.path.insert(0, sys.argv[1])
from masrouter.sandbox import Limits, Sandbox, probe
me = os.getpid()
assert os.getuid() == 65534
containment = probe(sys.argv[2])
assert containment.first_uid is None
PROGRAM = f'''
import ctypes, fcntl, os, resource, signal, threading
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    if libc.syscall(number, *args) < 0: raise OSError(ctypes.get_errno(), 'syscall')
def f(n):
    attempts = [
        lambda: os.kill({me}, 0), lambda: os.kill({me}, 9), lambda: os.kill(-1, 9),
        lambda: os.pidfd_open({me}), lambda: fcntl.fcntl(0, 8, {me}),
        lambda: resource.prlimit({me}, 7, (0, 0)), lambda: os.setpriority(0, {me}, 19),
        lambda: call(101, 16, {me}, 0, 0), lambda: call(310, {me}, None, 0, None, 0, 0),
        lambda: call(234, {me}, {me}, 9), lambda: call(203, {me}, 8, b'x' * 8),
        lambda: open('/proc/{me}/environ'), lambda: open(SECRET), lambda: open(SECRET, 'w'),
        lambda: os.unlink(SECRET), lambda: os.chmod(SECRET, 0), os.fork,
    ]
    for i, attempt in enumerate(attempts):
        try: attempt()
        except OSError: continue
        return i
    t = threading.Thread(target=print)
    t.start()
    started = 0
    threading.stack_size(65536)
    try:
        for started in range(1000): threading.Thread(target=signal.pause, daemon=True).start()
    except RuntimeError: pass
    return n if started < 200 else started
'''.replace("SECRET", repr(sys.argv[3]))
TEST = "def check(c):\\n    got = c('fine')\\n    assert got == 'fine', got\\n"
with Sandbox(Limits(wall_s=10), containment) as sandbox:
    verdict = sandbox.judge(PROGRAM, TEST, "f")
    assert verdict.passed, verdict
    fork = sandbox.judge("import os\\nos._exit(0)", TEST, "f")
    assert fork.reason == "crashed", fork
    loop = sandbox.judge("while True: pass", TEST, "f", limits=Limits(wall_s=0.5))
    assert loop.reason == "timeout", loop
print("contained")
"""


@pytest.mark.skipif(os.getuid() != 0, reason="the other tests run as an ordinary user already")
def test_an_ordinary_user_is_protected_too(
    containment: Containment, bare_library: Path, open_folder: Path
) -> None:
    interpreter = interpreter_of_everybody()
    secret = open_folder / "own secret"
    secret.write_text("own")
    os.chown(secret, 65534, 65534)
    secret.chmod(0o600)
    done = subprocess.run(
        [interpreter, "-S", "-c", AS_NOBODY, str(bare_library), containment.kind, str(secret)],
        user=65534,
        group=65534,
        extra_groups=[],
        env={"PATH": os.environ["PATH"]},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if "bwrap does not work" in done.stderr:
        pytest.skip("no user namespaces for ordinary users")
    assert done.stdout == "contained\n", done.stderr
    assert secret.read_text() == "own"
    assert secret.stat().st_mode & 0o777 == 0o600


def interpreter_of_everybody() -> str:
    """A Python, new enough, that an unprivileged uid can start."""
    for path in (python_command()[0], shutil.which("python3", path="/usr/bin"), sys.executable):
        if path is None:
            continue
        try:
            done = subprocess.run(
                [path, "-S", "-c", "import sys; assert sys.version_info >= (3, 11)"],
                user=65534,
                group=65534,
                extra_groups=[],
                capture_output=True,
                check=False,
                cwd="/",
            )
        except OSError:
            continue
        if done.returncode == 0:
            return path
    pytest.skip("no Python 3.11 that another uid can start")


def test_the_caller_loads_nothing_that_runs_programs(bare_library: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "sys.modules['resource'] = None  # as where there is no such module\n"
        "import masrouter.sandbox\n"
        "print(sorted(m.rpartition('.')[2] for m in sys.modules if 'masrouter.sandbox.' in m))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, str(bare_library)],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = done.stdout
    assert "processes" in loaded
    for contained in ("contained", "judging", "working", "confinement", "zygote"):
        assert contained not in loaded
