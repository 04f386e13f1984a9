"""`masrouter run`: let a team answer, the routed one or one that is given."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from masrouter.catalog import Catalog
from masrouter.cli_models import (
    SIMULATED,
    chat_model,
    check_served,
    read_plan,
    routed,
    some_problems,
)
from masrouter.errors import ConfigError, ExecutionError
from masrouter.execution import execute
from masrouter.printable import printable
from masrouter.problems import (
    CodeTests,
    Grade,
    Problem,
    ShownExamples,
)
from masrouter.router import Router
from masrouter.sandbox import Sandbox
from masrouter.types import Run


@dataclass(frozen=True, slots=True)
class _Job:
    """One query to be answered, with its problem where there is one."""

    query: str
    problem: Problem | None


def run_command(
    queries: Annotated[
        list[str] | None, typer.Argument(help="Queries; leave them out with --problems.")
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", "-c", help="The router that picks the team.")
    ] = None,
    plan: Annotated[
        str | None,
        typer.Option(help="A team instead of a router: `debate(critic@gpt-4o, 2x gpt-4o-mini)`."),
    ] = None,
    llm: Annotated[
        str, typer.Option(help="A providers YAML file, or `simulated` (problems only).")
    ] = SIMULATED,
    problems: Annotated[
        list[Path] | None, typer.Option(help="Take the queries from problem sets, and grade.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Only so many problems, spread over the sets.")
    ] = None,
    willingness_to_pay: Annotated[
        float | None, typer.Option(help="US dollars for a whole unit of score.")
    ] = None,
    max_cost_usd: Annotated[
        float | None, typer.Option(help="Budget of each query: routed by it and held to it.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Route to these models only (repeat the option).")
    ] = None,
    exclude_model: Annotated[
        list[str] | None, typer.Option(help="Not to these models (repeat the option).")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Most tokens of a call; fewer fit into a smaller budget.")
    ] = None,
    deadline_s: Annotated[float | None, typer.Option(help="Most seconds for a query.")] = None,
    seed: Annotated[int, typer.Option(help="Of the runs.")] = 0,
    catalog: Annotated[
        list[Path] | None, typer.Option(help="YAML files with prices, roles, models of yours.")
    ] = None,
    trace: Annotated[bool, typer.Option(help="Show every message of the team.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a query on standard output.")
    ] = False,
) -> None:
    """Let a team answer: route each query, run the plan, show the answer and what it cost.

    \b
    masrouter run -c checkpoints/default --problems data/problems --limit 3
    masrouter run -c checkpoints/mine --llm providers.yaml "Write a haiku about tides."
    masrouter run --plan "cot(gpt-4o)" --problems data/problems/math.jsonl --limit 5
    """
    known = Catalog.load(*catalog or ())
    jobs = _jobs(queries or [], problems or [], limit)
    if (checkpoint is None) == (plan is None):
        raise ConfigError("name a router with --checkpoint, or a team with --plan, and not both")
    asked = chat_model(llm, [job.problem for job in jobs if job.problem], known)
    if plan is not None:
        plans = [read_plan(plan)] * len(jobs)
        check_served(asked, plans)
    else:
        assert checkpoint is not None
        router = Router.from_pretrained(checkpoint, catalog=known if catalog else None)
        decisions = routed(
            router,
            [job.query for job in jobs],
            asked,
            models=model,
            exclude_models=exclude_model or (),
            willingness_to_pay=willingness_to_pay,
            max_cost_usd=max_cost_usd,
        )
        plans = [decision.plan for decision in decisions]
    right = graded = failed = 0
    console = Console(highlight=False, width=max(Console().width, 100))
    with contextlib.ExitStack() as stack:
        programs = any(job.problem and isinstance(job.problem.grader, CodeTests) for job in jobs)
        sandbox = stack.enter_context(Sandbox()) if programs else None
        for job, team in zip(jobs, plans, strict=True):
            try:
                run = execute(
                    team,
                    job.query,
                    llm=asked,
                    catalog=known,
                    budget_usd=max_cost_usd,
                    deadline_s=deadline_s,
                    seed=seed,
                    max_tokens=max_tokens,
                    examples=None if sandbox is None else ShownExamples(sandbox),
                )
            except ExecutionError as error:
                run = error.run
            grade = None
            if job.problem is not None and run.answer is not None:
                grade = job.problem.grader.grade(run.answer, sandbox)
                right += grade.score == 1.0
                graded += 1
            failed += run.answer is None
            if as_json:
                typer.echo(json.dumps(_data(run, grade), allow_nan=False))
            else:
                _show(console, run, grade, trace)
    if problems and not as_json:
        lost = f"; {failed} without an answer" if failed else ""
        console.print(f"{right} of {graded} graded answers are right{lost}", style="bold")
    if failed:
        raise typer.Exit(1)


def _jobs(queries: Sequence[str], paths: Sequence[Path], limit: int | None) -> list[_Job]:
    if bool(queries) == bool(paths):
        raise ConfigError("give queries, or --problems with problem sets, and not both")
    if queries:
        return [_Job(query, None) for query in queries]
    found = some_problems(paths, limit)
    return [_Job(problem.query, problem) for problem in found]


def _data(run: Run, grade: Grade | None) -> dict[str, Any]:
    return {**asdict(run), "grade": None if grade is None else asdict(grade)}


def _show(console: Console, run: Run, grade: Grade | None, trace: bool) -> None:
    def say(text: str, style: str | None = None) -> None:
        console.print(printable(text), style=style, markup=False)

    head = " ".join(run.query.split())
    say(head if len(head) <= 96 else head[:93] + "...", "bold")
    say(f"  team    {run.plan}", "green")
    if trace:
        for call in run.calls:
            say(f"  {call.step}: {run.plan.agents[call.agent]}", "cyan")
            for speaker, text in call.messages:
                say(_indented(f"[{speaker}] {text}"), "dim")
            say(_indented(call.reply or f"failed: {call.error}"))
    for note in run.notes:
        say(f"  note    {note}")
    cost = "unknown" if run.usage.cost_usd is None else f"${run.usage.cost_usd:.6f}"
    sent = sum(call.attempts > 0 for call in run.calls)
    say(f"  spent   {cost} in {sent} {'call' if sent == 1 else 'calls'}")
    if run.answer is None:
        say(f"  failed  {run.error}", "red")
    elif grade is None:
        say(_indented(run.answer))
    else:
        right = grade.score == 1.0
        verdict = "right" if right else "wrong"
        say(f"  graded  {verdict} ({grade.detail})", "green" if right else "red")


def _indented(text: str) -> str:
    return "\n".join(f"      {line}" for line in text.splitlines())
