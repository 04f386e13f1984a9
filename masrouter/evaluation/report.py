"""How an evaluation looks: a table in the terminal, Markdown and JSON.

Not here: any number that is not already in the Evaluation; figures and pages
(`masrouter.reporting`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from masrouter.evaluation.baselines import BEST_FIXED, CHEAPEST
from masrouter.evaluation.summary import Evaluation, LearnerResult

View = Literal["cost weights", "summary"]

_SUMMARY: tuple[tuple[str, Callable[[LearnerResult], float | None]], ...] = (
    ("AIQ", lambda r: r.aiq),
    ("APGR", lambda r: r.apgr),
    ("CPT(50%)", lambda r: r.cpt50),
    ("CPT(80%)", lambda r: r.cpt80),
    ("cost saved", lambda r: r.cost_saved),
    ("score gained", lambda r: r.accuracy_gained),
    ("oracle gap", lambda r: _mean([at.oracle_gap_share for at in r.at])),
    ("harmful teams", lambda r: _mean([at.harmful_collaboration for at in r.at])),
    ("ECE", lambda r: _mean([at.calibration_error for at in r.at])),
    ("Brier", lambda r: _mean([at.brier for at in r.at])),
)


def print_report(evaluation: Evaluation, console: Console) -> None:
    """Both tables and the notes."""
    console.print(table(evaluation, "cost weights"))
    console.print(table(evaluation, "summary"))
    for note in evaluation.notes:
        console.print(Text(f"note: {note}", style="dim"))


def table(evaluation: Evaluation, view: View = "cost weights") -> Table:
    """Learners by falling mean difference in utility to the best fixed plan.

    "cost weights": the difference at each cost weight; "summary": the other metrics, means over the
    cost weights where they are defined. A star marks a 95 % interval without 0; a dash what these
    logs cannot answer.
    """
    out = Table(title=Text(_title(evaluation, view)), caption=Text(_caption(evaluation, view)))
    header, rows = cells(evaluation, view)
    for i, name in enumerate(header):
        out.add_column(Text(name), justify="left" if i == 0 else "right")
    for row in rows:
        # Text, not markup: names of learners come from outside.
        out.add_row(*(Text(cell) for cell in row), style="bold" if row[0] == BEST_FIXED else "")
    return out


def to_markdown(evaluation: Evaluation, view: View = "cost weights") -> str:
    """The same table as Markdown, with its caption below."""
    header, rows = cells(evaluation, view)
    lines = [
        "| " + " | ".join(header) + " |",
        "|" + "---|" + "---:|" * (len(header) - 1),
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows),
    ]
    return "\n".join([*lines, "", _title(evaluation, view) + ". " + _caption(evaluation, view), ""])


def to_json(evaluation: Evaluation) -> str:
    """Everything, as strict JSON; what is not defined is null."""
    return json.dumps(asdict(evaluation), indent=2, allow_nan=False)


def _title(evaluation: Evaluation, view: View) -> str:
    what = {
        "cost weights": "Utility less the best fixed plan's",
        "summary": "Frontier and other metrics",
    }[view]
    kind = " [synthetic data]" if evaluation.synthetic else ""
    data = f" on {evaluation.data}" if evaluation.data else ""
    return f"{what}{data}{kind}"


def _caption(evaluation: Evaluation, view: View) -> str:
    seeds = f"{len(evaluation.seeds)} seed{'s' if len(evaluation.seeds) != 1 else ''}"
    about = (
        f"{evaluation.protocol}, {seeds}, {evaluation.queries} queries, {evaluation.plans} plans"
    )
    if view == "cost weights":
        return (
            f"{about}. Paired differences with 95 % bootstrap intervals over queries "
            f"({evaluation.resamples} draws); * marks an interval without 0. Columns are cost "
            "weights (score units per US dollar); the row of the best fixed plan gives its utility."
        )
    anchors = evaluation.anchors
    gap = (
        "no gap is defined on these logs"
        if anchors is None
        else f"the gap is from {CHEAPEST} "
        f"(score {anchors.weak_score:.3f}, ${anchors.weak_cost:.3g}) "
        f"to {BEST_FIXED} (score {anchors.strong_score:.3f}, ${anchors.strong_cost:.3g})"
    )
    return f"{about}. {gap[0].upper()}{gap[1:]}; a dash is what these logs cannot answer."


def cells(evaluation: Evaluation, view: View) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a table, as text."""
    if view == "cost weights":
        header = ["learner", "mean (95 %)", *(f"{w:.3g}" for w in evaluation.cost_weights)]
        return header, [_difference_row(result) for result in evaluation.learners]
    header = ["learner", *(name for name, _ in _SUMMARY)]
    return header, [
        [result.name, *(_number(measure(result)) for _, measure in _SUMMARY)]
        for result in evaluation.learners
    ]


def _difference_row(result: LearnerResult) -> list[str]:
    if result.name == BEST_FIXED:
        return [result.name, "0", *(f"{at.utility:.3f}" for at in result.at)]
    interval = result.interval
    mean = f"{result.difference:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"
    marks = ["" if 0.0 in at.interval else "*" for at in result.at]
    return [
        result.name,
        mean + ("" if 0.0 in interval else "*"),
        *(f"{at.difference:+.3f}{m}" for at, m in zip(result.at, marks, strict=True)),
    ]


def _number(value: float | None) -> str:
    # A value that rounds to zero has no sign.
    return "–" if value is None else f"{value if round(value, 3) else 0.0:.3f}"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
