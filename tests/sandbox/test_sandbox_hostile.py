"""Programs that try to pass without solving, to use up the machine, or to stay."""

from __future__ import annotations

import threading

import pytest
from tests.sandbox.attempts import SECRET, SHORT, TEST, assert_no_pass, outcomes

from masrouter.sandbox import Sandbox


@pytest.mark.parametrize("place", ["load", "call"])
@pytest.mark.parametrize(
    ("how", "reasons"),
    [
        ("import sys; sys.exit(0)", ("exception",)),
        ("raise SystemExit(0)", ("exception",)),
        ("raise KeyboardInterrupt", ("exception",)),
        ("raise GeneratorExit", ("exception",)),
        ("import os; os._exit(0)", ("crashed",)),
        ("import os; os._exit(86)", ("memory",)),
        ("import os; os.abort()", ("crashed",)),
        ("import os; os.kill(os.getpid(), 9)", ("exception",)),
        ("import signal; signal.raise_signal(15)", ("crashed", "timeout")),
        ("import ctypes; ctypes.string_at(0)", ("crashed",)),
        ("import os; os.closerange(0, 1000)", ("crashed", "timeout")),
        ("import sys; sys.setrecursionlimit(10**9); g = lambda n: g(n); g(0)", ()),
        ("import sys; sys.setrecursionlimit(10**9); x = []\nwhile 1: x = [x]", ()),
        ("import atexit, sys; atexit.register(print, 'passed'); sys.exit()", ("exception",)),
        ("import threading as t; t.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()", ()),
        ("import signal; signal.alarm(1); signal.pause()", ("crashed", "timeout")),
        ("import os; os.execv('/bin/true', ['true'])", ("exception",)),
        ("import faulthandler; faulthandler._stack_overflow()", ("crashed",)),
    ],
)
def test_an_exit_of_any_kind_is_no_pass(
    sandbox: Sandbox, place: str, how: str, reasons: tuple[str, ...]
) -> None:
    if place == "load":
        program = f"{how}\ndef f(n): return n\n"
    else:
        body = how.replace("\n", "\n    ")
        program = f"def f(n):\n    {body}\n    return n\n"
    assert_no_pass(sandbox, program, *reasons)


FAKES = {
    "an object that equals everything": """
        class Any:
            def __eq__(self, other): return True
            def __bool__(self): return True
        def f(n): return Any()""",
    "a text that equals everything": """
        class Any(str):
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            __hash__ = str.__hash__
        def f(n): return Any('no')""",
    "a list of such": """
        class Any(int):
            def __eq__(self, other): return True
            __hash__ = int.__hash__
        def f(n): return Any()""",
    "its own check": """
        def check(candidate): pass
        def f(n): return 0""",
    "patched builtins": """
        import builtins
        builtins.AssertionError = builtins.ZeroDivisionError = SystemExit
        builtins.isinstance = builtins.all = builtins.len = lambda *a: True
        builtins.__import__ = builtins.type = str
        def f(n): return 0""",
    "a patched codec": """
        import sys
        values = sys.modules['masrouter.sandbox.values']
        values.pack = lambda *a, **k: {'__eq__': []}
        working = sys.modules['masrouter.sandbox.working']
        working.pack = lambda *a, **k: {'eval': ['True']}
        def f(n): return 0""",
    "an answer to another call": """
        import sys
        working = sys.modules['masrouter.sandbox.working']
        real = working.dump
        working.dump = lambda m: real({'id': 99, 'value': 'x', 'changed': {}})
        def f(n): return 0""",
    "answers that are none": """
        import os
        for fd in range(3, 40):
            try: os.write(fd, b'\\0\\0\\0\\4true' * 10)
            except OSError: pass
        def f(n): return 0""",
    "an announced flood": """
        import os
        for fd in range(3, 40):
            try: os.write(fd, b'\\xff' * 40)
            except OSError: pass
        def f(n): return 0""",
    "a verdict on every descriptor": """
        import os
        def f(n):
            line = b'+{"reason": "passed", "detail": ""}\\n'
            for fd in range(64):
                try: os.write(fd, line)
                except OSError: pass
            return 0""",
    "printed markers": """
        import sys
        def f(n):
            for out in (sys.stdout, sys.stderr, sys.__stdout__):
                print('passed', 'OK', '{"reason": "passed"}', 'All tests passed', file=out)
            return 0""",
    "frames and gc": """
        import gc, sys
        def texts():
            for o in gc.get_objects():
                for r in (o, *gc.get_referents(o)):
                    if isinstance(r, str): yield r
            frame = sys._getframe()
            while frame:
                for v in (*frame.f_locals.values(), *frame.f_globals.values()):
                    if isinstance(v, str): yield v
                frame = frame.f_back
        def f(n):
            for text in texts():
                at = text.find(bytes.fromhex('736573616d652d').decode())
                if 0 <= at <= len(text) - 13: return text[at:at + 13]
            return 0""",
    "memory of the process": """
        import ctypes, re
        def f(n):
            base = id(object())
            try:
                with open('/proc/self/mem', 'rb', 0) as mem:
                    mem.seek(base & ~0xfff)
                    found = re.search(b'sesame-[0-9a-f]{6}', mem.read(1 << 22))
                    return found.group().decode()
            except OSError as error:
                return error.errno""",
    "an exception in place of a result": """
        def f(n): raise StopIteration('se' + 'same')""",
    "a result that changes the test's argument": """
        import sys
        working = sys.modules['masrouter.sandbox.working']
        real = working.dump
        working.dump = lambda m: real({**m, 'changed': {'0': [1], '7': [2]}} if 'id' in m else m)
        def f(n): return 0""",
    "forged names": """
        import sys
        working = sys.modules['masrouter.sandbox.working']
        working._offered = lambda n: {
            'callables': ['f', 'check', 'range', '__builtins__', '__name__'], 'modules': ['os']}
        def f(n): return 0
        def check(c): pass
        def range(n): return []""",
}


@pytest.mark.parametrize("name", FAKES)
def test_a_faked_pass_is_no_pass(sandbox: Sandbox, name: str) -> None:
    lines = FAKES[name].strip("\n").split("\n")
    assert_no_pass(sandbox, "\n".join(line[8:] for line in lines))


@pytest.mark.parametrize(
    "loop",
    [
        "for got, want in zip(map(candidate, [1]), [2]):\n        assert got == want",
        "assert all(map(lambda n: candidate(n) == n + 1, [1, 2]))",
        "for got in iter(lambda: candidate(1), 2):\n        assert got == 3",
    ],
)
@pytest.mark.parametrize("kind", ["StopIteration", "type('Own', (StopIteration,), {})"])
def test_a_program_cannot_end_the_loops_of_its_test(sandbox: Sandbox, loop: str, kind: str) -> None:
    program = f"def f(n): raise {kind}"
    verdict = sandbox.judge(program, f"def check(candidate):\n    {loop}\n", "f")
    assert (verdict.passed, verdict.reason) == (False, "exception")


def test_a_program_cannot_end_an_asynchronous_loop_of_its_test(sandbox: Sandbox) -> None:
    test = """
import asyncio
class Results:
    def __init__(self, candidate): self.candidate = candidate
    def __aiter__(self): return self
    async def __anext__(self): return self.candidate(1)
def check(candidate):
    async def each():
        async for got in Results(candidate): assert got == 2
    asyncio.run(each())
"""
    assert not sandbox.judge("def f(n): raise StopAsyncIteration", test, "f").passed


@pytest.mark.parametrize("text", ["\ud800", "\x00\ud83d"])
def test_what_a_program_says_can_be_written_as_utf8(sandbox: Sandbox, text: str) -> None:
    program = f"def f(n): raise ValueError({text!r})"
    verdict = assert_no_pass(sandbox, program, "exception")
    assert "\\ud8" in verdict.detail.encode("utf-8").decode()


def test_the_search_of_the_memory_would_find_what_is_there(sandbox: Sandbox) -> None:
    """The fake above is able to find its prey, so that its failure says something."""
    lines = FAKES["frames and gc"].strip("\n").split("\n")
    program = "\n".join(line[8:] for line in lines) + f"\nspoil = ['{SECRET}']\n"
    assert sandbox.judge(program, TEST, "f").passed


def test_a_program_cannot_shadow_what_its_test_builds_on(sandbox: Sandbox) -> None:
    program = "def abs(n): return -1\ndef all(x): return True\ndef f(n): return 100\n"
    test = "def check(candidate):\n    assert abs(candidate(1) - 1) < 1e-6\n"
    assert not sandbox.judge(program, test, "f").passed


def test_a_fork_bomb_makes_nothing(sandbox: Sandbox) -> None:
    program = "import os\ndef f(n):\n    while True: os.fork()\n"
    assert_no_pass(sandbox, program, "exception")


def test_a_thread_bomb_is_held(sandbox: Sandbox) -> None:
    program = """
import threading, time
threading.stack_size(65536)
def f():
    started = 0
    try:
        for started in range(1000):
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    except RuntimeError:
        pass
    return [started] if started > 40 else []
"""
    outcomes(sandbox, program)


@pytest.mark.parametrize(
    "body",
    [
        "return [0] * 10**11",
        "x = []\n    while True: x.append(bytearray(1 << 20))",
        "x = 'x'\n    while True: x += x",
        "import mmap\n    return [mmap.mmap(-1, 1 << 28) for _ in range(100)]",
        "return 9 ** 9 ** 9 ** 9",
        "return list(iter(int, 1))",
    ],
)
def test_a_memory_bomb_is_held(sandbox: Sandbox, body: str) -> None:
    assert_no_pass(sandbox, f"def f(n):\n    {body}\n", "memory", "timeout", "exception", "crashed")


@pytest.mark.parametrize(
    ("body", "reasons"),
    [
        ("while True: print('x' * 100_000)", ("timeout",)),
        ("import os\n    while True: os.write(2, b'x' * 100_000)", ("timeout",)),
        ("return 'x' * (1 << 26)", ("output",)),
        ("return [[]] * 10**7", ("output", "timeout")),
        ("return iter(int, 1)", ("output", "timeout")),
        ("return {n: n for n in range(10**6)}", ("output", "timeout")),
        ("return 1 << 10**8", ("output",)),
        ("x = []\n    for _ in range(10**5): x = [x]\n    return x", ("output",)),
        ("return range(10**18)", ("failed",)),
        ("raise ValueError('x' * 10**8)", ("exception",)),
        ("return {(2**61 - 1) * n for n in range(60_000)}", ()),
    ],
)
def test_an_output_bomb_is_held(sandbox: Sandbox, body: str, reasons: tuple[str, ...]) -> None:
    verdict = assert_no_pass(sandbox, f"def f(n):\n    {body}\n", *reasons)
    assert len(verdict.detail) < 3000


def test_a_descriptor_bomb_is_held(sandbox: Sandbox) -> None:
    program = """
import os
def f():
    count = 0
    try:
        while count < 100_000: count += len(os.pipe())
    except OSError:
        pass
    return [count] if count > 64 else []
"""
    outcomes(sandbox, program)


@pytest.mark.parametrize(
    "text", ["import os\nos._exit(0)", "while True: pass", "def check(c): 1/0", "raise SystemExit"]
)
def test_a_hostile_test_gets_no_pass_and_harms_nothing(sandbox: Sandbox, text: str) -> None:
    test = f"{text}\ndef check(candidate): candidate()\n" if "check" not in text else text
    verdict = sandbox.judge("def f(): pass", test, "f", limits=SHORT)
    assert not verdict.passed
    assert verdict.reason in ("crashed", "timeout", "exception")
    assert threading.active_count() < 100
