"""What the simulation knows of each model: published accuracies, and how it bills and hurries."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from masrouter.errors import ConfigError
from masrouter.strict_yaml import load_strict

DOMAINS = ("code", "math", "knowledge")
_OPTIONAL = ("thinking_tokens", "tokens_per_s")


@dataclass(frozen=True, slots=True)
class SimulatedModel:
    """A model as the simulation plays it."""

    name: str
    accuracy: Mapping[str, float]
    """Published accuracy in (0, 1) by domain: `code`, `math`, `knowledge`."""
    thinking_tokens: int = 0
    """Hidden tokens billed before an answer to a problem of middle difficulty; 0: it has none."""
    tokens_per_s: float = 80.0

    def __post_init__(self) -> None:
        for domain in DOMAINS:
            value = self.accuracy.get(domain)
            if value is None or not 0.0 < value < 1.0:
                raise ConfigError(
                    f"simulated model {self.name!r}: {domain}: expected an accuracy between 0 and "
                    f"1, got {value!r}"
                )
        if self.thinking_tokens < 0 or not self.tokens_per_s > 0:
            raise ConfigError(
                f"simulated model {self.name!r}: thinking_tokens must be >= 0 and tokens_per_s > 0"
            )

    def skill(self, domain: str) -> float:
        """Log-odds of the published accuracy; for another domain, the mean over all."""
        known = [self.accuracy[domain]] if domain in self.accuracy else self.accuracy.values()
        return math.fsum(math.log(p / (1.0 - p)) for p in known) / len(known)

    @property
    def reasons(self) -> bool:
        """True for a model that thinks at length whether it is asked to or not."""
        return self.thinking_tokens > 0


def published_models() -> dict[str, SimulatedModel]:
    """The models of models.yaml by name."""
    source = "masrouter/llms/simulated/models.yaml"
    text = files("masrouter.llms.simulated").joinpath("models.yaml").read_bytes()
    document = load_strict(text, source, error=ConfigError)
    document.mapping((), ("models",))
    found: dict[str, SimulatedModel] = {}
    for name, entry in document.mapping(("models",)).items():
        document.mapping(("models", name), (*DOMAINS, *_OPTIONAL))
        found[name] = SimulatedModel(
            name,
            {domain: entry.get(domain) for domain in DOMAINS},
            **{key: entry[key] for key in _OPTIONAL if key in entry},
        )
    return found
