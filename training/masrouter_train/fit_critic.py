"""Fit the critic: cross-fitted heads, each with its own shrinkage, and what held-out queries say.

queries ── features ──► for each shrinkage: K members that miss one fold, one that saw all
                              │
                              └─► out-of-fold predictions ──► shrinkage.choose_gate
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from masrouter.candidates import Candidates, plan_features
from masrouter.critic import LOG_CLIP, Critic
from masrouter.features import FeatureScales, text_statistics
from masrouter.logs import LogKind
from masrouter.outcomes import Column, Outcomes
from masrouter.query_features import QueryFeatures
from masrouter_train.config import CriticConfig
from masrouter_train.progress import Progress
from masrouter_train.ridge import Cells, plan_effects, solve_ridge

SMALLEST_DOMAIN = 20
"""Queries a domain needs to be predicted; smaller ones are one domain, OTHER."""
OTHER = "other"
CONSTANT_SCALE = 2.0
"""Prior deviation of a correction to the plan effect where a plan has many runs, as on a grid."""
TOLERANCE = 3e-2
"""Relative residual at which the solver stops: on five logs trained together, a residual of 1e-3
moved held-out squared error by less than 0.1 % and took ten times the steps."""
PRIOR_RUNS = 20.0
"""Runs that a plan needs to count as much as what its parts have in common with other plans."""
TOKEN_HEADS: tuple[tuple[str, Column], ...] = (
    ("log_prompt_tokens", "prompt_tokens"),
    ("log_completion_tokens", "completion_tokens"),
)


@dataclass(frozen=True)
class Inputs:
    """Training queries as tensors."""

    embeddings: Tensor  # (N, E)
    statistics: Tensor  # (N, S)
    domains: Tensor  # (N, D) out-of-fold P(domain | text)
    fold: Tensor  # (N,) 0..K-1

    @property
    def n(self) -> int:
        return len(self.embeddings)


@dataclass(frozen=True)
class HeldOut:
    """Predictions of the member that missed the query's fold."""

    grid: Tensor  # (N, C) for the plans that the critic knows one by one
    cells: Tensor  # (R,) for the known cells of the column, whatever their plan


@dataclass(frozen=True)
class FittedCritic:
    """The critic, and its out-of-fold predictions on the training queries."""

    critic: Critic
    inputs: Inputs
    scores: tuple[HeldOut, ...]
    """Of each score head."""
    cost: HeldOut | None
    """US dollars; None where no cost is known."""
    errors: tuple[Tensor, ...]
    """For each score head: squared held-out error by query, (N,); see `squared_errors`."""


def fit_critic(
    outcomes: Outcomes,
    embeddings: NDArray[np.float32],
    candidates: Candidates,
    known: NDArray[np.int64],
    config: CriticConfig,
    *,
    seed: int,
    progress: Progress,
) -> FittedCritic:
    """Fit every head on the cells of `outcomes`.

    Args:
        embeddings: (N, E) of the queries.
        known: (C,) positions of the plans that get an effect of their own and can be chosen one by
            one; the runs of the others teach what their parts have in common.
    """
    index = candidates.index_plans(outcomes.plans)
    known_index = candidates.index_plans([outcomes.plans[i] for i in known])
    folds = max(2, min(config.folds, outcomes.n_queries))
    generator = torch.Generator().manual_seed(seed)
    fold = (
        torch.arange(outcomes.n_queries)[
            torch.randperm(outcomes.n_queries, generator=generator)
        ].argsort()
        % folds
    )
    features, inputs = _fit_features(outcomes, embeddings, fold, seed)
    # Randomised logs may hold a plan once, and thousands of runs of another.
    prior_runs = PRIOR_RUNS if outcomes.kind is LogKind.RANDOMISED else 0.0
    log_columns: list[tuple[str, Column]] = [("log_cost", "cost")] if outcomes.has_costs else []
    log_columns += [pair for pair in TOKEN_HEADS if np.isfinite(getattr(outcomes, pair[1])).any()]
    solver = _HeadSolver(
        features,
        plan_features(index, candidates, config.kernel, known_index),
        1 / math.sqrt(config.kernel.any_plan),
        torch.from_numpy(known),
        inputs,
        folds,
        prior_runs,
    )
    score_cells = _cells(outcomes, "score")
    steps = len(config.score_scales()) + len(config.cost_scales()) + len(log_columns) - 1
    weights: dict[str, Tensor] = {}
    biases: dict[str, Tensor] = {}
    climbed: list[FeatureScales] = []
    scores: list[HeldOut] = []
    errors: list[Tensor] = []
    with progress.task("critic", total=steps) as task:
        for scales in config.score_scales():
            if _rising(climbed, errors):
                task.advance()
                continue
            weight, held_out = solver.fit(score_cells, scales)
            weights[Critic.score_head(len(climbed))] = weight
            climbed.append(scales)
            scores.append(held_out)
            errors.append(squared_errors(held_out.cells, score_cells))
            task.advance()
        cost: HeldOut | None = None
        chosen: FeatureScales | None = None
        for name, column in log_columns:
            cells = _log_cells(_cells(outcomes, column))
            tried = config.cost_scales() if chosen is None else (chosen,)
            best: tuple[float, FeatureScales, Tensor, HeldOut] | None = None
            for scales in tried:
                weight, held_out = solver.fit(cells, scales)
                error = float((held_out.cells - cells.target).square().mean())
                if best is None or error < best[0]:
                    best = (error, scales, weight, held_out)
                task.advance()
            assert best is not None
            _, chosen, weight, held_out = best
            weights[name] = weight
            bias = _log_bias(held_out.cells, cells, prior_runs)  # (P,)
            biases[name] = bias[known]
            if name == "log_cost":
                cost = HeldOut(
                    (held_out.grid + bias[known]).clamp(-LOG_CLIP, LOG_CLIP).exp(),
                    (held_out.cells + bias[cells.plan]).clamp(-LOG_CLIP, LOG_CLIP).exp(),
                )
    critic = Critic(
        features,
        candidates,
        known_index,
        score_scales=climbed,
        log_heads=[name for name, _ in log_columns],
        members=folds + 1,
        kernel=config.kernel,
    )
    for name, weight in weights.items():
        critic.head(name).weight.data.copy_(weight)
    for name, bias in biases.items():
        critic.log_bias[name].data.copy_(bias)
    critic.requires_grad_(False)
    return FittedCritic(
        critic,
        inputs,
        tuple(scores),
        cost,
        tuple(errors),
    )


class _HeadSolver:
    """Solves one head for every member; shares the plan side between heads."""

    def __init__(
        self,
        features: QueryFeatures,
        plans: Tensor,
        grand: float,
        known: Tensor,
        inputs: Inputs,
        folds: int,
        prior_runs: float,
    ) -> None:
        """`plans` (P, G) features of every plan; `grand`: what of its first column makes 1;
        `prior_runs`: see PRIOR_RUNS, 0 where plans are run alike."""
        self.prior_runs = prior_runs
        self.features = features
        self.inputs = inputs
        self.folds = folds
        self.phi = features(inputs.embeddings, inputs.statistics, inputs.domains)
        self.known = known
        self.all_known = len(known) == len(plans)
        self.grand = grand
        # The same inner products in as few columns as there are plans.
        left, values, right = torch.linalg.svd(plans, full_matrices=False)
        rank = values > 1e-6 * values.max()
        self.plans = left[:, rank] * values[rank]  # (P, r)
        self.expand = right[rank]  # (r, G)

    def fit(self, cells: Cells, scales: FeatureScales) -> tuple[Tensor, HeldOut]:
        """Weights (M, F, G) and out-of-fold predictions."""
        noise = _noise(cells)
        own = math.sqrt(noise / self.prior_runs) if self.prior_runs else CONSTANT_SCALE
        column = self.features.column_scales(scales, own)  # (F,)
        on = column > 0
        phi = self.phi[:, on] * column[on]
        members = []
        grid = torch.empty(cells.n_queries, len(self.known))
        at_cells = torch.empty(len(cells.target))
        for missing in range(-1, self.folds):
            keep = self.inputs.fold != missing
            seen = cells.at_queries(keep)
            mean, effect = plan_effects(self.plans, seen, noise)
            offset = mean + self.plans @ effect  # (P,)
            weights = torch.zeros(self.features.width, self.plans.shape[1])
            if scales == FeatureScales():
                weights[0] = effect  # nothing to learn but each plan's own effect
            else:
                residual = Cells(
                    seen.query,
                    seen.plan,
                    seen.target - offset[seen.plan],
                    seen.n_queries,
                    seen.n_plans,
                )
                solution = solve_ridge(phi[keep], self.plans, residual, noise, tolerance=TOLERANCE)
                weights[on] = solution.weights * column[on][:, None]
                weights[0] += effect
            wide = weights @ self.expand  # (F, G)
            wide[0, 0] += mean * self.grand
            members.append(wide)
            if missing >= 0:
                rows = ~keep
                folded = self.phi @ weights  # (N, r)
                grid[rows] = folded[rows] @ self.plans[self.known].T + mean
                if not self.all_known:
                    mine = rows[cells.query]
                    left, right = folded[cells.query[mine]], self.plans[cells.plan[mine]]
                    at_cells[mine] = (left * right).sum(1) + mean
        if self.all_known:
            at_cells = grid[cells.query, cells.plan]
        return torch.stack(members), HeldOut(grid, at_cells)


def _rising(climbed: Sequence[FeatureScales], errors: Sequence[Tensor]) -> bool:
    """Whether weaker shrinkage of the text has made things worse twice in a row: held-out error is
    convex enough in it that the rest of the ladder can be left out."""
    with_text = [
        float(error.sum()) for scales, error in zip(climbed, errors, strict=True) if scales.text
    ]
    return len(with_text) >= 3 and with_text[-1] > with_text[-2] > with_text[-3]


def _fit_features(
    outcomes: Outcomes, embeddings: NDArray[np.float32], fold: Tensor, seed: int
) -> tuple[QueryFeatures, Inputs]:
    labels = domain_labels(outcomes)
    domains = sorted(set(labels)) if labels is not None else []
    features = QueryFeatures(embeddings.shape[1], domains)
    statistics = torch.from_numpy(text_statistics(outcomes.queries))
    vectors = torch.from_numpy(np.ascontiguousarray(embeddings, dtype=np.float32))
    features.statistics_mean.copy_(statistics.mean(0))
    features.statistics_std.copy_(statistics.std(0, correction=0).clamp_min(1e-3))
    features.text_mean.copy_(vectors.mean(0))
    held_out = torch.zeros(len(vectors), len(domains))
    if labels is not None:
        inputs = features.classifier_inputs(vectors, statistics).numpy()
        y = np.searchsorted(domains, labels)
        for missing in range(int(fold.max()) + 1):
            rows = (fold == missing).numpy()
            weight, bias = _classifier(inputs[~rows], y[~rows], len(domains), seed)
            logits = torch.from_numpy(inputs[rows] @ weight + bias)
            held_out[torch.from_numpy(rows)] = logits.softmax(1).float()
        weight, bias = _classifier(inputs, y, len(domains), seed)
        features.domain_weight.copy_(torch.from_numpy(weight))
        features.domain_bias.copy_(torch.from_numpy(bias))
    return features, Inputs(vectors, statistics, held_out, fold)


def _classifier(
    x: NDArray[np.float32], y: NDArray[np.int64], classes: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Multinomial logistic regression as (E + S, D) weights and (D,) bias; absent classes: -30."""
    weight = np.zeros((x.shape[1], classes), dtype=np.float32)
    bias = np.full(classes, -30.0, dtype=np.float32)
    present = np.unique(y)
    if len(present) == 1:
        bias[present] = 0.0
        return weight, bias
    model = LogisticRegression(C=3.0, max_iter=300, tol=1e-3, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an unconverged classifier only blurs the domain
        model.fit(x, y)
    if len(present) == 2:  # scikit-learn keeps one row for two classes
        weight[:, present[1]], bias[present[0]] = model.coef_[0], 0.0
        bias[present[1]] = model.intercept_[0]
    else:
        weight[:, present], bias[present] = model.coef_.T, model.intercept_
    return weight, bias


def domain_labels(outcomes: Outcomes) -> list[str] | None:
    """The domain of each query: its data set if there are several, else its task; None if neither
    varies. Names of fewer than SMALLEST_DOMAIN queries become OTHER."""
    for column in (outcomes.datasets, tuple(task or OTHER for task in outcomes.tasks)):
        names, counts = np.unique(np.asarray(column, dtype=object).astype(str), return_counts=True)
        large = set(names[counts >= SMALLEST_DOMAIN])
        labels = [name if name in large else OTHER for name in column]
        if len(set(labels)) > 1:
            return labels
    return None


def squared_errors(predicted: Tensor, cells: Cells) -> Tensor:
    """Squared error by query: (R,), cells -> (N,), 0 for queries without cells.

    Where a query has several cells the error is that of what routing needs, the differences between
    plans; where it has one, of the prediction itself.
    """
    error = predicted - cells.target  # (R,)
    count = torch.bincount(cells.query, minlength=cells.n_queries)
    sums = torch.zeros(cells.n_queries).index_add_(0, cells.query, error)
    shared = torch.where(count > 1, sums / count.clamp_min(1), 0.0)
    contrast = (error - shared[cells.query]).square()
    return torch.zeros(cells.n_queries).index_add_(0, cells.query, contrast)


def _cells(outcomes: Outcomes, column: Column) -> Cells:
    values = getattr(outcomes, column)
    known = np.isfinite(values)
    return Cells(
        torch.from_numpy(outcomes.query[known]),
        torch.from_numpy(outcomes.plan[known]),
        torch.from_numpy(values[known].astype(np.float32)),
        outcomes.n_queries,
        outcomes.n_plans,
    )


def _log_cells(cells: Cells) -> Cells:
    """Logarithms; free calls count as a billionth of a dollar (or of a token)."""
    return Cells(
        cells.query, cells.plan, cells.target.clamp_min(1e-9).log(), cells.n_queries, cells.n_plans
    )


def _noise(cells: Cells) -> float:
    """Variance of cells around their plan's mean, of which about half is taken for noise where the
    target is a logarithm; scores are nearly all noise."""
    count = torch.bincount(cells.plan, minlength=cells.n_plans).clamp_min(1)
    sums = torch.zeros(cells.n_plans).index_add_(0, cells.plan, cells.target)
    within = float((cells.target - (sums / count)[cells.plan]).square().mean())
    bounded = bool((cells.target >= 0).all() and (cells.target <= 1).all())
    return max(within if bounded else within / 2, 0.02)


def _log_bias(held_out: Tensor, cells: Cells, prior_runs: float) -> Tensor:
    """(P,) log of mean(actual) / mean(exp(predicted)): Duan's smearing estimate, by plan.

    Every plan starts with `prior_runs` runs of the ratio that all plans have together: that of a
    few runs is mostly theirs.
    """
    predicted = held_out.clamp(-LOG_CLIP, LOG_CLIP).exp()  # (R,)
    actual = cells.target.exp()
    sums = torch.zeros(2, cells.n_plans)
    sums[0].index_add_(0, cells.plan, actual)
    sums[1].index_add_(0, cells.plan, predicted)
    known = sums[0] > 0
    if prior_runs:
        runs = torch.bincount(cells.plan, minlength=cells.n_plans).clamp_min(1)
        prior = prior_runs * sums[1] / runs  # (P,) in units of the plan's own predictions
        sums = sums + torch.stack([prior * float((actual / predicted).mean()), prior])
    ratio = torch.where(known, sums[0] / sums[1].clamp_min(1e-30), 1.0)
    return ratio.clamp(1e-2, 1e2).log()
