"""Files that a collection of `masrouter deliberate` goes on with: locked, resumed, told of."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Generic, Protocol, TypeVar

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from masrouter.delegation.calibration.collecting import Label
from masrouter.delegation.calibration.gaps import Gap
from masrouter.delegation.tasks import Grade, Grading, Task, TaskResult
from masrouter.errors import ConfigError, LogError
from masrouter.logs.lines import BadLine, parse_line
from masrouter.printable import printable
from masrouter.problems import CodeTests, Problem
from masrouter.sandbox import Sandbox


class Kept(Protocol):
    """A query of a file."""

    @property
    def query_id(self) -> str:
        """Its task's id."""

    @property
    def query(self) -> str:
        """Its task's goal."""


Query = TypeVar("Query", bound=Kept)


def setting_path(out: Path) -> Path:
    """Where it stands how a file of samples was made."""
    return out.with_name(f"{out.name}.setting.json")


def file_digest(path: Path | None) -> str | None:
    """Which file it is, by what stands in it: a name in it may lead elsewhere another time."""
    if path is None:
        return None
    try:
        return f"sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error


@contextlib.contextmanager
def going_on(
    out: Path,
    setting: Mapping[str, Any],
    read: Callable[[Path], tuple[Query, ...]],
    line: Callable[[Query], bytes],
) -> Iterator[tuple[tuple[Query, ...], Callable[[Query], None]]]:
    """The queries that an earlier run of the same setting left in a file, and how to add to them.

    read, line: of such a file, and of a query that is added to it.
    A new file is begun with its setting beside it, and both are gone again where nothing came. A
    last line that was cut off in the middle is taken off the file, and said. Raises ConfigError for
    a file that was made otherwise, of which nothing says how, or on which another run is at work,
    LogError for a damaged one and for one that cannot be written.
    """
    try:
        file = out.open("a+b")
    except OSError as error:
        raise _unwritable(out, error) from error
    with file:
        _lock(file, out)
        try:
            there = _kept(file, out, setting)
            yield read(out) if there else (), lambda query: _add(file, out, line(query))
        finally:
            if not out.stat().st_size:
                out.unlink()
                setting_path(out).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Collecting(Generic[Query]):
    """What is left to be run for a file, and where it goes."""

    tasks: Sequence[Task]
    labels: Mapping[str, Label]
    """By the ids of the tasks, where they have any."""
    keep: Callable[[Query], None]
    failures: list[TaskResult]
    """Calls that failed, for the end to tell of."""


@contextlib.contextmanager
def collecting(
    out: Path,
    setting: Mapping[str, Any],
    read: Callable[[Path], tuple[Query, ...]],
    line: Callable[[Query], bytes],
    *,
    problems: Sequence[Problem],
    cut: Mapping[str, Gap],
    failed: str = "count as wrong answers",
) -> Iterator[Collecting[Query]]:
    """A file that is gone on with (see `going_on`), with progress, and an end that says how it is.

    failed: what becomes of calls that fail.
    """
    with contextlib.ExitStack() as stack:
        kept, write = stack.enter_context(going_on(out, setting, read, line))
        programs = any(isinstance(problem.grader, CodeTests) for problem in problems)
        sandbox = stack.enter_context(Sandbox()) if programs else None
        wanted, labels = problem_tasks(problems, cut, sandbox)
        tasks = tasks_left(wanted, kept, out)
        left = {str(task.id) for task in tasks}
        done = len(wanted) - len(tasks)
        advance = stack.enter_context(progress(len(wanted), done))
        added = 0
        failures: list[TaskResult] = []

        def keep(query: Query) -> None:
            nonlocal added
            write(query)
            added += 1
            advance()

        labels = {name: label for name, label in labels.items() if name in left}
        try:
            yield Collecting(tasks, labels, keep, failures)
        finally:
            tell_end(out, len(wanted), done, added)
            tell_failures(failures, failed)


def _lock(file: BinaryIO, out: Path) -> None:
    """Held until the file is closed, however the process ends: two runs would pay for one query
    twice, and leave a file in which it stands twice."""
    import fcntl  # Unix alone, as are collecting and the sandbox

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(f"--out: another run is at work on {out}; give another name") from None
    except OSError as error:
        raise ConfigError(
            f"--out: {out} cannot be locked ({error.strerror}); collect into a local folder"
        ) from error
    # Another run may have taken away what it had begun, in between.
    if not out.exists() or not os.path.samestat(os.fstat(file.fileno()), out.stat()):
        raise ConfigError(f"--out: another run was at work on {out}; try again")


def _kept(file: BinaryIO, out: Path, setting: Mapping[str, Any]) -> bool:
    """Whether whole lines stand in a file of this setting; of an empty one it is written."""
    file.seek(0)
    data = file.read()
    if not data:
        _write_setting(out, setting)
        return False
    _check_setting(out, setting)
    if torn := len(data) - (data.rfind(b"\n") + 1):
        file.truncate(len(data) - torn)
        typer.echo(f"note: {out}: a last line that was cut off is taken away", err=True)
    return b"\n" in data


def _check_setting(out: Path, setting: Mapping[str, Any]) -> None:
    path = setting_path(out)
    try:
        before = parse_line(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(
            f"--out: {out} exists already, and {path} is not there to say how it was made; give "
            "another name"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except BadLine as bad:
        raise ConfigError(f"{path}: {bad}; give --out another name") from None
    for name, value in setting.items():
        if before.get(name) != value:
            raise ConfigError(
                f"--out: {out} was made with {name} = {printable(repr(before.get(name)))}, and now "
                f"it is {value!r}; give another name, or ask for the same"
            )


def _add(file: BinaryIO, out: Path, line: bytes) -> None:
    try:
        file.write(line)
        file.flush()
    except OSError as error:
        raise _unwritable(out, error) from error


def _unwritable(path: Path, error: OSError) -> LogError:
    return LogError(f"{path}: cannot be written: {error.strerror or error}")


def _write_setting(out: Path, setting: Mapping[str, Any]) -> None:
    path = setting_path(out)
    try:
        path.write_text(json.dumps(setting, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, error) from error


@contextlib.contextmanager
def progress(total: int, done: int) -> Iterator[Callable[[], None]]:
    """A bar on standard error, a step for each call; where that is no terminal, a line a tenth."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines_of_progress(total, done)
        return
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    ) as bar:
        queries = bar.add_task("queries", total=total, completed=done)
        yield lambda: bar.advance(queries)


def _lines_of_progress(total: int, done: int) -> Callable[[], None]:
    count = done

    def step() -> None:
        nonlocal count
        count += 1
        if count * 10 // total > (count - 1) * 10 // total:
            typer.echo(f"{count} of {total} queries", err=True)

    return step


def problem_tasks(
    problems: Sequence[Problem], cut: Mapping[str, Gap], sandbox: Sandbox | None
) -> tuple[list[Task], dict[str, Label]]:
    """Each problem, and behind it its form with a gap; with labels by task id where some have."""
    tasks: list[Task] = []
    labels: dict[str, Label] = {}
    for problem in problems:
        name, grade = problem.problem_id, grade_of(problem, sandbox)
        tasks.append(Task(problem.query, id=name, kind=problem.task, grade=grade))
        if cut:
            labels[name] = Label(False, name)
        if name in cut:
            gapped = f"{name}-gap"
            tasks.append(Task(cut[name].query, id=gapped, kind=problem.task, grade=grade))
            labels[gapped] = Label(True, name)
    return tasks, labels


def tasks_left(wanted: Sequence[Task], kept: Sequence[Kept], out: Path) -> list[Task]:
    """The tasks that are not in the file yet; raises ConfigError where one has changed since."""
    texts = {query.query_id: query.query for query in kept}
    for task in wanted:
        if texts.get(str(task.id), task.goal) != task.goal:
            raise ConfigError(
                f"--problems: {task.id!r} has another text than in {out}; give --out another name"
            )
    return [task for task in wanted if task.id not in texts]


def tell_end(out: Path, wanted: int, before: int, added: int) -> None:
    """How far a file has come, and how to go on."""
    if not before + added:
        return
    kept = f", {before} of which were there" if before else ""
    typer.echo(f"{out}: {before + added} of {wanted} queries{kept}", err=True)
    if before + added < wanted:
        typer.echo("run the same command again to go on", err=True)


def tell_failures(failures: Sequence[TaskResult], as_what: str = "count as wrong answers") -> None:
    """A failed call counts as a wrong answer, which it is not where a provider was down."""
    if failures:
        first = failures[0].error
        assert first is not None
        typer.echo(
            f"warning: {len(failures)} calls failed and {as_what}; the first: "
            f"{printable(first.message)}",
            err=True,
        )


def grade_of(problem: Problem, sandbox: Sandbox | None) -> Grade:
    """The problem's grader, as a task takes it."""

    def grade(answer: str) -> Grading:
        found = problem.grader.grade(answer, sandbox)
        return Grading(found.score, found.source)

    return grade
