"""`masrouter deliberate`: when is a cheap model's answer to be trusted, and what does that save?"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from masrouter.catalog import Catalog
from masrouter.cli_collected import collecting, file_digest
from masrouter.cli_deliberating import print_asking, print_deliberating
from masrouter.cli_iterating import collect_iterate_command, iterate_command
from masrouter.cli_matching import collect_match_command, match_command
from masrouter.cli_models import SIMULATED, chat_model, run_connected, some_problems
from masrouter.cli_options import CatalogPaths
from masrouter.delegation.calibration.agreement import Calibration, calibrate
from masrouter.delegation.calibration.asking import AskingCalibration, calibrate_asking
from masrouter.delegation.calibration.choosing import Goal
from masrouter.delegation.calibration.collecting import collect_samples
from masrouter.delegation.calibration.gaps import some_gaps
from masrouter.delegation.calibration.sampled import read_samples, sample_line
from masrouter.delegation.delegator import Delegator
from masrouter.delegation.deliberation.thresholds import Thresholds
from masrouter.delegation.naming.settings import Settings
from masrouter.errors import ConfigError, EvaluationError

app = typer.Typer(
    name="deliberate",
    help="When to delegate and when to ask, chosen on logged samples.\n\n"
    "\b\n"
    "collect -> report -> calibrate: when to delegate, when to ask first\n"
    "collect-match -> match: when a request is a worker's\n"
    "collect-iterate -> iterate: how far to ask for what drafts lack",
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
AskTolerance = Annotated[
    float,
    typer.Option(
        help="Score that may be lost by asking first, which scores nothing, against answering.",
        min=0.0,
    ),
]
Answered = Annotated[
    bool,
    typer.Option(
        "--answered",
        help="Choose when to ask by what comes where questions are answered; else asking scores "
        "nothing. Who answers is not paid in this.",
    ),
]
CostWeight = Annotated[
    float | None,
    typer.Option(help="Instead of the tolerances: score units that a US dollar is worth.", min=0.0),
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
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="The file of samples; one that is there is gone on with."),
    ],
    cheap: Annotated[str, typer.Option(help="The model that is asked several times.")],
    strong: Annotated[str, typer.Option(help="The model or plan that it may delegate to.")],
    llm: Annotated[str, typer.Option(help="A providers file, or `simulated`.")] = SIMULATED,
    samples: Annotated[int, typer.Option(help="Of the cheap model, a problem.", min=2)] = 5,
    steps: Annotated[
        bool,
        typer.Option(
            "--steps",
            help="Also draw samples in numbered steps and the strong model's step where they part: "
            "whether it pays to delegate the step alone. More than twice the calls.",
        ),
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Also ask the cheap model what is missing, one short call a query."
        ),
    ] = False,
    gaps: Annotated[
        float,
        typer.Option(
            help="For this share of the problems, log the problem with a needed part cut out as "
            "well: whether it pays to ask first can only be told where some queries lack "
            "something.",
            min=0.0,
            max=1.0,
        ),
    ] = 0.0,
    budget: Annotated[
        float | None, typer.Option(help="Most US dollars of this run; no limit else.", min=0.0)
    ] = None,
    limit: Annotated[int | None, typer.Option(help="So many problems, spread evenly.")] = None,
    settings: Annotated[
        Path | None, typer.Option(help="YAML with aliases, tiers and plans.")
    ] = None,
    catalog: CatalogPaths = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Run problems both ways and log it for `calibrate`.

    \b
    masrouter deliberate collect -p data/problems --cheap gpt-4o-mini --strong o3-mini -o s.jsonl
    masrouter deliberate collect -p data/problems --cheap gpt-4o-mini --strong o3-mini \\
        --gaps 0.25 --check -o s.jsonl

    Ctrl-C and a budget that is used up lose nothing: the same command again asks what is left. How
    a file was made stands beside it, in `s.jsonl.setting.json`.
    """
    setting = {
        "cheap": cheap, "strong": strong, "llm": llm, "samples": samples, "steps": steps,
        "check": check, "gaps": gaps, "seed": seed, "settings": file_digest(settings),
    }  # fmt: skip
    chosen = some_problems(problems, limit)
    cut = some_gaps(chosen, gaps, seed)
    if gaps and not cut:
        raise ConfigError("--gaps: nothing can be cut out of these problems; raise the share")
    known = Catalog.load(*catalog) if catalog else Catalog.default()
    model = chat_model(llm, chosen, known, seed=seed, gaps=cut)
    delegator = Delegator(
        model, None if settings is None else Settings.load(settings, catalog=known), catalog=known
    )
    with collecting(out, setting, read_samples, sample_line, problems=chosen, cut=cut) as log:
        run_connected(
            model,
            lambda: collect_samples(
                log.tasks, cheap=cheap, strong=strong, delegator=delegator, samples=samples,
                steps=steps, check=check, labels=log.labels, budget_usd=budget, seed=seed,
                on_query=log.keep, on_failure=log.failures.append,
            ),
        )  # fmt: skip
    if 2 * len(log.failures) > len(log.tasks) * (samples * (1 + steps) + 1 + check):
        raise ConfigError(
            f"{out}: most calls failed, so it says little of the models; see above, and remove the "
            "file before you try again"
        )


@app.command("calibrate")
def calibrate_command(
    samples: Samples,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the thresholds go (JSON).")],
    tolerance: Tolerance = 0.01,
    ask_tolerance: AskTolerance = 0.005,
    answered: Answered = False,
    cost_weight: CostWeight = None,
    at_once: AtOnce = False,
    folds: Folds = 5,
    seed: Seed = 0,
) -> None:
    """Choose when to delegate and ask; write it to a file.

    \b
    masrouter deliberate calibrate samples.jsonl -o thresholds.json
    masrouter delegate "..." --cheap small --strong large --thresholds thresholds.json

    How many samples to draw, how many of them must agree and, where the log has steps, whether to
    delegate the step alone. Where the log says which queries lack something (`collect --gaps`),
    also when to ask instead of answering. Other parts of a file that is there are kept.
    """
    found, asking, checked = _calibrated(
        samples, tolerance, ask_tolerance, answered, cost_weight, at_once, folds, seed
    )
    chosen_on = {"rule": found.to_json()}
    if asking is not None:
        chosen_on["missing"] = asking.to_json()
    Thresholds.updated(
        out,
        rule=found.rule,
        missing=None if asking is None else asking.rule,
        chosen_on=chosen_on,
    )
    _print(found, asking, checked)
    typer.echo(f"wrote {out}", err=True)


@app.command()
def report(
    samples: Samples,
    tolerance: Tolerance = 0.01,
    ask_tolerance: AskTolerance = 0.005,
    answered: Answered = False,
    cost_weight: CostWeight = None,
    at_once: AtOnce = False,
    folds: Folds = 5,
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """What deliberating saves, on queries not chosen on.

    \b
    masrouter deliberate report samples.jsonl

    Against always delegating, never, and by the message's length. And what asking first saves,
    where the log says which queries lack something.
    """
    found, asking, checked = _calibrated(
        samples, tolerance, ask_tolerance, answered, cost_weight, at_once, folds, seed
    )
    if as_json:
        told = {
            "rule": {**asdict(found.rule), "needed": found.rule.needed},
            **found.to_json(),
            "asking": None
            if asking is None
            else {
                "weights": dict(asking.rule.weights),
                "threshold": asking.rule.threshold,
                **asking.to_json(),
            },
        }
        typer.echo(json.dumps(told, indent=2, allow_nan=False))
    else:
        _print(found, asking, checked)


def _calibrated(
    samples: list[Path],
    tolerance: float,
    ask_tolerance: float,
    answered: bool,
    cost_weight: float | None,
    at_once: bool,
    folds: int,
    seed: int,
) -> tuple[Calibration, AskingCalibration | None, bool]:
    """When to delegate, and when to ask first; None, and a note, where the log cannot tell.

    Behind it, whether every query has the cheap model's own word on what is missing.
    """
    queries = read_samples(*samples)
    checked = all(query.check is not None for query in queries)
    found = calibrate(
        queries,
        goal=Goal(tolerance, cost_weight),
        stop_early=not at_once,
        folds=folds,
        seed=seed,
    )
    if all(query.lacks is None for query in queries):
        typer.echo(
            "note: the log does not say which queries lack something, so when to ask first is not "
            "calibrated; `masrouter deliberate collect --gaps 0.25` logs it",
            err=True,
        )
        return found, None, checked
    try:
        asking = calibrate_asking(
            queries,
            rule=found.rule,
            tolerance=ask_tolerance,
            cost_weight=cost_weight,
            answered=answered,
            folds=folds,
            seed=seed,
        )
    except EvaluationError as error:
        typer.echo(f"note: when to ask first is not calibrated: {error}", err=True)
        return found, None, checked
    return found, asking, checked


def _print(found: Calibration, asking: AskingCalibration | None, checked: bool) -> None:
    print_deliberating(found)
    if asking is not None:
        print_asking(asking, checked=checked)


# Of the other files' commands, what the list of commands has room for.
app.command("collect-match", short_help="Run problems on the nearest worker and on --otherwise.")(
    collect_match_command
)
app.command("match", short_help="Choose when a request is a worker's; write it to a file.")(
    match_command
)
app.command("collect-iterate", short_help="Run problems in every way of iterating; log it.")(
    collect_iterate_command
)
app.command("iterate", short_help="Choose how far to iterate; write it to a file.")(iterate_command)
