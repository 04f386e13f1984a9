"""Read JSON Lines in blocks: all at once where every line is well formed, else line by line.

A block goes through Arrow's JSON reader. Where that fails, or cannot promise that row i is line i
and that nothing is lost, the block is parsed line by line, which says what is wrong and where.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.json as pj

from masrouter.errors import LogError
from masrouter.logs.report import Reject, quote
from masrouter.logs.schema import (
    AGENT_FIELD_NAMES,
    AGENT_FIELDS,
    FIELD_NAMES,
    FIELDS,
    SCHEMA,
    SCHEMA_VERSION,
    Field,
    FieldType,
    refuse_version,
)
from masrouter.logs.validate import are_probabilities

BLOCK_BYTES = 8 << 20
LINE_BYTES = 64 << 20
"""Longest line that is read; a longer one is rejected without being held in memory."""
_DEEP = 500
"""Lines with more brackets than this go line by line, where depth is safe to meet."""

_BLANK = re.compile(rb"\s*\Z")


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of one file as they were found, with what was refused before they became rows."""

    file: str
    unit: str
    """Empty for lines, `row ` for the rows of a Parquet file."""
    batch: Any
    """pyarrow.RecordBatch of any columns, n rows."""
    numbers: npt.NDArray[np.int64]
    """Line or row number of each row, from 1; shape (n,)."""
    raw: tuple[bytes, ...] | None = None
    """The lines of the rows; None where a row's text is made from its values."""
    refused: tuple[tuple[Reject, bytes], ...] = ()
    unknown: Mapping[str, int] = field(default_factory=dict)
    """Unknown fields that `batch` no longer shows."""
    read: int = 0
    """Rows found, the refused ones included."""
    bytes_done: int = 0


class BadLine(Exception):
    """A line that holds no row of the right types."""

    def __init__(self, name: str, why: str, place: str = "", detail: str = "") -> None:
        super().__init__(f"{name}: {why}")
        self.name, self.why, self.place, self.detail = name, why, place or name, detail


def read_lines(path: Path, label: str) -> Iterator[Block]:
    """The rows of a .jsonl or .jsonl.gz file in blocks of about 8 MB.

    Raises LogError where the file cannot be read or its gzip stream is damaged.
    """
    first = 1
    try:
        with path.open("rb") as file:
            stream = gzip.GzipFile(fileobj=file) if path.name.endswith(".gz") else file
            for chunk in _whole_lines(stream):
                block = _parse(label, chunk, first, file.tell())
                first += chunk.count(b"\n")
                yield block
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise LogError(
            f"{label}:{first}: gzip stream damaged after this line: {error}; "
            "restore the file or unpack what is left of it with `gzip -dc`"
        ) from error
    except OSError as error:
        raise LogError(f"{label}: cannot be read: {error.strerror or error}") from error


def _whole_lines(stream: BinaryIO | gzip.GzipFile) -> Iterator[bytes]:
    """Chunks that end at a line's end; of a line too long only the first bytes."""
    rest = stream.read(3).removeprefix(b"\xef\xbb\xbf")  # a byte order mark is no part of line 1
    skipping = False
    while data := stream.read(BLOCK_BYTES):
        if skipping:
            end = data.find(b"\n")
            if end < 0:
                continue
            data, skipping = data[end:], False
        rest += data
        cut = rest.rfind(b"\n") + 1
        if cut:
            yield rest[:cut]
            rest = rest[cut:]
        if len(rest) > LINE_BYTES:
            rest, skipping = rest[: LINE_BYTES + 1], True
    if rest:
        yield rest


def _parse(label: str, chunk: bytes, first: int, done: int) -> Block:
    fast = _parse_together(chunk)
    if fast is not None:
        batch, lines = fast
        n = batch.num_rows
        return Block(label, "", batch, np.arange(first, first + n), lines, read=n, bytes_done=done)
    return _parse_one_by_one(label, chunk, first, done)


def _parse_together(chunk: bytes) -> tuple[Any, tuple[bytes, ...]] | None:
    """The chunk through Arrow; None where it might not say exactly what the lines say."""
    lines = tuple(chunk.split(b"\n"))
    lines = lines[:-1] if not lines[-1] else lines
    # Every line one object: then as many rows as lines means that row i is line i.
    for line in lines:
        if line[:1] != b"{" or line.rstrip()[-1:] != b"}":
            return None
        if len(line) > LINE_BYTES or line.count(b"{") + line.count(b"[") > _DEEP:
            return None
    explicit = [item for item in SCHEMA if item.name != "stage_propensities"]
    try:
        chunk.decode("utf-8")
        table = pj.read_json(
            io.BytesIO(chunk),
            read_options=pj.ReadOptions(use_threads=False, block_size=len(chunk) + 1),
            parse_options=pj.ParseOptions(
                explicit_schema=pa.schema(explicit), unexpected_field_behavior="infer"
            ),
        )
        if table.num_rows != len(lines) or not lines:
            return None
        # Arrow would turn an object of any shape into a struct, and so change it.
        names = table.schema.names
        if "stage_propensities" in names and not pa.types.is_null(
            table.schema.field("stage_propensities").type
        ):
            return None
        return table.combine_chunks().to_batches()[0], lines
    except (pa.ArrowException, UnicodeError, ValueError, OverflowError):
        return None


def _parse_one_by_one(label: str, chunk: bytes, first: int, done: int) -> Block:
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    kept: list[bytes] = []
    refused: list[tuple[Reject, bytes]] = []
    unknown: Counter[str] = Counter()
    lines = chunk.split(b"\n")
    cut_off = bool(lines[-1])
    for number, line in enumerate(lines, first):
        if _BLANK.match(line):
            continue
        try:
            data = parse_line(line, ends=not (cut_off and number == first + len(lines) - 1))
            version = data.get("schema_version")
            if type(version) is int and version > SCHEMA_VERSION:
                raise refuse_version(f"{label}:{number}", version)
            row = typed_row(data)
        except BadLine as bad:
            reject = Reject(label, str(number), bad.name, bad.why, bad.place, bad.detail)
            refused.append((reject, line))
            continue
        unknown.update(unknown_fields(data))
        rows.append(row)
        numbers.append(number)
        kept.append(line)
    return Block(
        label,
        "",
        pa.RecordBatch.from_pylist(rows, schema=SCHEMA),
        np.array(numbers, dtype=np.int64),
        tuple(kept),
        tuple(refused),
        unknown,
        len(rows) + len(refused),
        done,
    )


def parse_line(line: bytes, *, ends: bool = True) -> dict[str, Any]:
    """One line as a JSON object; `ends` is False for a last line without its line feed.

    Raises BadLine.
    """
    if len(line) > LINE_BYTES:
        raise BadLine("line", f"longer than {LINE_BYTES >> 20} MiB")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadLine("line", "not UTF-8", detail=f"byte {error.start + 1}") from None
    try:
        data = json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise BadLine("line", "nested too deeply") from None
    except json.JSONDecodeError as error:
        if not ends:
            raise BadLine("line", "cut off: not valid JSON, and no line feed at its end") from None
        detail = f"{error.msg} at column {error.colno}"
        raise BadLine("line", "not valid JSON", detail=detail) from None
    except ValueError as error:  # an integer of thousands of digits
        raise BadLine("line", "not valid JSON", detail=str(error)) from None
    if not isinstance(data, dict):
        raise BadLine("line", "expected a JSON object", detail=f"got {quote(data)}")
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        twice = next(name for name, count in Counter(n for n, _ in pairs).items() if count > 1)
        raise BadLine("line", "a key stands twice in one object", detail=repr(twice))
    return data


def unknown_fields(data: Mapping[str, Any]) -> set[str]:
    """Names of filled fields that schema 1 does not have."""
    found = {str(n) for n, value in data.items() if n not in FIELD_NAMES and value is not None}
    for agent in data.get("agents") or ():
        found |= {
            f"agents[].{n}"
            for n, v in agent.items()
            if n not in AGENT_FIELD_NAMES and v is not None
        }
    return found


def typed_row(data: Mapping[str, Any]) -> dict[str, Any]:
    """The object's known fields as a row of `SCHEMA`; ranges are checked later, by the batch.

    Raises BadLine naming the first field of the wrong type.
    """
    return {item.name: _typed(item, data.get(item.name), item.name, item.name) for item in FIELDS}


def _typed(rule: Field, value: Any, name: str, place: str) -> Any:
    if value is None:
        return None
    if rule.type in (FieldType.TEXT, FieldType.TIME):
        if isinstance(value, str) and _is_unicode(value):
            return value
    elif rule.type is FieldType.INTEGER:
        whole = int(value) if isinstance(value, float) and value.is_integer() else value
        if type(whole) is int and -(2**63) <= whole < 2**63:
            return whole
    elif rule.type is FieldType.NUMBER:
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                return float(value)
            except OverflowError:  # an integer beyond the floats: refused as not finite
                return math.inf
    elif rule.type is FieldType.STAGES:
        if isinstance(value, Mapping) and are_probabilities(value):
            return json.dumps(value)
    elif isinstance(value, list | tuple) and all(isinstance(seat, Mapping) for seat in value):
        return [
            {
                seat_rule.name: _typed(
                    seat_rule,
                    seat.get(seat_rule.name),
                    f"agents[].{seat_rule.name}",
                    f"agents[{index}].{seat_rule.name}",
                )
                for seat_rule in AGENT_FIELDS
            }
            for index, seat in enumerate(value)
        ]
    raise BadLine(name, rule.expected, place, f"got {quote(value)}")


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair, such as "\ud800"
        return False
    return True
