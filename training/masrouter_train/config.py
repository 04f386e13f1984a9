"""Settings of a training run, as a frozen dataclass or a YAML recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from masrouter.candidates import KernelWeights
from masrouter.errors import ConfigError
from masrouter.features import FeatureScales


@dataclass(frozen=True)
class CriticConfig:
    """The shrinkages that cross-validation chooses from."""

    domain_scale: float = 1.0
    """Prior deviation of domain-by-plan weights; 0 leaves the part out."""
    statistics_scale: float = 0.2
    text_scales: tuple[float, ...] = (0.12, 0.25, 0.5, 1.0, 2.0)
    """Prior deviations of text-by-plan weights that are tried; empty leaves the part out."""
    cost_text_scales: tuple[float, ...] = (0.0, 0.3, 1.0)
    """The same for the logarithm of cost and tokens, beside the query's length and domain."""
    folds: int = 5
    kernel: KernelWeights = field(default_factory=KernelWeights)

    def score_scales(self) -> tuple[FeatureScales, ...]:
        """The ladder from the plan's own effect to domain to text, simplest first."""
        domain = FeatureScales(statistics=self.statistics_scale / 2, domain=self.domain_scale)
        text = (
            FeatureScales(self.statistics_scale, self.domain_scale, scale)
            for scale in self.text_scales
        )
        ladder = (FeatureScales(), domain, *text)
        return tuple(dict.fromkeys(ladder))

    def cost_scales(self) -> tuple[FeatureScales, ...]:
        """From a plan's mean cost to cost by length, domain and text, simplest first."""
        return (FeatureScales(), *(FeatureScales(1.0, 1.0, text) for text in self.cost_text_scales))


@dataclass(frozen=True)
class GateConfig:
    """When the critic may overrule the best fixed plan."""

    shrink: bool = True
    """False trusts the head of least held-out error everywhere (an ablation)."""
    preference: float = 1.0
    """Standard errors by which a head's held-out gain, smoothed over neighbouring cost weights, must
    exceed zero."""
    own_preference: float = 0.5
    """The same for the gain at the cost weight itself."""
    nodes: int = 13
    """Cost weights at which the verdict is taken: 0 and log-spaced ones."""
    pessimism: float = 1.0
    """Standard errors that a plan must win by on observational logs."""


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


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the outcome of a run, beside the logs."""

    seed: int = 0
    encoder: str = "all-MiniLM-L6-v2"
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
    threads: int | None = None

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
        elif kind == tuple[float, ...]:
            if not isinstance(value, list | tuple) or not all(map(_is_number, value)):
                raise ConfigError(f"{place}: expected a list of numbers, got {value!r}")
            values[key] = tuple(float(v) for v in value)
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


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", None) or str(kind)
