"""What `masrouter deliberate` asks, keeps and shows: tasks, files that are gone on with, tables."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

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
from rich.table import Table

from masrouter.delegation.calibration.agreement import Calibration, Row
from masrouter.delegation.calibration.asking import AskingCalibration
from masrouter.delegation.calibration.collecting import Label
from masrouter.delegation.calibration.compared import Against, Compared
from masrouter.delegation.calibration.gaps import Gap
from masrouter.delegation.calibration.measuring import Measured
from masrouter.delegation.deliberation.agreement import Rule
from masrouter.delegation.tasks import Grade, Grading, Task, TaskResult
from masrouter.errors import ConfigError, LogError
from masrouter.logs.lines import BadLine, parse_line
from masrouter.printable import printable
from masrouter.problems import Problem
from masrouter.sandbox import Sandbox

Query = TypeVar("Query")
_MEANS = {
    "whole": "the best that delegates the whole task",
    "step": "the best that delegates the step alone",
    "always": "the strong worker",
    "never": "one cheap sample",
    "length": "the strong worker from so many characters on",
    "vote": "the samples' most frequent answer, never delegated",
    "coin": "always or never at random, at deliberate's cost",
    "short": "asks below so many characters",
    "answered": "as ask, where every question is answered",
}
"""What the rows of the tables are."""
_WIDTH = 170
"""Columns that the tables need; a narrower terminal wraps them."""


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


class Kept(Protocol):
    """A query of a file."""

    @property
    def query_id(self) -> str:
        """Its task's id."""

    @property
    def query(self) -> str:
        """Its task's goal."""


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


def print_deliberating(found: Calibration) -> None:
    """What deliberating gives against the plain policies, and what was chosen."""
    steps = any(row.handed for row in found.rows)
    table = compared_table(
        found.rows,
        savings(found.against),
        unit="query",
        shares={"delegated": "delegated", **({"a step": "handed"} if steps else {})},
        last=("deliberate scores more", "and saves"),
    )
    console = wide_console()
    console.print(table)
    length = found.length
    characters = "never delegates" if length is None else f"from {length} characters"
    by_fold = ", ".join(map(rule_text, found.chosen))
    rule = found.rule
    whose = "the task" if rule.at == "task" else "the step"
    alike = "" if rule.at == "task" else f" (alike from {rule.alike:g})"
    console.print(
        f"chosen on all {found.queries} queries: {rule.needed} of {rule.samples} samples must "
        f"agree, else {whose} is delegated{alike} (by fold: {by_fold}); length: {characters}. "
        "95 % intervals over queries, each judged by a choice made without it.\n"
        f"{_legend(found.rows)}",
        soft_wrap=True,
    )


def print_asking(found: AskingCalibration, *, checked: bool) -> None:
    """What asking first gives against the plain policies, and what was chosen.

    checked: every query of the log has the cheap model's own word on what is missing.
    """
    table = compared_table(
        found.rows,
        savings(found.against),
        unit="query",
        shares={"delegated": "delegated", "asked": "asked"},
        last=("asking scores more", "and saves"),
    )
    if "model" in found.rule.weights:
        word = "is worth its price"
    elif checked:
        word = "is not worth its price here"
    else:
        word = "was not logged for every query: collect --check logs it"
    console = wide_console()
    judged = "with its questions answered" if found.answered else "which scores nothing"
    console.print(f"\nMissing information: asking first, {judged}, against answering")
    console.print(table)
    weighed = ", ".join(f"{kind} {weight:.2f}" for kind, weight in found.rule.weights.items())
    console.print(
        f"chosen on all queries, {found.lacking} of which are known to lack something and "
        f"{found.whole} nothing: ask from a score of {found.rule.threshold:.2f} on (by fold: "
        f"{', '.join(f'{rule.threshold:.2f}' for rule in found.chosen)}), signals {weighed}; "
        f"precision {told(found.precision, '.2f')}, recall {told(found.recall, '.2f')}. "
        "How is deliberated was chosen on all of them, the same for ask, deliberate and short. "
        f"A model's own word {word}.\n{_legend(found.rows)}",
        soft_wrap=True,
    )


def rule_text(rule: Rule) -> str:
    """`2 of 3`, and where it delegates the step alone `2 of 3 at the step (alike from 0.5)`."""
    text = f"{rule.needed} of {rule.samples}"
    return text if rule.at == "task" else f"{text} at the step (alike from {rule.alike:g})"


def told(measured: Measured, form: str) -> str:
    """A mean with its interval; a dash where nothing could be measured."""
    low, high = measured.interval.low, measured.interval.high
    if math.isnan(measured.mean):
        return "-"
    return f"{measured.mean:{form}} ({low:{form}} to {high:{form}})"


def told_saving(saved: Measured) -> str:
    """A share of the other's cost that is saved; as its multiple where more than it is spent."""
    if not saved.mean < -0.005:  # less would be told as 1.00x, which says nothing
        return told(saved, "z.1%")
    form = ".2f" if saved.mean > -1 else ".1f"
    mean, high, low = (1 - x for x in (saved.mean, saved.interval.low, saved.interval.high))
    return f"costs {mean:{form}}x ({low:{form}}x to {high:{form}}x)"


def _legend(rows: Sequence[Row]) -> str:
    return "; ".join(f"{row.name}: {_MEANS[row.name]}" for row in rows if row.name in _MEANS)


def compared_table(
    rows: Sequence[Compared],
    beside: Mapping[str, tuple[str, str]],
    *,
    unit: str,
    shares: Mapping[str, str],
    last: tuple[str, str],
    meanings: Mapping[str, str] | None = None,
) -> Table:
    """Ways of working, one a row.

    unit: what a cost is of. shares: by column, the field of a row that it shows. last: the columns
    of what is `beside`, by the names of rows; a row that is not there is what was chosen.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column("rule")
    for name in ("score", f"US$ a {unit}", *shares, *last):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.name if meanings is None else meanings[row.name],
            told(row.score, ".3f"),
            told(row.cost_usd, ".6f"),
            *(f"{getattr(row, share):.1%}" for share in shares.values()),
            *beside.get(row.name, ("", "")),
        )
    return table


def savings(against: Sequence[Against]) -> dict[str, tuple[str, str]]:
    """By name: how much more is scored, and what is saved."""
    return {one.name: (told(one.score, "+z.3f"), told_saving(one.cost_saved)) for one in against}


def wide_console() -> Console:
    """Wide enough for such a table, also where nobody looks at it."""
    return Console(highlight=False, width=max(Console().width, _WIDTH))
