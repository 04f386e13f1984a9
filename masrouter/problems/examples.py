"""The examples that a programming question itself shows, run against the code in an answer.

Read from the query alone: a team may test its own work on what everybody can see, and hidden tests
stay hidden. Two forms are taken, and only with literals on both sides:

    >>> median([3, 1, 2])          median([3, 1, 2]) == 2
    2                              also with ==>, =>, ->, ➞, `returns`, `should return`
"""

from __future__ import annotations

import ast
import asyncio
import re
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from masrouter.answers import extract_code
from masrouter.answers.syntax import definitions, parse
from masrouter.errors import ProblemError
from masrouter.problems.programs import whole_program
from masrouter.topologies.team import ExampleReport

if TYPE_CHECKING:
    from masrouter.sandbox import Sandbox

MAX_EXAMPLES = 20
_LONGEST = 2000

_FIRST_LINE = re.compile(r"^[ \t]*(?:async[ \t]+)?def[ \t]", re.MULTILINE)
_ARROW = re.compile(
    r"[ \t]*(?:#[ \t]*)?(?:==>|=>|==|->|➞|→|returns\b|should return\b)[ \t]*(.+)", re.MULTILINE
)
_WORDS = {"true": "True", "false": "False", "null": "None", "none": "None"}

_CHECK = """
def same(got, expected):
    if isinstance(expected, float) and isinstance(got, (int, float)):
        return abs(got - expected) <= 1e-6 * max(1.0, abs(expected))
    if isinstance(expected, (list, tuple)) and type(got) is type(expected):
        return len(got) == len(expected) and all(map(same, got, expected))
    return got == expected


def check(candidate):
    wrong = []
    for call, args, kwargs, expected in EXAMPLES:
        try:
            got = candidate(*args, **kwargs)
        except Exception as error:
            wrong.append(f"{call}: expected {expected!r}, got {type(error).__name__}: {error}")
        else:
            if not same(got, expected):
                wrong.append(f"{call}: expected {expected!r}, got {got!r}")
    assert not wrong, "\\n".join(wrong) + "\\n"
"""


@dataclass(frozen=True, slots=True)
class Example:
    """One call that a query shows, with its result."""

    call: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    expected: Any


def shown_examples(query: str) -> tuple[str, tuple[Example, ...]] | None:
    """The function that a query asks for and the examples of it; None where there are none.

    The function is the last one that the query begins.
    """
    entry_point = _asked_for(query)
    if entry_point is None:
        return None
    found: dict[str, Example] = {}
    for match in re.finditer(rf"(?<![\w.]){re.escape(entry_point)}\(", query):
        example = _example(query, match.start(), entry_point)
        if example is not None and len(found) < MAX_EXAMPLES:
            found.setdefault(example.call, example)
    return (entry_point, tuple(found.values())) if found else None


@dataclass(frozen=True, slots=True)
class ShownExamples:
    """Runs what a query shows, for topologies that test; knows nothing of hidden tests."""

    sandbox: Sandbox

    async def report(self, query: str, answer: str) -> ExampleReport | None:
        """How the code in `answer` does on the query's examples; None where it shows none."""
        # A thread of its own, not of the loop's pool: for that one a loop waits when it ends, and a
        # run whose time is over would last as long as the program that it no longer waits for.
        found: Future[ExampleReport | None] = Future()

        def work() -> None:
            if found.set_running_or_notify_cancel():
                try:
                    found.set_result(self._report(query, answer))
                except BaseException as error:
                    found.set_exception(error)

        threading.Thread(target=work, name="shown examples", daemon=True).start()
        return await asyncio.wrap_future(found)

    def _report(self, query: str, answer: str) -> ExampleReport | None:
        shown = shown_examples(query)
        if shown is None:
            return None
        entry_point, examples = shown
        code = extract_code(answer, entry_point)
        program = whole_program(code, query, entry_point) if code is not None else None
        if program is None:
            return ExampleReport(False, f"The answer has no program that defines {entry_point}.")
        rows = [(e.call, e.args, e.kwargs, e.expected) for e in examples]
        test = f"EXAMPLES = {rows!r}\n{_CHECK}"
        try:
            verdict = self.sandbox.judge(program, test, entry_point)
        except ProblemError:  # an argument nested too deeply: no example that can be run
            return None
        if verdict.passed:
            return ExampleReport(True, f"All {len(rows)} examples of the question pass.")
        if verdict.reason == "failed":
            # Behind the message the sandbox names the line of the test, which tells nothing here.
            return ExampleReport(False, verdict.detail.rsplit("\n", 1)[0])
        return ExampleReport(False, f"{verdict.reason}: {verdict.detail}")


def _asked_for(query: str) -> str | None:
    """The name of the last function that the query begins, with its body to be written."""
    first = _FIRST_LINE.search(query)
    for start in (0, first.start()) if first else ():
        tree = parse(query[start:]) or parse(query[start:].rstrip() + "\n    pass\n")
        if tree is not None and (found := definitions(tree)):
            return found[-1].name
    return None


def _example(query: str, at: int, entry_point: str) -> Example | None:
    line_start = query.rfind("\n", 0, at) + 1
    before = query[line_start:at].strip()
    end = _call_end(query, at)
    if end is None or before.startswith(("def ", "async ")):
        return None
    call = query[at:end]
    arguments = _arguments(call, entry_point)
    if arguments is None:
        return None
    expected = next(_expected(query, before, end), None)
    return None if expected is None else Example(" ".join(call.split()), *arguments, expected[0])


def _call_end(query: str, at: int) -> int | None:
    """Where the call that begins at `at` ends: at the first bracket at which it parses."""
    for match in re.finditer(r"\)", query[at : at + _LONGEST]):
        if parse(query[at : at + match.end()]) is not None:
            return at + match.end()
    return None


def _arguments(call: str, entry_point: str) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    tree = parse(call)
    node = tree.body[0] if tree is not None and len(tree.body) == 1 else None
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call):
        return None
    made = node.value
    if not isinstance(made.func, ast.Name) or made.func.id != entry_point:
        return None
    try:
        args = tuple(_read(arg) for arg in made.args)
        kwargs = {key.arg: _read(key.value) for key in made.keywords if key.arg}
    except (ValueError, TypeError, RecursionError, MemoryError):
        return None
    return (args, kwargs) if len(kwargs) == len(made.keywords) else None


def _expected(query: str, before: str, end: int) -> Iterator[tuple[Any]]:
    """The literal that follows a call, in a tuple of one since it may be None."""
    rest, *following = query[end : end + _LONGEST].split("\n")
    if before == ">>>" and not rest.strip():
        yield from _literal(_until_blank(following))
    elif match := _ARROW.match(query, end):
        said = match[1].strip()
        yield from _literal(said.removesuffix("."))


def _until_blank(lines: list[str]) -> str:
    kept: list[str] = []
    for line in lines:
        if not line.strip() or line.strip().startswith((">>>", '"""', "'''")):
            break
        kept.append(line.strip().removesuffix('"""').removesuffix("'''"))
    return "\n".join(kept)


def _literal(text: str) -> Iterator[tuple[Any]]:
    tree = parse(_WORDS.get(text, text))
    node = tree.body[0] if tree is not None and len(tree.body) == 1 else None
    if isinstance(node, ast.Expr):
        try:
            yield (_read(node.value),)
        except (ValueError, TypeError, RecursionError, MemoryError):
            return


def _read(node: ast.expr) -> Any:
    """A literal's value; ValueError also where it cannot be written again (1e999 is `inf`)."""
    value = ast.literal_eval(node)
    ast.literal_eval(repr(value))
    return value
