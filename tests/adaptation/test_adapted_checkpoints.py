"""Routers with new candidates on disk: read back the same, forgeries refused."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.adaptation.probe_samples import NEW, QUERY, SOLO, probes

from masrouter.catalog import Catalog, ModelEntry, RoleEntry, TopologyEntry
from masrouter.checkpoint import CheckpointData, read_checkpoint, write_checkpoint
from masrouter.errors import (
    CheckpointError,
)
from masrouter.router import Router
from masrouter.types import RoutingDecision


def decisions(router: Router, texts: Sequence[str]) -> list[RoutingDecision]:
    return [
        replace(decision, checkpoint="")
        for options in ({}, {"cost_weight": 0.0}, {"models": [NEW]}, {"sample": True, "seed": 3})
        for decision in router.route_batch(texts, **options)
    ]


@pytest.fixture(scope="module")
def adapted(router: Router, twin: ModelEntry, many: list[str]) -> Router:
    wider = router.add_model(twin, probes(many[:24], SOLO, lambda i: float(i % 3 > 0)))
    return wider.add_role(RoleEntry("juror", "Weighs what others said and decides."))


@pytest.fixture(scope="module")
def saved(adapted: Router, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapted") / "checkpoint"
    adapted.save_pretrained(folder)
    return folder


def test_it_is_saved_and_read_back_the_same(
    adapted: Router, saved: Path, texts: list[str], tmp_path: Path
) -> None:
    again = Router.from_pretrained(saved)
    assert again.plans == adapted.plans
    assert decisions(again, texts) == decisions(adapted, texts)
    assert str(again.explain(QUERY)) == str(adapted.explain(QUERY))
    assert again.save_pretrained(tmp_path / "again") == again.checkpoint
    card = (saved / "README.md").read_text()
    assert f"- model {NEW}: " in card
    assert "24 probe outcomes" in card
    assert "outcomes of 8 plans" in card
    grown = again.add_topology(TopologyEntry("jury", "Agents vote.", 1, 3, ordered=False))
    assert grown.route(QUERY, topologies=["jury"]).plan.topology == "jury"


def test_a_router_without_additions_is_written_as_ever(router: Router, checkpoint: Path) -> None:
    assert "additions" not in read_checkpoint(checkpoint).data.config


def test_todays_prices_reach_new_models(saved: Path) -> None:
    router = Router.from_pretrained(saved)
    entry = router.catalog.models[NEW]
    twice = replace(
        entry,
        input_usd_per_mtok=2 * (entry.input_usd_per_mtok or 0),
        output_usd_per_mtok=2 * (entry.output_usd_per_mtok or 0),
    )
    catalog = router.catalog.extended_with(Catalog({NEW: twice}, {}, {}))
    dearer = Router.from_pretrained(saved, catalog=catalog)
    options: dict[str, Any] = {"models": [NEW], "topologies": ["io"], "max_agents": 1}
    before, after = (r.route(QUERY, **options) for r in (router, dearer))
    assert before.plan == after.plan
    assert before.expected_cost_usd is not None
    assert after.expected_cost_usd == pytest.approx(2 * before.expected_cost_usd)


def set_tensor(
    name: str, change: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[[CheckpointData], object]:
    def forge(data: CheckpointData) -> None:
        changed = change(torch.from_numpy(data.tensors[name]))
        data.tensors[name] = changed.contiguous().numpy()

    return forge


FORGERIES: dict[str, Callable[[CheckpointData], object]] = {
    "no additions": lambda d: d.config.pop("additions"),
    "an empty list": lambda d: d.config.update(additions=[]),
    "not a list": lambda d: d.config.update(additions={}),
    "one too few": lambda d: d.config["additions"].pop(),
    "no title": lambda d: d.config["additions"][0].update(title=""),
    "a key too many": lambda d: d.config["additions"][0].update(speed=1),
    "more plans than there are": lambda d: d.config["additions"][0].update(plans=10_000),
    "no plans": lambda d: d.config["additions"][0].update(plans=0),
    "a name twice": lambda d: d.config["additions"][0].update(models=[NEW, NEW]),
    "another name": lambda d: d.config["additions"][0].update(models=["synthetic-large"]),
    "a name less": lambda d: d.config["additions"][0].update(models=[]),
    "trained is too many": lambda d: d.config["candidates"]["trained"].update(models=99),
    "a score of two": set_tensor("additions.0.targets", lambda t: t + 2.0),
    "an endless cost": set_tensor("additions.0.targets", lambda t: t * 1e30),
    "a negative deviation": set_tensor("additions.0.deviations", lambda t: t - 1.0),
    "a huge deviation": set_tensor("additions.0.deviations", lambda t: t + 1e30),
    "no noise": set_tensor("additions.0.noise", lambda t: t * 0.0),
    "a head less": set_tensor("additions.0.noise", lambda t: t[:-1]),
    "a plan beyond": set_tensor("additions.0.plan", lambda t: t + 100),
    "a query before the first": set_tensor("additions.0.query", lambda t: t - 1),
    "a huge feature": set_tensor("additions.0.phi", lambda t: t + 1e30),
    "a probe less": set_tensor("additions.0.phi", lambda t: t[:-1]),
    "very many probes": set_tensor("additions.0.phi", lambda t: t[:1].expand(2_000, -1)),
    "features of another width": set_tensor("additions.0.mean_phi", lambda t: t[:-1]),
    "a tensor is missing": lambda d: d.tensors.pop("additions.0.query"),
    "a tensor too many": lambda d: d.tensors.update({"additions.9.query": np.zeros(3)}),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_additions_are_refused(name: str, saved: Path, tmp_path: Path) -> None:
    genuine = read_checkpoint(saved).data
    data = replace(genuine, config=copy.deepcopy(genuine.config), tensors=dict(genuine.tensors))
    FORGERIES[name](data)
    folder = tmp_path / "forged"
    shutil.rmtree(folder, ignore_errors=True)
    write_checkpoint(folder, data)
    with pytest.raises(CheckpointError, match="forged"):
        Router.from_pretrained(folder)
