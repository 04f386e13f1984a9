"""Programs that try to break out: to start, see, write, reach or signal anything."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.sandbox.attempts import SECRET, attempt_all, outcomes

from masrouter.sandbox import Containment, Sandbox


def test_an_attempt_that_works_is_noticed(sandbox: Sandbox) -> None:
    with pytest.raises(AssertionError, match="getcwd"):
        attempt_all(sandbox, "os.fork()\nos.getcwd()")


def test_no_process_can_be_made(sandbox: Sandbox) -> None:
    attempt_all(
        sandbox,
        """
os.fork()
os.forkpty()
os.posix_spawn('/bin/true', ['true'], {})
os.execv('/bin/true', ['true'])
os.system('true') == 0 or int('x')
subprocess.run(['/bin/true'])
__import__('multiprocessing').get_context('fork').Process(target=print).start()
__import__('multiprocessing').get_context('spawn').Process(target=print).start()
os.setsid()
call(435, ctypes.create_string_buffer(88), 88)
call(56, 17, 0, 0, 0, 0)
call(56, 0x10000000 | 17, 0, 0, 0, 0)
call(57)
call(58)
call(322, -1, b'/bin/true', None, None, 0x1000)
""",
    )


def test_nothing_can_be_written(sandbox: Sandbox, open_folder: Path) -> None:
    victim = open_folder / "victim"
    victim.write_text("intact")
    victim.chmod(0o666)
    before = victim.stat()
    at = str(open_folder)
    attempt_all(
        sandbox,
        f"""
open('{victim}', 'w')
open('{victim}', 'a')
open('{victim}', 'r+')
write('{victim}', os.O_RDONLY | os.O_TRUNC)
write('{victim}', os.O_RDONLY | os.O_CREAT)
write('{at}', os.O_RDWR | os.O_TMPFILE)
open('{at}/new', 'x')
open('new', 'x')
open('/tmp/new', 'x')
open('/dev/shm/new', 'x')
open('/dev/null', 'w')
os.truncate('{victim}', 0)
os.unlink('{victim}')
os.rename('{victim}', '{at}/moved')
os.link('{victim}', '{at}/link')
os.symlink('{victim}', '{at}/symlink')
os.mkdir('{at}/folder')
os.mkfifo('{at}/fifo')
os.mknod('{at}/node')
os.chmod('{victim}', 0o777)
os.chown('{victim}', os.getuid(), os.getgid())
os.utime('{victim}', (0, 0))
os.setxattr('{victim}', 'user.x', b'x')
os.rmdir('{at}')
os.memfd_create('x')
__import__('tempfile').TemporaryFile()
__import__('shelve').open('{at}/shelf')
__import__('sqlite3').connect('{at}/db').execute('create table t (x)') if False else os.mkdir('x')
call(437, -100, b'{victim}', struct.pack('QQQ', 1, 0, 0), 24)
call(425, 8, ctypes.create_string_buffer(120))
call(29, 0, 4096, 0o1600)
""",
    )
    after = victim.stat()
    assert victim.read_text() == "intact"
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (
        before.st_mode,
        before.st_uid,
        before.st_mtime_ns,
    )
    assert list(open_folder.iterdir()) == [victim]


def test_nothing_secret_can_be_read(
    sandbox: Sandbox, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = open_folder / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o644)
    monkeypatch.setenv("SECRET_KEY", SECRET)
    me, at = os.getpid(), str(open_folder)
    installed = Path(pytest.__file__)
    attempt_all(
        sandbox,
        f"""
open('{secret}').read()
os.listdir('{at}')
os.chdir('{at}')
os.open('{at}', os.O_PATH) and open('/proc/self/fd/9')
open('/etc/passwd').read()
open('/etc/hostname').read()
open('/proc/{me}/environ').read()
open('/proc/{me}/mem', 'rb').read(1)
open('/proc/{me}/cmdline').read()
open('/proc/{os.getppid()}/environ').read()
os.listdir('/proc/{me}/fd')
os.listdir('/proc')
open('/proc/self/environ').read()
open('/proc/self/maps').read()
os.listdir('/proc/self/fd')
os.listdir('/home')
os.listdir('/')
os.listdir('{Path.home()}')
open('{installed}').read()
open('{__file__}').read()
import pytest
import numpy
import torch
os.environ['SECRET_KEY'] if 'SECRET_KEY' in os.environ else os.fork()
os.getenvb(b'SECRET_KEY') and 1 or os.fork()
libc.ptrace(16, {me}, 0, 0) == 0 or os.fork()
call(310, {me}, None, 0, None, 0, 0)
call(312, {me}, {me}, 0, 0, 0)
call(434, {me}, 0)
call(250, 0, 0, 0)
call(298, ctypes.create_string_buffer(128), 0, -1, -1, 0)
""",
    )


def test_a_worker_holds_no_descriptor_but_its_own(sandbox: Sandbox) -> None:
    program = """
import os
def f():
    open_ones = []
    for number in range(3, 64):
        try:
            os.fstat(number)
        except OSError:
            continue
        open_ones.append(number)
    null = os.stat(0).st_rdev == os.stat(1).st_rdev == os.stat(2).st_rdev == os.makedev(1, 3)
    return open_ones if len(open_ones) != 2 or not null else []
"""
    outcomes(sandbox, program)


def test_no_network_can_be_reached(sandbox: Sandbox, open_folder: Path) -> None:
    name = f"masrouter-test-{os.getpid()}"
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        udp.bind(("127.0.0.1", 0))
        unix.bind(f"{open_folder}/stream")
        datagrams.bind(f"{open_folder}/datagrams")
        abstract.bind(f"\0{name}")
        for path in open_folder.iterdir():
            path.chmod(0o777)
        servers = (tcp, udp, unix, datagrams, abstract)
        for server in servers:
            server.setblocking(False)
            if server in (unix, abstract):
                server.listen()
        port, udp_port = tcp.getsockname()[1], udp.getsockname()[1]
        attempt_all(
            sandbox,
            f"""
socket.create_connection(('127.0.0.1', {port}), 1)
socket.create_connection(('1.1.1.1', 53), 1)
socket.create_server(('127.0.0.1', 0))
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {udp_port}))
socket.socket(socket.AF_INET6)
socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
socket.socket(socket.AF_UNIX).connect('{open_folder}/stream')
socket.socket(socket.AF_UNIX).connect(chr(0) + '{name}')
socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b'x', '{open_folder}/datagrams')
socket.socketpair()[0].sendto(b'x', '{open_folder}/stream')
socket.socketpair()[0].sendmsg([b'x'])
socket.socketpair()[0].connect('{open_folder}/stream')
socket.getaddrinfo('example.org', 80)
__import__('urllib.request').request.urlopen('http://127.0.0.1:{port}')
__import__('ssl').get_server_certificate(('127.0.0.1', {port}))
""",
        )
        for server in servers:
            with pytest.raises(BlockingIOError):
                server.recv(1) if server in (udp, datagrams) else server.accept()


def test_no_other_process_can_be_signalled_or_changed(sandbox: Sandbox) -> None:
    heard: list[int] = []
    previous = signal.signal(signal.SIGIO, lambda number, _: heard.append(number))
    try:
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
            for pid in (os.getpid(), other.pid):
                attempt_all(
                    sandbox,
                    f"""
os.kill({pid}, 0)
os.kill({pid}, 15)
os.kill(-1, 15)
os.kill(0, 15)
os.kill(os.getppid(), 9)
os.killpg({pid}, 15)
os.killpg(0, 9)
signal.pidfd_send_signal(os.pidfd_open({pid}), 15)
signal.pthread_kill({pid}, 15) if False else call(200, {pid}, 15)
call(234, {pid}, {pid}, 15)
call(129, {pid}, 15, ctypes.create_string_buffer(128))
fcntl.fcntl(os.pipe()[0], 8, {pid})
fcntl.fcntl(os.pipe()[0], fcntl.F_SETSIG, 29)
fcntl.ioctl(os.pipe()[0], 0x8901, struct.pack('i', {pid}))
resource.prlimit({pid}, resource.RLIMIT_NOFILE, (0, 0))
resource.prlimit({pid}, resource.RLIMIT_NOFILE)
os.setpriority(os.PRIO_PROCESS, {pid}, 19)
os.nice(5)
os.sched_setaffinity({pid}, {{0}})
os.setuid(0)
os.setgid(0)
os.seteuid(0)
os.setgroups([0])
os.unshare(0x10000000) if hasattr(os, 'unshare') else call(272, 0x10000000)
call(165, b'x', b'/', b'tmpfs', 0, None)
call(161, b'/')
call(101, 16, {pid}, 0, 0)
call(157, 1, 0, 0, 0, 0)
call(321, 0, None, 0)
call(135, 0x0040000)
""",
                )
            assert other.poll() is None
            assert other.stdin is not None
            other.stdin.close()
            assert other.wait(30) == 1  # by end of file, not by a signal
    finally:
        signal.signal(signal.SIGIO, previous)
    assert heard == []


def test_two_sandboxes_at_once_do_not_share_a_uid(containment: Containment) -> None:
    if containment.first_uid is None:
        pytest.skip("only root has uids to give")
    program = "import os\ndef f(): raise ValueError(str(os.getuid()))"
    seen = []
    for _ in range(3):
        with Sandbox(containment=containment) as opened:
            seen.append(opened.judge(program, "def check(c): c()", "f").detail)
    assert len(set(seen)) > 1
    assert all("raised ValueError: " in detail for detail in seen)


def test_judge_and_worker_cannot_see_each_other(sandbox: Sandbox) -> None:
    """The test's own process is contained like the program's."""
    test = """
def check(candidate):
    import os, socket
    theirs = candidate()
    assert theirs
    for attempt in (os.fork, socket.socket, lambda: open('/etc/passwd'), lambda: os.kill(1, 0),
                    lambda: os.kill(theirs['pid'], 0), lambda: os.listdir('/proc')):
        try:
            attempt()
        except OSError:
            continue
        raise AssertionError(attempt)
    assert theirs['uid'] != os.getuid() or os.getuid() == OWN, theirs
"""
    program = "import os\ndef f(): return {'pid': os.getpid(), 'uid': os.getuid()}"
    own = os.getuid() if os.getuid() else -1
    verdict = sandbox.judge(program, test.replace("OWN", str(own)), "f")
    assert verdict.passed, verdict
