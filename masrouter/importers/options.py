"""What an importer is told, because no export says it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from masrouter.errors import LogError
from masrouter.importers.values import lookup
from masrouter.strict_yaml import load_strict

UNSCORED = "none"
"""`score_source` of records that nobody scored."""

FACT_KEYS = (
    "dataset", "task", "topology", "query_id", "propensity", "policy", "seed",
)  # fmt: skip
"""Fields of a run that a key of the tool's metadata may give."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """How rows become runs. A key is a name in the metadata, a path (`metadata.team`) or a tag."""

    dataset: str | None = None
    task: str | None = None
    topology: str | None = None
    """Of runs with several calls; a run of one call is `io` unless `topology_key` says else."""
    policy: str | None = None
    dataset_key: str | None = None
    task_key: str | None = None
    topology_key: str | None = None
    query_id_key: str | None = None
    propensity_key: str | None = None
    policy_key: str | None = None
    seed_key: str | None = None
    agent_key: str | None = None
    """Who made a call; in place of the tool's own agent names."""
    cost_key: str | None = None
    """What a call cost in US dollars; in place of the tool's own cost."""
    runs: Literal["trace", "call"] = "trace"
    """Whether a run is a whole trace, or each call is a run of its own."""
    score_name: str | None = None
    score_source: str | None = None
    score_range: tuple[float, float] | None = None
    """Lowest and highest value that scores can have; they are mapped to [0, 1]."""
    score_labels: Mapping[str, float] = field(default_factory=dict)
    """What a label is worth, in [0, 1]."""
    models: Mapping[str, str] = field(default_factory=dict)
    """Catalog names of the models, by the names in the export."""

    def __post_init__(self) -> None:
        for item in fields(self):
            if getattr(self, item.name) == "":
                raise LogError(f"{item.name}: expected text, got none")
        low, high = self.score_range or (0.0, 1.0)
        if not -math.inf < low < high < math.inf:
            raise LogError(f"score_range: expected LOW < HIGH, both finite, got {low} and {high}")
        for label, value in self.score_labels.items():
            if not 0 <= value <= 1:
                raise LogError(f"score_labels: {label!r}: expected a number in [0, 1], got {value}")

    def keys(self) -> dict[str, str]:
        """The key of each fact that has one."""
        found = {name: getattr(self, f"{name}_key") for name in FACT_KEYS}
        return {name: key for name, key in found.items() if key is not None}

    def need_dataset(self) -> None:
        """Raise LogError where nothing says which dataset queries belong to."""
        if self.dataset is None and self.dataset_key is None:
            raise LogError(
                "no dataset: give the queries' origin a name with --dataset NAME, or name the "
                "metadata key that holds it with --dataset-key KEY"
            )


def facts(scopes: Sequence[Mapping[str, Any]], options: ImportOptions) -> dict[str, object]:
    """What the keys find in a row's scopes, by the record's field."""
    found = {name: lookup(scopes, key) for name, key in options.keys().items()}
    return {name: value for name, value in found.items() if value is not None}


def read_model_map(path: str | Path) -> dict[str, str]:
    """A YAML mapping of the export's model names to the catalog's; raises LogError."""
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise LogError(f"{path}: cannot be read: {error.strerror or error}") from error
    document = load_strict(text, str(path), LogError)
    names: dict[str, str] = {}
    for name, target in document.mapping(()).items():
        if not isinstance(target, str) or not target:
            raise document.problem((name,), "expected a catalog's model name")
        names[name] = target
    return names
