"""`masrouter collect` and `masrouter collection show|export`."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

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
from rich.table import Table

from masrouter.catalog import Catalog
from masrouter.cli_models import SIMULATED, chat_model, check_served
from masrouter.collection import (
    Assignment,
    PlanFile,
    Settings,
    Store,
    collect,
    epsilon_greedy,
    export,
    grid,
    read_plan_file,
    status,
    uniform,
)
from masrouter.collection import Progress as Collected
from masrouter.errors import CollectionError
from masrouter.llms import ChatModel, Providers
from masrouter.problems import CodeTests, Problem, ShownExamples, read_problems
from masrouter.sandbox import Sandbox

INTERRUPTED = 130
_BETWEEN_LINES_S = 30.0
"""Where no terminal shows a bar, a line says how far it is."""

app = typer.Typer(help="Look at what was collected, and export it as logs.", no_args_is_help=True)


class Design(StrEnum):
    """Which plan each problem is run under."""

    grid = "grid"
    random = "random"
    router = "router"


def collect_command(
    problems: Annotated[
        list[Path], typer.Option(help="Problem sets: .jsonl or .jsonl.gz files, or folders.")
    ],
    plan_file: Annotated[
        Path, typer.Option(help="YAML with `plans` (grid) and `space` (random, router).")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The collection, an SQLite file.")],
    plans: Annotated[
        Design,
        typer.Option(help="grid: all listed plans; random: uniform; router: around a checkpoint."),
    ] = Design.grid,
    llm: Annotated[
        str, typer.Option(help="A providers YAML file, or `simulated`, which costs nothing.")
    ] = SIMULATED,
    seeds: Annotated[
        int | None, typer.Option(help="grid: runs of each problem and plan; 1 if not given.")
    ] = None,
    draws: Annotated[
        int | None, typer.Option(help="random, router: runs of each problem; 4 if not given.")
    ] = None,
    checkpoint: Annotated[str | None, typer.Option(help="router: whose choices to follow.")] = None,
    epsilon: Annotated[
        float | None,
        typer.Option(help="router: share of runs drawn at random; 0.2 if not given."),
    ] = None,
    willingness_to_pay: Annotated[
        float | None, typer.Option(help="router: US dollars for a whole unit of score.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="random, router: other draws; 0.")] = None,
    budget_usd: Annotated[
        float | None, typer.Option(help="Most to spend, with earlier sessions on the same file.")
    ] = None,
    concurrency: Annotated[int, typer.Option(help="Runs under way at the same time.")] = 8,
    deadline_s: Annotated[float | None, typer.Option(help="Most seconds for a run.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens of an answer.")] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run again what ended without an answer before.")
    ] = False,
    catalog: Annotated[
        list[Path] | None, typer.Option(help="YAML files with prices, roles, models of yours.")
    ] = None,
    simulated_seed: Annotated[
        int | None, typer.Option(help="simulated: another world; 0 if not given.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count the runs, send nothing.")
    ] = False,
) -> None:
    """Run teams on problems, grade them, and keep every call: what a router learns from.

    The same command again takes up where the last one ended, and pays for nothing twice. Ctrl-C
    once finishes the runs under way, twice stops at once. How many calls a provider takes a minute
    and at once belongs to the providers file.

    \b
    masrouter collect --problems data/problems --plan-file data/plans.yaml -o runs/grid.sqlite
    masrouter collect --problems mine.jsonl --plans random --draws 6 --plan-file data/plans.yaml \\
        --llm providers.yaml --budget-usd 5 -o runs/mine.sqlite
    masrouter collection export runs/mine.sqlite logs/mine.parquet
    """
    console = Console(stderr=True, highlight=False)
    _refuse_unused(
        plans,
        {
            "--seeds": (seeds, {Design.grid}),
            "--draws": (draws, {Design.random, Design.router}),
            "--seed": (seed, {Design.random, Design.router}),
            "--checkpoint": (checkpoint, {Design.router}),
            "--epsilon": (epsilon, {Design.router}),
            "--willingness-to-pay": (willingness_to_pay, {Design.router}),
        },
    )
    if simulated_seed is not None and llm != SIMULATED:
        raise CollectionError(f"--simulated-seed: --llm {llm} is not simulated; leave it out")
    settings = Settings(
        concurrency=concurrency,
        budget_usd=budget_usd,
        deadline_s=deadline_s,
        max_tokens=max_tokens,
        retry_failed=retry_failed,
    )
    known = Catalog.load(*catalog or ())
    found = read_problems(*problems)
    chosen = read_plan_file(plan_file, known)
    if plans is Design.grid:
        if not chosen.plans:
            raise CollectionError(f"{plan_file}: has no `plans`, which a grid runs")
        assignments = list(grid(found, chosen.plans, seeds=1 if seeds is None else seeds))
    elif chosen.space is None:
        raise CollectionError(f"{plan_file}: has no `space`, which {plans.value} draws from")
    else:
        times, start = 4 if draws is None else draws, seed or 0
        if plans is Design.random:
            assignments = list(uniform(found, chosen.space, draws=times, seed=start))
        else:
            share = 0.2 if epsilon is None else epsilon
            with_prices = known if catalog else None
            assignments = _around_router(
                found, chosen, checkpoint, willingness_to_pay, share, times, start, with_prices
            )
    world = simulated_seed or 0
    model = chat_model(llm, found, known, seed=world)
    check_served(model, (assignment.plan for assignment in assignments))
    teams = len({assignment.plan for assignment in assignments})
    earlier = (
        sum(row.runs for row in status(out).policies) if out.exists() and out.stat().st_size else 0
    )
    console.print(
        f"{len(found)} problems, {teams} plans, {len(assignments)} runs"
        + (f"; {out} holds {earlier} finished runs" if earlier else ""),
        markup=False,
        soft_wrap=True,
    )
    if dry_run:
        return
    with Store(out) as store:
        store.pin("provider", f"{SIMULATED}, world {world}" if llm == SIMULATED else "real")
        ended = _run(assignments, found, model, known, settings, store, console)
    _print_end(ended, store, retry_failed, console)


def _refuse_unused(
    plans: Design, options: dict[str, tuple[float | str | None, set[Design]]]
) -> None:
    for name, (value, used_by) in options.items():
        if value is not None and plans not in used_by:
            where = " and ".join(sorted(f"--plans {design.value}" for design in used_by))
            raise CollectionError(f"{name} is for {where}, not for --plans {plans.value}")


def _around_router(
    problems: Sequence[Problem],
    plan_file: PlanFile,
    checkpoint: str | None,
    willingness_to_pay: float | None,
    epsilon: float,
    draws: int,
    seed: int,
    catalog: Catalog | None,
) -> list[Assignment]:
    if checkpoint is None:
        raise CollectionError("--plans router: name the router with --checkpoint")
    from masrouter.router import Router

    assert plan_file.space is not None
    router = Router.from_pretrained(checkpoint, catalog=catalog)
    queries = [problem.query for problem in problems]
    decisions = router.route_batch(queries, willingness_to_pay=willingness_to_pay)
    return list(
        epsilon_greedy(
            problems,
            [decision.plan for decision in decisions],
            plan_file.space,
            policy=f"epsilon {epsilon:g} around {decisions[0].checkpoint}",
            epsilon=epsilon,
            draws=draws,
            seed=seed,
        )
    )


def _run(
    assignments: Sequence[Assignment],
    problems: Sequence[Problem],
    model: ChatModel,
    catalog: Catalog,
    settings: Settings,
    store: Store,
    console: Console,
) -> Collected | None:
    """How it ended; None where it was stopped at once."""
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


def _print_end(ended: Collected | None, store: Store, retried: bool, console: Console) -> None:
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


@app.command("show")
def show_command(
    collection: Annotated[Path, typer.Argument(help="The collection's file.")],
) -> None:
    """Runs, scores and money so far; also while it is being collected.

    \b
    masrouter collection show runs/grid.sqlite
    """
    found = status(collection)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("policy", "runs", "without an answer", "mean score"):
        table.add_column(column, justify="left" if column == "policy" else "right")
    for row in found.policies:
        score = "unknown" if row.mean_score is None else f"{row.mean_score:.3f}"
        table.add_row(row.policy, str(row.runs), str(row.failed), score)
    console = Console(highlight=False)
    console.print(table)
    spent = found.spending
    console.print(
        f"spent ${spent.known_usd:.4f}, possibly ${spent.possible_usd:.4f} more; "
        f"{spent.unpriced_calls} calls of unknown price"
    )


@app.command("export")
def export_command(
    collection: Annotated[Path, typer.Argument(help="The collection's file.")],
    destination: Annotated[Path, typer.Argument(help=".parquet, .jsonl or .jsonl.gz")],
    policy: Annotated[
        list[str] | None, typer.Option(help="Only runs of these policies (repeat the option).")
    ] = None,
    clock: Annotated[
        bool, typer.Option(help="--no-clock leaves out latency and time stamps.")
    ] = True,
) -> None:
    """Write the finished runs as logs of schema 1.

    \b
    masrouter collection export runs/grid.sqlite data/logs/grid.parquet --no-clock
    """
    done = export(collection, destination, policies=tuple(policy or ()), clock=clock)
    typer.echo(f"{done.path}: {done.runs} runs, {done.failed} of them without a score")
