"""Check a whole batch of rows against schema 1 at once.

Columns come as a reader found them: any Arrow type, columns missing, columns too many. Out come
the canonical columns and, for each rule that some rows break, a mask of those rows. No Python runs
per valid row but for times and stage propensities, once per distinct value.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from masrouter.logs.report import quote
from masrouter.logs.schema import (
    AGENT_FIELD_NAMES,
    AGENT_FIELDS,
    AGENT_TYPE,
    FIELD_NAMES,
    FIELDS,
    SCHEMA,
    SCHEMA_VERSION,
    Field,
    FieldType,
)

Mask = npt.NDArray[np.bool_]
_EXACT = 2.0**53
"""From here on a float cannot tell neighbouring integers apart."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A rule and the rows that break it."""

    field: str
    why: str
    rows: Mask
    """Shape (n,)."""
    find: Callable[[int], tuple[str, str]]
    """Row -> the field's full name and what was found there."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A batch after the check."""

    batch: Any
    """pyarrow.RecordBatch of `SCHEMA`; rows that break a rule hold nulls or what was found."""
    faults: tuple[Fault, ...]
    """In the order of the schema's fields."""
    unknown: Mapping[str, int]
    """Fields that schema 1 does not have, and the rows that fill them."""
    later_version: tuple[int, int] | None
    """(row, version) of the first row of a later schema."""

    def first_faults(self) -> npt.NDArray[np.int64]:
        """Index into `faults` of each row's first fault, -1 where the row is valid; shape (n,)."""
        first = np.full(self.batch.num_rows, -1, dtype=np.int64)
        for index in range(len(self.faults) - 1, -1, -1):
            first[self.faults[index].rows] = index
        return first


def check(raw: Any) -> Checked:
    """Check a pyarrow.RecordBatch of any columns; column names must be distinct."""
    n = raw.num_rows
    columns: list[Any] = []
    faults: list[Fault] = []
    names = raw.schema.names
    unknown = {
        name: n - raw.column(index).null_count
        for index, name in enumerate(names)
        if name not in FIELD_NAMES
    }
    for field in FIELDS:
        found = raw.column(names.index(field.name)) if field.name in names else pa.nulls(n)
        if field.type is FieldType.AGENTS:
            column, seat_faults, seat_unknown = _check_agents(field, found)
            faults += seat_faults
            unknown |= seat_unknown
        else:
            column, bad = _check_column(field, found)
            if bad.any():
                faults.append(Fault(field.name, field.expected, bad, _finder(field.name, found)))
        columns.append(column)
    batch = pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
    return Checked(
        batch=batch,
        faults=tuple(faults),
        unknown={name: rows for name, rows in unknown.items() if rows},
        later_version=_later_version(batch.column("schema_version")),
    )


def _finder(name: str, found: Any) -> Callable[[int], tuple[str, str]]:
    return lambda row: (name, f"got {quote(_python(found, row))}")


def _python(column: Any, row: int) -> object:
    try:
        value: object = column[row].as_py()
    except (pa.ArrowException, ValueError, OverflowError, UnicodeDecodeError):
        return f"a value of type {column.type}"  # e.g. a nanosecond time that Python cannot hold
    return value


def _later_version(versions: Any) -> tuple[int, int] | None:
    later = _true(pc.greater(versions, SCHEMA_VERSION))
    if not later.any():
        return None
    row = int(np.argmax(later))
    return row, int(versions[row].as_py())


def _true(mask: Any) -> Mask:
    """An Arrow boolean array as numpy; null is False."""
    out: Mask = mask.fill_null(False).to_numpy(zero_copy_only=False)
    return out


def _check_column(field: Field, found: Any) -> tuple[Any, Mask]:
    """Canonical column and the rows that break the field's rule."""
    if field.type is FieldType.INTEGER:
        column, bad = _integers(found)
    elif field.type is FieldType.NUMBER:
        column, bad = _numbers(found)
    elif field.type is FieldType.STAGES:
        column, bad = _stages(found)
    else:
        if field.type is FieldType.TIME and pa.types.is_timestamp(found.type):
            found = _render_times(found)
        column, bad = _texts(found)
    if field.required:
        bad |= ~_true(found.is_valid())
    if field.type is FieldType.NUMBER:
        bad |= _true(pc.invert(pc.is_finite(column)))
    if field.low is not None:
        below = pc.less_equal if field.low_open else pc.less
        bad |= _true(below(column, field.low))
    if field.high is not None:
        bad |= _true(pc.greater(column, field.high))
    if field.type is FieldType.TEXT and _is_name(field):
        bad |= _true(pc.equal(pc.binary_length(column), 0))
    if field.type is FieldType.TIME:
        bad |= _bad_values(column, _is_time)
    return column, bad


def _is_name(field: Field) -> bool:
    return field.required or field.name == "role"


def _texts(found: Any) -> tuple[Any, Mask]:
    kind = found.type.value_type if pa.types.is_dictionary(found.type) else found.type
    if pa.types.is_null(kind):
        return pa.nulls(len(found), pa.large_string()), np.zeros(len(found), dtype=np.bool_)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return found.cast(pa.large_string()), np.zeros(len(found), dtype=np.bool_)
    return pa.nulls(len(found), pa.large_string()), _true(found.is_valid())


def _integers(found: Any) -> tuple[Any, Mask]:
    kind, n = found.type, len(found)
    if pa.types.is_null(kind) or pa.types.is_signed_integer(kind):
        return found.cast(pa.int64()), np.zeros(n, dtype=np.bool_)
    if pa.types.is_unsigned_integer(kind):
        wide = found.cast(pa.uint64())
        bad = _true(pc.greater(wide, pa.scalar(2**63 - 1, pa.uint64())))
        return pc.if_else(pa.array(bad), None, wide).cast(pa.int64()), bad
    if pa.types.is_floating(kind):
        # Tables with gaps often hold whole numbers as floats: 12.0 is 12, 12.5 is a fault.
        wide = found.cast(pa.float64())
        whole = pc.and_(pc.equal(pc.floor(wide), wide), pc.less(pc.abs(wide), _EXACT))
        bad = _true(found.is_valid()) & ~_true(whole)
        return pc.if_else(pa.array(bad), None, wide).cast(pa.int64()), bad
    return pa.nulls(n, pa.int64()), _true(found.is_valid())


def _numbers(found: Any) -> tuple[Any, Mask]:
    kind = found.type
    number = pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)
    if number or pa.types.is_null(kind):
        return found.cast(pa.float64(), safe=False), np.zeros(len(found), dtype=np.bool_)
    return pa.nulls(len(found), pa.float64()), _true(found.is_valid())


def _render_times(found: Any) -> Any:
    """Arrow timestamps as ISO 8601 text in UTC; a time without a zone is UTC by the schema."""
    utc = found.cast(pa.timestamp("us", "UTC"), safe=False)
    text = pc.strftime(utc.cast(pa.timestamp("us")), format="%Y-%m-%dT%H:%M:%S")
    return pc.binary_join_element_wise(text, "Z", "")


def _bad_values(column: Any, valid: Callable[[str], bool]) -> Mask:
    """Rows whose text `valid` refuses; it is asked once per distinct text."""
    encoded = column.dictionary_encode()
    answers = [valid(value) for value in encoded.dictionary.to_pylist()]
    bad = np.array([not answer for answer in answers] + [False], dtype=np.bool_)
    rows: Mask = bad[encoded.indices.fill_null(len(answers)).to_numpy(zero_copy_only=False)]
    return rows


def _is_time(text: str) -> bool:
    # fromisoformat takes any character between date and time; ISO 8601 takes a T.
    if len(text) > 10 and text[4:5] == "-" and text[10] not in "T ":
        return False
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            moment.astimezone(UTC)  # there is no year 0 and no year 10000 to move it to
    except (ValueError, OverflowError):
        return False
    return True


def _stages(found: Any) -> tuple[Any, Mask]:
    """JSON text, or a struct or map column of a Parquet file; a struct's nulls are absent keys."""
    kind = found.type
    if pa.types.is_struct(kind) or pa.types.is_map(kind):
        texts = [None if value is None else _dump(value) for value in found.to_pylist()]
        found = pa.array(texts, pa.large_string())
    column, bad = _texts(found)
    return column, bad | _bad_values(column, _is_stages)


def _dump(value: Any) -> str:
    try:
        return json.dumps(_present(dict(value)))
    except (TypeError, ValueError):
        return repr(value)  # not JSON: the check of the text refuses it and shows it


def _present(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _present(item) for key, item in value.items() if item is not None}
    return value


def _is_stages(text: str) -> bool:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and are_probabilities(value)


def are_probabilities(value: object) -> bool:
    """True for a number in (0, 1], or lists and objects of such numbers, at most 16 deep."""
    level = [value]
    for _ in range(16):
        deeper: list[object] = []
        for item in level:
            if isinstance(item, Mapping):
                if not all(isinstance(key, str) for key in item):
                    return False
                deeper += item.values()
            elif isinstance(item, list | tuple):
                deeper += item
            elif not _is_probability(item):
                return False
        level = deeper
    return not level


def _is_probability(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 < value <= 1


def _check_agents(field: Field, found: Any) -> tuple[Any, list[Fault], dict[str, int]]:
    """Canonical agents, the rows that break a rule, and unknown fields of the seats."""
    n, kind = len(found), found.type
    is_list = (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
    if not (is_list and (pa.types.is_struct(kind.value_type) or pa.types.is_null(kind.value_type))):
        bad = np.ones(n, dtype=np.bool_)
        faults = [Fault(field.name, field.expected, bad, _finder(field.name, found))] if n else []
        return pa.nulls(n, SCHEMA.field("agents").type), faults, {}
    lengths = pc.list_value_length(found).fill_null(0).to_numpy(zero_copy_only=False)
    ends = np.cumsum(lengths, dtype=np.int64)
    parents = np.repeat(np.arange(n), lengths)  # (seats,) row of each seat
    flat = found.flatten()

    def rows_of(seats: Mask) -> Mask:
        rows = np.zeros(n, dtype=np.bool_)
        rows[parents[seats]] = True
        return rows

    empty = (lengths == 0) | rows_of(~_true(flat.is_valid()))
    faults = [Fault(field.name, field.expected, empty, _finder(field.name, found))]
    names = [flat.type.field(i).name for i in range(flat.type.num_fields)] if len(flat) else []
    unknown: dict[str, int] = {}
    for index, name in enumerate(names):
        if name not in AGENT_FIELD_NAMES:
            filled = rows_of(_true(pc.struct_field(flat, [index]).is_valid()))
            unknown[f"agents[].{name}"] = int(filled.sum())
    columns: list[Any] = []
    for seat_field in AGENT_FIELDS:
        name = seat_field.name
        known = name in names
        seats = pc.struct_field(flat, [names.index(name)]) if known else pa.nulls(len(flat))
        column, bad = _check_column(seat_field, seats)
        columns.append(column.cast(AGENT_TYPE.field(name).type))
        if bad.any():
            find = _seat_finder(name, bad, seats, ends - lengths, ends)
            faults.append(Fault(f"agents[].{name}", seat_field.expected, rows_of(bad), find))
    structs = pa.StructArray.from_arrays(columns, fields=list(AGENT_TYPE))
    offsets = pa.array(np.concatenate(([0], ends)), pa.int32())
    agents = pa.ListArray.from_arrays(offsets, structs).cast(SCHEMA.field("agents").type)
    return agents, [fault for fault in faults if fault.rows.any()], unknown


def _seat_finder(
    name: str,
    bad: Mask,
    seats: Any,
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
) -> Callable[[int], tuple[str, str]]:
    def find(row: int) -> tuple[str, str]:
        seat = int(np.argmax(bad[starts[row] : ends[row]]))
        found = _python(seats, int(starts[row]) + seat)
        return f"agents[{seat}].{name}", f"got {quote(found)}"

    return find
