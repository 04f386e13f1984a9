"""The runs of a collection, made by a command: a progress bar, Ctrl-C, and how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from masrouter.catalog import Catalog
from masrouter.collection import Assignment, Settings, Store, collect
from masrouter.collection import Progress as Collected
from masrouter.errors import CollectionError
from masrouter.llms import ChatModel, Providers
from masrouter.problems import CodeTests, Problem, ShownExamples
from masrouter.sandbox import Sandbox

INTERRUPTED = 130
_BETWEEN_LINES_S = 30.0
"""Where no terminal shows a bar, a line says how far it is."""


def make_runs(
    assignments: Sequence[Assignment],
    problems: Sequence[Problem],
    model: ChatModel,
    catalog: Catalog,
    settings: Settings,
    store: Store,
    console: Console,
) -> Collected | None:
    """Run what a collection lacks; how it ended, None where it was stopped at once.

    Ctrl-C once finishes the runs under way, twice cuts them off. Raises what `collect` raises.
    """
    with contextlib.ExitStack() as stack:
        needs_sandbox = any(isinstance(problem.grader, CodeTests) for problem in problems)
        sandbox = stack.enter_context(Sandbox()) if needs_sandbox else None
        show = stack.enter_context(_shown(console))

        async def main() -> Collected | None:
            stop = asyncio.Event()
            work = asyncio.create_task(
                collect(
                    assignments,
                    llm=model,
                    store=store,
                    catalog=catalog,
                    sandbox=sandbox,
                    examples=None if sandbox is None else ShownExamples(sandbox),
                    settings=settings,
                    stop=stop,
                    report=show,
                )
            )
            async with contextlib.AsyncExitStack() as connections:
                if isinstance(model, Providers):
                    await connections.enter_async_context(model)
                with _drained_on_interrupt(stop, work, console):
                    await asyncio.wait([work])
            return None if work.cancelled() else work.result()

        return asyncio.run(main())


@contextlib.contextmanager
def _drained_on_interrupt(
    stop: asyncio.Event, work: asyncio.Task[Collected], console: Console
) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM sets `stop`, the second cancels `work`."""
    loop = asyncio.get_running_loop()
    told = False

    def interrupted() -> None:
        nonlocal told
        if told:
            work.cancel()
            return
        told = True
        stop.set()
        console.print("finishing the runs under way; Ctrl-C again stops at once")

    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, interrupted)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def print_end(ended: Collected | None, store: Store, retried: bool, console: Console) -> None:
    """Say what was done; exits with a failure where something is left to do."""

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    lost = f"{store.path}: {store.unsaved} records could not be written; " if store.unsaved else ""
    if ended is None:
        say(f"{lost}stopped at once; calls under way are lost and may be billed")
        raise typer.Exit(INTERRUPTED)
    spent = ended.spending
    extra = f", {spent.unpriced_calls} calls of unknown price" if spent.unpriced_calls else ""
    possible = f" (and ${spent.possible_usd:.4f} possibly)" if spent.possible_usd else ""
    say(
        f"{ended.before + ended.done} of {ended.planned} runs finished, {ended.done} of them now, "
        f"{ended.failed} of these without an answer; spent ${spent.known_usd:.4f}{possible}{extra}"
    )
    if ended.failed and not retried:
        say("--retry-failed makes those without an answer once more")
    if ended.stopped == "interrupted":
        say("interrupted; run the same command again to go on")
        raise typer.Exit(INTERRUPTED)
    if ended.stopped is not None:
        raise CollectionError(
            f"{lost}stopped: {ended.stopped}. Run the same command again to go on"
        )


@contextlib.contextmanager
def _shown(console: Console) -> Iterator[Callable[[Collected], None]]:
    """What is told of the progress: a bar on a terminal, elsewhere a line now and then."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    # Runs differ much in length: an estimate of the time left needs many of them.
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[cost]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        speed_estimate_period=600,
    ) as bar:
        tasks: list[TaskID] = []

        def show(state: Collected) -> None:
            cost, done = f"${state.spending.most_usd:.4f}", state.before + state.done
            if not tasks:
                total = state.planned
                tasks.append(bar.add_task("collecting", total=total, completed=done, cost=cost))
            doing = "waiting" if state.waiting else "collecting"
            bar.update(tasks[0], completed=done, cost=cost, description=doing)
            if state.waiting:
                bar.console.print(state.waiting, markup=False)

        yield show


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = self._said = time.monotonic()

    def __call__(self, state: Collected) -> None:
        now = time.monotonic()
        if state.waiting:
            self._console.print(state.waiting, markup=False, soft_wrap=True)
        if now - self._said < _BETWEEN_LINES_S or not state.done:
            return
        self._said = now
        to_do = state.planned - state.before - state.done
        minutes = (now - self._started) / state.done * to_do / 60
        self._console.print(
            f"{state.before + state.done} of {state.planned} runs, "
            f"${state.spending.most_usd:.4f}, about {minutes:.0f} min left",
            markup=False,
        )
