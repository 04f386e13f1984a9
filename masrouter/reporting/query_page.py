"""Why this team: single decisions as sections of a report, or as a page of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from masrouter.evaluation.examples import Example, LoggedRun
from masrouter.explanation import Explanation
from masrouter.reporting.exhibit import Exhibit
from masrouter.reporting.number_formats import dollars, fixed, percent, signed, spread, weight
from masrouter.reporting.page import write_page
from masrouter.reporting.query_charts import parts_chart, plans_chart
from masrouter.types import Plan, ScoredPlan

TITLE = 70
"""Characters of a query that stand for it in a list."""
MOST_LOGGED = 15
KINDS = {"gain": "gained most", "loss": "lost most", "typical": "typical"}


@dataclass(frozen=True)
class QueryView:
    """One decision as a page shows it; everything is text or a figure."""

    anchor: str
    title: str
    kind: str
    """Why it is shown; empty where somebody asked for it."""
    text: str
    shortened: bool
    plan: str
    facts: tuple[tuple[str, str], ...]
    reasons: tuple[str, ...]
    exhibits: tuple[Exhibit, ...]
    alternatives: tuple[tuple[str, ...], ...]
    logged: tuple[tuple[str, ...], ...]
    """Plans with what the logs say that they got; empty where nobody knows."""
    remarks: tuple[str, ...]


def write_query_page(
    explanations: Sequence[Explanation], path: Path, *, queries: Sequence[str]
) -> None:
    """One self-contained page for queries that were just routed, `queries` in the same order.

    Raises EvaluationError where matplotlib is not installed.
    """
    views = [
        query_view(explanation, f"query-{i}", text)
        for i, (explanation, text) in enumerate(zip(explanations, queries, strict=True), start=1)
    ]
    write_page(path, "queries.html.j2", views=views)


def query_view(explanation: Explanation, anchor: str, text: str) -> QueryView:
    """A decision on a query whose outcome nobody knows yet."""
    return _view(explanation, anchor, text, other=None)


def example_view(example: Example, anchor: str) -> QueryView:
    """A decision on a logged query, beside what the logs say that each plan got."""
    explanation = example.explanation
    chosen = explanation.decision.plan
    view = _view(explanation, anchor, example.text, other=example.fixed_plan)
    remarks = []
    if chosen != example.validated_plan:
        remarks.append(
            f"In cross-validation it chose {example.validated_plan}: there it could take only what "
            "was run on this query, and no fall-back."
        )
    if all(run.plan != chosen for run in example.logged):
        remarks.append("The chosen plan was not run on this query, so nobody knows what it gets.")
    where = example.dataset if example.task is None else f"{example.dataset}, {example.task}"
    facts = (
        ("query", f"{example.query_id} ({where})"),
        *view.facts,
        (
            "in cross-validation",
            f"utility {signed(example.difference)} against the best fixed plan, "
            f"{example.fixed_plan}",
        ),
    )
    return QueryView(
        anchor=anchor,
        title=view.title,
        kind=KINDS[example.kind],
        text=example.text,
        shortened=example.shortened,
        plan=view.plan,
        facts=facts,
        reasons=view.reasons,
        exhibits=view.exhibits,
        alternatives=view.alternatives,
        logged=_logged(example, {chosen: "chosen", example.fixed_plan: BEST}),
        remarks=tuple(remarks),
    )


BEST = "best fixed plan"


def _view(explanation: Explanation, anchor: str, text: str, *, other: Plan | None) -> QueryView:
    decision = explanation.decision
    line = " ".join(text.split())
    plans = plans_chart(explanation, anchor, other)
    evidence = decision.evidence
    facts = (
        (
            "expected score",
            f"{fixed(decision.expected_score)} ({spread(decision.score_interval, fixed)})",
        ),
        (
            "expected cost",
            dollars(decision.expected_cost_usd)
            + ("" if decision.cost_interval is None
               else f" ({spread(decision.cost_interval, dollars)})"),
        ),
        ("cost weight", weight(decision.cost_weight)),
        ("reads as", f"{decision.domain} ({percent(decision.domain_probability)})"
         if decision.domain_probability else "no domain is told apart"),
        (
            "evidence",
            f"{evidence.similar_queries} similar logged queries, "
            f"{evidence.similar_runs_of_plan} runs of this plan on them "
            f"({evidence.runs_of_plan} in all); nearest cosine {evidence.nearest:.2f}",
        ),
    )  # fmt: skip
    return QueryView(
        anchor=anchor,
        title=line if len(line) <= TITLE else line[: TITLE - 1] + "…",
        kind="",
        text=text,
        shortened=False,
        plan=str(decision.plan),
        facts=facts,
        reasons=decision.reasons,
        exhibits=tuple(e for e in (plans, parts_chart(explanation, anchor)) if e is not None),
        alternatives=tuple(_scored(plan) for plan in decision.alternatives),
        logged=(),
        remarks=(),
    )


def _scored(plan: ScoredPlan) -> tuple[str, ...]:
    return (
        str(plan.plan),
        fixed(plan.expected_score),
        spread(plan.score_interval, fixed),
        dollars(plan.expected_cost_usd),
    )


def _logged(example: Example, marks: dict[Plan, str]) -> tuple[tuple[str, ...], ...]:
    """The plans that matter first, then the best ones, so that the table stays short."""
    named = [run for run in example.logged if run.plan in marks]
    others = [run for run in example.logged if run.plan not in marks]
    return tuple(_run(run, marks.get(run.plan, "")) for run in [*named, *others][:MOST_LOGGED])


def _run(run: LoggedRun, mark: str) -> tuple[str, ...]:
    name = f"{mark}: {run.plan}" if mark else str(run.plan)
    return (name, fixed(run.score), dollars(run.cost_usd), str(run.runs))
