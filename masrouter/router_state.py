"""Everything a router knows, and its way into a checkpoint and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from masrouter.additions import Addition
from masrouter.candidates import Candidates, KernelWeights, PlanIndex
from masrouter.catalog import Catalog
from masrouter.checkpoint import CheckpointData, check_tensors
from masrouter.controller import Controller
from masrouter.critic import Critic, FoldedCritic
from masrouter.encoder import Encoder, load_encoder
from masrouter.errors import CheckpointError, EncoderError, MasRouterError
from masrouter.evidence import EvidenceStore
from masrouter.features import FeatureScales, QueryFeatures
from masrouter.gate import Gate
from masrouter.model_card import model_card
from masrouter.router_checks import (
    HUGE,
    MOST_ADDITIONS,
    MOST_NAMES,
    MOST_PLANS,
    Fields,
    addition_tensors,
    candidate_tensors,
    check_additions,
    check_candidates,
    check_gate,
    check_size,
    check_values,
    evidence_tensors,
    gate_tensors,
    platt_pairs,
    refusing,
)
from masrouter.types import Plan

STATE_VERSION = 1
LOG_HEADS = ("log_cost", "log_prompt_tokens", "log_completion_tokens")
MOST_HEADS = 64
SECTION_KEYS = {
    "encoder": ("name", "identity", "dimension"),
    "candidates": ("topologies", "roles", "models", "trained", "max_agents", "ordered"),
    "critic": ("dimension", "domains", "score_scales", "log_heads", "members", "kernel"),
    "controller": ("width", "reference_cost", "trained"),
    "gate": ("nodes", "precise", "pessimism", "default"),
    "evidence": ("similar", "thin"),
}
ADDITION_KEYS = ("title", "topologies", "roles", "models", "plans")
CONFIG_KEYS = ("state_version", *SECTION_KEYS, "plans", "default_cost_weight", "training")


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
    additions: tuple[Addition, ...] = ()
    """What came after training, in order: its plans are the last ones."""

    def calibrate(self, score: Tensor, head: int) -> Tensor:
        """Probability that a predicted score stands for; monotone, so no ranking changes."""
        slope, intercept = self.calibration[max(head, 0)]
        clipped = score.clamp(0.005, 0.995)
        return torch.sigmoid(slope * torch.logit(clipped) + intercept)

    def with_catalog(self, catalog: Catalog) -> RouterState:
        """With other prices. Names that it lacks keep their old entries."""
        return replace(self, catalog=self.trained_catalog.extended_with(catalog))

    @property
    def learned(self) -> int:
        """How many of the plans training knew; those of `additions` follow them."""
        return len(self.plans) - sum(addition.plans for addition in self.additions)

    def addition_of(self, plan: int) -> Addition | None:
        """What brought the plan at this position; None for a plan of the training logs."""
        start = self.learned
        for addition in self.additions:
            if start <= plan < start + addition.plans:
                return addition
            start += addition.plans
        return None

    def fold(self, index: PlanIndex) -> FoldedCritic:
        """The critic for all plans; `index` are the plans as indices."""
        position = torch.arange(len(self.plans))
        position[self.learned :] = -1
        return FoldedCritic(self.critic, index, position, self.additions)

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
    if not all(addition.title for addition in state.additions):
        raise CheckpointError(
            "a router with plans added by `with_plans` cannot be saved: train on logs that hold "
            "them, or add what is new in them by add_model, add_role or add_topology"
        )
    candidates, tensors = state.candidates.state()
    for prefix, module in (("critic", state.critic), ("controller", state.controller)):
        tensors.update({f"{prefix}.{k}": v for k, v in module.state_dict().items()})
    tensors.update(state.gate.tensors())
    tensors.update(state.evidence.tensors())
    for position, addition in enumerate(state.additions):
        tensors.update(addition.tensors(position))
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
    if state.additions:
        config["additions"] = [addition.config() for addition in state.additions]
    return CheckpointData(
        config=config,
        tensors={k: v.detach().contiguous() for k, v in tensors.items()},
        catalog_yaml=state.trained_catalog.to_yaml(),
        calibration={"platt": [list(pair) for pair in state.calibration]},
        metrics=dict(state.metrics),
        model_card=_card(state),
    )


def _card(state: RouterState) -> str:
    """The card of what was trained, and what was added since."""
    lines = [model_card(replace(state, plans=state.plans[: state.learned]))]
    if state.additions:
        lines += ["## Added after training", "", "Nothing was measured on held-out queries:", ""]
        lines += [
            f"- {addition.title}: {addition.plans} plans, {len(addition.phi)} probe outcomes"
            for addition in state.additions
        ]
        lines.append("")
    return "\n".join(lines)


def state_from_checkpoint(
    data: CheckpointData, where: str, encoder: Encoder | None
) -> tuple[RouterState, Encoder]:
    """Rebuild the parts; CheckpointError for whatever does not fit together."""
    with refusing(where):
        return _state_from_checkpoint(data, where, encoder)


def _state_from_checkpoint(
    data: CheckpointData, where: str, encoder: Encoder | None
) -> tuple[RouterState, Encoder]:
    place = f"{where}: config.json"
    version = data.config.get("state_version")
    if version != STATE_VERSION or isinstance(version, bool):
        raise CheckpointError(
            f"{place}: state_version: this masrouter reads {STATE_VERSION}, "
            f"the checkpoint has {version!r}; upgrade masrouter or train again"
        )
    added = ("additions",) if "additions" in data.config else ()  # none in most, nor in old ones
    config = Fields.of(data.config, place, (*CONFIG_KEYS, *added))
    dimension = _section(config, "encoder").integer("dimension", 1, 65_536)
    plans = _plans(config)
    additions = _additions(config, len(plans)) if added else []
    candidates = _candidates(config, data.tensors, additions, dimension, len(plans), where)
    learned = len(plans) - sum(entry.data["plans"] for entry in additions)
    known = candidates.index_plans(plans[:learned])
    with torch.device("meta"):  # nothing is allocated before the shapes are checked
        critic = _critic(config, candidates, known, dimension)
        controller = _controller(config, candidates, dimension)
    heads = len(critic.score_scales)
    gate = _section(config, "gate")
    check_gate(gate, heads, len(plans))
    evidence = evidence_tensors(data.tensors, dimension)
    expected = {
        **candidate_tensors(_section(config, "candidates"), dimension),
        **gate_tensors(len(gate.data["nodes"]), len(plans)),
        **evidence,
        **addition_tensors(
            data.tensors, len(additions), critic.query_features.width, len(critic.heads)
        ),
    }
    modules: tuple[tuple[str, Module], ...] = (("critic.", critic), ("controller.", controller))
    for prefix, module in modules:
        for name, tensor in module.state_dict().items():
            expected[prefix + name] = (tuple(tensor.shape), tensor.dtype)
    check_tensors(data.tensors, expected, where=f"{where}: model.safetensors")
    queries = evidence["evidence.embeddings"][0][0]
    check_values(data.tensors, queries, len(plans), f"{where}: model.safetensors")
    sizes = [entry.data["plans"] for entry in additions]
    check_additions(data.tensors, sizes, f"{where}: model.safetensors")
    for prefix, module in modules:
        own = {k.removeprefix(prefix): v for k, v in data.tensors.items() if k.startswith(prefix)}
        module.load_state_dict(own, assign=True)
        module.requires_grad_(False).eval()
    encoder = _encoder(config, encoder, where)
    thresholds = _section(config, "evidence")
    catalog = _catalog(data.catalog_yaml, plans, f"{where}/catalog.yaml")
    state = RouterState(
        candidates=candidates,
        plans=plans,
        critic=critic,
        controller=controller,
        gate=Gate.from_state(dict(gate.data), data.tensors, added=len(plans) - learned),
        evidence=EvidenceStore(
            embeddings=data.tensors["evidence.embeddings"],
            cell_query=data.tensors["evidence.cell_query"],
            cell_plan=data.tensors["evidence.cell_plan"],
            cell_runs=data.tensors["evidence.cell_runs"],
            similar=thresholds.number("similar", -1.0, 1.0),
            thin=thresholds.number("thin", -1.0, 1.0),
        ),
        catalog=catalog,
        trained_catalog=catalog,
        calibration=platt_pairs(data.calibration, heads, where),
        default_cost_weight=config.number("default_cost_weight", 0.0, HUGE),
        cascade_trained=_section(config, "controller").flag("trained"),
        encoder_name=_section(config, "encoder").text("name"),
        training=_training(config),
        metrics=data.metrics,
        additions=tuple(
            Addition.from_state(entry.data, data.tensors, i) for i, entry in enumerate(additions)
        ),
    )
    return state, encoder


def _section(config: Fields, key: str) -> Fields:
    return config.section(key, SECTION_KEYS[key])


def _fields(kind: type[FeatureScales] | type[KernelWeights]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def _plans(config: Fields) -> tuple[Plan, ...]:
    entries = config.items("plans", 1, MOST_PLANS)
    plans = tuple(Plan.from_json(entry) for entry in entries)
    if len(set(plans)) < len(plans):
        raise CheckpointError(f"{config.where}: plans: a plan stands there twice")
    return plans


def _additions(config: Fields, plans: int) -> list[Fields]:
    entries = [
        Fields.of(entry, f"{config.where}: additions[{i}]", ADDITION_KEYS)
        for i, entry in enumerate(config.items("additions", 1, MOST_ADDITIONS))
    ]
    left = plans - 1
    for entry in entries:
        left -= entry.integer("plans", 1, max(left, 0))
    return entries


def _candidates(
    config: Fields,
    tensors: dict[str, Tensor],
    additions: Sequence[Fields],
    dimension: int,
    plans: int,
    where: str,
) -> Candidates:
    section = _section(config, "candidates")
    check_candidates(section, additions)
    check_size(section, plans)
    own = {name: tensor for name, tensor in tensors.items() if name.startswith("candidates.")}
    check_tensors(own, candidate_tensors(section, dimension), where=f"{where}: model.safetensors")
    return Candidates.from_state(dict(section.data), own)


def _critic(config: Fields, candidates: Candidates, index: PlanIndex, dimension: int) -> Critic:
    section = _section(config, "critic")
    section.integer("dimension", dimension, dimension)
    log_heads = section.names("log_heads", 0, len(LOG_HEADS))
    if not set(log_heads) <= set(LOG_HEADS):
        raise CheckpointError(f"{section.where}: log_heads: expected some of {LOG_HEADS}")
    scales = (
        Fields.of(entry, f"{section.where}: score_scales[{i}]", _fields(FeatureScales))
        for i, entry in enumerate(section.items("score_scales", 1, MOST_HEADS))
    )
    return Critic(
        QueryFeatures(dimension, section.names("domains", 0, MOST_NAMES)),
        candidates,
        index,
        score_scales=[FeatureScales(**scale.all_numbers(1e6)) for scale in scales],
        log_heads=log_heads,
        members=section.integer("members", 3, MOST_HEADS),
        kernel=KernelWeights(**section.numbers("kernel", _fields(KernelWeights), 1e6)),
    )


def _controller(config: Fields, candidates: Candidates, dimension: int) -> Controller:
    section = _section(config, "controller")
    return Controller(
        dimension,
        candidates,
        section.number("reference_cost", 1 / HUGE, HUGE),
        section.integer("width", 1, 4096),
    )


def _encoder(config: Fields, given: Encoder | None, where: str) -> Encoder:
    """The encoder that was given or the one of that name; it must be the one of the training."""
    section = _section(config, "encoder")
    identity, dimension = section.text("identity"), section.data["dimension"]
    try:
        encoder = given if given is not None else load_encoder(section.text("name"))
    except EncoderError as error:
        raise CheckpointError(f"{where}: its encoder cannot be had: {error}") from error
    if encoder.identity != identity or encoder.dimension != dimension:
        raise CheckpointError(
            f"{where}: was trained with encoder {identity!r} of {dimension} dimensions, got "
            f"{encoder.identity!r} of {encoder.dimension}; install or pass the same encoder"
        )
    return encoder


def _catalog(text: str, plans: tuple[Plan, ...], where: str) -> Catalog:
    catalog = Catalog.from_yaml(text, where)
    _, unknown = catalog.with_names_from(plans)
    if unknown:
        raise CheckpointError(f"{where}: does not describe {', '.join(unknown[:12])}")
    return catalog


def _training(config: Fields) -> dict[str, Any]:
    """A record for people; the model card reads its data sets."""
    training = config.data["training"]
    if not isinstance(training, dict):
        raise CheckpointError(f"{config.where}: training: expected an object")
    if "datasets" in training:
        Fields(training, f"{config.where}: training").names("datasets", 0, 1_000_000)
    return dict(training)
