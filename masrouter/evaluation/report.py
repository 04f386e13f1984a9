"""How an evaluation looks: a table in the terminal, Markdown, JSON and a picture of the frontier.

Not here: any number that is not already in the Evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from masrouter.errors import EvaluationError
from masrouter.evaluation.baselines import BEST_FIXED, CHEAPEST, ORACLE, default_baselines
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
    header, rows = _cells(evaluation, view)
    for i, name in enumerate(header):
        out.add_column(Text(name), justify="left" if i == 0 else "right")
    for row in rows:
        # Text, not markup: names of learners come from outside.
        out.add_row(*(Text(cell) for cell in row), style="bold" if row[0] == BEST_FIXED else "")
    return out


def to_markdown(evaluation: Evaluation, view: View = "cost weights") -> str:
    """The same table as Markdown, with its caption below."""
    header, rows = _cells(evaluation, view)
    lines = [
        "| " + " | ".join(header) + " |",
        "|" + "---|" + "---:|" * (len(header) - 1),
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows),
    ]
    return "\n".join([*lines, "", _title(evaluation, view) + ". " + _caption(evaluation, view), ""])


def to_json(evaluation: Evaluation) -> str:
    """Everything, as strict JSON; what is not defined is null."""
    return json.dumps(asdict(evaluation), indent=2, allow_nan=False)


def plot_frontier(
    evaluation: Evaluation, path: str | Path, *, highlight: Sequence[str] | None = None
) -> None:
    """Write the accuracy-cost frontier as a PNG: mean score over mean cost, a point a cost weight.

    `highlight` names the learners drawn thick; by default those that are neither a baseline nor the
    oracle. Bars are 95 % bootstrap intervals of the score. Raises EvaluationError where the logs
    have no costs, or where matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
    except ImportError as error:
        raise EvaluationError(
            "drawing the frontier needs matplotlib: install 'masrouter[train]'"
        ) from error
    drawn = [result for result in evaluation.learners if result.curve]
    if not drawn or any(point.cost <= 0 for result in drawn for point in result.curve):
        raise EvaluationError("these logs have no costs to draw a frontier over")
    if highlight is None:
        known = {learner.name for learner in default_baselines()} | {ORACLE}
        highlight = [result.name for result in drawn if result.name not in known]
    for name in highlight:
        evaluation.learner(name)

    figure = Figure(figsize=(9.0, 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    others = iter(_OTHER_STYLES * (1 + len(drawn) // len(_OTHER_STYLES)))
    for result in drawn:
        points = sorted(result.curve, key=lambda point: point.cost)
        x, y = [p.cost for p in points], [p.score for p in points]
        below = [p.score - p.score_interval.low for p in points]
        above = [p.score_interval.high - p.score for p in points]
        if result.name in highlight:
            color, marker, thick, order = "#c1121f", "o", 2.6, 5
        elif result.name == ORACLE:
            color, marker, thick, order = "#2f2f2f", "*", 1.2, 2
        elif result.name == BEST_FIXED:
            color, marker, thick, order = "#1d3557", "s", 1.8, 4
        else:
            (color, marker), thick, order = next(others), 1.0, 3
        strong = order >= 4
        axes.errorbar(
            x,
            y,
            yerr=[below, above] if strong else None,
            label=result.name,
            color=color,
            marker=marker,
            markersize=6 if strong else 4,
            linewidth=thick,
            linestyle=":" if result.name == ORACLE else "-",
            elinewidth=0.9,
            capsize=2.5,
            alpha=1.0 if strong or result.name == ORACLE else 0.75,
            zorder=order,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(base=10.0, subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _dollars(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", rotation=30)
    axes.set_xlabel("mean cost per query (US dollars, log scale)")
    axes.set_ylabel("mean score")
    axes.grid(True, alpha=0.25)
    data = evaluation.data or "logs"
    synthetic = "SYNTHETIC DATA: " if evaluation.synthetic else ""
    axes.set_title(
        f"{synthetic}{data}, {evaluation.curve_queries} queries, {evaluation.protocol}\n"
        "one point a cost weight; bars: 95 % bootstrap intervals over queries",
        fontsize=10,
    )
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=150)


_OTHER_STYLES = [
    ("#457b9d", "^"),
    ("#2a9d8f", "v"),
    ("#e9c46a", "D"),
    ("#f4a261", "P"),
    ("#8d6a9f", "X"),
    ("#90be6d", "<"),
    ("#b08968", ">"),
    ("#7f8c8d", "h"),
    ("#5e60ce", "p"),
    ("#d68fd6", "d"),
]


def _dollars(value: float) -> str:
    return "$" + f"{value:.10f}".rstrip("0").rstrip(".")


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


def _cells(evaluation: Evaluation, view: View) -> tuple[list[str], list[list[str]]]:
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
    return "–" if value is None else f"{value:.3f}"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
