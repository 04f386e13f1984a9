"""Calibrated thresholds in a file: when to delegate or ask first, which worker fits, how far to go.

JSON, so that it can be read, compared and edited; what each part was chosen on stands beside it.
A part that was never calibrated is null; `iterating` may be left out instead.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from masrouter.delegation.deliberation.agreement import Rule
from masrouter.delegation.deliberation.iterating_rule import IteratingRule
from masrouter.delegation.deliberation.missing import MissingRule
from masrouter.delegation.workers.matching import MatchingRule
from masrouter.errors import ConfigError
from masrouter.logs.lines import BadLine, parse_line

FORMAT = "masrouter.delegation.thresholds"
VERSION = 2
PARTS = ("rule", "missing", "matching", "iterating")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What calibration found; a part is None where it was not calibrated."""

    rule: Rule | None = None
    """When samples agree (`calibrate`)."""
    missing: MissingRule | None = None
    """When to ask first (`calibrate_missing`)."""
    matching: MatchingRule | None = None
    """When a worker fits a request."""
    chosen_on: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By part: of which models, queries and figures it comes; for whoever reads the file."""
    iterating: IteratingRule | None = None
    """How many drafts, and requests after each (`calibrate_iterating`)."""

    def __post_init__(self) -> None:
        for part, said in self.chosen_on.items():
            if part not in PARTS or getattr(self, part) is None:
                raise ConfigError(f"chosen_on: {part!r} is no part that is given here")
            if not isinstance(said, Mapping):
                raise ConfigError(f"chosen_on: {part}: expected an object, got {said!r}")

    def save(self, path: str | Path) -> None:
        """Write the file whole, in place of one that is there.

        Raises ConfigError where it cannot be; what was there is then untouched.
        """
        parts = {part: getattr(self, part) for part in PARTS}
        data = {
            "format": FORMAT,
            "version": VERSION,
            **{part: None if rule is None else _told(rule) for part, rule in parts.items()},
            "chosen_on": {part: dict(said) for part, said in self.chosen_on.items()},
        }
        try:
            text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{path}: chosen_on: not for JSON: {error}") from None
        try:
            _replace(Path(path), f"{text}\n")
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

    @classmethod
    def updated(
        cls,
        path: str | Path,
        *,
        rule: Rule | None = None,
        missing: MissingRule | None = None,
        matching: MatchingRule | None = None,
        iterating: IteratingRule | None = None,
        chosen_on: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Thresholds:
        """Write the parts that are given, and keep the others of a file that is there.

        chosen_on: of the parts given, by part; what stood there of them goes with the old parts.
        Gives what the file holds then. Raises ConfigError as `load` and `save` do.
        """
        new = [
            part
            for part, value in zip(PARTS, (rule, missing, matching, iterating), strict=True)
            if value is not None
        ]
        chosen = dict(chosen_on or {})
        if strange := sorted(set(chosen) - set(new)):
            raise ConfigError(f"chosen_on: {strange[0]!r} is no part that is given here")
        there = cls.load(path) if Path(path).exists() else cls()
        kept = {part: said for part, said in there.chosen_on.items() if part not in new}
        done = cls(
            rule or there.rule,
            missing or there.missing,
            matching or there.matching,
            {**kept, **chosen},
            iterating or there.iterating,
        )
        done.save(path)
        return done


def _replace(path: Path, text: str) -> None:
    """Write it beside the file and move it there: a reader sees the old file or the new one."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    partial = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o666 & ~umask)  # mkstemp's own mode would hide it from others
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _told(part: Rule | MissingRule | MatchingRule | IteratingRule) -> dict[str, Any]:
    if isinstance(part, MissingRule):
        return {"weights": dict(part.weights), "threshold": part.threshold}
    return asdict(part)


def _read(data: Mapping[str, Any]) -> Thresholds:
    _check_version(data)
    top = _mapping({"iterating": None, **data}, "file", {"format", "version", *PARTS, "chosen_on"})
    chosen_on = top["chosen_on"]
    if not isinstance(chosen_on, Mapping):
        raise ConfigError("chosen_on: expected an object")
    return Thresholds(
        None if top["rule"] is None else _rule(top["rule"]),
        None if top["missing"] is None else _missing(top["missing"]),
        None if top["matching"] is None else _matching(top["matching"]),
        dict(chosen_on),
        None if top["iterating"] is None else _iterating(top["iterating"]),
    )


def _rule(data: Any) -> Rule:
    given = _mapping(data, "rule", {"samples", "threshold", "stop_early", "at", "alike"})
    return Rule(**given)


def _missing(data: Any) -> MissingRule:
    given = _mapping(data, "missing", {"weights", "threshold"})
    if not isinstance(given["weights"], Mapping):
        raise ConfigError("missing: weights: expected an object")
    return MissingRule(dict(given["weights"]), given["threshold"])


def _matching(data: Any) -> MatchingRule:
    return MatchingRule(**_mapping(data, "matching", {"threshold", "chat_weight", "encoder"}))


def _iterating(data: Any) -> IteratingRule:
    try:
        return IteratingRule(**_mapping(data, "iterating", {"rounds", "requests", "ahead"}))
    except ConfigError as error:
        raise ConfigError(f"iterating: {str(error).removeprefix('iterating: ')}") from None


def _mapping(data: Any, name: str, keys: set[str]) -> Mapping[str, Any]:
    """An object of exactly these keys."""
    if not isinstance(data, Mapping):
        raise ConfigError(f"{name}: expected an object, got {data!r}")
    if lacking := sorted(keys - set(data)):
        raise ConfigError(f"{name}: {lacking[0]}: not there")
    if unknown := sorted(set(data) - keys):
        raise ConfigError(f"{name}: unknown key {unknown[0]!r}")
    return data


def _check_version(data: Mapping[str, Any]) -> None:
    """Before anything else, since another version has other keys."""
    if data.get("format") != FORMAT:
        raise ConfigError(f"format: expected {FORMAT!r}, got {data.get('format')!r}")
    if data.get("version") != VERSION or isinstance(data.get("version"), bool):
        raise ConfigError(
            f"version: this masrouter reads version {VERSION}, got {data.get('version')!r}; "
            "calibrate again"
        )
