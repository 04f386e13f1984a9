"""A small world whose truth is known, and rounds that a policy logs in it.

Queries are of three tasks and differ in a difficulty that only a part of the embedding shows. All
is drawn straight into `LoggedRounds`, so that hundreds of logs take seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np

from masrouter.evaluation.off_policy.rounds import LoggedRounds, prefix_codes
from masrouter.outcomes import Floats, Ints
from masrouter.types import Agent, Plan

Logging = Literal["uniform", "epsilon", "one topology missing", "one task fixed"]
TASKS = ("code", "math", "knowledge")
EPSILON = 0.3


def _few() -> tuple[Plan, ...]:
    return tuple(
        Plan(topology, (Agent("assistant", model),))
        for topology, model in product(("cot", "io"), ("large", "small"))
    )


def _many() -> tuple[Plan, ...]:
    models = ("a", "b", "c", "d")
    return tuple(
        Plan(topology, (Agent("assistant", first), Agent("critic", second)))
        for topology, first, second in product(
            ("chain", "debate", "full_graph", "panel"), models, models
        )
    )


@dataclass(frozen=True)
class Drawn:
    rounds: LoggedRounds
    embeddings: Floats  # (Q, 8)
    chosen: Ints  # (Q,)


class OffPolicyWorld:
    """`few`: 4 plans of one agent; else 64 of two. The target takes one plan for each task."""

    def __init__(self, *, few: bool, easy: bool = False, seed: int = 0) -> None:
        self.plans = _few() if few else _many()
        rng = np.random.default_rng([seed, few])
        codes = prefix_codes(self.plans)[:-1]
        shape = (len(TASKS), codes.max() + 1)
        by_part = rng.normal(0.0, 0.5, shape)  # choices that share a prefix share an effect
        self.logits = by_part[:, codes].sum(axis=2) / 1.5 + (2.5 if easy else 0.3)  # (K, P)
        self.costs = np.exp(rng.normal(-5.0, 0.7, len(self.plans)))  # (P,) mean US dollars
        points, weights = np.polynomial.hermite_e.hermegauss(40)
        chance = 1 / (1 + np.exp(-(self.logits[..., None] - points)))
        self.success = chance @ (weights / weights.sum())  # (K, P) the difficulty integrated out
        self.target = self.success.argsort(axis=1)[:, -2]  # (K,) the second best plan
        self.habit = self.success.argsort(axis=1)[:, len(self.plans) // 2].copy()
        self.habit[0] = self.target[0]

    def truth(self, cost_weight: float) -> tuple[float, float, float]:
        """Score, cost and utility of the target."""
        score = float(self.success[np.arange(len(TASKS)), self.target].mean())
        cost = float(self.costs[self.target].mean())
        return score, cost, score - cost_weight * cost

    def chances(self, logging: Logging) -> Floats:
        """The logging policy, (K, P)."""
        p = len(self.plans)
        uniform = np.full((len(TASKS), p), 1 / p)
        if logging == "epsilon":
            chances = EPSILON * uniform
            chances[np.arange(len(TASKS)), self.habit] += 1 - EPSILON
            return chances
        if logging == "one topology missing":
            topologies = np.array([plan.topology for plan in self.plans])
            uniform[:, topologies == self.plans[self.target[1]].topology] = 0.0
        if logging == "one task fixed":
            uniform[2] = 0.0
            uniform[2, (self.target[2] + 1) % p] = 1.0
        return np.asarray(uniform / uniform.sum(axis=1, keepdims=True))

    def draw(self, queries: int, seed: int, logging: Logging, *, draws: int = 1) -> Drawn:
        """`draws` independent plans for each of some fresh queries."""
        rng = np.random.default_rng([seed, 1])
        task = rng.integers(0, len(TASKS), queries)
        difficulty = rng.normal(size=queries)
        shown = 0.5 * difficulty[:, None] + rng.normal(size=(queries, 1))
        noise = rng.normal(0, 0.3, (queries, 4))
        embeddings = np.concatenate([np.eye(len(TASKS))[task], shown, noise], axis=1)
        query = np.repeat(np.arange(queries), draws)
        chances = self.chances(logging)
        cumulative = chances.cumsum(axis=1)[task[query]]  # (n, P)
        plan = (rng.random((len(query), 1)) > cumulative).sum(axis=1)
        plan = np.minimum(plan, len(self.plans) - 1)
        logit = self.logits[task[query], plan] - difficulty[query]
        score = (rng.random(len(query)) < 1 / (1 + np.exp(-logit))).astype(np.float64)
        cost = self.costs[plan] * np.exp(rng.normal(-0.08, 0.4, len(query)))
        names = [TASKS[t] for t in task]
        rounds = LoggedRounds(
            query_ids=tuple(f"q{i:06d}" for i in range(queries)),
            texts=tuple(f"query {i}" for i in range(queries)),
            datasets=tuple(names),
            tasks=tuple(names),
            plans=self.plans,
            query=query,
            plan=plan,
            score=score,
            cost=cost,
            propensity=chances[task[query], plan],
            stages=_stages(prefix_codes(self.plans)[:-1], chances)[task[query], plan],
            timestamps=np.full(len(query), np.datetime64("NaT", "s")),
            failed=np.zeros(len(query), dtype=bool),
        )
        return Drawn(rounds, embeddings, self.target[task])


def _stages(codes: Ints, chances: Floats) -> Floats:
    """Of each choice given those before it, (K, P, T); 1 for plans that are never drawn."""
    mass = np.stack(
        [[np.bincount(column, weights=row)[column] for column in codes.T] for row in chances]
    )  # (K, T, P) of each plan's prefix
    before = np.concatenate([np.ones_like(mass[:, :1]), mass[:, :-1]], axis=1)
    stages = np.divide(mass, before, out=np.ones_like(mass), where=before > 0)
    return np.asarray(stages.transpose(0, 2, 1))
