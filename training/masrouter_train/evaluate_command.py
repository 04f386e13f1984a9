"""The command `masrouter evaluate`: on logs here, on problems by `masrouter.cli_evaluate`."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from masrouter.catalog import Catalog
from masrouter.cli_evaluate import (
    Budget,
    CheckpointId,
    Concurrency,
    Deadline,
    DryRun,
    FixedPlans,
    Limit,
    Llm,
    MaxCost,
    MaxTokens,
    PassAtK,
    ProblemPaths,
    Repeats,
    RetryFailed,
    SimulatedSeed,
    WillingnessToPay,
    evaluate_problems,
)
from masrouter.encoder import load_encoder
from masrouter.encoder.embedding_cache import EmbeddingCache
from masrouter.errors import EvaluationError
from masrouter.evaluation.baselines import BestFixedPlan, default_baselines
from masrouter.evaluation.crossval import (
    CrossValidation,
    cross_validate,
    leave_one_dataset_out,
    leave_one_model_out,
)
from masrouter.evaluation.learners import Learner
from masrouter.evaluation.report import print_report, to_json, to_markdown
from masrouter.evaluation.summary import Evaluation, summarise
from masrouter.outcomes import Outcomes
from masrouter.reporting.evaluation_page import write_report
from masrouter_train.explained_examples import with_examples
from masrouter_train.learner import ROUTER, RouterLearner
from masrouter_train.options import (
    CatalogPaths,
    EncoderName,
    RecipePath,
    Strict,
    config_of,
    read,
)
from masrouter_train.progress import Progress

REPORT_WIDTH = 140


class Left(StrEnum):
    """What to leave out of training."""

    DATASET = "dataset"
    MODEL = "model"


LOGS_ONLY = (
    "folds", "seeds", "leave_out", "recipe", "encoder", "cost_weight", "cascade", "baselines",
    "report", "note", "strict",
)  # fmt: skip
PROBLEMS_ONLY = (
    "checkpoint", "llm", "plan", "repeats", "k", "limit", "willingness_to_pay", "max_cost_usd",
    "budget_usd", "concurrency", "deadline_s", "max_tokens", "retry_failed", "simulated_seed",
    "dry_run",
)  # fmt: skip


def evaluate(
    context: typer.Context,
    logs: Annotated[
        list[Path] | None,
        typer.Option("--logs", "-l", help="Log files or folders (repeat the option)."),
    ] = None,
    folds: Annotated[int, typer.Option(help="Parts that queries are split into.")] = 5,
    seeds: Annotated[int, typer.Option(help="Independent splits.")] = 3,
    leave_out: Annotated[
        Left | None,
        typer.Option(help="Instead of folds: train without each data set, or each model, in turn."),
    ] = None,
    recipe: RecipePath = None,
    catalog: CatalogPaths = None,
    encoder: EncoderName = None,
    cost_weight: Annotated[
        list[float] | None,
        typer.Option(help="Trade-offs to judge (repeat); 0 and six up to 2 / median cost if none."),
    ] = None,
    cascade: Annotated[
        bool, typer.Option(help="Also judge the cascade alone, without the critic (slower).")
    ] = False,
    baselines: Annotated[
        bool, typer.Option(help="Judge all baselines, not the best fixed plan alone.")
    ] = True,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder for report.html, figures/, evaluation.json, table.md."
        ),
    ] = None,
    report: Annotated[
        bool, typer.Option(help="Write report.html and its figures into --out.")
    ] = True,
    note: Annotated[
        list[str] | None,
        typer.Option(help="What readers must know of the data (repeat): printed on the report."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
    strict: Strict = False,
    problems: ProblemPaths = None,
    checkpoint: CheckpointId = None,
    llm: Llm = None,
    plan: FixedPlans = None,
    repeats: Repeats = None,
    k: PassAtK = None,
    limit: Limit = None,
    willingness_to_pay: WillingnessToPay = None,
    max_cost_usd: MaxCost = None,
    budget_usd: Budget = None,
    concurrency: Concurrency = None,
    deadline_s: Deadline = None,
    max_tokens: MaxTokens = None,
    retry_failed: RetryFailed = False,
    simulated_seed: SimulatedSeed = None,
    dry_run: DryRun = False,
) -> None:
    """What would a router have got and paid, against what simple rules would have?

    With --logs on your own logs: it trains on part of the queries and looks the choices up on the
    rest, so the logs must be a grid (each query run under several plans). With --problems it runs
    a trained router's teams and fixed plans, and grades both; the options that begin with
    "problems:" belong to that. Unfinished work in --out is resumed.

    \b
    masrouter evaluate --logs my_logs/
    masrouter evaluate --logs runs.parquet --folds 5 --seeds 3 --out report/  # report/report.html
    masrouter evaluate --logs runs.parquet --leave-out model
    masrouter evaluate --problems my_problems.jsonl -c checkpoints/mine --out live/ --dry-run
    masrouter evaluate --problems my_problems.jsonl -c checkpoints/mine --llm providers.yaml \\
        --budget-usd 2 --out live/
    """
    if bool(logs) == bool(problems):
        raise EvaluationError(
            "evaluate: name what to judge on: --logs (looks choices up) or --problems (runs them)"
            + (", not both" if logs else "")
        )
    if problems:
        _refuse(context, LOGS_ONLY, "--logs")
        evaluate_problems(
            problems,
            checkpoint=checkpoint,
            out=out,
            llm=llm,
            plans=plan,
            repeats=repeats,
            ks=k,
            limit=limit,
            willingness_to_pay=willingness_to_pay,
            max_cost_usd=max_cost_usd,
            budget_usd=budget_usd,
            concurrency=concurrency,
            deadline_s=deadline_s,
            max_tokens=max_tokens,
            retry_failed=retry_failed,
            catalog=catalog,
            simulated_seed=simulated_seed,
            dry_run=dry_run,
            as_json=as_json,
        )
        return
    _refuse(context, PROBLEMS_ONLY, "--problems")
    assert logs is not None
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    config = config_of(recipe, None, encoder, None, None)
    table = read(logs, strict, console)
    outcomes = Outcomes.from_logs(table)
    progress = Progress(console)
    progress.say(f"{outcomes.kind} logs: {outcomes.why}")
    for line in outcomes.notes:
        progress.say(f"note: {line}")
    text_encoder = load_encoder(config.encoder, cache=EmbeddingCache())
    embeddings = text_encoder.encode(outcomes.queries, progress=True)
    names = Catalog.load(*catalog) if catalog else None
    router = RouterLearner(config, text_encoder, names)
    learners: list[Learner] = [router]
    if cascade:
        learners.append(RouterLearner(config, text_encoder, names, cascade=True))
    learners += default_baselines() if baselines else (BestFixedPlan(),)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    data = ", ".join(path.stem or str(path) for path in logs)
    synthetic = any("synthetic" in dataset for dataset in outcomes.datasets)
    for name, result in _validate(
        outcomes, embeddings, learners, folds, seeds, leave_out, cost_weight, out, progress
    ).items():
        title = f"{data}, without {name}" if name else data
        evaluation = summarise(result, data=title, synthetic=synthetic, notes=note or ())
        if report and out is not None and leave_out is None:
            progress.say("explaining a few queries")
            evaluation = with_examples(evaluation, result, embeddings, router, table, folds=folds)
        _show(evaluation, as_json)
        if out is not None:
            folder = out / _file_name(name) if name else out
            _write(evaluation, folder, report, console)


def _refuse(context: typer.Context, names: tuple[str, ...], belongs_to: str) -> None:
    """EvaluationError for an option that was given and would do nothing."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = "--" + name.replace("_", "-")
            raise EvaluationError(f"{option} belongs to {belongs_to}, which was not given")


def _validate(
    outcomes: Outcomes,
    embeddings: NDArray[np.float32],
    learners: list[Learner],
    folds: int,
    seeds: int,
    leave_out: Left | None,
    cost_weights: list[float] | None,
    out: Path | None,
    progress: Progress,
) -> dict[str, CrossValidation]:
    """Results by what was left out; the empty name is plain folds."""
    units = out / "units.jsonl" if out is not None else None
    with progress.counted("evaluating") as count:
        options = {"cost_weights": cost_weights, "progress": count, "checkpoint_file": units}
        if leave_out is Left.DATASET:
            result = leave_one_dataset_out(outcomes, embeddings, learners, **options)  # type: ignore[arg-type]
            return {"each data set in turn": result}
        if leave_out is Left.MODEL:
            return leave_one_model_out(outcomes, embeddings, learners, folds=folds, **options)  # type: ignore[arg-type]
        result = cross_validate(
            outcomes,
            embeddings,
            learners,
            folds=folds,
            seeds=tuple(range(seeds)),
            **options,  # type: ignore[arg-type]
        )
    return {"": result}


def _show(evaluation: Evaluation, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(json.loads(to_json(evaluation))))
    else:
        # Narrower, the tables lose digits; a terminal wraps, a file does not care.
        width = max(Console().width, REPORT_WIDTH)
        print_report(evaluation, Console(highlight=False, width=width))


def _write(evaluation: Evaluation, folder: Path, report: bool, console: Console) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.json").write_text(to_json(evaluation), encoding="utf-8")
    tables = [to_markdown(evaluation, view) for view in ("cost weights", "summary")]
    (folder / "table.md").write_text("\n\n".join(tables) + "\n", encoding="utf-8")
    if not report:
        return
    try:
        page = write_report(evaluation, folder, subject=ROUTER)
    except EvaluationError as error:
        console.print(f"no report: {error}", markup=False)
    else:
        console.print(f"wrote {page}", markup=False)


def _file_name(name: str) -> str:
    return "without-" + "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
