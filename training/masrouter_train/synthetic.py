"""A synthetic world with known truth: queries, plans, and logs of all three kinds.

It proves what learning from logs recovers, and stands in for collected logs where there are none.
Everything that it writes says so: data sets and models are named `synthetic-...`, scores come from
`synthetic`. Not here: the texts (`synthetic_text`) and the formula of the truth
(`synthetic_plans`).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from masrouter.catalog import Catalog
from masrouter.errors import ConfigError
from masrouter.logs import LogKind, Logs, write_parquet
from masrouter.outcomes import Floats, Ints
from masrouter.types import Plan
from masrouter_train.synthetic_logs import Runs, logs_of
from masrouter_train.synthetic_plans import (
    success_logits,
    synthetic_models,
    synthetic_plans,
    token_truth,
)
from masrouter_train.synthetic_text import DOMAINS, LEVELS, SyntheticQueries, draw_queries

Policy = Literal["uniform", "epsilon"]
OBSERVED_PLANS = 8
"""Plans that the logger of observational logs uses."""
_REFERENCE_QUERIES = 4000
_QUERIES, _GRID, _RANDOMISED, _OBSERVATIONAL, _WORLD, _REFERENCE = range(6)
"""Streams of random numbers: the kinds of logs of one seed share queries and nothing else."""


class SyntheticWorld:
    """Queries with a latent difficulty, plans with known success and cost.

    Two worlds of one seed are the same. The seed shifts every plan's logit in every domain a
    little (deviation `plan_deviation`), so that no result hangs on one set of invented numbers.

    Args:
        residual_deviation: Of the difficulty that the text does not show, in logits.
        token_deviation: Of the logarithm of a seat's tokens around their mean.
        epsilon: Share of uniform choices in the logs of the policy `epsilon`.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        residual_deviation: float = 0.5,
        token_deviation: float = 0.3,
        plan_deviation: float = 0.1,
        epsilon: float = 0.5,
    ) -> None:
        for name, value in (
            ("residual_deviation", residual_deviation),
            ("token_deviation", token_deviation),
            ("plan_deviation", plan_deviation),
        ):
            if not 0 <= value < 10:
                raise ConfigError(f"synthetic world: {name}: expected 0 to 10, got {value!r}")
        if not 0 < epsilon <= 1:
            raise ConfigError(f"synthetic world: epsilon: expected above 0 to 1, got {epsilon!r}")
        self.seed = seed
        self.residual_deviation = residual_deviation
        self.token_deviation = token_deviation
        self.epsilon = epsilon
        self.plans = synthetic_plans()
        self._tokens = token_truth(self.plans)
        self._logits = success_logits(self.plans)  # (D, L, P)
        shift = self._random(_WORLD, 0).normal(size=(len(DOMAINS), 1, len(self.plans)))
        self._logits += plan_deviation * shift

    def catalog(self) -> Catalog:
        """The default catalog and the invented models."""
        return Catalog.default().extended_with(synthetic_models())

    def positions(self, plans: Sequence[Plan]) -> Ints:
        """Where these plans stand in `self.plans`; ConfigError for a plan of no such world."""
        position = {plan: i for i, plan in enumerate(self.plans)}
        for plan in plans:
            if plan not in position:
                raise ConfigError(f"synthetic world: {plan} is not one of its plans")
        return np.array([position[plan] for plan in plans], dtype=np.int64)

    def sample_queries(self, n: int, seed: int) -> SyntheticQueries:
        """N queries with distinct texts; the same for the same world and seed."""
        if n < 1:
            raise ConfigError(f"synthetic world: queries: expected at least 1, got {n}")
        return draw_queries(
            n,
            f"synthetic-{self.seed}-{seed}",
            self.residual_deviation,
            self._random(_QUERIES, seed),
        )

    def expected_score(self, queries: SyntheticQueries) -> Floats:
        """P(success | text) of every plan, exactly; (N, P).

        The residual is integrated out by Gauss-Hermite quadrature.
        """
        return self._score_table[queries.domain, queries.level]

    def expected_cost(self, queries: SyntheticQueries) -> Floats:
        """Mean cost of every plan in US dollars, exactly; (N, P)."""
        t = self._tokens
        d, lv = queries.domain, queries.level
        base = t.prompt_base * t.input_price + t.completion_base * t.output_price
        slope = t.prompt_slope * t.input_price + t.completion_slope * t.output_price
        cost: Floats = base.sum(-1)[d, lv] + slope.sum(-1) * queries.words[:, None]
        return cost

    def expected_utility(self, queries: SyntheticQueries, cost_weight: float) -> Floats:
        """Expected score - cost_weight * expected cost; (N, P)."""
        return self.expected_score(queries) - cost_weight * self.expected_cost(queries)

    def best_text_policy(self, queries: SyntheticQueries, cost_weight: float) -> Ints:
        """The best plan of each query for one who reads the text and knows the truth; (N,)."""
        best: Ints = self.expected_utility(queries, cost_weight).argmax(1)
        return best

    def best_fixed_plan(self, cost_weight: float) -> int:
        """The plan of highest mean utility over a reference sample of the world's queries."""
        return int(self.expected_utility(self._reference, cost_weight).mean(0).argmax())

    def value(self, queries: SyntheticQueries, choice: Ints | int, cost_weight: float) -> float:
        """True mean utility of choosing plan `choice` (N,), or one plan for all."""
        chosen = np.broadcast_to(np.asarray(choice, dtype=np.int64), (len(queries),))
        utility = self.expected_utility(queries, cost_weight)
        return float(utility[np.arange(len(queries)), chosen].mean())

    def grid_logs(self, n: int, seed: int, *, plans: Sequence[Plan] | None = None) -> Logs:
        """Each of n queries under each plan (all of the world's by default)."""
        some = self.positions(self.plans if plans is None else plans)
        queries = self.sample_queries(n, seed)
        query, plan = np.repeat(np.arange(n), len(some)), np.tile(some, n)
        random = self._random(_GRID, seed)
        return logs_of(
            queries, self.plans, self._run(queries, query, plan, None, "grid", random), "grid"
        )

    def randomised_logs(
        self, n: int, seed: int, *, policy: Policy = "uniform", runs_per_query: int = 1
    ) -> Logs:
        """Each of n queries under plans drawn at random, with their probabilities.

        `epsilon` draws uniformly with probability epsilon, and else takes the plan that is best for
        the domain whatever the level, at a middle cost weight.
        """
        queries = self.sample_queries(n, seed)
        chances = self.propensities(queries, policy)  # (N, P)
        random = self._random(_RANDOMISED, seed)
        query = np.repeat(np.arange(n), runs_per_query)
        plan = _draw(chances[query], random)
        runs = self._run(queries, query, plan, chances, policy, random)
        return logs_of(queries, self.plans, runs, f"randomised-{policy}")

    def observational_logs(self, n: int, seed: int) -> Logs:
        """Each of n queries under one plan of eight, and no probabilities.

        Confounded: the logger feels the difficulty that the text does not show, and sends what is
        hard to more expensive plans.
        """
        queries = self.sample_queries(n, seed)
        random = self._random(_OBSERVATIONAL, seed)
        plan = _draw(self._confounded(queries), random)
        runs = self._run(queries, np.arange(n), plan, None, "operator", random)
        return logs_of(queries, self.plans, runs, "observational")

    def propensities(self, queries: SyntheticQueries, policy: Policy) -> Floats:
        """Probability with which a randomised policy picks each plan; (N, P), rows sum to 1."""
        uniform = np.full((len(queries), len(self.plans)), 1 / len(self.plans))
        if policy == "uniform":
            return uniform
        if policy == "epsilon":
            chances = self.epsilon * uniform
            chances[np.arange(len(queries)), self._habit[queries.domain]] += 1 - self.epsilon
            return chances
        raise ConfigError(f"synthetic world: policy: expected uniform or epsilon, got {policy!r}")

    def middle_cost_weight(self) -> float:
        """0.1 / median cost of a run: a run of median cost has to be worth a tenth of a score."""
        return 0.1 / float(np.median(self.expected_cost(self._reference)))

    def _random(self, stream: int, seed: int) -> np.random.Generator:
        if seed < 0 or self.seed < 0:
            raise ConfigError(f"synthetic world: seed: expected at least 0, got {seed}")
        return np.random.default_rng([self.seed, stream, seed])

    @cached_property
    def _score_table(self) -> Floats:
        """P(success | domain, level), (D, L, P)."""
        points, weights = np.polynomial.hermite_e.hermegauss(40)
        scores = _logistic(self._logits[..., None] - self.residual_deviation * points)
        table: Floats = scores @ (weights / weights.sum())
        return table

    @cached_property
    def _reference(self) -> SyntheticQueries:
        random = self._random(_REFERENCE, 0)
        return draw_queries(_REFERENCE_QUERIES, "reference", self.residual_deviation, random)

    @cached_property
    def _habit(self) -> Ints:
        """The plan that the policy `epsilon` prefers in each domain, (D,)."""
        utility = self.expected_utility(self._reference, self.middle_cost_weight())
        domain = self._reference.domain
        means = [utility[domain == d].mean(0) for d in range(len(DOMAINS))]
        habit: Ints = np.stack(means).argmax(1)
        return habit

    def _confounded(self, queries: SyntheticQueries) -> Floats:
        """The observational logger's chances, (N, P); zero for plans that it never uses."""
        cost = self.expected_cost(self._reference).mean(0)
        by_cost = np.argsort(cost)
        used = by_cost[np.linspace(0, len(by_cost) - 1, OBSERVED_PLANS).round().astype(int)]
        rank = np.linspace(-1, 1, OBSERVED_PLANS)
        felt = 0.5 * (queries.level - (LEVELS - 1) / 2) + 1.5 * queries.residual  # (N,)
        logits = felt[:, None] * rank
        weights = np.exp(logits - logits.max(1, keepdims=True))
        chances = np.zeros((len(queries), len(self.plans)))
        chances[:, used] = weights / weights.sum(1, keepdims=True)
        return chances

    def _run(
        self,
        queries: SyntheticQueries,
        query: Ints,
        plan: Ints,
        chances: Floats | None,
        policy: str,
        random: np.random.Generator,
    ) -> Runs:
        """Draw the outcome of each run: `plan` (R,) on `query` (R,)."""
        t = self._tokens
        d, lv = queries.domain[query], queries.level[query]
        words = queries.words[query][:, None]
        chance = _logistic(self._logits[d, lv, plan] - queries.residual[query])
        score = (random.random(len(plan)) < chance).astype(np.float64)
        prompt = self._noisy_count(
            t.prompt_base[d, lv, plan] + t.prompt_slope[plan] * words, random
        )  # (R, K)
        completion = self._noisy_count(
            t.completion_base[d, lv, plan] + t.completion_slope[plan] * words, random
        )
        cost = prompt * t.input_price[plan] + completion * t.output_price[plan]
        return Runs(query, plan, chances, policy, score, prompt, completion, cost.sum(1))

    def _noisy_count(self, mean: Floats, random: np.random.Generator) -> Ints:
        """Whole numbers around `mean`, log-normal, and exactly `mean` on average."""
        s = self.token_deviation
        exact = mean * np.exp(s * random.normal(size=mean.shape) - s * s / 2)
        # Rounded up with the probability of the fraction, so that rounding moves no mean.
        return np.floor(exact + random.random(mean.shape)).astype(np.int64)


@dataclass(frozen=True, slots=True)
class WrittenWorld:
    """The files that `write_world` wrote."""

    logs: Path
    catalog: Path
    """The invented models, to extend the default catalog with."""


def write_world(
    folder: str | Path,
    kind: LogKind | str,
    queries: int,
    seed: int,
    *,
    policy: Policy = "uniform",
    world: SyntheticWorld | None = None,
) -> WrittenWorld:
    """Write `synthetic-<kind>.parquet` and `catalog.yaml` into a folder, made if absent.

    Each file is moved into place when it is complete, the catalog first: where the logs are, their
    prices are too.

    Args:
        folder: Where the files go.
        kind: `grid`, `randomised` or `observational`.
        queries: How many.
        seed: Of the queries and of their outcomes.
        policy: Of randomised logs.
        world: The truth; that of seed 0 by default.

    Raises:
        ConfigError: for an unknown kind, or a folder that cannot be written.
    """
    world = SyntheticWorld() if world is None else world
    try:
        wanted = LogKind(kind)
    except ValueError:
        kinds = ", ".join(LogKind)
        raise ConfigError(f"synthetic world: kind: expected {kinds}, got {kind!r}") from None
    if wanted is LogKind.GRID:
        logs = world.grid_logs(queries, seed)
    elif wanted is LogKind.RANDOMISED:
        logs = world.randomised_logs(queries, seed, policy=policy)
    else:
        logs = world.observational_logs(queries, seed)
    target = Path(folder)
    written = WrittenWorld(target / f"synthetic-{wanted}.parquet", target / "catalog.yaml")
    try:
        target.mkdir(parents=True, exist_ok=True)
        _write_text(written.catalog, synthetic_models().to_yaml())
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written: {error.strerror}") from error
    write_parquet(logs, written.logs)
    return written


def _write_text(path: Path, text: str) -> None:
    """Write beside the destination and move there, so that nobody reads half a file."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as beside:
        whole = Path(beside) / path.name
        with whole.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        whole.replace(path)


def _draw(chances: Floats, random: np.random.Generator) -> Ints:
    """One plan a row by its chances (R, P) -> (R,); a plan without a chance is never drawn."""
    edges = chances.cumsum(1)
    at = random.random((len(chances), 1)) * edges[:, -1:]
    drawn: Ints = (edges <= at).sum(1)
    return drawn


def _logistic(x: Floats) -> Floats:
    y: Floats = 1 / (1 + np.exp(-x))
    return y
