"""A small router of one-agent plans that sends different texts to different models."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import COST_LADDER, LADDER, MadeOnce

from masrouter.encoder import HashingEncoder
from masrouter.router import Router
from masrouter_train.config import ControllerConfig, CriticConfig, GateConfig, TrainConfig
from masrouter_train.fit import fit
from masrouter_train.synthetic import SyntheticWorld


@pytest.fixture(scope="session")
def one_call_router(made_once: MadeOnce) -> Router:
    return Router.from_pretrained(made_once("one-call-router", _train))


@pytest.fixture(scope="session")
def some_texts(one_call_router: Router) -> list[str]:
    """Two texts for each model that the router picks: no host passes by always taking one."""
    by_model: dict[str, list[str]] = {}
    for text in SyntheticWorld(0).sample_queries(24, 7).texts:
        model = one_call_router.route(text, max_agents=1).plan.agents[0].model
        by_model.setdefault(model, []).append(text)
    assert len(by_model) >= 3
    return [text for texts in by_model.values() for text in texts[:2]]


def _train(folder: Path) -> None:
    world = SyntheticWorld(0)
    plans = (*(p for p in world.plans if p.topology in ("io", "cot")), world.plans[9])
    config = TrainConfig(
        encoder="hashing-32",
        critic=CriticConfig(ladder=LADDER[:2], cost_ladder=COST_LADDER, folds=3),
        gate=GateConfig(nodes=2),
        controller=ControllerConfig(width=8, epochs=1, batch_size=64, patience=1),
    )
    logs = world.grid_logs(120, 1, plans=plans)
    router = fit(logs, config, catalog=world.catalog(), encoder=HashingEncoder(32))
    router.save_pretrained(folder)
