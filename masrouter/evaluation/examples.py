"""Single queries to look at: where the router gained most, where it lost most, and what is typical.

Not here: training the router that explains them without having seen them (`masrouter_train`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from masrouter.errors import EvaluationError
from masrouter.evaluation.baselines import BEST_FIXED
from masrouter.evaluation.crossval import CrossValidation
from masrouter.explanation import Explanation
from masrouter.outcomes import Floats, Ints, Outcomes
from masrouter.types import Plan

Kind = Literal["gain", "loss", "typical"]
LONGEST = 3000
"""Characters of a query that are kept to be shown."""


@dataclass(frozen=True)
class Chosen:
    """One query at one cost weight, as cross-validation saw it."""

    kind: Kind
    query: int
    """Position in the outcomes."""
    cost_weight: float
    difference: float
    """Its utility less the best fixed plan's."""
    plan: Plan
    fixed_plan: Plan
    """The best fixed plan's choice."""


@dataclass(frozen=True)
class LoggedRun:
    """What the logs know of one plan on the query: means over its runs."""

    plan: Plan
    score: float | None
    cost_usd: float | None
    runs: int


@dataclass(frozen=True)
class Example:
    """One query, why a router that had not seen it chooses that team, and what every team got."""

    kind: Kind
    query_id: str
    text: str
    shortened: bool
    dataset: str
    task: str | None
    cost_weight: float
    difference: float
    """Its utility less the best fixed plan's, in cross-validation."""
    validated_plan: Plan
    """What was chosen in cross-validation."""
    fixed_plan: Plan
    """What the best fixed plan was there."""
    explanation: Explanation
    logged: tuple[LoggedRun, ...]
    """Best score first, then the cheapest."""


def choose_examples(
    cv: CrossValidation,
    learner: str,
    among: Ints,
    *,
    gains: int = 3,
    losses: int = 3,
    typical: int = 2,
) -> tuple[Chosen, ...]:
    """The largest gains, the largest losses and the queries nearest to the median difference.

    `among` are positions of queries, such as those of one fold. Choices are the first seed's.
    At the cost weight where the learner chooses the most different plans, since there is most to
    explain; among equals the lowest above 0. Fewer where there are fewer gains or losses. Ties go
    to the first query.
    """
    own, fixed = cv.chosen[cv.index(learner), 0], cv.chosen[cv.index(BEST_FIXED), 0]  # (W, N)
    w = int(_variety(cv, learner, among).argmax())
    difference = (cv.utility(learner) - cv.utility(BEST_FIXED))[0, w]  # (N,)
    known = among[np.isfinite(difference[among])]
    if len(known) == 0:
        raise EvaluationError("examples: no query can be evaluated")
    order = known[np.argsort(-difference[known], kind="stable")]
    best = [i for i in order[:gains] if difference[i] > 0]
    worst = [i for i in order[::-1][:losses] if difference[i] < 0]
    middle = np.abs(difference[known] - np.median(difference[known]))
    taken = {*best, *worst}
    usual = [i for i in known[np.argsort(middle, kind="stable")] if i not in taken][:typical]
    kinds: tuple[tuple[Kind, Sequence[int]], ...] = (
        ("gain", best), ("loss", worst), ("typical", usual),
    )  # fmt: skip
    return tuple(_chosen(cv, kind, int(i), w, own, fixed, difference) for kind, at in kinds
                 for i in at)  # fmt: skip


def most_varied(cv: CrossValidation, learner: str, parts: Sequence[Ints]) -> int:
    """The part of the queries (positions) on which the most different plans are chosen."""
    return int(np.argmax([_variety(cv, learner, part).max() for part in parts]))


def _variety(cv: CrossValidation, learner: str, among: Ints) -> Floats:
    """Different plans chosen with the first seed at each cost weight, (W,); a little less at 0."""
    own = cv.chosen[cv.index(learner), 0][:, among]  # (W, n)
    sizes = np.array([len(np.unique(chosen[chosen >= 0])) for chosen in own], dtype=np.float64)
    return sizes - np.where(np.array(cv.cost_weights) > 0, 0.0, 0.5)


def _chosen(
    cv: CrossValidation,
    kind: Kind,
    query: int,
    w: int,
    own: Ints,
    fixed: Ints,
    difference: Floats,
) -> Chosen:
    plans = cv.outcomes.plans
    return Chosen(
        kind=kind,
        query=query,
        cost_weight=cv.cost_weights[w],
        difference=float(difference[query]),
        plan=plans[int(own[w, query])],
        fixed_plan=plans[int(fixed[w, query])],
    )


def example(outcomes: Outcomes, chosen: Chosen, explanation: Explanation) -> Example:
    """Put a chosen query, its explanation and its logged runs together."""
    i = chosen.query
    text = outcomes.queries[i]
    return Example(
        kind=chosen.kind,
        query_id=outcomes.query_ids[i],
        text=text[:LONGEST],
        shortened=len(text) > LONGEST,
        dataset=outcomes.datasets[i],
        task=outcomes.tasks[i],
        cost_weight=chosen.cost_weight,
        difference=chosen.difference,
        validated_plan=chosen.plan,
        fixed_plan=chosen.fixed_plan,
        explanation=explanation,
        logged=_logged_runs(outcomes, i),
    )


def _logged_runs(outcomes: Outcomes, query: int) -> tuple[LoggedRun, ...]:
    cells = np.flatnonzero(outcomes.query == query)
    runs = [
        LoggedRun(
            outcomes.plans[outcomes.plan[cell]],
            _known(outcomes.score[cell]),
            _known(outcomes.cost[cell]),
            int(outcomes.runs[cell]),
        )
        for cell in cells
    ]
    unknown = float("inf")
    return tuple(
        sorted(
            runs,
            key=lambda run: (
                unknown if run.score is None else -run.score,
                unknown if run.cost_usd is None else run.cost_usd,
            ),
        )
    )


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
