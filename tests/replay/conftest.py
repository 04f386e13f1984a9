"""Logs that the tests of replay share."""

from __future__ import annotations

import numpy as np
import pytest
from tests.replay.replay_samples import Records, runs_by_query

from masrouter.types import Plan
from masrouter_train.synthetic import SyntheticWorld


@pytest.fixture(scope="module")
def grid(world: SyntheticWorld, some_plans: tuple[Plan, ...]) -> Records:
    """Queries that the router has not seen, each under every plan that it knows."""
    return list(world.grid_logs(60, 5, plans=some_plans))


@pytest.fixture(scope="module")
def seen_once(grid: Records) -> Records:
    """One run a query and no probabilities: what most people have."""
    rng = np.random.default_rng(0)
    by_query = runs_by_query(grid)
    return [by_query[q][rng.integers(len(by_query[q]))] for q in sorted(by_query)]
