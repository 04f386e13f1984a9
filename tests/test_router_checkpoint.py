"""A router on disk: read back it decides alike; a forged one is refused as a CheckpointError."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from masrouter.checkpoint import CheckpointData, read_checkpoint, write_checkpoint
from masrouter.encoder import HashingEncoder
from masrouter.errors import CheckpointError
from masrouter.router import Router

QUERY = "Write a Rust function that groups orders by price and returns the 7 largest groups."


def test_a_router_read_back_decides_alike(
    router: Router, checkpoint: Path, texts: list[str]
) -> None:
    again = Router.from_pretrained(checkpoint)
    assert again.plans == router.plans
    for options in ({}, {"cost_weight": 0.0, "max_agents": 2}, {"sample": True, "seed": 3}):
        for one, other in zip(
            router.route_batch(texts, **options), again.route_batch(texts, **options), strict=True
        ):
            assert replace(other, checkpoint="") == one
    assert str(again.explain(QUERY)) == str(router.explain(QUERY))


def test_equal_content_has_an_equal_id_wherever_it_is(
    router: Router, checkpoint: Path, tmp_path: Path
) -> None:
    again = Router.from_pretrained(checkpoint)
    ids = {router.save_pretrained(tmp_path / "a"), again.save_pretrained(tmp_path / "b")}
    assert ids == {again.checkpoint}
    assert again.route(QUERY).checkpoint == again.checkpoint
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_the_card_says_what_the_router_is(checkpoint: Path) -> None:
    card = (checkpoint / "README.md").read_text()
    assert "The data are synthetic" in card
    assert "The logs are **grid**" in card
    assert "8 plans" in card


def test_todays_prices_may_be_given(checkpoint: Path) -> None:
    router = Router.from_pretrained(checkpoint)
    models = {
        name: replace(
            e,
            input_usd_per_mtok=2 * (e.input_usd_per_mtok or 0),
            output_usd_per_mtok=2 * (e.output_usd_per_mtok or 0),
        )
        for name, e in router.catalog.models.items()
    }
    dearer = Router.from_pretrained(checkpoint, catalog=replace(router.catalog, models=models))
    options: dict[str, Any] = {"topologies": ["io"], "models": ["synthetic-large"]}
    before, after = (r.route(QUERY, **options).expected_cost_usd for r in (router, dearer))
    assert before is not None
    assert after == pytest.approx(2 * before)


def test_another_encoder_is_refused(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match=r"hashing-32-v1.*hashing-64-v1"):
        Router.from_pretrained(checkpoint, encoder=HashingEncoder(64))


Forge = Callable[[CheckpointData], Any]


@pytest.fixture(scope="module")
def genuine(checkpoint: Path) -> CheckpointData:
    return read_checkpoint(checkpoint).data


def forged(genuine: CheckpointData, change: Forge, folder: Path) -> Path:
    """A checkpoint whose hashes are right and whose content is not. `change` may return data."""
    data = CheckpointData(
        config=copy.deepcopy(genuine.config),
        tensors=dict(genuine.tensors),
        catalog_yaml=genuine.catalog_yaml,
        calibration=copy.deepcopy(genuine.calibration),
        metrics=copy.deepcopy(genuine.metrics),
        model_card=genuine.model_card,
    )
    changed = change(data)
    data = changed if isinstance(changed, CheckpointData) else data
    shutil.rmtree(folder, ignore_errors=True)
    write_checkpoint(folder, data)
    return folder


def at(*path: str | int, value: Any) -> Forge:
    """Set one value of config.json."""

    def change(data: CheckpointData) -> None:
        place: Any = data.config
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


def gone(*path: str | int) -> Forge:
    def change(data: CheckpointData) -> None:
        place: Any = data.config
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return change


def tensor(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Forge:
    def forge(data: CheckpointData) -> None:
        changed = change(torch.from_numpy(data.tensors[name]))
        data.tensors[name] = changed.contiguous().numpy()

    return forge


def platt(*pairs: Any) -> Forge:
    def forge(data: CheckpointData) -> None:
        data.calibration["platt"] = [*pairs, *data.calibration["platt"][len(pairs) :]]

    return forge


def one_member(data: CheckpointData) -> None:
    data.config["critic"]["members"] = 1
    for name in list(data.tensors):
        if name.startswith("critic.heads."):
            data.tensors[name] = data.tensors[name][:1]


def other_width_of_encoder(data: CheckpointData) -> None:
    data.config["encoder"] |= {"name": "hashing-64", "identity": "hashing-64-v1"}


FORGERIES: dict[str, Forge] = {
    "version of the future": at("state_version", value=99),
    "no version": gone("state_version"),
    "no plans": at("plans", value=[]),
    "plans are not a list": at("plans", value="io"),
    "an unknown model": at("plans", 0, "agents", 0, "model", value="unheard-of"),
    "an unknown role": at("plans", 0, "agents", 0, "role", value="unheard-of"),
    "an unknown topology": at("plans", 0, "topology", value="unheard-of"),
    "an agent too many": at("plans", 0, "agents", value=[{"role": None, "model": "x"}] * 50),
    "a plan twice": lambda d: d.config["plans"].__setitem__(1, d.config["plans"][0]),
    "a plan is missing": lambda d: d.config["plans"].pop(),
    "a name is a number": at("candidates", "models", 0, value=5),
    "names are one text": at("candidates", "models", value="abc"),
    "a name twice": lambda d: d.config["candidates"]["models"].__setitem__(
        1, d.config["candidates"]["models"][0]
    ),
    "ordered is text": lambda d: d.config["candidates"].update(
        ordered=["x"] * len(d.config["candidates"]["ordered"])
    ),
    "ordered is a number": lambda d: d.config["candidates"].update(
        ordered=[5] * len(d.config["candidates"]["ordered"])
    ),
    "huge number of agents": at("candidates", "max_agents", value=10**9),
    "no agents": at("candidates", "max_agents", value=0),
    "trained disagrees": at("candidates", "trained", "models", value=1),
    "huge number of members": at("critic", "members", value=10**9),
    "negative members": at("critic", "members", value=-2),
    "one member": one_member,
    "huge dimension": at("critic", "dimension", value=10**12),
    "negative dimension": at("critic", "dimension", value=-1),
    "dimension is true": at("critic", "dimension", value=True),
    "huge width": at("controller", "width", value=10**9),
    "negative width": at("controller", "width", value=-16),
    "width is text": at("controller", "width", value="16"),
    "no reference cost": at("controller", "reference_cost", value=0),
    "negative reference cost": at("controller", "reference_cost", value=-1.0),
    "huge reference cost": at("controller", "reference_cost", value=1e300),
    "trained is text": at("controller", "trained", value="no"),
    "head beyond the heads": at("gate", "nodes", 0, "head", value=99),
    "head below fixed": at("gate", "nodes", 0, "head", value=-2),
    "head is half": at("gate", "nodes", 0, "head", value=0.5),
    "head is true": at("gate", "nodes", 0, "head", value=True),
    "gain is text": at("gate", "nodes", 0, "gain", value="x"),
    "gain is null": at("gate", "nodes", 0, "gain_error", value=None),
    "negative cost weight": at("gate", "nodes", 1, "cost_weight", value=-1.0),
    "cost weight is text": at("gate", "nodes", 1, "cost_weight", value="1"),
    "a node too few": lambda d: d.config["gate"]["nodes"].pop(),
    "no nodes": at("gate", "nodes", value=[]),
    "a node key too many": at("gate", "nodes", 0, "speed", value=1),
    "default beyond the plans": at("gate", "default", value=10_000),
    "default is half": at("gate", "default", value=0.5),
    "pessimism is text": at("gate", "pessimism", value="1"),
    "pessimism is negative": at("gate", "pessimism", value=-1.0),
    "default cost weight is negative": at("default_cost_weight", value=-5.0),
    "default cost weight is huge": at("default_cost_weight", value=1e300),
    "default cost weight is text": at("default_cost_weight", value="5"),
    "scales are text": at("critic", "score_scales", 0, "text", value="x"),
    "scales are null": at("critic", "score_scales", 1, "domain", value=None),
    "no heads": at("critic", "score_scales", value=[]),
    "a head of another name": at("critic", "log_heads", 0, value="log.cost"),
    "a head twice": lambda d: d.config["critic"].update(log_heads=["log_cost"] * 3),
    "a negative kernel": at("critic", "kernel", "any_plan", value=-1.0),
    "a huge kernel": at("critic", "kernel", "own", value=1e300),
    "a kernel key is missing": gone("critic", "kernel", "own"),
    "a domain is missing": lambda d: d.config["critic"]["domains"].pop(),
    "encoder of another width": other_width_of_encoder,
    "encoder without identity": gone("encoder", "identity"),
    "thin beyond any cosine": at("evidence", "thin", value=1e300),
    "similar is text": at("evidence", "similar", value="0.5"),
    "training is a list": at("training", value=[1]),
    "no critic": gone("critic"),
    "no gate": gone("gate"),
    "no candidates": gone("candidates"),
    "no evidence": gone("evidence"),
    "evidence of a query that is not there": tensor("evidence.cell_query", lambda t: t + 10_000),
    "evidence of a negative query": tensor("evidence.cell_query", lambda t: t - 1),
    "evidence of a plan that is not there": tensor("evidence.cell_plan", lambda t: t + 100),
    "evidence of unequal lengths": tensor("evidence.cell_runs", lambda t: t[:-1]),
    "evidence of another width": tensor("evidence.embeddings", lambda t: t[:, :-1]),
    "evidence of nothing": tensor("evidence.embeddings", lambda t: t[:0]),
    "evidence indices are true or false": tensor("evidence.cell_query", lambda t: t > 0),
    "candidate vectors in double": tensor("candidates.models.vectors", lambda t: t.double()),
    "candidate vectors are whole": tensor("candidates.roles.vectors", lambda t: t.long()),
    "a candidate too few": tensor("candidates.models.vectors", lambda t: t[:-1]),
    "a basis of another height": tensor("candidates.models.basis", lambda t: t[:-1]),
    "weights in half": tensor("critic.heads.score_0.weight", lambda t: t.half()),
    "weights of another shape": tensor("critic.heads.score_0.weight", lambda t: t[..., :-1]),
    "gate means of another size": tensor("gate.mean_score", lambda t: t[:-1]),
    "gate means are whole": tensor("gate.mean_utility", lambda t: t.long()),
    "gate runs are true or false": tensor("gate.runs", lambda t: t > 0),
    "known is a number": tensor("gate.mean_score_known", lambda t: t.float()),
    "a tensor is missing": lambda d: d.tensors.pop("controller.position"),
    "a gate tensor is missing": lambda d: d.tensors.pop("gate.runs"),
    "a tensor too many": lambda d: d.tensors.update(secret=np.zeros(3)),
    "a critic tensor too many": lambda d: d.tensors.update({"critic.secret": np.zeros(3)}),
    "no calibration": lambda d: d.calibration.pop("platt"),
    "a pair too few": lambda d: d.calibration["platt"].pop(),
    "a pair of three": platt([1.0, 0.0, 0.0]),
    "calibration that turns scores round": platt([-1.0, 0.0]),
    "calibration without end": platt(*[[1e308, -1e308]] * 3),
    "calibration is text": platt(["1", "0"]),
    "the catalog is empty": lambda d: replace(d, catalog_yaml=""),
    "the catalog is code": lambda d: replace(d, catalog_yaml="!!python/object/apply:os.abort []"),
    "the catalog is aliases": lambda d: replace(d, catalog_yaml="models: &a {x: *a}\n"),
    "the catalog has a negative price": lambda d: replace(
        d, catalog_yaml=d.catalog_yaml.replace("input_usd_per_mtok: ", "input_usd_per_mtok: -", 1)
    ),
    "the catalog has an endless price": lambda d: replace(
        d, catalog_yaml=d.catalog_yaml.replace("usd_per_mtok: ", "usd_per_mtok: .inf #", 1)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_refused(name: str, genuine: CheckpointData, tmp_path: Path) -> None:
    folder = forged(genuine, FORGERIES[name], tmp_path / "forged")
    with pytest.raises(CheckpointError, match=r"forged"):
        Router.from_pretrained(folder)


def test_an_unchanged_copy_is_not_refused(genuine: CheckpointData, tmp_path: Path) -> None:
    folder = forged(genuine, lambda data: None, tmp_path / "copy")
    assert Router.from_pretrained(folder).route(QUERY).plan


def test_very_many_plans_are_refused_before_they_fill_the_memory(
    genuine: CheckpointData, tmp_path: Path
) -> None:
    """Plans have a column each, so that their number would count twice."""

    def repeat(data: CheckpointData) -> None:
        plan = {"topology": "io", "agents": [{"model": "synthetic-small", "role": "assistant"}]}
        data.config["plans"] = [plan] * 40_000

    folder = forged(genuine, repeat, tmp_path / "forged")
    with pytest.raises(CheckpointError, match="plans"):
        Router.from_pretrained(folder)
