"""Rows of other tools' files: JSON Lines, JSON documents, CSV and Parquet, packed by gzip or not.

Lines, CSV and Parquet are streamed; a JSON document is held whole. What is not a row at all (a
line that is no JSON, a CSV row with a cell too many) is rejected here, with its place.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from masrouter.errors import LogError
from masrouter.importers.report import Account
from masrouter.logs.lines import LINE_BYTES, BadLine, parse_line
from masrouter.logs.report import quote

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv")
"""Each also with .gz behind it; and .parquet. A name that has no suffix is taken for .json."""
MAX_DOCUMENT_BYTES = 1 << 30
Stream = IO[bytes] | gzip.GzipFile

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it was found."""

    file: str
    where: str
    """`12` for line 12, `row 3`, `item 4` of a list, `12 data[3]` for a part of line 12."""
    data: Any
    """Parsed JSON; for CSV and Parquet a dict by column, None for an empty cell."""
    raw: str | None = None
    """Its text, where it is at hand."""
    same_columns: bool = False
    """Whether every row of its file has the same columns, as in CSV and Parquet."""

    def part(self, name: str, data: Any) -> Row:
        """A row inside this one."""
        return Row(self.file, f"{self.where} {name}" if self.where else name, data)

    def as_text(self) -> str:
        """Its text as it stood, or its data as JSON."""
        if self.raw is not None:
            return self.raw
        try:
            # What an importer wraps data in is shown as the data.
            return json.dumps(self.data, default=lambda item: getattr(item, "data", str(item)))
        except (ValueError, TypeError, RecursionError):
            return quote(self.data)


Rows = Generator[Row, None, None]


@dataclass(frozen=True, slots=True)
class Inputs:
    """The files to read."""

    files: tuple[Path, ...]
    skipped: Mapping[str, int]
    """How many files of the folders are none by their names, by how the names end."""


def find_inputs(paths: Iterable[str | Path]) -> Inputs:
    """The files among files and folders (all below them, sorted); raises LogError."""
    found: dict[Path, Path] = {}
    skipped: Counter[str] = Counter()
    for path in map(Path, paths):
        if path.is_dir():
            visible = [p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")]
            inside = sorted(p for p in visible if _kind(p))
            skipped.update(p.suffix for p in visible if not _kind(p))
            if not inside:
                raise LogError(f"{path}: no {', '.join(SUFFIXES)} or .parquet file in this folder")
        elif not path.exists():
            raise LogError(f"{path}: no such file or folder")
        elif not _kind(path):
            raise LogError(
                f"{path}: cannot tell its format by its name; expected {', '.join(SUFFIXES)} "
                "(also with .gz) or .parquet"
            )
        else:
            inside = [path]
        for file in inside:
            found.setdefault(file.resolve(), file)
    if not found:
        raise LogError("nothing to import; name a file or a folder")
    return Inputs(tuple(found.values()), skipped)


def _kind(path: Path) -> str:
    name = path.name.lower()
    if not path.suffix:
        return ".json"  # as LiteLLM names its objects in a bucket
    if name.endswith(".parquet"):
        return ".parquet"
    name = name.removesuffix(".gz")
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def read_rows(paths: Iterable[Path], account: Account, progress: Progress | None = None) -> Rows:
    """Every row of the files; those that are none are counted and rejected.

    Raises LogError for a file that cannot be read to its end.
    """
    files = list(paths)
    total, before = sum(path.stat().st_size for path in files), 0
    for path in files:
        with closing(_read(path, account)) as rows:
            for number, (row, done) in enumerate(rows, 1):
                if progress is not None and number % 1000 == 0:
                    progress(min(before + done, total), total)
                yield row
        before += path.stat().st_size
        if progress is not None:
            progress(before, total)


def _read(path: Path, account: Account) -> Generator[tuple[Row, int], None, None]:
    """Rows, each with the bytes of the file that are done."""
    kind = _kind(path)
    if kind == ".parquet":
        yield from _parquet(path)
        return
    reader = {".csv": _csv, ".json": _json}.get(kind, _lines)
    # Closed innermost first also where a consumer stops early.
    with (
        _opened(path) as (packed, stream),
        closing(reader(str(path), stream, account)) as rows,
    ):
        for row in rows:
            yield row, packed.tell()


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], Stream]]:
    """The file, and its content unpacked."""
    try:
        with path.open("rb") as file:
            magic = file.read(2)
            file.seek(0)
            if magic == b"\x1f\x8b":
                with gzip.GzipFile(fileobj=file) as unpacked:
                    yield file, unpacked
            else:
                yield file, file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise LogError(f"{path}: the gzip stream is damaged: {error}") from error
    except OSError as error:
        raise LogError(f"{path}: cannot be read: {error.strerror or error}") from error


def _lines(label: str, stream: Stream, account: Account) -> Rows:
    number = 0
    while line := stream.readline(LINE_BYTES + 1):
        number += 1
        line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if not line.strip():
            continue
        raw = line.decode("utf-8", "surrogateescape").rstrip("\r\n")
        row = Row(label, str(number), None, raw)
        if len(line) > LINE_BYTES:
            while line and not line.endswith(b"\n"):
                line = stream.readline(LINE_BYTES)
            account.bad_row(row, "line", f"longer than {LINE_BYTES >> 20} MiB")
            continue
        try:
            data = parse_line(line, ends=line.endswith(b"\n"))
        except BadLine as bad:
            account.bad_row(row, bad.name, bad.why, bad.detail)
            continue
        yield Row(label, str(number), data, raw)


def _json(label: str, stream: Stream, account: Account) -> Rows:
    """A document, or JSON Lines under the name .json, as the OpenTelemetry collector writes."""
    first = stream.readline(LINE_BYTES + 1)
    while first and not first.removeprefix(codecs.BOM_UTF8).strip():
        first = stream.readline(LINE_BYTES + 1)
    stream.seek(0)
    if _is_object(first):
        yield from _lines(label, stream, account)
        return
    content = stream.read(MAX_DOCUMENT_BYTES + 1)
    if not content.strip():
        return
    if len(content) > MAX_DOCUMENT_BYTES:
        raise LogError(
            f"{label}: a JSON document of more than {MAX_DOCUMENT_BYTES >> 20} MiB is not read; "
            "export JSON Lines (.jsonl), which is streamed"
        )
    try:
        data = json.loads(content.decode("utf-8-sig"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        row = Row(label, "document", None, content.decode("utf-8", "surrogateescape"))
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        account.bad_row(row, "document", "not valid JSON", why)
        return
    if isinstance(data, list):
        for index, item in enumerate(data, 1):
            yield Row(label, f"item {index}", item)
    else:
        yield Row(label, "document", data)


def _is_object(line: bytes) -> bool:
    """Whether a line is a whole JSON object, so that the file is JSON Lines."""
    text = line.removeprefix(codecs.BOM_UTF8).strip()
    if not (text.startswith(b"{") and text.endswith(b"}")):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return data


def _csv(label: str, stream: Stream, account: Account) -> Rows:
    """Rows of a CSV file with a header, by the line on which each begins."""
    text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
    try:
        yield from _csv_rows(label, text, account)
    finally:
        text.detach()  # the file is closed by who opened it


def _csv_rows(label: str, text: io.TextIOWrapper, account: Account) -> Iterator[Row]:
    csv.field_size_limit(LINE_BYTES)  # prompts are longer than the module's 128 KiB
    reader = csv.reader(text, strict=True)
    header = _cells(reader)
    if header is None:
        return
    if isinstance(header, str):
        raise LogError(f"{label}:1: the header is no CSV: {header}")
    twice = {name for name in header if header.count(name) > 1}
    if twice:
        raise LogError(f"{label}:1: columns {sorted(twice)} stand twice; rename or drop one")
    while True:
        where = str(reader.line_num + 1)
        cells = _cells(reader)
        if cells is None:
            break
        if not cells:
            continue
        broken = cells if isinstance(cells, str) else _fault(cells, len(header))
        if broken:
            row = Row(label, where, None, json.dumps(cells))
            account.bad_row(row, "row", "not a row of this CSV file", broken)
            continue
        values = {n: cell or None for n, cell in zip(header, cells, strict=True)}
        yield Row(label, where, values, same_columns=True)


def _fault(cells: list[str], columns: int) -> str:
    """What is wrong with a row's cells, or nothing."""
    if len(cells) != columns:
        return f"{len(cells)} cells for {columns} columns"
    try:
        "".join(cells).encode("utf-8")
    except UnicodeEncodeError:
        return "not UTF-8"
    return ""


def _cells(reader: Any) -> list[str] | str | None:
    """The next row's cells, what is wrong with it, or None at the end."""
    try:
        cells: list[str] | None = next(reader, None)
    except csv.Error as error:
        return str(error)
    return cells


def _parquet(path: Path) -> Iterator[tuple[Row, int]]:
    label, first, size = str(path), 1, path.stat().st_size
    try:
        with pq.ParquetFile(path) as file:
            rows = max(file.metadata.num_rows, 1)
            for batch in file.iter_batches(batch_size=4096):
                for number, data in enumerate(batch.to_pylist(), first):
                    # An Arrow map (usage_details) comes as a list of pairs.
                    row = Row(label, f"row {number}", _plain(data), same_columns=True)
                    yield row, size * number // rows
                first += batch.num_rows
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LogError(f"{label}: damaged Parquet file, or not one: {why}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, list):
        if value and all(
            isinstance(i, tuple) and len(i) == 2 and isinstance(i[0], str) for i in value
        ):
            return {name: _plain(item) for name, item in value}
        return [_plain(item) for item in value]
    return value
