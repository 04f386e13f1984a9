"""The judge's part: run a problem's test against a proxy of the program. Never loads the program.

All that the worker sends is checked here; what breaks the rules ends the judgement at once, where
no `except` of the test can catch it. The test's text is contained as well, but it is believed: it
comes from the problem. Its verdict goes to the supervisor as one line of JSON.
"""

from __future__ import annotations

import ast
import builtins
import json
import linecache
import os
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType
from typing import Any, NoReturn

from masrouter.sandbox.channel import ChannelClosed, MessageTooLarge, read_message, write_message
from masrouter.sandbox.confinement import Confinement, confine
from masrouter.sandbox.contained import compiled, import_standard, run
from masrouter.sandbox.values import (
    BadMessage,
    ValueRefused,
    dump,
    load,
    pack,
    unpack,
    unpack_exception,
)

_TEST, _HELPERS = "<test>", "<helpers>"
_DETAIL = 2000
STARTED = b"+"
"""Stands before the verdict once the judge is confined."""


@dataclass(frozen=True, slots=True)
class JudgeTask:
    """Channels and caps of a judge."""

    confinement: Confinement
    request: int
    """Holds {"program", "test", "entry_point", "helpers"} until its end."""
    verdict: int
    reads: int
    writes: int
    message_bytes: int
    depth: int
    items: int
    calls: int


def judge(task: JudgeTask) -> NoReturn:
    """Write one verdict and end."""
    court = _Court(task)
    try:
        confine(task.confinement)
    except OSError as error:
        court.finish("unconfined", str(error))
    os.write(task.verdict, STARTED)
    try:
        court.hold(json.loads(_read_all(task.request)))
    except MemoryError:
        court.finish("memory", "the test ran out of memory")


def _read_all(descriptor: int) -> bytes:
    parts = []
    while part := os.read(descriptor, 1 << 16):
        parts.append(part)
    return b"".join(parts)


class _Court:
    """One judgement: the worker's channel, what was raised last, and the verdict."""

    def __init__(self, task: JudgeTask) -> None:
        self.task = task
        self.caps = {"depth": task.depth, "items": task.items}
        self.calls = 0
        self.raised: BaseException | None = None
        self.own_name = ""

    def finish(self, reason: str, detail: str) -> NoReturn:
        """End this process with a verdict: a `Reason`, "unconfined" or "bad problem"."""
        line = json.dumps({"reason": reason, "detail": detail[:_DETAIL]}).encode("ascii")
        os.write(self.task.verdict, line + b"\n")
        os._exit(0)

    def hold(self, request: dict[str, Any]) -> NoReturn:
        entry_point = request["entry_point"]
        if entry_point == "check":
            self.finish("bad problem", "the entry point has the name of the test, `check`")
        test = self.parse(request["test"], _TEST)
        namespace: dict[str, Any] = {"__name__": "__test__"}
        trusted: set[str] = set()
        if request["helpers"] is not None:
            self.execute(self.parse(request["helpers"], _HELPERS), namespace, "the helpers")
            trusted = set(namespace)
        offered = self.start(request["program"])
        if entry_point not in offered["callables"]:
            self.finish("exception", f"NameError: the program defines no function {entry_point!r}")
        used = _names(test)
        self.offer(namespace, offered, used - trusted - {"check"})
        proxy = self.proxy(entry_point)
        namespace |= {"candidate": proxy, entry_point: proxy}
        linecache.cache[_TEST] = (0, None, request["test"].splitlines(keepends=True), _TEST)
        self.execute(test, namespace)
        check = namespace.get("check")
        if check is None or check is proxy or not callable(check):
            self.finish("bad problem", "the test defines no function `check(candidate)`")
        if not (self.calls and _calls_check(request["test"])):
            self.execute(lambda: check(proxy))
        if not self.calls:
            self.finish("protocol", "the test never called the program")
        self.finish("passed", "")

    def parse(self, source: str, filename: str) -> CodeType:
        try:
            return compiled(source, filename)
        except (SyntaxError, ValueError, RecursionError) as error:
            self.finish("bad problem", f"{filename[1:-1]}: {type(error).__name__}: {error}")

    def execute(
        self,
        code: CodeType | Callable[[], object],
        namespace: dict[str, Any] | None = None,
        what: str = "",
    ) -> None:
        """Run a text or call a function; whatever it raises ends the judgement."""
        try:
            if isinstance(code, CodeType):
                run(code, {} if namespace is None else namespace)
            else:
                code()
        except BaseException as error:
            text = _text_of(error)
            said = f"{type(error).__name__}: {text}"
            if what:
                self.finish("bad problem", f"{what} raised {said}")
            where = _line_of(error)
            if error is self.raised:
                reason = "memory" if isinstance(error, MemoryError) else "exception"
                self.finish(reason, f"the program raised {self.own_name}: {text}{where}")
            if isinstance(error, MemoryError):
                self.finish("memory", f"the test ran out of memory{where}")
            if isinstance(error, AssertionError):
                self.finish("failed", f"{text}{where}".removeprefix("; "))
            self.finish("exception", f"the test raised {said}{where}")

    def start(self, program: str) -> dict[str, Any]:
        """Hand the program to the worker; its names that the test may use."""
        first = self.receive(if_gone="unconfined")
        if first != {"ready": True}:
            self.finish("unconfined", str(first.get("unconfined")))
        self.send({"program": program})
        offered = self.receive()
        if "raised" in offered:
            raised = self.exception(offered["raised"])
            reason = "memory" if isinstance(raised, MemoryError) else "exception"
            self.finish(reason, f"the program could not be loaded: {self.own_name}: {raised}")
        names = (offered.get("callables"), offered.get("modules"))
        if not all(type(some) is list and all(type(n) is str for n in some) for some in names):
            self.finish("protocol", "the program's process sent no list of names")
        return offered

    def offer(self, namespace: dict[str, Any], offered: dict[str, Any], used: set[str]) -> None:
        """Functions and modules of the program that the test uses but cannot have by itself.

        A function stays in the worker. A module is imported here, from the standard library. A
        builtin's name is never given to the program.
        """
        wanted = {name for name in used - set(dir(builtins)) if not name.startswith("__")}
        for name in wanted & set(offered["modules"]) & sys.stdlib_module_names:
            namespace[name] = import_standard(name)
        for name in wanted & set(offered["callables"]):
            namespace[name] = self.proxy(name)

    def proxy(self, name: str) -> Callable[..., Any]:
        def candidate(*args: Any, **kwargs: Any) -> Any:
            return self.call(name, args, kwargs)

        return candidate

    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call of a function of the program."""
        self.calls += 1
        if self.calls > self.task.calls:
            self.finish("protocol", f"more than {self.task.calls} calls")
        try:
            message = {
                "id": self.calls,
                "name": name,
                "args": [pack(value, **self.caps) for value in args],
                "kwargs": {key: pack(value, **self.caps) for key, value in kwargs.items()},
            }
        except ValueRefused as refused:
            self.finish("bad problem", f"an argument of {name}: {refused.why}")
        self.send(message)
        reply = self.receive()
        if reply.get("id") != self.calls:
            self.finish("protocol", "the program's process answered another call")
        if "refused" in reply:
            self.refuse(reply["refused"])
        if "raised" in reply:
            self.raised = self.exception(reply["raised"])
            raise self.raised
        try:
            given: dict[str, Any] = {**{str(i): v for i, v in enumerate(args)}, **kwargs}
            for key, packed in dict(reply["changed"]).items():
                _change(given[key], unpack(packed, **self.caps))
            return unpack(reply["value"], **self.caps)
        except ValueRefused as refused:
            self.finish(refused.reason, f"a result of {name}: {refused.why}")
        except (BadMessage, KeyError, TypeError, ValueError) as error:
            self.finish("protocol", f"a result of {name}: {error}")

    def send(self, message: dict[str, Any]) -> None:
        data = dump(message)
        if "id" in message and len(data) > self.task.message_bytes:
            self.finish("bad problem", f"arguments of {len(data)} bytes")
        try:
            write_message(self.task.writes, data)
        except ChannelClosed:
            self.finish("crashed", "the program's process ended")

    def receive(self, if_gone: str = "crashed") -> dict[str, Any]:
        try:
            message = load(read_message(self.task.reads, self.task.message_bytes + 4096))
        except ChannelClosed:
            self.finish(if_gone, "the program's process ended")
        except MessageTooLarge as error:
            self.finish("output", f"a result of {error}")
        except BadMessage as error:
            self.finish("protocol", str(error))
        if type(message) is not dict:
            self.finish("protocol", "the program's process sent no message")
        return message

    def exception(self, packed: Any) -> BaseException:
        try:
            raised = unpack_exception(packed)
        except BadMessage as error:
            self.finish("protocol", str(error))
        self.own_name = packed[2]
        return raised

    def refuse(self, refused: Any) -> NoReturn:
        if type(refused) is not list or [type(part) for part in refused] != [str, str]:
            self.finish("protocol", "a badly formed refusal")
        reason = refused[0] if refused[0] == "output" else "protocol"
        self.finish(reason, f"a result of the program: {refused[1]}")


def _change(value: Any, to: Any) -> None:
    """Make a container what the program made of it."""
    if type(value) is not type(to) or type(value) not in (list, dict, set, bytearray, deque):
        raise BadMessage("changed an argument that cannot change")
    value.clear()
    if isinstance(value, (dict, set)):
        value.update(to)
    else:
        value.extend(to)


def _names(code: CodeType) -> set[str]:
    """Every name that a text uses of its globals, and some more."""
    inner = (_names(part) for part in code.co_consts if isinstance(part, CodeType))
    return set(code.co_names).union(*inner)


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except ValueError:  # of a result in it: an integer of too many digits
        return f"(a message that cannot be shown: {type(error.args[0]).__name__})"


def _calls_check(test: str) -> bool:
    """Whether the text itself calls `check`, outside of functions and conditions."""
    skipped = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.If)
    return any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "check"
        for statement in ast.parse(test).body
        if not isinstance(statement, skipped)
        for node in ast.walk(statement)
    )


def _line_of(error: BaseException) -> str:
    """The line of the test that an exception came through last."""
    number, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == _TEST:
            number = trace.tb_lineno
        trace = trace.tb_next
    return f"; line {number}: {linecache.getline(_TEST, number).strip()}" if number else ""
