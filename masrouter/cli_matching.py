"""`masrouter deliberate match`: when a request is a worker's, by logged outcomes.

Two commands, registered by `cli_deliberate`: `collect-match` makes the log, `match` chooses on it.
"""

from __future__ import annotations

import contextlib
import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from masrouter.catalog import Catalog
from masrouter.cli_collected import grade_of, progress
from masrouter.cli_deliberating import compared_table, told, wide_console
from masrouter.cli_models import SIMULATED, chat_model, run_connected, some_problems
from masrouter.cli_options import CatalogPaths
from masrouter.delegation.calibration.matching import (
    MatchingCalibration,
    calibrate_matching,
)
from masrouter.delegation.calibration.matching_outcomes import (
    collect_matching,
    only_other_plan,
    other_plans,
)
from masrouter.delegation.delegator import Delegator
from masrouter.delegation.deliberation.thresholds import Thresholds
from masrouter.delegation.naming.settings import Settings
from masrouter.delegation.tasks import Task
from masrouter.delegation.workers.worker_file import read_worker_file
from masrouter.encoder import load_encoder
from masrouter.encoder.weights import DEFAULT_ENCODER
from masrouter.importers.assembly import query_id
from masrouter.logs import LogWriter, read_logs
from masrouter.problems import CodeTests
from masrouter.sandbox import Sandbox
from masrouter.types import LogRecord

Workers = Annotated[Path, typer.Option(help="A YAML file of workers.")]
EncoderName = Annotated[
    str, typer.Option("--encoder", help="In whose space requests and workers are compared.")
]


def match_command(
    logs: Annotated[
        list[Path],
        typer.Argument(
            metavar="LOG...", help="Logs with both outcomes of every request.", show_default=False
        ),
    ],
    workers: Workers,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the thresholds go (JSON).")],
    otherwise: Annotated[
        str | None,
        typer.Option(
            help="The model or plan of requests that no worker fits, as in the log; else the only "
            "one there that is no worker."
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Score that may be lost against the best rule.", min=0.0)
    ] = 0.01,
    cost_weight: Annotated[
        float | None,
        typer.Option(
            help="Instead of the tolerance: score units that a US dollar is worth.", min=0.0
        ),
    ] = None,
    fall_back: Annotated[
        bool,
        typer.Option(
            "--fall-back/--no-fall-back",
            help="Whether --otherwise is asked after a worker that failed, as the policy does.",
        ),
    ] = True,
    encoder: EncoderName = DEFAULT_ENCODER,
    folds: Annotated[int, typer.Option(help="Of the cross-validation.", min=2)] = 5,
    seed: Annotated[int, typer.Option(help="Of folds and bootstrap draws.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """Choose when a request fits the worker nearest to it, and write it to a file.

    \b
    masrouter deliberate match log.jsonl --workers workers.yaml -o thresholds.json

    What matching gives stands against always the nearest worker, never a worker, and short requests
    to a worker. `collect-match` makes such a log of problems. Other parts of a file that is there
    are kept. A settings file uses it: `policies: {fitting: {match: {otherwise: small, thresholds:
    thresholds.json}}}`.
    """
    records = list(read_logs(logs, strict=True))
    others = read_worker_file(workers)
    if otherwise is None:
        otherwise = only_other_plan(records, others)
        typer.echo(f"otherwise: {otherwise}, the only plan of the log that is no worker", err=True)
    found = calibrate_matching(
        records,
        others,
        load_encoder(encoder),
        otherwise=otherwise,
        tolerance=tolerance,
        cost_weight=cost_weight,
        fall_back=fall_back,
        folds=folds,
        seed=seed,
    )
    Thresholds.updated(out, matching=found.rule, chosen_on={"matching": found.to_json()})
    if as_json:
        rule = {"threshold": found.rule.threshold, "chat_weight": found.rule.chat_weight}
        typer.echo(json.dumps({"rule": rule, **found.to_json()}, indent=2, allow_nan=False))
    else:
        _print(found)
    typer.echo(f"wrote {out}", err=True)


def collect_match_command(
    problems: Annotated[list[Path], typer.Option("--problems", "-p", help="Problem files.")],
    workers: Workers,
    otherwise: Annotated[
        str, typer.Option(help="The model or plan of requests that no worker fits.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="A .jsonl log; one that is there is gone on with.")
    ],
    llm: Annotated[str, typer.Option(help="A providers file, or `simulated`.")] = SIMULATED,
    encoder: EncoderName = DEFAULT_ENCODER,
    budget: Annotated[
        float | None, typer.Option(help="Most US dollars of this run; no limit else.", min=0.0)
    ] = None,
    limit: Annotated[int | None, typer.Option(help="So many problems, spread evenly.")] = None,
    settings: Annotated[
        Path | None, typer.Option(help="YAML with aliases, tiers and plans.")
    ] = None,
    catalog: CatalogPaths = None,
    seed: Annotated[int, typer.Option(help="Of the runs.", min=0)] = 0,
) -> None:
    """Run each problem on the worker nearest to it and on --otherwise: what `match` needs.

    \b
    masrouter deliberate collect-match -p requests.jsonl --workers workers.yaml \\
        --otherwise small --llm providers.yaml -o log.jsonl

    Ctrl-C and a budget that is used up lose nothing: the same command again runs what is left.
    """
    chosen = some_problems(problems, limit)
    others = read_worker_file(workers)
    known = Catalog.load(*catalog or ())
    model = chat_model(llm, chosen, known, seed=seed)
    delegator = Delegator(
        model,
        None if settings is None else Settings.load(settings, catalog=known),
        workers=others,
        catalog=known,
    )
    rows = Counter(r.query_id for r in read_logs(out, strict=True)) if out.exists() else Counter()
    left = [problem for problem in chosen if rows[query_id(problem.query)] < 2]
    failed = 0
    with contextlib.ExitStack() as stack:
        programs = any(isinstance(problem.grader, CodeTests) for problem in left)
        sandbox = stack.enter_context(Sandbox()) if programs else None
        writer = stack.enter_context(LogWriter(out))
        advance = stack.enter_context(progress(len(chosen), len(chosen) - len(left)))
        tasks = [Task(p.query, kind=p.task, grade=grade_of(p, sandbox)) for p in left]

        def keep(records: Sequence[LogRecord]) -> None:
            nonlocal failed
            for record in records:
                writer.append(record)
                failed += record.error is not None
            advance()

        run_connected(
            model,
            lambda: collect_matching(
                tasks, others, load_encoder(encoder), delegator=delegator, otherwise=otherwise,
                budget_usd=budget, seed=seed, on_request=keep,
            ),
        )  # fmt: skip
    typer.echo(f"{out}: {len(chosen)} problems, each on two plans", err=True)
    if failed:
        typer.echo(f"note: {failed} runs failed; `match` tells what they count as", err=True)
    # By id, as the log has it: what `otherwise` was called here is not known to `match`.
    names = other_plans(read_logs(out, strict=True), others)
    words = ["masrouter", "deliberate", "match", str(out), "--workers", str(workers)]
    words += ["--otherwise", names[0]] if len(names) == 1 else []
    words += [] if encoder == DEFAULT_ENCODER else ["--encoder", encoder]
    typer.echo(f"next: {shlex.join([*words, '-o', 'thresholds.json'])}", err=True)


_MEANINGS: Mapping[str, str] = {
    "match": "match",
    "nearest": "always the nearest worker",
    "never": "never a worker",
    "length": "short requests to a worker",
    "shipped": "the default rule",
    "best": "best, known afterwards",
}


def _print(found: MatchingCalibration) -> None:
    table = compared_table(
        found.rows,
        {one.name: (told(one.score, "+.3f"), told(one.cost_usd, "+.6f")) for one in found.against},
        unit="request",
        shares={"to workers": "matched"},
        last=("match scores more", "and costs more"),
        meanings=_MEANINGS,
    )
    console = wide_console()
    console.print(table)
    by_fold = ", ".join(f"{rule.threshold:.3f}/{rule.chat_weight:g}" for rule in found.chosen)
    chosen = (
        f"no worker is worth asking: all requests go to {found.otherwise}"
        if found.asks_nobody
        else f"a worker fits from {found.rule.threshold:.3f} on, with a weight of "
        f"{found.rule.chat_weight:g} for chat work"
    )
    console.print(
        f"chosen on all {found.requests} requests: {chosen} (by fold: {by_fold}); "
        f"short is up to {found.length} characters. 95 % intervals over requests, each judged by "
        "a choice made without it.",
        soft_wrap=True,
    )
    of_workers, of_model = found.failed
    if of_workers or of_model:
        wrong = "runs of workers failed"
        if found.fall_back:
            wrong += f", and count as what {found.otherwise} gave next, at the cost of both"
        else:
            wrong += ", and count as wrong answers"
        typer.echo(
            f"note: {of_workers} {wrong}; {of_model} of {found.otherwise} failed, and count as "
            "wrong answers",
            err=True,
        )
