"""Read catalog YAML: strict, and with the file and line of whatever is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from masrouter.catalog.entries import ModelEntry, RoleEntry, TopologyEntry
from masrouter.strict_yaml import Document, Path, describe, load_strict

SECTIONS = ("models", "roles", "topologies")
MOST_AGENTS = 64

Entry = TypeVar("Entry", ModelEntry, RoleEntry, TopologyEntry)
Check = Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class _Rule:
    expected: str
    holds: Check


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


_TEXT = _Rule("expected a non-empty text", _is_text)
_OPTIONAL_TEXT = _Rule("expected a non-empty text or null", lambda v: v is None or _is_text(v))
_PRICE = _Rule(
    "expected US dollars per million tokens, a number >= 0, or null for unknown",
    lambda v: v is None or (_is_number(v) and v >= 0),
)
_WINDOW = _Rule(
    "expected a number of tokens >= 1, or null for unknown",
    lambda v: v is None or (_is_whole(v) and v >= 1),
)
_NAMES = _Rule(
    "expected a list of non-empty texts",
    lambda v: isinstance(v, list) and all(map(_is_text, v)),
)
_TRUTH = _Rule("expected true or false", lambda v: isinstance(v, bool))
_AGENTS = _Rule(
    f"expected a number of agents from 1 to {MOST_AGENTS}",
    lambda v: _is_whole(v) and 1 <= v <= MOST_AGENTS,
)
_PROMPT = _Rule("expected a text", lambda v: isinstance(v, str))

_MODEL: Mapping[str, _Rule] = {
    "description": _TEXT,
    "provider": _OPTIONAL_TEXT,
    "input_usd_per_mtok": _PRICE,
    "output_usd_per_mtok": _PRICE,
    "context_window": _WINDOW,
    "aliases": _NAMES,
    "known": _TRUTH,
}
_ROLE: Mapping[str, _Rule] = {
    "description": _TEXT,
    "prompt": _PROMPT,
    "domain": _OPTIONAL_TEXT,
    "known": _TRUTH,
}
_TOPOLOGY: Mapping[str, _Rule] = {
    "description": _TEXT,
    "min_agents": _AGENTS,
    "max_agents": _AGENTS,
    "ordered": _TRUTH,
    "known": _TRUTH,
}


@dataclass(frozen=True, slots=True)
class Entries:
    """The entries of one file, by name."""

    models: Mapping[str, ModelEntry]
    roles: Mapping[str, RoleEntry]
    topologies: Mapping[str, TopologyEntry]


def read_entries(text: str | bytes, source: str, base: Entries) -> Entries:
    """The entries that a YAML text holds.

    An entry whose name `base` knows changes only the keys it gives; the others stay as in `base`.
    Raises CatalogError as `source:line: key: why`.
    """
    document = load_strict(text, source)
    if document.value is None:
        raise document.problem((), f"empty; expected {', '.join(SECTIONS)}")
    document.mapping((), SECTIONS)
    models = _section(document, "models", ModelEntry, _MODEL, base.models)
    _check_aliases(document, models, base.models)
    roles = _section(document, "roles", RoleEntry, _ROLE, base.roles)
    topologies = _section(document, "topologies", TopologyEntry, _TOPOLOGY, base.topologies)
    for name, entry in topologies.items():
        if entry.min_agents > entry.max_agents:
            raise document.problem(
                ("topologies", name),
                f"min_agents {entry.min_agents} is above max_agents {entry.max_agents}",
            )
    return Entries(models, roles, topologies)


def _section(
    document: Document,
    section: str,
    kind: type[Entry],
    rules: Mapping[str, _Rule],
    base: Mapping[str, Entry],
) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    if section not in document.value:
        return found
    for name in document.mapping((section,)):
        path: Path = (section, name)
        if not name.strip():
            raise document.problem(path, "expected a non-empty name")
        given = document.mapping(path, rules)
        for key, value in given.items():
            rule = rules[key]
            if not rule.holds(value):
                raise document.problem((*path, key), f"{rule.expected}, got {describe(value)}")
        values = asdict(base[name]) if name in base else {"name": name}
        values |= {key: tuple(v) if isinstance(v, list) else v for key, v in given.items()}
        for needed in _required(kind):
            if needed not in values:
                raise document.problem(path, f"{needed} is missing")
        found[name] = kind(**values)
    return found


def _required(kind: type[Entry]) -> tuple[str, ...]:
    optional = {"provider", "input_usd_per_mtok", "output_usd_per_mtok", "context_window"}
    optional |= {"aliases", "prompt", "domain", "known"}
    return tuple(item.name for item in fields(kind) if item.name not in optional)


def _check_aliases(
    document: Document, models: Mapping[str, ModelEntry], base: Mapping[str, ModelEntry]
) -> None:
    owner: dict[str, str] = {}
    for name, entry in models.items():
        for alias in entry.aliases:
            path = ("models", name, "aliases")
            if alias in models or alias in base:
                raise document.problem(path, f"{alias!r} is the name of a model of its own")
            if alias in owner:
                raise document.problem(path, f"{alias!r} is an alias of {owner[alias]!r} too")
            owner[alias] = name
