"""The list of system calls that a contained process may make; the kernel refuses all others.

Enough for Python with threads, asyncio and reading files. Not on it, so refused with EPERM: making
processes, starting programs, signals to others, sockets that reach anywhere, opening for writing,
every change to a file's name or mode, tracing, keys, namespaces, io_uring, shared memory.

Numbers: Linux's unistd.h of x86_64 and the generic one (aarch64). The filter is classic BPF:
Linux, Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass

_X86_64 = """
read 0 write 1 readv 19 writev 20 futex 202 close 3 mmap 9 munmap 11 brk 12 mremap 25 madvise 28
mprotect 10 fstat 5 newfstatat 262 stat 4 lstat 6 statx 332 lseek 8 pread64 17 close_range 436
rt_sigaction 13 rt_sigprocmask 14 rt_sigreturn 15 rt_sigtimedwait 128 rt_sigpending 127
sigaltstack 131 access 21 faccessat 269 faccessat2 439 pipe 22 pipe2 293 select 23 pselect6 270
poll 7 ppoll 271 sched_yield 24 dup 32 dup2 33 dup3 292 nanosleep 35 clock_nanosleep 230 getpid 39
gettid 186 getppid 110 getuid 102 geteuid 107 getgid 104 getegid 108 getresuid 118 getresgid 120
getgroups 115 getpgrp 111 getpgid 121 getsid 124 exit 60 exit_group 231 uname 63 getcwd 79
readlink 89 readlinkat 267 getdents64 217 gettimeofday 96 time 201 times 100 clock_gettime 228
clock_getres 229 getrusage 98 getrlimit 97 sysinfo 99 set_robust_list 273 rseq 334 membarrier 324
set_tid_address 218 sched_getaffinity 204 sched_getparam 143 sched_getscheduler 145 getcpu 309
getrandom 318 epoll_create 213 epoll_create1 291 epoll_ctl 233 epoll_wait 232 epoll_pwait 281
eventfd2 290 recvfrom 45 shutdown 48 getsockopt 55 getsockname 51 setitimer 38 getitimer 36
alarm 37 pause 34 restart_syscall 219 umask 95 statfs 137 fstatfs 138
ioctl 16 fcntl 72 clone 56 clone3 435 prctl 157 prlimit64 302 openat 257 open 2 socketpair 53
sendto 44 tgkill 234
"""
_AARCH64 = """
read 63 write 64 readv 65 writev 66 futex 98 close 57 mmap 222 munmap 215 brk 214 mremap 216
madvise 233 mprotect 226 fstat 80 newfstatat 79 statx 291 lseek 62 pread64 67 close_range 436
rt_sigaction 134 rt_sigprocmask 135 rt_sigreturn 139 rt_sigtimedwait 137 rt_sigpending 136
sigaltstack 132 faccessat 48 faccessat2 439 pipe2 59 pselect6 72 ppoll 73 sched_yield 124 dup 23
dup3 24 nanosleep 101 clock_nanosleep 115 getpid 172 gettid 178 getppid 173 getuid 174 geteuid 175
getgid 176 getegid 177 getresuid 148 getresgid 150 getgroups 158 getpgid 155 getsid 156 exit 93
exit_group 94 uname 160 getcwd 17 readlinkat 78 getdents64 61 gettimeofday 169 times 153
clock_gettime 113 clock_getres 114 getrusage 165 getrlimit 163 sysinfo 179 set_robust_list 99
rseq 293 membarrier 283 set_tid_address 96 sched_getaffinity 123 sched_getparam 121
sched_getscheduler 120 getcpu 168 getrandom 278 epoll_create1 20 epoll_ctl 21 epoll_pwait 22
eventfd2 19 recvfrom 207 shutdown 210 getsockopt 209 getsockname 204 setitimer 103 getitimer 102
restart_syscall 128 umask 166 statfs 43 fstatfs 44
ioctl 29 fcntl 25 clone 220 clone3 435 prctl 167 prlimit64 261 openat 56 socketpair 199
sendto 206 tgkill 131
"""


@dataclass(frozen=True, slots=True)
class _Machine:
    audit: int
    """The kernel's name of the machine in a filter: AUDIT_ARCH_..."""
    calls: Mapping[str, int]


def _numbers(table: str) -> dict[str, int]:
    words = table.split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


_MACHINES: Mapping[str, _Machine] = {
    "x86_64": _Machine(0xC000003E, _numbers(_X86_64)),
    "aarch64": _Machine(0xC00000B7, _numbers(_AARCH64)),
}
MACHINES = tuple(_MACHINES)

_ALLOW = 0x7FFF0000
_KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000
_LOAD, _AND, _EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_NUMBER_AT, _AUDIT_AT, _ARGUMENTS_AT = 0, 4, 16

_THREAD = 0x00010100  # CLONE_THREAD | CLONE_VM
_NAMESPACES = 0x7E020000
_OPEN_TO_CHANGE = 0o1 | 0o2 | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_IOCTL = (0x5401, 0x5450, 0x5451, 0x5421, 0x541B)  # TCGETS, FIO(N)CLEX, FIONBIO, FIONREAD
_FCNTL = (0, 1, 2, 3, 4, 1030)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC
_PR_SET_NAME = 15
_AF_UNIX, _SOCK_STREAM, _SOCK_TYPE = 1, 1, 0xF


@dataclass(frozen=True, slots=True)
class _Test:
    """The low (or high) 32 bits of an argument, masked, must be one of `values`."""

    argument: int
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF
    high: bool = False


def _tests() -> dict[str, tuple[_Test, ...]]:
    return {
        "clone": (_Test(0, (_THREAD,), _THREAD | _NAMESPACES),),
        "open": (_Test(1, (0,), _OPEN_TO_CHANGE),),
        "openat": (_Test(2, (0,), _OPEN_TO_CHANGE),),
        "ioctl": (_Test(1, _IOCTL),),
        "fcntl": (_Test(1, _FCNTL),),
        "prctl": (_Test(0, (_PR_SET_NAME,)),),
        "prlimit64": (_Test(0, (0,)),),
        "socketpair": (_Test(0, (_AF_UNIX,)), _Test(1, (_SOCK_STREAM,), _SOCK_TYPE)),
        "sendto": (_Test(4, (0,)), _Test(4, (0,), high=True)),  # no address
        "tgkill": (_Test(0, (os.getpid(),)),),
    }


def is_supported(machine: str) -> bool:
    """Whether the system calls of a machine, as `platform.machine()` names it, are known."""
    return machine in _MACHINES


_Instruction = tuple[int, int, int, int]


def _program(machine: _Machine) -> list[_Instruction]:
    """Instructions (code, jump if true, jump if false, k)."""
    tests = _tests()
    refuse = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    program: list[_Instruction] = [
        (_LOAD, 0, 0, _AUDIT_AT),
        (_EQUAL, 1, 0, machine.audit),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    for name, number in machine.calls.items():
        block: list[_Instruction] = []
        for test in tests.get(name, ()):
            block += [
                (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * test.argument + 4 * test.high),
                (_AND, 0, 0, test.mask),
            ]
            count = len(test.values)
            block += [(_EQUAL, count - i, 0, value) for i, value in enumerate(test.values)]
            block.append(refuse)
        if name == "clone3":  # its flags lie in memory; the C library then takes clone
            block.append((_RETURN, 0, 0, _ERRNO | errno.ENOSYS))
        else:
            block.append((_RETURN, 0, 0, _ALLOW))
        program += [(_EQUAL, 0, len(block), number), *block]
    return [*program, refuse]


class _Filter(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("jt", ctypes.c_ubyte),
        ("jf", ctypes.c_ubyte),
        ("k", ctypes.c_uint),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.POINTER(_Filter)))


def allow_only_listed_calls() -> None:
    """Install the filter for this process, for good. Needs no_new_privs. Raises OSError."""
    instructions = _program(_MACHINES[platform.machine()])
    array = (_Filter * len(instructions))(*(_Filter(*one) for one in instructions))
    program = _Program(len(instructions), array)
    libc = ctypes.CDLL(None, use_errno=True)
    set_seccomp, filter_mode = 22, 2
    if libc.prctl(set_seccomp, filter_mode, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "seccomp filter refused")
