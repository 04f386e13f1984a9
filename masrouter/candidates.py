"""What can be chosen, as tensors: topologies, counts, roles and models, and the plans made of them.

A candidate is (text embedding of its description, a few numbers such as its price), so a new one
can be scored without retraining. Not here: choosing (`controller`, `critic`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from masrouter.catalog import Catalog
from masrouter.encoder import Encoder
from masrouter.errors import CatalogError, PlanError
from masrouter.plan_steps import NO_ROLE, StageNames, position
from masrouter.tensor_layout import DESCRIPTION_DIMS
from masrouter.types import Agent, Plan

Floats32 = NDArray[np.float32]
Entry = TypeVar("Entry")


@dataclass(frozen=True)
class CandidateTable:
    """C candidates of one stage. `vectors` are inputs of the networks, one row each."""

    names: tuple[str, ...]
    vectors: Tensor  # (C, V) reduced description embedding, then the numbers of the stage
    mean: Tensor  # (E,) of the description embeddings
    basis: Tensor  # (E, 16) their principal axes: how the description of a new candidate is reduced
    trained: int
    """Candidates that the networks learned; those after them are known by description alone."""
    _positions: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_positions", {name: i for i, name in enumerate(self.names)})

    def index(self, name: str, kind: str) -> int:
        """Where a name stands; PlanError for one that is not in the table."""
        return position(self._positions, name, kind)


@dataclass(frozen=True)
class Candidates:
    """Every choice of every stage. Role index 0 is 'no role named'."""

    topologies: CandidateTable
    roles: CandidateTable
    models: CandidateTable
    max_agents: int
    ordered: tuple[bool, ...]
    """By topology: whether the order of its agents matters."""

    @classmethod
    def from_catalog(cls, catalog: Catalog, plans: Sequence[Plan], encoder: Encoder) -> Candidates:
        """The candidates that the plans use, described by the catalog.

        Raises CatalogError where a name is not in it (see `Catalog.with_names_from`).
        """
        topologies = sorted({plan.topology for plan in plans})
        roles = sorted({a.role for plan in plans for a in plan.agents if a.role is not None})
        models = sorted({a.model for plan in plans for a in plan.agents})
        texts, numbers = _inputs(catalog, topologies, roles, models)
        vectors = encoder.encode(texts)
        t, r = len(topologies), len(topologies) + len(roles)
        no_role = np.zeros((1, vectors.shape[1]), dtype=np.float32)
        return cls(
            topologies=_table(topologies, vectors[:t], numbers[:t]),
            roles=_table([NO_ROLE, *roles], np.concatenate([no_role, vectors[t:r]]), None),
            models=_table(models, vectors[r:], numbers[r:]),
            max_agents=max(len(plan.agents) for plan in plans),
            ordered=tuple(catalog.topologies[name].ordered for name in topologies),
        )

    def extended(self, catalog: Catalog, plans: Sequence[Plan], encoder: Encoder) -> Candidates:
        """With the new names of these plans appended, known by their descriptions alone.

        PlanError where a plan has more agents than any that was learned from.
        """
        largest = max((len(plan.agents) for plan in plans), default=0)
        if largest > self.max_agents:
            raise PlanError(
                f"a plan has {largest} agents; this router knows at most {self.max_agents}"
            )
        agents = [agent for plan in plans for agent in plan.agents]
        topologies = _new({plan.topology for plan in plans}, self.topologies)
        roles = _new({agent.role or NO_ROLE for agent in agents}, self.roles)
        models = _new({agent.model for agent in agents}, self.models)
        if not (topologies or roles or models):
            return self
        texts, numbers = _inputs(catalog, topologies, roles, models)
        vectors = encoder.encode(texts)
        t, r = len(topologies), len(topologies) + len(roles)
        return replace(
            self,
            topologies=_appended(self.topologies, topologies, vectors[:t], numbers[:t]),
            roles=_appended(self.roles, roles, vectors[t:r], None),
            models=_appended(self.models, models, vectors[r:], numbers[r:]),
            ordered=(*self.ordered, *(catalog.topologies[name].ordered for name in topologies)),
        )

    @property
    def names(self) -> StageNames:
        """What each stage chooses from."""
        return StageNames(
            self.topologies.names, self.roles.names, self.models.names, self.max_agents
        )

    def index_plans(self, plans: Sequence[Plan]) -> PlanIndex:
        """Plans as indices into the tables; PlanError for a name or size that is not in them."""
        steps = torch.from_numpy(self.names.steps(plans))  # (P, 2 + 2K)
        return PlanIndex(
            topology=steps[:, 0].contiguous(),
            count=steps[:, 1] + 1,
            role=steps[:, 2::2].contiguous(),
            model=steps[:, 3::2].contiguous(),
        )

    def plan(self, topology: int, roles: Sequence[int], models: Sequence[int]) -> Plan:
        """The plan that these indices name."""
        agents = tuple(
            Agent(self.roles.names[r] or None, self.models.names[m])
            for r, m in zip(roles, models, strict=True)
        )
        return Plan(self.topologies.names[topology], agents)

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """(names, arrays) for a checkpoint; `from_state` reads them back."""
        config = {
            "topologies": list(self.topologies.names),
            "roles": list(self.roles.names),
            "models": list(self.models.names),
            "trained": {
                stage: getattr(self, stage).trained for stage in ("topologies", "roles", "models")
            },
            "max_agents": self.max_agents,
            "ordered": list(self.ordered),
        }
        tensors = {
            f"candidates.{stage}.{part}": getattr(getattr(self, stage), part).numpy()
            for stage in ("topologies", "roles", "models")
            for part in ("vectors", "mean", "basis")
        }
        return config, tensors

    @classmethod
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]
    ) -> Candidates:
        topologies, roles, models = (
            CandidateTable(
                tuple(config[stage]),
                vectors=torch.from_numpy(tensors[f"candidates.{stage}.vectors"]),
                mean=torch.from_numpy(tensors[f"candidates.{stage}.mean"]),
                basis=torch.from_numpy(tensors[f"candidates.{stage}.basis"]),
                trained=config["trained"][stage],
            )
            for stage in ("topologies", "roles", "models")
        )
        return cls(
            topologies,
            roles,
            models,
            max_agents=config["max_agents"],
            ordered=tuple(config["ordered"]),
        )


@dataclass(frozen=True)
class PlanIndex:
    """P plans as indices; K agents at most, -1 is an empty seat."""

    topology: Tensor  # (P,)
    count: Tensor  # (P,) number of agents, 1..K
    role: Tensor  # (P, K)
    model: Tensor  # (P, K)

    def __len__(self) -> int:
        return len(self.topology)

    def shuffled(self, ordered: tuple[bool, ...], generator: torch.Generator) -> PlanIndex:
        """The same teams, those of unordered topologies with their seats in a random order.

        Teams that were logged in several orders keep the order they have.
        """
        counts = Counter(_keys(self, ordered))
        role, model = self.role.clone(), self.model.clone()
        for i, key in enumerate(_keys(self, ordered)):
            size = int(self.count[i])
            if size > 1 and not ordered[int(self.topology[i])] and counts[key] == 1:
                order = torch.randperm(size, generator=generator)
                role[i, :size], model[i, :size] = self.role[i, order], self.model[i, order]
        return PlanIndex(self.topology, self.count, role, model)

    def at(self, positions: Tensor) -> PlanIndex:
        """Only these plans."""
        return PlanIndex(
            self.topology[positions], self.count[positions], self.role[positions],
            self.model[positions],
        )  # fmt: skip


@dataclass(frozen=True)
class KernelWeights:
    """How much two plans are expected to be alike because they share a part (prior variances)."""

    any_plan: float = 1.0
    topology: float = 0.3
    count: float = 0.1
    roles: float = 0.3
    models: float = 0.3
    position: float = 0.1
    """First and last model, where the order of agents matters."""
    own: float = 0.3
    """What a plan shares with no other."""


def plan_features(
    index: PlanIndex,
    candidates: Candidates,
    weights: KernelWeights,
    known: PlanIndex | None = None,
) -> Tensor:
    """Plans as vectors whose inner products are the prior covariance of their effects: (P, G).

    The vector is a concatenation of blocks: one constant; topology, count, mean role and mean model
    (each half one-hot, half description); first and last model where order matters; and one column
    for each known plan. Means over agents make a symmetric topology invariant to their order. An
    unseen plan has zeros in the last block, so that only what it shares with others speaks for it.
    """
    ordered = torch.tensor(candidates.ordered, dtype=torch.float32)[index.topology]  # (P,)
    seat = (index.model >= 0).float()  # (P, K)
    share = seat / seat.sum(1, keepdim=True)
    topology = _descriptors(candidates.topologies)
    roles = _descriptors(candidates.roles)
    models = _descriptors(candidates.models)
    model_vectors = models[index.model.clamp_min(0)]  # (P, K, V)
    role_vectors = roles[index.role.clamp_min(0)]
    rows = torch.arange(len(index))
    first, last = model_vectors[:, 0], model_vectors[rows, index.count - 1]
    counts = torch.nn.functional.one_hot(index.count - 1, candidates.max_agents).float()
    blocks = [
        (weights.any_plan, torch.ones(len(index), 1)),
        (weights.topology, topology[index.topology]),
        (weights.count, counts),
        (weights.roles, (role_vectors * share[..., None]).sum(1)),
        (weights.models, (model_vectors * share[..., None]).sum(1)),
        (weights.position, ordered[:, None] * torch.cat([first, last], 1) / math.sqrt(2)),
        (weights.own, own_columns(index, known or index, candidates.ordered)),
    ]
    return torch.cat([math.sqrt(weight) * block for weight, block in blocks], 1)  # (P, G)


def plan_feature_width(candidates: Candidates, known: int) -> int:
    """G for a number of known plans, without computing features."""
    topology, role, model = (
        table.trained + table.vectors.shape[1]
        for table in (candidates.topologies, candidates.roles, candidates.models)
    )
    return 1 + topology + candidates.max_agents + role + 3 * model + known


def own_columns(index: PlanIndex, known: PlanIndex, ordered: tuple[bool, ...]) -> Tensor:
    """(P, known) one-hot of the same team: seats in another order are it where order is none."""
    keys = {key: i for i, key in enumerate(_keys(known, ordered))}
    columns = torch.zeros(len(index), len(known))
    for row, key in enumerate(_keys(index, ordered)):
        if key in keys:
            columns[row, keys[key]] = 1.0
    return columns


def _keys(index: PlanIndex, ordered: tuple[bool, ...]) -> list[tuple[object, ...]]:
    """What makes two plans the same team: the order of seats only where it matters."""
    keys: list[tuple[object, ...]] = []
    for topology, roles, models in zip(
        index.topology.tolist(), index.role.tolist(), index.model.tolist(), strict=True
    ):
        seats = list(zip(roles, models, strict=True))
        keys.append((topology, *(seats if ordered[topology] else sorted(seats))))
    return keys


def _descriptors(table: CandidateTable) -> Tensor:
    """Half identity, half description: both sameness and likeness count. (C, trained + V)."""
    identity = torch.eye(len(table.names), table.trained)
    return torch.cat([identity, table.vectors], 1) / math.sqrt(2)


def _inputs(
    catalog: Catalog, topologies: Sequence[str], roles: Sequence[str], models: Sequence[str]
) -> tuple[list[str], list[list[float]]]:
    """Descriptions and numbers of these names, in this order."""
    texts, numbers = [], []
    for name in topologies:
        topology = _described(catalog.topologies, name, "topology")
        texts.append(f"{name}: {topology.description}")
        most = min(topology.max_agents, 32)
        numbers.append([math.log(topology.min_agents), math.log(most), float(topology.ordered)])
    for name in roles:
        texts.append(f"{name}: {_described(catalog.roles, name, 'role').description}")
        numbers.append([])
    for name in models:
        model = catalog.resolve_model(name)
        texts.append(f"{name}: {model.description}")
        window = 0.0 if model.context_window is None else math.log10(model.context_window) - 4.5
        prices = [_log_price(model.input_usd_per_mtok), _log_price(model.output_usd_per_mtok)]
        numbers.append([*prices, window])
    return texts, numbers


def _described(entries: Mapping[str, Entry], name: str, kind: str) -> Entry:
    try:
        return entries[name]
    except KeyError:
        raise CatalogError(
            f"{kind} {name!r} is not in the catalog; add it, or use Catalog.with_names_from"
        ) from None


def _table(
    names: Sequence[str], embeddings: Floats32, numbers: list[list[float]] | None
) -> CandidateTable:
    """Reduce description embeddings to their principal axes and append the numbers."""
    mean = embeddings.mean(0)
    basis = np.zeros((embeddings.shape[1], DESCRIPTION_DIMS), dtype=np.float32)
    if len(names) > 1:
        axes = np.linalg.svd(embeddings - mean, full_matrices=False)[2][:DESCRIPTION_DIMS]
        basis[:, : len(axes)] = axes.T
    vectors = _reduce(embeddings, mean, basis, numbers)
    return CandidateTable(
        tuple(names),
        vectors=torch.from_numpy(np.ascontiguousarray(vectors)),
        mean=torch.from_numpy(np.ascontiguousarray(mean)),
        basis=torch.from_numpy(basis),
        trained=len(names),
    )


def _appended(
    table: CandidateTable,
    names: Sequence[str],
    embeddings: Floats32,
    numbers: list[list[float]] | None,
) -> CandidateTable:
    """The table with new names, reduced by the axes that were learned."""
    if not names:
        return table
    new = _reduce(embeddings, table.mean.numpy(), table.basis.numpy(), numbers)
    vectors = torch.cat([table.vectors, torch.from_numpy(new)])
    return replace(table, names=(*table.names, *names), vectors=vectors)


def _reduce(
    embeddings: Floats32, mean: Floats32, basis: Floats32, numbers: list[list[float]] | None
) -> Floats32:
    """(C, E) -> (C, V): unit vector on the axes, then the numbers at a third of their size."""
    reduced = (embeddings - mean) @ basis  # (C, 16)
    columns = [reduced / np.maximum(np.linalg.norm(reduced, axis=1, keepdims=True), 1e-6)]
    if numbers is not None:
        columns.append(np.asarray(numbers, dtype=np.float32) * 0.3)
    return np.concatenate(columns, 1).astype(np.float32)


def _new(names: set[str], table: CandidateTable) -> list[str]:
    return sorted(names - set(table.names))


def _log_price(usd_per_mtok: float | None) -> float:
    """log10 of a price in USD per million tokens; an unknown price sits at the middle (1 USD)."""
    return 0.0 if usd_per_mtok is None else math.log10(max(usd_per_mtok, 1e-3))
