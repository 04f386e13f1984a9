"""A small evaluation that holds all that a report can show, and one full of hostile names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from tests.conftest import MadeOnce

from masrouter.encoder import HashingEncoder
from masrouter.evaluation.baselines import default_baselines
from masrouter.evaluation.crossval import CrossValidation, cross_validate
from masrouter.evaluation.predictors import Ridge
from masrouter.evaluation.summary import Evaluation, summarise
from masrouter.logs import LogKind
from masrouter.outcomes import Outcomes
from masrouter.reporting.evaluation_page import write_report
from masrouter.types import Agent, Plan
from masrouter_train.config import CriticConfig, GateConfig, TrainConfig
from masrouter_train.explained_examples import with_examples
from masrouter_train.learner import RouterLearner
from masrouter_train.synthetic import SyntheticWorld

FOLDS = 3
HOSTILE = (
    '<img src=x onerror="alert(1)">',
    "</title><script>alert(2)</script>",
    '"><svg onload=alert(3)>',
    "$\\frac{1}{",
    "_hidden",
    "nul\x00 bell\x07 escape\x1b[31m",
    "漢字 and عربى",
    "&amp; <!-- not a comment -->",
    "{{ 7 * 7 }} {% raw %}",
    "x" * 400,
)


@cache
def validated() -> tuple[CrossValidation, np.ndarray, RouterLearner]:
    """A grid of a synthetic world, a router and all baselines, cross-validated."""
    world = SyntheticWorld(0)
    plans = tuple(world.plans[i] for i in (0, 2, 3, 6, 9, 11, 12, 17))
    outcomes = Outcomes.from_logs(world.grid_logs(150, 1, plans=plans))
    encoder = HashingEncoder(64)
    embeddings = encoder.encode(outcomes.queries)
    config = TrainConfig(
        encoder="hashing-64", critic=CriticConfig(folds=3), gate=GateConfig(nodes=5)
    )
    learner = RouterLearner(config, encoder, world.catalog())
    learners = [learner, *default_baselines()]
    cv = cross_validate(outcomes, embeddings, learners, folds=FOLDS, seeds=(0,))
    return cv, embeddings, learner


@cache
def full() -> Evaluation:
    """All that a report can show."""
    cv, embeddings, learner = validated()
    world = SyntheticWorld(0)
    evaluation = summarise(
        cv, data="a small world", synthetic=True, notes=("the models are made up",), resamples=300
    )
    logs = world.grid_logs(150, 1, plans=cv.outcomes.plans)
    return with_examples(evaluation, cv, embeddings, learner, logs, folds=FOLDS)


def grid(
    n: int = 60,
    *,
    plans: Sequence[Plan],
    datasets: Sequence[str] = ("one",),
    free: bool = False,
    seed: int = 0,
) -> tuple[Outcomes, np.ndarray]:
    """Random outcomes of every plan on every query, dearer plans better; data sets in turn."""
    rng = np.random.default_rng(seed)
    size = len(plans)
    score = (rng.random((n, size)) < np.linspace(0.4, 0.8, size)).astype(np.float64)
    cost = np.geomspace(1e-4, 1e-2, size) * rng.lognormal(0.0, 0.3, (n, size))
    query, plan = np.divmod(np.arange(n * size), size)
    unknown = np.full(n * size, np.nan)
    outcomes = Outcomes(
        query_ids=tuple(f"q{i:03d}" for i in range(n)),
        queries=tuple(f"question {i}" for i in range(n)),
        datasets=tuple(datasets[i % len(datasets)] for i in range(n)),
        tasks=(None,) * n,
        plans=tuple(plans),
        query=query,
        plan=plan,
        score=score.ravel(),
        cost=unknown if free else cost.ravel(),
        prompt_tokens=unknown,
        completion_tokens=unknown,
        propensity=unknown,
        runs=np.ones(n * size, dtype=np.int64),
        kind=LogKind.GRID,
        why="made by hand",
    )
    return outcomes, rng.normal(size=(n, 4)).astype(np.float32)


def plans_named(names: Sequence[str]) -> tuple[Plan, ...]:
    return tuple(
        Plan(name, tuple(Agent(names[-1 - i], name) for _ in range(1 + i % 3)))
        for i, name in enumerate(names)
    )


@cache
def hostile() -> Evaluation:
    """Every name and text that comes from outside tries to be something else."""
    outcomes, x = grid(plans=plans_named(HOSTILE), datasets=HOSTILE[:6])
    outcomes = replace(
        outcomes, queries=tuple(HOSTILE[i % len(HOSTILE)] for i in range(outcomes.n_queries))
    )
    learners = [Ridge(name=HOSTILE[0]), *default_baselines()]
    cv = cross_validate(outcomes, x, learners, folds=2, seeds=(0,))
    return summarise(cv, data=HOSTILE[1], notes=HOSTILE, resamples=200)


def full_report(made_once: MadeOnce) -> Path:
    """The folder of the report of `full`."""
    return made_once("full-report", lambda folder: write_report(full(), folder))


def hostile_report(made_once: MadeOnce) -> Path:
    """The folder of the report of `hostile`."""
    return made_once("hostile-report", lambda folder: write_report(hostile(), folder))
