"""`masrouter deliberate iterate`: how far to ask for what drafts lack, by logged outcomes.

Two commands, registered by `cli_deliberate`: `collect-iterate` makes the log, `iterate` chooses on
it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from masrouter.catalog import Catalog
from masrouter.cli_collected import collecting, file_digest
from masrouter.cli_deliberating import compared_table, savings, wide_console
from masrouter.cli_models import SIMULATED, chat_model, run_connected, some_problems
from masrouter.cli_options import CatalogPaths
from masrouter.delegation.calibration.choosing import Goal
from masrouter.delegation.calibration.gaps import some_gaps
from masrouter.delegation.calibration.iterating import IteratingCalibration, calibrate_iterating
from masrouter.delegation.calibration.iterations import (
    collect_iterations,
    iteration_line,
    read_iterations,
)
from masrouter.delegation.delegator import Delegator
from masrouter.delegation.deliberation.iterating import by_description
from masrouter.delegation.deliberation.iterating_rule import IteratingRule
from masrouter.delegation.deliberation.thresholds import Thresholds
from masrouter.delegation.naming.settings import Settings
from masrouter.delegation.workers.worker_file import read_worker_file
from masrouter.encoder import load_encoder
from masrouter.encoder.weights import DEFAULT_ENCODER
from masrouter.errors import ConfigError


def iterate_command(
    logs: Annotated[
        list[Path],
        typer.Argument(
            metavar="LOG...", help="Logs with every way of every query.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the thresholds go (JSON).")],
    tolerance: Annotated[
        float, typer.Option(help="Score that may be lost against the best way.", min=0.0)
    ] = 0.01,
    cost_weight: Annotated[
        float | None,
        typer.Option(
            help="Instead of the tolerance: score units that a US dollar is worth.", min=0.0
        ),
    ] = None,
    folds: Annotated[int, typer.Option(help="Of the cross-validation.", min=2)] = 5,
    seed: Annotated[int, typer.Option(help="Of folds and bootstrap draws.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """Choose rounds, requests and whether to look up ahead, and write it to a file.

    \b
    masrouter deliberate iterate log.jsonl -o thresholds.json

    What iterating gives stands against always the strong model, never asking, and iterating on long
    queries alone. `collect-iterate` makes such a log of problems. Other parts of a file that is
    there are kept. A settings file uses it: `policies: {researched: {iterate: {model: medium,
    subtask: small, thresholds: thresholds.json}}}`.
    """
    found = calibrate_iterating(
        read_iterations(*logs), goal=Goal(tolerance, cost_weight), folds=folds, seed=seed
    )
    Thresholds.updated(out, iterating=found.rule, chosen_on={"iterating": found.to_json()})
    if as_json:
        data = {"rule": asdict(found.rule), **found.to_json()}
        typer.echo(json.dumps(data, indent=2, allow_nan=False))
    else:
        _print(found)
    typer.echo(f"wrote {out}", err=True)


def collect_iterate_command(
    problems: Annotated[list[Path], typer.Option("--problems", "-p", help="Problem files.")],
    model: Annotated[str, typer.Option(help="Writes the drafts.")],
    strong: Annotated[str, typer.Option(help="The model or plan to compare with.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="A .jsonl log; one that is there is gone on with.")
    ],
    subtask: Annotated[
        str | None,
        typer.Option(help="Is asked for what no worker fits; nobody is where it is left out."),
    ] = None,
    workers: Annotated[
        Path | None, typer.Option(help="A YAML file of workers, asked by their descriptions.")
    ] = None,
    ahead: Annotated[
        str | None,
        typer.Option(help="Try as well to ask it with the goal first: a worker that looks up."),
    ] = None,
    llm: Annotated[str, typer.Option(help="A providers file, or `simulated`.")] = SIMULATED,
    rounds: Annotated[int, typer.Option(help="Drafts at most.", min=1, max=64)] = 3,
    requests: Annotated[
        list[int] | None,
        typer.Option(
            help="Asked for after a draft, at most (repeat the option).", show_default="1, 2, 4"
        ),
    ] = None,
    gaps: Annotated[
        float,
        typer.Option(
            help="For this share of the problems, log the problem with a needed part cut out as "
            "well.",
            min=0.0,
            max=1.0,
        ),
    ] = 0.0,
    thresholds: Annotated[
        Path | None,
        typer.Option(help="A file that says when a worker fits (`match`); else the default rule."),
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="In whose space requests and workers are compared.")
    ] = DEFAULT_ENCODER,
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
    """Run each problem in every way of iterating, once plainly and once by --strong.

    \b
    masrouter deliberate collect-iterate -p problems.jsonl --llm providers.yaml --model small \\
        --strong large --subtask medium -o log.jsonl
    masrouter deliberate collect-iterate -p problems.jsonl --llm providers.yaml --model small \\
        --strong large --workers workers.yaml --ahead notes --gaps 0.5 -o log.jsonl

    Ctrl-C and a budget that is used up lose nothing: the same command again runs what is left. How
    a log was made stands beside it, in `log.jsonl.setting.json`.
    """
    if subtask is None and workers is None and ahead is None:
        raise ConfigError(
            "collect-iterate: nobody could be asked for what is missing; name --subtask, --workers "
            "or --ahead"
        )
    counts = tuple(requests or (1, 2, 4))
    setting = {
        "model": model, "strong": strong, "subtask": subtask, "workers": file_digest(workers),
        "thresholds": file_digest(thresholds), "encoder": encoder, "ahead": ahead, "llm": llm,
        "rounds": rounds, "requests": list(counts), "gaps": gaps, "seed": seed,
        "settings": file_digest(settings),
    }  # fmt: skip
    chosen = some_problems(problems, limit)
    cut = some_gaps(chosen, gaps, seed)
    if gaps and not cut:
        raise ConfigError("--gaps: nothing can be cut out of these problems; raise the share")
    others = () if workers is None else read_worker_file(workers)
    rule = None if thresholds is None else Thresholds.load(thresholds).matching
    find = by_description(others, load_encoder(encoder), rule=rule) if others else None
    known = Catalog.load(*catalog) if catalog else Catalog.default()
    asked = chat_model(llm, chosen, known, seed=seed, gaps=cut)
    delegator = Delegator(
        asked,
        None if settings is None else Settings.load(settings, catalog=known),
        workers=others,
        catalog=known,
    )
    with collecting(
        out, setting, read_iterations, iteration_line, problems=chosen, cut=cut,
        failed="count as wrong answers where nothing else stands",
    ) as log:  # fmt: skip
        groups = {name: one.group for name, one in log.labels.items() if one.group is not None}
        run_connected(
            asked,
            lambda: collect_iterations(
                log.tasks, delegator=delegator, model=model, strong=strong, subtask=subtask,
                find=find, ahead=ahead, rounds=rounds, requests=counts, groups=groups,
                budget_usd=budget, seed=seed, on_query=log.keep, on_failure=log.failures.append,
            ),
        )  # fmt: skip


_MEANINGS: Mapping[str, str] = {
    "iterate": "iterate",
    "always": "always the strong model",
    "never": "never asking",
    "length": "iterating on long queries",
    "draft": "one draft told to say what it lacks",
    "ahead": "one draft after a look-up",
    "shipped": "the default of iterate",
}


def _print(found: IteratingCalibration) -> None:
    table = compared_table(
        found.rows,
        savings(found.against),
        unit="query",
        shares={"may ask": "asking"},
        last=("iterate scores more", "and saves"),
        meanings=_MEANINGS,
    )
    console = wide_console()
    console.print(table)
    by_fold = "; ".join(map(_rule_text, found.chosen))
    length = "long is nothing"
    if found.length is not None:
        length = f"long is from {found.length} characters on, with {_rule_text(found.length_rule)}"
    console.print(
        f"chosen on all {found.queries} queries: {_rule_text(found.rule)} (by fold: {by_fold}); "
        f"{length}. 95 % intervals over queries, each judged by a choice made without it.",
        soft_wrap=True,
    )


def _rule_text(rule: IteratingRule) -> str:
    asked = f"{rule.rounds} rounds, {rule.requests} requests" if rule.rounds > 1 else "1 round"
    return f"{asked}, looked up ahead" if rule.ahead else asked
