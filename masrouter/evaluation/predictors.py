"""Baselines that predict each plan's score and cost from the query's embedding.

All choose the available plan of the highest predicted utility, score - cost_weight * cost.
Not here: rules without a prediction (`baselines`).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor

from masrouter.evaluation.learners import (
    Chooser,
    Embeddings,
    PlanMeans,
    Queries,
    best_available,
    column_means,
)
from masrouter.evaluation.linear import fit_cost, fit_probability, fit_ridge
from masrouter.outcomes import Bools, Floats, Ints, Outcomes


class Predictor(Protocol):
    """Embeddings (n, E) to one value a plan, (n, P); NaN where it does not know."""

    def predict(self, x: Floats) -> Floats: ...


@dataclass(frozen=True)
class PredictedUtility:
    """The available plan of the highest predicted utility."""

    score: Predictor
    cost: Predictor
    notes: tuple[str, ...] = ()

    def choose(self, queries: Queries, cost_weight: float, available: Bools) -> Ints:
        x = np.asarray(queries.embeddings, np.float64)
        utility = self.score.predict(x)
        if cost_weight != 0:
            utility = utility - cost_weight * self.cost.predict(x)
        return best_available(utility, available)

    def expected_scores(self, queries: Queries) -> Floats:
        return np.clip(self.score.predict(np.asarray(queries.embeddings, np.float64)), 0.0, 1.0)


@dataclass(frozen=True)
class _Constant:
    values: Floats  # (P,)

    def predict(self, x: Floats) -> Floats:
        return np.broadcast_to(self.values, (len(x), len(self.values)))


@dataclass(frozen=True)
class NearestNeighbours:
    """Mean score and mean cost of the k training queries of the highest cosine.

    A plan that none of them was run under falls back to its mean over the training queries.
    """

    name: str = "kNN"
    k: int = 40

    def fit(
        self, train: Outcomes, embeddings: Embeddings, *, cost_weights: Sequence[float], seed: int
    ) -> Chooser:
        x = _unit(np.asarray(embeddings, np.float64))
        k = min(self.k, len(x))
        return PredictedUtility(
            _NeighbourMeans(x, train.dense("score"), k), _NeighbourMeans(x, train.dense("cost"), k)
        )


@dataclass(frozen=True)
class _NeighbourMeans:
    x: Floats  # (N, E), rows of norm 1
    values: Floats  # (N, P)
    k: int

    def predict(self, x: Floats) -> Floats:
        fallback = column_means(self.values)
        known = np.isfinite(self.values)
        filled = np.where(known, self.values, 0.0)
        out = np.empty((len(x), self.values.shape[1]))
        for start in range(0, len(x), 256):  # a chunk at a time: (n, N) may not fit in memory
            cosine = _unit(x[start : start + 256]) @ self.x.T  # (chunk, N)
            near = np.argpartition(-cosine, self.k - 1, axis=1)[:, : self.k]  # (chunk, k)
            count = known[near].sum(axis=1)  # (chunk, P)
            total = filled[near].sum(axis=1)
            out[start : start + 256] = np.where(count > 0, total / np.maximum(count, 1), fallback)
        return out


@dataclass(frozen=True)
class KMeansClusters:
    """The best plan of the query's cluster, by mean score and mean cost in the cluster.

    A plan without a cell in the cluster falls back to its mean over all training queries.
    """

    name: str = "k-means"
    clusters: int = 16

    def fit(
        self, train: Outcomes, embeddings: Embeddings, *, cost_weights: Sequence[float], seed: int
    ) -> Chooser:
        x = np.asarray(embeddings, np.float64)
        clusters = min(self.clusters, len(np.unique(x, axis=0)))
        kmeans = KMeans(clusters, n_init=4, random_state=seed).fit(x)
        return PredictedUtility(
            _ClusterMeans(kmeans, _means_by_group(train.dense("score"), kmeans.labels_, clusters)),
            _ClusterMeans(kmeans, _means_by_group(train.dense("cost"), kmeans.labels_, clusters)),
        )


@dataclass(frozen=True)
class _ClusterMeans:
    kmeans: KMeans
    means: Floats  # (clusters, P)

    def predict(self, x: Floats) -> Floats:
        return np.asarray(self.means[self.kmeans.predict(x)])


def _means_by_group(values: Floats, group: Ints, groups: int) -> Floats:
    fallback = column_means(values)
    means = np.stack([column_means(values[group == g]) for g in range(groups)])
    return np.where(np.isnan(means), fallback, means)


@dataclass(frozen=True)
class Ridge:
    """Ridge regression of every plan's score and of its log cost.

    Strengths by leave-one-out: one for all scores, one for each plan's cost.
    """

    name: str = "ridge"

    def fit(
        self, train: Outcomes, embeddings: Embeddings, *, cost_weights: Sequence[float], seed: int
    ) -> Chooser:
        x = np.asarray(embeddings, np.float64)
        return PredictedUtility(
            fit_ridge(x, train.dense("score"), shared=True), fit_cost(x, train.dense("cost"))
        )


@dataclass(frozen=True)
class Logistic:
    """A logistic model of every plan's score; cost is the plan's mean.

    With more than `components_above` plans, the models see the embeddings' first `components`
    principal components (of the training queries) and not all of them: it is said in the notes.
    """

    name: str = "logistic"
    c: float = 1.0
    """Inverse strength of the L2 penalty."""
    components_above: int = 100
    components: int = 64

    def fit(
        self, train: Outcomes, embeddings: Embeddings, *, cost_weights: Sequence[float], seed: int
    ) -> Chooser:
        x = np.asarray(embeddings, np.float64)
        score = train.dense("score")
        notes: list[str] = []
        projection, offset = np.eye(x.shape[1]), np.zeros(x.shape[1])
        if score.shape[1] > self.components_above and min(x.shape) > self.components:
            pca = PCA(self.components, random_state=seed).fit(x)
            projection, offset = pca.components_.T, pca.mean_
            notes.append(
                f"{self.name}: more than {self.components_above} plans, so the models see "
                f"{self.components} principal components of the embeddings"
            )
        z = (x - offset) @ projection
        models = []
        for column in score.T:
            known = np.isfinite(column)
            models.append(fit_probability(z[known], column[known], c=self.c))
        stopped = sum(not model.converged for model in models)
        if stopped:
            notes.append(f"{self.name}: {stopped} of {len(models)} fits stopped at the limit")
        intercept = np.array([model.intercept for model in models])
        intercept[np.isnan(column_means(score))] = np.nan  # never seen: unknown
        stacked = np.stack([model.weights for model in models], axis=1)
        return PredictedUtility(
            _LogisticScores(offset, projection, stacked, intercept),
            _Constant(PlanMeans.of(train).cost),
            tuple(notes),
        )


@dataclass(frozen=True)
class _LogisticScores:
    offset: Floats  # (E,)
    projection: Floats  # (E, D)
    weights: Floats  # (D, P)
    intercept: Floats  # (P,)

    def predict(self, x: Floats) -> Floats:
        logits = ((x - self.offset) @ self.projection) @ self.weights + self.intercept
        return 1.0 / (1.0 + np.exp(-np.clip(logits, -30.0, 30.0)))


@dataclass(frozen=True)
class NeuralNetwork:
    """One hidden layer that predicts all plans' scores at once; log cost is by ridge.

    It learns the difference to each plan's mean; a missing score counts as no difference. Training
    stops early on a tenth of the training queries held out (below 50 queries, after `max_iter`
    passes).
    """

    name: str = "MLP"
    hidden: int = 64
    alpha: float = 10.0
    """L2 penalty; weaker ones are further behind the best fixed plan on small logs."""
    norm: float = 8.0
    """Embeddings are scaled to this norm: on unit vectors the layer learns too slowly."""
    max_iter: int = 60

    def fit(
        self, train: Outcomes, embeddings: Embeddings, *, cost_weights: Sequence[float], seed: int
    ) -> Chooser:
        x = np.asarray(embeddings, np.float64)
        score = train.dense("score")
        means = column_means(score)
        seen = np.isfinite(means)
        target = np.where(np.isnan(score), 0.0, score - means)[:, seen]
        cost = fit_cost(x, train.dense("cost"))
        if not seen.any():  # only costs are known: there is no score to learn
            return PredictedUtility(_Constant(means), cost)
        mean = _unit(x).mean(axis=0)
        network = MLPRegressor(
            hidden_layer_sizes=(self.hidden,),
            alpha=self.alpha,
            batch_size=min(64, max(1, len(x) // 2)),
            max_iter=self.max_iter,
            early_stopping=len(x) >= 50,
            n_iter_no_change=5,
            random_state=seed,
        )
        with warnings.catch_warnings():
            # The limit of passes is part of the method: early stopping usually comes first.
            warnings.simplefilter("ignore", ConvergenceWarning)
            # One output wants a vector.
            network.fit(
                self.norm * (_unit(x) - mean), target if target.shape[1] > 1 else target[:, 0]
            )
        return PredictedUtility(_NetworkScores(network, self.norm, mean, means), cost)


@dataclass(frozen=True)
class _NetworkScores:
    network: MLPRegressor
    norm: float
    mean: Floats  # (E,)
    means: Floats  # (P,) mean scores; NaN for a plan without a training cell

    def predict(self, x: Floats) -> Floats:
        out = np.repeat(self.means[None, :], len(x), axis=0)
        seen = np.isfinite(self.means)
        predicted = self.network.predict(self.norm * (_unit(x) - self.mean))
        out[:, seen] += predicted.reshape(len(x), -1)
        return out


def _unit(x: Floats) -> Floats:
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.maximum(norm, 1e-12))
