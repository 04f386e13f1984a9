"""A router's state into a checkpoint and back; CheckpointError for whatever does not fit together.

Read with its networks it can do everything; without them nothing here needs torch, and what was
exported from them decides. Not here: files and their hashes (`checkpoint`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

from masrouter.catalog import Catalog
from masrouter.checkpoint import CheckpointData, TensorSpec, check_tensors
from masrouter.encoder import Encoder
from masrouter.errors import CheckpointError
from masrouter.evidence import EvidenceStore
from masrouter.features import STATISTICS
from masrouter.gate import Gate
from masrouter.model_card import model_card
from masrouter.router_checks import (
    HUGE,
    Fields,
    addition_tensors,
    candidate_tensors,
    check_additions,
    check_gate,
    check_values,
    evidence_tensors,
    gate_tensors,
    platt_pairs,
    refusing,
)
from masrouter.router_settings import STATE_VERSION, EncoderSettings, Written, read_settings
from masrouter.router_state import Added, Networks, RouterState, UnloadedNetworks
from masrouter.types import Plan


class Draft(Protocol):
    """Networks whose weights are still to be checked and filled in."""

    @property
    def spec(self) -> TensorSpec:
        """The tensors of critic and cascade."""

    def filled(self) -> Networks:
        """With the weights of the checkpoint."""


def state_to_checkpoint(state: RouterState, encoder: Encoder) -> CheckpointData:
    """The parts as JSON, tensors and a model card."""
    networks = state.networks
    if not all(addition.title for addition in networks.additions):
        raise CheckpointError(
            "a router with plans added by `with_plans` cannot be saved: train on logs that hold "
            "them, or add what is new in them by add_model, add_role or add_topology"
        )
    candidates, tensors = networks.candidates.state()
    for prefix, module in (("critic", networks.critic), ("controller", networks.controller)):
        parts = module.state_dict().items()
        tensors.update({f"{prefix}.{name}": value.detach().numpy() for name, value in parts})
    tensors.update(state.gate.tensors())
    tensors.update(state.evidence.tensors())
    for position, addition in enumerate(networks.additions):
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
        "critic": networks.critic.config(),
        "controller": {
            "width": networks.controller.width,
            "reference_cost": networks.controller.reference_cost,
            "trained": state.cascade_trained,
        },
        "gate": state.gate.config(),
        "evidence": {"similar": state.evidence.similar, "thin": state.evidence.thin},
        "default_cost_weight": state.default_cost_weight,
        "training": dict(state.training),
    }
    if networks.additions:
        config["additions"] = [addition.config() for addition in networks.additions]
    return CheckpointData(
        config=config,
        tensors=tensors,
        catalog_yaml=state.trained_catalog.to_yaml(),
        calibration={"platt": [list(pair) for pair in state.calibration]},
        metrics=dict(state.metrics),
        model_card=_card(state),
    )


def _card(state: RouterState) -> str:
    """The card of what was trained, and what was added since."""
    lines = [model_card(replace(state, plans=state.plans[: state.learned]))]
    if state.networks.added:
        lines += ["## Added after training", "", "Nothing was measured on held-out queries:", ""]
        lines += [
            f"- {added.title}: {added.plans} plans, {added.probes} probe outcomes"
            for added in state.networks.added
        ]
        lines.append("")
    return "\n".join(lines)


def state_from_checkpoint(
    data: CheckpointData, where: str, *, loaded: bool
) -> tuple[RouterState, EncoderSettings]:
    """Rebuild the parts, and say which encoder they need.

    Args:
        loaded: with the networks, which needs torch; else what is known of them.
    """
    with refusing(where):
        written = read_settings(data, where)
        draft: Draft | None = None
        if loaded:
            from masrouter.networks import NetworkDraft

            draft = NetworkDraft.of(written)
        return _state(written, draft), written.encoder


def _state(written: Written, draft: Draft | None) -> RouterState:
    data, where, plans, critic = written.data, written.where, written.plans, written.critic
    dimension = written.encoder.dimension
    gate = written.section("gate")
    check_gate(gate, len(critic.score_scales), len(plans))
    evidence = evidence_tensors(data.tensors, dimension)
    features = 1 + len(STATISTICS) + len(critic.domains) + dimension
    expected = {
        **candidate_tensors(written.section("candidates"), dimension),
        **gate_tensors(len(gate.data["nodes"]), len(plans)),
        **evidence,
        **addition_tensors(data.tensors, len(written.additions), features, critic.heads),
    }
    tensors = data.tensors
    if draft is None:  # weights that are not used need not fit
        tensors = {k: v for k, v in tensors.items() if not k.startswith(("critic.", "controller."))}
    else:
        expected |= draft.spec
    place = f"{where}: model.safetensors"
    check_tensors(tensors, expected, where=place)
    check_values(tensors, evidence["evidence.embeddings"][0][0], len(plans), place)
    sizes = [entry.data["plans"] for entry in written.additions]
    check_additions(tensors, sizes, place)
    thresholds = written.section("evidence")
    catalog = _catalog(data.catalog_yaml, plans, f"{where}/catalog.yaml")
    networks: Networks = (
        draft.filled()
        if draft is not None
        else UnloadedNetworks(
            critic.domains,
            tuple(scales.name for scales in critic.score_scales),
            written.names,
            tuple(
                Added(entry.data["title"], size, len(tensors[f"additions.{i}.phi"]))
                for i, (entry, size) in enumerate(zip(written.additions, sizes, strict=True))
            ),
        )
    )
    return RouterState(
        plans=plans,
        networks=networks,
        gate=Gate.from_state(gate.data, tensors, added=len(plans) - written.learned),
        evidence=EvidenceStore(
            embeddings=tensors["evidence.embeddings"],
            cell_query=tensors["evidence.cell_query"],
            cell_plan=tensors["evidence.cell_plan"],
            cell_runs=tensors["evidence.cell_runs"],
            similar=thresholds.number("similar", -1.0, 1.0),
            thin=thresholds.number("thin", -1.0, 1.0),
        ),
        catalog=catalog,
        trained_catalog=catalog,
        calibration=platt_pairs(data.calibration, len(critic.score_scales), where),
        default_cost_weight=written.config.number("default_cost_weight", 0.0, HUGE),
        cascade_trained=written.section("controller").flag("trained"),
        encoder_name=written.encoder.name,
        training=_training(written.config),
        metrics=data.metrics,
    )


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
