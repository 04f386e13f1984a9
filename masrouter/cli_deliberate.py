"""`masrouter deliberate`: when is a cheap model's answer to be trusted, and what does that save?"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from masrouter.catalog import Catalog
from masrouter.cli_models import SIMULATED, chat_model, some_problems
from masrouter.cli_options import CatalogPaths
from masrouter.delegation.delegator import Delegator
from masrouter.delegation.deliberation.calibration import Calibration, Goal, Measured, calibrate
from masrouter.delegation.deliberation.sampled import (
    SampledQuery,
    collect_samples,
    read_samples,
    writing_samples,
)
from masrouter.delegation.deliberation.thresholds import Thresholds
from masrouter.delegation.naming.settings import Settings
from masrouter.delegation.tasks import Grade, Grading, Task, TaskResult
from masrouter.errors import ConfigError
from masrouter.llms import Providers
from masrouter.printable import printable
from masrouter.problems import CodeTests, Problem
from masrouter.sandbox import Sandbox

app = typer.Typer(
    name="deliberate",
    help="Delegate only where a cheap model's samples disagree: when, and what that saves.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Samples = Annotated[
    list[Path],
    typer.Argument(metavar="SAMPLES...", help="Files of samples.", show_default=False),
]
Tolerance = Annotated[
    float,
    typer.Option(help="Score that may be lost against always asking the strong worker.", min=0.0),
]
CostWeight = Annotated[
    float | None,
    typer.Option(help="Instead of the tolerance: score units that a US dollar is worth.", min=0.0),
]
Folds = Annotated[int, typer.Option(help="Of the cross-validation.", min=2)]
Seed = Annotated[int, typer.Option(help="Of folds and bootstrap draws.", min=0)]
AtOnce = Annotated[
    bool,
    typer.Option(
        "--at-once", help="Draw all samples at once; else no more than the verdict takes."
    ),
]


@app.command()
def collect(
    problems: Annotated[list[Path], typer.Option("--problems", "-p", help="Problem files.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A new file for the samples.")],
    cheap: Annotated[str, typer.Option(help="The model that is asked several times.")],
    strong: Annotated[str, typer.Option(help="The model or plan that it may delegate to.")],
    llm: Annotated[str, typer.Option(help="A providers file, or `simulated`.")] = SIMULATED,
    samples: Annotated[int, typer.Option(help="Of the cheap model, a problem.", min=2)] = 5,
    budget: Annotated[
        float | None, typer.Option(help="Most US dollars for all of it; no limit else.", min=0.0)
    ] = None,
    limit: Annotated[int | None, typer.Option(help="So many problems, spread evenly.")] = None,
    settings: Annotated[
        Path | None, typer.Option(help="YAML with aliases, tiers and plans.")
    ] = None,
    catalog: CatalogPaths = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Run problems both ways and log what came of it: what `calibrate` needs.

    \b
    masrouter deliberate collect -p data/problems --cheap gpt-4o-mini --strong o3-mini -o s.jsonl
    """
    if out.exists():
        raise ConfigError(f"--out: {out} exists already; give another name")
    chosen = some_problems(problems, limit)
    known = Catalog.load(*catalog) if catalog else Catalog.default()
    model = chat_model(llm, chosen, known, seed=seed)
    delegator = Delegator(
        model, None if settings is None else Settings.load(settings), catalog=known
    )
    with contextlib.ExitStack() as stack:
        write = stack.enter_context(writing_samples(out))
        programs = any(isinstance(problem.grader, CodeTests) for problem in chosen)
        sandbox = stack.enter_context(Sandbox()) if programs else None
        tasks = [
            Task(p.query, id=p.problem_id, kind=p.task, grade=_grade(p, sandbox)) for p in chosen
        ]

        kept = 0
        failures: list[TaskResult] = []

        def keep(query: SampledQuery) -> None:
            nonlocal kept
            write(query)
            kept += 1

        async def main() -> None:
            async with contextlib.AsyncExitStack() as connections:
                if isinstance(model, Providers):
                    await connections.enter_async_context(model)
                await collect_samples(
                    tasks, cheap=cheap, strong=strong, delegator=delegator, samples=samples,
                    budget_usd=budget, seed=seed, on_query=keep, on_failure=failures.append,
                )  # fmt: skip

        try:
            asyncio.run(main())
        finally:
            if kept:
                told = f"wrote {out}: {kept} of {len(tasks)} problems, {samples} samples each"
                typer.echo(told, err=True)
            _tell_failures(failures)
    if 2 * len(failures) > len(tasks) * (samples + 1):
        raise ConfigError(f"{out}: most calls failed, so it says little of the models; see above")


def _tell_failures(failures: Sequence[TaskResult]) -> None:
    """A failed call counts as a wrong answer, which it is not where a provider was down."""
    if failures:
        first = failures[0].error
        assert first is not None
        typer.echo(
            f"warning: {len(failures)} calls failed and count as wrong answers; the first: "
            f"{printable(first.message)}",
            err=True,
        )


@app.command("calibrate")
def calibrate_command(
    samples: Samples,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the thresholds go (JSON).")],
    tolerance: Tolerance = 0.01,
    cost_weight: CostWeight = None,
    at_once: AtOnce = False,
    folds: Folds = 5,
    seed: Seed = 0,
) -> None:
    """Choose how many samples to draw and how many must agree; write it to a file.

    \b
    masrouter deliberate calibrate samples.jsonl -o thresholds.json
    """
    found = _calibrated(samples, tolerance, cost_weight, at_once, folds, seed)
    Thresholds(found.rule, chosen_on=found.to_json()).save(out)
    _print(found)
    typer.echo(f"wrote {out}", err=True)


@app.command()
def report(
    samples: Samples,
    tolerance: Tolerance = 0.01,
    cost_weight: CostWeight = None,
    at_once: AtOnce = False,
    folds: Folds = 5,
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """What deliberating saves against always, never and by length, on queries not chosen on.

    \b
    masrouter deliberate report samples.jsonl
    """
    found = _calibrated(samples, tolerance, cost_weight, at_once, folds, seed)
    if as_json:
        rule = {"samples": found.rule.samples, "needed": found.rule.needed}
        typer.echo(json.dumps({"rule": rule, **found.to_json()}, indent=2, allow_nan=False))
    else:
        _print(found)


def _calibrated(
    samples: list[Path],
    tolerance: float,
    cost_weight: float | None,
    at_once: bool,
    folds: int,
    seed: int,
) -> Calibration:
    goal = Goal(tolerance, cost_weight)
    queries = read_samples(*samples)
    return calibrate(queries, goal=goal, stop_early=not at_once, folds=folds, seed=seed)


def _grade(problem: Problem, sandbox: Sandbox | None) -> Grade:
    def grade(answer: str) -> Grading:
        found = problem.grader.grade(answer, sandbox)
        return Grading(found.score, found.source)

    return grade


def _print(found: Calibration) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("rule")
    for name in ("score", "US$ a query", "delegated", "deliberate scores more", "and saves"):
        table.add_column(name, justify="right")
    against = {one.name: one for one in found.against}
    for row in found.rows:
        other = against.get(row.name)
        table.add_row(
            row.name,
            _told(row.score, ".3f"),
            _told(row.cost_usd, ".6f"),
            f"{row.delegated:.1%}",
            "" if other is None else _told(other.score, "+.3f"),
            "" if other is None else _told(other.cost_saved, ".1%"),
        )
    console = Console(highlight=False, width=max(Console().width, 150))
    console.print(table)
    rule, length = found.rule, found.length
    characters = "never delegates" if length is None else f"from {length} characters"
    by_fold = ", ".join(f"{one.needed} of {one.samples}" for one in found.chosen)
    console.print(
        f"chosen on all {found.queries} queries: {rule.needed} of {rule.samples} samples must "
        f"agree (by fold: {by_fold}); length: {characters}. 95 % intervals over queries, each "
        "judged by a choice made without it.",
        soft_wrap=True,
    )


def _told(measured: Measured, form: str) -> str:
    low, high = measured.interval.low, measured.interval.high
    return f"{measured.mean:{form}} ({low:{form}} to {high:{form}})"
