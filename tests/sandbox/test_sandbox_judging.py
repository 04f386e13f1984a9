"""Verdicts on honest programs, right and wrong, and on problems that cannot be judged."""

from __future__ import annotations

import asyncio
import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from masrouter.errors import ConfigError, ProblemError, SandboxError
from masrouter.sandbox import Containment, Limits, Sandbox, Verdict

SHARED = Path(__file__).parents[2] / "../shared/problems"
ADDS = "def check(candidate):\n    assert candidate(1, 2) == 3\n"


def test_a_right_program_passes(sandbox: Sandbox) -> None:
    verdict = sandbox.judge("def add(a, b):\n    return a + b\n", ADDS, "add")
    assert (verdict.passed, verdict.reason, verdict.detail) == (True, "passed", "")
    assert 0 < verdict.wall_s < 12


def test_the_order_of_a_set_is_the_same_in_every_sandbox(containment: Containment) -> None:
    program = "def order(): return list({f'word {i}' for i in range(12)})"
    test = "def check(candidate):\n    assert False, candidate()\n"
    orders = set()
    for _ in range(3):
        with Sandbox(containment=containment) as fresh:
            orders.add(fresh.judge(program, test, "order").detail)
    (order,) = orders
    assert "word 11" in order


@pytest.mark.parametrize(
    ("program", "reason", "detail"),
    [
        ("def add(a, b): return a - b", "failed", "line 2: assert candidate(1, 2) == 3"),
        ("def add(a, b): return 1 / 0", "exception", "raised ZeroDivisionError: division by"),
        ("def add(a, b) return 1", "exception", "could not be loaded: SyntaxError"),
        ("import no_such_module", "exception", "ModuleNotFoundError"),
        ("def sub(a, b): return 1", "exception", "defines no function 'add'"),
        ("add = 3", "exception", "defines no function 'add'"),
        ("def add(a): return 1", "exception", "raised TypeError"),
        ("def add(a, b): raise AssertionError('no')", "exception", "raised AssertionError: no"),
        (
            "class Odd(ValueError): pass\ndef add(a, b): raise Odd('x')",
            "exception",
            "raised Odd: x",
        ),
        ("def add(a, b): return add(a, b)", "exception", "raised RecursionError"),
        ("def add(a, b): return lambda: 3", "protocol", "a function cannot leave its process"),
        ("def add(a, b): return [0] * 10**12", "memory", "raised MemoryError"),
        ("def add(a, b): return 'x' * 10**8", "output", "bytes, more than"),
        ("def add(a, b):\n x = []\n x.append(x)\n return x", "output", "nested too deeply"),
    ],
)
def test_a_wrong_program_is_told_what_is_wrong(
    sandbox: Sandbox, program: str, reason: str, detail: str
) -> None:
    verdict = sandbox.judge(program, ADDS, "add")
    assert (verdict.passed, verdict.reason) == (False, reason), verdict
    assert detail in verdict.detail


@pytest.mark.parametrize(
    ("test", "why"),
    [
        ("", "defines no function `check"),
        ("check = 3", "defines no function `check"),
        ("def check(candidate)\n    pass", "test: SyntaxError"),
        ("def check(candidate):\n    candidate(len)", "an argument of add: a builtin_function"),
        ("def check(candidate):\n    candidate(object())", "an argument of add: a object"),
        ("def check(candidate):\n    candidate('x' * 5_000_000)", "arguments of 5000"),
    ],
)
def test_a_test_at_fault_is_no_wrong_answer(sandbox: Sandbox, test: str, why: str) -> None:
    with pytest.raises(ProblemError, match="cannot be judged") as caught:
        sandbox.judge("def add(*args): return 3", test, "add")
    assert why in str(caught.value)


def test_an_entry_point_named_check_cannot_be_judged(sandbox: Sandbox) -> None:
    with pytest.raises(ProblemError, match="the entry point has the name of the test"):
        sandbox.judge("def check(n): return n", "def check(c):\n    assert c(1) == 1", "check")


def test_a_test_that_never_calls_the_program_does_not_pass(sandbox: Sandbox) -> None:
    verdict = sandbox.judge("def f(): return 1", "def check(candidate):\n    pass", "f")
    assert (verdict.passed, verdict.reason) == (False, "protocol")
    assert "never called" in verdict.detail


def test_a_test_may_call_check_itself_and_use_the_name_of_the_function(sandbox: Sandbox) -> None:
    counted = "def check(candidate):\n    assert f() == {}\n    assert candidate is f\ncheck(f)\n"
    program = "count = 0\ndef f():\n    global count\n    count += 1\n    return count\n"
    assert sandbox.judge(program, counted.format(1), "f").passed
    assert not sandbox.judge(program, counted.format(2), "f").passed


def test_a_check_that_only_stands_under_a_condition_is_called_nevertheless(
    sandbox: Sandbox,
) -> None:
    test = (
        "assert f(0) == 0\ndef check(candidate):\n    assert candidate(1) == 2\n"
        "if __name__ == '__main__':\n    check(f)\n"
    )
    assert sandbox.judge("def f(n): return 2 * n", test, "f").passed
    assert sandbox.judge("def f(n): return n", test, "f").reason == "failed"


def test_an_assertion_whose_message_cannot_be_shown_has_failed(sandbox: Sandbox) -> None:
    test = "def check(candidate):\n    assert candidate(1) == 2, candidate(1)\n"
    verdict = sandbox.judge("def f(n): return 10 ** 5000", test, "f")
    assert verdict.reason == "failed"
    assert "line 2: assert candidate(1) == 2" in verdict.detail


def test_a_test_sees_what_the_program_does_to_its_arguments(sandbox: Sandbox) -> None:
    program = (
        "def f(a, b, *, c, d):\n    a.sort()\n    b.clear()\n    c.add(9)\n    d[0].append(1)\n"
    )
    test = (
        "def check(candidate):\n"
        "    a, b, c, d, e = [3, 1], {1: 2}, {7}, [[]], [5]\n"
        "    same = a\n"
        "    candidate(a, b, c=c, d=d)\n"
        "    assert (same, b, c, d) == ([1, 3], {}, {7, 9}, [[1]])\n"
    )
    verdict = sandbox.judge(program, test, "f")
    assert verdict.passed, verdict


def test_a_test_may_expect_a_builtin_exception(sandbox: Sandbox) -> None:
    test = (
        "def check(candidate):\n"
        "    try:\n        candidate(-1)\n"
        "    except ValueError as error:\n        assert str(error) == 'negative'\n"
        "    else:\n        assert False\n"
    )
    program = "class Own(ValueError): pass\ndef f(n):\n    raise {}('negative')\n"
    assert sandbox.judge(program.format("ValueError"), test, "f").passed
    assert sandbox.judge(program.format("Own"), test, "f").passed
    assert sandbox.judge(program.format("TypeError"), test, "f").reason == "exception"


HELPED = "def check(candidate):\n    assert math.floor(double(candidate(2))) == 8\n"
HELPER = "import math\ndef double(n): return 2 * n\ndef f(n): ...\n"


def test_a_test_may_use_functions_and_modules_of_the_program(sandbox: Sandbox) -> None:
    assert sandbox.judge(HELPER + "def f(n): return 4", HELPED, "f").passed
    assert sandbox.judge(HELPER + "def f(n): return 5", HELPED, "f").reason == "failed"
    missing = sandbox.judge("def f(n): return 4", HELPED, "f")
    assert (missing.reason, "NameError" in missing.detail) == ("exception", True)


def test_helpers_of_the_problem_go_before_those_of_the_program(sandbox: Sandbox) -> None:
    cheat = HELPER + "def double(n): return 8\ndef f(n): return 0"
    assert sandbox.judge(cheat, HELPED, "f").passed
    assert sandbox.judge(cheat, HELPED, "f", helpers=HELPER).reason == "failed"
    assert sandbox.judge("def f(n): return 4", HELPED, "f", helpers=HELPER).passed
    with pytest.raises(ProblemError, match="helpers"):
        sandbox.judge("def f(n): return 4", HELPED, "f", helpers="def (")


@pytest.mark.parametrize(
    "program",
    [
        "import threading\ndef f(n):\n    out = []\n    t = threading.Thread(target=out.append, "
        "args=(n,))\n    t.start()\n    t.join()\n    return out[0]",
        "import asyncio\nasync def g(n):\n    await asyncio.sleep(0.001)\n    return n\n"
        "def f(n): return asyncio.run(g(n))",
        "from concurrent.futures import ThreadPoolExecutor\ndef f(n):\n"
        "    with ThreadPoolExecutor(4) as pool:\n        return list(pool.map(abs, [n]))[0]",
        "import decimal, fractions, statistics, datetime, sqlite3, hashlib, json, uuid, zlib, bz2\n"
        "import unicodedata, xml.dom.minidom, email.message, dataclasses, enum, zoneinfo, ctypes\n"
        "def f(n): return json.loads(json.dumps(n))",
        "import time\nfrom time import *\ndef f(n):\n    sleep(0.001)\n    return n * (time() > 0)",
        "import random\ndef f(n):\n    print('x' * 100_000)\n    random.random()\n    return n",
        "from __future__ import annotations\nimport sys\n"
        "def f(n):\n    sys.stdout.flush()\n    sys.stderr.write('x')\n    return n",
    ],
)
def test_what_honest_programs_do_works(sandbox: Sandbox, program: str) -> None:
    verdict = sandbox.judge(program, "def check(c):\n    assert c(7) == 7", "f")
    assert verdict.passed, verdict


@pytest.mark.parametrize(
    ("limits", "program", "reason"),
    [
        (Limits(wall_s=0.7), "import time\ndef f(n): time.sleep(60)", "timeout"),
        (Limits(wall_s=0.7), "def f(n):\n    while True: pass", "timeout"),
        (Limits(wall_s=0.7), "while True: pass", "timeout"),
        (
            Limits(wall_s=0.7),
            "import time\ndef f(n):\n    time.sleep(0.2)\n    return n",
            "timeout",
        ),
        (Limits(cpu_s=1), "def f(n):\n    while True: pass", "timeout"),
        (Limits(memory_mib=100), "def f(n): return len(bytes(90 << 20))", "memory"),
        (Limits(memory_mib=100), "x = bytes(90 << 20)\ndef f(n): return n", "memory"),
        (Limits(depth=3), "def f(n): return [[[[]]]]", "output"),
        (Limits(items=9), "def f(n): return [0] * 10", "output"),
        (Limits(message_bytes=2000), "def f(n): return 'x' * 2000", "output"),
        (Limits(calls=4), "def f(n): return n", "protocol"),
    ],
)
def test_each_limit_holds(sandbox: Sandbox, limits: Limits, program: str, reason: str) -> None:
    test = "def check(c):\n    for n in range(9):\n        assert c(n) == n\n"
    verdict = sandbox.judge(program, test, "f", limits=limits)
    assert (verdict.passed, verdict.reason) == (False, reason), verdict
    assert verdict.wall_s < limits.wall_s + 2


def test_a_test_that_does_not_end_is_stopped(sandbox: Sandbox) -> None:
    test = "def check(candidate):\n    while candidate(): pass\n"
    verdict = sandbox.judge("def f(): return 1", test, "f", limits=Limits(wall_s=0.7))
    assert verdict.reason == "timeout"


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        ("wall_s", 0),
        ("wall_s", float("nan")),
        ("wall_s", "9"),
        ("memory_mib", 1.5),
        ("memory_mib", 3),
        ("threads", True),
        ("depth", 1000),
        ("message_bytes", 1 << 40),
    ],
)
def test_a_limit_that_cannot_be_held_is_refused(limit: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"Limits\.{limit}: expected an? (integer|number) in"):
        Limits(**{limit: value})


def test_many_programs_are_judged_at_once(containment: Containment) -> None:
    def judged(number: int) -> Verdict:
        program = f"def f(): return {number}"
        return sandbox.judge(program, f"def check(c):\n    assert c() == {number // 2 * 2}", "f")

    with Sandbox(containment=containment, at_once=4) as sandbox, ThreadPoolExecutor(12) as pool:
        verdicts = list(pool.map(judged, range(24)))
    assert [verdict.passed for verdict in verdicts] == [True, False] * 12


def test_programs_are_judged_from_asyncio(sandbox: Sandbox) -> None:
    async def both() -> list[Verdict]:
        tasks = [
            asyncio.to_thread(sandbox.judge, f"def add(a, b): return a {sign} b", ADDS, "add")
            for sign in "+-"
        ]
        return await asyncio.gather(*tasks)

    assert [verdict.passed for verdict in asyncio.run(both())] == [True, False]


def test_a_closed_sandbox_judges_nothing(containment: Containment) -> None:
    with Sandbox(containment=containment) as sandbox:
        assert sandbox.judge("def add(a, b): return 3", ADDS, "add").passed
    with pytest.raises(SandboxError, match="closed"):
        sandbox.judge("def add(a, b): return 3", ADDS, "add")
    sandbox.close()


def judged_reference(sandbox: Sandbox, task: dict[str, str], helpers: bool) -> Verdict | str:
    try:
        return sandbox.judge(
            task["prompt"] + task["canonical_solution"],
            task["test"],
            task["entry_point"],
            helpers=task["prompt"] if helpers else None,
        )
    except ProblemError as error:
        return str(error)


def failures(sandbox: Sandbox, tasks: list[dict[str, str]], helpers: bool) -> dict[str, str]:
    with ThreadPoolExecutor(2) as pool:
        verdicts = list(pool.map(lambda task: judged_reference(sandbox, task, helpers), tasks))
    return {
        task["task_id"]: verdict if isinstance(verdict, str) else verdict.reason
        for task, verdict in zip(tasks, verdicts, strict=True)
        if isinstance(verdict, str) or not verdict.passed
    }


def human_eval() -> list[dict[str, str]]:
    path = SHARED / "HumanEval.jsonl.gz"
    if not path.exists():
        pytest.skip(f"no {path}")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_the_reference_solutions_of_humaneval_pass(sandbox: Sandbox) -> None:
    tasks = human_eval()
    if sandbox.containment.kind == "bubblewrap":  # slower: the others are in the slow test
        tasks = tasks[::16] + [tasks[n] for n in (32, 38, 50)]
    assert failures(sandbox, tasks, False) == {}


@pytest.mark.slow
@pytest.mark.parametrize("helpers", [False, True])
def test_all_reference_solutions_of_humaneval_pass(sandbox: Sandbox, helpers: bool) -> None:
    tasks = human_eval()
    assert len(tasks) == 164
    assert failures(sandbox, tasks, helpers) == {}


@pytest.mark.slow
def test_the_reference_solutions_of_mbpp_pass_but_for_its_known_faults(sandbox: Sandbox) -> None:
    path = SHARED / "mbpp_test.jsonl"
    if not path.exists():
        pytest.skip(f"no {path}")
    tasks = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    failed = failures(sandbox, tasks, False)
    assert sorted(failed) == ["MBPP/349", "MBPP/367", "MBPP/436", "MBPP/56"], failed
