"""What a router's choices would have earned in randomised logs: estimates, verdict, differences.

One call puts rounds, cross-fitted critic, estimators and diagnostics together. Where the logs do
not identify the value there is no estimate, only `guess`, and it says what it is. Not here: grid
logs, where choices are looked up (`crossval`); how the router chose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from masrouter.errors import EvaluationError
from masrouter.evaluation import off_policy
from masrouter.evaluation.metrics import utility
from masrouter.evaluation.off_policy import Estimate
from masrouter.evaluation.outcome_model import PairFeatures, Predictions, cross_fit
from masrouter.evaluation.resampling import ClusterBootstrap
from masrouter.evaluation.rounds import LoggedRounds, prefix_codes, stage_name
from masrouter.evaluation.support import FEW_QUERIES, HALF_WIDTH, Verdict, judge
from masrouter.outcomes import Bools, Floats, Ints
from masrouter.types import Plan


@dataclass(frozen=True)
class Estimates:
    """One estimator's means a round; the cost, in US dollars, is None where too few are known."""

    score: Estimate
    cost: Estimate | None
    utility: Estimate
    """score - cost_weight * cost, of the rounds that know both; the score at cost weight 0."""


@dataclass(frozen=True)
class Guess:
    """The direct method's means: what a model guesses, right or wrong. Not an estimate.

    It has no interval: chance in the queries is known, how wrong the model is is not.
    """

    score: float
    cost: float | None
    utility: float


@dataclass(frozen=True)
class PrefixValue:
    """The policy that makes the target's first choices and leaves the rest to the logging policy.

    Many more rounds share a topology with the target than a whole plan, so that this question may
    have an answer where the whole one has none.
    """

    up_to: str
    """The last choice that is the target's: `topology`, `count`, `role 1`, `model 1`, ..."""
    verdict: Verdict
    value: Estimates | None
    """Doubly robust with a critic that sees the query alone; None where not identified."""
    difference: Estimates | None
    """Minus the logging policy."""


@dataclass(frozen=True)
class PolicyValue:
    """What the target policy would have earned on the logs' queries, as far as they tell."""

    logged: Estimates
    """What the logging policy earned."""
    estimates: dict[str, Estimates]
    """`ips`, `snips`, `dr`, `switch-dr` and, with stage propensities, `stagewise-dr`; empty where
    the verdict is `not identified`."""
    best: str | None
    """The estimator to report; None where the verdict is `not identified`."""
    difference: Estimates | None
    """The best estimate minus the logged, paired by round."""
    verdict: Verdict
    guess: Guess
    """A model's guess, not an estimate."""
    prefixes: tuple[PrefixValue, ...]
    """By depth, down to the first that is not identified; without the whole plan's question, and
    without choices that were the only ones there. Empty without stage propensities."""
    notes: tuple[str, ...]


def estimate_policy(
    rounds: LoggedRounds,
    chosen: Ints | Sequence[Plan],
    *,
    embeddings: NDArray[Any] | None,
    cost_weight: float,
    seed: int = 0,
    resamples: int = 2000,
    half_width: float = HALF_WIDTH,
) -> PolicyValue:
    """What a policy that takes the chosen plan for each query would earn.

    The policy must not have been learned from these rounds: what fits their luck looks better than
    it is.

    Args:
        rounds: Of randomised logs.
        chosen: (Q,) for each query a plan, or its index in `rounds.plans`, -1 for any other.
        embeddings: (Q, E) of the queries, for the critic; None for a critic without text.
        cost_weight: Score units a US dollar.
        seed: Of folds and resamples.
        resamples: Of the bootstrap.
        half_width: Of the difference in score that the verdict's probe should reach.

    Raises:
        EvaluationError: for choices that are no plans, no round of known score, or a cost weight
            above 0 where no cost is known.
    """
    if not (np.isfinite(cost_weight) and cost_weight >= 0):
        raise EvaluationError(f"cost_weight: expected a number from 0 on, got {cost_weight!r}")
    plans, choice = _choices(rounds, chosen)
    rewards = _Rewards.of(rounds, cost_weight, seed, resamples)
    features = PairFeatures(rounds, plans, embeddings)
    critic = _Critic(
        cross_fit(features, rounds, choice, rounds.score, log=False, seed=seed),
        None
        if rewards.cost is None
        else cross_fit(features, rounds, choice, rounds.cost, log=True, seed=seed),
        cost_weight,
    )
    match = rounds.plan == choice[rounds.query]  # (n,)
    weight = match / rounds.propensity
    known = rewards.utility.known
    verdict = judge(rounds, choice, weight, known, half_width=half_width)
    estimates: dict[str, Estimates] = {}
    difference = None
    told = rewards.supported(rounds, weight)
    if verdict.level != "not identified":
        codes = prefix_codes(plans)
        on_path = codes[rounds.plan] == codes[choice[rounds.query]]  # (n, T)
        estimates = _estimate_all(rounds, told, critic, match, on_path)
        apart = _apart(rewards.utility, estimates, weight)
        verdict = judge(rounds, choice, weight, known, agreement=apart, half_width=half_width)
        difference = told.minus_logged(estimates["dr"])
    return PolicyValue(
        logged=rewards.each(lambda r: off_policy.on_policy(r.values, bootstrap=r.bootstrap)),
        estimates=estimates,
        best="dr" if estimates else None,
        difference=difference,
        verdict=verdict,
        guess=critic.guess(),
        prefixes=tuple(_prefix_values(rounds, plans, choice, rewards, critic, half_width)),
        notes=(*rounds.notes, *_cost_notes(rounds, told.cost is not None)),
    )


def _cost_notes(rounds: LoggedRounds, estimated: bool) -> Iterator[str]:
    known = int(np.isfinite(rounds.cost).sum())
    if 0 < known < len(rounds):
        yield (
            f"the cost is known in {known:,} of {len(rounds):,} rounds: "
            + ("its means are of those" if estimated else "too few to estimate the target's")
        )


RewardName = Literal["score", "cost", "utility"]


@dataclass(frozen=True)
class _Reward:
    """A reward on the m rounds that know it."""

    name: RewardName
    known: Bools  # (n,)
    values: Floats  # (m,)
    bootstrap: ClusterBootstrap

    def at(self, column: NDArray[Any]) -> Floats:
        """The known rounds of a column: (n, ...) -> (m, ...)."""
        return np.asarray(column[self.known], np.float64)


@dataclass(frozen=True)
class _Rewards:
    score: _Reward
    cost: _Reward | None
    utility: _Reward

    @classmethod
    def of(cls, rounds: LoggedRounds, cost_weight: float, seed: int, resamples: int) -> _Rewards:
        if not np.isfinite(rounds.score).any():
            raise EvaluationError("no round has a known score: there is nothing to estimate from")
        priced = len(np.unique(rounds.query[np.isfinite(rounds.cost)])) > 1
        if cost_weight > 0 and not priced:
            raise EvaluationError(
                "no two queries have a known cost: estimate at cost_weight 0, or log `cost_usd`"
            )
        bootstraps: dict[bytes, ClusterBootstrap] = {}

        def reward(name: RewardName, column: Floats) -> _Reward:
            known = np.isfinite(column)
            key = known.tobytes()  # the same rounds share their resamples
            if key not in bootstraps:
                bootstraps[key] = ClusterBootstrap(
                    rounds.query[known], resamples=resamples, seed=seed
                )
            return _Reward(name, known, column[known], bootstraps[key])

        return cls(
            reward("score", rounds.score),
            reward("cost", rounds.cost) if priced else None,
            reward("utility", utility(rounds.score, rounds.cost, cost_weight)),
        )

    def supported(self, rounds: LoggedRounds, weight: Floats) -> _Rewards:
        """Without the cost where the rounds that know it are too few for these weights, (n,)."""
        if self.cost is None:
            return self
        by_query = np.bincount(rounds.query, weights=weight * self.cost.known)
        effective = off_policy.effective_sample_size(by_query.astype(np.float64))
        return self if effective >= FEW_QUERIES else replace(self, cost=None)

    def each(self, estimate: Callable[[_Reward], Estimate]) -> Estimates:
        return Estimates(
            estimate(self.score),
            None if self.cost is None else estimate(self.cost),
            estimate(self.utility),
        )

    def minus_logged(self, of: Estimates) -> Estimates:
        def difference(reward: _Reward) -> Estimate:
            estimate: Estimate = getattr(of, reward.name)
            return off_policy.difference(estimate, reward.values, bootstrap=reward.bootstrap)

        return self.each(difference)


@dataclass(frozen=True)
class _Critic:
    score: Predictions
    cost: Predictions | None
    cost_weight: float

    def of(self, reward: _Reward) -> Predictions:
        """Predictions of a reward on the rounds that know it."""
        if reward.name == "cost" and self.cost is not None:
            made = self.cost
        elif reward.name == "utility" and self.cost is not None and self.cost_weight > 0:
            made = Predictions(
                *(
                    utility(
                        getattr(self.score, f.name), getattr(self.cost, f.name), self.cost_weight
                    )
                    for f in fields(Predictions)
                )
            )
        else:
            made = self.score
        return Predictions(*(reward.at(getattr(made, f.name)) for f in fields(Predictions)))

    def guess(self) -> Guess:
        score = float(self.score.target.mean())
        cost = None if self.cost is None else float(self.cost.target.mean())
        return Guess(score, cost, score - self.cost_weight * (cost or 0.0))


def _choices(rounds: LoggedRounds, chosen: Ints | Sequence[Plan]) -> tuple[tuple[Plan, ...], Ints]:
    """The logged plans, then the target's that were never logged; and the choices among them."""
    if len(chosen) != rounds.n_queries:
        raise EvaluationError(
            f"chosen: expected a plan for each of {rounds.n_queries} queries, got {len(chosen)}"
        )
    if isinstance(chosen, np.ndarray):
        if chosen.ndim != 1 or not np.issubdtype(chosen.dtype, np.integer):
            raise EvaluationError(
                f"chosen: expected (Q,) whole numbers or plans, got {chosen.dtype} {chosen.shape}"
            )
        if chosen.min() < -1 or chosen.max() >= len(rounds.plans):
            raise EvaluationError(
                f"chosen: expected -1 to {len(rounds.plans) - 1}, got {chosen.min()} to "
                f"{chosen.max()}"
            )
        return rounds.plans, chosen.astype(np.int64)
    new = [plan for plan in dict.fromkeys(chosen) if plan not in set(rounds.plans)]
    plans = (*rounds.plans, *new)
    at = {plan: index for index, plan in enumerate(plans)}
    return plans, np.array([at[plan] for plan in chosen], dtype=np.int64)


def _estimate_all(
    rounds: LoggedRounds, rewards: _Rewards, critic: _Critic, match: Bools, on_path: Bools
) -> dict[str, Estimates]:
    def of(reward: _Reward) -> dict[str, Estimate]:
        q, bootstrap = critic.of(reward), reward.bootstrap
        logged = (reward.values, reward.at(rounds.propensity), reward.at(match))
        threshold = off_policy.switch_threshold(*logged[1:])
        made = {
            "ips": off_policy.ips(*logged, bootstrap=bootstrap),
            "snips": off_policy.snips(*logged, bootstrap=bootstrap),
            "dr": off_policy.dr(*logged, q.logged, q.target, bootstrap=bootstrap),
            "switch-dr": off_policy.dr(
                *logged, q.logged, q.target, switch=threshold, bootstrap=bootstrap
            ),
        }
        if rounds.stages is not None:
            depth = rounds.stages.shape[1]  # a target's plan that was never logged may be longer
            # Off the target's path weights are 0, so that its own values serve there too.
            path = q.target_by_stage[:, :depth]
            made["stagewise-dr"] = off_policy.stagewise_dr(
                reward.values,
                reward.at(rounds.stages),
                reward.at(on_path[:, :depth]),
                path,
                path,
                bootstrap=bootstrap,
            )
        return made

    score, worth = of(rewards.score), of(rewards.utility)
    cost = None if rewards.cost is None else of(rewards.cost)
    return {
        name: Estimates(score[name], None if cost is None else cost[name], worth[name])
        for name in score
    }


def _apart(reward: _Reward, estimates: dict[str, Estimates], weight: Floats) -> tuple[float, float]:
    """DR minus SNIPS, and its standard error from both influence functions."""
    dr, snips = estimates["dr"].utility, estimates["snips"].utility
    w = reward.at(weight)
    influence = dr.per_round - dr.value - w / w.mean() * (reward.values - snips.value)
    error = reward.bootstrap.standard_error(influence, np.ones(len(influence)))
    return dr.value - snips.value, error


def _prefix_values(
    rounds: LoggedRounds,
    plans: tuple[Plan, ...],
    choice: Ints,
    rewards: _Rewards,
    critic: _Critic,
    half_width: float,
) -> Iterator[PrefixValue]:
    if rounds.stages is None:
        return
    codes = prefix_codes(plans)
    propensity = rounds.stages.cumprod(axis=1)  # (n, T)
    whole = (rounds.plan == choice[rounds.query]) / rounds.propensity  # (n,)
    last = whole
    for t in range(min(propensity.shape[1], codes.shape[1])):
        logged, first, plan = np.unique(
            codes[rounds.plan, t], return_index=True, return_inverse=True
        )
        at = np.minimum(np.searchsorted(logged, codes[choice, t]), len(logged) - 1)  # (Q,)
        target = np.where(logged[at] == codes[choice, t], at, -1)
        # The same rounds, with the choices up to here as the plan.
        prefix = replace(
            rounds,
            plans=tuple(plans[rounds.plan[row]] for row in first),
            plan=plan,
            propensity=propensity[:, t],
        )
        match = plan == target[rounds.query]
        weight = match / prefix.propensity
        if np.allclose(weight, last) or np.allclose(weight, whole):
            continue  # the same question as before, or that of the whole plan
        last = weight
        verdict = judge(prefix, target, weight, rewards.utility.known, half_width=half_width)
        if verdict.level == "not identified":
            yield PrefixValue(stage_name(t), verdict, None, None)
            return

        def estimate(r: _Reward, match: Bools = match, prefix: LoggedRounds = prefix) -> Estimate:
            blind = critic.of(r).blind
            logged = (r.values, r.at(prefix.propensity), r.at(match))
            return off_policy.dr(*logged, blind, blind, bootstrap=r.bootstrap)

        told = rewards.supported(rounds, weight)
        value = told.each(estimate)
        yield PrefixValue(stage_name(t), verdict, value, told.minus_logged(value))
