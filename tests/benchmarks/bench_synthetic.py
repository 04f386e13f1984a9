"""What is learned where the truth is known: synthetic worlds, nothing about real models.

    python tests/benchmarks/bench_synthetic.py [--encoder hashing-256] [--worlds 3] [--draws 100]

Prints, and exits 1 where a target is missed:
  - the share of the gap between the best fixed plan and the best policy that reads the text, in
    true utility on fresh queries, recovered by `route`'s choice and by the cascade alone;
  - how often the 95 % intervals of DR and SNIPS cover the true value of a router's policy.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from masrouter import Router
from masrouter.encoder import Encoder, load_encoder
from masrouter.encoder.embedding_cache import EmbeddingCache
from masrouter.evaluation.learners import Queries
from masrouter.evaluation.off_policy import dr, snips
from masrouter.logs import Logs
from masrouter.outcomes import Outcomes
from masrouter_train.config import TrainConfig
from masrouter_train.fit import TrainingData, fit_outcomes
from masrouter_train.learner import RouterChooser
from masrouter_train.synthetic import SyntheticQueries, SyntheticWorld

GRID_TARGET, RANDOMISED_TARGET, COVERAGE_TARGET = 0.90, 0.80, 0.90


def cost_weights(world: SyntheticWorld, queries: SyntheticQueries) -> tuple[float, ...]:
    """0 and six log-spaced ones up to 2 / median true cost."""
    top = 2 / float(np.median(world.expected_cost(queries)))
    return (0.0, *np.geomspace(top / 300, top, 6).tolist())


def train(
    world: SyntheticWorld, logs: Logs, weights: tuple[float, ...], encoder: Encoder,
    config: TrainConfig,
) -> Router:  # fmt: skip
    outcomes = Outcomes.from_logs(logs)
    data = TrainingData(outcomes, encoder.encode(outcomes.queries))
    return fit_outcomes(
        data, config, catalog=world.catalog(), encoder=encoder, cost_weights=weights
    )


def choices(
    router: Router, world: SyntheticWorld, queries: SyntheticQueries, encoder: Encoder,
    weight: float, *, cascade: bool,
) -> NDArray[np.int64]:  # fmt: skip
    """Positions in world.plans of what the router (or its cascade alone) picks."""
    chooser = RouterChooser(router, world.plans, cascade)
    available = np.zeros((len(queries.texts), len(world.plans)), dtype=bool)
    available[:, chooser.columns] = True
    seen = Queries(tuple(queries.texts), encoder.encode(queries.texts))
    return chooser.choose(seen, weight, available)


def recovered(
    world: SyntheticWorld, router: Router, fresh: SyntheticQueries, weights: tuple[float, ...],
    encoder: Encoder, *, cascade: bool,
) -> list[float]:  # fmt: skip
    """Share of the gap at each cost weight."""
    shares = []
    for weight in weights:
        fixed = world.value(fresh, np.full(len(fresh.texts), world.best_fixed_plan(weight)), weight)
        best = world.value(fresh, world.best_text_policy(fresh, weight), weight)
        chosen = choices(router, world, fresh, encoder, weight, cascade=cascade)
        shares.append((world.value(fresh, chosen, weight) - fixed) / (best - fixed))
    return shares


def coverage(
    world: SyntheticWorld, encoder: Encoder, config: TrainConfig, draws: int
) -> tuple[float, float]:
    """Share of draws whose 95 % interval covers the truth: (DR, SNIPS).

    The policy and the critic come from one log, each draw is another one, the truth is exact over
    20,000 further queries.
    """
    many = world.sample_queries(20_000, seed=77)
    weight = world.middle_cost_weight()
    router = train(world, world.randomised_logs(5000, seed=5), (0.0, weight), encoder, config)
    truth = world.value(many, choices(router, world, many, encoder, weight, cascade=False), weight)
    covered = np.zeros(2)
    for draw in range(draws):
        outcomes = Outcomes.from_logs(world.randomised_logs(1000, seed=1000 + draw))
        position = world.positions(outcomes.plans)
        texts = outcomes.queries
        embeddings = encoder.encode(texts)
        chooser = RouterChooser(router, world.plans, cascade=False)
        available = np.zeros((len(texts), len(world.plans)), dtype=bool)
        available[:, chooser.columns] = True
        chosen = chooser.choose(Queries(texts, embeddings), weight, available)
        expected = router.expect(*router.read(texts), weight)
        q = np.zeros((len(texts), len(world.plans)))
        q[:, chooser.columns] = expected.score - weight * expected.cost
        logged = position[outcomes.plan]
        rows = np.arange(len(texts))
        reward = outcomes.score - weight * outcomes.cost
        target = (chosen == logged).astype(float)
        estimates = (
            dr(reward, outcomes.propensity, target, q[rows, logged], q[rows, chosen]),
            snips(reward, outcomes.propensity, target),
        )
        covered += [truth in estimate.interval for estimate in estimates]
    return float(covered[0] / draws), float(covered[1] / draws)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--encoder", default="hashing-256")
    parser.add_argument("--worlds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=100)
    arguments = parser.parse_args()
    encoder = load_encoder(arguments.encoder, cache=EmbeddingCache())
    config = TrainConfig(encoder=arguments.encoder, threads=1)
    quick = replace(config, controller=replace(config.controller, enabled=False))
    missed = False
    print(
        f"synthetic worlds, encoder {arguments.encoder}; share of the gap recovered, by cost weight"
    )
    means: dict[str, list[float]] = {}
    for seed in range(arguments.worlds):
        world = SyntheticWorld(seed)
        fresh = world.sample_queries(2000, seed=99)
        weights = cost_weights(world, fresh)
        for name, logs in (
            ("grid, 3000 queries", world.grid_logs(3000, seed=1)),
            ("randomised, 5000 runs", world.randomised_logs(5000, seed=1)),
        ):
            router = train(world, logs, weights, encoder, config)
            for who, cascade in (("router", False), ("cascade alone", True)):
                shares = recovered(world, router, fresh, weights, encoder, cascade=cascade)
                means.setdefault(f"{name}, {who}", []).append(float(np.mean(shares)))
                row = " ".join(f"{share:.2f}" for share in shares)
                print(
                    f"world {seed}  {name}, {who:14s} mean {np.mean(shares):.3f} | {row}",
                    flush=True,
                )
    for name, values in means.items():
        target = None if "cascade" in name else GRID_TARGET if "grid" in name else RANDOMISED_TARGET
        verdict = "" if target is None else f"  (target {target:.2f})"
        print(f"{name}: {np.mean(values):.3f}{verdict}")
        missed |= target is not None and float(np.mean(values)) < target
    for name, share in zip(
        ("DR", "SNIPS"), coverage(SyntheticWorld(0), encoder, quick, arguments.draws), strict=True
    ):
        print(f"{name}: {share:.0%} of {arguments.draws} intervals cover the truth (target 90 %)")
        missed |= share < COVERAGE_TARGET
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
