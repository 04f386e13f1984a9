"""A replay as one self-contained HTML page, with its figures.

Not here: any number or sentence that is not in the Replay or its words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from masrouter.evaluation.replay.types import Part, Replay
from masrouter.evaluation.replay.words import words
from masrouter.printable import on_one_line
from masrouter.reporting.charts import Chart, draw
from masrouter.reporting.page import render
from masrouter.reporting.palette import FIXED, ROUTER
from masrouter.types import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def write_replay(path: Path, replay: Replay) -> None:
    """Write the page; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(replay_page(replay), encoding="utf-8")


def replay_page(replay: Replay) -> str:
    """The page. Without matplotlib it has no figures, and says so."""
    figures = _figures(replay) if find_spec("matplotlib") else None
    return render(
        "replay.html.j2", told=words(replay), figures=figures, on_one_line=on_one_line,
    )  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A chart and what it shows."""

    chart: Chart
    caption: str


@dataclass(frozen=True)
class _Row:
    """One part as a chart shows it."""

    name: str
    logged: float | None
    router: float | None
    reach: Interval | None
    """Of the router: its 95 % interval, or a worst-case range."""


def _figures(replay: Replay) -> tuple[Figure, ...]:
    ranges = not replay.comparisons
    what = (
        "bars are worst cases of the router's mean score, not estimates"
        if ranges
        else "bars are 95 % intervals of the router's mean"
    )
    found = []
    for name, title, parts in (
        ("domains", "Score by domain", replay.by_domain),
        ("times", "Score over time", replay.over_time),
    ):
        rows = [_row(part, ranges) for part in parts]
        if any(row.reach is not None or row.router is not None for row in rows):
            label = f"{title}: {replay.reference} and the router, {what}"
            found.append(
                Figure(
                    draw(f"replay-{name}", label, lambda axes, rows=rows: _dots(axes, rows),  # type: ignore[misc]
                         size=(4.6, 1.2 + 0.34 * len(rows))),
                    f"{title}. Blue squares: {replay.reference}; red: the router; {what}.",
                )
            )  # fmt: skip
    return tuple(found)


def _row(part: Part, ranges: bool) -> _Row:
    pair = None if part.comparison is None else part.comparison.score
    reference = part.logged.score if pair is None else pair.reference
    logged = None if reference is None else reference.value
    if ranges:
        return _Row(part.name, logged, None, part.score_bounds)
    if pair is None:
        return _Row(part.name, logged, None, None)
    return _Row(part.name, logged, pair.router.value, pair.router.interval)


def _dots(axes: Axes, rows: Sequence[_Row]) -> None:
    for i, row in enumerate(rows):
        if row.reach is not None:
            axes.plot([row.reach.low, row.reach.high], [i + 0.14] * 2, color=ROUTER.light, lw=3)
        if row.router is not None:
            axes.plot([row.router], [i + 0.14], "o", color=ROUTER.light, ms=6)
        if row.logged is not None:
            axes.plot([row.logged], [i - 0.14], "s", color=FIXED.light, ms=6)
    axes.set_yticks(range(len(rows)), [on_one_line(row.name, 28) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("mean score")
