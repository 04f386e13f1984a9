"""What each part of the router is worth: the table of a cross-validation of ablated routers.

The counterpart of Table 3 of MasRouter (Yue et al., ACL 2025, arXiv 2502.11133), on held-out
queries of grid logs and with intervals.
Not here: which parts there are (`config.Ablation`), the command (`ablate_command`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from rich.table import Table
from rich.text import Text

from masrouter.catalog import Catalog
from masrouter.encoder import Encoder
from masrouter.evaluation.baselines import BEST_FIXED, ORACLE, BestFixedPlan
from masrouter.evaluation.crossval import CrossValidation
from masrouter.evaluation.learners import Learner
from masrouter.evaluation.metrics import bootstrap_means, percentile_interval
from masrouter.outcomes import Floats
from masrouter.types import Interval
from masrouter_train.config import Ablation, TrainConfig
from masrouter_train.learner import ROUTER, RouterLearner


def ablated_learners(
    config: TrainConfig,
    encoder: Encoder,
    catalog: Catalog | None = None,
    parts: Sequence[Ablation] = tuple(Ablation),
) -> tuple[Learner, ...]:
    """The full router, the router without each of the parts, and the best fixed plan."""
    return (
        RouterLearner(config, encoder, catalog),
        *(
            RouterLearner(config.without(part), encoder, catalog, label=f"without {part}")
            for part in parts
        ),
        BestFixedPlan(),
    )


@dataclass(frozen=True)
class AblatedAt:
    """One router at one cost weight: means over queries (a query's seeds averaged first)."""

    cost_weight: float
    queries: int
    """Queries that can be evaluated here."""
    utility: float
    score: float
    cost: float | None
    """US dollars a query; None where a choice of unknown cost was made."""
    difference: float
    """Mean paired difference in utility to the full router."""
    interval: Interval
    """95 % bootstrap interval of the difference, over queries."""


@dataclass(frozen=True)
class AblationRow:
    """One router over all cost weights."""

    name: str
    difference: float
    """Mean over the cost weights of the paired difference in utility to the full router."""
    interval: Interval
    to_fixed: float
    """The same to the best fixed plan of each cost weight."""
    fixed_interval: Interval
    changed: float
    """Share of the choices (query, cost weight, seed) that are not the full router's."""
    at: tuple[AblatedAt, ...]


@dataclass(frozen=True)
class AblationTable:
    """The full router first, then each ablation, then the best fixed plan."""

    data: str
    synthetic: bool
    protocol: str
    queries: int
    plans: int
    seeds: tuple[int, ...]
    cost_weights: tuple[float, ...]
    resamples: int
    rows: tuple[AblationRow, ...]
    notes: tuple[str, ...]


def ablation_table(
    cv: CrossValidation,
    *,
    data: str = "",
    synthetic: bool = False,
    resamples: int = 2000,
    seed: int = 0,
) -> AblationTable:
    """Compare every learner with the full router, query by query.

    Bootstrap draws of queries are the same for all learners and cost weights. Raises
    EvaluationError where the full router or the best fixed plan is not among the learners.
    """
    names = [name for name in cv.learners if name != ORACLE]
    full, fixed = cv.index(ROUTER), cv.index(BEST_FIXED)
    utility = np.stack([cv.utility(name).mean(axis=0) for name in names])  # (L, W, N)
    to_full, to_fixed = utility - utility[full], utility - utility[fixed]
    draws = _draws(to_full, resamples, seed)  # (resamples, L, W)
    fixed_draws = _draws(to_fixed, resamples, seed)
    rows = []
    for i, name in enumerate(names):
        score, cost = cv.score(name).mean(axis=0), cv.cost(name).mean(axis=0)  # (W, N)
        at = []
        for w, weight in enumerate(cv.cost_weights):
            seen = np.isfinite(utility[i, w])
            mean_cost = float(cost[w, seen].mean())
            at.append(
                AblatedAt(
                    cost_weight=weight,
                    queries=int(seen.sum()),
                    utility=float(utility[i, w, seen].mean()),
                    score=float(score[w, seen].mean()),
                    cost=mean_cost if np.isfinite(mean_cost) else None,
                    difference=float(to_full[i, w, seen].mean()),
                    interval=_interval(draws[:, i, w]),
                )
            )
        judged = cv.chosen[full] >= 0
        rows.append(
            AblationRow(
                name=name,
                difference=float(np.mean([result.difference for result in at])),
                interval=_interval(draws[:, i].mean(axis=1)),
                to_fixed=float(np.mean(np.nanmean(to_fixed[i], axis=1))),
                fixed_interval=_interval(fixed_draws[:, i].mean(axis=1)),
                changed=float((cv.chosen[cv.index(name)] != cv.chosen[full])[judged].mean()),
                at=tuple(at),
            )
        )
    return AblationTable(
        data=data,
        synthetic=synthetic,
        protocol=cv.protocol,
        queries=cv.outcomes.n_queries,
        plans=cv.outcomes.n_plans,
        seeds=cv.seeds,
        cost_weights=cv.cost_weights,
        resamples=resamples,
        rows=tuple(rows),
        notes=cv.notes,
    )


def _draws(values: Floats, resamples: int, seed: int) -> Floats:
    """Bootstrap means over queries of values (L, W, N): (resamples, L, W)."""
    learners, weights, queries = values.shape
    columns = values.reshape(learners * weights, queries).T  # (N, L * W)
    means = bootstrap_means(columns, resamples=resamples, seed=seed)
    return means.reshape(resamples, learners, weights)


def _interval(means: Floats) -> Interval:
    interval = percentile_interval(means)
    assert interval is not None  # a cost weight without a query was refused before
    return interval


def shown_weights(cost_weights: Sequence[float]) -> tuple[int, ...]:
    """Positions of the cost weights that the table shows: the first, the middle and the last."""
    last = len(cost_weights) - 1
    return tuple(sorted({0, (last + 1) // 2, last}))


def ablations_to_json(found: AblationTable) -> str:
    """Everything, as strict JSON."""
    return json.dumps(asdict(found), indent=2, allow_nan=False)


def ablations_to_markdown(found: AblationTable) -> str:
    """The table with its caption and notes."""
    header, rows = _cells(found)
    lines = [
        "| " + " | ".join(header) + " |",
        "|" + "---|" + "---:|" * (len(header) - 1),
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows),
    ]
    notes = [f"- {' '.join(note.split())}" for note in found.notes]
    return "\n".join([*lines, "", f"{_title(found)}. {_caption(found)}", "", *notes, ""])


def render_ablations(found: AblationTable) -> Table:
    """The table for the terminal. Names come from logs: they are text, never markup."""
    header, rows = _cells(found)
    out = Table(title=Text(_title(found)), caption=Text(_caption(found)))
    for i, name in enumerate(header):
        out.add_column(Text(name), justify="left" if i == 0 else "right")
    for row in rows:
        out.add_row(*(Text(cell) for cell in row), style="bold" if row[0] == ROUTER else "")
    return out


def _title(found: AblationTable) -> str:
    kind = " [synthetic data]" if found.synthetic else ""
    return f"What each part is worth{f' on {found.data}' if found.data else ''}{kind}"


def _caption(found: AblationTable) -> str:
    seeds = f"{len(found.seeds)} seed{'s' if len(found.seeds) != 1 else ''}"
    return (
        f"{found.protocol}, {seeds}, {found.queries} queries, {found.plans} plans. Paired "
        f"differences in utility, means over {len(found.cost_weights)} cost weights, with 95 % "
        f"bootstrap intervals over queries ({found.resamples} draws); * marks an interval without "
        "0. Changed: share of the choices that are not the full router's. Then mean score and US "
        "dollars a query at the lowest, the middle and the highest cost weight."
    )


def _cells(found: AblationTable) -> tuple[list[str], list[list[str]]]:
    shown = shown_weights(found.cost_weights)
    header = [
        "router",
        f"less {ROUTER} (95 %)",
        f"less {BEST_FIXED} (95 %)",
        "changed",
        *(f"score, cost at {found.cost_weights[w]:.3g}" for w in shown),
    ]
    rows = []
    for row in found.rows:
        rows.append(
            [
                row.name,
                "0" if row.name == ROUTER else _difference(row.difference, row.interval),
                "0" if row.name == BEST_FIXED else _difference(row.to_fixed, row.fixed_interval),
                "" if row.name == ROUTER else f"{row.changed:.0%}",
                *(f"{row.at[w].score:.3f}, {_dollars(row.at[w].cost)}" for w in shown),
            ]
        )
    return header, rows


def _difference(value: float, interval: Interval) -> str:
    if value == interval.low == interval.high == 0.0:
        return "0 (no difference)"
    star = "" if 0.0 in interval else "*"
    return f"{value:+.4f} ({interval.low:+.4f} to {interval.high:+.4f}){star}"


def _dollars(cost: float | None) -> str:
    return "unknown" if cost is None else f"${cost:.3g}"
