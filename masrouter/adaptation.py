"""New models, roles, topologies and plans for a trained router, and what probe runs say of them.

    profile ── description, price ──► plans that can be chosen at once
    probes ──► scores and costs of those plans, without touching the prediction of any other

Nothing is trained: see `additions` for the formula and `priors` for how far a description is
trusted. Where the gate takes the best fixed plan, a probed plan competes with its lower confidence
bound (`_with_fixed_values`), so that one that was merely lucky, or well described, does not win,
and a plan without probes does not take part.
Not here: routing (`router`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from masrouter.additions import Addition
from masrouter.catalog import Catalog, ModelEntry, RoleEntry, TopologyEntry
from masrouter.critic import FoldedCritic, jackknife_error
from masrouter.encoder import Encoder
from masrouter.errors import CatalogError, PlanError, RoutingError
from masrouter.features import text_statistics
from masrouter.gate import Gate
from masrouter.networks import TrainedNetworks, fold
from masrouter.priors import NewNames, cell_noise, prior_deviations
from masrouter.probes import LEAST_AMOUNT, Kind, Probes, gather, read_probes, unknown_name, uses
from masrouter.router_checks import MOST_ADDITIONS
from masrouter.router_state import RouterState
from masrouter.tensor_layout import TARGETS
from masrouter.types import Agent, LogRecord, Plan

Profile = ModelEntry | RoleEntry | TopologyEntry
STAGES: dict[Kind, str] = {"model": "models", "role": "roles", "topology": "topologies"}
PROFILES: dict[Kind, type[Profile]] = {
    "model": ModelEntry,
    "role": RoleEntry,
    "topology": TopologyEntry,
}
CAUTION = 0.5
"""Standard errors taken off a probed plan's mean before it is compared with the fixed plans. Half
of one: the mean is shrunk already."""


def with_candidate(
    state: RouterState,
    encoder: Encoder,
    kind: Kind,
    profile: Profile,
    probes: Iterable[LogRecord],
    plans: Sequence[Plan] | None,
) -> RouterState:
    """A state with a new model, role or topology; see `Router.add_model`."""
    added = _catalog_of(kind, profile, state)
    records = read_probes(probes)
    if isinstance(plans, Plan):
        raise PlanError(f"add_{kind}: expected a list of plans, got {plans}")
    if plans is None:
        tried = [record.plan for record in records if uses(record.plan, kind, profile.name)]
        plans = [*_default_plans(state, kind, profile), *tried]
    plans = list(dict.fromkeys(plans))
    catalog = state.catalog.extended_with(added)
    _check_plans(plans, kind, profile, state, catalog)
    if len(state.additions) >= MOST_ADDITIONS:
        raise RoutingError(f"this router has {MOST_ADDITIONS} additions: train on their probes")
    return _extended(
        replace(state, trained_catalog=state.trained_catalog.extended_with(added)),
        plans,
        catalog,
        encoder,
        f"{kind} {profile.name}",
        gather(records, plans, kind, profile.name, state.candidates),
    )


def with_plans(
    state: RouterState, plans: Sequence[Plan], catalog: Catalog, encoder: Encoder
) -> RouterState:
    """A state with more plans, judged by what they share with logged ones."""
    fresh = [plan for plan in dict.fromkeys(plans) if plan not in state.plans]
    if not fresh:
        return replace(state, catalog=catalog)
    return _extended(state, fresh, catalog, encoder, "", Probes.none())


def _catalog_of(kind: Kind, profile: Profile, state: RouterState) -> Catalog:
    """The profile as a catalog of one entry, checked by the rules of catalog files."""
    if not isinstance(profile, PROFILES[kind]):
        raise RoutingError(
            f"add_{kind}: expected a masrouter.catalog.{PROFILES[kind].__name__}, got {profile!r}"
        )
    if profile.name in getattr(state.candidates, STAGES[kind]).names:
        raise RoutingError(
            f"add_{kind}: {profile.name!r} is known to this router already; to give it more "
            f"probes, add it with all of them to the router that did not know it"
        )
    entries: dict[str, dict[str, Profile]] = {stage: {} for stage in STAGES.values()}
    entries[STAGES[kind]][profile.name] = profile
    one = Catalog(**entries)  # type: ignore[arg-type]
    added = Catalog.from_yaml(one.to_yaml(), f"add_{kind}")
    after = state.catalog.extended_with(added)
    for name in state.candidates.models.names:
        if after.resolve_model(name) != state.catalog.resolve_model(name):
            raise CatalogError(
                f"add_{kind}: {profile.name!r} would stand for {name!r}, which this router knows: "
                "drop the alias"
            )
    return added


def _default_plans(state: RouterState, kind: Kind, profile: Profile) -> list[Plan]:
    """Copies of the router's simplest plans with the new name in place of an old one.

    A model or a role takes the seat of every plan with one agent; where there is none, all seats of
    every plan whose seats agree in it (every plan, where none does). A topology takes the teams of
    one model whose size it allows, else all teams of such a size.
    """
    name = profile.name
    if isinstance(profile, TopologyEntry):
        fitting = [plan for plan in state.plans if profile.allows(len(plan.agents))]
        alike = [plan for plan in fitting if len(plan.models) == 1]
        return [Plan(name, plan.agents) for plan in alike or fitting]
    chosen = [plan for plan in state.plans if len(plan.agents) == 1]
    if not chosen:
        chosen = [plan for plan in state.plans if _agree(plan, kind)] or list(state.plans)
    return [
        replace(
            plan,
            agents=tuple(
                Agent(agent.role, name) if kind == "model" else Agent(name, agent.model)
                for agent in plan.agents
            ),
        )
        for plan in chosen
    ]


def _agree(plan: Plan, kind: Kind) -> bool:
    parts = {agent.model if kind == "model" else agent.role for agent in plan.agents}
    return len(parts) == 1


def _check_plans(
    plans: Sequence[Plan], kind: Kind, profile: Profile, state: RouterState, catalog: Catalog
) -> None:
    """PlanError for a plan without the new name, with another unknown one, or of a wrong size."""
    if not plans:
        raise PlanError(
            f"add_{kind}: no plan of this router can be copied for {profile.name!r}; name plans"
        )
    known = state.candidates
    for plan in plans:
        if not isinstance(plan, Plan):
            raise PlanError(f"add_{kind}: plans: expected Plan, got {plan!r}")
        if not uses(plan, kind, profile.name):
            raise PlanError(f"add_{kind}: {plan} does not use {kind} {profile.name!r}")
        unknown = unknown_name(plan, known, kind, profile.name)
        if unknown:
            raise PlanError(
                f"add_{kind}: {plan}: {unknown} is unknown to this router; add it first"
            )
        entry = catalog.topologies[plan.topology]
        if not entry.allows(len(plan.agents)):
            raise PlanError(
                f"add_{kind}: {plan}: topology {plan.topology!r} takes {entry.min_agents} to "
                f"{entry.max_agents} agents"
            )


def _extended(
    state: RouterState,
    plans: Sequence[Plan],
    catalog: Catalog,
    encoder: Encoder,
    title: str,
    probes: Probes,
) -> RouterState:
    """The state with these plans as its last ones."""
    before = state.candidates
    candidates = before.extended(catalog, plans, encoder)
    candidates.index_plans(plans)
    critic, controller = copy.copy(state.critic), copy.copy(state.controller)
    critic.candidates = controller.candidates = candidates
    embeddings = encoder.encode(list(probes.texts))  # (q, E)
    statistics = text_statistics(probes.texts)
    runs = torch.zeros(len(plans)).index_add_(0, probes.plan.long(), probes.runs.float())
    networks = TrainedNetworks(candidates, critic, controller, state.additions)
    wider = replace(
        state,
        networks=networks,
        plans=(*state.plans, *plans),
        gate=state.gate.extended(runs.numpy()),
        catalog=catalog,
        evidence=state.evidence.extended(
            embeddings,
            probes.query.numpy(),
            probes.plan.numpy() + np.int32(len(state.plans)),
            probes.runs.numpy(),
        ),
    )
    with torch.inference_mode():
        probes = _at_trained_prices(probes, wider, len(plans))
        mean_phi = state.additions[0].mean_phi if state.additions else _mean_phi(state)
        new = NewNames(
            candidates.topologies.names[len(before.topologies.names) :],
            candidates.roles.names[len(before.roles.names) :],
            candidates.models.names[len(before.models.names) :],
        )
        described = Addition(
            title=title,
            topologies=new.topologies,
            roles=new.roles,
            models=new.models,
            plans=len(plans),
            mean_phi=mean_phi,
            deviations=prior_deviations(critic, state.gate, mean_phi, new),
            noise=torch.ones(len(critic.heads)),
            phi=mean_phi[None][:0],
            query=probes.query[:0],
            plan=probes.plan[:0],
            targets=probes.targets[:0],
        )
        phi = critic.phi(torch.from_numpy(embeddings), torch.from_numpy(statistics))
        phi = phi[probes.query.long()]  # (n, F)
        at_first = replace(networks, additions=(*state.additions, described))
        folded = fold(at_first, wider.plans)
        start = len(state.plans)
        missed = _missed(folded, state.gate.precise, start, phi, probes)
        addition = replace(
            described,
            noise=cell_noise(critic, state.gate, missed, probes.plan),
            phi=phi,
            query=probes.query,
            plan=probes.plan,
            targets=probes.targets,
        )
        taught = replace(wider, networks=replace(networks, additions=(*state.additions, addition)))
        return replace(taught, gate=_with_fixed_values(taught, folded, mean_phi))


def _at_trained_prices(probes: Probes, state: RouterState, plans: int) -> Probes:
    """Costs as they would have been at the prices of the training logs, in which the critic thinks;
    routing takes them back to today's (`RouterState.price_ratio`)."""
    ratio = torch.from_numpy(state.price_ratio())[-plans:][probes.plan.long()]
    targets = probes.targets.clone()
    targets[:, TARGETS.index("log_cost")] -= torch.where(ratio > 0, ratio, 1.0).log()
    return replace(probes, targets=targets)


def _missed(folded: FoldedCritic, precise: int, start: int, phi: Tensor, probes: Probes) -> Tensor:
    """Target less prediction by description alone: phi (n, F) -> (n, 4).

    `precise` is the score head to take, `start` the position of the first plan that is added.
    """
    plan = probes.plan.long() + start
    predicted = torch.full_like(probes.targets, math.nan)
    for column, name in enumerate(TARGETS):
        head = folded.critic.score_head(precise) if name == "score" else name
        if folded.has(head):
            values = folded.mean(phi, head)  # (n, C)
            predicted[:, column] = values[torch.arange(len(plan)), plan]
    return probes.targets - predicted


def _mean_phi(state: RouterState) -> Tensor:
    """phi of the mean training query: (F,).

    Statistics and text are centred on them; the shares of domains come from the embeddings that
    were kept as evidence.
    """
    features = state.critic.query_features
    embeddings = torch.from_numpy(state.evidence.embeddings.astype(np.float32))  # (Q, E)
    phi = features(embeddings, features.statistics_mean.expand(len(embeddings), -1))
    mean: Tensor = phi.mean(0)
    mean[len(mean) - features.dimension :] = 0.0
    return mean


def _with_fixed_values(state: RouterState, described: FoldedCritic, mean_phi: Tensor) -> Gate:
    """The gate with what is known of the newest plans without reading a query.

    Probe queries are not the training queries, so means of probes and of logs do not compare. What
    compares is what the critic expects on the mean training query: its prediction there was paired
    with what it expected of each probe query, and follows the probes only as far as their number
    allows. It is moved by as much as the critic misses the logged means of the trained plans, and
    CAUTION standard errors are taken off. A plan without a probe stays unknown.

    A description (`described`: the critic without the probes) may not promise that a plan beats the
    best fixed one: what it promises above that is taken off again, as far as the probes have not
    replaced it. So a plan wins by what its probes showed.
    """
    gate, newest = state.gate, state.additions[-1]
    start = len(state.plans) - newest.plans
    runs, mean_score, mean_cost, mean_utility = (
        torch.from_numpy(part)
        for part in (gate.runs, gate.mean_score, gate.mean_cost, gate.mean_utility)
    )
    probed = runs[start:] > 0
    if not bool(probed.any()):
        return gate
    folded = fold(state.networks, state.plans)
    phi = mean_phi[None]
    head = state.critic.score_head(gate.precise)
    expected = folded.mean(phi, head)[0]  # (C,)
    move = _missed_on_average(mean_score - expected, runs, state.learned)
    score = expected + move - CAUTION * _error(folded, phi, head)
    promised = described.mean(phi, head)[0] + move
    cost = torch.full_like(score, math.nan)
    if folded.has("log_cost"):
        logs = folded.mean(phi, "log_cost")[0]
        logged = mean_cost.clamp_min(LEAST_AMOUNT).log()
        logs = logs + _missed_on_average(logged - logs, runs, state.learned)
        cost = (logs + CAUTION * _error(folded, phi, "log_cost")).exp()
    costed = newest.plan[torch.isfinite(newest.targets[:, TARGETS.index("log_cost")])].long()
    known = torch.zeros(newest.plans, dtype=torch.bool).index_fill_(0, costed, True)
    score = torch.where(probed, score[start:].clamp(0, 1), math.nan)
    cost = torch.where(known, cost[start:], math.nan)
    before = folded.variance(phi, head, before=True)[0, start:]
    left = folded.variance(phi, head)[0, start:] / before.clamp_min(1e-12)
    best = mean_utility[:, :start].nan_to_num(-math.inf).max(1).values  # (nodes,)
    best = best.masked_fill(best.isinf(), math.inf)  # nothing to beat: nothing to take off
    weight = torch.tensor([node.cost_weight for node in gate.nodes])[:, None]
    even = best[:, None] + torch.where(weight > 0, weight * cost, 0.0)  # (nodes, Q)
    held = left * (promised[start:] - even).clamp_min(0)
    return gate.with_means(start, score.numpy(), cost.numpy(), held.numpy())


def _error(folded: FoldedCritic, phi: Tensor, head: str) -> Tensor:
    """Standard error of a head on one query: (1, F) -> (C,)."""
    spread = jackknife_error(folded.members(phi, head))[0]
    return (spread.square() + folded.variance(phi, head)[0]).sqrt()


def _missed_on_average(gap: Tensor, runs: Tensor, learned: int) -> Tensor:
    """Mean of the trained plans' known gaps (C,), by their runs: ()."""
    known = torch.where(torch.isfinite(gap), runs, 0.0)[:learned]
    return (torch.nan_to_num(gap)[:learned] * known).sum() / known.sum().clamp_min(1)
