"""`masrouter collect` and `masrouter collection show|export`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from masrouter.catalog import Catalog
from masrouter.cli_collecting import make_runs, print_end
from masrouter.cli_models import SIMULATED, chat_model, check_served
from masrouter.collection import (
    Assignment,
    PlanFile,
    Settings,
    Store,
    epsilon_greedy,
    export,
    grid,
    read_plan_file,
    status,
    uniform,
)
from masrouter.errors import CollectionError
from masrouter.problems import Problem, read_problems

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
        ended = make_runs(assignments, found, model, known, settings, store, console)
    print_end(ended, store, retry_failed, console)


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
