"""What `masrouter delegate` shows of its tasks while they run, and what is left of them at the end:
a table, a file of results, also where Ctrl-C ended it.

Progress goes to standard error: a live table on a terminal, elsewhere a line for each task that
begins or ends. All text of models and tasks is shown without escape sequences.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from masrouter.delegation.delegator import Delegator
from masrouter.delegation.naming.names import Names
from masrouter.delegation.tasks import (
    DelegationError,
    OnTaskEvent,
    TaskEnded,
    TaskEvent,
    TaskResult,
    TaskRouted,
    TaskStarted,
    TaskWorking,
)
from masrouter.errors import ConfigError, MasRouterError
from masrouter.execution.events import CallEnded, CallStarted
from masrouter.execution.ledger import total_usage
from masrouter.hosts.choosing import ONE_CALL
from masrouter.printable import on_one_line, printable
from masrouter.types import Plan, Usage

State = Literal["waiting", "working", "done", "failed", "cancelled"]

_STYLES: dict[State, str] = {
    "waiting": "dim",
    "working": "cyan",
    "done": "green",
    "failed": "red",
    "cancelled": "yellow",
}
_NUMBERS = 36
"""Columns that cost, time, score and the gaps take."""
_LIVE_NUMBERS = 44
"""Columns that all but task and model take while it runs."""
_MOST_RESULT = 160
"""Characters of an answer in the table, on one line as wide as it can be; errors are whole."""
_SHORT_RESULT = 60
"""An answer of up to so many characters is shown whole, of a longer one the last line."""
_AROUND = 6
"""Lines of a terminal that are not rows: heads, totals, the prompt."""


@dataclass
class Row:
    """A task as it is known from its events."""

    id: str
    goal: str
    state: State = "waiting"
    model: str = ""
    """Who is to do it; once it is done, who did."""
    calls: int = 0
    """Sent so far."""
    billed: list[Usage] = field(default_factory=list)
    """Of calls that ended."""
    started: float | None = None
    ended: float | None = None
    result: TaskResult | None = None

    @property
    def usage(self) -> Usage:
        """What it took so far."""
        return total_usage(self.billed) if self.result is None else self.result.usage

    def seconds(self, now: float) -> float | None:
        """How long it has been worked on; None before."""
        if self.result is not None and self.started is not None:
            return self.result.latency_s
        return None if self.started is None else (self.ended or now) - self.started


class Board:
    """The tasks of a batch, kept up to date by its events; a listener for a Delegator.

    Ids that it was not given get rows of their own: a parent model's tasks are not known before.
    """

    def __init__(self, tasks: Sequence[tuple[str, str]] = ()) -> None:
        """tasks: ids and goals, in the order in which they are shown."""
        self.rows = [Row(id, goal) for id, goal in tasks]
        self._latest = {row.id: row for row in self.rows}
        self.clock = time.monotonic

    def __call__(self, event: TaskEvent) -> Row | None:
        """Take an event; the row of a task that began or ended by it, else None."""
        if isinstance(event, TaskEnded):
            return self._ended(event.result)
        row = self._row(event.id)
        if isinstance(event, TaskRouted):
            row.model = event.target.asked if event.plan is None else team_of(event.plan)
        elif isinstance(event, TaskStarted):
            row.state, row.started = "working", self.clock()
            return row
        elif isinstance(event, TaskWorking) and isinstance(event.event, CallStarted):
            row.calls += 1
        elif isinstance(event, TaskWorking) and isinstance(event.event, CallEnded):
            row.billed.append(event.event.call.usage)
        return None

    def cancel(self) -> None:
        """What has not ended never will."""
        for row in self.rows:
            if row.result is None:
                row.state, row.ended = "cancelled", self.clock()

    def count(self, *states: State) -> int:
        """Rows in one of these states."""
        return sum(row.state in states for row in self.rows)

    def _ended(self, result: TaskResult) -> Row:
        row = self._row(result.id)
        row.result, row.ended = result, self.clock()
        row.goal = result.goal
        row.state = "done" if result.error is None else "failed"
        if result.models:
            row.model = ", ".join(result.models)
            if result.plan is not None and result.plan.topology not in ONE_CALL:
                row.model = f"{result.plan.topology}: {row.model}"
            how = "" if result.policy is None or result.error else result.policy["how"]
            if how not in ("", row.model):
                row.model += f" ({how})"
        elif not row.model:
            row.model = result.asked or ""
        return row

    def _row(self, id: str) -> Row:
        row = self._latest.get(id)
        if row is None or row.result is not None:
            row = self._latest[id] = Row(id, "")
            self.rows.append(row)
        return row


class Progress(Console):
    """Standard error. That nobody reads it any more is no reason to end work that is paid for."""

    def __init__(self) -> None:
        super().__init__(stderr=True, highlight=False)

    def on_broken_pipe(self) -> None:
        """Say nothing from now on."""
        self.quiet = True


@contextlib.contextmanager
def shown(board: Board, console: Console) -> Iterator[OnTaskEvent]:
    """A listener for a Delegator, whose events are shown until the end."""
    if not console.is_terminal:

        def say(event: TaskEvent) -> None:
            row = board(event)
            if row is not None:
                console.print(_line(board, row), soft_wrap=True)

        yield say
        return

    def take(event: TaskEvent) -> None:
        board(event)

    with Live(
        console=console,
        get_renderable=lambda: _live(board, max(console.height - _AROUND, 1), console.width),
        refresh_per_second=8,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ):
        yield take


def final_table(board: Board, width: int) -> Table:
    """Every task with its model, cost, time and result, in so many columns of a terminal."""
    scored = any(row.result is not None and row.result.grading is not None for row in board.rows)
    table = Table(box=None, padding=(0, 2, 0, 0))
    third = max(width - _NUMBERS, 30) // 3
    for head, texts in (
        ("task", [row.id for row in board.rows]),
        ("model", [row.model for row in board.rows]),
    ):
        # A long result does not make the others narrow, nor they it.
        least = min(max(map(len, texts), default=0), third)
        table.add_column(head, overflow="fold", min_width=least, max_width=third)
    table.add_column("cost", justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    if scored:
        table.add_column("score", justify="right", no_wrap=True)
    table.add_column("result", overflow="fold", min_width=third)
    for row in board.rows:
        grading = None if row.result is None else row.result.grading
        score = ["" if grading is None else f"{grading.score:g}"] if scored else []
        cells = [row.id, row.model, _cost(row), _time(row, board.clock()), *score]
        shown_cells = [Text(printable(cell)) for cell in cells]
        result = Text(printable(_result(row)), style=_STYLES[row.state])
        if row.state == "done":
            result.no_wrap, result.overflow = True, "ellipsis"
        table.add_row(*shown_cells, result)
    return table


def totals(board: Board, spent_usd: float, charged_usd: float, seconds: float) -> str:
    """One line: how many ended how, and the money; `charged_usd` may have been billed besides."""
    parts = [f"{board.count('done')} of {len(board.rows)} tasks done"]
    if failed := board.count("failed"):
        parts.append(f"{failed} failed")
    if cancelled := board.count("cancelled"):
        parts.append(f"{cancelled} cancelled")
    known = all(row.usage.cost_usd is not None for row in board.rows)
    money = f"spent ${spent_usd:.6f}" + ("" if known else " and what calls of unknown price cost")
    if charged_usd:
        money += f", possibly ${charged_usd:.6f} more for calls that nobody accounted for"
    return f"{', '.join(parts)}; {money}; {seconds:.1f} s"


@contextlib.contextmanager
def cancelled_on_interrupt(work: asyncio.Task[Any]) -> Iterator[None]:
    """Ctrl-C or SIGTERM cancels `work`; a second one ends the program at once."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)

    def remove() -> None:
        for number in signals:
            loop.remove_signal_handler(number)

    def interrupted() -> None:
        remove()
        work.cancel()

    for number in signals:
        loop.add_signal_handler(number, interrupted)
    try:
        yield
    finally:
        remove()


def check_writable(path: Path, others: Mapping[str, Path | None]) -> None:
    """Raises ConfigError before anything is spent, where `path` cannot become the results' file.

    others: files of other options, which the results would replace.
    """
    if path.is_dir():
        raise ConfigError(f"--out {path}: is a folder; name a file")
    if path.exists() and not path.is_file():
        raise ConfigError(f"--out {path}: is a device or pipe; name a file, or use --json")
    for option, other in others.items():
        if other is not None and path.resolve() == other.resolve():
            raise ConfigError(f"--out {path}: is the file of {option}, too; name another")
    if not os.access(path.parent, os.W_OK) or not path.parent.is_dir():
        raise ConfigError(f"--out {path}: its folder does not exist or cannot be written to")


def check_named(names: Names, options: Mapping[str, str | None], *, budgeted: bool) -> None:
    """Raises ConfigError that names the option whose model or team cannot be called."""
    for option, name in options.items():
        try:
            if name is not None:
                names.resolve(call=name, budgeted=budgeted)
        except DelegationError as error:
            why = str(error).removeprefix("the call's model ")
            raise ConfigError(f"{option} {why}") from error


def prepare(delegator: Delegator, asked: Collection[str | None], model: str | None) -> None:
    """Load the encoder now where a policy is going to need it, and not in its first task's time.

    asked: the tasks' own models. model: the call's. An encoder that fails is told by its tasks.
    """
    if delegator.router is not None or not delegator.workers:
        return
    names, policies = delegator.names, delegator.settings.policies
    kinds = set()
    for name in asked:
        with contextlib.suppress(DelegationError):
            target = names.resolve(name, model, budgeted=False)
            kinds.add(None if target.policy is None else policies[target.policy].kind)
    if kinds & {"match", "iterate"}:
        print("note: loading the encoder that finds the fitting workers", file=sys.stderr)
        with contextlib.suppress(MasRouterError), contextlib.redirect_stdout(sys.stderr):
            delegator.encoder()


def written(path: Path, data: Mapping[str, Any]) -> str | None:
    """Write the file, which appears when it is complete; says why where it could not."""
    text = json.dumps(data, indent=2, allow_nan=False) + "\n"
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".json")
        partial = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            mask = os.umask(0)
            os.umask(mask)
            partial.chmod(0o666 & ~mask)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        return error.strerror or str(error)
    return None


def team_of(plan: Plan) -> str:
    """A plan in short: where it is one call, the model."""
    return plan.agents[0].model if plan.topology in ONE_CALL else str(plan)


def _live(board: Board, most: int, width: int) -> Group:
    """The rows that fit: those worked on first, then what ended last."""
    name = min(max((width - _LIVE_NUMBERS) // 2, 8), 48)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("task", "state", "model", "calls", "cost", "time"):
        right = column in ("calls", "cost", "time")
        table.add_column(column, justify="right" if right else "left", no_wrap=True)
    rows = list(board.rows)
    if len(rows) > most:
        order = {"working": 0, "failed": 1, "done": 2, "waiting": 3, "cancelled": 4}
        rows = sorted(rows, key=lambda row: (order[row.state], -(row.ended or 0)))[:most]
    for row in rows:
        task, model = (on_one_line(text, name) for text in (row.id, row.model))
        cells = [task, row.state, model, str(row.calls), _cost(row), _time(row, board.clock())]
        table.add_row(*map(Text, cells), style=_STYLES[row.state])
    hidden = len(board.rows) - len(rows)
    ended = board.count("done", "failed")
    more = f"{ended} of {len(board.rows)} ended" + (f", {hidden} not shown" if hidden else "")
    return Group(table, Text(more, style="dim"))


def _line(board: Board, row: Row) -> Text:
    ended = board.count("done", "failed")
    parts = [f"[{ended}/{len(board.rows)}] {row.id}: {row.state}", row.model]
    if row.result is not None:
        calls = f"{row.calls} {'call' if row.calls == 1 else 'calls'}"
        parts += [calls, _cost(row), _time(row, board.clock())]
        if row.result.error is not None:
            parts.append(_result(row))
    return Text(on_one_line(", ".join(filter(None, parts)), 2000))


def _cost(row: Row) -> str:
    cost = row.usage.cost_usd
    return "unknown" if cost is None else f"${cost:.6f}"


def _time(row: Row, now: float) -> str:
    seconds = row.seconds(now)
    return "" if seconds is None else f"{seconds:.1f} s"


def _result(row: Row) -> str:
    if row.result is None:
        return row.state
    if row.result.error is not None:
        error, policy = row.result.error, row.result.policy
        if policy is not None and error.type == "missing_information":
            return f"asks: {error.asked}"
        near = f" (nearest: {', '.join(error.nearest)})" if error.nearest else ""
        told = all(name in error.message for name in error.nearest)
        return f"{error.type}: {error.message}{'' if told else near}"
    answer = (row.result.answer or "").strip()
    last = answer.splitlines()[-1] if answer else ""
    # A long answer ends with what it says; a program is known by how it begins.
    whole = len(answer) <= _SHORT_RESULT or last.startswith("```")
    return on_one_line(answer if whole else last, _MOST_RESULT)
