"""Progress bars that a caller may leave out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars


@dataclass(frozen=True)
class Task:
    """One bar; does nothing where there is no console."""

    bars: Bars | None
    handle: int

    def advance(self, steps: int = 1) -> None:
        if self.bars is not None:
            self.bars.advance(self.handle, steps)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Progress:
    """Says what training does, on stderr or not at all."""

    console: Console | None = None

    def say(self, line: str) -> None:
        """One line of what was found or decided."""
        if self.console is not None:
            self.console.print(line, highlight=False)

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Task]:
        """A bar of `total` steps."""
        if self.console is None:
            yield Task(None, 0)
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Bars(*columns, TimeElapsedColumn(), console=self.console, transient=True) as bars:
            yield Task(bars, bars.add_task(name, total=total))

    @contextmanager
    def counted(self, name: str) -> Iterator[Callable[[int, int, str], None]]:
        """A bar for work that reports (done, total, what is done)."""
        if self.console is None:
            yield lambda done, total, what: None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Bars(*columns, TimeElapsedColumn(), console=self.console, transient=True) as bars:
            handle = bars.add_task(name, total=None)

            def show(done: int, total: int, what: str) -> None:
                bars.update(handle, completed=done, total=total, description=f"{name}: {what}")

            yield show
