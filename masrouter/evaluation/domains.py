"""Kinds of queries: what a learner takes them for, and where it gains or loses.

A query's domain is its data set where there are several, else its task.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from masrouter.evaluation import metrics
from masrouter.evaluation.crossval import CrossValidation
from masrouter.evaluation.held_out import Names
from masrouter.outcomes import Floats, Outcomes
from masrouter.types import Interval

UNNAMED = "no task"


@dataclass(frozen=True)
class Confusion:
    """Which domain queries have and which one was predicted from their text, while held out."""

    domains: tuple[str, ...]  # (D,)
    predicted: tuple[str, ...]  # (K,)
    share: tuple[tuple[float, ...], ...]  # (D, K) of the domain's queries
    queries: tuple[int, ...]  # (D,)
    accuracy: float
    interval: Interval
    """95 % bootstrap interval of the accuracy, over queries."""
    largest: float
    """What always naming the largest domain would get."""


@dataclass(frozen=True)
class InDomain:
    """A learner beside the best fixed plan on one domain: means over the cost weights."""

    domain: str
    queries: int
    score: float
    fixed_score: float
    cost: float | None
    fixed_cost: float | None
    difference: float
    """Mean paired difference in utility."""
    interval: Interval
    """95 % bootstrap interval of the difference, over the domain's queries."""


def domain_names(outcomes: Outcomes) -> Names | None:
    """The domain of each query, (N,); None where there is only one."""
    for column in (outcomes.datasets, tuple(task or UNNAMED for task in outcomes.tasks)):
        if len(set(column)) > 1:
            return np.array(column, dtype=np.str_)
    return None


def confusion(cv: CrossValidation, learner: str, *, resamples: int, seed: int) -> Confusion | None:
    """Predicted by true domain, seeds together; None where the learner predicts none.

    A prediction of what no query is called (`other`) is right for a query whose own domain is
    never predicted: it was too rare to be told apart.
    """
    told = cv.domains.get(learner)
    if told is None or not (told != "").any():
        return None
    predicted = tuple(sorted(set(told[told != ""].tolist())))
    candidates = (cv.outcomes.datasets, tuple(task or UNNAMED for task in cv.outcomes.tasks))
    columns = [np.array(names, dtype=np.str_) for names in candidates]
    truth = max(columns, key=lambda names: len(set(names.tolist()) & set(predicted)))
    domains, member, size = np.unique(truth, return_inverse=True, return_counts=True)
    rest = ~np.isin(told, domains)
    right = (told == truth) | (rest & ~np.isin(truth, list(predicted)))
    correct = metrics.per_query(np.where(told != "", right.astype(np.float64), np.nan))
    share = []
    for d in range(len(domains)):
        mine = told[:, member == d]
        known = max(int((mine != "").sum()), 1)
        share.append(tuple(float((mine == name).sum()) / known for name in predicted))
    return Confusion(
        domains=tuple(domains.tolist()),
        predicted=predicted,
        share=tuple(share),
        queries=tuple(size.tolist()),
        accuracy=float(np.nanmean(correct)),
        interval=metrics.paired_bootstrap(correct, resamples=resamples, seed=seed),
        largest=float(size.max() / size.sum()),
    )


def by_domain(
    names: Names | None,
    score: Floats,  # (L, W, N), as the next two
    cost: Floats,
    difference: Floats,
    fixed: int,
    *,
    resamples: int,
    seed: int,
) -> list[tuple[InDomain, ...]]:
    """Every learner on every domain, largest domain first; empty where there is only one.

    `difference` is in utility, to the learner at position `fixed`; NaN where a query cannot be
    evaluated. Cost weights at which a domain has no query are left out of its means.
    """
    learners = len(difference)
    results: list[list[InDomain]] = [[] for _ in range(learners)]
    if names is None:
        return [()] * learners
    found, size = np.unique(names, return_counts=True)
    for domain in found[np.argsort(-size, kind="stable")]:
        rows = np.flatnonzero(names == domain)
        known = np.isfinite(difference[fixed][:, rows])  # (W, n)
        at = np.flatnonzero(known.any(axis=1))
        if len(at) == 0:
            continue
        mine = difference[:, at][..., rows]  # (L, W', n)
        columns = mine.reshape(learners * len(at), len(rows)).T
        draws = metrics.bootstrap_means(columns, resamples=resamples, seed=seed)
        draws = draws.reshape(resamples, learners, len(at)).mean(axis=2)  # (resamples, L)
        scores, costs = (
            np.stack([_means(values[i][at][:, rows]) for i in range(learners)]).mean(axis=1)
            for values in (score, cost)
        )  # (L,) each
        means = np.stack([_means(mine[i]) for i in range(learners)]).mean(axis=1)
        for i in range(learners):
            interval = metrics.percentile_interval(draws[:, i])
            assert interval is not None  # the domain has queries, so some draw has
            results[i].append(
                InDomain(
                    domain=str(domain),
                    queries=len(rows),
                    score=float(scores[i]),
                    fixed_score=float(scores[fixed]),
                    cost=_known(costs[i]),
                    fixed_cost=_known(costs[fixed]),
                    difference=float(means[i]),
                    interval=interval,
                )
            )
    return [tuple(result) for result in results]


def _means(values: Floats) -> Floats:
    """Means over the queries that can be evaluated, (W, n) -> (W,); NaN where none has a value."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
