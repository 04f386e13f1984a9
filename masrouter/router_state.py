"""Everything a router knows, and its way into a checkpoint and back."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from masrouter.candidates import Candidates, KernelWeights, PlanIndex
from masrouter.catalog import Catalog
from masrouter.checkpoint import CheckpointData, check_tensors
from masrouter.controller import Controller
from masrouter.critic import Critic
from masrouter.encoder import Encoder, load_encoder
from masrouter.errors import CheckpointError, MasRouterError
from masrouter.evidence import EvidenceStore
from masrouter.features import FeatureScales, QueryFeatures
from masrouter.gate import FIXED, Gate
from masrouter.model_card import model_card
from masrouter.types import Plan

STATE_VERSION = 1
LIMITS = {"members": 64, "dimension": 65_536, "width": 4096, "max_agents": 1024, "heads": 64}
"""Bounds on what a checkpoint may ask to be built, so that a forged one cannot fill the memory."""


@dataclass(frozen=True)
class RouterState:
    """The parts of a trained router. C plans; the first of them are those of the logs."""

    candidates: Candidates
    plans: tuple[Plan, ...]
    critic: Critic
    controller: Controller
    gate: Gate
    evidence: EvidenceStore
    catalog: Catalog
    """Today's descriptions and prices."""
    trained_catalog: Catalog
    """Those of the day of training: predicted costs are billed at these."""
    calibration: tuple[tuple[float, float], ...]
    """Slope and intercept for each score head, on the logit scale (Platt 1999)."""
    default_cost_weight: float
    cascade_trained: bool
    encoder_name: str
    training: Mapping[str, Any]
    """Settings, kind of logs, versions: for the record."""
    metrics: Mapping[str, Any]
    """What was measured on held-out queries while training."""

    def calibrate(self, score: Tensor, head: int) -> Tensor:
        """Probability that a predicted score stands for; monotone, so no ranking changes."""
        slope, intercept = self.calibration[max(head, 0)]
        clipped = score.clamp(0.005, 0.995)
        return torch.sigmoid(slope * torch.logit(clipped) + intercept)

    def with_catalog(self, catalog: Catalog) -> RouterState:
        """With other prices. Names that it lacks keep their old entries."""
        return replace(self, catalog=self.trained_catalog.extended_with(catalog))

    def with_plans(self, plans: Sequence[Plan], catalog: Catalog, encoder: Encoder) -> RouterState:
        """With more plans to choose from; see `Router.with_plans`."""
        fresh = [plan for plan in dict.fromkeys(plans) if plan not in self.plans]
        candidates = self.candidates.extended(catalog, fresh, encoder)
        candidates.index_plans(fresh)
        critic, controller = copy.copy(self.critic), copy.copy(self.controller)
        critic.candidates = controller.candidates = candidates
        unknown = torch.full((len(fresh),), math.nan)
        gate = replace(
            self.gate,
            mean_score=torch.cat([self.gate.mean_score, unknown]),
            mean_cost=torch.cat([self.gate.mean_cost, unknown]),
            mean_utility=torch.cat(
                [self.gate.mean_utility, unknown.expand(len(self.gate.nodes), -1)], 1
            ),
            runs=torch.cat([self.gate.runs, torch.zeros(len(fresh))]),
        )
        return replace(
            self,
            candidates=candidates,
            plans=(*self.plans, *fresh),
            critic=critic,
            controller=controller,
            gate=gate,
            catalog=catalog,
        )

    def price_ratio(self) -> Tensor:
        """(C,) today's price of each plan over its price when it was trained.

        Agents are taken to share a run's tokens equally. 1 where either price is unknown: then the
        billed costs of the logs stand.
        """
        ratios = []
        for plan in self.plans:
            now, then = 0.0, 0.0
            for agent in plan.agents:
                today, before = (
                    _blended(self.catalog, agent.model),
                    _blended(self.trained_catalog, agent.model),
                )
                if today is None or before is None:
                    now = then = 0.0
                    break
                now, then = now + today, then + before
            ratios.append(now / then if then > 0 else 1.0)
        return torch.tensor(ratios)

    def prices(self) -> Tensor:
        """(2, C) today's US dollars per million prompt and completion tokens, mean over agents; NaN
        where a price is unknown."""
        prices = torch.full((2, len(self.plans)), math.nan)
        for i, plan in enumerate(self.plans):
            entries = [_entry(self.catalog, agent.model) for agent in plan.agents]
            if all(e is not None and None not in e for e in entries):
                prices[:, i] = torch.tensor(entries, dtype=torch.float32).mean(0)
        return prices


def _entry(catalog: Catalog, model: str) -> tuple[float | None, float | None] | None:
    try:
        entry = catalog.resolve_model(model)
    except MasRouterError:
        return None
    return entry.input_usd_per_mtok, entry.output_usd_per_mtok


def _blended(catalog: Catalog, model: str) -> float | None:
    """USD per million tokens at three prompt tokens to one completion token."""
    entry = _entry(catalog, model)
    if entry is None or entry[0] is None or entry[1] is None:
        return None
    return 0.75 * entry[0] + 0.25 * entry[1]


def state_to_checkpoint(state: RouterState, encoder: Encoder) -> CheckpointData:
    """The parts as JSON, tensors and a model card."""
    if len(state.plans) != len(state.critic.known):
        raise CheckpointError(
            "a router with plans added by description cannot be saved: train on logs that hold them"
        )
    candidates, tensors = state.candidates.state()
    for prefix, module in (("critic", state.critic), ("controller", state.controller)):
        tensors.update({f"{prefix}.{k}": v for k, v in module.state_dict().items()})
    tensors.update(state.gate.tensors())
    tensors.update(state.evidence.tensors())
    config = {
        "state_version": STATE_VERSION,
        "encoder": {
            "name": state.encoder_name,
            "identity": encoder.identity,
            "dimension": encoder.dimension,
        },
        "candidates": candidates,
        "plans": [plan.to_json() for plan in state.plans],
        "critic": state.critic.config(),
        "controller": {
            "width": state.controller.width,
            "reference_cost": state.controller.reference_cost,
            "trained": state.cascade_trained,
        },
        "gate": state.gate.config(),
        "evidence": {"similar": state.evidence.similar, "thin": state.evidence.thin},
        "default_cost_weight": state.default_cost_weight,
        "training": dict(state.training),
    }
    return CheckpointData(
        config=config,
        tensors={k: v.detach().contiguous() for k, v in tensors.items()},
        catalog_yaml=state.trained_catalog.to_yaml(),
        calibration={"platt": [list(pair) for pair in state.calibration]},
        metrics=dict(state.metrics),
        model_card=model_card(state),
    )


def state_from_checkpoint(
    data: CheckpointData, where: str, encoder: Encoder | None
) -> tuple[RouterState, Encoder]:
    """Rebuild the parts; CheckpointError for whatever does not fit together."""
    try:
        return _state_from_checkpoint(data, where, encoder)
    except CheckpointError:
        raise
    except (MasRouterError, LookupError, TypeError, ValueError, RuntimeError, ArithmeticError,
            AttributeError) as error:  # fmt: skip
        raise CheckpointError(
            f"{where}: config.json does not describe a router: {type(error).__name__}: {error}"
        ) from error


def _state_from_checkpoint(
    data: CheckpointData, where: str, encoder: Encoder | None
) -> tuple[RouterState, Encoder]:
    config, tensors = data.config, data.tensors
    version = config.get("state_version")
    if version != STATE_VERSION:
        raise CheckpointError(
            f"{where}: config.json: state_version: this masrouter reads {STATE_VERSION}, "
            f"the checkpoint has {version!r}; upgrade masrouter or train again"
        )
    plans = tuple(Plan.from_json(plan) for plan in config["plans"])
    catalog = Catalog.from_yaml(data.catalog_yaml, f"{where}/catalog.yaml")
    _bounded(config["candidates"]["max_agents"], "max_agents", where)
    candidates = Candidates.from_state(config["candidates"], tensors)
    _check_candidates(candidates, config["encoder"]["dimension"], where)
    index = candidates.index_plans(plans)
    with torch.device("meta"):  # nothing is allocated before the shapes are checked
        critic = _critic(config["critic"], candidates, index, where)
        controller = Controller(
            critic.query_features.dimension,
            candidates,
            _number(config["controller"]["reference_cost"]),
            _bounded(config["controller"]["width"], "width", where),
        )
    gate = Gate.from_state(config["gate"], tensors)
    evidence = EvidenceStore(
        *(tensors[f"evidence.{n}"] for n in ("embeddings", "cell_query", "cell_plan", "cell_runs")),
        similar=_number(config["evidence"]["similar"]),
        thin=_number(config["evidence"]["thin"]),
    )
    expected = {
        f"{prefix}.{name}": (tuple(t.shape), t.dtype)
        for prefix, module in (("critic", critic), ("controller", controller))
        for name, t in module.state_dict().items()
    }
    given = {k: v for k, v in tensors.items() if k.startswith(("critic.", "controller."))}
    check_tensors(given, expected, where=where)
    _check_gate(gate, len(plans), len(critic.score_scales), where)
    _check_evidence(evidence, len(plans), critic.query_features.dimension, where)
    for prefix, module in (("critic.", critic), ("controller.", controller)):
        own = {k.removeprefix(prefix): v for k, v in given.items() if k.startswith(prefix)}
        module.load_state_dict(own, assign=True)
        module.requires_grad_(False).eval()
    platt = [(_number(a), _number(b)) for a, b in data.calibration["platt"]]
    if len(platt) != len(critic.score_scales):
        raise CheckpointError(f"{where}: calibration.json: expected one pair a score head")
    name = str(config["encoder"]["name"])
    encoder = encoder if encoder is not None else load_encoder(name)
    if encoder.identity != config["encoder"]["identity"]:
        raise CheckpointError(
            f"{where}: was trained with encoder {config['encoder']['identity']!r}, got "
            f"{encoder.identity!r}; install or pass the same encoder"
        )
    state = RouterState(
        candidates=candidates,
        plans=plans,
        critic=critic,
        controller=controller,
        gate=gate,
        evidence=evidence,
        catalog=catalog,
        trained_catalog=catalog,
        calibration=tuple(platt),
        default_cost_weight=_number(config["default_cost_weight"]),
        cascade_trained=bool(config["controller"]["trained"]),
        encoder_name=name,
        training=dict(config["training"]),
        metrics=data.metrics,
    )
    return state, encoder


def _critic(
    config: Mapping[str, Any], candidates: Candidates, index: PlanIndex, where: str
) -> Critic:
    scales = [FeatureScales(**entry) for entry in config["score_scales"]]
    if not 1 <= len(scales) <= LIMITS["heads"] or len(config["log_heads"]) > 3:
        raise CheckpointError(f"{where}: config.json: critic: too many or no heads")
    features = QueryFeatures(
        _bounded(config["dimension"], "dimension", where), [str(d) for d in config["domains"]]
    )
    return Critic(
        features,
        candidates,
        index,
        score_scales=scales,
        log_heads=[str(name) for name in config["log_heads"]],
        members=_bounded(config["members"], "members", where),
        kernel=KernelWeights(**{k: _number(v) for k, v in config["kernel"].items()}),
    )


def _check_candidates(candidates: Candidates, dimension: int, where: str) -> None:
    for stage in ("topologies", "roles", "models"):
        table = getattr(candidates, stage)
        rows = len(table.names)
        shapes_fit = (
            table.vectors.ndim == 2
            and len(table.vectors) == rows == table.trained
            and table.mean.shape == (dimension,)
            and table.basis.ndim == 2
            and len(table.basis) == dimension
        )
        if not shapes_fit or len(set(table.names)) != rows:
            raise CheckpointError(f"{where}: candidates.{stage}: tensors and names disagree")
    if len(candidates.ordered) != len(candidates.topologies.names):
        raise CheckpointError(f"{where}: candidates: one `ordered` a topology is needed")


def _check_gate(gate: Gate, plans: int, heads: int, where: str) -> None:
    nodes = len(gate.nodes)
    shapes = {
        "mean_score": (plans,),
        "mean_cost": (plans,),
        "mean_utility": (nodes, plans),
        "runs": (plans,),
    }
    for name, shape in shapes.items():
        if tuple(getattr(gate, name).shape) != shape:
            raise CheckpointError(f"{where}: gate.{name}: expected shape {shape}")
    for node in gate.nodes:
        if not FIXED <= node.head < heads or not 0 <= node.cost_weight < math.inf:
            raise CheckpointError(f"{where}: config.json: gate: node {node} is impossible")
    if not nodes or not -1 <= gate.default < plans or not 0 <= gate.pessimism < math.inf:
        raise CheckpointError(f"{where}: config.json: gate: no nodes, or an impossible default")


def _check_evidence(evidence: EvidenceStore, plans: int, dimension: int, where: str) -> None:
    queries = len(evidence.embeddings)
    shapes_fit = evidence.embeddings.shape == (queries, dimension) and (
        evidence.cell_query.shape == evidence.cell_plan.shape == evidence.cell_runs.shape
    )
    if not shapes_fit or queries == 0:
        raise CheckpointError(f"{where}: evidence: tensors disagree in shape")
    for name, bound in (("cell_query", queries), ("cell_plan", plans)):
        values = getattr(evidence, name)
        if values.numel() and not (int(values.min()) >= 0 and int(values.max()) < bound):
            raise CheckpointError(f"{where}: evidence.{name}: an index is out of range")


def _bounded(value: Any, what: str, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LIMITS[what]:
        raise CheckpointError(
            f"{where}: config.json: {what}: expected 1 to {LIMITS[what]}, got {value!r}"
        )
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number, got {value!r}")
    return float(value)
