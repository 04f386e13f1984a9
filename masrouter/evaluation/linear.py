"""Linear models with missing entries: ridge with its own strength, and logistic regression.

Not here: the learners that use them (`baselines`, `predictors`).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from masrouter.evaluation.learners import column_means
from masrouter.outcomes import Floats, Ints


@dataclass(frozen=True)
class RidgeModel:
    """x @ weights + intercept."""

    weights: Floats  # (E, P)
    intercept: Floats  # (P,); NaN for a plan without a training cell
    alpha: Floats  # (P,) chosen strength; NaN where the plan's mean is all that can be fitted

    def predict(self, x: Floats) -> Floats:
        return x @ self.weights + self.intercept


ALPHAS = tuple(float(a) for a in np.logspace(-2, 3, 11))


def fit_ridge(
    x: Floats, y: Floats, alphas: Sequence[float] = ALPHAS, *, shared: bool = False
) -> RidgeModel:
    """Ridge regression of y (N, P), NaN = missing, on x (N, E).

    The strength has the lowest leave-one-out squared error, which is exact for ridge regression:
    e_i / (1 - h_ii), with h the hat matrix (Golub, Heath and Wahba, 1979). With `shared`, one
    strength serves all columns, by the sum of their errors; else each column has its own. The same
    answer as scikit-learn's RidgeCV, several times faster, since columns with the same rows missing
    share one eigendecomposition. A column with fewer than 5 values, or with all values equal, gets
    its mean.
    """
    blocks = _blocks(x, y)
    loss = np.full((len(alphas), y.shape[1]), np.nan)
    for block in blocks:
        for k, alpha in enumerate(alphas):
            loss[k, block.columns] = block.leave_one_out(alpha)
    strength = np.full(y.shape[1], np.nan)
    fitted = np.isfinite(loss).all(axis=0)
    if fitted.any():
        judged = loss[:, fitted].sum(axis=1, keepdims=True) if shared else loss[:, fitted]
        strength[fitted] = np.asarray(alphas)[np.argmin(judged, axis=0)]
    weights = np.zeros((x.shape[1], y.shape[1]))
    intercept = column_means(y)
    for block in blocks:
        columns = block.columns
        shrink = 1.0 / (block.eigenvalues[:, None] + strength[columns])  # (E, columns)
        weights[:, columns] = block.basis @ (shrink * block.moment)
        intercept[columns] = block.y_mean - block.x_mean @ weights[:, columns]
    return RidgeModel(weights, intercept, strength)


@dataclass(frozen=True)
class _Block:
    """Columns of y with the same n rows known, in the eigenbasis of their centred x."""

    columns: Ints  # (k,)
    x_mean: Floats  # (E,)
    y_mean: Floats  # (k,)
    centred: Floats  # (n, k)
    rotated: Floats  # (n, E)
    eigenvalues: Floats  # (E,)
    basis: Floats  # (E, E)
    moment: Floats  # (E, k)

    def leave_one_out(self, alpha: float) -> Floats:
        """Sum of squared leave-one-out errors of each column, (k,)."""
        shrink = 1.0 / (self.eigenvalues + alpha)
        leverage = self.rotated**2 @ shrink + 1.0 / len(self.rotated)  # the intercept's is 1 / n
        error = self.centred - self.rotated @ (shrink[:, None] * self.moment)
        return np.asarray(np.sum((error / (1.0 - leverage)[:, None]) ** 2, axis=0))


def _blocks(x: Floats, y: Floats) -> list[_Block]:
    patterns, group = np.unique(np.isfinite(y), axis=1, return_inverse=True)
    blocks = []
    for g in range(patterns.shape[1]):
        rows = np.flatnonzero(patterns[:, g])
        columns = np.flatnonzero(group.reshape(-1) == g)
        if len(rows) < 5:
            continue
        columns = columns[np.ptp(y[np.ix_(rows, columns)], axis=0) > 0]
        if len(columns) == 0:
            continue
        target = y[np.ix_(rows, columns)]
        x_mean, y_mean = x[rows].mean(axis=0), target.mean(axis=0)
        eigenvalues, basis = np.linalg.eigh((x[rows] - x_mean).T @ (x[rows] - x_mean))
        rotated = (x[rows] - x_mean) @ basis  # (n, E)
        blocks.append(
            _Block(
                columns=columns,
                x_mean=x_mean,
                y_mean=y_mean,
                centred=target - y_mean,
                rotated=rotated,
                eigenvalues=np.maximum(eigenvalues, 0.0),
                basis=basis,
                moment=rotated.T @ (target - y_mean),
            )
        )
    return blocks


@dataclass(frozen=True)
class CostModel:
    """exp(ridge of log cost) * factor, within the costs that the plan had in training."""

    log_cost: RidgeModel
    low: Floats  # (P,) log of the lowest positive training cost
    high: Floats  # (P,)
    factor: Floats  # (P,)

    def predict(self, x: Floats) -> Floats:
        """(n, E) -> (n, P); NaN for a plan without a known cost."""
        return np.exp(np.clip(self.log_cost.predict(x), self.low, self.high)) * self.factor


def fit_cost(x: Floats, cost: Floats) -> CostModel:
    """Ridge regression of log cost (N, P), NaN = unknown, on x (N, E), a strength for each plan.

    The factor makes the mean prediction over the training queries the plan's mean cost (the
    smearing of Duan, 1983, by ratio). A straight line of cost would predict costs below zero, which
    at high cost weights are then chosen. A cost of 0 counts as the plan's lowest positive one.
    """
    positive = np.where(cost > 0, cost, np.nan)
    lowest = np.where(np.isfinite(positive), positive, np.inf).min(axis=0, initial=np.inf)
    lowest = np.where(np.isfinite(lowest), lowest, 1.0)  # all 0 or unknown: the factor decides
    logs = np.log(np.maximum(cost, lowest))  # NaN stays NaN
    high = np.where(np.isfinite(logs), logs, -np.inf).max(axis=0, initial=-np.inf)
    low = np.log(lowest)
    model = CostModel(fit_ridge(x, logs), low, np.maximum(high, low), np.ones(cost.shape[1]))
    fitted = np.where(np.isfinite(cost), model.predict(x), np.nan)
    return replace(model, factor=column_means(cost) / column_means(fitted))


@dataclass(frozen=True)
class Probability:
    """P(score = 1 | x) of one plan: a logistic model, or a constant where that is all there is."""

    weights: Floats  # (E,)
    intercept: float
    converged: bool = True

    def predict(self, x: Floats) -> Floats:
        """(n, E) -> (n,)"""
        return 1.0 / (1.0 + np.exp(-np.clip(x @ self.weights + self.intercept, -30.0, 30.0)))


def fit_probability(x: Floats, y: Floats, *, c: float = 1.0) -> Probability:
    """Logistic regression of scores y (n,) in [0, 1] on x (n, E).

    A score between 0 and 1 counts as that share of a success: its query enters once as a success
    and once as a failure, weighted. Without both successes and failures the rate alone is fitted,
    with one half added to each side.
    """
    if len(y) == 0 or y.max() == 0.0 or y.min() == 1.0:
        rate = (y.sum() + 0.5) / (len(y) + 1.0)
        return Probability(np.zeros(x.shape[1]), float(np.log(rate / (1.0 - rate))))
    whole = np.isin(y, (0.0, 1.0))
    part = ~whole
    rows = np.concatenate([x[whole], x[part], x[part]])
    labels = np.concatenate([y[whole], np.ones(part.sum()), np.zeros(part.sum())])
    counts = np.concatenate([np.ones(whole.sum()), y[part], 1.0 - y[part]])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)  # told through `converged` instead
        model = LogisticRegression(C=c, max_iter=300).fit(rows, labels, sample_weight=counts)
    for warning in caught:
        if not issubclass(warning.category, ConvergenceWarning):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    converged = not any(issubclass(w.category, ConvergenceWarning) for w in caught)
    return Probability(model.coef_[0], float(model.intercept_[0]), converged)
