"""What a server is told before it starts: where it listens, who may ask, what it allows and keeps.

Read from YAML, from arguments, or both. Not here: what a single request may ask for (`schemas`).
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

from masrouter.errors import ConfigError, PlanError
from masrouter.server.keys import ENVIRONMENT_KEY, KeyEntry, environment_entry
from masrouter.server.records_file import Place
from masrouter.strict_yaml import Document, describe, load_strict
from masrouter.types import Plan

PORT = 8484
MEMORY: Literal["memory"] = "memory"
NOTHING: Literal["none"] = "none"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_OWN = "auto"
"""`masrouter/auto` is the router itself, so no plan may have that name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What requests may take of the server, whoever sends them and whatever they say."""

    max_body_bytes: int = 1_000_000
    max_header_bytes: int = 16_384
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    request_timeout_s: float = 300.0
    max_concurrent: int = 64
    """Requests that are worked on at once."""
    max_queued: int = 256
    """Requests that wait for their turn; beyond it the answer is 429."""
    queue_timeout_s: float = 30.0
    retry_after_s: int = 1
    max_query_characters: int = 100_000
    max_messages: int = 256
    max_batch: int = 256
    """Queries of one request to `/v1/decision`."""
    max_completion_tokens: int = 16_384
    drain_s: float = 60.0
    """So long requests under way may go on after the signal to stop."""
    max_connections: int = 4096

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            whole = isinstance(item.default, int)
            least = 0 if item.name == "max_queued" else 1 if whole else 0.001
            _check_number(f"limits: {item.name}", value, least=least, whole=whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Everything of a server but its router and its models."""

    host: str = "127.0.0.1"
    port: int = PORT
    """0 takes a free one."""
    keys: tuple[KeyEntry, ...] = ()
    """Who may ask. Without any the server answers this machine alone."""
    limits: Limits = field(default_factory=Limits)
    budget_usd: float | None = None
    """Of all requests together, those too that a file of records tells of. None is no limit."""
    exploration: float = 0.0
    """Share of decisions that are drawn from the cascade instead of chosen, in [0, 1]."""
    records: Place = MEMORY
    """Where decisions and outcomes are kept: a file, in memory until the end, or nowhere."""
    keep_days: float | None = None
    """Records older than this are deleted. None keeps all."""
    session_ttl_s: float = 1800.0
    """A session that was not heard of for so long is forgotten."""
    playground: bool = True
    """Serve the page at `/`."""
    plans: Mapping[str, Plan] = field(default_factory=dict)
    """Fixed plans, served as the models `masrouter/<name>`."""

    def __post_init__(self) -> None:
        if not isinstance(self.host, str) or not self.host:
            raise ConfigError(f"host: expected a name or an address, got {self.host!r}")
        for name in _NUMBERS:
            _check_setting(name, getattr(self, name))
        names = [entry.name for entry in self.keys]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ConfigError(f"keys: {twice.pop()!r} stands twice; give each key its own name")
        for name in self.plans:
            check_plan_name(name)
        if not self.keys and not is_loopback(self.host):
            raise ConfigError(
                f"host {self.host!r} can be reached from other machines, and no key is set: "
                "anybody there could spend your money; add a key (`masrouter serve --new-key NAME` "
                f"makes one, or set {ENVIRONMENT_KEY}), or listen on 127.0.0.1"
            )

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        **given: Any,
    ) -> Self:
        """Settings from a YAML file, with what is `given` in its place.

        environment: where the key of MASROUTER_SERVER_KEY is looked for, which is then added under
        the name `environment`. Raises ConfigError as `file:line: key: why`.
        """
        values = {} if path is None else _read(Path(path), tuple(f.name for f in fields(cls)))
        values |= given
        if environment is not None and (entry := environment_entry(environment)) is not None:
            values["keys"] = (*values.get("keys", ()), entry)
        return cls(**values)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_plan_name(name: str) -> None:
    """Raises ConfigError for a name that no model could have."""
    if not _NAME.fullmatch(name) or name == _OWN:
        raise ConfigError(
            f"plans: {name!r}: expected a name of letters, digits, '.', '_' and '-', other than "
            f"{_OWN!r}"
        )


_NUMBERS: Mapping[str, Mapping[str, Any]] = {
    "port": {"least": 0, "most": 65_535, "whole": True},
    "exploration": {"least": 0.0, "most": 1.0},
    "session_ttl_s": {"least": 0.001},
    "budget_usd": {"least": 0.0},
    "keep_days": {"least": 0.0},
}
_MAY_BE_NONE = ("budget_usd", "keep_days")


def _check_setting(name: str, value: object) -> None:
    if value is not None or name not in _MAY_BE_NONE:
        _check_number(name, value, **_NUMBERS[name])


def _check_number(
    name: str, value: object, *, least: float, most: float = 1e12, whole: bool = False
) -> None:
    kind = int if whole else int | float
    fits = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or not least <= value <= most:  # type: ignore[operator]
        what = "a whole number" if whole else "a number"
        raise ConfigError(f"{name}: expected {what} from {least:g} to {most:g}, got {value!r}")


def _read(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    document = load_strict(text, str(path), ConfigError)
    if document.value is None:
        return {}
    found: dict[str, Any] = dict(document.mapping((), names))
    if "limits" in found:
        given = document.mapping(("limits",), (f.name for f in fields(Limits)))
        found["limits"] = _told(document, ("limits",), lambda: Limits(**given))
    for name in found.keys() & _NUMBERS:
        _told(document, (name,), lambda name=name: _check_setting(name, found[name]))
    if "keys" in found:
        found["keys"] = _keys(document)
    if "plans" in found:
        found["plans"] = _plans(document)
    if "records" in found:
        found["records"] = _records(document, path.parent)
    if not isinstance(found.get("playground", True), bool):
        why = f"expected true or false, got {describe(found['playground'])}"
        raise document.problem(("playground",), why)
    return found


def _told(document: Document, path: tuple[str | int, ...], make: Any) -> Any:
    """What `make` makes; its errors with the place in the file."""
    try:
        return make()
    except (ConfigError, PlanError) as error:
        raise document.problem(path, str(error).removeprefix(f"{path[0]}: ")) from None


def _keys(document: Document) -> tuple[KeyEntry, ...]:
    listed = document.at(("keys",))
    if not isinstance(listed, list):
        raise document.problem(("keys",), f"expected a list, got {describe(listed)}")
    entries = []
    for index in range(len(listed)):
        here = ("keys", index)
        given = document.mapping(here, ("name", "sha256", "budget_usd"))
        for needed in ("name", "sha256"):
            if needed not in given:
                raise document.problem(here, f"{needed} is missing")
        entries.append(_told(document, here, lambda given=given: KeyEntry(**given)))
    return tuple(entries)


def _plans(document: Document) -> dict[str, Plan]:
    plans = {}
    for name, data in document.mapping(("plans",)).items():
        here = ("plans", name)
        _told(document, here, lambda name=name: check_plan_name(name))
        plans[name] = _told(document, here, lambda data=data: Plan.from_json(data))
    return plans


def _records(document: Document, folder: Path) -> Place:
    value = document.at(("records",))
    if not isinstance(value, str) or not value:
        raise document.problem(
            ("records",), f"expected a file, `memory` or `none`, got {describe(value)}"
        )
    return records_place(value, folder)


def records_place(text: str, folder: Path = Path()) -> Place:
    """What `records` means: `memory`, `none`, or a file, seen from `folder`."""
    if text == MEMORY:
        return MEMORY
    return NOTHING if text == NOTHING else folder / text
