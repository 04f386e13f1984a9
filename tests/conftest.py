"""What several test files share: a small synthetic world and a router trained on it."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from numpy.typing import NDArray

from masrouter.encoder import HashingEncoder
from masrouter.features import FeatureScales
from masrouter.logs import LogKind, Logs
from masrouter.outcomes import Outcomes
from masrouter.router import Router
from masrouter.types import Agent, Plan
from masrouter_train.config import ControllerConfig, CriticConfig, GateConfig, TrainConfig
from masrouter_train.fit import fit
from masrouter_train.synthetic import SyntheticWorld

OutcomesOf = Callable[..., Outcomes]
MadeOnce = Callable[[str, Callable[[Path], object]], Path]
LADDER = (FeatureScales(), FeatureScales(0.1, 1.0), FeatureScales(0.2, 1.0, 0.2))
COST_LADDER = (FeatureScales(), FeatureScales(1.0, 1.0, 0.3))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What collecting imports stays until the end: the garbage collector need not walk it, neither
    while it grows nor at every full collection of a test."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _no_wait_for_the_disk() -> Iterator[None]:
    """No test cuts the power, so files are written without waiting until the disk has them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Small tensors gain nothing from threads, and tests run beside each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> MadeOnce:
    """A folder of that name, filled by the first process of the session that asks for it.

    Tests that change it work on a copy.
    """
    own = tmp_path_factory.getbasetemp()
    shared = own if worker_id == "master" else own.parent

    def made(name: str, fill: Callable[[Path], object]) -> Path:
        folder, unfinished = shared / name, shared / f"{name}-unfinished"
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                fill(unfinished)
                unfinished.rename(folder)
        return folder

    return made


@pytest.fixture(scope="session")
def encoder() -> HashingEncoder:
    return HashingEncoder(32)


@pytest.fixture(scope="session")
def world() -> SyntheticWorld:
    return SyntheticWorld(0)


@pytest.fixture(scope="session")
def some_plans(world: SyntheticWorld) -> tuple[Plan, ...]:
    """Eight plans: every topology of the world, one to three agents, all its models."""
    plans = tuple(world.plans[i] for i in (0, 2, 3, 6, 9, 11, 12, 17))
    assert {len(plan.agents) for plan in plans} == {1, 2, 3}
    return plans


@pytest.fixture(scope="session")
def config() -> TrainConfig:
    """Every part of training, as small as it goes."""
    return TrainConfig(
        encoder="hashing-32",
        critic=CriticConfig(ladder=LADDER, cost_ladder=COST_LADDER, folds=3),
        gate=GateConfig(nodes=4),
        controller=ControllerConfig(width=16, epochs=4, batch_size=32, patience=3),
    )


@pytest.fixture(scope="session")
def grid_logs(world: SyntheticWorld, some_plans: tuple[Plan, ...]) -> Logs:
    return world.grid_logs(100, 1, plans=some_plans)


@pytest.fixture(scope="session")
def router(
    grid_logs: Logs, config: TrainConfig, world: SyntheticWorld, encoder: HashingEncoder
) -> Router:
    return fit(grid_logs, config, catalog=world.catalog(), encoder=encoder)


@pytest.fixture(scope="session")
def texts(world: SyntheticWorld) -> list[str]:
    """Queries that the router has not seen."""
    return list(world.sample_queries(24, 7).texts)


@pytest.fixture(scope="session")
def checkpoint(router: Router, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The router, saved. Tests that change it work on a copy."""
    folder = tmp_path_factory.mktemp("router") / "checkpoint"
    router.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def outcomes_of() -> OutcomesOf:
    """Outcomes of (N, P) matrices; NaN in both score and cost means that the cell was not run."""

    def build(
        score: NDArray[np.float64],
        cost: NDArray[np.float64] | None = None,
        *,
        plans: Sequence[Plan] | None = None,
        texts: Sequence[str] | None = None,
        datasets: Sequence[str] | None = None,
        kind: LogKind = LogKind.GRID,
        propensity: NDArray[np.float64] | None = None,
        runs: NDArray[np.int64] | None = None,
    ) -> Outcomes:
        n, size = score.shape
        cost = np.full(score.shape, np.nan) if cost is None else cost
        query, plan = np.nonzero(np.isfinite(score) | np.isfinite(cost))
        unknown = np.full(len(query), np.nan)
        scored = np.isfinite(score[query, plan]).astype(np.int64)
        return Outcomes(
            query_ids=tuple(f"q{i:04d}" for i in range(n)),
            queries=tuple(texts) if texts else tuple(f"question {i}" for i in range(n)),
            datasets=tuple(datasets) if datasets else ("set",) * n,
            tasks=(None,) * n,
            plans=tuple(plans) if plans else single_agents(size),
            query=query.astype(np.int64),
            plan=plan.astype(np.int64),
            score=score[query, plan],
            cost=cost[query, plan],
            prompt_tokens=unknown,
            completion_tokens=unknown,
            propensity=unknown if propensity is None else propensity[query, plan],
            runs=scored if runs is None else runs[query, plan],
            kind=kind,
            why="made by hand",
        )

    return build


def single_agents(count: int) -> tuple[Plan, ...]:
    return tuple(Plan("io", (Agent(None, f"model-{i}"),)) for i in range(count))
