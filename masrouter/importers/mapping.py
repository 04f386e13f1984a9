"""The mapping file of a table: for each field of a log, the column that holds it, or a constant.

    query: {column: prompt}
    dataset: {value: support}
    topology: {value: io}
    agents:
      - {model: {column: model}, prompt_tokens: {column: in_tok}, completion_tokens: {column: out}}
    score: {column: rating, range: [1, 5]}        # or map: {up: 1, down: 0}
    score_source: {value: human}
    latency_s: {column: ms, factor: 0.001}
    timestamp: {column: at, unit: s}              # s, ms, us or ns since 1970; text needs no unit,
                                                  # and is UTC where it names no zone

A seat with `optional: true` is left out in rows whose model is empty. `agents: {column: team}`
takes a JSON list of {role, model, ...} as the log schema has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from masrouter.errors import LogError
from masrouter.logs.schema import AGENT_FIELDS, FIELDS
from masrouter.strict_yaml import Document, describe, load_strict
from masrouter.strict_yaml import Path as Place

UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
SEAT_FIELDS = tuple(field.name for field in AGENT_FIELDS)
_MAPPED = tuple(field.name for field in FIELDS if field.name != "schema_version")
_ALWAYS = ("query", "topology", "agents")
_EXTRAS: Mapping[str, tuple[str, ...]] = {
    "score": ("range", "map"),
    "timestamp": ("unit",),
    "latency_s": ("factor",),
    "cost_usd": ("factor",),
}
"""What a field's entry may hold besides `column`."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a field's values come from: a column, or one value for every row."""

    column: str | None = None
    value: Any = None
    range: tuple[float, float] | None = None
    """Lowest and highest of the scale; None is 0 to 1."""
    labels: Mapping[str, float] | None = None
    factor: float = 1.0
    unit_s: float | None = None


@dataclass(frozen=True, slots=True)
class Seat:
    """One agent: a source for each field that is mapped."""

    fields: Mapping[str, Source]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class TableMapping:
    """What the columns of a table are."""

    source: str
    """The mapping file."""
    fields: Mapping[str, Source]
    """By the log's field; `agents` only where a column holds the whole list."""
    seats: tuple[Seat, ...]

    def columns(self) -> set[str]:
        """Every column that is read."""
        return {source.column for source in self._sources() if source.column is not None}

    def _sources(self) -> Iterator[Source]:
        yield from self.fields.values()
        for seat in self.seats:
            yield from seat.fields.values()


def read_mapping(path: str | Path) -> TableMapping:
    """Read a mapping file; raises LogError as `file:line: key: why`."""
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise LogError(f"{path}: cannot be read: {error.strerror or error}") from error
    document = load_strict(text, str(path), LogError)
    entries = document.mapping((), _MAPPED)
    for name in _ALWAYS:
        if name not in entries:
            raise document.problem((), f"{name} is missing: every log record needs it")
    fields = {name: _source(document, (name,)) for name in entries if name != "agents"}
    seats: tuple[Seat, ...] = ()
    if isinstance(entries["agents"], list):
        if not entries["agents"]:
            raise document.problem(("agents",), "expected at least one agent")
        seats = tuple(_seat(document, ("agents", i)) for i in range(len(entries["agents"])))
    else:
        fields["agents"] = _source(document, ("agents",))
    return TableMapping(str(path), fields, seats)


def _seat(document: Document, path: Place) -> Seat:
    entries = document.mapping(path, (*SEAT_FIELDS, "optional"))
    if "model" not in entries:
        raise document.problem(path, "model is missing: every agent needs it")
    optional = entries.get("optional", False)
    if not isinstance(optional, bool):
        raise document.problem((*path, "optional"), "expected true or false")
    names = [name for name in entries if name != "optional"]
    return Seat({name: _source(document, (*path, name)) for name in names}, optional)


def _source(document: Document, path: Place) -> Source:
    name = str(path[-1])
    allowed = ("column", "value", *_EXTRAS.get(name, ()))
    entries = document.mapping(path, allowed)
    if ("column" in entries) == ("value" in entries):
        raise document.problem(path, "expected either column or value")
    if "value" in entries:
        if len(entries) > 1:
            raise document.problem(path, "a constant needs nothing besides its value")
        return Source(value=entries["value"])
    column = entries["column"]
    if not isinstance(column, str) or not column:
        raise document.problem(path, f"column: expected a name, got {describe(column)}")
    factor = entries.get("factor", 1)
    if not _is_number(factor) or factor <= 0:
        raise document.problem((*path, "factor"), "expected a number > 0")
    unit = entries.get("unit")
    if unit is not None and unit not in UNITS:
        raise document.problem((*path, "unit"), f"expected one of {', '.join(UNITS)}")
    return Source(
        column=column,
        range=_range(document, path, entries),
        labels=_labels(document, path, entries),
        factor=float(factor),
        unit_s=None if unit is None else UNITS[unit],
    )


def _range(
    document: Document, path: Place, entries: Mapping[str, Any]
) -> tuple[float, float] | None:
    if "range" not in entries:
        return None
    ends = entries["range"]
    if (
        not isinstance(ends, list)
        or len(ends) != 2
        or not all(map(_is_number, ends))
        or not ends[0] < ends[1]
    ):
        why = f"expected [lowest, highest], got {describe(ends)}"
        raise document.problem((*path, "range"), why)
    return float(ends[0]), float(ends[1])


def _labels(
    document: Document, path: Place, entries: Mapping[str, Any]
) -> Mapping[str, float] | None:
    if "map" not in entries:
        return None
    if "range" in entries:
        raise document.problem((*path, "map"), "expected either range or map")
    labels: dict[str, float] = {}
    for label, value in document.mapping((*path, "map")).items():
        if not _is_number(value) or not 0 <= value <= 1:
            why = f"expected a number in [0, 1], got {describe(value)}"
            raise document.problem((*path, "map", label), why)
        labels[label] = float(value)
    return labels


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
