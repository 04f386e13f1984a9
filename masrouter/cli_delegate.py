"""`masrouter delegate`: hand out tasks, each to the model or team that fits it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from masrouter.catalog import Catalog
from masrouter.cli_delegating import (
    Board,
    Progress,
    cancelled_on_interrupt,
    check_named,
    check_writable,
    final_table,
    prepare,
    shown,
    totals,
    written,
)
from masrouter.cli_models import SIMULATED, ServingModel, chat_model, some_problems
from masrouter.cli_options import CatalogPaths, CostWeight
from masrouter.delegation.delegator import Delegator
from masrouter.delegation.episodes.log import EpisodeLog
from masrouter.delegation.naming.settings import AUTO, PROVIDER_FLAG, Settings
from masrouter.delegation.parent import ParentRun, run_parent
from masrouter.delegation.policies.reading import deliberate_by
from masrouter.delegation.task_file import read_task_file
from masrouter.delegation.tasks import Batch, Grade, Grading, OnTaskEvent, Task
from masrouter.delegation.workers.worker import Worker
from masrouter.errors import ConfigError
from masrouter.execution import Ledger
from masrouter.execution.ledger import total_usage
from masrouter.llms import Providers
from masrouter.printable import printable
from masrouter.problems import CodeTests, Problem
from masrouter.router import Router
from masrouter.sandbox import Sandbox
from masrouter.types import Usage

INTERRUPTED = 130
PROVIDERS = "providers.yaml"
"""What is asked without --llm, where it lies in the working folder."""
DELIBERATE = "deliberate"
"""The name of the policy that --cheap makes."""


@dataclass(frozen=True, slots=True)
class _Ended:
    """How the work ended."""

    board: Board
    ledger: Ledger
    seconds: float
    budget_usd: float | None
    interrupted: bool
    parent_usage: Usage
    """Of a parent's own calls; nothing without one, and unknown where it was interrupted."""
    parent: ParentRun | None = None
    """Where a model handed out the tasks itself, and was not interrupted."""
    episode: str | None = None
    """What was logged, where it was and nothing was interrupted."""


def delegate_command(
    goals: Annotated[
        list[str] | None, typer.Argument(help="What is to be done; or --tasks, or --problems.")
    ] = None,
    tasks: Annotated[
        Path | None, typer.Option("--tasks", "-t", help="A YAML file of tasks.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="For tasks that name none: `provider/model`, an alias, `small`, `medium`, "
            "`large`, the name of a plan, a policy or a worker, or `auto` to ask the router, which "
            "is the default with -c."
        ),
    ] = None,
    provider: Annotated[
        str | None, typer.Option(help="Of --model: by this provider of the providers file.")
    ] = None,
    cheap: Annotated[
        str | None,
        typer.Option(help="In place of --model: ask this one a few times, --strong if they part."),
    ] = None,
    strong: Annotated[
        str | None, typer.Option(help="With --cheap; `auto` where it is left out.")
    ] = None,
    thresholds: Annotated[
        Path | None, typer.Option(help="With --cheap: what `masrouter deliberate` calibrated.")
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            help="Most US dollars for everything together. `auto` buys score with it; with "
            "--cost-weight it also stays frugal."
        ),
    ] = None,
    llm: Annotated[
        str | None,
        typer.Option(
            help="A providers YAML file, or `simulated` (problems only). Left out: `simulated` "
            "with --problems, else the `providers.yaml` in this folder."
        ),
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", "-c", help="The router that `auto` asks.")
    ] = None,
    settings: Annotated[
        Path | None, typer.Option(help="A YAML file of aliases, tiers, plans, policies, limits.")
    ] = None,
    workers: Annotated[
        Path | None,
        typer.Option(help="A YAML file of workers that are no chat models: translation, tools."),
    ] = None,
    parent: Annotated[
        str | None,
        typer.Option(help="A model that works on the goal and hands out tasks by itself."),
    ] = None,
    problems: Annotated[
        list[Path] | None,
        typer.Option(help="Problem sets: the tasks, or what --llm simulated knows; they grade."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Only so many problems, spread over the sets.")
    ] = None,
    deadline_s: Annotated[float | None, typer.Option(help="Most seconds for everything.")] = None,
    max_concurrency: Annotated[int | None, typer.Option(help="Tasks at the same time.")] = None,
    cost_weight: CostWeight = None,
    seed: Annotated[int, typer.Option(help="Of the runs.")] = 0,
    catalog: CatalogPaths = None,
    log: Annotated[
        Path | None, typer.Option(help="Add what happened to this file, to learn from it.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write all results to this JSON file.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The same JSON on standard output.")
    ] = False,
) -> None:
    """Hand out tasks, each to the model that fits it: live progress, then a table of results.

    Ctrl-C keeps what is done, and cancels the rest.

    \b
    masrouter delegate --tasks tasks.yaml --budget 0.05
    masrouter delegate --model auto -c checkpoints/default --problems data/problems --limit 8
    masrouter delegate --cheap small --strong large --llm providers.yaml "How many ...?"
    masrouter delegate --workers workers.yaml --model my-worker "Translate: ..."
    masrouter delegate --llm providers.yaml --parent large "Compare these two reports: ..."

    With --cheap a task's answer is the cheap model's where its samples agree, else the strong
    model's; policies of a settings file say the same under a name, and more.
    """
    if limit is not None and not problems:
        raise ConfigError("--limit: is for --problems")
    if provider is not None:
        if model is None:
            raise ConfigError("--provider: says whose --model is meant; name the model too")
        model = f"{model} {PROVIDER_FLAG} {provider}"
    known = Catalog.load(*catalog or ())
    found = some_problems(problems, limit) if problems else ()
    handed_out = _tasks(goals or [], tasks, found)
    llm = _llm(llm, bool(problems))
    if parent is not None and len(handed_out) != 1:
        raise ConfigError(f"--parent works on one goal, got {len(handed_out)}")
    if parent is not None and max_concurrency is not None:
        raise ConfigError("--max-concurrency is for given tasks, not for --parent")
    if out is not None:
        named = {"--tasks": tasks, "--llm": Path(llm), "--log": log, "--settings": settings,
                 "--workers": workers, "--thresholds": thresholds}  # fmt: skip
        check_writable(out, named)
    chosen = Settings() if settings is None else Settings.load(settings, catalog=known)
    chosen = _deliberating(chosen, cheap, strong, thresholds, model, checkpoint)
    model = model if cheap is None else DELIBERATE
    if parent is not None and model is not None:
        chosen = replace(chosen, default=model)
    if checkpoint is not None and chosen.default is None:
        chosen = replace(chosen, default=AUTO)
    if parent is None:  # the limit is for language models; this list is the user's own
        chosen = replace(chosen, max_tasks=max(chosen.max_tasks, len(handed_out)))
    others: tuple[Worker, ...] = ()
    if workers is not None:  # they bring pipelines and MCP along, which no other call needs
        from masrouter.delegation.workers.worker_file import read_worker_file

        with contextlib.redirect_stdout(sys.stderr):
            others = read_worker_file(workers)
    asked = chat_model(llm, found, known)
    router = (
        None
        if checkpoint is None
        else Router.from_pretrained(checkpoint, catalog=known if catalog else None)
    )
    with contextlib.ExitStack() as stack:
        episodes = None if log is None else EpisodeLog(log)
        delegator = Delegator(
            asked, chosen, router=router, workers=others, catalog=known, episodes=episodes
        )
        if cheap is not None or parent is not None:
            asked_for = {"--cheap": cheap, "--strong": strong, "--parent": parent}
            check_named(delegator.names, asked_for, budgeted=budget is not None)
        prepare(delegator, {task.model for task in handed_out}, model)
        handed_out = [*stack.enter_context(_graded(handed_out, found))]
        job = _Job(
            delegator, asked, handed_out, model, parent, budget, deadline_s, max_concurrency,
            cost_weight, seed,
        )  # fmt: skip
        board = Board([] if parent else [(t.id or "", t.goal) for t in handed_out])
        # Standard output is for the results; workers may print what they like.
        with shown(board, Progress()) as listen, contextlib.redirect_stdout(sys.stderr):
            ended = asyncio.run(job.done(board, listen))
    data = _data(ended)
    unwritten = None if out is None else written(out, data)
    if as_json:
        typer.echo(json.dumps(data, allow_nan=False))
    else:
        _print(ended, out if unwritten is None else None, log)
    if unwritten is not None:
        raise ConfigError(f"{out}: cannot be written: {unwritten}")
    if ended.interrupted:
        raise typer.Exit(INTERRUPTED)
    # What a parent handed out may fail without its answer failing.
    failed = ended.board.count("failed") if ended.parent is None else ended.parent.error
    if failed:
        raise typer.Exit(1)


def _llm(given: str | None, has_problems: bool) -> str:
    """What --llm says; left out, what is there to be asked."""
    if given is not None:
        return given
    if has_problems:
        typer.echo(
            f"note: --llm {SIMULATED}, since --problems are given; its costs are made up", err=True
        )
        return SIMULATED
    if not Path(PROVIDERS).is_file():
        raise ConfigError(
            f"nobody to ask: there is no {PROVIDERS} in this folder; name such a file with --llm, "
            "or have simulated models answer problems: --problems, such as data/problems"
        )
    typer.echo(f"note: --llm {PROVIDERS}, which is in this folder", err=True)
    return PROVIDERS


def _deliberating(
    rules: Settings,
    cheap: str | None,
    strong: str | None,
    thresholds: Path | None,
    model: str | None,
    checkpoint: str | None,
) -> Settings:
    """The settings with the policy that --cheap makes."""
    if cheap is None:
        for option, value in (("--strong", strong), ("--thresholds", thresholds)):
            if value is not None:
                raise ConfigError(f"{option}: goes with --cheap")
        return rules
    if model is not None:
        raise ConfigError("--cheap: goes in place of --model; leave one of both out")
    if strong is None and checkpoint is None:
        raise ConfigError("--cheap: name --strong too, or give a router (-c) that chooses it")
    if DELIBERATE in rules.policies:
        raise ConfigError(
            f"--cheap: the settings have a policy {DELIBERATE!r}; use it as --model, or rename it"
        )
    made = deliberate_by(cheap, AUTO if strong is None else strong, thresholds)
    return replace(rules, policies={**rules.policies, DELIBERATE: made})


@dataclass(frozen=True, slots=True)
class _Job:
    """What is to be run."""

    delegator: Delegator
    llm: ServingModel
    tasks: Sequence[Task]
    model: str | None
    parent: str | None
    budget_usd: float | None
    deadline_s: float | None
    max_concurrency: int | None
    cost_weight: float | None
    seed: int

    async def done(self, board: Board, listen: OnTaskEvent) -> _Ended:
        """Run it until its end or an interrupt. Raises what the work raises."""
        ledger = Ledger()  # knows what was spent when the work itself is cancelled
        began = time.monotonic()
        async with contextlib.AsyncExitStack() as connections:
            if isinstance(self.llm, Providers):
                await connections.enter_async_context(self.llm)
            work = asyncio.create_task(self._work(ledger, listen))
            with cancelled_on_interrupt(work):
                await asyncio.wait([work])
        interrupted = work.cancelled()
        if interrupted:
            board.cancel()
        done = None if interrupted else work.result()
        run = done if isinstance(done, ParentRun) else None
        episode = None if done is None else done.episode
        seconds = time.monotonic() - began
        own = Usage(0, 0, 0.0) if self.parent is None else Usage()
        own = own if run is None else run.own_usage
        return _Ended(board, ledger, seconds, self.budget_usd, interrupted, own, run, episode)

    async def _work(self, ledger: Ledger, listen: OnTaskEvent) -> ParentRun | Batch:
        if self.parent is not None:
            return await run_parent(
                self.tasks[0].goal,
                model=self.parent,
                delegator=self.delegator,
                context=self.tasks[0].context,
                budget_usd=self.budget_usd,
                within=ledger,
                deadline_s=self.deadline_s,
                cost_weight=self.cost_weight,
                seed=self.seed,
                on_event=listen,
            )
        return await self.delegator.delegate_tasks(
            self.tasks,
            model=self.model,
            budget_usd=self.budget_usd,
            deadline_s=self.deadline_s,
            within=ledger,
            cost_weight=self.cost_weight,
            seed=self.seed,
            on_event=listen,
            max_concurrency=self.max_concurrency,
        )


def _tasks(goals: Sequence[str], file: Path | None, problems: Sequence[Problem]) -> list[Task]:
    if goals and file is not None:
        raise ConfigError("give goals, or --tasks with a file of them, and not both")
    if file is not None:
        listed: Sequence[Task] = read_task_file(file)
    elif goals:
        listed = [Task(goal) for goal in goals]
    else:
        listed = [Task(p.query, id=p.problem_id, kind=p.task) for p in problems]
    if not listed:
        raise ConfigError("nothing to hand out: give goals, --tasks with a file, or --problems")
    # Named here, so that the tasks can be shown before they begin.
    return [replace(t, id=t.id or f"task-{number}") for number, t in enumerate(listed, start=1)]


@contextlib.contextmanager
def _graded(tasks: Sequence[Task], problems: Sequence[Problem]) -> Iterator[Sequence[Task]]:
    """The tasks, those whose goal is a problem's question with its grader."""
    by_query = {problem.query: problem for problem in problems}
    met = [by_query[task.goal] for task in tasks if task.goal in by_query]
    with contextlib.ExitStack() as stack:
        programs = any(isinstance(problem.grader, CodeTests) for problem in met)
        sandbox = stack.enter_context(Sandbox()) if programs else None
        yield [
            replace(
                task,
                grade=_grade(by_query[task.goal], sandbox),
                kind=task.kind or by_query[task.goal].task,
            )
            if task.goal in by_query
            else task
            for task in tasks
        ]


def _grade(problem: Problem, sandbox: Sandbox | None) -> Grade:
    def grade(answer: str) -> Grading:
        found = problem.grader.grade(answer, sandbox)
        return Grading(found.score, found.source)

    return grade


def _data(ended: _Ended) -> dict[str, Any]:
    """What `--json` prints and `--out` keeps."""
    run = ended.parent
    usage = total_usage([ended.parent_usage, *(row.usage for row in ended.board.rows)])
    results: list[Mapping[str, Any]] = []
    for row in ended.board.rows:
        told = {"id": row.id, "goal": row.goal, "status": row.state}
        if row.result is None:
            spent = {"cost_usd": row.usage.cost_usd}
            results.append({**told, "answer": None, "usage": spent})
        else:
            results.append({**told, **row.result.to_json(), "answer": row.result.answer})
    return {
        "results": results,
        "parent": None
        if run is None
        else {**run.to_json(), "results": [r.id for r in run.results]},  # above in full
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cost_usd": usage.cost_usd,
        },
        "budget_usd": ended.budget_usd,
        "spent_usd": ended.ledger.spent_usd,
        "charged_usd": ended.ledger.charged_usd,
        "latency_s": round(ended.seconds, 3),
        "interrupted": ended.interrupted,
    }


def _print(ended: _Ended, out: Path | None, log: Path | None) -> None:
    console = Console(highlight=False)
    console.width = max(console.width, 60 if console.is_terminal else 100)

    def say(text: str, style: str | None = None) -> None:
        console.print(printable(text), style=style, markup=False, soft_wrap=True)

    rows = ended.board.rows
    if rows:
        console.print(final_table(ended.board, console.width))
    say(totals(ended.board, ended.ledger.spent_usd, ended.ledger.charged_usd, ended.seconds))
    run = ended.parent
    if run is not None:
        cost = run.own_usage.cost_usd
        money = "unknown cost" if cost is None else f"${cost:.6f} of that"
        say(f"parent: {', '.join(run.models) or run.target.asked}, {len(run.turns)} turns, {money}")
        if run.error is not None:
            say(f"failed: {run.error.type}: {run.error.message}", "red")
    answer = None if run is None else run.answer
    if run is None and len(rows) == 1 and rows[0].result is not None:
        answer = rows[0].result.answer
    if answer is not None:
        say(f"\n{answer}")
    if ended.interrupted:
        say("interrupted: what was done is above, the rest was cancelled", "yellow")
    if out is not None:
        say(f"results: {out}")
    if ended.episode is not None:
        say(f"episode: {ended.episode}, see masrouter delegations show {log}")
