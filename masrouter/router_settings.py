"""What a checkpoint says that it holds: its config.json as typed, bounded settings.

No tensor is looked at here, nothing needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from masrouter.checkpoint import CheckpointData
from masrouter.errors import CheckpointError
from masrouter.features import FeatureScales
from masrouter.plan_steps import StageNames
from masrouter.router_checks import (
    HUGE,
    MOST_ADDITIONS,
    MOST_NAMES,
    MOST_PLANS,
    Fields,
    check_candidates,
    check_size,
)
from masrouter.tensor_layout import KERNEL_KEYS, LOG_HEADS
from masrouter.types import Plan

STATE_VERSION = 1
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
class EncoderSettings:
    """The encoder that a checkpoint was trained with."""

    name: str
    identity: str
    dimension: int


@dataclass(frozen=True)
class CriticSettings:
    """What builds the critic, checked."""

    domains: tuple[str, ...]
    score_scales: tuple[FeatureScales, ...]
    log_heads: tuple[str, ...]
    members: int
    kernel: Mapping[str, float]

    @property
    def heads(self) -> int:
        return len(self.score_scales) + len(self.log_heads)


@dataclass(frozen=True)
class Written:
    """A checkpoint's settings, checked; its tensors are not yet. What `networks` builds from."""

    data: CheckpointData
    where: str
    encoder: EncoderSettings
    plans: tuple[Plan, ...]
    learned: int
    """The first plans, which training knew."""
    names: StageNames
    critic: CriticSettings
    width: int
    """Of the cascade."""
    reference_cost: float
    additions: tuple[Fields, ...]

    @property
    def config(self) -> Fields:
        """The whole of it."""
        return Fields(self.data.config, f"{self.where}: config.json")

    def section(self, key: str) -> Fields:
        """One part, with exactly the keys that it should have."""
        return _section(self.config, key)


def read_settings(data: CheckpointData, where: str) -> Written:
    """Checked, with the plans known by name; CheckpointError for what is not as it should be."""
    place = f"{where}: config.json"
    version = data.config.get("state_version")
    if version != STATE_VERSION or isinstance(version, bool):
        raise CheckpointError(
            f"{place}: state_version: this masrouter reads {STATE_VERSION}, "
            f"the checkpoint has {version!r}; upgrade masrouter or train again"
        )
    added = ("additions",) if "additions" in data.config else ()  # none in most, nor in old ones
    config = Fields.of(data.config, place, (*CONFIG_KEYS, *added))
    section = _section(config, "encoder")
    encoder = EncoderSettings(
        section.text("name"), section.text("identity"), section.integer("dimension", 1, 65_536)
    )
    plans = _plans(config)
    additions = _additions(config, len(plans)) if added else []
    candidates = _section(config, "candidates")
    check_candidates(candidates, additions)
    check_size(candidates, len(plans))
    names = StageNames(
        tuple(candidates.data["topologies"]),
        tuple(candidates.data["roles"]),
        tuple(candidates.data["models"]),
        candidates.data["max_agents"],
    )
    names.steps(plans)  # PlanError for a plan of other names
    controller = _section(config, "controller")
    return Written(
        data=data,
        where=where,
        encoder=encoder,
        plans=plans,
        learned=len(plans) - sum(entry.data["plans"] for entry in additions),
        names=names,
        critic=_critic(config, encoder.dimension),
        width=controller.integer("width", 1, 4096),
        reference_cost=controller.number("reference_cost", 1 / HUGE, HUGE),
        additions=tuple(additions),
    )


def _section(config: Fields, key: str) -> Fields:
    return config.section(key, SECTION_KEYS[key])


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


def _critic(config: Fields, dimension: int) -> CriticSettings:
    section = _section(config, "critic")
    section.integer("dimension", dimension, dimension)
    log_heads = section.names("log_heads", 0, len(LOG_HEADS))
    if not set(log_heads) <= set(LOG_HEADS):
        raise CheckpointError(f"{section.where}: log_heads: expected some of {LOG_HEADS}")
    blocks = tuple(field.name for field in fields(FeatureScales))
    scales = (
        Fields.of(entry, f"{section.where}: score_scales[{i}]", blocks)
        for i, entry in enumerate(section.items("score_scales", 1, MOST_HEADS))
    )
    return CriticSettings(
        domains=section.names("domains", 0, MOST_NAMES),
        score_scales=tuple(FeatureScales(**scale.all_numbers(1e6)) for scale in scales),
        log_heads=log_heads,
        members=section.integer("members", 3, MOST_HEADS),
        kernel=section.numbers("kernel", KERNEL_KEYS, 1e6),
    )
