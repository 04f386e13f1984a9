"""How a learning curve looks: a table in the terminal, Markdown and JSON.

Not here: any number that is not already in the ColdStart.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from masrouter.evaluation.cold_start import ColdStart, ColdStartPoint, Estimate

HEADER = (
    "the router knows the model by",
    "squared error of its scores",
    "error of a plan's mean",
    "mean in its interval",
    "utility gained",
    "queries that get it",
)


def print_cold_start(results: Sequence[ColdStart], console: Console) -> None:
    """A table for each model, with its notes."""
    for result in results:
        table = Table(title=Text(_title(result)), caption=Text(_caption(result)))
        for i, name in enumerate(HEADER):
            table.add_column(Text(name), justify="left" if i == 0 else "right")
        for point in result.points:
            # Text, not markup: names of models come from outside.
            table.add_row(*(Text(cell) for cell in _cells(point)))
        console.print(table)
        for note in result.notes:
            console.print(Text(f"note: {note}", style="dim"))


def cold_start_markdown(results: Sequence[ColdStart]) -> str:
    """The same as Markdown."""
    lines = []
    for result in results:
        lines += [f"**{_title(result)}**", "", "| " + " | ".join(HEADER) + " |"]
        lines.append("|---|" + "---:|" * (len(HEADER) - 1))
        lines += ["| " + " | ".join(_cells(point)) + " |" for point in result.points]
        lines += ["", _caption(result)]
        lines += [f"Note: {note}." for note in result.notes]
        lines.append("")
    return "\n".join(lines)


def cold_start_json(results: Sequence[ColdStart]) -> str:
    """Everything, as strict JSON; what is not defined is null."""
    return json.dumps([asdict(result) for result in results], indent=2, allow_nan=False)


def _cells(point: ColdStartPoint) -> tuple[str, ...]:
    return (
        "description" if point.probes == 0 else point.name,
        _estimate(point.squared_error, "{:.4f}"),
        "-" if point.plan_error is None else f"{point.plan_error:.3f}",
        "-" if point.coverage is None else f"{point.coverage:.0%}",
        _estimate(point.gain, "{:+.4f}") if point.name != "without" else "0",
        f"{sum(point.taken) / len(point.taken):.0%}",
    )


def _estimate(estimate: Estimate | None, form: str) -> str:
    if estimate is None:
        return "-"
    mean, low, high = (
        form.format(value)
        for value in (estimate.mean, estimate.interval.low, estimate.interval.high)
    )
    return f"{mean} ({low} to {high})"


def _title(result: ColdStart) -> str:
    return f"{result.model} joins after training ({len(result.plans)} plans)"


def _caption(result: ColdStart) -> str:
    return (
        f"{result.queries} held-out queries, mean over {len(result.cost_weights)} cost weights and "
        f"{result.draws} draws of probes, 95 % bootstrap intervals over queries. Utility gained: "
        "over the router without the model, on the same queries. Error of a plan's mean: expected "
        "less realised over the held-out queries of a fold, whose own luck is in it too."
    )
