"""Settings of a training run, as a frozen dataclass or a YAML recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, get_type_hints

from masrouter.candidates import KernelWeights
from masrouter.errors import ConfigError
from masrouter.features import FeatureScales

LADDER = (
    FeatureScales(),
    FeatureScales(statistics=0.05, domain=0.2),
    FeatureScales(statistics=0.1, domain=1.0),
    FeatureScales(statistics=0.03, domain=0.05, text=0.05),
    FeatureScales(statistics=0.05, domain=0.2, text=0.1),
    FeatureScales(statistics=0.1, domain=1.0, text=0.06),
    FeatureScales(statistics=0.2, domain=1.0, text=0.12),
    FeatureScales(statistics=0.2, domain=1.0, text=0.25),
    FeatureScales(statistics=0.2, domain=1.0, text=0.5),
    FeatureScales(statistics=0.2, domain=1.0, text=1.0),
    FeatureScales(statistics=0.2, domain=1.0, text=2.0),
)
COST_LADDER = (
    FeatureScales(),
    FeatureScales(statistics=1.0, domain=1.0),
    FeatureScales(statistics=1.0, domain=1.0, text=0.3),
    FeatureScales(statistics=1.0, domain=1.0, text=1.0),
)


class Ablation(StrEnum):
    """A part of the router that one setting switches off: `TrainConfig.without`.

    The counterpart of Table 3 of MasRouter (arXiv 2502.11133), which removes the choice of the
    topology, of the roles and of the models, and the cost. What the paper puts in place of a stage
    is not imitated: here it is held at that of the best fixed plan at the default cost weight
    (`held_parts`), so that the difference is what choosing that part, by query and by trade-off, is
    worth.
    """

    TOPOLOGY = "topology"
    ROLES = "roles"
    MODELS = "models"
    COST = "cost"
    TEXT = "text"
    DOMAIN = "domain"
    SHRINKAGE = "shrinkage"

    @property
    def setting(self) -> str:
        """The setting that is false without this part, with its section: `critic.use_text`."""
        return _SETTINGS[self]


_SETTINGS: Mapping[Ablation, str] = {
    Ablation.TOPOLOGY: "choose_topology",
    Ablation.ROLES: "choose_roles",
    Ablation.MODELS: "choose_models",
    Ablation.COST: "use_cost",
    Ablation.TEXT: "critic.use_text",
    Ablation.DOMAIN: "critic.use_domain",
    Ablation.SHRINKAGE: "gate.shrink",
}


@dataclass(frozen=True)
class CriticConfig:
    """The shrinkages that cross-validation chooses from."""

    ladder: tuple[FeatureScales, ...] = LADDER
    """Of the score, from the plan's own effect to domain to text. The first must be all zeros."""
    cost_ladder: tuple[FeatureScales, ...] = COST_LADDER
    """The same for the logarithm of cost and tokens."""
    use_domain: bool = True
    """False drops domain-by-plan effects from both ladders (an ablation)."""
    use_text: bool = True
    """False drops text-by-plan effects (an ablation)."""
    folds: int = 5
    kernel: KernelWeights = field(default_factory=KernelWeights)

    def __post_init__(self) -> None:
        _require(2 <= self.folds <= 20, "critic.folds", "2 to 20", self.folds)
        for name in ("ladder", "cost_ladder"):
            ladder = getattr(self, name)
            _require(1 <= len(ladder) <= 40, f"critic.{name}", "1 to 40 entries", len(ladder))
            _require(ladder[0] == FeatureScales(), f"critic.{name}", "all zeros first", ladder[0])
        _require(self.kernel.any_plan > 0, "critic.kernel.any_plan", "above 0", 0)

    def score_scales(self) -> tuple[FeatureScales, ...]:
        """The score's ladder without the parts that are switched off."""
        return self._kept(self.ladder)

    def cost_scales(self) -> tuple[FeatureScales, ...]:
        """The cost's ladder without the parts that are switched off."""
        return self._kept(self.cost_ladder)

    def _kept(self, ladder: tuple[FeatureScales, ...]) -> tuple[FeatureScales, ...]:
        kept = (
            FeatureScales(
                scales.statistics,
                scales.domain if self.use_domain else 0.0,
                scales.text if self.use_text else 0.0,
            )
            for scales in ladder
        )
        return tuple(dict.fromkeys(kept))


@dataclass(frozen=True)
class GateConfig:
    """When the critic may overrule the best fixed plan."""

    shrink: bool = True
    """False trusts the most precise head everywhere (an ablation)."""
    proof: float = 2.0
    """Standard errors by which a head's held-out error must undercut the plan effect's to count as
    proven; then a held-out gain that is worthwhile opens the gate."""
    worthwhile: float = 0.005
    """Utility by which a proven head's gain, smoothed over neighbouring cost weights, must exceed
    zero: a smaller promise is not worth leaving the fixed plan for."""
    preference: float = 1.0
    """For a head that is not proven: standard errors by which its gain, smoothed over neighbouring
    cost weights, must exceed zero."""
    own_preference: float = 0.5
    """The same for the gain at the cost weight itself."""
    nodes: int = 13
    """Cost weights at which the verdict is taken: 0 and log-spaced ones."""
    pessimism: float = 1.0
    """Standard errors that a plan must win by on observational logs."""

    def __post_init__(self) -> None:
        _require(1 <= self.nodes <= 1000, "gate.nodes", "1 to 1000", self.nodes)


@dataclass(frozen=True)
class ControllerConfig:
    """The cascade and its optimisation."""

    enabled: bool = True
    width: int = 64
    epochs: int = 40
    batch_size: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    temperature: float = 0.02
    """Utility units: how sharply the critic's targets prefer the better plan."""
    entropy: float = 1e-3
    ranking: float = 0.1
    """Weight of the ranking term on grid logs."""
    advantage_temperature: float = 0.2
    """Of advantage-weighted likelihood on randomised logs."""
    weight_clip: float = 20.0
    """Largest importance weight on randomised logs."""
    patience: int = 6
    """Epochs without a better held-out utility before training stops."""
    validation_share: float = 0.15

    def __post_init__(self) -> None:
        for name in ("width", "epochs", "batch_size", "patience"):
            value = getattr(self, name)
            _require(1 <= value <= 4096, f"controller.{name}", "1 to 4096", value)
        for name in (
            "learning_rate", "temperature", "advantage_temperature", "weight_clip",
        ):  # fmt: skip
            value = getattr(self, name)
            _require(value > 0, f"controller.{name}", "above 0", value)
        share = self.validation_share
        _require(0 < share < 1, "controller.validation_share", "between 0 and 1", share)


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the outcome of a run, beside the logs."""

    seed: int = 0
    encoder: str = "all-MiniLM-L6-v2"
    choose_topology: bool = True
    """False holds it: only plans of the best fixed plan's topology can be chosen (an ablation)."""
    choose_roles: bool = True
    """False holds them: only plans with the best fixed plan's set of roles (an ablation)."""
    choose_models: bool = True
    """False holds them: only plans with the best fixed plan's set of models (an ablation)."""
    use_cost: bool = True
    """False trains at cost weight 0 only (an ablation)."""
    max_candidates: int = 1024
    """Logged plans that are scored one by one; above it the most-run ones, beside proposals."""
    max_evidence: int = 20_000
    """Training queries kept in the checkpoint as evidence (their embeddings, not their texts)."""
    critic: CriticConfig = field(default_factory=CriticConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    controller: ControllerConfig = field(default_factory=ControllerConfig)
    accelerator: str = "cpu"
    devices: int | str = 1
    threads: int | None = 1
    """Threads of torch while fitting, None for all: matrices are small, and on a busy machine more
    threads are several times slower."""

    def __post_init__(self) -> None:
        for name in ("max_candidates", "max_evidence"):
            value = getattr(self, name)
            _require(2 <= value <= 100_000, name, "2 to 100000", value)

    def without(self, *parts: Ablation) -> TrainConfig:
        """The same settings with these parts switched off."""
        config = self
        for part in parts:
            section, _, name = part.setting.rpartition(".")
            off: dict[str, Any] = {name: False}
            if section:
                off = {section: replace(getattr(config, section), **off)}
            config = replace(config, **off)
        return config

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; `from_mapping` reads it back."""
        return asdict(self)

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any], source: str = "config") -> TrainConfig:
        """Read nested settings; ConfigError names an unknown key or a value of the wrong type."""
        config: TrainConfig = _build(cls, data, source)
        return config

    @classmethod
    def from_recipe(cls, path: str | Path) -> TrainConfig:
        """Read a YAML recipe (training/recipes/*.yaml)."""
        from masrouter.strict_yaml import load_strict

        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{path}: cannot read the recipe: {error.strerror}") from error
        return cls.from_mapping(load_strict(text, str(path), error=ConfigError).value, str(path))


def _build(cls: type[Any], data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: expected a mapping, got {type(data).__name__}")
    hints = get_type_hints(cls)
    names = [f.name for f in fields(cls)]
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in names:
            raise ConfigError(f"{where}: {key}: unknown setting; known are {', '.join(names)}")
        kind, place = hints[key], f"{where}: {key}"
        if is_dataclass(kind):
            values[key] = _build(kind, value, place)  # type: ignore[arg-type]
        elif kind == tuple[FeatureScales, ...]:
            if not isinstance(value, list | tuple):
                raise ConfigError(f"{place}: expected a list, got {value!r}")
            values[key] = tuple(
                _build(FeatureScales, entry, f"{place}[{i}]") for i, entry in enumerate(value)
            )
        else:
            values[key] = _scalar(kind, value, place)
    return cls(**values)


def _scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is float and _is_number(value):
        if not 0 <= float(value) < float("inf"):
            raise ConfigError(f"{where}: expected a finite number of at least 0, got {value!r}")
        return float(value)
    allowed = getattr(kind, "__args__", (kind,))
    if isinstance(value, bool) and bool not in allowed:
        raise ConfigError(f"{where}: expected {_name(kind)}, got {value!r}")
    if not isinstance(value, tuple(t for t in allowed if isinstance(t, type))):
        raise ConfigError(f"{where}: expected {_name(kind)}, got {value!r}")
    if isinstance(value, int) and not isinstance(value, bool) and value < 0:
        raise ConfigError(f"{where}: expected at least 0, got {value!r}")
    return value


def _require(holds: bool, what: str, expected: str, got: object) -> None:
    if not holds:
        raise ConfigError(f"{what}: expected {expected}, got {got!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", None) or str(kind)
