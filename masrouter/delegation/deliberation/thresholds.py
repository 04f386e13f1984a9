"""Calibrated thresholds in a file: when to delegate, and when to ask what is missing.

JSON, so that it can be read, compared and edited; what they were chosen on stands beside them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from masrouter.delegation.deliberation.agreement import Rule
from masrouter.delegation.deliberation.missing import MissingRule
from masrouter.errors import ConfigError
from masrouter.logs.lines import BadLine, parse_line

FORMAT = "masrouter.delegation.thresholds"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What calibration found."""

    rule: Rule
    missing: MissingRule | None = None
    """None where it was not calibrated."""
    chosen_on: Mapping[str, Any] = field(default_factory=dict)
    """Of which models, queries and figures they come; for whoever reads the file."""

    def save(self, path: str | Path) -> None:
        """Write the file, in place of one that is there; raises ConfigError where it cannot be."""
        data = {
            "format": FORMAT,
            "version": VERSION,
            "rule": {
                "samples": self.rule.samples,
                "threshold": self.rule.threshold,
                "stop_early": self.rule.stop_early,
            },
            "missing": None
            if self.missing is None
            else {"weights": dict(self.missing.weights), "threshold": self.missing.threshold},
            "chosen_on": dict(self.chosen_on),
        }
        text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
        try:
            Path(path).write_text(f"{text}\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from error

    @classmethod
    def load(cls, path: str | Path) -> Thresholds:
        """Read the file; raises ConfigError as `file: field: why`."""
        try:
            data = parse_line(Path(path).read_bytes())
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
        except BadLine as bad:
            detail = f" ({bad.detail})" if bad.detail else ""
            raise ConfigError(f"{path}: {bad}{detail}") from None
        try:
            return _read(data)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None


def _read(data: Mapping[str, Any]) -> Thresholds:
    top = _mapping(data, "file", {"format", "version", "rule", "missing", "chosen_on"})
    if top["format"] != FORMAT:
        raise ConfigError(f"format: expected {FORMAT!r}, got {top['format']!r}")
    if top["version"] != VERSION or isinstance(top["version"], bool):
        raise ConfigError(
            f"version: this masrouter reads version {VERSION}, got {top['version']!r}"
        )
    rule = _mapping(top["rule"], "rule", {"samples", "threshold", "stop_early"})
    if not isinstance(rule["stop_early"], bool):
        raise ConfigError(f"rule: stop_early: expected true or false, got {rule['stop_early']!r}")
    missing = top["missing"]
    if missing is not None:
        missing = _mapping(missing, "missing", {"weights", "threshold"})
        if not isinstance(missing["weights"], Mapping):
            raise ConfigError("missing: weights: expected an object")
    if not isinstance(top["chosen_on"], Mapping):
        raise ConfigError("chosen_on: expected an object")
    return Thresholds(
        Rule(rule["samples"], rule["threshold"], rule["stop_early"]),
        None if missing is None else MissingRule(dict(missing["weights"]), missing["threshold"]),
        dict(top["chosen_on"]),
    )


def _mapping(data: Any, name: str, keys: set[str]) -> Mapping[str, Any]:
    """An object of exactly these keys."""
    if not isinstance(data, Mapping):
        raise ConfigError(f"{name}: expected an object, got {data!r}")
    if lacking := sorted(keys - set(data)):
        raise ConfigError(f"{name}: {lacking[0]}: not there")
    if unknown := sorted(set(data) - keys):
        raise ConfigError(f"{name}: unknown key {unknown[0]!r}")
    return data
