"""Is a checkpoint a router? Typed, bounded readers of its settings, and what its tensors must be.

A checkpoint may come from a stranger: nothing is built before its size is known, nothing is used
before its type and range are. `checkpoint` has checked the files; here is what they mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from masrouter.checkpoint import TensorSpec
from masrouter.errors import CheckpointError
from masrouter.gate import FIXED
from masrouter.plan_steps import NO_ROLE
from masrouter.tensor_layout import BLOCKS, DESCRIPTION_DIMS, TARGETS, VECTOR_WIDTHS

Arrays: TypeAlias = Mapping[str, NDArray[Any]]
FLOAT, HALF, WHOLE, FLAG = (np.dtype(kind) for kind in (np.float32, np.float16, np.int32, np.bool_))

MOST_PLANS = 20_000
MOST_NAMES = 4096
MOST_AGENTS = 1024
MOST_CHOICES = 200_000_000
"""Plans times seats times candidates: what plan features and the cascade's tree grow with."""
MOST_ADDITIONS = 256
MOST_PROBES = 512
"""Probe cells of one addition: a router keeps a square matrix of this size for each head. Whoever
has more outcomes trains on them."""
LARGEST_FEATURE = 1e3
LARGEST_LOGARITHM = 50.0
HUGE = 1e13
"""Bound on cost weights and on US dollars."""


@contextmanager
def refusing(where: str) -> Iterator[None]:
    """Whatever goes wrong inside is the checkpoint's fault: CheckpointError."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # a forged checkpoint may fail anywhere; the cause is chained
        raise CheckpointError(
            f"{where}: does not describe a router: {type(error).__name__}: {error}"
        ) from error


@dataclass(frozen=True)
class Fields:
    """One JSON object with exactly these keys; every reader raises CheckpointError by name."""

    data: Mapping[str, Any]
    where: str

    @classmethod
    def of(cls, data: object, where: str, keys: Sequence[str]) -> Fields:
        """An object with exactly `keys`."""
        if not isinstance(data, dict):
            raise CheckpointError(f"{where}: expected an object, got {_shown(data)}")
        missing, unknown = set(keys) - set(data), set(data) - set(keys)
        if missing or unknown:
            raise CheckpointError(
                f"{where}: missing keys {sorted(missing)}, unknown keys {_shown(sorted(unknown))}"
            )
        return cls(data, where)

    def section(self, key: str, keys: Sequence[str]) -> Fields:
        """The object under a key."""
        return Fields.of(self.data[key], f"{self.where}: {key}", keys)

    def integer(self, key: str, low: int, high: int) -> int:
        value = self.data[key]
        if type(value) is not int or not low <= value <= high:
            raise self._wrong(key, f"a whole number from {low} to {high}")
        return value

    def number(self, key: str, low: float, high: float) -> float:
        return _number(self.data[key], f"{self.where}: {key}", low, high)

    def flag(self, key: str) -> bool:
        value = self.data[key]
        if type(value) is not bool:
            raise self._wrong(key, "true or false")
        return value

    def text(self, key: str) -> str:
        value = self.data[key]
        if not isinstance(value, str) or not value:
            raise self._wrong(key, "text")
        return value

    def items(self, key: str, low: int, high: int) -> list[Any]:
        value = self.data[key]
        if not isinstance(value, list) or not low <= len(value) <= high:
            raise self._wrong(key, f"a list of {low} to {high} entries")
        return value

    def names(self, key: str, low: int, high: int) -> tuple[str, ...]:
        """Distinct texts."""
        names = self.items(key, low, high)
        if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise self._wrong(key, "distinct names")
        return tuple(names)

    def numbers(self, key: str, keys: Sequence[str], high: float) -> dict[str, float]:
        """An object of numbers from 0 to `high`."""
        return self.section(key, keys).all_numbers(high)

    def all_numbers(self, high: float) -> dict[str, float]:
        """Every field as a number from 0 to `high`."""
        return {name: self.number(name, 0.0, high) for name in self.data}

    def _wrong(self, key: str, expected: str) -> CheckpointError:
        return CheckpointError(
            f"{self.where}: {key}: expected {expected}, got {_shown(self.data[key])}"
        )


def check_candidates(fields: Fields, additions: Sequence[Fields] = ()) -> None:
    """Names of the stages, each distinct, and all learned but those that `additions` bring."""
    stages = tuple(VECTOR_WIDTHS)
    trained = fields.section("trained", stages)
    for stage in stages:
        names = fields.names(stage, 1, MOST_NAMES)
        first = NO_ROLE if stage == "roles" else None
        if "" in names[1:] or (names[0] == "") != (first == NO_ROLE):
            raise CheckpointError(f"{fields.where}: {stage}: an empty name is out of place")
        added = [name for entry in additions for name in entry.names(stage, 0, MOST_NAMES)]
        learned = trained.integer(stage, len(names) - len(added), len(names) - len(added))
        if learned < 1 or list(names[learned:]) != added:
            raise CheckpointError(
                f"{fields.where}: {stage}: additions do not account for the names"
            )
    for entry in additions:  # the title is shown, so it says nothing but what it names
        titles = {
            f"{kind} {name}"
            for kind, stage in (("topology", "topologies"), ("role", "roles"), ("model", "models"))
            for name in entry.data[stage]
        }
        if entry.text("title") not in titles:
            raise CheckpointError(f"{entry.where}: title: names nothing that was added")
    fields.integer("max_agents", 1, MOST_AGENTS)
    topologies = len(fields.data["topologies"])
    ordered = fields.items("ordered", topologies, topologies)
    if not all(type(value) is bool for value in ordered):
        raise CheckpointError(f"{fields.where}: ordered: expected true or false for each topology")


def check_size(fields: Fields, plans: int) -> None:
    """CheckpointError where plans, seats and names together would take too much memory."""
    names = sum(len(fields.data[stage]) for stage in VECTOR_WIDTHS)
    choices = plans * fields.data["max_agents"] * (names + 64)
    if choices > MOST_CHOICES:
        raise CheckpointError(
            f"{fields.where}: {plans} plans of up to {fields.data['max_agents']} agents among "
            f"{names} names are too many to route"
        )


def candidate_tensors(fields: Fields, dimension: int) -> TensorSpec:
    """The tensors of the stages for an encoder of this dimension."""
    spec: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    for stage, width in VECTOR_WIDTHS.items():
        rows = len(fields.data[stage])
        spec[f"candidates.{stage}.vectors"] = ((rows, width), FLOAT)
        spec[f"candidates.{stage}.mean"] = ((dimension,), FLOAT)
        spec[f"candidates.{stage}.basis"] = ((dimension, DESCRIPTION_DIMS), FLOAT)
    return spec


def gate_tensors(nodes: int, plans: int) -> TensorSpec:
    spec: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {"gate.runs": ((plans,), FLOAT)}
    shapes = {"mean_score": (plans,), "mean_cost": (plans,), "mean_utility": (nodes, plans)}
    for name, shape in shapes.items():
        spec[f"gate.{name}"] = (shape, FLOAT)
        spec[f"gate.{name}_known"] = (shape, FLAG)
    return spec


def evidence_tensors(tensors: Arrays, dimension: int) -> TensorSpec:
    """For as many queries and cells as the tensors say that they hold."""
    queries, cells = (
        len(tensors[name]) if name in tensors and tensors[name].ndim else 0
        for name in ("evidence.embeddings", "evidence.cell_query")
    )
    spec: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
        "evidence.embeddings": ((queries, dimension), HALF)
    }
    for name in ("cell_query", "cell_plan", "cell_runs"):
        spec[f"evidence.{name}"] = ((cells,), WHOLE)
    return spec


def check_values(tensors: Arrays, queries: int, plans: int, where: str) -> None:
    """Ranges of the tensors that are read as counts, positions, money or divisors.

    Those of networks that are not loaded are not looked at.
    """
    if queries == 0:
        raise CheckpointError(f"{where}: evidence.embeddings: holds no query")
    for name, low, high in (
        ("gate.mean_score", 0.0, 1.0),
        ("gate.mean_cost", 0.0, HUGE),
        ("gate.runs", 0.0, HUGE),
        ("evidence.cell_query", 0, queries - 1),
        ("evidence.cell_plan", 0, plans - 1),
        ("evidence.cell_runs", 0, 2**31 - 1),
        ("critic.query_features.statistics_std", 1e-6, HUGE),
    ):
        if name in tensors:
            _within(name, tensors, low, high, where)
    cell_query = tensors["evidence.cell_query"]
    if (cell_query[1:] < cell_query[:-1]).any():
        raise CheckpointError(f"{where}: evidence.cell_query: is not sorted")


def addition_tensors(tensors: Arrays, additions: int, features: int, heads: int) -> TensorSpec:
    """For as many probe cells as the tensors say that they hold, up to MOST_PROBES each."""
    spec: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    for i in range(additions):
        phi = tensors.get(f"additions.{i}.phi")
        cells = min(len(phi), MOST_PROBES) if phi is not None and phi.ndim else 0
        parts = {
            "mean_phi": ((features,), FLOAT),
            "deviations": ((heads, 2, BLOCKS), FLOAT),
            "noise": ((heads,), FLOAT),
            "phi": ((cells, features), FLOAT),
            "query": ((cells,), WHOLE),
            "plan": ((cells,), WHOLE),
            "targets": ((cells, len(TARGETS)), FLOAT),
            "targets_known": ((cells, len(TARGETS)), FLAG),
        }
        spec |= {f"additions.{i}.{name}": part for name, part in parts.items()}
    return spec


def check_additions(tensors: Arrays, plans: Sequence[int], where: str) -> None:
    """Ranges of what probes and priors may be; `plans` are those of each addition."""
    for i, size in enumerate(plans):
        for name, low, high in (
            ("mean_phi", -LARGEST_FEATURE, LARGEST_FEATURE),
            ("deviations", 0.0, 1e3),
            ("noise", 1e-6, 1e6),
            ("phi", -LARGEST_FEATURE, LARGEST_FEATURE),
            ("query", 0, MOST_PROBES - 1),
            ("plan", 0, size - 1),
            ("targets", -LARGEST_LOGARITHM, LARGEST_LOGARITHM),
        ):
            _within(f"additions.{i}.{name}", tensors, low, high, where)
        score = tensors[f"additions.{i}.targets"][:, 0]
        if ((score < 0) | (score > 1)).any():
            raise CheckpointError(f"{where}: additions.{i}.targets: a score is not within 0 to 1")


def check_gate(fields: Fields, heads: int, plans: int) -> None:
    """Verdicts about heads that there are, at distinct cost weights."""
    weights = set()
    for i, entry in enumerate(fields.items("nodes", 1, 1000)):
        node = Fields.of(
            entry, f"{fields.where}: nodes[{i}]", ("cost_weight", "head", "gain", "gain_error")
        )
        weight = node.number("cost_weight", 0.0, HUGE)
        if weight in weights:
            raise CheckpointError(f"{node.where}: cost_weight: {weight:g} stands there twice")
        weights.add(weight)
        node.integer("head", FIXED, heads - 1)
        node.number("gain", -1e30, 1e30)
        node.number("gain_error", 0.0, 1e30)
    fields.integer("precise", 0, heads - 1)
    fields.number("pessimism", 0.0, 1e3)
    fields.integer("default", -1, plans - 1)


def platt_pairs(calibration: object, heads: int, where: str) -> tuple[tuple[float, float], ...]:
    """Slope and intercept of each score head; a slope above 0 changes no ranking."""
    fields = Fields.of(calibration, f"{where}: calibration.json", ("platt",))
    pairs = []
    for i, pair in enumerate(fields.items("platt", heads, heads)):
        place = f"{fields.where}: platt[{i}]"
        if not isinstance(pair, list) or len(pair) != 2:
            raise CheckpointError(f"{place}: expected slope and intercept, got {_shown(pair)}")
        pairs.append((_number(pair[0], place, 1e-6, 1e3), _number(pair[1], place, -1e3, 1e3)))
    return tuple(pairs)


def check_finite(what: str, finite: bool, where: str) -> None:
    if not finite:
        raise CheckpointError(f"{where}: {what} of a made-up query is not a finite number")


def _number(value: object, where: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise CheckpointError(
            f"{where}: expected a number from {low:g} to {high:g}, got {_shown(value)}"
        )
    return float(value)


def _within(name: str, tensors: Arrays, low: float, high: float, where: str) -> None:
    values = tensors[name]
    if values.size and not (low <= values.min().item() and values.max().item() <= high):
        raise CheckpointError(f"{where}: {name}: a value is not within {low:g} to {high:g}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
