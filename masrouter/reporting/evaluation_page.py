"""The report of an evaluation: one HTML file, and every figure as SVG and PNG beside it.

Not here: any number that the Evaluation does not hold; the words that its intervals allow
(`headline`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from masrouter.evaluation.report import cells
from masrouter.evaluation.summary import Evaluation, LearnerResult
from masrouter.reporting.exhibit import Exhibit
from masrouter.reporting.frontier_charts import differences, frontier, ranking
from masrouter.reporting.headline import headline, judged_learner
from masrouter.reporting.mix_charts import mixes
from masrouter.reporting.number_formats import fixed, percent, signed, spread, weight
from masrouter.reporting.page import write_page
from masrouter.reporting.quality_charts import calibration, confusion, domains, harmful
from masrouter.reporting.query_page import QueryView, example_view
from masrouter.types import Interval

REPORT = "report.html"
FIGURES = "figures"


def write_report(evaluation: Evaluation, folder: Path, *, subject: str | None = None) -> Path:
    """Write report.html, its figures and frontier.png into a folder; returns the page's path.

    `subject` names the learner that the report is about; by default the best that is no baseline.
    Raises EvaluationError where matplotlib is not installed.
    """
    result = judged_learner(evaluation, subject)
    gains = [
        *frontier(evaluation, result.name),
        ranking(evaluation, result.name),
        differences(evaluation, result.name),
    ]
    trust = _present(calibration(result), domains(result), confusion(result))
    choices = [*mixes(evaluation, result), *_present(harmful(evaluation, result))]
    views = [example_view(e, f"query-{i}") for i, e in enumerate(evaluation.examples, start=1)]
    page = folder / REPORT
    write_page(
        page,
        "evaluation.html.j2",
        evaluation=evaluation,
        result=result,
        headline=headline(evaluation, result),
        gains=gains,
        trust=trust,
        choices=choices,
        views=views,
        by_weight=_by_weight(evaluation),
        summary=cells(evaluation, "summary"),
        intervals=_intervals(evaluation),
        percent_form=percent,
    )
    for exhibit in [*gains, *trust, *choices, *_of(views)]:
        exhibit.chart.write(folder / FIGURES)
        if exhibit.chart.name == "frontier":
            (folder / "frontier.png").write_bytes(exhibit.chart.png)
    return page


def _present(*exhibits: Exhibit | None) -> list[Exhibit]:
    return [exhibit for exhibit in exhibits if exhibit is not None]


def _of(views: list[QueryView]) -> list[Exhibit]:
    return [exhibit for view in views for exhibit in view.exhibits]


def _by_weight(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    header, rows = cells(evaluation, "cost weights")
    return [*header[:2], *(weight(value) for value in evaluation.cost_weights)], rows


def _intervals(evaluation: Evaluation) -> tuple[tuple[str, ...], list[tuple[str, ...]]] | None:
    """Measures of the whole frontier with their intervals, a row a learner."""
    told = [result for result in evaluation.learners if result.frontier is not None]
    if not told:
        return None
    header = ("learner", "cost saved at equal score", "score gained at equal cost", "AIQ", "APGR")
    return header, [(result.name, *_with_intervals(result)) for result in told]


def _with_intervals(result: LearnerResult) -> tuple[str, ...]:
    known = result.frontier
    assert known is not None
    return (
        _both(result.cost_saved, known.cost_saved, percent),
        _both(result.accuracy_gained, known.accuracy_gained, signed),
        _both(result.aiq, known.aiq, fixed),
        _both(result.apgr, known.apgr, fixed),
    )


def _both(
    value: float | None, interval: Interval | None, form: Callable[[float | None], str]
) -> str:
    if value is None:
        return form(value)
    if interval is None:
        return f"{form(value)} (no interval)"
    return f"{form(value)} ({spread(interval, form)})"
